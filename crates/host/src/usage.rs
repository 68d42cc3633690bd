//! What a sandbox used and which limits it ran into. Asks the kernel and the supervisor's notes; nothing here is the guest's
//! word, but for the memory peak where no group counts it.

use crate::failure::{HostError, SandboxError};
use crate::host::{Host, blocking};
use crate::sandbox::Sandbox;
use greenroom_protocol::guest::call::{Call, Exit, KillReason, LimitKind, Reply};
use greenroom_sandbox::cgroup::Placement;
use greenroom_sandbox::spec::{EXIT_NAME, EndingLimit, ExitRecord, HITS_NAME, LOCK_NAME, LimitHits, Limits};
use greenroom_sandbox::usage::{Counters, Refusals};
use greenroom_sandbox::{disk_usage, lock, processes};
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Name of the file with the [`Limits`] of the last start, in the sandbox's directory.
const SEALED_NAME: &str = "sealed-bytes.json";
const LIMITS_NAME: &str = "limits.json";

/// What a sandbox used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SandboxUsage {
    /// Processor time of all its processes, in milliseconds.
    pub cpu_ms: u64,
    /// Most memory in use at once, in bytes; 0 where nothing counts it.
    pub peak_memory_bytes: u64,
    /// What its own files take on disk now, in bytes. Each entry counts at least 4 KiB.
    pub disk_bytes: u64,
}

/// Looks at one sandbox from outside.
#[derive(Debug)]
pub(crate) struct Meter {
    directory: PathBuf,
    counters: Counters,
    limits: Limits,
    /// What it wrote in earlier starts and lies in layers now.
    sealed_bytes: u64,
}

/// Counters at one moment, to be compared with a later one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    refusals: Refusals,
    disk: u64,
}

impl Meter {
    /// Of the sandbox whose files lie in `directory` and whose groups are `placements`.
    pub(crate) fn open(directory: PathBuf, placements: &[Placement]) -> Self {
        Self {
            counters: Counters::open(placements),
            limits: read_json(&directory.join(LIMITS_NAME)).unwrap_or_default(),
            sealed_bytes: read_json(&directory.join(SEALED_NAME)).unwrap_or(0),
            directory,
        }
    }

    /// Limits of this start.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// How often limits were hit so far. A few system calls; waits for nothing.
    pub(crate) fn read(&self) -> Reading {
        Reading {
            refusals: self.counters.refusals(),
            disk: self.hits().disk,
        }
    }

    /// Limits that were hit since `before` and by how the program ended: each once, in order.
    pub(crate) fn hit_since(&self, before: Reading, exit: &Exit) -> Vec<LimitKind> {
        hits_between(before, self.read(), exit)
    }

    /// Whether the sandbox takes more disk than it may.
    pub(crate) fn is_disk_full(&self) -> bool {
        self.hits().is_disk_full
    }

    /// The limit that ended it, if one did.
    pub(crate) fn ended_by(&self) -> Option<EndingLimit> {
        self.hits().ended_by
    }

    fn hits(&self) -> LimitHits {
        read_json(&self.directory.join(HITS_NAME)).unwrap_or_default()
    }

    /// Since its start. Walks its files.
    fn usage(&self) -> SandboxUsage {
        // Of a sandbox that ended, its supervisor kept the numbers.
        let record: Option<ExitRecord> = read_json(&self.directory.join(EXIT_NAME));
        let record = record.as_ref();
        let cpu_us = self.counters.cpu_us().or(record.and_then(|record| record.cpu_us));
        let peak = self.counters.peak_memory_bytes();
        SandboxUsage {
            cpu_ms: cpu_us.map_or_else(|| self.cpu_ms_of_processes(), |us| us / 1000),
            peak_memory_bytes: peak
                .or(record.and_then(|record| record.peak_memory_bytes))
                .unwrap_or(0),
            disk_bytes: self.sealed_bytes + disk_usage::count(&self.directory).bytes,
        }
    }

    /// The supervisor's descendants, with what ended below them; 0 if it does not run.
    fn cpu_ms_of_processes(&self) -> u64 {
        match lock::holder(&self.directory.join(LOCK_NAME)) {
            Ok(Some(supervisor)) => {
                let all = processes::tree(supervisor.as_raw_nonzero().get());
                // Its own time is not the sandbox's.
                processes::cpu_ms(all.get(1..).unwrap_or_default())
            }
            Ok(None) | Err(_) => 0,
        }
    }
}

/// Pure: which limits were hit between two readings, or show in how a program ended.
fn hits_between(before: Reading, after: Reading, exit: &Exit) -> Vec<LimitKind> {
    // A file beyond `RLIMIT_FSIZE`; shells tell of a signal as 128 and its number.
    const FILE_TOO_LARGE: i32 = 25;
    let is_file_too_large = exit.signal == Some(FILE_TOO_LARGE) || exit.code == Some(128 + FILE_TOO_LARGE);
    // Where no group counts refusals, the guest's word is all there is; it concerns only itself.
    let is_crowded = exit.limits_hit.contains(&LimitKind::Processes);
    [
        (LimitKind::Memory, after.refusals.memory > before.refusals.memory),
        (
            LimitKind::Processes,
            after.refusals.processes > before.refusals.processes || is_crowded,
        ),
        (LimitKind::Disk, after.disk > before.disk || is_file_too_large),
        (LimitKind::Output, exit.killed == Some(KillReason::OutputLimit)),
    ]
    .into_iter()
    .filter_map(|(kind, is_hit)| is_hit.then_some(kind))
    .collect()
}

