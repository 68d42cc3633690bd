//! Guests that lie to their host, and hosts that lie to a guest. A lie may cost the liar its link; it costs nobody else
//! anything, and no memory.

use crate::impostor::{Impostor, Peer, frame};
use crate::world::{PATIENCE, World, eventually, sh};
use greenroom_host::{RouteHandler, Sandbox, SandboxError, refuse_routes};
use greenroom_protocol::GUEST_GENERATION;
use greenroom_protocol::guest::call::{Call, Exec, Reply, Scope};
use greenroom_protocol::guest::frame::{FrameKind, MAX_PAYLOAD_BYTES, encode_header};
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

crate::scenarios!(
    a_lying_guest_loses_only_its_link,
    answers_to_nobody_are_passed_over,
    answers_of_the_wrong_kind_are_refused,
    a_guest_that_never_answers_holds_up_nobody,
    floods_are_bounded,
    routes_beyond_the_bound_are_refused,
    routes_without_number_end_the_link,
    a_lying_host_loses_only_its_link,
    a_host_that_floods_a_guest_is_bounded,
);

/// Memory that may be kept after something that must not be kept.
const MEMORY_NOISE_BYTES: u64 = 96 << 20;

fn memory_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

fn nested(open: &str, depth: usize) -> Vec<u8> {
    open.repeat(depth).into_bytes()
}

