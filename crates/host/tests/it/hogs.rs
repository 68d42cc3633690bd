//! Sandboxes that use up whatever they can get: the neighbours and the host go on, and the sandbox lives or is named lost.

use crate::probe::put_probe;
use crate::world::{Isolation, PATIENCE, World, fresh_id, is_root, run_exec, sh, shell};
use greenroom_host::{Limits, SandboxError};
use greenroom_protocol::guest::call::{CallErrorCode, Exec, LimitKind};
use std::time::Duration;

crate::scenarios_everywhere!(a_hog_harms_only_itself);

/// Kind and amount for the probe's `hog`, and whether a limit must end it before the amount.
const HOGS: &[(&str, u64, Bound)] = &[
    ("fork", 2_000, Bound::Always),
    ("fork_bomb", 0, Bound::Never),
    ("threads", 2_000, Bound::Always),
    ("memory", 700, Bound::ByGroups),
    ("shared_memory", 600, Bound::Always),
    ("one_file", 200, Bound::Always),
    ("many_files", 100_000, Bound::ByDisk),
    ("open_files", 5_000, Bound::Always),
    ("sockets", 5_000, Bound::Always),
    ("watches", 10_000, Bound::Never),
    ("connections", 3_000, Bound::Never),
    ("arguments", 200, Bound::Always),
    ("output", 200, Bound::Always),
];

/// What ends a hog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    Always,
    /// Only where the sandbox has resource groups.
    ByGroups,
    /// The disk limit, and the call says so.
    ByDisk,
    /// The amount is small enough to be had, or it goes on until it is killed.
    Never,
}

async fn a_hog_harms_only_itself(world: &World) {
    let neighbour = world.start().await;
    for (kind, amount, bound) in HOGS {
        if *bound == Bound::ByGroups && !is_root() {
            eprintln!(
                "SKIPPED-FEATURE: without delegated resource groups nothing bounds {kind} of a sandbox"
            );
            continue;
        }
        let mut start = world.plain(&fresh_id());
        start.limits = Limits {
            memory_bytes: 256 << 20,
            max_processes: 96,
            max_file_bytes: 32 << 20,
            max_open_files: 256,
            // So little that it is reached soon, where the disk is what counts.
            disk_bytes: if *bound == Bound::ByDisk {
                16 << 20
            } else {
                512 << 20
            },
            max_output_bytes: 8 << 20,
            ..Limits::default()
        };
        let sandbox = world.host.start(start).await.unwrap();
        put_probe(&sandbox).await;
        let amount = match (*kind, world.isolation) {
            // Files again, and of the same kernel's.
            ("watches", Isolation::Oci(_)) => amount / 10,
            _ => *amount,
        };
        let hog = Exec {
            argv: vec![
                "/workspace/probe".to_owned(),
                "hog".to_owned(),
                (*kind).to_owned(),
                amount.to_string(),
            ],
            timeout_ms: Some(if *kind == "fork_bomb" { 2_000 } else { 30_000 }),
            ..shell("")
        };
        let ran = tokio::time::timeout(PATIENCE * 4, run_exec(&sandbox, hog))
            .await
            .unwrap_or_else(|_| panic!("{kind} does not end"));
        if let (Ok(ran), true) = (&ran, *bound != Bound::Never) {
            let end: String = ran.output.chars().rev().take(200).collect();
            let end: String = end.chars().rev().collect();
            assert!(!end.contains("nothing stopped it"), "{kind}: {end}");
        }
        if *bound == Bound::ByDisk {
            let ran = ran.as_ref().unwrap_or_else(|error| panic!("{kind}: {error:?}"));
            assert_eq!(ran.exit.limits_hit, [LimitKind::Disk], "{kind}: {:?}", ran.exit);
        }
        assert_eq!(
            sh(&neighbour, "echo alive").await.ok(),
            "alive\n",
            "beside {kind}"
        );
        // Its processes may take a moment to be gone.
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let answer = tokio::time::timeout(PATIENCE, run_exec(&sandbox, shell("echo alive"))).await;
            let is_busy = match &answer {
                Ok(Ok(ran)) if ran.output == "alive\n" => break,
                Ok(Err(SandboxError::Lost(problem))) => {
                    assert!(!problem.code.is_empty(), "after {kind}");
                    break;
                }
                Ok(Err(SandboxError::Call(error))) => matches!(
                    error.code,
                    CallErrorCode::Os | CallErrorCode::TooManyProcesses | CallErrorCode::NoSpace
                ),
                Ok(Ok(_)) => true,
                Err(_) => false,
            };
            assert!(
                is_busy && tokio::time::Instant::now() < deadline,
                "after {kind} it neither lives nor is lost: {answer:?}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        world.host.remove(sandbox.id()).await.unwrap();
    }
}
