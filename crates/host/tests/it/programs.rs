//! Running programs: output, exit, limits in time, cancellation, input, background.

use crate::world::{PATIENCE, World, assert_code, eventually, run_exec, sh, shell};
use greenroom_protocol::guest::call::{Call, CallErrorCode, Exec, KillReason, Reply};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

crate::scenarios_everywhere!(
    output_comes_before_the_exit,
    errors_are_kept_apart_unless_merged,
    time_limit_ends_the_whole_group,
    cancellation_ends_a_program_that_ignores_term,
    input_reaches_the_program,
    a_slow_reader_does_not_block_others,
    a_grandchild_does_not_hold_the_reply,
    background_processes_are_remembered,
    bad_programs_are_told_apart,
    orphans_are_reaped,
);

async fn output_comes_before_the_exit(world: &World) {
    let sandbox = world.start().await;
    let ran = sh(&sandbox, "seq 1 200000; exit 3").await;
    assert_eq!(ran.exit.code, Some(3));
    assert_eq!(ran.output.lines().count(), 200_000);
    assert!(ran.output.ends_with("\n200000\n"));
    let env = sh(&sandbox, "echo $HOME $USER; pwd; id -u").await.ok();
    assert_eq!(env, "/home/agent agent\n/workspace\n1000\n");
}

async fn errors_are_kept_apart_unless_merged(world: &World) {
    let sandbox = world.start().await;
    let (tx, mut rx) = mpsc::channel(16);
    let exec = Exec {
        is_merged: false,
        ..shell("echo out; echo err >&2")
    };
    let exit = sandbox.exec(exec, tx, CancellationToken::new()).await.unwrap();
    assert_eq!(exit.code, Some(0));
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while let Some(chunk) = rx.recv().await {
        if chunk.is_error_output {
            err.extend(chunk.bytes)
        } else {
            out.extend(chunk.bytes)
        }
    }
    assert_eq!(
        (out.as_slice(), err.as_slice()),
        (b"out\n".as_slice(), b"err\n".as_slice())
    );
}

async fn time_limit_ends_the_whole_group(world: &World) {
    let sandbox = world.start().await;
    let exec = Exec {
        timeout_ms: Some(200),
        ..shell("sleep 600 & sleep 600; echo never")
    };
    let ran = run_exec(&sandbox, exec).await.unwrap();
    assert_eq!(ran.exit.killed, Some(KillReason::TimedOut), "{ran:?}");
    eventually("both sleeps are gone", async || {
        let left = sh(&sandbox, "pgrep -c sleep || true").await.ok();
        (left.trim() == "0").then_some(())
    })
    .await;
}

async fn cancellation_ends_a_program_that_ignores_term(world: &World) {
    let sandbox = world.start().await;
    let (tx, mut rx) = mpsc::channel(16);
    let cancel = CancellationToken::new();
    let exec = shell("trap '' TERM; echo ready; while :; do sleep 1; done");
    let run = sandbox.exec(exec, tx, cancel.clone());
    let cancel_when_ready = async {
        assert_eq!(rx.recv().await.unwrap().bytes, b"ready\n");
        cancel.cancel();
        while rx.recv().await.is_some() {}
    };
    let (exit, ()) = tokio::join!(run, cancel_when_ready);
    let exit = exit.unwrap();
    assert_eq!(
        (exit.killed, exit.signal),
        (Some(KillReason::Cancelled), Some(9)),
        "{exit:?}"
    );
}

async fn input_reaches_the_program(world: &World) {
    let sandbox = world.start().await;
    let (input, feed) = mpsc::channel(4);
    let (tx, mut rx) = mpsc::channel(16);
    let exec = Exec {
        argv: vec!["/usr/bin/wc".to_owned(), "-c".to_owned()],
        ..Exec::default()
    };
    let total = 3_000_000;
    let send = async {
        for _ in 0..30 {
            input.send(vec![b'x'; total / 30]).await.unwrap();
        }
        drop(input);
    };
    let (exit, ()) = tokio::join!(
        sandbox.exec_with_input(exec, Some(feed), tx, CancellationToken::new()),
        send
    );
    assert_eq!(exit.unwrap().code, Some(0));
    assert_eq!(rx.recv().await.unwrap().bytes, format!("{total}\n").into_bytes());
}

