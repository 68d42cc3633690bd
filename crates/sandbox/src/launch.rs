//! The launcher's own life: detach, take the lock, build the sandbox in a child, report, then supervise it to its end.
//! Single-threaded throughout; the only user is the `greenroom-launcher` binary.

use crate::failure::Step;
use crate::spec::{
    EXIT_NAME, ExitRecord, LOCK_NAME, LaunchFailure, LaunchReport, LaunchSpec, Privilege, SOCKET_NAME,
};
use crate::{cgroup, enter, identity, lock, syscall};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use std::io::Write as _;
use std::time::Duration;

/// How long the supervisor waits for the kernel to empty a resource group.
const CGROUP_PATIENCE: Duration = Duration::from_secs(5);

/// Builds the sandbox and stays until its end. Returns the exit code of the launcher.
pub fn run(spec: &LaunchSpec) -> i32 {
    let started = match start(spec) {
        Ok(started) => started,
        Err(failure) => {
            remove_cgroups(spec);
            report(&LaunchReport::Failed(failure));
            return 1;
        }
    };
    report(&LaunchReport::Started {
        warnings: started.warnings.clone(),
    });
    release_host();
    let record = supervise(started.child);
    remove_cgroups(spec);
    let _ = std::fs::remove_file(spec.directory.join(SOCKET_NAME));
    if let Ok(text) = serde_json::to_vec(&record) {
        // Best effort: without it the host still sees that nobody holds the lock.
        let _ = std::fs::write(spec.directory.join(EXIT_NAME), text);
    }
    drop(started.lock);
    0
}

struct Started {
    child: i32,
    warnings: Vec<String>,
    /// Held for the life of this process.
    lock: OwnedFd,
}

fn start(spec: &LaunchSpec) -> Result<Started, LaunchFailure> {
    rustix::process::setsid().step("start own session")?;
    let lock = lock::take(&spec.directory.join(LOCK_NAME))
        .step("take lock")?
        .ok_or_else(|| LaunchFailure {
            step: "sandbox is already running".to_owned(),
            errno: libc::EBUSY,
        })?;
    block_signals();
    let listener = listen(spec)?;
    let guest =
        rustix::fs::open(&spec.guest, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).step("open guest")?;
    let mut warnings = Vec::new();
    for placement in &spec.cgroups {
        warnings.extend(cgroup::create(placement, &spec.limits).step("make resource group")?);
    }
    let (ours, theirs) = syscall::message_pair().step("make channel to child")?;
    let child = clone_child(spec, &theirs, &ours, &listener, &guest)?;
    drop((theirs, listener, guest));
    match guide(spec, child, &ours) {
        Ok(()) => Ok(Started {
            child,
            warnings,
            lock,
        }),
        Err(failure) => {
            end(child);
            Err(failure)
        }
    }
}

/// The socket is bound outside: no path inside the sandbox leads to it.
fn listen(spec: &LaunchSpec) -> Result<OwnedFd, LaunchFailure> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
    // Relative, because an address holds at most 108 bytes (unix(7)).
    rustix::process::chdir(&spec.directory).step("enter sandbox directory")?;
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

fn clone_child(
    spec: &LaunchSpec,
    theirs: &OwnedFd,
    ours: &OwnedFd,
    listener: &OwnedFd,
    guest: &OwnedFd,
) -> Result<i32, LaunchFailure> {
    let mut namespaces =
        libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    if spec.privilege == Privilege::User {
        namespaces |= libc::CLONE_NEWUSER;
    }
    let v2 = spec
        .cgroups
        .iter()
        .find(|placement| placement.version == cgroup::Version::V2);
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
            // SAFETY: closes the child's copy of a descriptor that only the parent uses; `enter::run` never returns, so
            // the owner's destructor never runs here.
            unsafe { libc::close(rustix::fd::AsRawFd::as_raw_fd(ours)) };
            unblock_signals();
            // The host waits for the end of these pipes; the guest must not hold them.
            release_host();
            enter::run(spec, theirs, listener, guest)
        }
    }
}

/// Answers the child until it has become the guest.
fn guide(spec: &LaunchSpec, child: i32, channel: &OwnedFd) -> Result<(), LaunchFailure> {
    if spec.privilege == Privilege::User {
        let (uid, gid) = (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        );
        identity::write_maps(child, uid, gid, true)?;
    }
    let go = || rustix::io::write(channel, &[enter::GO]).step("talk to child");
    go()?;
    let mut message = [0; 4096];
    loop {
        let len = rustix::io::read(channel, &mut message).step("talk to child")?;
        match (&message[..len], spec.privilege) {
            // Closed on exec: the guest runs, unless the child died before it got there.
            ([], _) => return check_alive(child),
            ([enter::ASK_FOR_MAPS], Privilege::Root { host_id }) => {
                identity::write_maps(child, host_id, host_id, false)?;
                go()?;
            }
            ([enter::TELL_FAILURE, failure @ ..], _) => {
                return Err(serde_json::from_slice(failure).unwrap_or(LaunchFailure {
                    step: "build sandbox".to_owned(),
                    errno: 0,
                }));
            }
            _ => {
                return Err(LaunchFailure {
                    step: "talk to child".to_owned(),
                    errno: libc::EPROTO,
                });
            }
        }
    }
}

fn check_alive(child: i32) -> Result<(), LaunchFailure> {
    match wait(child, libc::WNOHANG) {
        None => Ok(()),
        Some(_) => Err(LaunchFailure {
            step: "guest died at its start".to_owned(),
            errno: 0,
        }),
    }
}

/// Waits until the guest ends or somebody asks this supervisor to end it.
fn supervise(child: i32) -> ExitRecord {
    let set = signal_set();
    let mut was_stopped = false;
    loop {
        if let Some(status) = wait(child, libc::WNOHANG) {
            return ExitRecord {
                code: libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)),
                signal: libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status)),
                was_stopped,
            };
        }
        let mut signal = 0;
        // SAFETY: `set` is an initialised signal set whose signals are blocked.
        unsafe { libc::sigwait(&raw const set, &raw mut signal) };
        if signal == libc::SIGTERM || signal == libc::SIGINT {
            was_stopped = true;
            kill(child);
        }
    }
}

/// Kills the first process of the sandbox, and the kernel with it all others; waits for that.
fn end(child: i32) {
    kill(child);
    wait(child, 0);
}

fn kill(child: i32) {
    // SAFETY: signals a child that was not waited for yet, so the pid is still its own.
    unsafe { libc::kill(child, libc::SIGKILL) };
}

fn wait(child: i32, flags: i32) -> Option<i32> {
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

fn unblock_signals() {
    let set = signal_set();
    // SAFETY: as above.
    unsafe { libc::sigprocmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut()) };
}

fn remove_cgroups(spec: &LaunchSpec) {
    for placement in &spec.cgroups {
        // The host removes leftovers when it reaps.
        let _ = cgroup::remove(&placement.directory, CGROUP_PATIENCE);
    }
}

fn report(report: &LaunchReport) {
    let mut line = serde_json::to_vec(report).unwrap_or_default();
    line.push(b'\n');
    let mut out = std::io::stdout();
    // A host that went away finds the sandbox by its lock.
    let _ = out.write_all(&line).and_then(|()| out.flush());
}

/// Lets go of the host's pipes, so that neither waits for the other.
fn release_host() {
    if let Ok(null) = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
        let _ = rustix::stdio::dup2_stdin(&null);
        let _ = rustix::stdio::dup2_stdout(&null);
    }
}
