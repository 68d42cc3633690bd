//! Limits that hold: each is hit for real, the sandbox lives on, and the call says which one it was.

use crate::world::{PATIENCE, Ran, World, eventually, fresh_id, group_file, has_group, run_exec, sh, shell};
use greenroom_host::{Limits, Sandbox, SandboxError, StartSandbox, refuse_routes};
use greenroom_protocol::guest::call::{CallErrorCode, Exec, KillReason, LimitKind, OutputChunk, Scope};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

crate::scenarios_everywhere!(
    too_much_memory_ends_the_program_alone,
    memory_files_count_as_memory,
    a_fork_bomb_leaves_the_sandbox_usable,
    a_disk_filler_is_stopped,
    many_empty_files_are_stopped,
    removed_files_that_stay_open_count,
    what_goes_on_taking_disk_is_ended,
    closed_directories_count,
    a_file_is_not_larger_than_the_disk_limit,
    processor_time_is_limited,
    the_life_time_ends_the_sandbox_and_keeps_its_files,
    too_much_output_ends_the_program,
    usage_is_counted,
    an_exit_that_hit_nothing_names_nothing,
);

pub const MIB: u64 = 1 << 20;

pub async fn start(world: &World, limits: Limits) -> Sandbox {
    let start = StartSandbox {
        limits,
        ..world.plain(&fresh_id())
    };
    world.host.start(start).await.unwrap()
}

/// The sandbox goes on, without being started anew.
pub async fn assert_lives(sandbox: &Sandbox) {
    assert_eq!(sh(sandbox, "/bin/true && echo alive").await.ok(), "alive\n");
}

/// A command ends with the sandbox, for a reason that it names.
async fn assert_lost(sandbox: &Sandbox, script: &str, code: &str) {
    let ran = tokio::time::timeout(PATIENCE * 2, run_exec(sandbox, shell(script))).await;
    match ran.expect("in time") {
        Err(SandboxError::Lost(problem)) => assert_eq!(problem.code, code, "{problem:?}"),
        other => panic!("{other:?}"),
    }
}

/// Whether this run has a group of the controller; says so if not.
fn needs_group(world: &World, controller: &str) -> bool {
    let has = has_group(world, controller);
    if !has {
        eprintln!(
            "SKIPPED-FEATURE: no writable cgroup of {controller} for this user, so nothing holds that limit"
        );
    }
    has
}

async fn too_much_memory_ends_the_program_alone(world: &World) {
    if !needs_group(world, "memory") {
        return;
    }
    let limits = Limits {
        memory_bytes: 64 * MIB,
        ..Limits::default()
    };
    let sandbox = start(world, limits).await;
    // Twice: the second is seen like the first.
    for _ in 0..2 {
        let hog = "tail -c 300000000 /dev/zero | wc -c >/dev/null; tail /dev/zero";
        if world.isolation.has_own_kernel() {
            // To the host it is one process with all memory of the sandbox.
            return assert_lost(&sandbox, hog, "sandbox_memory_limit").await;
        }
        let ran = sh(&sandbox, hog).await;
        assert_eq!(ran.exit.limits_hit, [LimitKind::Memory], "{ran:?}");
        assert_ne!(ran.exit.code, Some(0), "{ran:?}");
        assert_lives(&sandbox).await;
    }
}

/// No process is to blame for them, so that in the end the first one would be killed.
async fn memory_files_count_as_memory(world: &World) {
    if !needs_group(world, "memory") {
        return;
    }
    let limits = Limits {
        memory_bytes: 64 * MIB,
        ..Limits::default()
    };
    let sandbox = start(world, limits).await;
    let ran = sh(&sandbox, "head -c 300000000 /dev/zero >/dev/shm/fill").await;
    assert_ne!(ran.exit.code, Some(0), "{ran:?}");
    assert_lives(&sandbox).await;
    assert_eq!(sh(&sandbox, "rm /dev/shm/fill && echo gone").await.ok(), "gone\n");
}

const FORK_BOMB: &str = "bomb() { bomb | bomb & }; bomb; echo lit";

