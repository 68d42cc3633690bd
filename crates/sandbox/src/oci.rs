//! The supervisor of a sandbox that an OCI runtime isolates: sets the stage for the runtime, starts it in mount and pid
//! namespaces of its own, and carries hosts' connections to the guest, which has only the runtime's standard streams.
//!
//! The runtime is the first process of that pid namespace and dies with this supervisor; whatever it started dies with it.
//! Its state, its mounts and its bundle live in the mount namespace. So no runtime is ever asked to stop or delete anything.

mod bundle;
mod stage;

use crate::failure::Step;
use crate::oci::stage::Streams;
use crate::relay::Relay;
use crate::spec::{
    ExitRecord, LaunchFailure, LaunchReport, LaunchSpec, LimitHits, OciSpec, Privilege, RUNTIME_LOG_NAME,
    RUNTIME_REFUSED,
};
use crate::supervise::{
    begin, end, exit_record, finish, kill, listen, next_signal, release_host, remove_cgroups, report,
    signal_file, unblock_signals, wait,
};
use crate::usage::Counters;
use crate::{cgroup, guard, syscall};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use std::io::Write as _;
use std::time::{Duration, Instant};

/// How long a runtime may take until its guest serves.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// Bytes of the runtime's standard error that are kept on disk.
const MAX_LOG_BYTES: usize = 64 * 1024;

/// Longest last line that is told.
const MAX_LINE_BYTES: usize = 400;

/// Starts the runtime and stays until its end. Returns the exit code of the launcher.
pub fn run(spec: &OciSpec) -> i32 {
    let (mut held, lock, warnings) = match start(spec) {
        Ok(started) => started,
        Err(failure) => {
            remove_cgroups(&spec.sandbox.cgroups);
            report(&LaunchReport::Failed(failure));
            return 1;
        }
    };
    report(&LaunchReport::Started { warnings });
    release_host();
    let record = held.supervise(&spec.sandbox);
    finish(&spec.sandbox.directory, &spec.sandbox.cgroups, &record);
    drop(lock);
    0
}

/// A runtime that runs.
struct Held {
    child: i32,
    relay: Relay,
    signals: OwnedFd,
    errors: ErrorLog,
}

fn start(spec: &OciSpec) -> Result<(Held, OwnedFd, Vec<String>), LaunchFailure> {
    let sandbox = &spec.sandbox;
    let lock = begin(&sandbox.directory)?;
    let listener = listen(&sandbox.directory)?;
    let mut warnings = Vec::new();
    for placement in &sandbox.cgroups {
        warnings.extend(cgroup::create(placement, &sandbox.limits).step("make resource group")?);
    }
    let signals = signal_file().step("wait for signals")?;
    let pipe = || pipe_with(PipeFlags::CLOEXEC).step("make pipes");
    let ((input, to_guest), (from_guest, output), (from_errors, errors)) = (pipe()?, pipe()?, pipe()?);
    for fd in [&listener, &to_guest, &from_guest, &from_errors] {
        rustix::io::ioctl_fionbio(fd, true).step("make pipes")?;
    }
    let streams = Streams {
        input,
        output,
        errors,
    };
    let (ours, theirs) = syscall::message_pair().step("make channel to child")?;
    let child = clone_child(spec, theirs, &ours, streams)?;
    let mut held = Held {
        child,
        relay: Relay::new(listener, to_guest, from_guest),
        signals,
        errors: ErrorLog::new(from_errors, sandbox),
    };
    match await_runtime(&ours).and_then(|()| held.await_guest()) {
        Ok(()) => Ok((held, lock, warnings)),
        Err(failure) => {
            end(child);
            Err(failure)
        }
    }
}

fn clone_child(
    spec: &OciSpec,
    theirs: OwnedFd,
    ours: &OwnedFd,
    streams: Streams,
) -> Result<i32, LaunchFailure> {
    let mut namespaces = libc::CLONE_NEWNS | libc::CLONE_NEWPID;
    if spec.sandbox.privilege == Privilege::User {
        namespaces |= libc::CLONE_NEWUSER;
    }
    let v2 = spec
        .sandbox
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
    let ids = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    // SAFETY: this process has never started a thread.
    match unsafe { syscall::clone_into(namespaces, group.as_ref().map(AsFd::as_fd)) }
        .step("make namespaces")?
    {
        Some(child) => Ok(child),
        None => {
            // The child must see the end of the channel when the supervisor dies.
            // SAFETY: closes the child's copy of a descriptor that only the parent uses; this branch never returns, so
            // the owner's destructor never runs here.
            unsafe { libc::close(rustix::fd::AsRawFd::as_raw_fd(ours)) };
            unblock_signals();
            release_host();
            let Err(failure) = stage::become_runtime(spec, &theirs, &streams, ids);
            // A failure is a plain struct of text and number, which always encodes.
            let message = serde_json::to_vec(&failure).unwrap_or_default();
            let _ = rustix::io::write(&theirs, &message);
            std::process::exit(1)
        }
    }
}

/// Waits until the child has become the runtime.
fn await_runtime(channel: &OwnedFd) -> Result<(), LaunchFailure> {
    let mut message = [0; 4096];
    let len = rustix::io::read(channel, &mut message).step("talk to child")?;
    match &message[..len] {
        // Closed on exec, or with the child's death, which is seen next.
        [] => Ok(()),
        failure => Err(serde_json::from_slice(failure).unwrap_or(LaunchFailure {
            step: "set the stage".to_owned(),
            errno: 0,
        })),
    }
}

