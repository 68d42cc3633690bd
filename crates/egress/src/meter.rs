//! Counts what goes through a connection, and notices when nothing does.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// What one sandbox did so far. Counters only grow.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub connections: AtomicU64,
    pub allowed: AtomicU64,
    pub refused: AtomicU64,
    pub failed: AtomicU64,
    pub bytes_out: AtomicU64,
    pub bytes_in: AtomicU64,
}

impl Counters {
    pub fn count(counter: &AtomicU64, by: u64) {
        counter.fetch_add(by, Ordering::Relaxed);
    }
}

/// When something last moved.
#[derive(Debug)]
pub(crate) struct Activity {
    since: Instant,
    moved_at_ms: AtomicU64,
}

impl Activity {
    fn touch(&self) {
        let now = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved_at_ms.store(now, Ordering::Relaxed);
    }

    /// Returns when nothing has moved for so long.
    pub async fn idle(&self, limit: Duration) {
        loop {
            let moved = Duration::from_millis(self.moved_at_ms.load(Ordering::Relaxed));
            let quiet = self.since.elapsed().saturating_sub(moved);
            match limit.checked_sub(quiet) {
                None | Some(Duration::ZERO) => return,
                Some(left) => tokio::time::sleep(left).await,
            }
        }
    }
}

/// The sandbox's end of a connection, counted.
#[derive(Debug)]
pub(crate) struct Metered<S> {
    inner: S,
    counters: Arc<Counters>,
    activity: Arc<Activity>,
}

impl<S> Metered<S> {
    pub fn new(inner: S, counters: Arc<Counters>) -> Self {
        Counters::count(&counters.connections, 1);
        Self {
            inner,
            counters,
            activity: Arc::new(Activity {
                since: Instant::now(),
                moved_at_ms: AtomicU64::new(0),
            }),
        }
    }

    pub fn activity(&self) -> Arc<Activity> {
        Arc::clone(&self.activity)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        let len = buffer.filled().len() - before;
        if len > 0 {
            Counters::count(&self.counters.bytes_out, len as u64);
            self.activity.touch();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let len = ready!(Pin::new(&mut self.inner).poll_write(context, bytes))?;
        Counters::count(&self.counters.bytes_in, len as u64);
        self.activity.touch();
        Poll::Ready(Ok(len))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