async fn a_fork_bomb_leaves_the_sandbox_usable(world: &World) {
    let limits = Limits {
        // Some kernels need a while to start many.
        max_processes: if world.isolation.has_own_kernel() { 16 } else { 64 },
        ..Limits::default()
    };
    for (bomb, stays_full) in [
        (FORK_BOMB, false),
        // Each in a session of its own, so that no process group holds them.
        (
            "i=0; while [ $i -lt 200 ]; do setsid sleep 600 & i=$((i+1)); done; wait",
            true,
        ),
    ] {
        let sandbox = start(world, limits).await;
        let exec = Exec {
            // On a busy machine such a kernel needs a while to start even sixteen.
            timeout_ms: Some(if stays_full && world.isolation.has_own_kernel() {
                8_000
            } else {
                2_000
            }),
            ..shell(bomb)
        };
        let ran = tokio::time::timeout(PATIENCE * 2, run_exec(&sandbox, exec))
            .await
            .expect("the call ends")
            .unwrap();
        // Without a group that counts refusals only a sandbox that is still full at the end is known to have been full.
        if stays_full || (has_group(world, "pids") && !world.isolation.has_own_kernel()) {
            assert_eq!(ran.exit.limits_hit, [LimitKind::Processes], "{:?}", ran.exit);
        }
        // On a slow machine the bomb burns on until a call finds no room and makes some.
        eventually("programs run again", async || {
            let ran = run_exec(&sandbox, shell("/bin/true && echo alive")).await.ok()?;
            (ran.output == "alive\n").then_some(())
        })
        .await;
    }
}

/// Runs until it is killed or done, and says how much the sandbox took at most afterwards.
pub async fn fill(sandbox: &Sandbox, script: &str) -> Ran {
    tokio::time::timeout(PATIENCE * 3, run_exec(sandbox, shell(script)))
        .await
        .expect("the filler is stopped")
        .unwrap()
}

async fn a_disk_filler_is_stopped(world: &World) {
    let limits = Limits {
        disk_bytes: 64 * MIB,
        ..Limits::default()
    };
    let sandbox = start(world, limits).await;
    let ran = fill(
        &sandbox,
        "i=0; while :; do head -c 8000000 /dev/zero >fill.$i || exit 1; i=$((i+1)); done",
    )
    .await;
    assert_eq!(ran.exit.limits_hit, [LimitKind::Disk], "{ran:?}");
    let used = world.host.usage(sandbox.id()).await.unwrap().disk_bytes;
    eprintln!("disk filler: limit 64 MiB, taken {} MiB", used / MIB);
    assert!(used > 64 * MIB && used < 64 * MIB + 512 * MIB, "{used}");

    // It lives, and what does not add runs.
    assert_eq!(
        sh(&sandbox, "ls | wc -l >/dev/null; echo alive").await.ok(),
        "alive\n"
    );
    // What adds does not.
    let written = sandbox.write_file("more", Scope::Workspace, vec![1; 1000]).await;
    assert!(
        matches!(&written, Err(SandboxError::Call(error)) if error.code == CallErrorCode::NoSpace),
        "{written:?}"
    );
    let again = fill(
        &sandbox,
        "head -c 40000000 /dev/zero >again; sleep 30; echo survived",
    )
    .await;
    assert_eq!(again.exit.limits_hit, [LimitKind::Disk], "{again:?}");
    assert!(!again.output.contains("survived"), "{again:?}");

    // With room again everything is as before.
    sh(&sandbox, "rm -f fill.* again").await.ok();
    eventually("files can be written again", async || {
        sandbox
            .write_file("more", Scope::Workspace, vec![1; 1000])
            .await
            .ok()
    })
    .await;
    let ran = sh(&sandbox, "head -c 20000000 /dev/zero >small; sleep 1; echo done").await;
    assert_eq!(
        (ran.exit.limits_hit.as_slice(), ran.output.as_str()),
        (&[][..], "done\n")
    );
}

async fn many_empty_files_are_stopped(world: &World) {
    let limits = Limits {
        disk_bytes: 16 * MIB,
        ..Limits::default()
    };
    let sandbox = start(world, limits).await;
    let script = "i=0; while :; do : >many.$i; i=$((i+1)); done";
    let ran = fill(&sandbox, script).await;
    assert_eq!(ran.exit.limits_hit, [LimitKind::Disk], "{ran:?}");
    assert_lives(&sandbox).await;
}

