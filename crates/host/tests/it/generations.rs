//! Hosts and guests of neighbouring generations understand each other; too old ones are told apart at once.

use crate::impostor::{Impostor, Peer};
use crate::world::{World, assert_code};
use greenroom_host::refuse_routes;
use greenroom_protocol::guest::call::{Call, CallErrorCode, Exec, Reply, TerminalSize};
use greenroom_protocol::guest::frame::FrameKind;
use greenroom_protocol::{GUEST_GENERATION, OLDEST_GUEST_GENERATION};

crate::scenarios_on_each_kernel!(
    a_host_serves_guests_of_neighbouring_generations,
    a_guest_serves_hosts_of_neighbouring_generations,
    a_host_that_says_hello_late_was_taken_over,
);

/// Rounds of a race that is lost only sometimes.
const ROUNDS: usize = 30;

fn newer_calls() -> Vec<Call> {
    vec![
        Call::MeasureProcesses,
        Call::ListServices,
        Call::Attach {
            process_id: 1,
            after_offset: 0,
        },
        Call::Exec(Exec {
            argv: vec!["true".to_owned()],
            is_background: true,
            terminal: Some(TerminalSize { rows: 1, columns: 1 }),
            ..Exec::default()
        }),
    ]
}

async fn a_host_serves_guests_of_neighbouring_generations(world: &World) {
    let impostor = Impostor::new(world);
    // What the guest says it speaks, and what is spoken then.
    for (theirs, spoken) in [
        (OLDEST_GUEST_GENERATION, OLDEST_GUEST_GENERATION),
        (GUEST_GENERATION, GUEST_GENERATION),
        (GUEST_GENERATION + 1, GUEST_GENERATION),
    ] {
        let guest = impostor.serve(move |mut peer| {
            peer.hello(theirs);
            let mut seen = Vec::new();
            while let Some((stream, call)) = peer.next_call() {
                seen.push(call);
                peer.reply(stream, &Reply::Done);
            }
            seen
        });
        let sandbox = impostor.find(world).await.unwrap();
        assert_eq!(sandbox.generation(), spoken);
        assert_eq!(sandbox.call(Call::Ping).await.unwrap(), Reply::Done);
        if spoken < GUEST_GENERATION {
            for call in newer_calls() {
                assert_code(sandbox.call(call).await, CallErrorCode::Unsupported);
            }
        }
        // The link is as good as before.
        assert_eq!(sandbox.call(Call::Ping).await.unwrap(), Reply::Done);
        drop(sandbox);
        let seen = guest.join().unwrap();
        assert_eq!(seen, [Call::Ping, Call::Ping], "generation {theirs}");
    }
    let guest = impostor.serve(|mut peer| {
        peer.hello(OLDEST_GUEST_GENERATION - 1);
        peer.drain();
    });
    assert!(impostor.find(world).await.is_err(), "a guest that is too old");
    guest.join().unwrap();
}

async fn a_guest_serves_hosts_of_neighbouring_generations(world: &World) {
    let sandbox = world.start().await;
    let id = sandbox.id().clone();
    let refused = |peer: &mut Peer| {
        peer.send(FrameKind::Call, 3, br#"{"call":"foresee","years":3}"#);
        match peer.next_reply(3) {
            Some(Reply::Failed(error)) => error.code,
            other => panic!("{other:?}"),
        }
    };
    for (ours, unknown) in [
        (OLDEST_GUEST_GENERATION, CallErrorCode::Invalid),
        (GUEST_GENERATION, CallErrorCode::Invalid),
        // Only a newer host can mean something by it.
        (GUEST_GENERATION + 1, CallErrorCode::Unsupported),
    ] {
        let mut peer = Peer::connect(world, &id);
        peer.hello(ours);
        let (kind, _, hello) = peer.next().unwrap();
        assert_eq!(kind, FrameKind::Hello);
        assert_eq!(
            String::from_utf8(hello).unwrap(),
            format!(r#"{{"generation":{GUEST_GENERATION}}}"#)
        );
        assert_eq!(refused(&mut peer), unknown, "generation {ours}");
        peer.call(5, &Call::Ping);
        assert_eq!(peer.next_reply(5), Some(Reply::Done), "generation {ours}");
    }
    let mut peer = Peer::connect(world, &id);
    peer.hello(OLDEST_GUEST_GENERATION - 1);
    assert!(matches!(peer.next(), Some((FrameKind::Hello, ..))));
    assert_eq!(peer.next(), None, "a host that is too old");
    // The newest link that said hello is the one; the first was taken over.
    tokio::time::timeout(crate::world::PATIENCE, sandbox.closed())
        .await
        .unwrap();
}

async fn a_host_that_says_hello_late_was_taken_over(world: &World) {
    let sandbox = world.start().await;
    for round in 0..ROUNDS {
        let mut late = Peer::connect(world, sandbox.id());
        let mut newer = Peer::connect(world, sandbox.id());
        newer.hello(GUEST_GENERATION);
        newer.call(1, &Call::Ping);
        assert_eq!(newer.next_reply(1), Some(Reply::Done));
        // Nobody is there any more, and yet the other one is not the newest.
        drop(newer);
        late.hello(GUEST_GENERATION);
        late.call(1, &Call::Ping);
        assert_eq!(late.next_reply(1), None, "round {round}");
    }
    let found = world
        .host
        .find(sandbox.id(), refuse_routes())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(found.call(Call::Ping).await.unwrap(), Reply::Done);
}
