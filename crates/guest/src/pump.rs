//! Moves output and input of one running program until its end, and ends it when it must: time limit, output limit,
//! cancellation. One thread waits for everything in one poll.

use crate::reaper;
use crate::room;
use crate::stream::Input;
use crate::terminal;
use crate::wake::{self, Wake};
use greenroom_protocol::guest::call::{Exec, Exit, KillReason};
use greenroom_protocol::guest::frame::FrameKind;
use rustix::event::PollFlags;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

/// Between TERM and KILL.
const GRACE: Duration = Duration::from_secs(2);

/// How long output may be silent after the program ended while something it left behind still holds the pipe.
const DRAIN_SILENCE: Duration = Duration::from_millis(100);

/// How long such a thing is listened to at most.
const DRAIN_LIMIT: Duration = Duration::from_secs(1);

/// Bytes moved at once.
const CHUNK_BYTES: usize = 64 << 10;

const RUNNING: i64 = i64::MIN;

/// Where output goes, and input and cancellation come from; rings the pump's bell when any of it changes.
pub trait Console {
    /// How many bytes may be put now.
    fn room(&self) -> usize;

    fn put(&self, kind: FrameKind, bytes: &[u8]);

    /// [`Input::Ended`] may come again and again.
    fn next_input(&self) -> Input;

    /// So many bytes of the input are with the program, or will never be.
    fn took_input(&self, len: usize);

    fn is_cancelled(&self) -> bool;
}

/// A program that runs.
pub struct Pump {
    pid: i32,
    began: Instant,
    wake: Arc<Wake>,
    /// Wait status once known, `RUNNING` until then.
    status: Arc<AtomicI64>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    stdin: Option<OwnedFd>,
    is_on_terminal: bool,
    /// When it has run too long.
    give_up: Option<Instant>,
    /// Bytes it may still write.
    output_left: Option<u64>,
    /// Whether it wrote more.
    has_overflowed: bool,
    kill_at: Option<Instant>,
    killed: Option<KillReason>,
    buffer: Vec<u8>,
}

impl Pump {
    /// For a program that is about to start.
    pub fn new(exec: &Exec, wake: Arc<Wake>) -> Self {
        let began = Instant::now();
        Self {
            pid: 0,
            began,
            wake,
            status: Arc::new(AtomicI64::new(RUNNING)),
            stdout: None,
            stderr: None,
            stdin: None,
            is_on_terminal: exec.terminal.is_some(),
            give_up: exec
                .timeout_ms
                .and_then(|ms| began.checked_add(Duration::from_millis(ms))),
            output_left: exec.max_output_bytes.filter(|_| !exec.is_background),
            has_overflowed: false,
            kill_at: None,
            killed: None,
            buffer: Vec::new(),
        }
    }