async fn removed_files_that_stay_open_count(world: &World) {
    let limits = Limits {
        disk_bytes: 32 * MIB,
        ..Limits::default()
    };
    let sandbox = start(world, limits).await;
    let script = "for i in 3 4 5 6 7 8; do eval \"exec $i>gone\"; rm gone; head -c 16000000 /dev/zero >&$i; done; sleep 60";
    let ran = fill(&sandbox, script).await;
    assert_eq!(ran.exit.limits_hit, [LimitKind::Disk], "{ran:?}");
    assert_lives(&sandbox).await;
    // They are gone with the program that had them.
    eventually("there is room again", async || {
        sandbox
            .write_file("more", Scope::Workspace, vec![1; 1000])
            .await
            .ok()
    })
    .await;
}

/// Killing its programs did not hold it: it loses the sandbox, by that name.
async fn what_goes_on_taking_disk_is_ended(world: &World) {
    let limits = Limits {
        disk_bytes: 16 * MIB,
        ..Limits::default()
    };
    let sandbox = start(world, limits).await;
    let mut calls = 0;
    let mut named = 0;
    let problem = loop {
        // gVisor allocates nothing ahead.
        let script = format!(
            "python3 - <<'EOF'\n\
             import os, time\n\
             for number in range(40):\n \
             file = os.open(f'{calls}.{{number}}', os.O_CREAT | os.O_WRONLY)\n \
             try: os.posix_fallocate(file, 0, {size})\n \
             except OSError: os.write(file, bytes({size}))\n \
             os.close(file)\n\
             time.sleep(1)\n\
             EOF",
            size = 15 * MIB
        );
        match run_exec(&sandbox, shell(&script)).await {
            Ok(ran) => named += usize::from(ran.exit.limits_hit == [LimitKind::Disk]),
            Err(SandboxError::Lost(problem)) => break problem,
            Err(error) => panic!("{error:?}"),
        }
        calls += 1;
        let used = world.host.usage(sandbox.id()).await.unwrap().disk_bytes;
        assert!(used < 3072 * MIB && calls < 100, "it may go on for ever");
    };
    assert_eq!(problem.code, "sandbox_disk_limit", "{problem:?}");
    assert!(named > 0, "at first only programs end");
}

async fn closed_directories_count(world: &World) {
    let limits = Limits {
        disk_bytes: 32 * MIB,
        ..Limits::default()
    };
    let sandbox = start(world, limits).await;
    let script = "mkdir hidden; cd hidden; chmod 300 .; \
        i=0; while [ $i -lt 20 ]; do head -c 8000000 /dev/zero >fill.$i || exit 1; i=$((i+1)); done; sleep 60";
    let ran = fill(&sandbox, script).await;
    assert_eq!(ran.exit.limits_hit, [LimitKind::Disk], "{ran:?}");
    assert_lives(&sandbox).await;
}

async fn a_file_is_not_larger_than_the_disk_limit(world: &World) {
    let limits = Limits {
        disk_bytes: 16 * MIB,
        ..Limits::default()
    };
    let sandbox = start(world, limits).await;
    let exec = Exec {
        argv: ["truncate", "-s", "17M", "large"].map(str::to_owned).to_vec(),
        ..Exec::default()
    };
    let ran = run_exec(&sandbox, exec).await.unwrap();
    assert_eq!(
        (ran.exit.signal, ran.exit.limits_hit.as_slice()),
        (Some(25), &[LimitKind::Disk][..])
    );
}

async fn processor_time_is_limited(world: &World) {
    if !needs_group(world, "cpu") {
        return;
    }
    let limits = Limits {
        cpu_millis: 200,
        ..Limits::default()
    };
    let sandbox = start(world, limits).await;
    let busy = Exec {
        timeout_ms: Some(1000),
        ..shell("while :; do :; done")
    };
    let before = world.host.usage(sandbox.id()).await.unwrap().cpu_ms;
    let ran = run_exec(&sandbox, busy).await.unwrap();
    assert_eq!(ran.exit.killed, Some(KillReason::TimedOut));
    let used_ms = world.host.usage(sandbox.id()).await.unwrap().cpu_ms - before;
    // By the kernel's own counts: it held the loop back, and let it have no more than a fifth of the time that passed
    // (and one period, and what the counting lags).
    let stat = std::fs::read_to_string(group_file(world, &sandbox, "cpu", "cpu.stat")).unwrap();
    let throttled: u64 = stat
        .lines()
        .find_map(|line| line.strip_prefix("nr_throttled ")?.parse().ok())
        .unwrap();
    assert!(throttled > 0, "{stat}");
    assert!(
        used_ms <= ran.exit.duration_ms / 5 + 200,
        "{used_ms} ms of {}",
        ran.exit.duration_ms
    );
}

