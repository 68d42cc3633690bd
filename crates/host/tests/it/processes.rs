//! Programs that outlive the link: found again by key and number, output kept and read from a cursor, slow and absent
//! readers, limits.

use crate::world::{PATIENCE, Ran, World, assert_code, eventually, fresh_id, run_exec, sh, shell};
use greenroom_host::{Program, Sandbox, SandboxError, refuse_routes};
use greenroom_protocol::guest::call::{
    BackgroundProcess, Call, CallErrorCode, Exec, KillReason, OutputChunk, Reply,
};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

crate::scenarios_on_each_kernel!(
    a_run_with_a_key_goes_on_without_its_link,
    output_is_found_again_by_cursor,
    a_key_never_runs_twice,
    without_a_reader_nothing_waits,
    a_slow_reader_slows_its_program_and_nothing_else,
    errors_stay_apart_when_they_are_kept,
    two_followers_see_the_same,
    cancelling_ends_a_kept_run_and_leaving_does_not,
    input_reaches_a_program_that_was_found_again,
    ended_runs_are_forgotten_at_last,
    a_flood_of_output_is_cut_off,
    too_many_processes_are_told_as_such,
    use_of_processes_is_measured,
    threads_of_the_guest_are_bounded,
);

fn keyed(key: &str, script: &str) -> Exec {
    Exec {
        key: Some(key.to_owned()),
        ..shell(script)
    }
}

/// Waits for a file that the test makes.
const WAIT: &str = "while [ ! -e go ]; do sleep 0.02; done";

/// Loses the link, as a server that dies does, and finds the sandbox again.
async fn again(world: &World, sandbox: Sandbox) -> Sandbox {
    let id = sandbox.id().clone();
    drop(sandbox);
    world.host.find(&id, refuse_routes()).await.unwrap().unwrap()
}

/// Follows until this text was seen, then leaves.
async fn leave_at(program: Program, text: &str) {
    let (tx, mut rx) = mpsc::channel(4);
    let follow = program.follow(None, tx, CancellationToken::new());
    let see = async {
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains(text) {
            seen.extend(rx.recv().await.expect("output before the end").bytes);
        }
    };
    tokio::select! {
        exit = follow => panic!("ended: {exit:?}"),
        () = see => {}
        () = tokio::time::sleep(PATIENCE) => panic!("{text} never came"),
    }
}

async fn to_the_end(program: Program) -> Ran {
    let (tx, mut rx) = mpsc::channel::<OutputChunk>(8);
    let collect = async {
        let mut output = Vec::new();
        while let Some(chunk) = rx.recv().await {
            output.extend(chunk.bytes);
        }
        output
    };
    let follow = program.follow(None, tx, CancellationToken::new());
    let both = async { tokio::join!(follow, collect) };
    let (exit, output) = tokio::time::timeout(PATIENCE, both).await.expect("in time");
    Ran {
        exit: exit.unwrap(),
        output: String::from_utf8_lossy(&output).into_owned(),
    }
}

async fn by_key(sandbox: &Sandbox, key: &str) -> Option<BackgroundProcess> {
    let processes = sandbox.processes().await.unwrap();
    processes
        .into_iter()
        .find(|process| process.key.as_deref() == Some(key))
}

async fn a_run_with_a_key_goes_on_without_its_link(world: &World) {
    let sandbox = world.start().await;
    let script = format!("echo ran >> count; echo one; {WAIT}; echo two; exit 3");
    let program = sandbox.begin(keyed("itm_1", &script)).await.unwrap();
    leave_at(program, "one\n").await;
    let sandbox = again(world, sandbox).await;
    let found = by_key(&sandbox, "itm_1").await.expect("it is found by its key");
    assert!(found.exit.is_none() && !found.has_terminal, "{found:?}");
    sh(&sandbox, "touch go").await.ok();
    // What the second call says does not matter: it is the same run.
    let ran = run_exec(&sandbox, keyed("itm_1", "echo never")).await.unwrap();
    assert_eq!((ran.exit.code, ran.output.as_str()), (Some(3), "one\ntwo\n"));
    assert_eq!(sh(&sandbox, "cat count").await.ok(), "ran\n");
    // Also after its end, from anywhere.
    let sandbox = again(world, sandbox).await;
    let ran = run_exec(&sandbox, keyed("itm_1", "echo never")).await.unwrap();
    assert_eq!((ran.exit.code, ran.output.as_str()), (Some(3), "one\ntwo\n"));
}