    /// What the reaper calls with the wait status.
    pub fn ended(&self) -> impl FnOnce(i32) + Send + 'static {
        let (status, wake) = (Arc::clone(&self.status), Arc::clone(&self.wake));
        move |wait_status| {
            status.store(i64::from(wait_status), Ordering::Release);
            wake.ring();
        }
    }

    /// Takes our ends of what the started program reads and writes; they do not block.
    pub fn connect(&mut self, pid: i32, stdin: Option<OwnedFd>, stdout: OwnedFd, stderr: Option<OwnedFd>) {
        self.pid = pid;
        self.stdin = stdin;
        self.stdout = Some(stdout);
        self.stderr = stderr;
    }

    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Our end of the terminal it runs on.
    pub fn terminal(&self) -> Option<BorrowedFd<'_>> {
        self.stdout
            .as_ref()
            .filter(|_| self.is_on_terminal)
            .map(AsFd::as_fd)
    }

    /// Passes output on and input in until the end.
    pub fn run(mut self, console: &impl Console) -> Exit {
        self.buffer = vec![0; CHUNK_BYTES];
        let mut pending = Vec::new();
        let mut drain: Option<Drain> = None;
        let mut ended_after = Duration::ZERO;
        loop {
            self.wake.clear();
            let now = Instant::now();
            let status = self.status.load(Ordering::Acquire);
            if status == RUNNING {
                self.end_if_due(now, console);
            } else {
                let drain = drain.get_or_insert_with(|| {
                    ended_after = self.began.elapsed();
                    Drain::at(now)
                });
                self.stdin = None;
                let is_over = self.stdout.is_none() && self.stderr.is_none();
                // A reader that is slow gets all there is; one that is gone or done gets no more.
                let is_late = self.room(console) > 0 && drain.is_over(now);
                let is_unwanted = self.room(console) == 0 && console.is_cancelled();
                if is_over || is_late || is_unwanted {
                    if self.killed.is_some() && self.is_on_terminal {
                        reaper::hang_up_rest(self.pid);
                    }
                    // One that wrote too much and was done before it could be killed for it lost output all the same.
                    let overflow = self.has_overflowed.then_some(KillReason::OutputLimit);
                    return exit_of(status, self.killed.or(overflow), ended_after);
                }
            }
            self.feed(console, &mut pending);
            let deadline = [self.give_up, self.kill_at, drain.as_ref().map(Drain::next)]
                .into_iter()
                .flatten()
                .min();
            self.wait(console, &pending, deadline);
            let read = self.read_output(console);
            if let (Some(drain), true) = (&mut drain, read > 0 || self.room(console) == 0) {
                drain.quiet_at = Instant::now() + DRAIN_SILENCE;
            }
        }
    }

    /// Asks it to end if there is a reason, and forces it a while later.
    fn end_if_due(&mut self, now: Instant, console: &impl Console) {
        if self.killed.is_none() {
            self.killed = if self.has_overflowed {
                Some(KillReason::OutputLimit)
            } else if self.give_up.is_some_and(|at| now >= at) {
                Some(KillReason::TimedOut)
            } else if console.is_cancelled() {
                Some(KillReason::Cancelled)
            } else {
                None
            };
            if self.killed.is_some() {
                if self.is_on_terminal {
                    // What a shell does with its jobs when the line is cut; it ignores TERM.
                    reaper::signal_session(self.pid, libc::SIGHUP);
                }
                reaper::end_group(self.pid);
                self.kill_at = Some(now + GRACE);
                self.give_up = None;
            }
        }
        if self.kill_at.is_some_and(|at| now >= at) {
            if self.is_on_terminal {
                reaper::signal_session(self.pid, libc::SIGKILL);
            }
            reaper::signal_group(self.pid, libc::SIGKILL);
            self.kill_at = None;
        }
    }

    /// How much may be read: what is beyond the output limit is dropped, so there is always room for it.
    fn room(&self, console: &impl Console) -> usize {
        match self.has_overflowed {
            true => CHUNK_BYTES,
            false => console.room().min(CHUNK_BYTES),
        }
    }

    fn wait(&self, console: &impl Console, pending: &[u8], deadline: Option<Instant>) {
        let mut fds = vec![wake::on(&self.wake, PollFlags::IN)];
        if self.room(console) > 0 {
            fds.extend(
                [&self.stdout, &self.stderr]
                    .into_iter()
                    .flatten()
                    .map(|fd| wake::on(fd, PollFlags::IN)),
            );
        }
        if let (Some(stdin), false) = (&self.stdin, pending.is_empty()) {
            fds.push(wake::on(stdin, PollFlags::OUT));
        }
        wake::wait(&mut fds, deadline);
    }

    /// Reads each pipe once; returns how much came.
    fn read_output(&mut self, console: &impl Console) -> usize {
        let mut total = 0;
        for kind in [FrameKind::Output, FrameKind::ErrorOutput] {
            let room = self.room(console);
            let pipe = match kind {
                FrameKind::ErrorOutput => &mut self.stderr,
                _ => &mut self.stdout,
            };
            let Some(fd) = pipe.as_ref().filter(|_| room > 0) else {
                continue;
            };
            match rustix::io::read(fd, &mut self.buffer[..room]) {
                Ok(0) => *pipe = None,
                Ok(len) => {
                    total += len;
                    let mut allowed = len;
                    if let Some(left) = &mut self.output_left {
                        allowed = usize::try_from(*left).map_or(len, |left| left.min(len));
                        *left -= allowed as u64;
                        self.has_overflowed |= allowed < len;
                    }
                    if allowed > 0 {
                        console.put(kind, &self.buffer[..allowed]);
                    }
                }
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                // On a terminal: nobody has the other end any more.
                Err(_) => *pipe = None,
            }
        }
        total
    }

    /// Moves input to the program; what no longer has a reader is dropped.
    fn feed(&mut self, console: &impl Console, pending: &mut Vec<u8>) {
        loop {
            if pending.is_empty() {
                match console.next_input() {
                    Input::Bytes(bytes) => *pending = bytes,
                    Input::Ended => {
                        match &self.stdin {
                            Some(stdin) if self.is_on_terminal => {
                                // A terminal whose line is full of unread input has no room for it; nothing is owed then.
                                let _ = write_some(stdin.as_fd(), &[terminal::END_OF_FILE]);
                            }
                            _ => self.stdin = None,
                        }
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
            console.took_input(written);
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
    fn at(now: Instant) -> Self {
        Self {
            until: now + DRAIN_LIMIT,
            quiet_at: now + DRAIN_SILENCE,
        }
    }

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
        limits_hit: room::after_end(),
    }
}
