//! The child's way from the launcher's copy to the guest: every step that makes it less able, in order. Runs in the new
//! namespaces; ends by executing the guest or by telling the supervisor which step failed.

use crate::cgroup::{self, Controller, Version};
use crate::failure::Step;
use crate::spec::{GUEST_SOCKET_FD, LaunchFailure, LaunchSpec, Privilege};
use crate::{identity, landlock, mounts, network, seccomp, syscall};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::process::{Resource, Rlimit};
use rustix::thread::UnshareFlags;
use std::ffi::CString;

/// What the child gets from the supervisor besides its orders.
pub(crate) struct Handover<'a> {
    /// Closed at the other end when the supervisor dies; a failure is told there.
    pub supervisor: &'a OwnedFd,
    /// The guest's socket.
    pub listener: &'a OwnedFd,
    /// The guest's program.
    pub guest: &'a OwnedFd,
    /// A network namespace made ahead.
    pub network: Option<&'a OwnedFd>,
    /// The supervisor's ids; in a new user namespace the child cannot tell its own.
    pub uid: u32,
    pub gid: u32,
}

/// Becomes the guest, or says why not. Runs in new namespaces.
pub(crate) fn become_guest(
    spec: &LaunchSpec,
    handover: &Handover<'_>,
) -> Result<std::convert::Infallible, LaunchFailure> {
    // While the host's hierarchies are in sight. The one of v2 was entered by being born in it.
    for placement in spec
        .cgroups
        .iter()
        .filter(|placement| placement.version == Version::V1)
    {
        cgroup::join(placement).step("enter resource group")?;
    }
    if spec.privilege == Privilege::User {
        identity::map_to_agent(handover.uid, handover.gid)?;
    }
    let filters = seccomp::programs().map_err(|error| LaunchFailure {
        step: format!("compile system call filter: {error}"),
        errno: 0,
    })?;
    let (argv, env) = arguments(spec)?;

    // Only now, so that the new namespace's root is the sandbox's own group.
    // SAFETY: shares no file descriptors; there is one thread.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWCGROUP) }.step("make cgroup namespace")?;
    rustix::system::sethostname(spec.hostname.as_bytes()).step("set host name")?;
    match (handover.network, spec.privilege) {
        // The user namespace that owns it is not this process's.
        (Some(network), Privilege::Root { .. }) => network::enter(network).step("enter network namespace")?,
        _ => network::make().step("make network namespace")?,
    }
    mounts::enter_root(spec)?;

    if let Privilege::Root { host_id } = spec.privilege {
        identity::become_agent(host_id)?;
    }
    identity::drop_capabilities()?;
    identity::die_with_parent()?;
    end_if_alone(handover.supervisor);
    set_rlimits(spec)?;
    landlock::restrict(handover.guest.as_fd())?;
    give_descriptors(handover)?;
    seccomp::install(filters).map_err(|error| LaunchFailure {
        step: format!("install system call filter: {error}"),
        errno: 0,
    })?;
    Err(syscall::execute(handover.guest.as_fd(), &argv, &env)).step("execute guest")
}

/// The supervisor may have died before the kernel was asked to tell. Nobody would read a report.
pub(crate) fn end_if_alone(supervisor: &OwnedFd) {
    let mut channel = [PollFd::new(supervisor, PollFlags::empty())];
    let now = Timespec::default();
    if rustix::event::poll(&mut channel, Some(&now)).is_ok_and(|changed| changed > 0) {
        std::process::exit(1);
    }
}

fn arguments(spec: &LaunchSpec) -> Result<(Vec<CString>, Vec<CString>), LaunchFailure> {
    let text = |text: String| {
        CString::new(text).map_err(|_| LaunchFailure {
            step: "NUL in environment".to_owned(),
            errno: libc::EINVAL,
        })
    };
    let env = spec
        .env
        .iter()
        .map(|(name, value)| text(format!("{name}={value}")))
        .collect::<Result<_, _>>()?;
    Ok((vec![text("greenroom-guest".to_owned())?], env))
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

/// Puts the listening socket where the guest expects it and marks everything else to be closed on exec.
fn give_descriptors(handover: &Handover<'_>) -> Result<(), LaunchFailure> {
    debug_assert!(
        [handover.supervisor, handover.guest]
            .iter()
            .all(|fd| fd.as_raw_fd() != GUEST_SOCKET_FD),
        "launcher reserves it"
    );
    // SAFETY: plain dup2 onto a number that the launcher reserved for it at its start, so nobody owns it.
    if unsafe { libc::dup2(handover.listener.as_raw_fd(), GUEST_SOCKET_FD) } < 0 {
        return Err(syscall::last_errno()).step("pass socket to guest");
    }
    // SAFETY: only sets flags; descriptors stay open until exec.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            GUEST_SOCKET_FD + 1,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(syscall::last_errno()).step("close descriptors")
    }
}
