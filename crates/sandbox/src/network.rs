//! The sandbox's network namespace: loopback and nothing else. Making one is the longest single step of a start, so a launcher
//! that waits for its orders makes it ahead.

use crate::identity;
use crate::syscall::last_errno;
use rustix::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// Where a process finds its own.
const OWN: &str = "/proc/self/ns/net";

/// Makes one and comes back. `None` where this process may not.
pub(crate) fn make_ahead() -> Option<OwnedFd> {
    // Root of a user namespace may leave the host's network but not come back to it.
    if !identity::is_privileged() {
        return None;
    }
    let before = own().ok()?;
    let made = make().and_then(|()| own());
    // A launcher that cannot come back must not go on: it would do the rest without the host's network.
    if enter(&before).is_err() {
        std::process::exit(1);
    }
    made.ok()
}

/// Moves this process into a new one.
pub(crate) fn make() -> rustix::io::Result<()> {
    // SAFETY: shares no file descriptors; there is one thread.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
    bring_loopback_up()
}

/// Moves this process into one that exists.
pub(crate) fn enter(network: &OwnedFd) -> rustix::io::Result<()> {
    move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
}

fn own() -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(OWN, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

fn bring_loopback_up() -> rustix::io::Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: an all-zero ifreq is valid; the name fits with its NUL.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS (netdevice(7)) reads an ifreq.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}
