//! What isolates a sandbox, behind one trait. Which backend a sandbox has is recorded in its directory, so that one process
//! may start it and another, later, find it and end it.

mod namespace;
mod root;

use crate::base::Base;
use crate::embedded::Programs;
use crate::failure::HostError;
use greenroom_protocol::environment;
use greenroom_sandbox::spec::LaunchSpec;
use std::path::Path;

pub(crate) use root::{make_private, prepare as prepare_root};

/// One way to run a sandbox. Blocking; used from worker threads only.
///
/// Each backend keeps a supervisor process for each sandbox that outlives the host's process, holds the lock in the
/// sandbox's directory as long as it lives, listens on the guest's socket there, and ends the sandbox when it is asked to
/// (`SIGTERM`) or dies. So finding a sandbox, connecting to its guest and stopping it are the same for all of them and no
/// part of this trait.
pub(crate) trait Backend {
    /// Starts the sandbox. Returns once its supervisor holds the lock and its guest's socket accepts connections; on
    /// failure nothing of it is left but files in its directory.
    fn launch(&self, launch: Launch<'_>) -> Result<(), HostError>;

    /// Removes what a supervisor leaves outside of its sandbox's directory and resource groups when it is killed. Called
    /// only when nobody holds the lock; nothing to remove is fine.
    fn clear(&self, directory: &Path) -> Result<(), HostError>;
}

/// Everything a backend needs to start one sandbox.
pub(crate) struct Launch<'a> {
    /// Its directory and root are in order.
    pub spec: LaunchSpec,
    pub programs: &'a Programs,
    pub base: &'a Base,
}

/// The backend for a sandbox to be started.
pub(crate) fn choose(
    backend: environment::Backend,
    _runtime: Option<&str>,
) -> Result<Box<dyn Backend>, HostError> {
    match backend {
        environment::Backend::Namespace => Ok(Box::new(namespace::Namespace)),
        environment::Backend::Oci | environment::Backend::Microvm => {
            Err(HostError::BackendUnavailable(backend))
        }
    }
}

/// The backend with which the sandbox of `directory` was started last.
pub(crate) fn recorded(_directory: &Path) -> Result<Box<dyn Backend>, HostError> {
    Ok(Box::new(namespace::Namespace))
}