async fn output_is_found_again_by_cursor(world: &World) {
    let sandbox = world.start().await;
    let background = sandbox
        .spawn(shell(&format!("echo early; {WAIT}; echo late")))
        .await
        .unwrap();
    let sandbox = again(world, sandbox).await;
    eventually("the first line", async || {
        let call = Call::ReadProcess {
            process_id: background,
            after_offset: 0,
            max_bytes: 100,
        };
        match sandbox.call(call).await.unwrap() {
            Reply::ProcessOutput { output, .. } => (output == "early\n").then_some(()),
            other => panic!("{other:?}"),
        }
    })
    .await;
    let program = sandbox.attach(background, 6).await.unwrap();
    assert_eq!(program.process_id(), background);
    sh(&sandbox, "touch go").await.ok();
    assert_eq!(to_the_end(program).await.ok(), "late\n");
    for (after_offset, expected) in [(0, "early\nlate\n"), (3, "ly\nlate\n"), (11, ""), (u64::MAX, "")] {
        let program = sandbox.attach(background, after_offset).await.unwrap();
        assert_eq!(to_the_end(program).await.ok(), expected, "after {after_offset}");
    }
    assert_code(sandbox.attach(99, 0).await.map(|_| ()), CallErrorCode::NotFound);
}

async fn a_key_never_runs_twice(world: &World) {
    let sandbox = world.start().await;
    let mut runs = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let sandbox = sandbox.clone();
        let exec = keyed("same", "echo ran >> count; sleep 0.1; echo done");
        runs.spawn(async move { run_exec(&sandbox, exec).await });
    }
    while let Some(ran) = runs.join_next().await {
        assert_eq!(ran.unwrap().unwrap().ok(), "done\n");
    }
    assert_eq!(sh(&sandbox, "cat count").await.ok(), "ran\n");
    for key in ["", &"k".repeat(129)] {
        assert_code(
            run_exec(&sandbox, keyed(key, "true")).await,
            CallErrorCode::Invalid,
        );
    }
    // One that could not start is no run.
    let missing = Exec {
        argv: vec!["no-such-program".to_owned()],
        ..keyed("late", "")
    };
    assert_code(run_exec(&sandbox, missing).await, CallErrorCode::NotFound);
    assert_eq!(
        run_exec(&sandbox, keyed("late", "echo now")).await.unwrap().ok(),
        "now\n"
    );
}

async fn without_a_reader_nothing_waits(world: &World) {
    let sandbox = world.start().await;
    let program = sandbox
        .begin(keyed("flood", "yes | head -c 5000000; echo done"))
        .await
        .unwrap();
    let process_id = program.process_id();
    drop(program);
    let sandbox = again(world, sandbox).await;
    eventually("its end, with nobody reading", async || {
        by_key(&sandbox, "flood").await?.exit
    })
    .await;
    let kept = to_the_end(sandbox.attach(process_id, 0).await.unwrap())
        .await
        .ok();
    assert_eq!(kept.len(), 1 << 20, "the last part is kept");
    assert!(kept.ends_with("y\ndone\n"));
}

async fn a_slow_reader_slows_its_program_and_nothing_else(world: &World) {
    let sandbox = world.start().await;
    // Nothing is taken from these channels.
    let (tx, mut rx) = mpsc::channel(1);
    let program = sandbox
        .begin(keyed("slow", "seq 1 1000000; echo > done"))
        .await
        .unwrap();
    let mut slow = tokio::spawn(program.follow(None, tx, CancellationToken::new()));
    let (unkeyed, unread) = mpsc::channel(1);
    let cancel = CancellationToken::new();
    let flood = sandbox.exec(shell("yes"), unkeyed, cancel.clone());
    let others = async {
        for number in 0..20 {
            let key = format!("other {number}");
            let ran = run_exec(&sandbox, keyed(&key, "seq 1 20000; [ ! -e done ]")).await;
            assert_eq!(ran.unwrap().ok().lines().count(), 20_000);
        }
        cancel.cancel();
        drop(unread);
    };
    let (exit, ()) = tokio::join!(flood, others);
    assert_eq!(exit.unwrap().killed, Some(KillReason::Cancelled));
    assert!(!slow.is_finished());
    // It was only slow: nothing is lost.
    let mut output = Vec::new();
    while let Some(chunk) = rx.recv().await {
        output.extend(chunk.bytes);
    }
    assert_eq!((&mut slow).await.unwrap().unwrap().code, Some(0));
    assert_eq!(String::from_utf8(output).unwrap().lines().count(), 1_000_000);
}

