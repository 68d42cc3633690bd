//! Images of registries: how long one takes to arrive, and a sandbox in it to start.

use crate::report::{Aim, Measured};
use crate::sandbox::{exec_true, fresh_id, start};
use crate::stats::Samples;
use anyhow::{Result, ensure};
use greenroom_host::{Host, HostConfig, StartSandbox, refuse_routes};
use greenroom_protocol::reference::Reference;
use greenroom_testkit::oci::{Compression, Layout, TestRegistry, git_root, is_possible};
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};

/// What this file measures.
pub const NAMES: &[&str] = &["base.pull", "base.start"];

/// Rounds that count, and those before.
const PULLS: usize = 10;
const STARTS: usize = 60;
const WARM_UP: usize = 3;

/// Runs those whose name begins with `prefix`.
#[expect(clippy::print_stderr, reason = "says what is not measured")]
pub async fn run(prefix: &str) -> Result<Vec<Measured>> {
    if let Err(program) = is_possible() {
        eprintln!("{program} is not installed; bases of registries are not measured");
        return Ok(Vec::new());
    }
    let temp = tempfile::Builder::new().prefix("gr-bench-").tempdir()?;
    let registry = TestRegistry::start(&temp.path().join("registry"), false)?;
    let mut layout = Layout::new(&temp.path().join("layout"))?;
    layout.image("v1", &[git_root()?.finish()], json!({}), Compression::Gzip)?;
    let reference = registry.publish(&layout, "v1", "base")?;
    let mut results = Vec::new();
    if "base.pull".starts_with(prefix) {
        results.extend(pull(temp.path(), &reference).await?);
    }
    if "base.start".starts_with(prefix) {
        results.extend(starts(temp.path(), &reference).await?);
    }
    Ok(results)
}

/// From a registry on this machine to a root that sandboxes can begin with.
async fn pull(place: &Path, reference: &str) -> Result<Vec<Measured>> {
    let (mut own, mut peer) = (Samples::default(), Samples::default());
    let parsed: Reference = reference.parse()?;
    for round in 0..WARM_UP + PULLS {
        let host = Host::open(HostConfig::new(place.join(format!("state-{round}")))).await?;
        let began = Instant::now();
        host.pull(&parsed, None, u64::MAX, &|_| {}).await?;
        let pulled = began.elapsed();
        host.close().await;
        let (layout, bundle) = (
            place.join(format!("oci-{round}")),
            place.join(format!("bundle-{round}")),
        );
        let began = Instant::now();
        let name = reference.rsplit_once('@').map_or(reference, |(name, _)| name);
        let (source, target) = (format!("docker://{name}"), format!("oci:{}:v1", layout.display()));
        let copied = tokio::process::Command::new("skopeo")
            .args([
                "--insecure-policy",
                "copy",
                "-q",
                "--src-tls-verify=false",
                &source,
                &target,
            ])
            .status();
        ensure!(copied.await?.success(), "skopeo fails");
        let unpacked = tokio::process::Command::new("umoci")
            .args(["unpack", "--rootless", "--image", &target["oci:".len()..]])
            .arg(&bundle)
            .stderr(std::process::Stdio::null())
            .status();
        ensure!(unpacked.await?.success(), "umoci fails");
        if round >= WARM_UP {
            own.push(pulled);
            peer.push(began.elapsed());
        }
    }
    let none = Aim { p50: None, p99: None };
    let measured = Measured::duration("base.pull", &own, none, &[("skopeo and umoci", &peer)]);
    Ok(measured.into_iter().collect())
}

/// A sandbox in an image, to the end of its first program.
async fn starts(place: &Path, reference: &str) -> Result<Vec<Measured>> {
    let host = Host::open(HostConfig::new(place.join("state"))).await?;
    let image = host.pull(&reference.parse()?, None, u64::MAX, &|_| {}).await?;
    let (mut own, mut plain) = (Samples::default(), Samples::default());
    for round in 0..WARM_UP + STARTS {
        // What is made ahead for the next start, as between two prompts of a person.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let began = Instant::now();
        let request = StartSandbox {
            from: Some(image.id.clone()),
            ..StartSandbox::new(fresh_id()?, refuse_routes())
        };
        let within = host.start(request).await?;
        exec_true(&within).await?;
        let started = began.elapsed();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let began = Instant::now();
        let other = start(&host).await?;
        exec_true(&other).await?;
        if round >= WARM_UP {
            own.push(started);
            plain.push(began.elapsed());
        }
        host.remove(within.id()).await?;
        host.remove(other.id()).await?;
    }
    host.remove_snapshots(&[image.id]).await?;
    host.reap(&[]).await?;
    host.close().await;
    let aim = Aim {
        p50: Some(5.0),
        p99: Some(20.0),
    };
    let measured = Measured::duration("base.start", &own, aim, &[("over the host's base", &plain)]);
    Ok(measured.into_iter().collect())
}
