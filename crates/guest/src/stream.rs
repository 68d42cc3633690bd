//! One numbered stream of a link: what arrived for it, how much it may still send, and the bell of the thread that serves it.

use crate::link::Link;
use crate::wake::Wake;
use greenroom_protocol::guest::call::Reply;
use greenroom_protocol::guest::frame::{FrameKind, MAX_PAYLOAD_BYTES, STREAM_WINDOW_BYTES};
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Shared by the link's reader, which fills it, and one serving thread.
pub struct Stream {
    id: u32,
    link: Arc<Link>,
    state: Mutex<State>,
    pub wake: Arc<Wake>,
}

struct State {
    input: VecDeque<Vec<u8>>,
    /// Bytes that arrived and were not granted again.
    unacknowledged: u32,
    is_input_ended: bool,
    /// Bytes this side may still send.
    credit: u32,
    is_cancelled: bool,
    is_gone: bool,
}

/// The host sent more than it was granted.
pub struct WindowExceeded;

/// The next input of a stream.
pub enum Input {
    Bytes(Vec<u8>),
    Ended,
    /// Nothing yet.
    Pending,
}

impl Stream {
    pub fn new(id: u32, link: Arc<Link>) -> io::Result<Self> {
        Ok(Self {
            id,
            link,
            state: Mutex::new(State {
                input: VecDeque::new(),
                unacknowledged: 0,
                is_input_ended: false,
                credit: STREAM_WINDOW_BYTES,
                is_cancelled: false,
                is_gone: false,
            }),
            wake: Arc::new(Wake::new()?),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is a single assignment; a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // What the reader tells.

    pub fn push_input(&self, bytes: Vec<u8>) -> Result<(), WindowExceeded> {
        let mut state = self.state();
        // Payloads are at most 256 KiB, so this cannot overflow.
        let unacknowledged = state.unacknowledged + bytes.len() as u32;
        if unacknowledged > STREAM_WINDOW_BYTES {
            return Err(WindowExceeded);
        }
        state.unacknowledged = unacknowledged;
        // Many tiny frames become one, so that the window bounds memory too.
        match state.input.back_mut() {
            Some(last) if last.len() + bytes.len() <= MAX_PAYLOAD_BYTES => last.extend_from_slice(&bytes),
            _ => state.input.push_back(bytes),
        }
        self.wake.ring();
        Ok(())
    }

    pub fn end_input(&self) {
        self.state().is_input_ended = true;
        self.wake.ring();
    }

    pub fn add_credit(&self, bytes: u32) {
        let mut state = self.state();
        state.credit = state.credit.saturating_add(bytes).min(STREAM_WINDOW_BYTES);
        self.wake.ring();
    }

    pub fn cancel(&self) {
        self.state().is_cancelled = true;
        self.wake.ring();
    }

    /// The host forgot the stream, or the link died.
    pub fn forget(&self) {
        self.state().is_gone = true;
        self.wake.ring();
    }

    // What the serving thread asks and does.

    pub fn is_cancelled(&self) -> bool {
        let state = self.state();
        state.is_cancelled || state.is_gone
    }

    /// Whether the host wants the call to end, as opposed to having gone.
    pub fn has_cancel(&self) -> bool {
        self.state().is_cancelled
    }

    pub fn is_gone(&self) -> bool {
        self.state().is_gone
    }

    pub fn next_input(&self) -> Input {
        let mut state = self.state();
        match state.input.pop_front() {
            Some(bytes) => Input::Bytes(bytes),
            None if state.is_input_ended => Input::Ended,
            None => Input::Pending,
        }
    }

    /// Lets the host send as many bytes more.
    pub fn grant(&self, bytes: usize) {
        let bytes = bytes as u32;
        let mut state = self.state();
        state.unacknowledged = state.unacknowledged.saturating_sub(bytes);
        drop(state);
        self.link.send(FrameKind::Credit, self.id, &bytes.to_be_bytes());
    }

    /// How many bytes may be sent now, at most one frame's worth.
    pub fn credit(&self) -> usize {
        (self.state().credit as usize).min(64 << 10)
    }

    /// Sends data for which [`Stream::credit`] was enough.
    pub fn send_data(&self, kind: FrameKind, bytes: &[u8]) {
        let mut state = self.state();
        state.credit = state.credit.saturating_sub(bytes.len() as u32);
        drop(state);
        self.link.send(kind, self.id, bytes);
    }

    /// Sends `bytes`, waiting for credit as needed; `false` if nobody wants them any more.
    pub fn send_all(&self, kind: FrameKind, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            self.wake.clear();
            if self.is_cancelled() {
                return false;
            }
            let len = self.credit().min(bytes.len());
            if len == 0 {
                crate::wake::wait(
                    &mut [crate::wake::on(&self.wake, rustix::event::PollFlags::IN)],
                    None,
                );
                continue;
            }
            self.send_data(kind, &bytes[..len]);
            bytes = &bytes[len..];
        }
        true
    }

    pub fn send_end(&self) {
        self.link.send(FrameKind::End, self.id, &[]);
    }

    pub fn send_reset(&self) {
        self.link.send(FrameKind::Reset, self.id, &[]);
    }

    pub fn reply(&self, reply: &Reply) {
        self.link.reply(self.id, reply);
    }

    /// The stream's number is free again.
    pub fn close(&self) {
        self.link.close_stream(self.id);
    }
}
