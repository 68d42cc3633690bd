//! Finds and ends the supervisor processes of sandboxes. Blocking; called from worker threads only.

use crate::failure::HostError;
use greenroom_protocol::id::SandboxId;
use greenroom_sandbox::lock;
use greenroom_sandbox::spec::{LOCK_NAME, SOCKET_NAME};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long a supervisor may take to end its sandbox before it is killed, and the kernel after that.
const STOP_PATIENCE: Duration = Duration::from_secs(8);

/// Connects to the guest of a sandbox that runs.
pub fn connect(directory: &Path) -> io::Result<UnixStream> {
    // An address holds 108 bytes; the way through the open directory is always short.
    let opened = fs::File::open(directory)?;
    let socket = UnixStream::connect(format!("/proc/self/fd/{}/{SOCKET_NAME}", opened.as_raw_fd()))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Whether a supervisor lives.
pub fn is_alive(directory: &Path) -> Result<bool, HostError> {
    Ok(holder(directory)?.is_some())
}

/// Whether a supervisor is gone, or goes by itself within [`STOP_PATIENCE`].
pub fn ends(directory: &Path) -> Result<bool, HostError> {
    let Some(pid) = holder(directory)? else {
        return Ok(true);
    };
    if let Ok(process) = pidfd_open(pid, PidfdFlags::empty())
        && holder(directory)? == Some(pid)
    {
        await_end(&process);
    }
    Ok(holder(directory)?.is_none())
}

fn await_end(process: &OwnedFd) {
    let patience = Timespec {
        tv_sec: STOP_PATIENCE.as_secs() as i64,
        tv_nsec: 0,
    };
    let _ = rustix::event::poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&patience));
}

/// The supervisor's process, if it lives.
pub fn process(directory: &Path) -> Result<Option<i32>, HostError> {
    Ok(holder(directory)?.map(|pid| pid.as_raw_nonzero().get()))
}

fn holder(directory: &Path) -> Result<Option<Pid>, HostError> {
    let path = directory.join(LOCK_NAME);
    lock::holder(&path).map_err(HostError::file("look at lock", &path))
}

/// Ends a sandbox: asks its supervisor, then kills it. Returns when the supervisor is gone.
pub fn stop(id: &SandboxId, directory: &Path) -> Result<(), HostError> {
    for signal in [Signal::TERM, Signal::KILL] {
        let Some(pid) = holder(directory)? else {
            return Ok(());
        };
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else {
            continue;
        };
        // The number may have been reused between the two looks.
        if holder(directory)? != Some(pid) {
            continue;
        }
        // Fails only if it ended meanwhile.
        let _ = pidfd_send_signal(&process, signal);
        await_end(&process);
    }
    match holder(directory)? {
        None => Ok(()),
        Some(_) => Err(HostError::SupervisorStuck {
            id: id.clone(),
            source: io::ErrorKind::TimedOut.into(),
        }),
    }
}
