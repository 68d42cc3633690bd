//! Runs a program: output with backpressure, input, time limit, cancellation of the whole process group. One thread per
//! run waits for everything in one poll.

use crate::call::without_nul;
use crate::failure::{self, CallResult, failed};
use crate::reaper;
use crate::stream::{Input, Stream};
use crate::wake::{self, Wake};
use greenroom_protocol::guest::WORKSPACE_PATH;
use greenroom_protocol::guest::call::{CallErrorCode, Exec, Exit, KillReason, Reply};
use greenroom_protocol::guest::frame::FrameKind;
use rustix::event::PollFlags;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

/// Between TERM and KILL.
const GRACE: Duration = Duration::from_secs(2);

/// How long output may be silent after the program ended while something it left behind still holds the pipe.
const DRAIN_SILENCE: Duration = Duration::from_millis(100);

/// How long such a thing is listened to at most.
const DRAIN_LIMIT: Duration = Duration::from_secs(1);

/// Raised for everything but the guest, so that running out of memory ends a program and not the sandbox.
const OOM_SCORE: &[u8] = b"500";

/// Foreground: streams until the end, then replies with the exit.
pub fn run(stream: &Arc<Stream>, exec: &Exec) -> CallResult {
    let output = Output::Stream(stream);
    let started = start(exec, exec.is_merged, Arc::clone(&stream.wake))?;
    let exit = started.follow(&output, exec.timeout_ms, || stream.is_cancelled());
    Ok(Reply::Exited(exit))
}

/// Where output goes, and input comes from.
pub enum Output<'a> {
    Stream(&'a Stream),
    /// Kept here; never full, no input.
    Keep(&'a dyn Fn(&[u8])),
}

impl Output<'_> {
    fn room(&self) -> usize {
        match self {
            Self::Stream(stream) => stream.credit(),
            Self::Keep(_) => 64 << 10,
        }
    }

    fn put(&self, kind: FrameKind, bytes: &[u8]) {
        match self {
            Self::Stream(stream) => stream.send_data(kind, bytes),
            Self::Keep(keep) => keep(bytes),
        }
    }
}

/// A program that runs.
pub struct Started {
    pub pid: i32,
    began: Instant,
    wake: Arc<Wake>,
    /// Wait status once known, `RUNNING` until then.
    status: Arc<AtomicI64>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    stdin: Option<OwnedFd>,
}

const RUNNING: i64 = i64::MIN;

/// Starts the program. `wake` rings when it ends.
pub fn start(exec: &Exec, is_merged: bool, wake: Arc<Wake>) -> CallResult<Started> {
    let [program, arguments @ ..] = exec.argv.as_slice() else {
        return Err(failed(CallErrorCode::Invalid, "no program was given"));
    };
    for text in exec.argv.iter().chain([&exec.cwd]) {
        without_nul(text)?;
    }
    for (name, value) in &exec.env {
        without_nul(value)?;
        if name.is_empty() || without_nul(name)?.contains('=') {
            return Err(failed(
                CallErrorCode::Invalid,
                format!("{name:?} is no name for a variable"),
            ));
        }
    }
    let cwd = Path::new(WORKSPACE_PATH).join(&exec.cwd);
    if !cwd.is_dir() {
        let shown = cwd.display();
        return Err(failed(
            CallErrorCode::NotFound,
            format!("{shown}: is no directory to run a program in"),
        ));
    }
    let os = |error: io::Error| failure::of(&error, program);
    let (out_read, out_write) = pipe().map_err(os)?;
    let err = if is_merged {
        None
    } else {
        Some(pipe().map_err(os)?)
    };
    let (err_read, err_write) = match err {
        Some((read, write)) => (Some(read), write),
        None => (None, out_write.try_clone().map_err(os)?),
    };
    let (stdin_read, stdin_write) = match exec.has_input && !exec.is_background {
        true => pipe()
            .map(|(read, write)| (Stdio::from(read), Some(write)))
            .map_err(os)?,
        false => (Stdio::null(), None),
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .envs(exec.env.iter().map(|(name, value)| (name, value)))
        .current_dir(&cwd)
        .stdin(stdin_read)
        .stdout(out_write)
        .stderr(err_write);
    // SAFETY: `prepare` makes system calls only, as wanted between fork and exec.
    unsafe { command.pre_exec(prepare) };
    let status = Arc::new(AtomicI64::new(RUNNING));
    let (told, bell) = (Arc::clone(&status), Arc::clone(&wake));
    let began = Instant::now();
    let child = reaper::spawn(&mut command, move |wait_status| {
        told.store(i64::from(wait_status), Ordering::Release);
        bell.ring();
    })
    .map_err(os)?;
    // The command holds copies of the pipes' other ends; with them open, output would never end.
    drop(command);
    for fd in [Some(&out_read), err_read.as_ref(), stdin_write.as_ref()]
        .into_iter()
        .flatten()
    {
        rustix::io::ioctl_fionbio(fd, true).map_err(|error| os(error.into()))?;
    }
    Ok(Started {
        pid: child.id() as i32,
        began,
        wake,
        status,
        stdout: Some(out_read),
        stderr: err_read,
        stdin: stdin_write,
    })
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}

/// In the child, before exec: own session and group, default signals, first to go when memory runs out.
fn prepare() -> io::Result<()> {
    // SAFETY: system calls with valid arguments; nothing allocates or locks.
    unsafe {
        libc::setsid();
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        // The guest hides its /proc entries; this copy of it must reach its own.
        libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0);
        let fd = libc::open(
            c"/proc/self/oom_score_adj".as_ptr(),
            libc::O_WRONLY | libc::O_CLOEXEC,
        );
        if fd >= 0 {
            libc::write(fd, OOM_SCORE.as_ptr().cast(), OOM_SCORE.len());
            libc::close(fd);
        }
    }
    Ok(())
}

