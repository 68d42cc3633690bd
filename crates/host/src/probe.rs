//! What this machine can do for sandboxes, found by trying, and what is used instead of what it cannot.

use crate::backend::MachineConfig;
use crate::failure::{HostError, launch_hint};
use crate::host::{Host, HostConfig, StartSandbox};
use crate::route::refuse_routes;
use greenroom_protocol::guest::call::Exec;
use greenroom_protocol::id::SandboxId;
use greenroom_sandbox::cgroup::{self, Controller, Placement, Version};
use greenroom_sandbox::spec::{LAYER_ID, LOCK_NAME, Limits};
use greenroom_sandbox::{identity, lock, processes};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Stable, lower-case words joined by underscores.
    pub name: &'static str,
    pub verdict: Verdict,
    /// What was found and what is used, one sentence.
    pub detail: String,
    /// What to do about it, if something is missing.
    pub hint: Option<String>,
}

/// How well it serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Good,
    /// Works with less; `detail` says with what.
    Reduced,
    /// Sandboxes do not work without it.
    Missing,
    /// For information only.
    Unused,
}

/// Tries everything, with a throwaway sandbox below `state_dir` (made if missing), and leaves nothing behind in it but the
/// host's own programs and base.
pub async fn probe(state_dir: &Path, machines: &MachineConfig) -> Vec<Finding> {
    let (sandbox, uid) = sandbox(state_dir).await;
    let mut findings = vec![privilege(uid), sandbox];
    findings.extend(crate::backend::oci_findings(state_dir).await);
    findings.extend(groups());
    findings.extend(other_limits());
    findings.push(landlock());
    findings.push(crate::backend::machine_finding(state_dir, machines).await);
    findings
}

/// `uid`: as whom the sandbox that was tried ran on the host.
fn privilege(uid: Option<u32>) -> Finding {
    match identity::is_privileged() {
        true if uid == Some(LAYER_ID) => Finding {
            name: "privilege",
            verdict: Verdict::Reduced,
            detail: "Running as root, but all sandboxes run under one uid, apart by their namespaces: the filesystem of the \
                     data directory cannot map ids."
                .to_owned(),
            hint: Some("Put the data directory on ext4, xfs or btrfs, with Linux 5.19 or newer.".to_owned()),
        },
        true => Finding {
            name: "privilege",
            verdict: Verdict::Good,
            detail: "Running as root: each sandbox gets a host uid of its own.".to_owned(),
            hint: None,
        },
        false => Finding {
            name: "privilege",
            verdict: Verdict::Good,
            detail: "Running as an ordinary user: sandboxes run under this user's uid in user namespaces."
                .to_owned(),
            hint: None,
        },
    }
}

/// Namespaces, mounts, capabilities, system call filter, guest: all at once, as they are used.
async fn sandbox(state_dir: &Path) -> (Finding, Option<u32>) {
    let id = SandboxId::from_bits(greenroom_stdx::id::fresh_bits());
    let missing = |detail: String, hint: String| Finding {
        name: "sandbox",
        verdict: Verdict::Missing,
        detail,
        hint: Some(hint),
    };
    let host = match Host::open(HostConfig::new(state_dir.to_owned())).await {
        Ok(host) => host,
        Err(error) => {
            let hint = error.problem().hint.unwrap_or_default();
            return (
                missing(greenroom_stdx::chain::Chain(&error).to_string(), hint),
                None,
            );
        }
    };
    let tried = try_sandbox(&host, &id).await;
    let uid = uid_outside(&state_dir.join("sb").join(id.as_str()));
    let is_copied = state_dir.join("sb").join(id.as_str()).join("copy").exists();
    let removed = host.remove(&id).await;
    host.close().await;
    let finding = match (tried, removed) {
        (Ok(()), Ok(())) if is_copied => Finding {
            name: "sandbox",
            verdict: Verdict::Reduced,
            detail: "A sandbox started, with a copied root: the data directory cannot hold an overlay."
                .to_owned(),
            hint: Some("Put the data directory on a real volume (ext4, xfs, btrfs).".to_owned()),
        },
        (Ok(()), Ok(())) => Finding {
            name: "sandbox",
            verdict: Verdict::Good,
            detail: "A sandbox started: namespaces, overlay and system call filter work.".to_owned(),
            hint: None,
        },
        (Err((detail, hint)), _) => missing(detail, hint),
        (Ok(()), Err(error)) => {
            let hint = error.problem().hint.unwrap_or_default();
            missing(greenroom_stdx::chain::Chain(&error).to_string(), hint)
        }
    };
    (finding, uid)
}

/// As whom the guest of a sandbox that runs is known to the host's kernel.
fn uid_outside(directory: &Path) -> Option<u32> {
    let supervisor = lock::holder(&directory.join(LOCK_NAME)).ok()??;
    let guest = *processes::tree(supervisor.as_raw_nonzero().get()).get(1)?;
    Some(std::fs::metadata(format!("/proc/{guest}")).ok()?.uid())
}

