//! The supervisor's lock: a POSIX record lock, because the kernel tells who holds it and lets go of it with the process.

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::process::{FlockType, Pid};
use std::path::Path;

/// Takes the lock for the life of this process; `false` if another holds it. The returned file must stay open, and no
/// other descriptor of the same file may be closed by this process meanwhile (fcntl_locking(2)).
pub fn take(path: &Path) -> std::io::Result<Option<OwnedFd>> {
    let file = open(path, OFlags::RDWR | OFlags::CREATE)?;
    match rustix::fs::fcntl_lock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Who holds the lock; `None` if nobody does or the file does not exist.
pub fn holder(path: &Path) -> std::io::Result<Option<Pid>> {
    let file = match open(path, OFlags::RDWR) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let wanted = rustix::process::Flock::from(FlockType::WriteLock);
    Ok(rustix::process::fcntl_getlk(file.as_fd(), &wanted)?.and_then(|held| held.pid))
}

fn open(path: &Path, flags: OFlags) -> std::io::Result<OwnedFd> {
    Ok(rustix::fs::open(
        path,
        flags | OFlags::CLOEXEC,
        Mode::RUSR | Mode::WUSR,
    )?)
}
