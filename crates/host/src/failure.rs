//! What can go wrong between the host and its sandboxes, and what a person can do about it.

use crate::backend::MachineError;
use greenroom_images::ImageError;
use greenroom_images::oci::OciError;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::environment::Backend;
use greenroom_protocol::guest::call::CallError;
use greenroom_protocol::id::SandboxId;
use greenroom_sandbox::spec::{EndingLimit, LaunchFailure};
use greenroom_stdx::chain::Chain;
use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// Why the host could not start, find or end a sandbox.
#[derive(Debug, Error)]
pub enum HostError {
    #[error("{action} {}", path.display())]
    File {
        /// Present-tense verb phrase.
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("the sandbox {0} is already running")]
    AlreadyRunning(SandboxId),
    #[error("the sandbox could not be built")]
    Launch(#[source] LaunchFailure),
    #[error("the launcher gave no answer: {0}")]
    LauncherSilent(String),
    #[error("the guest of {id} does not answer")]
    GuestSilent { id: SandboxId, source: io::Error },
    #[error("the supervisor of {id} does not end")]
    SupervisorStuck { id: SandboxId, source: io::Error },
    #[error("the backend {0:?} is not available")]
    BackendUnavailable(Backend),
    #[error("there is no virtual machine for the sandbox")]
    Machine(#[source] MachineError),
    #[error("the OCI runtime {0} is not installed")]
    RuntimeMissing(String),
    #[error("the OCI runtime {0} cannot be used without root")]
    RuntimeNeedsRoot(String),
    #[error("the OCI runtime {runtime} did not start the sandbox: {reason}")]
    RuntimeRefused {
        runtime: String,
        /// Its own last words.
        reason: String,
    },
    #[error("the sandbox's layers cannot be used")]
    Images(#[from] ImageError),
    #[error("the root has no user {0}")]
    UserUnknown(String),
    #[error("the image cannot be used")]
    Oci(#[from] OciError),
    #[error("a worker of the host was cancelled")]
    Cancelled,
}

impl HostError {
    pub(crate) fn file(action: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File {
            action,
            path: path.to_owned(),
            source,
        }
    }

    /// The error for people: stable code, one sentence, advice.
    pub fn problem(&self) -> Problem {
        match self {
            Self::File { source, .. } if source.raw_os_error() == Some(28) => {
                Problem::transient("disk_full", "The disk that holds the sandboxes is full.")
                    .with_hint("Free some space in the data directory.")
            }
            Self::File { .. } => {
                Problem::transient("sandbox_files", "The sandbox's files could not be prepared.")
                    .with_hint("Check that the data directory is writable and on a healthy disk.")
            }
            Self::AlreadyRunning(_) => {
                Problem::permanent("sandbox_already_running", "This sandbox is already running.")
            }
            Self::Launch(failure) => {
                let problem = Problem::transient("sandbox_start_failed", "The sandbox could not be started.");
                problem.with_hint(launch_hint(failure))
            }
            Self::LauncherSilent(_) => {
                Problem::transient("sandbox_start_failed", "The sandbox could not be started.")
                    .with_hint("Look at launcher.log in the sandbox's directory.")
            }
            Self::GuestSilent { .. } => {
                Problem::transient("sandbox_unresponsive", "The sandbox does not answer.")
            }
            Self::SupervisorStuck { .. } => Problem::transient("sandbox_stuck", "The sandbox does not end."),
            Self::BackendUnavailable(_) => Problem::permanent(
                "backend_unavailable",
                "This server cannot run sandboxes with the backend that the environment asks for.",
            )
            .with_hint("Run `greenroom doctor` to see which backends work here, and name one of them."),
            Self::Machine(error) => Problem::permanent(
                "microvm_unavailable",
                format!(
                    "The sandbox's virtual machine could not be started: {}.",
                    Chain(error)
                ),
            )
            .with_hint(error.hint()),
            Self::RuntimeMissing(runtime) => Problem::permanent(
                "runtime_missing",
                format!("The OCI runtime {runtime} is not installed on this server."),
            )
            .with_hint("Install crun, runc or runsc, or name another runtime in the environment."),
            Self::RuntimeNeedsRoot(runtime) => Problem::permanent(
                "runtime_needs_root",
                format!("The OCI runtime {runtime} needs a server that runs as root."),
            )
            .with_hint("Run the server as root, or name the runtime crun, which works without."),
            Self::RuntimeRefused { runtime, reason } => Problem::transient(
                "runtime_refused",
                format!("The OCI runtime {runtime} did not start the sandbox."),
            )
            .with_hint(format!(
                "It said: {reason}. Run `greenroom doctor` to see which runtimes work here."
            )),
            Self::Images(error) => error.problem(),
            Self::UserUnknown(name) => Problem::permanent(
                "user_unknown",
                format!("The base of the environment has no user {name}."),
            )
            .with_hint("Name a user of the image's /etc/passwd, or leave `user` out."),
            Self::Oci(error) => error.problem(),
            Self::Cancelled => Problem::transient("server_stopping", "The server is stopping."),
        }
    }
}

/// What to do when a step of the launcher failed.
pub(crate) fn launch_hint(failure: &LaunchFailure) -> String {
    let advice = match failure.step.as_str() {
        "make namespaces" => {
            "The kernel does not let this user make namespaces: set user.max_user_namespaces above 0, and \
             kernel.apparmor_restrict_unprivileged_userns to 0 where it exists, or run as root."
        }
        "mount overlay" => {
            "The kernel refuses an overlay on the data directory: put it on a real volume (ext4, xfs, btrfs), not on a \
             container's own filesystem."
        }
        "mount /proc" => {
            "The container hides parts of /proc: run it with unmasked paths (Docker: --security-opt \
             systempaths=unconfined) or outside a container."
        }
        _ => "Run `greenroom doctor` to see what this machine lacks.",
    };
    format!("{failure}. {advice}")
}

/// Why a sandbox could not do what it was asked.
#[derive(Debug, Clone, Error)]
pub enum SandboxError {
    /// The guest refused or failed.
    #[error("{}", .0.message)]
    Call(CallError),
    /// The link broke, or the guest broke the protocol or does not answer.
    #[error("{}", .0.message)]
    Lost(Problem),
}

impl SandboxError {
    pub(crate) fn lost() -> Self {
        Self::Lost(
            Problem::transient("sandbox_lost", "The connection to the sandbox broke.")
                .with_hint("Its files are kept; it is started again when needed."),
        )
    }

    /// The sandbox ended for a limit.
    pub(crate) fn ended_by(limit: EndingLimit) -> Self {
        let (code, message, hint) = match limit {
            EndingLimit::WallTime => (
                "sandbox_wall_time",
                "The sandbox reached the end of its life time.",
                "Its files are kept; it is started again when needed.",
            ),
            EndingLimit::Disk => (
                "sandbox_disk_limit",
                "The sandbox was ended because it took far more disk than it may and went on.",
                "Its files are kept; it is started again when needed. Remove some of them first, or raise the limit.",
            ),
            EndingLimit::Memory => (
                "sandbox_memory_limit",
                "The sandbox ended because it ran out of memory.",
                "Its files are kept; it is started again when needed. Use less memory at once, or raise the limit.",
            ),
            EndingLimit::Processes => (
                "sandbox_process_limit",
                "The sandbox ended because it had too many processes.",
                "Its files are kept; it is started again when needed. Run fewer at once, or raise the limit.",
            ),
        };
        Self::Lost(Problem::transient(code, message).with_hint(hint))
    }

    pub(crate) fn unresponsive() -> Self {
        Self::Lost(Problem::transient(
            "sandbox_unresponsive",
            "The sandbox does not answer.",
        ))
    }

    pub(crate) fn misbehaved() -> Self {
        Self::Lost(Problem::transient(
            "sandbox_misbehaved",
            "The sandbox gave an answer that makes no sense.",
        ))
    }
}