impl Started {
    /// Passes output on and input in until the end. `is_cancelled` is looked at whenever the bell rang.
    pub fn follow(
        mut self,
        output: &Output<'_>,
        timeout_ms: Option<u64>,
        is_cancelled: impl Fn() -> bool,
    ) -> Exit {
        let mut give_up = timeout_ms.map(|ms| self.began + Duration::from_millis(ms));
        let mut kill_at = None;
        let mut killed = None;
        let mut input = Vec::new();
        let mut drain: Option<Drain> = None;
        let mut ended_after = Duration::ZERO;
        loop {
            self.wake.clear();
            let now = Instant::now();
            let status = self.status.load(Ordering::Acquire);
            if status == RUNNING {
                let timed_out = give_up.is_some_and(|at| now >= at);
                if killed.is_none() && (timed_out || is_cancelled()) {
                    killed = Some(if timed_out {
                        KillReason::TimedOut
                    } else {
                        KillReason::Cancelled
                    });
                    reaper::end_group(self.pid);
                    kill_at = Some(now + GRACE);
                    give_up = None;
                }
                if kill_at.is_some_and(|at| now >= at) {
                    reaper::signal_group(self.pid, libc::SIGKILL);
                    kill_at = None;
                }
            } else {
                if drain.is_none() {
                    ended_after = self.began.elapsed();
                    self.stdin = None;
                    drain = Some(Drain {
                        until: now + DRAIN_LIMIT,
                        quiet_at: now + DRAIN_SILENCE,
                    });
                }
                let is_over = self.stdout.is_none() && self.stderr.is_none();
                // A reader that is slow gets all there is; one that is gone or done gets no more.
                let is_late = drain
                    .as_ref()
                    .is_some_and(|drain| output.room() > 0 && drain.is_over(now));
                let is_unwanted = output.room() == 0 && is_cancelled();
                if is_over || is_late || is_unwanted {
                    return exit_of(status, killed, ended_after);
                }
            }
            self.feed(output, &mut input);
            let deadline = [give_up, kill_at, drain.as_ref().map(Drain::next)]
                .into_iter()
                .flatten()
                .min();
            self.wait(output, &input, deadline);
            let read = self.read_output(output);
            if let (Some(drain), true) = (&mut drain, read > 0 || output.room() == 0) {
                drain.quiet_at = Instant::now() + DRAIN_SILENCE;
            }
        }
    }

    fn wait(&self, output: &Output<'_>, input: &[u8], deadline: Option<Instant>) {
        let mut fds = vec![wake::on(&self.wake, PollFlags::IN)];
        if output.room() > 0 {
            fds.extend(
                [&self.stdout, &self.stderr]
                    .into_iter()
                    .flatten()
                    .map(|fd| wake::on(fd, PollFlags::IN)),
            );
        }
        if let (Some(stdin), false) = (&self.stdin, input.is_empty()) {
            fds.push(wake::on(stdin, PollFlags::OUT));
        }
        wake::wait(&mut fds, deadline);
    }

    /// Reads each pipe once; returns how much came.
    fn read_output(&mut self, output: &Output<'_>) -> usize {
        let mut buffer = vec![0; 64 << 10];
        let mut total = 0;
        for (pipe, kind) in [
            (&mut self.stdout, FrameKind::Output),
            (&mut self.stderr, FrameKind::ErrorOutput),
        ] {
            let room = output.room();
            let Some(fd) = pipe.as_ref().filter(|_| room > 0) else {
                continue;
            };
            match rustix::io::read(fd, &mut buffer[..room]) {
                Ok(0) => *pipe = None,
                Ok(len) => {
                    output.put(kind, &buffer[..len]);
                    total += len;
                }
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(_) => *pipe = None,
            }
        }
        total
    }

    /// Moves input from the stream to the program; what no longer has a reader is dropped.
    fn feed(&mut self, output: &Output<'_>, pending: &mut Vec<u8>) {
        let Output::Stream(stream) = output else { return };
        loop {
            if pending.is_empty() {
                match stream.next_input() {
                    Input::Bytes(bytes) => *pending = bytes,
                    Input::Ended => {
                        self.stdin = None;
                        return;
                    }
                    Input::Pending => return,
                }
            }
            let written = match &self.stdin {
                None => pending.len(),
                Some(stdin) => match write_some(stdin.as_fd(), pending) {
                    Ok(0) => return,
                    Ok(len) => len,
                    Err(_) => {
                        self.stdin = None;
                        pending.len()
                    }
                },
            };
            pending.drain(..written);
            stream.grant(written);
        }
    }
}

/// Writes what fits; 0 if nothing does.
fn write_some(fd: BorrowedFd<'_>, bytes: &[u8]) -> rustix::io::Result<usize> {
    match rustix::io::write(fd, bytes) {
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(0),
        other => other,
    }
}

/// When to stop listening to what an ended program left behind.
struct Drain {
    until: Instant,
    quiet_at: Instant,
}

impl Drain {
    fn next(&self) -> Instant {
        self.until.min(self.quiet_at)
    }

    fn is_over(&self, now: Instant) -> bool {
        now >= self.next()
    }
}

fn exit_of(status: i64, killed: Option<KillReason>, duration: Duration) -> Exit {
    let status = status as i32;
    Exit {
        code: libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)),
        signal: libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status)),
        killed,
        duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        limits_hit: Vec::new(),
    }
}
