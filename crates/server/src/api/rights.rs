//! Tells what stays open for long, such as sockets, that somebody may do less than before, so that it ends at once.

use greenroom_protocol::id::{LinkId, PersonId, SessionId};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

/// Changes kept for whoever is slow to look; one that misses some looks as if all concerned it.
const RING_CHANGES: usize = 64;

/// Whose rights changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RightsChange {
    /// A token or browser of theirs is no good any more, or they were removed.
    Person(PersonId),
    /// Members of a session, or what others may do there.
    Session(SessionId),
    Link(LinkId),
}

/// Spreads changes of rights in this process.
pub struct Rights(broadcast::Sender<RightsChange>);

impl Default for Rights {
    fn default() -> Self {
        Self(broadcast::channel(RING_CHANGES).0)
    }
}

impl Rights {
    /// Tells everything that is open. Call it after the change is on disk.
    pub fn changed(&self, change: RightsChange) {
        // Nothing open is not an error.
        let _ = self.0.send(change);
    }

    /// What changes from now on. Subscribe before looking at rights, so that no change falls between.
    pub fn watch(&self) -> RightsWatch {
        RightsWatch(self.0.subscribe())
    }
}

/// Changes that something open waits for.
pub struct RightsWatch(broadcast::Receiver<RightsChange>);

impl RightsWatch {
    /// Whether there was a change since the last look that may concern whom `concerns` says.
    pub fn has_changed(&mut self, concerns: impl Fn(&RightsChange) -> bool) -> bool {
        let mut has_changed = false;
        loop {
            match self.0.try_recv() {
                Ok(change) => has_changed |= concerns(&change),
                Err(TryRecvError::Lagged(_)) => has_changed = true,
                Err(TryRecvError::Empty | TryRecvError::Closed) => return has_changed,
            }
        }
    }

    /// Waits for a change that may concern whom `concerns` says. May be dropped at any time.
    pub async fn changed(&mut self, concerns: impl Fn(&RightsChange) -> bool) {
        loop {
            match self.0.recv().await {
                Ok(change) if concerns(&change) => return,
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => return,
                // The server ends, and with it everything.
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}
