//! The child's way from the launcher's copy to the guest: every step that makes it less able, in order. Runs in the new
//! namespaces; ends where the guest begins, or with the step that failed.

use crate::agent::Agent;
use crate::cgroup::{self, Controller, Version};
use crate::failure::Step;
use crate::spec::{GUEST_SOCKET_FD, LaunchFailure, LaunchSpec, Privilege, ROOT_ID};
use crate::{identity, landlock, mounts, network, seccomp, syscall};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::process::{Resource, Rlimit};
use rustix::thread::UnshareFlags;

/// The name of the guest's process, at most 15 bytes.
const GUEST_NAME: &std::ffi::CStr = c"greenroom-guest";

/// What the supervisor says when it has opened what it needs of the child.
pub(crate) const GO: &[u8] = b"go";

/// What the child gets from the supervisor besides its orders.
pub(crate) struct Handover<'a> {
    /// Closed at the other end when the supervisor dies; a failure is told there.
    pub supervisor: &'a OwnedFd,
    /// The guest's socket.
    pub listener: &'a OwnedFd,
    /// Who the agent is, as root.
    pub agent: Option<&'a Agent>,
    /// A network namespace made ahead.
    pub network: Option<&'a OwnedFd>,
    /// The supervisor's ids; in a new user namespace the child cannot tell its own.
    pub uid: u32,
    pub gid: u32,
}

/// Does all that comes before the guest. Runs in new namespaces.
pub(crate) fn prepare(spec: &LaunchSpec, handover: &Handover<'_>) -> Result<(), LaunchFailure> {
    // While the host's hierarchies are in sight. The one of v2 was entered by being born in it.
    for placement in spec
        .cgroups
        .iter()
        .filter(|placement| placement.version == Version::V1)
    {
        cgroup::join(placement).step("enter resource group")?;
    }
    if spec.privilege == Privilege::User {
        identity::map_to(spec.user_id, handover.uid, handover.gid)?;
    }
    let filter = seccomp::program(spec.user_id == ROOT_ID);
    set_environment(spec)?;

    // Only now, so that the new namespace's root is the sandbox's own group.
    // SAFETY: shares no file descriptors; there is one thread.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWCGROUP) }.step("make cgroup namespace")?;
    forget_unused_memory();
    rustix::system::sethostname(spec.hostname.as_bytes()).step("set host name")?;
    match (handover.network, spec.privilege) {
        // The user namespace that owns it is not this process's.
        (Some(network), Privilege::Root) => network::enter(network).step("enter network namespace")?,
        _ => network::make().step("make network namespace")?,
    }
    mounts::enter_root(spec, handover.agent)?;

    await_go(handover.supervisor)?;
    if let Some(agent) = handover.agent {
        identity::become_user(agent.host_id, spec.user_id)?;
    }
    identity::drop_capabilities(spec.user_id == ROOT_ID)?;
    identity::die_with_parent()?;
    end_if_alone(handover.supervisor);
    set_rlimits(spec)?;
    landlock::restrict(spec.is_root_open)?;
    seccomp::install(filter).step("install system call filter")?;
    // SAFETY: prctl with a NUL-terminated text.
    unsafe { libc::prctl(libc::PR_SET_NAME, GUEST_NAME.as_ptr()) };
    // Last, because it closes the supervisor's end, which tells it that all is well.
    keep_only_socket(handover)
}

/// Has the kernel free shared memory (shmget(2)) with the last program that uses it: what no process holds could not be taken
/// back by ending programs, and would keep the sandbox at its limit. Best effort: not in the power of an ordinary user.
fn forget_unused_memory() {
    let _ = std::fs::write("/proc/sys/kernel/shm_rmid_forced", "1");
}

/// Ends the process as an executed program would.
pub(crate) fn exit(code: std::process::ExitCode) -> ! {
    let is_success = code == std::process::ExitCode::SUCCESS;
    std::process::exit(i32::from(!is_success))
}

/// Waits for the supervisor, usually not at all. One that died ends this process too.
fn await_go(supervisor: &OwnedFd) -> Result<(), LaunchFailure> {
    let mut message = [0; GO.len()];
    match rustix::io::read(supervisor, &mut message).step("wait for the supervisor")? {
        0 => std::process::exit(1),
        _ => Ok(()),
    }
}

/// The supervisor may have died before the kernel was asked to tell. Nobody would read a report.
pub(crate) fn end_if_alone(supervisor: &OwnedFd) {
    let mut channel = [PollFd::new(supervisor, PollFlags::empty())];
    let now = Timespec::default();
    if rustix::event::poll(&mut channel, Some(&now)).is_ok_and(|changed| changed > 0) {
        std::process::exit(1);
    }
}

/// For everything that the guest starts: the orders' variables and no others, whoever executed the launcher with what.
fn set_environment(spec: &LaunchSpec) -> Result<(), LaunchFailure> {
    for (name, _) in std::env::vars_os() {
        // SAFETY: there is one thread.
        unsafe { std::env::remove_var(name) };
    }
    for (name, value) in &spec.env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(LaunchFailure {
                step: "set environment".to_owned(),
                errno: libc::EINVAL,
            });
        }
        // SAFETY: there is one thread.
        unsafe { std::env::set_var(name, value) };
    }
    Ok(())
}

fn set_rlimits(spec: &LaunchSpec) -> Result<(), LaunchFailure> {
    let limits = [
        (Resource::Nproc, most_processes(spec)),
        (Resource::Nofile, spec.limits.max_open_files),
        (
            Resource::Fsize,
            spec.limits.max_file_bytes.min(spec.limits.disk_bytes),
        ),
        (Resource::Core, 0),
    ];
    for (resource, wanted) in limits {
        // A hard limit cannot be raised without a capability that even root may lack.
        let most = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let value = Some(wanted.min(most));
        rustix::process::setrlimit(
            resource,
            Rlimit {
                current: value,
                maximum: value,
            },
        )
        .step("set resource limits")?;
    }
    Ok(())
}

/// `RLIMIT_NPROC`. Where a resource group holds the number, a little more, because only the group counts what it refuses.
pub(crate) fn most_processes(spec: &LaunchSpec) -> u64 {
    let is_held_by_group = spec
        .cgroups
        .iter()
        .any(|placement| placement.controllers.contains(&Controller::Pids));
    let more = match is_held_by_group {
        true => 2 * cgroup::GUEST_THREADS,
        false => cgroup::GUEST_THREADS,
    };
    u64::from(spec.limits.max_processes) + more
}

/// Puts the listening socket where the guest expects it and closes everything else but the standard descriptors.
fn keep_only_socket(handover: &Handover<'_>) -> Result<(), LaunchFailure> {
    debug_assert!(
        handover.supervisor.as_raw_fd() != GUEST_SOCKET_FD,
        "launcher reserves it"
    );
    // SAFETY: plain dup2 onto a number that the launcher reserved for it at its start, so nobody owns it.
    if unsafe { libc::dup2(handover.listener.as_raw_fd(), GUEST_SOCKET_FD) } < 0 {
        return Err(syscall::last_errno()).step("pass socket to guest");
    }
    // SAFETY: nothing of this process uses a descriptor above any more: the caller goes on as the guest and never returns to
    // those who own them.
    let result = unsafe { libc::syscall(libc::SYS_close_range, GUEST_SOCKET_FD + 1, u32::MAX, 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(syscall::last_errno()).step("close descriptors")
    }
}