async fn try_sandbox(host: &Host, id: &SandboxId) -> Result<(), (String, String)> {
    let start = StartSandbox::new(id.clone(), refuse_routes());
    let sandbox = host.start(start).await.map_err(|error| {
        let hint = match &error {
            HostError::Launch(failure) => launch_hint(failure),
            other => other.problem().hint.unwrap_or_default(),
        };
        (greenroom_stdx::chain::Chain(&error).to_string(), hint)
    })?;
    let exec = Exec {
        argv: vec!["/bin/true".to_owned()],
        timeout_ms: Some(10_000),
        ..Exec::default()
    };
    // Nothing is written; one place is enough.
    let (output, _kept) = mpsc::channel(1);
    let exit = sandbox.exec(exec, output, CancellationToken::new()).await;
    match exit {
        Ok(exit) if exit.code == Some(0) => Ok(()),
        Ok(exit) => Err((
            format!("/bin/true ended with {exit:?} in a sandbox."),
            String::new(),
        )),
        Err(error) => Err((
            format!("A program did not run in a sandbox: {error}"),
            String::new(),
        )),
    }
}

fn groups() -> Vec<Finding> {
    let name = format!("greenroom-probe-{}", std::process::id());
    let placements = cgroup::prepare(&name);
    let findings = Controller::ALL
        .into_iter()
        .map(|controller| group(controller, &placements))
        .collect();
    for placement in &placements {
        let _ = cgroup::remove(&placement.directory, std::time::Duration::from_secs(1));
    }
    findings
}

/// What holds or counts one resource.
fn group(controller: Controller, placements: &[Placement]) -> Finding {
    let (name, instead) = match controller {
        Controller::Memory => ("limit_memory", "the memory of a sandbox is not limited"),
        Controller::Pids => (
            "limit_processes",
            "RLIMIT_NPROC limits the processes of a sandbox, and a call says that it hit the limit only if the sandbox is \
             still full at its end",
        ),
        Controller::Cpu => ("limit_cpu", "the processor time of a sandbox is not limited"),
        Controller::Cpuacct => ("usage_cpu", "processor time is added up from processes"),
    };
    let found = placements
        .iter()
        .find(|placement| placement.controllers.contains(&controller));
    let Some(placement) = found else {
        return Finding {
            name,
            verdict: Verdict::Reduced,
            detail: format!(
                "No cgroup of controller {} is writable; {instead}.",
                controller.name()
            ),
            hint: Some("Run as root, or under systemd with Delegate=yes.".to_owned()),
        };
    };
    let version = match placement.version {
        Version::V1 => "v1",
        Version::V2 => "v2",
    };
    let place = placement.directory.display();
    let swap = match placement.version {
        Version::V1 => "memory.memsw.limit_in_bytes",
        Version::V2 => "memory.swap.max",
    };
    let does = match controller {
        Controller::Memory if placement.directory.join(swap).exists() => "Limited with swap",
        Controller::Memory => "Limited without swap, which this kernel does not count,",
        Controller::Pids | Controller::Cpu => "Limited",
        Controller::Cpuacct => "Counted",
    };
    Finding {
        name,
        verdict: Verdict::Good,
        detail: format!("{does} by cgroup {version} at {place}."),
        hint: None,
    }
}

/// Limits that need no resource group.
fn other_limits() -> Vec<Finding> {
    let good = |name, detail: &str| Finding {
        name,
        verdict: Verdict::Good,
        detail: detail.to_owned(),
        hint: None,
    };
    vec![
        good(
            "limit_disk",
            "Watched by the supervisor of each sandbox, which kills its programs when they took more; no quota of the \
             filesystem is used.",
        ),
        open_files(),
        good(
            "limit_wall_time",
            "The supervisor of each sandbox ends it when its life time is over.",
        ),
        good(
            "limit_output",
            "The guest ends a command that writes more than it may.",
        ),
    ]
}

fn open_files() -> Finding {
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let wanted = Limits::default().max_open_files;
    match most.filter(|most| *most < wanted) {
        None => Finding {
            name: "limit_open_files",
            verdict: Verdict::Good,
            detail: "Limited by RLIMIT_NOFILE, per process.".to_owned(),
            hint: None,
        },
        Some(most) => Finding {
            name: "limit_open_files",
            verdict: Verdict::Reduced,
            detail: format!(
                "RLIMIT_NOFILE of this process is {most}, so that programs get no more than that."
            ),
            hint: Some(format!(
                "Raise it to {wanted} or more (ulimit -Hn, LimitNOFILE= in systemd)."
            )),
        },
    }
}

fn landlock() -> Finding {
    let version = greenroom_sandbox::landlock_version();
    match greenroom_sandbox::landlock_shortcoming(version) {
        None => Finding {
            name: "landlock",
            verdict: Verdict::Good,
            detail: format!(
                "Landlock version {} holds what sandboxes write.",
                version.unwrap_or_default()
            ),
            hint: None,
        },
        Some(shortcoming) => Finding {
            name: "landlock",
            verdict: Verdict::Reduced,
            detail: format!("Not all of Landlock is there: {shortcoming}."),
            hint: Some("A newer kernel (6.12 or later) with lsm=landlock has all of it.".to_owned()),
        },
    }
}
