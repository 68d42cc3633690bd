//! What every supervisor does, whatever it holds: leave the host's session, take the lock, listen for the host, report, wait
//! for its child and for signals, and clear up at the end.

use crate::cgroup::{self, Placement};
use crate::failure::Step;
use crate::spec::{EXIT_NAME, ExitRecord, HITS_NAME, LOCK_NAME, LaunchFailure, LaunchReport, SOCKET_NAME};
use crate::{lock, syscall};
use rustix::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use rustix::fs::{Mode, OFlags};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

/// How long the supervisor waits for the kernel to empty a resource group.
const CGROUP_PATIENCE: Duration = Duration::from_secs(5);

/// Becomes the sandbox's supervisor: own session, signals to be waited for, and the lock, which the caller keeps.
pub(crate) fn begin(directory: &Path) -> Result<OwnedFd, LaunchFailure> {
    rustix::process::setsid().step("start own session")?;
    let lock = lock::take(&directory.join(LOCK_NAME))
        .step("take lock")?
        .ok_or_else(|| LaunchFailure {
            step: "sandbox is already running".to_owned(),
            errno: libc::EBUSY,
        })?;
    block_signals();
    // Of an earlier start; before anybody may ask. Not there is the common case.
    let _ = std::fs::remove_file(directory.join(HITS_NAME));
    Ok(lock)
}

/// The sandbox ended: nothing of it stays but its files and how it ended. The lock must still be held.
pub(crate) fn finish(directory: &Path, cgroups: &[Placement], record: &ExitRecord) {
    remove_cgroups(cgroups);
    let _ = std::fs::remove_file(directory.join(SOCKET_NAME));
    if let Ok(text) = serde_json::to_vec(record) {
        // Best effort: without it the host still sees that nobody holds the lock.
        let _ = std::fs::write(directory.join(EXIT_NAME), text);
    }
}

/// How a child ended, by its wait status.
pub(crate) fn exit_record(status: i32, was_stopped: bool) -> ExitRecord {
    ExitRecord {
        code: libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)),
        signal: libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status)),
        was_stopped,
        was_out_of_time: false,
        cpu_us: None,
        peak_memory_bytes: None,
    }
}

/// The socket is bound outside: no path inside the sandbox leads to it.
pub(crate) fn listen(directory: &Path) -> Result<OwnedFd, LaunchFailure> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
    // Relative, because an address holds at most 108 bytes (unix(7)).
    rustix::process::chdir(directory).step("enter sandbox directory")?;
    match rustix::fs::unlink(SOCKET_NAME) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error).step("remove old socket"),
    }
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .step("make guest socket")?;
    let address = SocketAddrUnix::new(SOCKET_NAME).step("make guest socket")?;
    bind(&socket, &address).step("bind guest socket")?;
    listen(&socket, 8).step("listen on guest socket")?;
    rustix::process::chdir("/").step("leave sandbox directory")?;
    Ok(socket)
}

/// Kills the first process of the sandbox, and the kernel with it all others; waits for that.
pub(crate) fn end(child: i32) {
    kill(child);
    wait(child, 0);
}

pub(crate) fn kill(child: i32) {
    // SAFETY: signals a child that was not waited for yet, so the pid is still its own.
    unsafe { libc::kill(child, libc::SIGKILL) };
}

pub(crate) fn wait(child: i32, flags: i32) -> Option<i32> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is a valid int.
        let result = unsafe { libc::waitpid(child, &raw mut status, flags) };
        if result == child {
            return Some(status);
        }
        if result == 0 || std::io::Error::last_os_error().kind() != std::io::ErrorKind::Interrupted {
            return None;
        }
    }
}

pub(crate) fn signal_set() -> libc::sigset_t {
    // SAFETY: sigemptyset initialises the set before anything reads it.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGCHLD] {
            libc::sigaddset(&raw mut set, signal);
        }
        set
    }
}

pub(crate) fn block_signals() {
    let set = signal_set();
    // SAFETY: a valid set; the old mask is not wanted.
    unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
}

pub(crate) fn unblock_signals() {
    let set = signal_set();
    // SAFETY: as above.
    unsafe { libc::sigprocmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut()) };
}

pub(crate) fn remove_cgroups(placements: &[Placement]) {
    for placement in placements {
        // The host removes leftovers when it reaps.
        let _ = cgroup::remove(&placement.directory, CGROUP_PATIENCE);
    }
}

pub(crate) fn report(report: &LaunchReport) {
    let mut line = serde_json::to_vec(report).unwrap_or_default();
    line.push(b'\n');
    let mut out = std::io::stdout();
    // A host that went away finds the sandbox by its lock.
    let _ = out.write_all(&line).and_then(|()| out.flush());
}

/// Lets go of the host's pipes, so that neither waits for the other.
pub(crate) fn release_host() {
    if let Ok(null) = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
        let _ = rustix::stdio::dup2_stdin(&null);
        let _ = rustix::stdio::dup2_stdout(&null);
    }
}

/// Reads as ready when a signal came; the signals are blocked.
pub(crate) fn signal_file() -> rustix::io::Result<OwnedFd> {
    let set = signal_set();
    // SAFETY: signalfd(2) with a valid set; the result is checked before it is owned.
    let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if fd < 0 {
        return Err(syscall::last_errno());
    }
    // SAFETY: just made, and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The next signal that came, if any.
pub(crate) fn next_signal(signals: &OwnedFd) -> Option<i32> {
    // SAFETY: an all-zero signalfd_siginfo is valid and overwritten by a whole read.
    let mut info: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
    let len = size_of::<libc::signalfd_siginfo>();
    // SAFETY: the buffer is as long as said.
    let read = unsafe { libc::read(signals.as_raw_fd(), (&raw mut info).cast(), len) };
    (usize::try_from(read) == Ok(len)).then(|| i32::try_from(info.ssi_signo).unwrap_or(0))
}
