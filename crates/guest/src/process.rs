//! One process that outlives its link: its output in a ring, those who follow it, and its exit. What runs it is a pump on a
//! thread of its own; each follower is another thread. While somebody follows, the slowest of them slows the program; with
//! nobody there it never waits.

pub mod table;

use crate::exec;
use crate::failure::{self, CallResult};
use crate::pump::Console;
use crate::ring::{self, Ring};
use crate::stream::{Input, Stream};
use crate::wake::{self, Wake};
use crate::{reaper, terminal};
use greenroom_protocol::guest::call::{BackgroundProcess, Exec, Exit, Reply, TerminalSize};
use greenroom_protocol::guest::frame::FrameKind;
use rustix::event::PollFlags;
use rustix::fd::OwnedFd;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Characters of a command line that are shown.
const SHOWN_ARGUMENT_CHARS: usize = 200;
const SHOWN_ARGUMENTS: usize = 8;

/// Bytes that nobody waits for, read at once.
const CHUNK_BYTES: usize = 64 << 10;

/// What ends a process that nobody ends by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// It goes on without link.
    Own,
    /// It goes on without link, and somebody was told of its end who may ask again.
    OwnInForeground,
    /// It is hung up with the link that started it.
    Link,
}

pub struct Process {
    pub id: u32,
    pub key: Option<String>,
    pub lifetime: Lifetime,
    pid: i32,
    argv: Vec<String>,
    has_terminal: bool,
    started: Instant,
    /// Bell of its pump.
    pump: Arc<Wake>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ring: Ring,
    followers: Vec<Follower>,
    input: VecDeque<(Arc<Stream>, Vec<u8>)>,
    /// Where the input came from that the pump has.
    taking: Option<Arc<Stream>>,
    is_input_ended: bool,
    is_cancelled: bool,
    exit: Option<Exit>,
    terminal: Option<OwnedFd>,
}

struct Follower {
    stream: Arc<Stream>,
    /// What it has been sent.
    cursor: u64,
}

impl State {
    /// Where the slowest follower is; behind everything if there is none.
    fn wanted(&self) -> u64 {
        self.followers
            .iter()
            .map(|follower| follower.cursor)
            .min()
            .unwrap_or(u64::MAX)
    }

    fn ring_followers(&self) {
        for follower in &self.followers {
            follower.stream.wake.ring();
        }
    }
}

impl Process {
    /// Starts a program and the thread that pumps for it.
    pub fn start(id: u32, exec: &Exec, lifetime: Lifetime) -> CallResult<Arc<Self>> {
        let os = |error: std::io::Error| failure::of(&error, "process");
        let wake = Arc::new(Wake::new().map_err(os)?);
        let pump = exec::start(exec, Arc::clone(&wake))?;
        let pid = pump.pid();
        let terminal = pump.terminal().map(|fd| fd.try_clone_to_owned());
        let process = Arc::new(Self {
            id,
            key: exec.key.clone(),
            lifetime,
            pid,
            argv: shown(&exec.argv),
            has_terminal: exec.terminal.is_some(),
            started: Instant::now(),
            pump: wake,
            state: Mutex::new(State {
                // Without it the terminal only keeps its size.
                terminal: terminal.and_then(Result::ok),
                ..State::default()
            }),
        });
        let pumped = Arc::clone(&process);
        let started = std::thread::Builder::new()
            .name("process".into())
            .stack_size(256 << 10)
            .spawn(move || {
                let exit = pump.run(&*pumped);
                pumped.ended(exit);
            });
        if let Err(error) = started {
            reaper::signal_group(pid, libc::SIGKILL);
            return Err(os(error));
        }
        Ok(process)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self, exit: Exit) {
        let mut state = self.state();
        state.exit = Some(exit);
        // The last of our ends: what is left on the terminal is hung up.
        state.terminal = None;
        state.taking = None;
        state.ring_followers();
        let unread = std::mem::take(&mut state.input);
        drop(state);
        for (stream, bytes) in unread {
            stream.grant(bytes.len());
        }
    }

    pub fn has_ended(&self) -> bool {
        self.state().exit.is_some()
    }

    /// As others see it.
    pub fn description(&self) -> BackgroundProcess {
        BackgroundProcess {
            process_id: self.id,
            argv: self.argv.clone(),
            started_ms_ago: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            exit: self.state().exit.clone(),
            key: self.key.clone(),
            has_terminal: self.has_terminal,
        }
    }

    /// Output from a cursor, merged.
    pub fn read(&self, after_offset: u64, max_bytes: usize) -> Reply {
        let state = self.state();
        let (start_offset, end_offset, output) =
            state.ring.text(after_offset, max_bytes, state.exit.is_some());
        Reply::ProcessOutput {
            start_offset,
            end_offset,
            output,
            // The exit belongs after all output.
            exit: state.exit.clone().filter(|_| end_offset == state.ring.end()),
        }
    }