async fn a_slow_reader_does_not_block_others(world: &World) {
    let sandbox = world.start().await;
    // Nothing is taken from this channel: the program stands still once window and pipe are full.
    let (tx, rx) = mpsc::channel(1);
    let cancel = CancellationToken::new();
    let flood = sandbox.exec(shell("yes"), tx, cancel.clone());
    let others = async {
        for _ in 0..20 {
            assert_eq!(sh(&sandbox, "echo fine").await.ok(), "fine\n");
        }
        cancel.cancel();
        drop(rx);
    };
    let (exit, ()) = tokio::join!(flood, others);
    assert_eq!(exit.unwrap().killed, Some(KillReason::Cancelled));
}

async fn a_grandchild_does_not_hold_the_reply(world: &World) {
    let sandbox = world.start().await;
    let run = run_exec(&sandbox, shell("sleep 600 & echo done"));
    let ran = tokio::time::timeout(PATIENCE, run)
        .await
        .expect("the reply does not wait for sleep")
        .unwrap();
    assert_eq!(ran.ok(), "done\n");
}

async fn background_processes_are_remembered(world: &World) {
    let sandbox = world.start().await;
    let id = sandbox.spawn(shell("echo one; sleep 600")).await.unwrap();
    let read = async |after| {
        let call = Call::ReadProcess {
            process_id: id,
            after_offset: after,
            max_bytes: 1000,
        };
        match sandbox.call(call).await.unwrap() {
            Reply::ProcessOutput {
                end_offset,
                output,
                exit,
                ..
            } => (end_offset, output, exit),
            other => panic!("{other:?}"),
        }
    };
    let end = eventually("its first line", async || {
        let (end, output, _) = read(0).await;
        (output == "one\n").then_some(end)
    })
    .await;
    assert_eq!(end, 4);
    let Reply::Processes { processes, .. } = sandbox.call(Call::ListProcesses).await.unwrap() else {
        panic!()
    };
    assert_eq!(processes.len(), 1);
    assert!(processes[0].exit.is_none());
    sandbox
        .call(Call::SignalProcess {
            process_id: id,
            signal: 15,
        })
        .await
        .unwrap();
    let exit = eventually("its end", async || read(end).await.2).await;
    assert_eq!(exit.signal, Some(15));
    assert_code(
        sandbox
            .call(Call::SignalProcess {
                process_id: 99,
                signal: 15,
            })
            .await,
        CallErrorCode::NotFound,
    );
}

async fn bad_programs_are_told_apart(world: &World) {
    let sandbox = world.start().await;
    let exec = |argv: &[&str], cwd: &str| Exec {
        argv: argv.iter().map(|text| (*text).to_owned()).collect(),
        cwd: cwd.to_owned(),
        ..Exec::default()
    };
    for (case, expected) in [
        (exec(&[], ""), CallErrorCode::Invalid),
        (exec(&["no-such-program"], ""), CallErrorCode::NotFound),
        (exec(&["/etc/passwd"], ""), CallErrorCode::PermissionDenied),
        (exec(&["true"], "no/such/dir"), CallErrorCode::NotFound),
        (exec(&["a\0b"], ""), CallErrorCode::Invalid),
        (exec(&["true", &"x".repeat(200_000)], ""), CallErrorCode::TooLarge),
        (exec(&["true", &"x".repeat(400_000)], ""), CallErrorCode::TooLarge),
    ] {
        let shown = format!("{:.60}", format!("{case:?}"));
        let result = run_exec(&sandbox, case).await;
        eprintln!("{shown}");
        if world.isolation.has_own_kernel() && expected == CallErrorCode::TooLarge && result.is_err() {
            // gVisor has another word for an argument that is too long.
            continue;
        }
        assert_code(result, expected);
    }
    assert_eq!(sh(&sandbox, "echo alive").await.ok(), "alive\n");
}

async fn orphans_are_reaped(world: &World) {
    let sandbox = world.start().await;
    sh(&sandbox, "for i in $(seq 50); do (sleep 0.01 &) ; done")
        .await
        .ok();
    eventually("no zombie is left", async || {
        let zombies = sh(
            &sandbox,
            "cat /proc/[0-9]*/stat 2>/dev/null | grep -c ' Z ' || true",
        )
        .await
        .ok();
        (zombies.trim() == "0").then_some(())
    })
    .await;
}
