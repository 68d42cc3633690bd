//! How fast sandboxes become snapshots and snapshots sandboxes, and what snapshots take on disk.

use crate::report::{Aim, Measured};
use crate::sandbox::{exec, exec_true, fresh_id, start};
use crate::stats::Samples;
use anyhow::{Context as _, Result, ensure};
use greenroom_host::{Host, HostConfig, Sandbox, Snapshot, StartSandbox, refuse_routes};
use std::path::Path;
use std::time::{Duration, Instant};

/// What this file measures.
pub const NAMES: &[&str] = &[
    "snapshot.stopped",
    "snapshot.restore",
    "snapshot.live_pause",
    "snapshot.fork8",
    "snapshot.disk",
];

/// Files of what the agent changed between two snapshots, and the size of each, in bytes.
const CHANGED_FILES: usize = 200;
const FILE_BYTES: usize = 20_000;

/// Rounds that count, and those before.
const ROUNDS: usize = 60;
const WARM_UP: usize = 5;

/// What snapshots may take on disk for every byte that changed.
const MOST_PER_BYTE: f64 = 1.1;

/// Writes files, as many and as large as said above.
fn change(round: usize) -> String {
    format!(
        "mkdir -p d{round} && for i in $(seq {CHANGED_FILES}); do head -c {FILE_BYTES} /dev/urandom > d{round}/$i; done"
    )
}

/// Runs those whose name begins with `prefix`.
pub async fn run(prefix: &str) -> Result<Vec<Measured>> {
    let is_wanted = |name: &str| name.starts_with(prefix);
    let temp = tempfile::Builder::new().prefix("gr-bench-").tempdir()?;
    let state = temp.path().join("state");
    let host = Host::open(HostConfig::new(state.clone())).await?;
    let mut results = Vec::new();
    if is_wanted("snapshot.stopped") || is_wanted("snapshot.restore") {
        results.extend(stopped(&host, &state).await?);
    }
    if is_wanted("snapshot.live_pause") || is_wanted("snapshot.fork8") {
        results.extend(live(&host).await?);
    }
    if is_wanted("snapshot.disk") {
        results.extend(disk(&host, &state).await?);
    }
    forget_all(&host).await?;
    host.close().await;
    Ok(results)
}

async fn forget_all(host: &Host) -> Result<()> {
    let snapshots = host.snapshots().await?;
    let ids: Vec<_> = snapshots.into_iter().map(|snapshot| snapshot.id).collect();
    host.remove_snapshots(&ids).await?;
    host.reap(&[]).await?;
    Ok(())
}

async fn start_from(host: &Host, snapshot: &Snapshot) -> Result<Sandbox> {
    let start = StartSandbox {
        from: Some(snapshot.id.clone()),
        ..StartSandbox::new(fresh_id()?, refuse_routes())
    };
    Ok(host.start(start).await?)
}

/// A sandbox that stopped becomes a snapshot; from the snapshot to the end of the first program.
async fn stopped(host: &Host, state: &Path) -> Result<Vec<Measured>> {
    let (mut seal, mut restore) = (Samples::default(), Samples::default());
    let (mut copied, mut cold) = (Samples::default(), Samples::default());
    for round in 0..WARM_UP + ROUNDS {
        let sandbox = start(host).await?;
        exec(&sandbox, &["/bin/sh", "-c", &change(0)]).await?;
        host.stop(sandbox.id()).await?;
        let upper = state.join("sb").join(sandbox.id().as_str()).join("upper");
        let copy = state.join("copy");
        let began = Instant::now();
        let status = tokio::process::Command::new("cp")
            .args(["-a".as_ref(), upper.as_os_str(), copy.as_os_str()])
            .status()
            .await?;
        let copied_in = began.elapsed();
        ensure!(status.success(), "cp fails");
        std::fs::remove_dir_all(&copy)?;
        let began = Instant::now();
        let taken = host.snapshot(sandbox.id()).await?;
        let sealed = began.elapsed();
        // What is made ahead for the next start, as between two prompts of a person.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let began = Instant::now();
        let restored = start_from(host, &taken.snapshot).await?;
        exec_true(&restored).await?;
        let restored_in = began.elapsed();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let began = Instant::now();
        let other = start(host).await?;
        exec_true(&other).await?;
        if round >= WARM_UP {
            cold.push(began.elapsed());
            copied.push(copied_in);
            seal.push(sealed);
            restore.push(restored_in);
        }
        host.remove(other.id()).await?;
        host.remove(sandbox.id()).await?;
        host.remove(restored.id()).await?;
        host.remove_snapshots(&[taken.snapshot.id]).await?;
    }
    Ok([
        Measured::duration("snapshot.stopped", &seal, aim(3.0, 20.0), &[("cp -a", &copied)]),
        Measured::duration(
            "snapshot.restore",
            &restore,
            aim(5.0, 20.0),
            &[("without one", &cold)],
        ),
    ]
    .into_iter()
    .flatten()
    .collect())
}

