//! What every supervisor does, whatever it holds: leave the host's session, take the lock, listen for the host, report, wait
//! for its child and for signals, and clear up at the end.

use crate::cgroup::{self, Placement, Version};
use crate::failure::Step;
use crate::spec::{
    EXIT_NAME, ExitRecord, HITS_NAME, LOCK_NAME, LaunchFailure, LaunchReport, Limits, SOCKET_NAME,
};
use crate::{lock, syscall};
use rustix::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::convert::Infallible;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

/// How long the supervisor waits for the kernel to empty a resource group.
const CGROUP_PATIENCE: Duration = Duration::from_secs(5);

/// What makes this process the supervisor of a sandbox, as long as it keeps it.
pub(crate) struct Post {
    _lock: OwnedFd,
    /// Reads as ready when one of [`signal_set`] came; they are blocked.
    pub signals: OwnedFd,
}

/// Becomes the sandbox's supervisor: own session, signals to be waited for, and the lock.
pub(crate) fn begin(directory: &Path) -> Result<Post, LaunchFailure> {
    rustix::process::setsid().step("start own session")?;
    let lock = lock::take(&directory.join(LOCK_NAME))
        .step("take lock")?
        .ok_or_else(|| LaunchFailure {
            step: "sandbox is already running".to_owned(),
            errno: libc::EBUSY,
        })?;
    block_signals();
    let signals = signal_file().step("wait for signals")?;
    // Of an earlier start; before anybody may ask. Not there is the common case.
    let _ = std::fs::remove_file(directory.join(HITS_NAME));
    Ok(Post { _lock: lock, signals })
}

/// Makes the sandbox's resource groups. Returns what could not be limited, one sentence each.
pub(crate) fn make_groups(placements: &[Placement], limits: &Limits) -> Result<Vec<String>, LaunchFailure> {
    let mut warnings = Vec::new();
    for placement in placements {
        warnings.extend(cgroup::create(placement, limits).step("make resource group")?);
    }
    Ok(warnings)
}

/// Has a child in new namespaces, born in the sandbox's v2 group if there is one, become what `become_it` makes of it, or tell
/// over the channel why not; `ours` is this side of it. The host is none of the child's business.
pub(crate) fn clone_child(
    namespaces: i32,
    placements: &[Placement],
    (ours, theirs): (&OwnedFd, &OwnedFd),
    become_it: impl FnOnce() -> Result<Infallible, LaunchFailure>,
) -> Result<i32, LaunchFailure> {
    let v2 = placements
        .iter()
        .find(|placement| placement.version == Version::V2);
    let group = v2
        .map(|placement| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::open(&placement.directory, flags, Mode::empty())
        })
        .transpose()
        .step("open resource group")?;
    // SAFETY: this process has never started a thread.
    match unsafe { syscall::clone_into(namespaces, group.as_ref().map(AsFd::as_fd)) }
        .step("make namespaces")?
    {
        Some(child) => Ok(child),
        None => {
            // The child must see the end of the channel when the supervisor dies.
            // SAFETY: closes the child's copy of a descriptor that only the parent uses; this branch never returns, so
            // the owner's destructor never runs here.
            unsafe { libc::close(ours.as_raw_fd()) };
            unblock_signals();
            // The host waits for the end of these pipes; what is inside must not hold them.
            release_host();
            let Err(failure) = become_it();
            // A failure is a plain struct of text and number, which always encodes.
            let message = serde_json::to_vec(&failure).unwrap_or_default();
            let _ = rustix::io::write(theirs, &message);
            std::process::exit(1)
        }
    }
}

/// Waits until a child has become what it should, or died: it lets go of the channel and tells nothing.
pub(crate) fn await_execution(channel: &OwnedFd) -> Result<(), LaunchFailure> {
    let mut message = [0; 4096];
    let len = match rustix::io::read(channel, &mut message) {
        // It ended without reading what it was told; what it told comes after that news.
        Err(Errno::CONNRESET) => rustix::io::read(channel, &mut message),
        read => read,
    }
    .step("talk to child")?;
    match &message[..len] {
        [] => Ok(()),
        failure => Err(serde_json::from_slice(failure).unwrap_or(LaunchFailure {
            step: "build sandbox".to_owned(),
            errno: 0,
        })),
    }
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

/// Whether a child has ended; leaves it to be waited for.
pub(crate) fn wait_without_reaping(child: i32) -> bool {
    // SAFETY: an all-zero siginfo_t is valid and overwritten; a child of this process that nobody waited for.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        libc::waitid(libc::P_PID, child.unsigned_abs(), &raw mut info, flags) == 0 && info.si_pid() == child
    }
}

/// Waits for a child that was killed; leaves it to be waited for again.
pub(crate) fn wait_for_end(child: i32) {
    // SAFETY: as above.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let flags = libc::WEXITED | libc::WNOWAIT;
        libc::waitid(libc::P_PID, child.unsigned_abs(), &raw mut info, flags);
    }
}

fn signal_set() -> libc::sigset_t {
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

fn block_signals() {
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

fn signal_file() -> rustix::io::Result<OwnedFd> {
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