async fn errors_stay_apart_when_they_are_kept(world: &World) {
    let sandbox = world.start().await;
    let exec = Exec {
        is_merged: false,
        ..keyed("apart", "echo out; echo err >&2; sleep 0.05; echo out again")
    };
    let process_id = sandbox.begin(exec).await.unwrap().process_id();
    let sandbox = again(world, sandbox).await;
    let (tx, mut rx) = mpsc::channel(16);
    let program = sandbox.attach(process_id, 0).await.unwrap();
    let exit = program.follow(None, tx, CancellationToken::new()).await.unwrap();
    assert_eq!(exit.code, Some(0));
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while let Some(chunk) = rx.recv().await {
        if chunk.is_error_output { &mut err } else { &mut out }.extend(chunk.bytes);
    }
    assert_eq!(String::from_utf8(out).unwrap(), "out\nout again\n");
    assert_eq!(String::from_utf8(err).unwrap(), "err\n");
}

async fn two_followers_see_the_same(world: &World) {
    let sandbox = world.start().await;
    let script = format!("{WAIT}; seq 1 100000");
    let first = sandbox.begin(keyed("both", &script)).await.unwrap();
    let second = sandbox.attach(first.process_id(), 0).await.unwrap();
    sh(&sandbox, "touch go").await.ok();
    let (first, second) = tokio::join!(to_the_end(first), to_the_end(second));
    assert_eq!(first.output.lines().count(), 100_000);
    assert!(first.output == second.output && first.exit == second.exit);
}

async fn cancelling_ends_a_kept_run_and_leaving_does_not(world: &World) {
    let sandbox = world.start().await;
    let script = "trap '' TERM; echo ready; while :; do sleep 1; done";
    let program = sandbox.begin(keyed("stubborn", script)).await.unwrap();
    let process_id = program.process_id();
    leave_at(program, "ready").await;
    let cancel = CancellationToken::new();
    cancel.cancel();
    let (tx, mut rx) = mpsc::channel(16);
    let program = sandbox.attach(process_id, 0).await.unwrap();
    let exit = program.follow(None, tx, cancel).await.unwrap();
    assert_eq!((exit.killed, exit.signal), (Some(KillReason::Cancelled), Some(9)));
    assert_eq!(rx.recv().await.unwrap().bytes, b"ready\n");
    let timed = Exec {
        timeout_ms: Some(100),
        ..keyed("timed", "sleep 600 & sleep 600")
    };
    drop(sandbox.begin(timed).await.unwrap());
    let exit = eventually("its time limit holds without a reader", async || {
        by_key(&sandbox, "timed").await?.exit
    })
    .await;
    assert_eq!(exit.killed, Some(KillReason::TimedOut));
}

async fn input_reaches_a_program_that_was_found_again(world: &World) {
    let sandbox = world.start().await;
    let exec = Exec {
        has_input: true,
        ..keyed("count", "read -r word; echo \"first $word\"; wc -c")
    };
    let process_id = sandbox.begin(exec).await.unwrap().process_id();
    let sandbox = again(world, sandbox).await;
    let program = sandbox.attach(process_id, 0).await.unwrap();
    let (input, feed) = mpsc::channel(4);
    let (tx, mut rx) = mpsc::channel(16);
    let send = async {
        input.send(b"hello\n".to_vec()).await.unwrap();
        for _ in 0..30 {
            input.send(vec![b'x'; 100_000]).await.unwrap();
        }
        drop(input);
    };
    let follow = program.follow(Some(feed), tx, CancellationToken::new());
    let (exit, ()) = tokio::join!(follow, send);
    assert_eq!(exit.unwrap().code, Some(0));
    let mut output = Vec::new();
    while let Some(chunk) = rx.recv().await {
        output.extend(chunk.bytes);
    }
    assert_eq!(String::from_utf8(output).unwrap(), "first hello\n3000000\n");
}

async fn ended_runs_are_forgotten_at_last(world: &World) {
    let sandbox = world.start().await;
    let background = sandbox.spawn(shell("echo kept")).await.unwrap();
    for number in 0..40 {
        let ran = run_exec(&sandbox, keyed(&format!("run {number}"), "echo fine")).await;
        assert_eq!(ran.unwrap().ok(), "fine\n");
    }
    let processes = sandbox.processes().await.unwrap();
    assert!(processes.len() <= 18, "{}", processes.len());
    assert!(by_key(&sandbox, "run 39").await.is_some());
    assert!(by_key(&sandbox, "run 0").await.is_none());
    assert!(
        processes.iter().any(|process| process.process_id == background),
        "what ran in the background is remembered longer"
    );
    // Much output of ended runs does not add up.
    for number in 0..20 {
        let flood = keyed(&format!("flood {number}"), "head -c 2000000 /dev/zero");
        run_exec(&sandbox, flood).await.unwrap().ok();
    }
    assert!(guest_memory_bytes(&sandbox).await < 40 << 20);
}