async fn the_life_time_ends_the_sandbox_and_keeps_its_files(world: &World) {
    let limits = Limits {
        wall_time: Some(Duration::from_millis(1500)),
        ..Limits::default()
    };
    let id = fresh_id();
    let first = StartSandbox {
        limits,
        ..world.plain(&id)
    };
    let sandbox = world.host.start(first).await.unwrap();
    let error = run_exec(&sandbox, shell("echo kept >file; sleep 600"))
        .await
        .unwrap_err();
    let SandboxError::Lost(problem) = error else {
        panic!("{error:?}")
    };
    assert_eq!(problem.code, "sandbox_wall_time");
    eventually("the supervisor ends", async || {
        world
            .host
            .find(&id, refuse_routes())
            .await
            .unwrap()
            .is_none()
            .then_some(())
    })
    .await;
    // The next start has a time of its own.
    let again = world.host.start(world.plain(&id)).await.unwrap();
    assert_eq!(sh(&again, "cat file").await.ok(), "kept\n");
}

async fn too_much_output_ends_the_program(world: &World) {
    let limits = Limits {
        max_output_bytes: MIB,
        ..Limits::default()
    };
    let sandbox = start(world, limits).await;
    let (tx, mut rx) = mpsc::channel::<OutputChunk>(8);
    let drain = async {
        let mut total = 0;
        while let Some(chunk) = rx.recv().await {
            total += chunk.bytes.len() as u64;
        }
        total
    };
    let run = sandbox.exec(shell("yes"), tx, CancellationToken::new());
    let (exit, total) = tokio::time::timeout(PATIENCE, async { tokio::join!(run, drain) })
        .await
        .expect("it is ended");
    let exit = exit.unwrap();
    assert_eq!(exit.killed, Some(KillReason::OutputLimit));
    assert_eq!(exit.limits_hit, [LimitKind::Output]);
    assert!((MIB..2 * MIB).contains(&total), "{total}");
    assert_lives(&sandbox).await;
}

async fn usage_is_counted(world: &World) {
    let sandbox = world.start().await;
    let measure = world.host.begin_measure(&sandbox).await.unwrap();
    let script = "head -c 30000000 /dev/urandom >file; i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; \
        head -c 50000000 /dev/zero | tail -c 50000000 | wc -c";
    sh(&sandbox, script).await.ok();
    let usage = measure.usage().await.unwrap();
    assert!(usage.cpu_ms >= 50, "{usage:?}");
    assert!((30_000_000..60_000_000).contains(&usage.disk_bytes), "{usage:?}");
    match has_group(world, "memory") {
        true => assert!(usage.peak_memory_bytes >= 40_000_000, "{usage:?}"),
        false => eprintln!(
            "SKIPPED-FEATURE: no writable cgroup of memory for this user, so the peak is the guest's word"
        ),
    }
    // A new measure starts from nothing.
    sh(&sandbox, "rm file").await.ok();
    let measure = world.host.begin_measure(&sandbox).await.unwrap();
    let fresh = measure.usage().await.unwrap();
    assert!(fresh.cpu_ms < usage.cpu_ms, "{fresh:?} {usage:?}");
    assert!(fresh.disk_bytes < 10_000_000, "{fresh:?}");
    if has_group(world, "memory") {
        assert!(
            fresh.peak_memory_bytes < usage.peak_memory_bytes,
            "{fresh:?} {usage:?}"
        );
    }
    // The whole life is still known, also after the end.
    let whole = world.host.usage(sandbox.id()).await.unwrap();
    assert!(whole.cpu_ms >= usage.cpu_ms, "{whole:?} {usage:?}");
    if has_group(world, "cpuacct") {
        world.host.stop(sandbox.id()).await.unwrap();
        let ended = world.host.usage(sandbox.id()).await.unwrap();
        assert!(ended.cpu_ms >= whole.cpu_ms, "{ended:?} {whole:?}");
    }
}

async fn an_exit_that_hit_nothing_names_nothing(world: &World) {
    let sandbox = world.start().await;
    for script in [
        "exit 3",
        "kill -9 $$",
        "kill -15 $$",
        "head -c 1000000 /dev/zero >file; false",
    ] {
        let ran = sh(&sandbox, script).await;
        assert!(ran.exit.limits_hit.is_empty(), "{script}: {ran:?}");
        assert_ne!(ran.exit.code, Some(0));
    }
}
