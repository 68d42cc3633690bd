//! Which sandboxes run, and for how long nobody has used each. Bounds how many run at once. Pure bookkeeping: who is asked
//! to stop one is told by [`RunningSandboxes`], the stopping is done by the session it belongs to.

use super::command::SessionHandle;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::id::SandboxId;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bounds on running sandboxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunningBounds {
    /// After this long without a turn a sandbox is stopped.
    pub idle: Duration,
    /// After this long without anybody who uses it a sandbox stands still; `None`: it never does.
    pub still_after: Option<Duration>,
    /// How long nothing is asked of a session that has no sandbox until it leaves memory.
    pub session_idle: Duration,
    /// At least 1.
    pub max_running: usize,
    /// How long a call that changes something waits for the workspace to be synced.
    pub sync_timeout: Duration,
}

/// All sandboxes that run, as far as this process knows.
pub struct RunningSandboxes {
    bounds: RunningBounds,
    entries: Mutex<HashMap<SandboxId, Entry>>,
}

struct Entry {
    handle: SessionHandle,
    /// `None`: a turn uses it.
    idle_since_ms: Option<i64>,
}

/// Whether one more may run.
pub enum Admission {
    Admitted,
    /// Too many run; these are idle, the longest first.
    Full(Vec<(SandboxId, SessionHandle)>),
}

impl RunningSandboxes {
    pub fn new(bounds: RunningBounds) -> Self {
        Self {
            bounds,
            entries: Mutex::default(),
        }
    }

    /// How many run.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// Takes a place for a turn, or keeps the one that the sandbox has. `others` run besides, in the warm pool.
    pub fn admit(&self, sandbox: &SandboxId, handle: &SessionHandle, others: usize) -> Admission {
        let mut entries = self.lock();
        if !entries.contains_key(sandbox) && entries.len() + others >= self.bounds.max_running {
            return Admission::Full(idle(&entries, i64::MAX));
        }
        entries.insert(
            sandbox.clone(),
            Entry {
                handle: handle.clone(),
                idle_since_ms: None,
            },
        );
        Admission::Admitted
    }

    /// Counts one that runs from before and that nobody uses.
    pub fn adopt(&self, sandbox: &SandboxId, handle: &SessionHandle, now_ms: i64) {
        self.lock().entry(sandbox.clone()).or_insert_with(|| Entry {
            handle: handle.clone(),
            idle_since_ms: Some(now_ms),
        });
    }

    /// The turn that used it is over.
    pub fn leave(&self, sandbox: &SandboxId, now_ms: i64) {
        if let Some(entry) = self.lock().get_mut(sandbox) {
            entry.idle_since_ms = Some(now_ms);
        }
    }

    /// It does not run any more.
    pub fn gone(&self, sandbox: &SandboxId) {
        self.lock().remove(sandbox);
    }

    /// Whether it runs and no turn uses it.
    pub fn is_idle(&self, sandbox: &SandboxId) -> bool {
        self.lock()
            .get(sandbox)
            .is_some_and(|entry| entry.idle_since_ms.is_some())
    }

    /// Those that nobody uses, the longest first.
    pub fn idle(&self) -> Vec<(SandboxId, SessionHandle)> {
        idle(&self.lock(), i64::MAX)
    }

    /// Those that nobody has used for too long, the longest first.
    pub fn overdue(&self, now_ms: i64) -> Vec<(SandboxId, SessionHandle)> {
        self.unused_for(self.bounds.idle, now_ms)
    }

    /// Those that no turn has used for so long, the longest first.
    pub fn unused_for(&self, time: Duration, now_ms: i64) -> Vec<(SandboxId, SessionHandle)> {
        let time_ms = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        idle(&self.lock(), now_ms.saturating_sub(time_ms))
    }

