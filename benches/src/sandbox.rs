//! How fast a sandbox starts and runs a program, beside bubblewrap and crun on the same base where they are installed.

use crate::report::{Aim, Measured};
use crate::stats::Samples;
use anyhow::{Context as _, Result, ensure};
use greenroom_host::{Host, HostConfig, Sandbox, StartSandbox, refuse_routes};
use greenroom_protocol::guest::call::Exec;
use greenroom_protocol::id::SandboxId;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// What this file measures.
pub const NAMES: &[&str] = &["sandbox.cold_start", "sandbox.claim", "sandbox.exec"];

const WARM_UP: usize = 5;
const ROUNDS: usize = 100;

/// Rounds of claims and execs, which are cheap.
const QUICK_ROUNDS: usize = 500;

/// Runs all of them.
pub async fn run() -> Result<Vec<Measured>> {
    let temp = tempfile::Builder::new().prefix("gr-bench-").tempdir()?;
    let host = Host::open(HostConfig::new(temp.path().join("state"))).await?;
    let mut results = Vec::new();
    results.extend(cold_start(&host, temp.path()).await?);
    results.extend(running(&host).await?);
    host.reap(&[]).await?;
    host.close().await;
    Ok(results)
}

/// From nothing to the exit of the first program.
async fn cold_start(host: &Host, temp: &Path) -> Result<Option<Measured>> {
    let (mut ours, mut bubblewrap, mut crun) = (Samples::default(), Samples::default(), Samples::default());
    let bundle = crun_bundle(temp)?;
    for round in 0..WARM_UP + ROUNDS {
        let began = Instant::now();
        let sandbox = start(host).await?;
        exec_true(&sandbox).await?;
        let took = began.elapsed();
        // Its end is not part of it.
        host.remove(sandbox.id()).await?;
        let peers = [
            (&mut bubblewrap, run_bubblewrap()?),
            (&mut crun, run_crun(&bundle, round)?),
        ];
        if round >= WARM_UP {
            ours.push(took);
            for (samples, took) in peers {
                if let Some(took) = took {
                    samples.push(took);
                }
            }
        }
    }
    let aim = Aim {
        p50: Some(5.0),
        p99: Some(20.0),
    };
    Ok(Measured::duration(
        NAMES[0],
        &ours,
        aim,
        &[("bubblewrap", &bubblewrap), ("crun", &crun)],
    ))
}

/// In sandboxes that run already: the first program over a fresh link, and one more over the same.
async fn running(host: &Host) -> Result<Vec<Measured>> {
    let sandbox = start(host).await?;
    let id = sandbox.id().clone();
    drop(sandbox);
    let (mut claim, mut exec, mut floor) = (Samples::default(), Samples::default(), Samples::default());
    for round in 0..WARM_UP + QUICK_ROUNDS {
        let began = Instant::now();
        let sandbox = host
            .find(&id, refuse_routes())
            .await?
            .context("the sandbox runs")?;
        exec_true(&sandbox).await?;
        let claimed = began.elapsed();
        let began = Instant::now();
        exec_true(&sandbox).await?;
        let executed = began.elapsed();
        let began = Instant::now();
        ensure!(
            Command::new("/bin/true").stdin(Stdio::null()).status()?.success(),
            "/bin/true fails"
        );
        let spawned = began.elapsed();
        if round >= WARM_UP {
            claim.push(claimed);
            exec.push(executed);
            floor.push(spawned);
        }
    }
    let peers = [("spawn on host", &floor)];
    Ok([
        Measured::duration(
            NAMES[1],
            &claim,
            Aim {
                p50: Some(1.0),
                p99: Some(5.0),
            },
            &peers,
        ),
        Measured::duration(
            NAMES[2],
            &exec,
            Aim {
                p50: Some(1.8),
                p99: Some(5.0),
            },
            &peers,
        ),
    ]
    .into_iter()
    .flatten()
    .collect())
}

async fn start(host: &Host) -> Result<Sandbox> {
    // Nothing here outlives the run; the clock alone makes ids differ.
    let bits = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)?
        .as_nanos();
    let start = StartSandbox::new(SandboxId::from_bits(bits), refuse_routes());
    Ok(host.start(start).await?)
}

async fn exec_true(sandbox: &Sandbox) -> Result<()> {
    let exec = Exec {
        argv: vec!["/bin/true".to_owned()],
        ..Exec::default()
    };
    let (output, _kept) = mpsc::channel(1);
    let exit = sandbox.exec(exec, output, CancellationToken::new()).await?;
    ensure!(exit.code == Some(0), "/bin/true ended with {exit:?}");
    Ok(())
}

/// `None` where it is not installed.
fn run_bubblewrap() -> Result<Option<Duration>> {
    if !Path::new("/usr/bin/bwrap").exists() {
        return Ok(None);
    }
    let mut command = Command::new("/usr/bin/bwrap");
    command.args([
        "--unshare-all",
        "--die-with-parent",
        "--ro-bind",
        "/usr",
        "/usr",
        "--symlink",
        "usr/bin",
        "/bin",
        "--symlink",
        "usr/lib",
        "/lib",
        "--symlink",
        "usr/lib64",
        "/lib64",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "--tmpfs",
        "/tmp",
        "/bin/true",
    ]);
    timed(&mut command, "bubblewrap").map(Some)
}

/// A bundle over the same /usr; `None` where crun is not installed or does not work.
fn crun_bundle(temp: &Path) -> Result<Option<std::path::PathBuf>> {
    if !Path::new("/usr/bin/crun").exists() {
        return Ok(None);
    }
    let bundle = temp.join("bundle");
    let rootfs = bundle.join("rootfs");
    for name in ["usr", "proc", "dev", "tmp", "sys"] {
        std::fs::create_dir_all(rootfs.join(name))?;
    }
    for name in ["bin", "lib", "lib64"] {
        std::os::unix::fs::symlink(format!("usr/{name}"), rootfs.join(name))?;
    }
    ensure!(
        Command::new("/usr/bin/crun")
            .arg("spec")
            .current_dir(&bundle)
            .status()?
            .success(),
        "crun spec fails"
    );
    let path = bundle.join("config.json");
    let mut config: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
    config["process"]["args"] = serde_json::json!(["/bin/true"]);
    config["process"]["terminal"] = false.into();
    config["linux"]["resources"] = serde_json::json!({});
    if let Some(mounts) = config["mounts"].as_array_mut() {
        mounts.retain(|mount| mount["type"] != "cgroup" && mount["type"] != "sysfs");
        mounts.push(serde_json::json!({
            "destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"]
        }));
    }
    std::fs::write(&path, config.to_string())?;
    // crun refuses hybrid cgroup layouts; then it is no peer on this machine.
    let works = run_crun(&Some(bundle.clone()), usize::MAX).is_ok();
    Ok(works.then_some(bundle))
}

fn run_crun(bundle: &Option<std::path::PathBuf>, round: usize) -> Result<Option<Duration>> {
    let Some(bundle) = bundle else { return Ok(None) };
    let mut command = Command::new("/usr/bin/crun");
    command
        .args(["--cgroup-manager=disabled", "run", "--bundle"])
        .arg(bundle)
        .arg(format!("greenroom-bench-{round}"));
    timed(&mut command, "crun").map(Some)
}

fn timed(command: &mut Command, name: &str) -> Result<Duration> {
    let began = Instant::now();
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    let took = began.elapsed();
    ensure!(status.success(), "{name} fails: {status}");
    Ok(took)
}
