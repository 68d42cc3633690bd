//! What guests and spawned programs may try against the host's own bookkeeping.

use crate::world::{World, fresh_id, open, sh};
use greenroom_host::refuse_routes;
use greenroom_protocol::guest::frame::{FrameKind, encode_header};
use greenroom_protocol::id::SandboxId;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;

crate::scenarios!(
    a_lying_guest_loses_only_its_link,
    links_in_the_upper_lead_nowhere_when_removed
);

/// A directory that looks like a running sandbox, with this test as its guest.
fn impostor(world: &World) -> (SandboxId, UnixListener) {
    let id = fresh_id();
    let directory = world.state.join("sb").join(id.as_str());
    std::fs::create_dir_all(&directory).unwrap();
    let listener = UnixListener::bind(directory.join("guest.sock")).unwrap();
    (id, listener)
}

async fn a_lying_guest_loses_only_its_link(world: &World) {
    let (id, listener) = impostor(world);
    let honest = world.start().await;
    let hello = br#"{"generation":1}"#;
    let frame = |kind, stream, payload: &[u8]| {
        [encode_header(kind, stream, payload.len()).as_slice(), payload].concat()
    };
    let mut huge = encode_header(FrameKind::Output, 1, 0).to_vec();
    huge[0] = 0xff;
    let lies: Vec<(&str, Vec<u8>)> = vec![
        ("huge frame", huge),
        ("unknown kind", {
            let mut f = frame(FrameKind::Output, 1, b"");
            f[4] = 99;
            f
        }),
        ("host's frame", frame(FrameKind::Call, 1, b"{}")),
        ("bad reply", frame(FrameKind::Reply, 1, b"not json")),
        ("odd route", frame(FrameKind::Open, 3, br#"{"route":"git"}"#)),
        ("malformed route", frame(FrameKind::Open, 2, b"[]")),
        (
            "too much data",
            (0..3)
                .flat_map(|_| frame(FrameKind::Output, 1, &vec![0; 256 * 1024]))
                .collect(),
        ),
    ];
    // The lock says that a supervisor lives: a child process holds it for the test.
    let lock = world.state.join("sb").join(id.as_str()).join("lock");
    std::fs::write(&lock, "").unwrap();
    let mut holder = std::process::Command::new("python3")
        .args(["-c", "import fcntl,sys,time\nf=open(sys.argv[1],'r+')\nfcntl.lockf(f,fcntl.LOCK_EX)\nprint('held',flush=True)\ntime.sleep(600)"])
        .arg(&lock)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut held = [0; 4];
    holder.stdout.as_mut().unwrap().read_exact(&mut held).unwrap();
    for (what, bytes) in lies {
        let greeting = frame(FrameKind::Hello, 0, hello);
        let accept = {
            let listener = listener.try_clone().unwrap();
            std::thread::spawn(move || {
                let (mut socket, _) = listener.accept().unwrap();
                socket.write_all(&greeting).unwrap();
                // The host's hello and its ping are out before the lie.
                let mut seen = [0; 1];
                for _ in 0..40 {
                    if socket.read(&mut seen).unwrap_or(0) == 0 {
                        return;
                    }
                }
                let _ = socket.write_all(&bytes);
                let mut rest = Vec::new();
                let _ = socket.read_to_end(&mut rest);
            })
        };
        let liar = world
            .host
            .find(&id, refuse_routes())
            .await
            .unwrap()
            .expect("it looks alive");
        let answer = liar.call(greenroom_protocol::guest::call::Call::Ping).await;
        assert!(answer.is_err(), "{what}: {answer:?}");
        let closed = tokio::time::timeout(crate::world::PATIENCE, liar.closed()).await;
        assert!(closed.is_ok(), "{what}: the link goes on");
        drop(liar);
        accept.join().unwrap();
    }
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert_eq!(sh(&honest, "echo alive").await.ok(), "alive\n");
}

async fn links_in_the_upper_lead_nowhere_when_removed(world: &World) {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("precious"), "x").unwrap();
    let sandbox = world.start().await;
    let target = outside.path().display().to_string();
    sh(
        &sandbox,
        &format!("ln -s {target} out; mkdir closed; ln -s {target} closed/out; chmod 0 closed"),
    )
    .await
    .ok();
    let other = open(&world.state).await;
    other.remove(sandbox.id()).await.unwrap();
    assert!(outside.path().join("precious").exists());
}
