//! An OCI runtime isolates: crun, runc, runsc (gVisor), or any other that works as the specification says. Finds the program
//! and gives the launcher its orders; what a runtime needs to be told lies there (`greenroom_sandbox::oci`).

use crate::backend::{Backend, Launch, root};
use crate::failure::HostError;
use crate::host::{Host, HostConfig, StartSandbox};
use crate::probe::{Finding, Verdict};
use crate::route::refuse_routes;
use greenroom_protocol::environment;
use greenroom_protocol::guest::call::Exec;
use greenroom_protocol::id::SandboxId;
use greenroom_sandbox::spec::{LaunchOrders, OciRuntime, OciSpec, RUNTIME_REFUSED};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Tried in this order when an environment names none: the strongest first.
const DEFAULTS: [&str; 3] = ["runsc", "crun", "runc"];

/// Where programs are looked for besides `PATH`.
const DIRECTORIES: &[&str] = &["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"];

/// How long one runtime may take to show that it works.
const PROBE_PATIENCE: Duration = Duration::from_secs(20);

/// A runtime that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Oci {
    program: PathBuf,
    kind: OciRuntime,
}

impl Oci {
    /// The runtime that is meant: a path, a name, or none.
    pub(super) fn choose(runtime: Option<&str>, is_privileged: bool) -> Result<Self, HostError> {
        match runtime {
            Some(name) => {
                let program = find(name).ok_or_else(|| HostError::RuntimeMissing(name.to_owned()))?;
                let kind = kind(&program);
                match is_privileged || works_without_root(kind) {
                    true => Ok(Self { program, kind }),
                    false => Err(HostError::RuntimeNeedsRoot(name.to_owned())),
                }
            }
            None => DEFAULTS
                .into_iter()
                .filter_map(find)
                .map(|program| Self {
                    kind: kind(&program),
                    program,
                })
                .find(|found| is_privileged || works_without_root(found.kind))
                .ok_or_else(|| {
                    HostError::RuntimeMissing(match is_privileged {
                        true => "(runsc, crun or runc)".to_owned(),
                        false => "crun".to_owned(),
                    })
                }),
        }
    }
}

impl Backend for Oci {
    fn launch(&self, launch: Launch<'_>) -> Result<(), HostError> {
        let Launch {
            mut spec,
            programs,
            base,
            ..
        } = launch;
        let launched = root::overlay_or_copy(&mut spec, base, |spec| {
            let orders = LaunchOrders::Oci(OciSpec {
                sandbox: spec.clone(),
                program: self.program.clone(),
                runtime: self.kind,
            });
            programs.launchers.launch(&orders)
        });
        match launched {
            Ok(warnings) => {
                for warning in warnings {
                    tracing::warn!(directory = %spec.directory.display(), "{warning}");
                }
                Ok(())
            }
            Err(HostError::Launch(failure)) => Err(match failure.step.strip_prefix(RUNTIME_REFUSED) {
                Some(reason) => HostError::RuntimeRefused {
                    runtime: self.program.display().to_string(),
                    reason: reason.to_owned(),
                },
                None => HostError::Launch(failure),
            }),
            Err(error) => Err(error),
        }
    }
}

/// An ordinary user has one id to give away, and all but crun insist on two.
fn works_without_root(kind: OciRuntime) -> bool {
    match kind {
        OciRuntime::Crun | OciRuntime::Other => true,
        OciRuntime::Runc | OciRuntime::Runsc => false,
    }
}

fn kind(program: &Path) -> OciRuntime {
    match program.file_name().unwrap_or_default().to_str() {
        Some("crun") => OciRuntime::Crun,
        Some("runc") => OciRuntime::Runc,
        Some("runsc") => OciRuntime::Runsc,
        _ => OciRuntime::Other,
    }
}