/// Keeps the limits of a start for whoever finds the sandbox later, and how many bytes of its own lie in layers.
pub(crate) fn keep_limits(directory: &Path, limits: &Limits, sealed_bytes: u64) -> Result<(), HostError> {
    write_json(&directory.join(LIMITS_NAME), limits)?;
    let path = directory.join(SEALED_NAME);
    match sealed_bytes {
        // Nearly always, and then there is none to remove.
        0 => greenroom_images::tree::remove_file(&path).map_err(HostError::file("remove", &path)),
        _ => write_json(&path, &sealed_bytes),
    }
}

fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<(), HostError> {
    let written = serde_json::to_vec(value)
        .map_err(std::io::Error::from)
        .and_then(|text| std::fs::write(path, text));
    written.map_err(HostError::file("write limits", path))
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

impl Host {
    /// What a sandbox used since it was started last; the memory peak since the last [`Host::begin_measure`] where the kernel
    /// keeps only one. A sandbox that is not there used nothing.
    pub async fn usage(&self, id: &greenroom_protocol::id::SandboxId) -> Result<SandboxUsage, HostError> {
        let meter = self.meter(id);
        blocking(move || Ok(meter.usage())).await
    }

    /// Begins to measure a sandbox that runs, for example for one turn: starts the memory peak over where the kernel can.
    /// One measure of a sandbox at a time; another one starts the same peak over.
    pub async fn begin_measure(&self, sandbox: &Sandbox) -> Result<Measure, HostError> {
        let meter = self.meter(sandbox.id());
        let sandbox = sandbox.clone();
        blocking(move || {
            meter.counters.reset_peak();
            Ok(Measure {
                cpu_ms_before: meter.usage().cpu_ms,
                meter: Arc::new(meter),
                sandbox,
            })
        })
        .await
    }
}

/// A measure that runs.
pub struct Measure {
    meter: Arc<Meter>,
    cpu_ms_before: u64,
    sandbox: Sandbox,
}

impl Measure {
    /// What the sandbox used since the beginning of this measure; of disk, what it takes now. May be asked again.
    pub async fn usage(&self) -> Result<SandboxUsage, HostError> {
        let meter = Arc::clone(&self.meter);
        let mut usage = blocking(move || Ok(meter.usage())).await?;
        usage.cpu_ms = usage.cpu_ms.saturating_sub(self.cpu_ms_before);
        if usage.peak_memory_bytes == 0 {
            usage.peak_memory_bytes = self.peak_of_guest().await;
        }
        Ok(usage)
    }

    /// Since the sandbox's start, as its guest saw it; 0 if it does not know.
    async fn peak_of_guest(&self) -> u64 {
        match self.sandbox.call(Call::MeasureProcesses).await {
            Ok(Reply::ProcessUsage {
                peak_memory_bytes, ..
            }) => peak_memory_bytes,
            Ok(_) | Err(SandboxError::Call(_) | SandboxError::Lost(_)) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_named_when_its_counter_moved() {
        let reading = |memory, processes, disk| Reading {
            refusals: Refusals { memory, processes },
            disk,
        };
        let exit = |code, signal, killed| Exit {
            code,
            signal,
            killed,
            ..Exit::default()
        };
        let fine = exit(Some(0), None, None);
        use LimitKind::{Disk, Memory, Output, Processes};
        for (before, after, exit, expected) in [
            (reading(0, 0, 0), reading(0, 0, 0), fine.clone(), vec![]),
            (
                reading(3, 4, 5),
                reading(3, 4, 5),
                exit(Some(1), None, None),
                vec![],
            ),
            (reading(0, 0, 0), reading(1, 0, 0), fine.clone(), vec![Memory]),
            (reading(1, 7, 0), reading(1, 9, 0), fine.clone(), vec![Processes]),
            (
                reading(0, 0, 1),
                reading(0, 0, 2),
                exit(None, Some(9), None),
                vec![Disk],
            ),
            (
                reading(0, 0, 0),
                reading(0, 0, 0),
                exit(None, Some(25), None),
                vec![Disk],
            ),
            (
                reading(0, 0, 0),
                reading(0, 0, 0),
                exit(Some(153), None, None),
                vec![Disk],
            ),
            (
                reading(0, 0, 0),
                reading(2, 2, 2),
                exit(None, Some(9), Some(KillReason::OutputLimit)),
                vec![Memory, Processes, Disk, Output],
            ),
            // Groups that were made anew count from nothing.
            (reading(5, 5, 5), reading(0, 0, 0), fine.clone(), vec![]),
        ] {
            assert_eq!(
                hits_between(before, after, &exit),
                expected,
                "{before:?} {after:?} {exit:?}"
            );
        }
    }
}
