//! The one clock: wall time for records, monotonic time for waiting. Tests hold time still with [`Clock::fixed`].

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Source of wall-clock time in Unix milliseconds.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    fixed: Option<Arc<AtomicI64>>,
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self::default()
    }

    /// A clock that stands at `now_ms` until [`Clock::advance_ms`].
    pub fn fixed(now_ms: i64) -> Self {
        Self {
            fixed: Some(Arc::new(AtomicI64::new(now_ms))),
        }
    }

    /// Milliseconds since 1970-01-01 UTC.
    pub fn now_ms(&self) -> i64 {
        match &self.fixed {
            Some(fixed) => fixed.load(Ordering::Relaxed),
            None => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
            }
        }
    }

    /// Moves a fixed clock; the machine's clock stays as it is.
    pub fn advance_ms(&self, by_ms: i64) {
        if let Some(fixed) = &self.fixed {
            fixed.fetch_add(by_ms, Ordering::Relaxed);
        }
    }
}
