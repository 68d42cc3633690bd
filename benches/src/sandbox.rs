//! How fast sandboxes start and run programs and what they cost, beside other runtimes on the same base where those are
//! installed. What each number counts is said in the file that measures it.

mod memory;
mod peers;
mod running;
mod start;

use crate::report::Measured;
use anyhow::{Result, ensure};
use greenroom_host::{Host, HostConfig, Sandbox, StartSandbox, refuse_routes};
use greenroom_protocol::guest::call::Exec;
use greenroom_protocol::id::SandboxId;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// What these files measure.
pub const NAMES: &[&str] = &[
    "sandbox.cold_start",
    "sandbox.claim",
    "sandbox.find",
    "sandbox.exec",
    "sandbox.start_rate",
    "sandbox.start_rate_crowded",
    "sandbox.idle_memory",
];

/// Rounds before those that count.
const WARM_UP: usize = 5;

/// Runs those whose name begins with `prefix`.
pub async fn run(prefix: &str) -> Result<Vec<Measured>> {
    let is_wanted = |names: &[&str]| names.iter().any(|name| name.starts_with(prefix));
    let temp = tempfile::Builder::new().prefix("gr-bench-").tempdir()?;
    let state = temp.path().join("state");
    let host = Host::open(HostConfig::new(state.clone())).await?;
    let mut results = Vec::new();
    if is_wanted(&["sandbox.cold_start"]) {
        results.extend(start::cold(&host, temp.path()).await?);
    }
    if is_wanted(&["sandbox.claim", "sandbox.find", "sandbox.exec"]) {
        results.extend(running::measure(&host).await?);
    }
    if is_wanted(&["sandbox.start_rate"]) {
        results.extend(start::rate(&host).await?);
    }
    if is_wanted(&["sandbox.start_rate_crowded", "sandbox.idle_memory"]) {
        results.extend(memory::measure(&host, &state).await?);
    }
    host.reap(&[]).await?;
    host.close().await;
    Ok(results)
}

/// One without anything special.
pub async fn start(host: &Host) -> Result<Sandbox> {
    Ok(host
        .start(StartSandbox::new(fresh_id()?, refuse_routes()))
        .await?)
}

/// Nothing here outlives the run; the clock alone makes ids differ.
pub fn fresh_id() -> Result<SandboxId> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    Ok(SandboxId::from_bits(since.as_nanos()))
}

/// Runs the smallest program.
pub async fn exec_true(sandbox: &Sandbox) -> Result<()> {
    exec(sandbox, &["/bin/true"]).await
}

/// Runs a program, which must succeed.
pub async fn exec(sandbox: &Sandbox, argv: &[&str]) -> Result<()> {
    let exec = Exec {
        argv: argv.iter().map(|text| (*text).to_owned()).collect(),
        ..Exec::default()
    };
    let (output, _kept) = mpsc::channel(1);
    let exit = sandbox.exec(exec, output, CancellationToken::new()).await?;
    ensure!(exit.code == Some(0), "{argv:?} ended with {exit:?}");
    Ok(())
}