    /// Signals the whole group; one that ended is fine.
    pub fn signal(&self, signal: i32) {
        reaper::signal_group(self.pid, signal);
    }

    /// One that has no terminal, or no longer, is fine.
    pub fn resize(&self, size: TerminalSize) -> std::io::Result<()> {
        match &self.state().terminal {
            Some(terminal) => terminal::resize(terminal, size)?,
            None => return Ok(()),
        }
        if terminal::tells_nobody() {
            // Whom it does not concern ignores it.
            reaper::signal_session(self.pid, libc::SIGWINCH);
        }
        Ok(())
    }

    /// Sends its output from `after_offset` on, and its input back, until its end or until the stream is gone; `None` then.
    pub fn follow(&self, stream: &Arc<Stream>, after_offset: u64) -> Option<Exit> {
        let mut cursor = {
            let mut state = self.state();
            let cursor = after_offset.clamp(state.ring.start(), state.ring.end());
            state.followers.push(Follower {
                stream: Arc::clone(stream),
                cursor,
            });
            cursor
        };
        stream.reply(&Reply::Started { process_id: self.id });
        let exit = self.send_all(stream, &mut cursor);
        let mut state = self.state();
        state
            .followers
            .retain(|follower| !Arc::ptr_eq(&follower.stream, stream));
        // Nobody may be left who slows it down, or for whom it runs.
        if exit.is_none() && self.lifetime == Lifetime::Link {
            state.is_cancelled = true;
        }
        drop(state);
        self.pump.ring();
        exit
    }

    fn send_all(&self, stream: &Arc<Stream>, cursor: &mut u64) -> Option<Exit> {
        let mut is_input_open = true;
        loop {
            stream.wake.clear();
            if stream.is_gone() {
                return None;
            }
            if stream.has_cancel() {
                self.state().is_cancelled = true;
                self.pump.ring();
            }
            is_input_open = is_input_open && self.take_input(stream);
            let room = stream.credit();
            let state = self.state();
            let (start, kind, bytes) = state.ring.piece(*cursor, room);
            let exit = state.exit.clone().filter(|_| *cursor == state.ring.end());
            drop(state);
            if !bytes.is_empty() {
                stream.send_data(kind, &bytes);
                *cursor = start + bytes.len() as u64;
                self.advance(stream, *cursor);
            } else if exit.is_some() {
                return exit;
            } else {
                wake::wait(&mut [wake::on(&stream.wake, PollFlags::IN)], None);
            }
        }
    }

    fn advance(&self, stream: &Arc<Stream>, cursor: u64) {
        let mut state = self.state();
        for follower in &mut state.followers {
            if Arc::ptr_eq(&follower.stream, stream) {
                follower.cursor = cursor;
            }
        }
        drop(state);
        self.pump.ring();
    }

    /// Hands what a stream brought to the pump; `false` once nothing more will come. The host may send more only when the
    /// program took it, so this holds no more than the streams' windows.
    fn take_input(&self, stream: &Arc<Stream>) -> bool {
        loop {
            match stream.next_input() {
                Input::Bytes(bytes) => {
                    let mut state = self.state();
                    if state.exit.is_some() {
                        drop(state);
                        stream.grant(bytes.len());
                    } else {
                        state.input.push_back((Arc::clone(stream), bytes));
                    }
                }
                Input::Ended => {
                    self.state().is_input_ended = true;
                    self.pump.ring();
                    return false;
                }
                Input::Pending => return true,
            }
            self.pump.ring();
        }
    }
}

impl Console for Process {
    fn room(&self) -> usize {
        let state = self.state();
        if state.followers.is_empty() {
            return CHUNK_BYTES;
        }
        state.ring.room(ring::bound(), state.wanted())
    }

    fn put(&self, kind: FrameKind, bytes: &[u8]) {
        let mut state = self.state();
        let wanted = state.wanted();
        state.ring.put(kind, bytes, ring::bound(), wanted);
        state.ring_followers();
    }

    fn next_input(&self) -> Input {
        let mut state = self.state();
        match state.input.pop_front() {
            Some((stream, bytes)) => {
                state.taking = Some(stream);
                Input::Bytes(bytes)
            }
            None if std::mem::take(&mut state.is_input_ended) => Input::Ended,
            None => Input::Pending,
        }
    }

    fn took_input(&self, len: usize) {
        let stream = self.state().taking.clone();
        if let Some(stream) = stream {
            stream.grant(len);
        }
    }

    fn is_cancelled(&self) -> bool {
        self.state().is_cancelled
    }
}

fn shown(argv: &[String]) -> Vec<String> {
    argv.iter()
        .take(SHOWN_ARGUMENTS)
        .map(|text| text.chars().take(SHOWN_ARGUMENT_CHARS).collect())
        .collect()
}