/// What a guest may say instead of an answer on stream 1, and breaks the protocol with.
fn lies() -> Vec<(&'static str, Vec<u8>)> {
    let mut huge = encode_header(FrameKind::Output, 1, 0).to_vec();
    huge[0] = 0xff;
    let mut unknown = frame(FrameKind::Output, 1, b"");
    unknown[4] = 99;
    let reply = |json: &[u8]| frame(FrameKind::Reply, 1, json);
    let route = |stream, json: &[u8]| frame(FrameKind::Open, stream, json);
    let git = br#"{"route":"git"}"#;
    vec![
        ("a huge frame", huge),
        ("an unknown kind", unknown),
        ("a host's frame", frame(FrameKind::Call, 1, b"{}")),
        ("another host's frame", frame(FrameKind::Input, 1, b"x")),
        (
            "a second hello",
            frame(FrameKind::Hello, 1, br#"{"generation":1}"#),
        ),
        ("no JSON", reply(b"not json")),
        ("an unknown reply", reply(br#"{"reply":"bribe"}"#)),
        ("deep arrays", reply(&nested("[", MAX_PAYLOAD_BYTES))),
        ("deep objects", reply(&nested(r#"{"a":"#, 50_000))),
        ("deep below a reply", {
            let mut json = br#"{"reply":"done","x":"#.to_vec();
            json.extend(nested("[", 100_000));
            reply(&json)
        }),
        (
            "huge numbers",
            reply(format!(r#"{{"reply":"started","process_id":{}}}"#, "9".repeat(200_000)).as_bytes()),
        ),
        (
            "an endless exponent",
            reply(br#"{"reply":"started","process_id":1e999999999}"#),
        ),
        (
            "half a string",
            reply(format!(r#"{{"reply":"done","x":"{}"#, "y".repeat(200_000)).as_bytes()),
        ),
        ("an odd route", route(3, git)),
        ("the route 0", route(0, git)),
        ("a malformed route", route(2, b"[]")),
        ("an unknown route", route(2, br#"{"route":"moon"}"#)),
        ("a route twice", [route(2, git), route(2, git)].concat()),
        ("half a credit", frame(FrameKind::Credit, 1, b"12")),
        (
            "data beyond the window",
            (0..3)
                .flat_map(|_| frame(FrameKind::Output, 1, &vec![0; MAX_PAYLOAD_BYTES]))
                .collect(),
        ),
        (
            "data after the end",
            [frame(FrameKind::End, 1, b""), frame(FrameKind::Output, 1, b"x")].concat(),
        ),
        (
            "two ends",
            [frame(FrameKind::End, 1, b""), frame(FrameKind::End, 1, b"")].concat(),
        ),
        (
            "half a header",
            encode_header(FrameKind::Output, 1, 9)[..5].to_vec(),
        ),
        (
            "half a frame",
            frame(FrameKind::Output, 1, b"123456789")[..12].to_vec(),
        ),
    ]
}

async fn a_lying_guest_loses_only_its_link(world: &World) {
    let impostor = Impostor::new(world);
    let honest = world.start().await;
    let before = memory_bytes();
    for (what, bytes) in lies() {
        let guest = impostor.serve(move |mut peer| {
            peer.hello(GUEST_GENERATION);
            // Stream 1 is open before the lie.
            if peer.next_call().is_some() {
                let _ = peer.0.write_all(&bytes);
                // What is cut off in the middle is the end.
                let _ = peer.0.shutdown(std::net::Shutdown::Write);
                peer.drain();
            }
        });
        let liar = impostor.find(world).await.unwrap();
        let answer = timeout(PATIENCE, liar.call(Call::Ping)).await.expect(what);
        assert!(answer.is_err(), "{what}: {answer:?}");
        timeout(PATIENCE, liar.closed())
            .await
            .unwrap_or_else(|_| panic!("{what}: the link goes on"));
        drop(liar);
        guest.join().unwrap();
        assert_eq!(honest.call(Call::Ping).await.unwrap(), Reply::Done, "{what}");
    }
    assert_eq!(sh(&honest, "echo alive").await.ok(), "alive\n");
    let grown = memory_bytes().saturating_sub(before);
    assert!(grown < MEMORY_NOISE_BYTES, "{grown} bytes are kept");
}

async fn answers_to_nobody_are_passed_over(world: &World) {
    let impostor = Impostor::new(world);
    let guest = impostor.serve(|mut peer| {
        peer.hello(GUEST_GENERATION);
        let mut last = 1;
        while let Some((stream, call)) = peer.next_call() {
            // To streams that never were, that will be, and again to the one before.
            for other in [0, 2, stream + 2, stream + 1000, u32::MAX, last.min(stream - 1)] {
                for kind in [
                    FrameKind::Reply,
                    FrameKind::Output,
                    FrameKind::End,
                    FrameKind::Reset,
                ] {
                    peer.send(kind, other, br#"{"reply":"started","process_id":666}"#);
                }
                peer.send(FrameKind::Credit, other, &[0xff; 4]);
            }
            let reply = match call {
                Call::SignalProcess { process_id, .. } => Reply::Started { process_id },
                _ => Reply::Done,
            };
            peer.reply(stream, &reply);
            last = stream;
        }
    });
    let liar = impostor.find(world).await.unwrap();
    for process_id in 0..200 {
        let call = Call::SignalProcess {
            process_id,
            signal: 1,
        };
        let answer = timeout(PATIENCE, liar.call(call))
            .await
            .expect("in time")
            .unwrap();
        assert_eq!(answer, Reply::Started { process_id });
    }
    drop(liar);
    guest.join().unwrap();
}

/// Every call with a way of its own, against a guest that answers it wrongly.
async fn try_all(liar: &Sandbox, number: usize) -> Result<(), SandboxError> {
    let exec = || Exec {
        argv: vec!["true".to_owned()],
        ..Exec::default()
    };
    let (output, _printed) = mpsc::channel(1);
    let cancel = CancellationToken::new();
    match number {
        0 => liar.read_file("a", Scope::Workspace, 0, 10).await.map(drop),
        1 => liar.write_file("a", Scope::Workspace, vec![1; 2_000_000]).await,
        2 => liar.exec(exec(), output, cancel).await.map(drop),
        3 => liar.spawn(exec()).await.map(drop),
        4 => liar.watch("", Scope::Workspace).await.map(drop),
        5 => liar.forward(80).await.map(drop),
        6 => liar.attach(1, 0).await.map(drop),
        _ => liar.processes().await.map(drop),
    }
}

async fn answers_of_the_wrong_kind_are_refused(world: &World) {
    let impostor = Impostor::new(world);
    let wrong: Vec<(&str, Vec<Vec<u8>>)> = vec![
        ("a reply of no use", {
            let usage = br#"{"reply":"process_usage","cpu_ms":1,"peak_memory_bytes":1,"processes":1}"#;
            vec![frame(FrameKind::Reply, 1, usage)]
        }),
        (
            "data before any reply",
            vec![frame(FrameKind::Output, 1, b"x"), frame(FrameKind::Reset, 1, b"")],
        ),
        ("an end before any reply", vec![frame(FrameKind::End, 1, b"")]),
        ("a reset", vec![frame(FrameKind::Reset, 1, b"")]),
    ];
    for (what, frames) in wrong {
        for number in 0..8 {
            let frames = frames.concat();
            let guest = impostor.serve(move |mut peer| {
                peer.hello(GUEST_GENERATION);
                if peer.next_call().is_some() {
                    let _ = peer.0.write_all(&frames);
                }
                peer.drain();
            });
            let liar = impostor.find(world).await.unwrap();
            let result = timeout(PATIENCE, try_all(&liar, number)).await;
            let error = result.unwrap_or_else(|_| panic!("{what}, {number}: no end"));
            assert!(
                matches!(error, Err(SandboxError::Lost(_))),
                "{what}, {number}: {error:?}"
            );
            drop(liar);
            guest.join().unwrap();
        }
    }
    // More of a file than was asked for, and changes that are none.
    let guest = impostor.serve(|mut peer| {
        peer.hello(GUEST_GENERATION);
        peer.next_call();
        let file = br#"{"reply":"file","size_bytes":1,"is_executable":false}"#;
        peer.send(FrameKind::Reply, 1, file);
        peer.send(FrameKind::Output, 1, &[0; 100]);
        peer.drain();
    });
    let liar = impostor.find(world).await.unwrap();
    assert!(matches!(try_all(&liar, 0).await, Err(SandboxError::Lost(_))));
    guest.join().unwrap();
    for line in [b"{}\n".to_vec(), vec![b'['; 2 * MAX_PAYLOAD_BYTES - 1]] {
        let guest = impostor.serve(move |mut peer| {
            peer.hello(GUEST_GENERATION);
            if let Some((stream, _)) = peer.next_call() {
                peer.reply(stream, &Reply::Done);
                for piece in line.chunks(MAX_PAYLOAD_BYTES) {
                    peer.send(FrameKind::Output, stream, piece);
                }
            }
            peer.drain();
        });
        let liar = impostor.find(world).await.unwrap();
        let mut changes = liar.watch("", Scope::Workspace).await.unwrap();
        let next = timeout(PATIENCE, changes.next()).await.expect("in time");
        assert!(matches!(next, Err(SandboxError::Lost(_))), "{next:?}");
        drop((changes, liar));
        guest.join().unwrap();
    }
}

async fn a_guest_that_never_answers_holds_up_nobody(world: &World) {
    let impostor = Impostor::new(world);
    let honest = world.start().await;
    let tasks_before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let (hang_up, wait) = std::sync::mpsc::channel::<()>();
    // Says hello and then neither speaks nor reads.
    let guest = impostor.serve(move |mut peer| {
        peer.hello(GUEST_GENERATION);
        let _ = wait.recv();
    });
    let liar = impostor.find(world).await.unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..200 {
        let liar = liar.clone();
        calls.spawn(async move { try_all(&liar, number % 8).await });
    }
    assert_eq!(sh(&honest, "echo alive").await.ok(), "alive\n");
    // Callers that lose patience cost nothing for long.
    for number in 0..8 {
        let _ = timeout(std::time::Duration::from_millis(10), try_all(&liar, number)).await;
    }
    drop(hang_up);
    guest.join().unwrap();
    for result in timeout(PATIENCE, calls.join_all()).await.expect("all end") {
        assert!(matches!(result, Err(SandboxError::Lost(_))), "{result:?}");
    }
    drop(liar);
    eventually("the tasks of the host end", async || {
        (tokio::runtime::Handle::current().metrics().num_alive_tasks() <= tasks_before).then_some(())
    })
    .await;
    // One that does not even say hello.
    let guest = impostor.serve(|peer| peer.drain());
    let found = timeout(PATIENCE, impostor.find(world)).await.expect("in time");
    assert!(found.is_err());
    guest.join().unwrap();
    assert_eq!(sh(&honest, "echo alive").await.ok(), "alive\n");
}

async fn floods_are_bounded(world: &World) {
    let impostor = Impostor::new(world);
    let honest = world.start().await;
    let before = memory_bytes();
    let unread = |kinds: &'static [FrameKind], len: usize, stream: u32| {
        move |peer: &mut Peer| {
            let many: Vec<u8> = (0..4096 / (len + 1))
                .flat_map(|_| kinds.iter().flat_map(|kind| frame(*kind, stream, &vec![0; len])))
                .collect();
            for _ in 0..200 {
                if peer.0.write_all(&many).is_err() {
                    return;
                }
            }
        }
    };
    // A window full of frames of one byte that cannot be joined: three streams, nobody reads them.
    let alternating = |peer: &mut Peer| {
        for stream in [1, 3, 5] {
            peer.reply(stream, &Reply::Started { process_id: 1 });
            let pair = [
                frame(FrameKind::Output, stream, b"o"),
                frame(FrameKind::ErrorOutput, stream, b"e"),
            ]
            .concat();
            let _ = peer.0.write_all(&pair.repeat(256 * 1024));
        }
    };
    type Flood = Box<dyn FnOnce(&mut Peer) + Send>;
    let floods: Vec<(&str, Flood)> = vec![
        ("alternating bytes", Box::new(alternating)),
        (
            "empty frames",
            Box::new(unread(&[FrameKind::Output, FrameKind::ErrorOutput], 0, 1)),
        ),
        ("credit", Box::new(unread(&[FrameKind::Credit], 4, 1))),
        (
            "frames for nobody",
            Box::new(unread(&[FrameKind::Output], 255, 77)),
        ),
        ("resets", Box::new(unread(&[FrameKind::Reset], 0, 3))),
        ("replies for nobody", Box::new(unread(&[FrameKind::Reply], 1, 99))),
    ];
    for (what, flood) in floods {
        let guest = impostor.serve(|mut peer| {
            peer.hello(GUEST_GENERATION);
            for _ in 0..3 {
                peer.next_call();
            }
            flood(&mut peer);
            let _ = peer.0.shutdown(std::net::Shutdown::Write);
            peer.drain();
        });
        let liar = impostor.find(world).await.unwrap();
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..3 {
            let liar = liar.clone();
            calls.spawn(async move {
                let (output, _unread) = mpsc::channel(1);
                let exec = Exec {
                    argv: vec!["x".to_owned()],
                    key: Some("k".to_owned()),
                    ..Exec::default()
                };
                liar.exec(exec, output, CancellationToken::new()).await
            });
        }
        while liar.call(Call::Ping).await.is_ok() {}
        assert_eq!(sh(&honest, "echo alive").await.ok(), "alive\n", "{what}");
        calls.shutdown().await;
        drop(liar);
        guest.join().unwrap();
    }
    let grown = memory_bytes().saturating_sub(before);
    assert!(grown < MEMORY_NOISE_BYTES, "{grown} bytes are kept");
}

async fn routes_beyond_the_bound_are_refused(world: &World) {
    let impostor = Impostor::new(world);
    let open = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let (count, peak) = (Arc::clone(&open), Arc::clone(&most));
    let routes: RouteHandler = Arc::new(move |_, stream| {
        let now = count.fetch_add(1, Ordering::SeqCst) + 1;
        peak.fetch_max(now, Ordering::SeqCst);
        let count = Arc::clone(&count);
        tokio::spawn(async move {
            let mut stream = stream;
            // Until the guest gives it up.
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            count.fetch_sub(1, Ordering::SeqCst);
        });
    });
    let guest = impostor.serve(|mut peer| {
        peer.hello(GUEST_GENERATION);
        let mut refused = 0;
        for number in 1..=1000_u32 {
            peer.send(FrameKind::Open, 2 * number, br#"{"route":"git"}"#);
            if number > 300 {
                // One that listens hears that it is refused.
                while let Some((kind, stream, _)) = peer.next() {
                    refused += u32::from(kind == FrameKind::Reset);
                    if (kind, stream) == (FrameKind::Reset, 2 * number) {
                        break;
                    }
                }
            }
        }
        // The call came in between.
        peer.reply(1, &Reply::Done);
        peer.drain();
        refused
    });
    let liar = impostor.find_with(world, routes).await.unwrap();
    assert_eq!(
        timeout(PATIENCE, liar.call(Call::Ping)).await.unwrap().unwrap(),
        Reply::Done
    );
    let most = most.load(Ordering::SeqCst);
    assert!((64..=200).contains(&most), "{most} were open at once");
    drop(liar);
    assert!(guest.join().unwrap() >= 700);
    eventually("the routes end with their link", async || {
        (open.load(Ordering::SeqCst) == 0).then_some(())
    })
    .await;
}

async fn routes_without_number_end_the_link(world: &World) {
    let impostor = Impostor::new(world);
    let served = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&served);
    let routes: RouteHandler = Arc::new(move |_, stream| {
        count.fetch_add(1, Ordering::SeqCst);
        // Kept open until the link ends.
        tokio::spawn(async move {
            let mut stream = stream;
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        });
    });
    let before = memory_bytes();
    // Hears of no refusal, so that the host has all of them to tell still.
    let guest = impostor.serve(|mut peer| {
        peer.hello(GUEST_GENERATION);
        let mut opened = 0_u32;
        while opened < 100_000 && peer.send(FrameKind::Open, 2 * (opened + 1), br#"{"route":"git"}"#) {
            opened += 1;
        }
        opened
    });
    let liar = impostor.find_with(world, routes).await.unwrap();
    timeout(PATIENCE, liar.closed()).await.expect("the link ends");
    let opened = guest.join().unwrap();
    // As many as there may be at once, and those whose refusal went into the sockets' buffers.
    assert!((768..20_000).contains(&opened), "{opened} were opened");
    let served = served.load(Ordering::SeqCst);
    // 64 for each port, less those that were still to be begun when the link ended.
    assert!((1..=192).contains(&served), "{served} were served");
    assert!(matches!(liar.call(Call::Ping).await, Err(SandboxError::Lost(_))));
    let grown = memory_bytes().saturating_sub(before);
    assert!(grown < MEMORY_NOISE_BYTES, "{grown} bytes are kept");
    let honest = world.start().await;
    assert_eq!(sh(&honest, "echo alive").await.ok(), "alive\n");
}

async fn guest_memory_kib(sandbox: &Sandbox) -> u64 {
    let status = sh(sandbox, "grep VmRSS /proc/1/status").await.ok();
    status.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A link to the guest after what was done to the last one.
async fn again(world: &World, sandbox: &Sandbox) -> Sandbox {
    let found = world.host.find(sandbox.id(), refuse_routes()).await.unwrap();
    found.expect("it runs")
}

async fn a_lying_host_loses_only_its_link(world: &World) {
    let sandbox = world.start().await;
    sandbox
        .spawn(Exec {
            argv: ["sleep", "1000"].map(str::to_owned).to_vec(),
            ..Exec::default()
        })
        .await
        .unwrap();
    let call = |json: &[u8]| frame(FrameKind::Call, 3, json);
    let write = br#"{"call":"write_file","path":"x","scope":"workspace","is_executable":false}"#;
    let mut huge = encode_header(FrameKind::Input, 1, 0).to_vec();
    huge[0] = 0xff;
    let mut unknown = frame(FrameKind::Input, 1, b"");
    unknown[4] = 99;
    // What ends the link, and what is answered or passed over.
    let fatal: Vec<(&str, Vec<u8>)> = vec![
        ("a huge frame", huge),
        ("an unknown kind", unknown),
        ("an even call", frame(FrameKind::Call, 2, br#"{"call":"ping"}"#)),
        (
            "a stream twice",
            [call(write), call(write)].concat(),
        ),
        (
            "a guest's frame",
            [call(write), frame(FrameKind::Reply, 3, b"{}")].concat(),
        ),
        (
            "half a credit",
            [call(write), frame(FrameKind::Credit, 3, b"123")].concat(),
        ),
        (
            "data beyond the window",
            [
                frame(FrameKind::Call, 3, br#"{"call":"exec","argv":["sleep","1000"],"cwd":"","env":[],"has_input":true,"is_merged":true,"timeout_ms":null,"is_background":false}"#),
                frame(FrameKind::Input, 3, &vec![0; MAX_PAYLOAD_BYTES]).repeat(4),
            ]
            .concat(),
        ),
        ("half a frame", frame(FrameKind::Input, 1, b"123456789")[..12].to_vec()),
    ];
    for (what, bytes) in fatal {
        let mut peer = Peer::connect(world, sandbox.id());
        peer.hello(GUEST_GENERATION);
        let _ = peer.0.write_all(&bytes);
        let _ = peer.0.shutdown(std::net::Shutdown::Write);
        peer.0.set_read_timeout(Some(PATIENCE)).unwrap();
        while peer.next().is_some() {}
        let found = again(world, &sandbox).await;
        assert_eq!(sh(&found, "echo alive").await.ok(), "alive\n", "{what}");
    }
    let passed: Vec<(&str, Vec<u8>)> = vec![
        ("no JSON", call(b"nonsense")),
        ("deep arrays", call(&nested("[", MAX_PAYLOAD_BYTES))),
        ("deep objects", call(&nested(r#"{"call":"#, 30_000))),
        (
            "a name as long as a frame",
            call(format!(r#"{{"call":"{}"}}"#, "x".repeat(250_000)).as_bytes()),
        ),
        (
            "a path as long as a frame, that grows when it is shown",
            call(format!(r#"{{"call":"stat","path":"{}","scope":"sandbox"}}"#, r"\u0001".repeat(43_000)).as_bytes()),
        ),
        (
            "a program as long as a frame",
            call(
                format!(
                    r#"{{"call":"exec","argv":["{}"],"cwd":"","env":[],"has_input":false,"is_merged":true,"timeout_ms":null,"is_background":false}}"#,
                    r"\u0001".repeat(43_000)
                )
                .as_bytes(),
            ),
        ),
    ];
    for (what, bytes) in passed {
        let mut peer = Peer::connect(world, sandbox.id());
        peer.hello(GUEST_GENERATION);
        for kind in [
            FrameKind::Input,
            FrameKind::End,
            FrameKind::Cancel,
            FrameKind::Credit,
            FrameKind::Reset,
        ] {
            peer.send(kind, 77, b"1234");
        }
        let _ = peer.0.write_all(&bytes);
        peer.0.set_read_timeout(Some(PATIENCE)).unwrap();
        let reply = peer.next_reply(3);
        assert!(matches!(reply, Some(Reply::Failed(_))), "{what}: {reply:?}");
        peer.call(5, &Call::Ping);
        assert_eq!(peer.next_reply(5), Some(Reply::Done), "{what}");
    }
    let found = again(world, &sandbox).await;
    let running = found.processes().await.unwrap();
    assert!(
        running[0].exit.is_none(),
        "what ran in the background noticed nothing"
    );
}

async fn a_host_that_floods_a_guest_is_bounded(world: &World) {
    let sandbox = world.start().await;
    let before = guest_memory_kib(&sandbox).await;
    let id = sandbox.id().clone();
    let write = Call::WriteFile {
        path: "x".to_owned(),
        scope: Scope::Workspace,
        is_executable: false,
    };
    let mut peer = Peer::connect(world, &id);
    peer.hello(GUEST_GENERATION);
    peer.0.set_read_timeout(Some(PATIENCE)).unwrap();
    // More calls than may be open: the rest are refused, none is lost.
    for number in 0..1000_u32 {
        assert!(peer.call(2 * number + 1, &write));
    }
    let last = 2 * 999 + 1;
    assert!(matches!(peer.next_reply(last), Some(Reply::Failed(_))));
    // Bytes one by one, into the window of one that nobody gave up.
    let byte = frame(FrameKind::Input, 1, b"x").repeat(1000);
    for _ in 0..100 {
        peer.0.write_all(&byte).unwrap();
    }
    peer.send(FrameKind::End, 1, b"");
    assert_eq!(peer.next_reply(1), Some(Reply::Done));
    drop(peer);
    let found = again(world, &sandbox).await;
    assert_eq!(sh(&found, "wc -c < x").await.ok().trim(), "100000");
    sh(&found, "head -c 50000000 /dev/zero > big").await.ok();
    drop(found);
    // Asks for much and reads nothing of it.
    let mut peer = Peer::connect(world, &id);
    peer.hello(GUEST_GENERATION);
    for number in 0..100_u32 {
        let call = Call::ReadFile {
            path: "big".to_owned(),
            scope: Scope::Workspace,
            offset: 0,
            max_bytes: u64::MAX,
        };
        peer.call(2 * number + 1, &call);
        peer.send(FrameKind::Credit, 2 * number + 1, &[0xff; 4]);
    }
    drop(peer);
    let found = again(world, &sandbox).await;
    // Threads of given up calls are gone, and with them their memory.
    eventually("the guest forgets the given up calls", async || {
        let threads = sh(&found, "grep Threads /proc/1/status").await.ok();
        let threads: u32 = threads.split_whitespace().nth(1)?.parse().ok()?;
        (threads < 20).then_some(())
    })
    .await;
    let grown = guest_memory_kib(&found).await.saturating_sub(before);
    assert!(grown < 64 << 10, "the guest kept {grown} KiB");
    let left = sh(&found, "ls -A").await.ok();
    assert!(!left.contains("draft"), "given up writes leave nothing: {left}");
}
