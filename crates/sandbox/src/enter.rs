//! The child's way from the launcher's copy to the guest: every step that makes it less able, in order. Runs in the new
//! namespaces; ends by executing the guest or by telling the supervisor which step failed.

use crate::cgroup::{self, Controller, Version};
use crate::failure::Step;
use crate::spec::{GUEST_SOCKET_FD, LaunchFailure, LaunchSpec, Privilege};
use crate::{identity, mounts, seccomp, syscall};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::process::{Resource, Rlimit};
use rustix::thread::UnshareFlags;
use std::ffi::CString;

/// Asks the supervisor to write this process's id maps.
pub(crate) const ASK_FOR_MAPS: u8 = b'm';
/// A failure follows as JSON.
pub(crate) const TELL_FAILURE: u8 = b'f';
/// The supervisor's "go on".
pub(crate) const GO: u8 = b'g';

/// Never returns: becomes the guest, or reports over `supervisor` and exits.
pub(crate) fn run(spec: &LaunchSpec, supervisor: &OwnedFd, listener: &OwnedFd, guest: &OwnedFd) -> ! {
    let Err(failure) = become_guest(spec, supervisor, listener, guest);
    let mut message = vec![TELL_FAILURE];
    // A failure is a plain struct of text and number, which always encodes.
    message.extend(serde_json::to_vec(&failure).unwrap_or_default());
    let _ = rustix::io::write(supervisor, &message);
    std::process::exit(1)
}

fn become_guest(
    spec: &LaunchSpec,
    supervisor: &OwnedFd,
    listener: &OwnedFd,
    guest: &OwnedFd,
) -> Result<std::convert::Infallible, LaunchFailure> {
    // While the host's hierarchies are in sight. The one of v2 was entered by being born in it.
    for placement in spec
        .cgroups
        .iter()
        .filter(|placement| placement.version == Version::V1)
    {
        cgroup::join(placement).step("enter resource group")?;
    }
    await_go(supervisor)?;
    let filters = seccomp::programs().map_err(|error| LaunchFailure {
        step: format!("compile system call filter: {error}"),
        errno: 0,
    })?;
    let (argv, env) = arguments(spec)?;

    // Only now, so that the new namespace's root is the sandbox's own group.
    unshare(UnshareFlags::NEWCGROUP).step("make cgroup namespace")?;
    rustix::system::sethostname(spec.hostname.as_bytes()).step("set host name")?;
    bring_loopback_up().step("bring loopback up")?;
    mounts::enter_root(spec)?;

    if let Privilege::Root { .. } = spec.privilege {
        rustix::thread::set_thread_groups(&[]).step("leave groups")?;
        unshare(UnshareFlags::NEWUSER).step("make user namespace")?;
        rustix::io::write(supervisor, &[ASK_FOR_MAPS]).step("ask for id maps")?;
        await_go(supervisor)?;
        identity::become_agent()?;
    }
    identity::drop_capabilities()?;
    identity::die_with_parent()?;
    set_rlimits(spec)?;
    give_descriptors(supervisor, listener, guest)?;
    seccomp::install(&filters).map_err(|error| LaunchFailure {
        step: format!("install system call filter: {error}"),
        errno: 0,
    })?;
    Err(syscall::execute(guest.as_fd(), &argv, &env)).step("execute guest")
}

fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    // SAFETY: none of the flags used here shares or unshares file descriptors; there is one thread.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

fn await_go(supervisor: &OwnedFd) -> Result<(), LaunchFailure> {
    let mut answer = [0];
    match rustix::io::read(supervisor, &mut answer).step("wait for supervisor")? {
        1 if answer[0] == GO => Ok(()),
        // The supervisor died or gave up; it will not read a report either.
        _ => std::process::exit(1),
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
fn most_processes(spec: &LaunchSpec) -> u64 {
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
fn give_descriptors(supervisor: &OwnedFd, listener: &OwnedFd, guest: &OwnedFd) -> Result<(), LaunchFailure> {
    debug_assert!(
        [supervisor, guest]
            .iter()
            .all(|fd| fd.as_raw_fd() != GUEST_SOCKET_FD),
        "launcher reserves it"
    );
    // SAFETY: plain dup2 onto a number that the launcher reserved for it at its start, so nobody owns it.
    if unsafe { libc::dup2(listener.as_raw_fd(), GUEST_SOCKET_FD) } < 0 {
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

fn bring_loopback_up() -> rustix::io::Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let borrowed: BorrowedFd<'_> = socket.as_fd();
    // SAFETY: an all-zero ifreq is valid; the name fits with its NUL.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS (netdevice(7)) reads an ifreq.
    let result = unsafe { libc::ioctl(borrowed.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    if result == 0 {
        Ok(())
    } else {
        Err(syscall::last_errno())
    }
}