/// Memory of the guest itself, as the kernel counts it.
async fn guest_memory_bytes(sandbox: &Sandbox) -> u64 {
    let statm = sh(sandbox, "cat /proc/1/statm").await.ok();
    let pages: u64 = statm.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4096
}

async fn a_flood_of_output_is_cut_off(world: &World) {
    let sandbox = world.start().await;
    let limited = |script: &str, key: Option<&str>| Exec {
        max_output_bytes: Some(1000),
        key: key.map(str::to_owned),
        ..shell(script)
    };
    for key in [None, Some("flood")] {
        let ran = run_exec(&sandbox, limited("yes", key)).await.unwrap();
        assert_eq!(ran.exit.killed, Some(KillReason::OutputLimit), "{:?}", ran.exit);
        assert_eq!(ran.output.len(), 1000);
    }
    let ran = run_exec(&sandbox, limited("head -c 1000 /dev/zero", None))
        .await
        .unwrap();
    assert_eq!(
        (ran.exit.killed, ran.exit.code, ran.output.len()),
        (None, Some(0), 1000)
    );
    let ran = run_exec(&sandbox, limited("head -c 1001 /dev/zero", None))
        .await
        .unwrap();
    assert_eq!(
        (ran.exit.killed, ran.output.len()),
        (Some(KillReason::OutputLimit), 1000)
    );
}

async fn too_many_processes_are_told_as_such(world: &World) {
    let mut start = world.plain(&fresh_id());
    start.limits.max_processes = 40;
    let sandbox = world.host.start(start).await.unwrap();
    let mut started = Vec::new();
    let error = loop {
        match sandbox.spawn(shell("sleep 600")).await {
            Ok(process_id) => started.push(process_id),
            Err(error) => break error,
        }
    };
    assert!((10..40).contains(&started.len()), "{}", started.len());
    match error {
        SandboxError::Call(error) => {
            assert_eq!(error.code, CallErrorCode::TooManyProcesses, "{error:?}");
            assert!(error.message.contains("processes"), "{error:?}");
        }
        other => panic!("{other:?}"),
    }
    // The link holds, and once some are gone everything works again.
    for process_id in started {
        let signal = Call::SignalProcess {
            process_id,
            signal: 9,
        };
        // The call itself needs a thread of the sandbox.
        eventually("a place for the call", async || {
            sandbox.call(signal.clone()).await.ok()
        })
        .await;
    }
    eventually("a place for a program", async || {
        run_exec(&sandbox, shell("true")).await.ok()
    })
    .await
    .ok();
}

async fn use_of_processes_is_measured(world: &World) {
    let sandbox = world.start().await;
    let measure = async || match sandbox.call(Call::MeasureProcesses).await.unwrap() {
        Reply::ProcessUsage {
            cpu_ms,
            peak_memory_bytes,
            processes,
        } => (cpu_ms, peak_memory_bytes, processes),
        other => panic!("{other:?}"),
    };
    let (before, ..) = measure().await;
    let burn = "import resource\nx = bytearray(80_000_000)\nwhile resource.getrusage(resource.RUSAGE_SELF).ru_utime < 0.2: pass";
    sh(&sandbox, &format!("python3 -c '{burn}'")).await.ok();
    let (after, peak, now) = measure().await;
    assert!(after >= before + 200, "{before} to {after} ms");
    assert!(peak >= 80_000_000, "{peak}");
    assert_eq!(now, 0);
    // What still runs counts too.
    sandbox.spawn(shell("while :; do :; done")).await.unwrap();
    eventually("a running one", async || {
        let (cpu_ms, _, now) = measure().await;
        (now == 1 && cpu_ms >= after + 50).then_some(())
    })
    .await;
}

async fn threads_of_the_guest_are_bounded(world: &World) {
    let sandbox = world.start().await;
    let mut started = 0;
    let refusal = loop {
        match sandbox.spawn(shell("sleep 600")).await {
            Ok(_) => started += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(started, 64, "{refusal}");
    assert_code::<()>(Err(refusal), CallErrorCode::TooManyProcesses);
    let threads = async || -> u64 {
        let stat = sh(&sandbox, "cut -d' ' -f20 /proc/1/stat").await.ok();
        stat.trim().parse().unwrap()
    };
    assert!(threads().await < 64 + 16);
    for process in sandbox.processes().await.unwrap() {
        let call = Call::SignalProcess {
            process_id: process.process_id,
            signal: 9,
        };
        sandbox.call(call).await.unwrap();
    }
    eventually("their threads are gone", async || {
        (threads().await < 16).then_some(())
    })
    .await;
    tokio::time::timeout(Duration::from_secs(20), sandbox.spawn(shell("true")))
        .await
        .expect("in time")
        .unwrap();
}
