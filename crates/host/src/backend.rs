//! What isolates a sandbox, behind one trait. It starts sandboxes; to find, stop and remove one nobody needs to know what
//! isolates it.

mod microvm;
mod namespace;
mod oci;
mod root;

use crate::base::Base;
use crate::embedded::Programs;
use crate::failure::HostError;
use crate::host::SandboxFile;
use greenroom_protocol::environment;
use greenroom_protocol::id::SandboxId;
use greenroom_sandbox::spec::LaunchSpec;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

pub(crate) use microvm::finding as machine_finding;
pub use microvm::{MachineConfig, MachineError};
pub(crate) use oci::findings as oci_findings;
pub(crate) use root::{Below, make_private, prepare as prepare_root, prepare_blank};

/// One way to run a sandbox. Blocking; used from worker threads only.
///
/// Each backend keeps a supervisor process for each sandbox that outlives the host's process, holds the lock in the
/// sandbox's directory as long as it lives, listens on the guest's socket there, and ends the sandbox when it is asked to
/// (`SIGTERM`) or dies. Nothing that it keeps outside of its sandbox's directory and resource groups outlives it. So finding
/// a sandbox, connecting to its guest, stopping it and clearing up after a supervisor that was killed are the same for all of
/// them and no part of this trait.
pub(crate) trait Backend {
    /// Starts the sandbox. Returns once its supervisor holds the lock and its guest's socket accepts connections; on
    /// failure nothing of it is left but files in its directory.
    fn launch(&self, launch: Launch<'_>) -> Result<(), HostError>;
}

/// Everything a backend needs to start one sandbox.
pub(crate) struct Launch<'a> {
    /// Its directory and root are in order.
    pub spec: LaunchSpec,
    pub id: &'a SandboxId,
    pub programs: &'a Programs,
    pub base: &'a Base,
    /// Already in the root, for backends that use it.
    pub files: &'a [SandboxFile],
}

/// The backend for a sandbox to be started.
pub(crate) fn choose(
    backend: environment::Backend,
    runtime: Option<&str>,
    is_privileged: bool,
    machines: &MachineConfig,
    state_dir: &Path,
) -> Result<Box<dyn Backend>, HostError> {
    match backend {
        environment::Backend::Namespace => Ok(Box::new(namespace::Namespace)),
        environment::Backend::Microvm => Ok(Box::new(microvm::Microvm::new(
            machines,
            state_dir.join("machines"),
        )?)),
        environment::Backend::Oci => Ok(Box::new(oci::Oci::choose(runtime, is_privileged)?)),
    }
}

/// An executable file by path, or by name in this process's `PATH`.
fn find_program(wanted: &Path) -> Option<PathBuf> {
    let is_program = |path: &Path| {
        std::fs::metadata(path)
            .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    };
    if wanted.components().count() > 1 {
        return is_program(wanted).then(|| std::path::absolute(wanted).ok())?;
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(wanted))
        .find(|candidate| is_program(candidate))
}