/// The program of a name, or behind a path; nothing without a runtime's right to be executed.
fn find(name: &str) -> Option<PathBuf> {
    if name.starts_with('/') {
        return Some(PathBuf::from(name)).filter(|path| is_program(path));
    }
    // Not relative to wherever the server was started.
    if name.is_empty() || name.contains('/') {
        return None;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .filter(|directory| directory.is_absolute())
        .chain(DIRECTORIES.iter().map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

/// What each known runtime does here, found by running a throwaway sandbox with it below `state_dir`. Empty where not even
/// the directory can be used.
pub(crate) async fn findings(state_dir: &Path) -> Vec<Finding> {
    let Ok(host) = Host::open(HostConfig::new(state_dir.to_owned())).await else {
        return Vec::new();
    };
    let is_privileged = greenroom_sandbox::identity::is_privileged();
    let mut findings = Vec::new();
    for (runtime, name) in [
        ("runsc", "backend_oci_runsc"),
        ("crun", "backend_oci_crun"),
        ("runc", "backend_oci_runc"),
    ] {
        let (verdict, detail, hint) = match Oci::choose(Some(runtime), is_privileged) {
            Err(HostError::RuntimeNeedsRoot(_)) => (
                Verdict::Unused,
                format!("{runtime} is installed and needs a server that runs as root."),
                Some("Environments that ask for it fail; crun works without root."),
            ),
            Err(_) => (
                Verdict::Unused,
                format!("{runtime} is not installed."),
                Some("Only environments that ask for it need it."),
            ),
            Ok(_) => match try_runtime(&host, runtime).await {
                Ok(()) => (
                    Verdict::Good,
                    format!("A sandbox started with {runtime} and ran a program."),
                    None,
                ),
                Err(why) => (
                    Verdict::Unused,
                    format!("{runtime} is installed and does not work here: {why}"),
                    Some("Environments that ask for it fail."),
                ),
            },
        };
        findings.push(Finding {
            name,
            verdict,
            detail,
            hint: hint.map(str::to_owned),
        });
    }
    host.close().await;
    findings
}

async fn try_runtime(host: &Host, runtime: &str) -> Result<(), String> {
    let id = SandboxId::from_bits(greenroom_stdx::id::fresh_bits());
    let tried = tokio::time::timeout(PROBE_PATIENCE, run_program(host, &id, runtime)).await;
    let removed = host.remove(&id).await;
    match removed {
        Ok(()) => tried.unwrap_or_else(|_| Err("it did not run a program in time".to_owned())),
        Err(error) => Err(greenroom_stdx::chain::Chain(&error).to_string()),
    }
}

async fn run_program(host: &Host, id: &SandboxId, runtime: &str) -> Result<(), String> {
    let start = StartSandbox {
        backend: environment::Backend::Oci,
        runtime: Some(runtime.to_owned()),
        ..StartSandbox::new(id.clone(), refuse_routes())
    };
    let sandbox = host.start(start).await.map_err(|error| match error {
        HostError::RuntimeRefused { reason, .. } => reason,
        error => greenroom_stdx::chain::Chain(&error).to_string(),
    })?;
    let exec = Exec {
        argv: vec!["/bin/true".to_owned()],
        timeout_ms: Some(10_000),
        ..Exec::default()
    };
    // Nothing is written; one place is enough.
    let (output, _kept) = mpsc::channel(1);
    match sandbox.exec(exec, output, CancellationToken::new()).await {
        Ok(exit) if exit.code == Some(0) => Ok(()),
        Ok(exit) => Err(format!("/bin/true ended with {exit:?}")),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_are_told_apart_by_their_names() {
        for (path, expected) in [
            ("/usr/bin/crun", OciRuntime::Crun),
            ("/opt/x/runc", OciRuntime::Runc),
            ("/usr/local/bin/runsc", OciRuntime::Runsc),
            ("/usr/bin/youki", OciRuntime::Other),
            ("/usr/bin/my-runc", OciRuntime::Other),
        ] {
            assert_eq!(kind(Path::new(path)), expected, "{path}");
        }
    }

    #[test]
    fn what_is_no_program_is_not_found() {
        for name in [
            "",
            "no-such-runtime",
            "../bin/sh",
            "bin/sh",
            "/etc/passwd",
            "/usr",
            "/nowhere/crun",
        ] {
            assert_eq!(find(name), None, "{name:?}");
        }
        assert!(find("/bin/sh").is_some() && find("sh").is_some());
    }
}
