//! A bell that a thread waits for together with its files, in one poll(2).

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

/// Rings stay until they are heard.
pub struct Wake(OwnedFd);

impl Wake {
    pub fn new() -> std::io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Ends the current or next wait. Never blocks.
    pub fn ring(&self) {
        // Fails only when it already rang 2^64 times.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Forgets earlier rings.
    pub fn clear(&self) {
        let mut count = [0; 8];
        // Fails when it did not ring.
        let _ = rustix::io::read(&self.0, &mut count);
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits until one of `fds` is ready or `deadline` has passed. Interruptions count as ready.
pub fn wait(fds: &mut [PollFd<'_>], deadline: Option<Instant>) {
    let timeout = deadline.map(|deadline| {
        let left = deadline.saturating_duration_since(Instant::now());
        rustix::event::Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        }
    });
    // Errors are interruptions; the caller looks at everything again.
    let _ = rustix::event::poll(fds, timeout.as_ref());
}

/// An entry of a poll set.
pub fn on<F: AsFd>(fd: &F, flags: PollFlags) -> PollFd<'_> {
    PollFd::new(fd, flags)
}