/// A sandbox in which a program writes all the time: how long it stands still for a snapshot, and how long one of eight
/// sandboxes takes that begin with it, from the request to the end of its first program.
async fn live(host: &Host) -> Result<Vec<Measured>> {
    let (mut pause, mut fork) = (Samples::default(), Samples::default());
    for round in 0..WARM_UP + ROUNDS / 4 {
        let sandbox = start(host).await?;
        exec(&sandbox, &["/bin/sh", "-c", &change(0)]).await?;
        let script = "i=0; while :; do i=$((i+1)); echo $i > /workspace/counter; done";
        let writer = greenroom_protocol::guest::call::Exec {
            argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            ..Default::default()
        };
        sandbox.spawn(writer).await?;
        let began = Instant::now();
        let taken = host.snapshot(sandbox.id()).await?;
        let mut forks = Vec::new();
        for _ in 0..8 {
            let fork = start_from(host, &taken.snapshot).await?;
            exec_true(&fork).await?;
            forks.push(fork);
        }
        if round >= WARM_UP {
            pause.push(taken.paused);
            fork.push(began.elapsed() / 8);
        }
        for done in forks.iter().chain([&sandbox]) {
            host.remove(done.id()).await?;
        }
        host.remove_snapshots(&[taken.snapshot.id]).await?;
    }
    Ok([
        Measured::duration("snapshot.live_pause", &pause, aim(20.0, 60.0), &[]),
        Measured::duration(
            "snapshot.fork8",
            &fork,
            Aim {
                p50: Some(30.0),
                p99: None,
            },
            &[],
        ),
    ]
    .into_iter()
    .flatten()
    .collect())
}

/// What a hundred snapshots of a running sandbox take, each after 200 changed files, for every byte that was changed.
async fn disk(host: &Host, state: &Path) -> Result<Vec<Measured>> {
    const SNAPSHOTS: usize = 100;
    let sandbox = start(host).await?;
    for round in 0..SNAPSHOTS {
        exec(&sandbox, &["/bin/sh", "-c", &change(round)]).await?;
        // An agent thinks for longer; files of the last moment are copied anew.
        tokio::time::sleep(Duration::from_millis(40)).await;
        host.snapshot(sandbox.id()).await?;
    }
    let output = tokio::process::Command::new("du")
        .args(["-s", "-B1"])
        .arg(state.join("images"))
        .output()
        .await
        .context("run du")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let taken: f64 = text
        .split_whitespace()
        .next()
        .context("read du's answer")?
        .parse()?;
    // A file takes whole blocks, also in the sandbox.
    let changed = (SNAPSHOTS * CHANGED_FILES * FILE_BYTES.next_multiple_of(4096)) as f64;
    host.remove(sandbox.id()).await?;
    let ratio = taken / changed;
    Ok(vec![Measured {
        name: "snapshot.disk".to_owned(),
        unit: "bytes per byte".to_owned(),
        n: SNAPSHOTS,
        p50: ratio,
        p99: ratio,
        max: ratio,
        aim_p50: Some(MOST_PER_BYTE),
        aim_p99: None,
        peers: std::collections::BTreeMap::new(),
        met: ratio <= MOST_PER_BYTE,
    }])
}

fn aim(p50: f64, p99: f64) -> Aim {
    Aim {
        p50: Some(p50),
        p99: Some(p99),
    }
}