    /// How often to look for those that nobody has used for a time.
    pub fn look_every(&self) -> Duration {
        let shortest = self
            .bounds
            .still_after
            .map_or(self.bounds.idle, |still| still.min(self.bounds.idle));
        (shortest / 4).clamp(Duration::from_millis(200), Duration::from_secs(30))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SandboxId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn idle(entries: &HashMap<SandboxId, Entry>, until_ms: i64) -> Vec<(SandboxId, SessionHandle)> {
    let mut idle: Vec<_> = entries
        .iter()
        .filter_map(|(id, entry)| Some((entry.idle_since_ms.filter(|since| *since <= until_ms)?, id, entry)))
        .collect();
    idle.sort_by_key(|(since, id, _)| (*since, id.as_str().to_owned()));
    idle.into_iter()
        .map(|(_, id, entry)| (id.clone(), entry.handle.clone()))
        .collect()
}

/// What a turn is told when no sandbox can run for it.
pub fn exhausted(max_running: usize) -> Problem {
    Problem {
        retry_after_ms: Some(30_000),
        ..Problem::transient(
            "sandboxes_exhausted",
            format!("All {max_running} sandboxes that may run at once are at work."),
        )
        .with_hint("Try again when another turn has ended, or let the operator raise `sandbox.max_running`.")
    }
}

impl RunningSandboxes {
    /// The bound on how many run.
    pub fn max_running(&self) -> usize {
        self.bounds.max_running
    }

    /// How long nobody uses a sandbox until it stands still.
    pub fn still_after(&self) -> Option<Duration> {
        self.bounds.still_after
    }

    /// How many stand still.
    pub fn still(&self) -> usize {
        let entries = self.lock();
        let still = entries.values().filter(|entry| entry.handle.sandbox.is_still());
        still.count()
    }

    /// How long nothing is asked of a session that has no sandbox until it leaves memory.
    pub fn session_idle(&self) -> Duration {
        self.bounds.session_idle
    }

    /// How long a call that changes something waits for the workspace to be synced.
    pub fn sync_timeout(&self) -> Duration {
        self.bounds.sync_timeout
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::hub::Hub;
    use crate::session::sandbox_slot::SandboxSlot;
    use std::sync::Arc;

    fn handle() -> SessionHandle {
        SessionHandle {
            id: greenroom_protocol::id::SessionId::from_bits(0),
            right: None,
            once: None,
            registry: std::sync::Weak::new(),
            sender: tokio::sync::mpsc::channel(1).0,
            hub: Arc::new(Hub::default()),
            sandbox: Arc::new(SandboxSlot::new(false)),
            conversation: Arc::default(),
        }
    }

    fn ids(found: Vec<(SandboxId, SessionHandle)>) -> Vec<SandboxId> {
        found.into_iter().map(|(id, _)| id).collect()
    }

    #[test]
    fn the_longest_idle_makes_room_and_busy_ones_never_do() {
        let running = RunningSandboxes::new(RunningBounds {
            idle: Duration::from_millis(100),
            still_after: None,
            session_idle: Duration::MAX,
            max_running: 2,
            sync_timeout: Duration::ZERO,
        });
        let [one, two, three] = [1, 2, 3].map(SandboxId::from_bits);
        for id in [&one, &two] {
            assert!(matches!(running.admit(id, &handle(), 0), Admission::Admitted));
        }
        let Admission::Full(idle) = running.admit(&three, &handle(), 0) else {
            panic!("two is the most")
        };
        assert!(idle.is_empty(), "both are busy");
        assert!(
            matches!(running.admit(&one, &handle(), 0), Admission::Admitted),
            "it has its place"
        );
        running.leave(&two, 1_000);
        running.leave(&one, 2_000);
        let Admission::Full(idle) = running.admit(&three, &handle(), 0) else {
            panic!("two is the most")
        };
        assert_eq!(ids(idle), [two.clone(), one.clone()]);
        assert!(ids(running.overdue(1_099)).is_empty());
        assert_eq!(ids(running.overdue(1_100)), std::slice::from_ref(&two));
        running.gone(&two);
        assert!(matches!(running.admit(&three, &handle(), 0), Admission::Admitted));
        assert!(running.is_idle(&one) && !running.is_idle(&three) && !running.is_idle(&two));
        assert_eq!(running.count(), 2);
        running.adopt(&three, &handle(), 0);
        assert!(
            !running.is_idle(&three),
            "what a turn uses is not taken over as idle"
        );
    }
}
