//! Two hundred sandboxes alive at once: how long the last takes to start beside the first (`sandbox.start_rate_crowded`),
//! and what each costs while it does nothing (`sandbox.idle_memory`, in MB): the proportional set size of its supervisor and
//! its guest, and the kernel memory that its resource group counts. Beside it the difference of the machine's available
//! memory and of its kernel memory, which count everything, also what others did meanwhile.

use super::start::compared;
use super::{exec_true, start};
use crate::report::{Measured, Peer};
use crate::stats::Samples;
use anyhow::{Context as _, Result};
use greenroom_host::Host;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Instant;

const SANDBOXES: usize = 200;

/// How many of the first and of the last are compared.
const EDGE: usize = 50;

/// Most that one may cost, in MB.
const AIM_MB: f64 = 3.0;

const MB: f64 = 1024.0 * 1024.0;

pub(super) async fn measure(host: &Host, state: &Path) -> Result<Vec<Measured>> {
    let before = Machine::now()?;
    let (mut first, mut last) = (Samples::default(), Samples::default());
    let mut alive = Vec::new();
    for number in 0..SANDBOXES {
        let began = Instant::now();
        let sandbox = start(host).await?;
        exec_true(&sandbox).await?;
        let took = began.elapsed();
        if number < EDGE {
            first.push(took);
        } else if number >= SANDBOXES - EDGE {
            last.push(took);
        }
        alive.push(sandbox);
    }
    let after = Machine::now()?;
    let mut bytes = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let process = entry.path();
        let is_ours = fs::read_link(process.join("exe")).is_ok_and(|exe| exe.starts_with(state));
        // The launcher that waits for the next start belongs to no sandbox, but is one of them all.
        if is_ours {
            let pss = kilobytes(&fs::read_to_string(process.join("smaps_rollup"))?, "Pss:")? * 1024.0;
            bytes.push(pss + kernel_bytes(&process).unwrap_or(0.0));
        }
    }
    for sandbox in &alive {
        host.remove(sandbox.id()).await?;
    }
    let each = |bytes: f64| bytes / MB / SANDBOXES as f64;
    let (total, most) = (bytes.iter().sum(), bytes.iter().copied().fold(0.0, f64::max));
    let only = |value: f64| Peer {
        p50: value,
        p99: value,
    };
    let memory = Measured {
        name: "sandbox.idle_memory".to_owned(),
        unit: "MB".to_owned(),
        n: SANDBOXES,
        p50: each(total),
        p99: each(total),
        max: most / MB,
        aim_p50: Some(AIM_MB),
        aim_p99: None,
        peers: BTreeMap::from([
            (
                "less available".to_owned(),
                only(each(before.available_bytes - after.available_bytes)),
            ),
            (
                "more kernel memory".to_owned(),
                only(each(after.kernel_bytes - before.kernel_bytes)),
            ),
        ]),
        met: each(total) <= AIM_MB,
    };
    Ok(compared("sandbox.start_rate_crowded", &first, &last)
        .into_iter()
        .chain([memory])
        .collect())
}

/// The whole machine's memory.
struct Machine {
    available_bytes: f64,
    kernel_bytes: f64,
}

impl Machine {
    fn now() -> Result<Self> {
        let text = fs::read_to_string("/proc/meminfo")?;
        let mut kernel_bytes = 0.0;
        for name in ["Slab:", "KernelStack:", "PageTables:", "Percpu:"] {
            kernel_bytes += kilobytes(&text, name)? * 1024.0;
        }
        Ok(Self {
            available_bytes: kilobytes(&text, "MemAvailable:")? * 1024.0,
            kernel_bytes,
        })
    }
}

fn kilobytes(text: &str, name: &str) -> Result<f64> {
    text.lines()
        .find_map(|line| {
            line.strip_prefix(name)?
                .trim()
                .strip_suffix("kB")?
                .trim()
                .parse()
                .ok()
        })
        .with_context(|| format!("no {name} there"))
}

/// What the kernel keeps for the resource group of a sandbox's first process; `None` for other processes and where it
/// does not say.
fn kernel_bytes(process: &Path) -> Option<f64> {
    let groups = fs::read_to_string(process.join("cgroup")).ok()?;
    let group = groups
        .lines()
        .find_map(|line| line.split_once(":memory:").or_else(|| line.split_once("0::")))
        .map(|(_, path)| path.trim_start_matches('/'))
        .filter(|path| path.contains("/sbx_"))?;
    let v1 = Path::new("/sys/fs/cgroup/memory").join(group);
    if let Ok(text) = fs::read_to_string(v1.join("memory.kmem.usage_in_bytes")) {
        return text.trim().parse().ok();
    }
    let v2 = Path::new("/sys/fs/cgroup").join(group);
    fs::read_to_string(v2.join("memory.stat"))
        .ok()?
        .lines()
        .find_map(|line| line.strip_prefix("kernel ")?.parse().ok())
}
