//! Pseudo terminals of the sandbox's own devpts (pty(7)).

use greenroom_protocol::guest::call::TerminalSize;
use rustix::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::ffi::CString;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

/// Typed for the end of input while the terminal is in line mode (`VEOF`, termios(3)).
pub const END_OF_FILE: u8 = 4;

/// Whether the kernel is gVisor's, which has no `TIOCGPTPEER`.
static IS_GVISOR: AtomicBool = AtomicBool::new(false);

/// Opens a fresh one: our end, and the programs' end, which nobody has as controlling terminal yet.
pub fn open(size: TerminalSize) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: a constant path and integer flags.
    let ours = owned(unsafe { libc::open(c"/dev/ptmx".as_ptr(), flags) })?;
    let locked: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int.
    checked(unsafe { libc::ioctl(ours.as_raw_fd(), libc::TIOCSPTLCK, &raw const locked) })?;
    // Without a name, which would be looked up in whatever is mounted on /dev/pts.
    // SAFETY: TIOCGPTPEER takes open flags and returns a new descriptor.
    let theirs = match owned(unsafe { libc::ioctl(ours.as_raw_fd(), libc::TIOCGPTPEER, flags) }) {
        Err(error) if error.raw_os_error() == Some(libc::ENOTTY) => {
            IS_GVISOR.store(true, Ordering::Relaxed);
            by_name(&ours, flags)?
        }
        opened => opened?,
    };
    resize(&ours, size)?;
    Ok((ours, theirs))
}

/// The programs' end by its number.
fn by_name(ours: &OwnedFd, flags: libc::c_int) -> io::Result<OwnedFd> {
    let mut number: libc::c_uint = 0;
    // SAFETY: TIOCGPTN writes one unsigned int.
    checked(unsafe { libc::ioctl(ours.as_raw_fd(), libc::TIOCGPTN, &raw mut number) })?;
    let path = CString::new(format!("/dev/pts/{number}"))?;
    // SAFETY: a path that ends with NUL and integer flags.
    owned(unsafe { libc::open(path.as_ptr(), flags) })
}

/// Tells the terminal's foreground group of the new size (`SIGWINCH`) if it is another one, unless the kernel
/// [tells nobody](tells_nobody).
pub fn resize(terminal: &impl AsFd, size: TerminalSize) -> io::Result<()> {
    let size = libc::winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCSWINSZ reads one winsize.
    checked(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const size) })
}

/// Whether the kernel keeps a new size to itself: gVisor's. Known once a terminal was opened.
pub fn tells_nobody() -> bool {
    IS_GVISOR.load(Ordering::Relaxed)
}

fn owned(fd: libc::c_int) -> io::Result<OwnedFd> {
    checked(fd)?;
    // SAFETY: a descriptor that the kernel just gave to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn checked(result: libc::c_int) -> io::Result<()> {
    match result {
        ..0 => Err(io::Error::last_os_error()),
        0.. => Ok(()),
    }
}
