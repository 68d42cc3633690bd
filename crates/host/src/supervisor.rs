//! Starts and ends the supervisor processes of sandboxes. Blocking; called from worker threads only.

use crate::failure::HostError;
use greenroom_protocol::id::SandboxId;
use greenroom_sandbox::lock;
use greenroom_sandbox::spec::{LOCK_NAME, LaunchOrders, LaunchReport, SOCKET_NAME};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long a supervisor may take to end its sandbox before it is killed, and the kernel after that.
const STOP_PATIENCE: Duration = Duration::from_secs(8);

/// Largest report that is read from a launcher.
const MAX_REPORT_BYTES: u64 = 64 * 1024;

/// Runs a launcher until it reports. Returns its warnings.
pub fn launch(launcher: &Path, orders: &LaunchOrders) -> Result<Vec<String>, HostError> {
    let log_path = orders.directory().join("launcher.log");
    let log = fs::File::create(&log_path).map_err(HostError::file("write", &log_path))?;
    let mut child = Command::new(launcher)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(HostError::file("execute", launcher))?;
    let silent = |error: io::Error| HostError::LauncherSilent(error.to_string());
    let orders = serde_json::to_vec(orders).map_err(|error| HostError::LauncherSilent(error.to_string()))?;
    let mut answer = Vec::new();
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let talked = (|| {
        if let Some(mut stdin) = stdin {
            stdin.write_all(&orders)?;
        }
        if let Some(stdout) = stdout {
            // The supervisor lets go of it after its report.
            stdout.take(MAX_REPORT_BYTES).read_to_end(&mut answer)?;
        }
        Ok(())
    })();
    // It forked away before it reported, so this returns at once.
    child.wait().map_err(silent)?;
    talked.map_err(silent)?;
    match serde_json::from_slice(&answer) {
        Ok(LaunchReport::Started { warnings }) => Ok(warnings),
        Ok(LaunchReport::Failed(failure)) => Err(HostError::Launch(failure)),
        Err(_) => Err(HostError::LauncherSilent(format!(
            "{} bytes that are no report",
            answer.len()
        ))),
    }
}

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
