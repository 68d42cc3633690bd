//! Readers that do not read: each holds up its own stream and nothing else.

use crate::world::{PATIENCE, World, fresh_id, sh, shell};
use greenroom_protocol::guest::GIT_PORT;
use greenroom_protocol::guest::call::{Call, Exec, Grep, Reply, Scope};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

crate::scenarios_on_each_kernel!(readers_that_do_not_read_hold_up_nobody);

async fn readers_that_do_not_read_hold_up_nobody(world: &World) {
    // A broker that takes connections and never reads or writes them.
    let kept = Arc::new(std::sync::Mutex::new(Vec::new()));
    let taken = Arc::new(AtomicUsize::new(0));
    let (keep, count) = (Arc::clone(&kept), Arc::clone(&taken));
    let routes: greenroom_host::RouteHandler = Arc::new(move |_, stream| {
        count.fetch_add(1, Ordering::SeqCst);
        keep.lock().unwrap().push(stream);
    });
    let sandbox = world
        .host
        .start(world.with_routes(&fresh_id(), routes))
        .await
        .unwrap();
    sh(
        &sandbox,
        "head -c 30000000 /dev/zero | tr '\\0' 'a' | fold -w 100 > big; mkdir watched",
    )
    .await
    .ok();
    let background = |script: String| Exec {
        is_background: true,
        ..shell(&script)
    };
    // Inside: writes to the broker for ever; a server that never reads; one that never stops writing.
    let python = |body: &str| background(format!("exec python3 -c \"{body}\""));
    sandbox
        .spawn(python(&format!(
            "import socket\ns=socket.create_connection(('127.0.0.1',{GIT_PORT}))\nwhile True: s.sendall(b'x'*65536)"
        )))
        .await
        .unwrap();
    for (port, work) in [
        (8000, "import time\ntime.sleep(1000)"),
        (8001, "while True: s.sendall(b'y'*65536)"),
    ] {
        sandbox
            .spawn(python(&format!(
                "import socket\nl=socket.create_server(('127.0.0.1',{port}))\ns,_=l.accept()\n{work}"
            )))
            .await
            .unwrap();
    }
    let mut unread = Vec::new();
    for port in [8000, 8001] {
        unread.push(
            crate::world::eventually("the server listens", async || sandbox.forward(port).await.ok()).await,
        );
    }
    // Outside: output nobody takes, twice; input nobody inside takes; a file that is not read on; changes nobody looks at.
    let (output, _untaken) = mpsc::channel(1);
    let (merged, _untaken_too) = mpsc::channel(1);
    let cancel = CancellationToken::new();
    let (feed, input) = mpsc::channel(1);
    let mut stuck = tokio::task::JoinSet::new();
    let talk = {
        let (sandbox, cancel) = (sandbox.clone(), cancel.clone());
        async move {
            let script = "while true; do echo out; echo err >&2; done";
            let exec = Exec {
                is_merged: false,
                ..shell(script)
            };
            let _ = sandbox.exec(exec, output, cancel).await;
        }
    };
    stuck.spawn(talk);
    let listen = {
        let (sandbox, cancel) = (sandbox.clone(), cancel.clone());
        async move {
            let _ = sandbox
                .exec_with_input(shell("cat big & sleep 1000"), Some(input), merged, cancel)
                .await;
        }
    };
    stuck.spawn(listen);
    stuck.spawn(async move { while feed.send(vec![b'z'; 200_000]).await.is_ok() {} });
    let mut unlooked = sandbox.watch("watched", Scope::Workspace).await.unwrap();
    sandbox
        .spawn(background(
            "while true; do touch watched/$(date +%N); done".to_owned(),
        ))
        .await
        .unwrap();
    let mut never_read = unread.remove(0);
    stuck.spawn(async move { while never_read.write_all(&[b'w'; 65536]).await.is_ok() {} });
    // A read that is begun and not gone on with: polled until its first bytes are on their way.
    let mut reading = Box::pin(sandbox.read_file("big", Scope::Workspace, 0, u64::MAX));
    let _ = timeout(std::time::Duration::from_millis(5), &mut reading).await;
    crate::world::eventually("the broker has its connection", async || {
        (taken.load(Ordering::SeqCst) > 0).then_some(())
    })
    .await;
    // All of them are stuck or about to be. Everyone else goes on.
    let everyone = async {
        for number in 0..50 {
            assert_eq!(sandbox.call(Call::Ping).await.unwrap(), Reply::Done);
            let echoed = sh(&sandbox, &format!("echo {number}")).await.ok();
            assert_eq!(echoed.trim(), number.to_string());
        }
        sandbox
            .write_file("other", Scope::Workspace, vec![b'o'; 3_000_000])
            .await
            .unwrap();
        let read = sandbox
            .read_file("other", Scope::Workspace, 0, u64::MAX)
            .await
            .unwrap();
        assert_eq!(read.bytes.len(), 3_000_000);
        let grep = Grep {
            path: "big".to_owned(),
            scope: Scope::Workspace,
            pattern: "a".to_owned(),
            is_case_insensitive: false,
            glob: None,
            context_lines: 0,
            max_matches: u32::MAX,
        };
        let Reply::Matches { lines, is_truncated } = sandbox.call(Call::Grep(grep)).await.unwrap() else {
            panic!()
        };
        assert!(is_truncated && lines.len() > 500);
    };
    timeout(PATIENCE * 3, everyone).await.expect("nobody is held up");
    // What was not read is there when it is.
    assert_eq!(reading.await.unwrap().bytes.len(), 30_299_999);
    let batch = timeout(PATIENCE, unlooked.next())
        .await
        .expect("in time")
        .unwrap()
        .unwrap();
    assert!(!batch.changes.is_empty());
    cancel.cancel();
    stuck.abort_all();
}