impl Held {
    /// Waits until the guest serves.
    fn await_guest(&mut self) -> Result<(), LaunchFailure> {
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            let is_over = self.relay.serve().is_err() || wait_without_reaping(self.child);
            if self.relay.is_ready() && !is_over {
                return Ok(());
            }
            self.errors.read();
            let why = match (is_over, Instant::now() > deadline) {
                (true, _) => "it ended without a word",
                (false, true) => "it did not start the guest in time",
                (false, false) => {
                    self.pause(Some(deadline));
                    continue;
                }
            };
            if is_over {
                // What it said last may still be on its way.
                kill(self.child);
                wait_for_end(self.child);
                self.errors.read();
            }
            let line = self.errors.last_line();
            return Err(LaunchFailure {
                step: format!("{RUNTIME_REFUSED}{}", if line.is_empty() { why } else { &line }),
                errno: 0,
            });
        }
    }

    /// Carries connections until the runtime ends, its time is over, or somebody asks this supervisor to end it.
    fn supervise(&mut self, sandbox: &LaunchSpec) -> ExitRecord {
        let life = sandbox.limits.wall_time;
        let ends_at = life.and_then(|life| Instant::now().checked_add(life));
        let mut hits = LimitHits::default();
        let mut was_stopped = false;
        loop {
            if let Some(status) = wait(self.child, libc::WNOHANG) {
                let counters = Counters::open(&sandbox.cgroups);
                return ExitRecord {
                    was_out_of_time: hits.is_out_of_time,
                    cpu_us: counters.cpu_us(),
                    peak_memory_bytes: counters.peak_memory_bytes(),
                    ..exit_record(status, was_stopped)
                };
            }
            if ends_at.is_some_and(|at| at <= Instant::now()) && !hits.is_out_of_time {
                hits.is_out_of_time = true;
                guard::record(&sandbox.directory, &hits);
                kill(self.child);
            }
            self.pause(ends_at);
            while let Some(signal) = next_signal(&self.signals) {
                if signal == libc::SIGTERM || signal == libc::SIGINT {
                    was_stopped = true;
                    kill(self.child);
                }
            }
            self.errors.read();
            if self.relay.serve().is_err() {
                // A runtime without a guest is no sandbox.
                kill(self.child);
                wait_for_end(self.child);
            }
        }
    }

    /// Waits for anything to happen.
    fn pause(&self, deadline: Option<Instant>) {
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN)];
        if let Some(pipe) = &self.errors.pipe {
            fds.push(PollFd::new(pipe, PollFlags::IN));
        }
        self.relay.wait_for(&mut fds);
        let left = deadline.map(|at| {
            let left = at.saturating_duration_since(Instant::now());
            Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()),
            }
        });
        // Interruptions are looked at like everything else.
        let _ = rustix::event::poll(&mut fds, left.as_ref());
    }
}

/// Whether a child has ended; leaves it to be waited for.
fn wait_without_reaping(child: i32) -> bool {
    // SAFETY: an all-zero siginfo_t is valid and overwritten; a child of this process that nobody waited for.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        libc::waitid(libc::P_PID, child.unsigned_abs(), &raw mut info, flags) == 0 && info.si_pid() == child
    }
}

/// Waits for a child that was killed; leaves it to be waited for again.
fn wait_for_end(child: i32) {
    // SAFETY: as above.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let flags = libc::WEXITED | libc::WNOWAIT;
        libc::waitid(libc::P_PID, child.unsigned_abs(), &raw mut info, flags);
    }
}

/// What the runtime and the guest say on standard error: the beginning on disk, the last of it in memory.
struct ErrorLog {
    /// `None` once nobody holds the other end.
    pipe: Option<OwnedFd>,
    file: Option<std::fs::File>,
    written: usize,
    tail: Vec<u8>,
}

impl ErrorLog {
    fn new(pipe: OwnedFd, sandbox: &crate::spec::LaunchSpec) -> Self {
        Self {
            pipe: Some(pipe),
            // Without it there is one thing less to look at.
            file: std::fs::File::create(sandbox.directory.join(RUNTIME_LOG_NAME)).ok(),
            written: 0,
            tail: Vec::new(),
        }
    }

    /// Takes what is there.
    fn read(&mut self) {
        let mut buffer = [0; 4096];
        while let Some(pipe) = &self.pipe {
            match rustix::io::read(pipe, &mut buffer) {
                Ok(len @ 1..) => {
                    let room = len.min(MAX_LOG_BYTES - self.written);
                    if let Some(file) = &mut self.file {
                        let _ = file.write_all(&buffer[..room]);
                    }
                    self.written += room;
                    self.tail.extend_from_slice(&buffer[..len]);
                    let surplus = self.tail.len().saturating_sub(buffer.len());
                    self.tail.drain(..surplus);
                }
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                Ok(0) | Err(_) => self.pipe = None,
            }
        }
    }

    fn last_line(&self) -> String {
        let text = String::from_utf8_lossy(&self.tail);
        let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty());
        line.unwrap_or_default().chars().take(MAX_LINE_BYTES).collect()
    }
}
