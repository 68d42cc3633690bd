//! Whether machines work here, found by booting one: a program and a device that open prove nothing.

use super::{MachineConfig, Microvm};
use crate::backend::{Backend as _, Launch, make_private};
use crate::base::{Base, host_base};
use crate::embedded::install;
use crate::failure::HostError;
use crate::host::blocking;
use crate::link::Link;
use crate::probe::{Finding, Verdict};
use crate::route::refuse_routes;
use crate::supervisor;
use greenroom_images::tree;
use greenroom_protocol::id::SandboxId;
use greenroom_sandbox::identity;
use greenroom_sandbox::spec::{LaunchSpec, Limits, Privilege, Root};
use greenroom_stdx::chain::Chain;
use std::path::{Path, PathBuf};

/// Memory of the machine that is tried, in bytes.
const MEMORY_BYTES: u64 = 128 << 20;

/// Disk of the machine that is tried, in bytes.
const DISK_BYTES: u64 = 64 << 20;

/// Boots a guest in a throwaway machine below `state_dir`, if an operator configured machines.
pub(crate) async fn finding(state_dir: &Path, config: &MachineConfig) -> Finding {
    let name = "backend_microvm";
    if config.kernel.is_none() {
        return Finding {
            name,
            verdict: Verdict::Unused,
            detail: "No guest kernel is configured, so that there are no virtual machines.".to_owned(),
            hint: Some("Set sandbox.microvm_kernel to try them.".to_owned()),
        };
    }
    let (state_dir, config) = (state_dir.to_owned(), config.clone());
    match boot(state_dir, config).await {
        Ok(()) => Finding {
            name,
            verdict: Verdict::Good,
            detail: "A virtual machine booted and its guest answered.".to_owned(),
            hint: None,
        },
        Err(error) => Finding {
            name,
            verdict: Verdict::Reduced,
            detail: format!("No virtual machine boots here: {}.", Chain(&error)),
            hint: error.problem().hint,
        },
    }
}

async fn boot(state_dir: PathBuf, config: MachineConfig) -> Result<(), HostError> {
    let id = SandboxId::from_bits(greenroom_stdx::id::fresh_bits());
    let directory = state_dir.join("machine-probe").join(id.as_str());
    let (place, name) = (directory.clone(), id.clone());
    let launched = blocking(move || launch(&state_dir, &place, &name, &config)).await;
    let answered = match launched {
        Ok(socket) => greet(&id, socket).await,
        Err(error) => Err(error),
    };
    let ended = blocking(move || {
        supervisor::stop(&id, &directory)?;
        tree::remove(&directory).map_err(HostError::file("remove", &directory))
    })
    .await;
    answered.and(ended)
}

/// Without the host's /usr, of which a disk would take long to make; the guest needs nothing of it.
fn launch(
    state_dir: &Path,
    directory: &Path,
    id: &SandboxId,
    config: &MachineConfig,
) -> Result<std::os::unix::net::UnixStream, HostError> {
    let shared = state_dir.join("machine-probe");
    let backend = Microvm::new(config, shared.join("images"))?;
    for path in [state_dir, &shared, directory] {
        make_private(path).map_err(HostError::file("make directory", path))?;
    }
    let programs = install(&state_dir.join("bin"))?;
    let base = Base {
        read_only: Vec::new(),
        ..host_base(&state_dir.join("base"))?
    };
    let privilege = match identity::is_privileged() {
        true => Privilege::Root,
        false => Privilege::User,
    };
    backend.launch(Launch {
        spec: LaunchSpec {
            directory: directory.to_owned(),
            root: Root::Directory {
                path: directory.to_owned(),
            },
            privilege,
            read_only: Vec::new(),
            is_root_open: false,
            user_id: greenroom_sandbox::spec::AGENT_ID,
            guest: programs.guest.clone(),
            hostname: "sandbox".to_owned(),
            env: Vec::new(),
            limits: Limits {
                memory_bytes: MEMORY_BYTES,
                disk_bytes: DISK_BYTES,
                cpu_millis: 1000,
                ..Limits::default()
            },
            cgroups: Vec::new(),
        },
        id,
        programs: &programs,
        base: &base,
        files: &[],
    })?;
    supervisor::connect(directory).map_err(|source| HostError::GuestSilent {
        id: id.clone(),
        source,
    })
}

/// A link opens only when both sides have said hello.
async fn greet(id: &SandboxId, socket: std::os::unix::net::UnixStream) -> Result<(), HostError> {
    let silent = |source| HostError::GuestSilent {
        id: id.clone(),
        source,
    };
    let socket = tokio::net::UnixStream::from_std(socket).map_err(silent)?;
    Link::open(socket, refuse_routes()).await.map_err(silent)?.end();
    Ok(())
}
