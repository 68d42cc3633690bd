//! Namespaces and a system call filter on the host's own kernel, made by the launcher program.

use crate::backend::{Backend, Launch, root};
use crate::failure::HostError;
use greenroom_sandbox::spec::LaunchOrders;

#[derive(Debug)]
pub(super) struct Namespace;

impl Backend for Namespace {
    fn launch(&self, launch: Launch<'_>) -> Result<(), HostError> {
        let Launch {
            mut spec,
            programs,
            base,
            ..
        } = launch;
        let warnings = root::overlay_or_copy(&mut spec, base, |spec| {
            programs.launchers.launch(&LaunchOrders::Namespace(spec.clone()))
        })?;
        for warning in warnings {
            tracing::warn!(directory = %spec.directory.display(), "{warning}");
        }
        Ok(())
    }
}
