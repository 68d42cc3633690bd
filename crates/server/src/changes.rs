//! Says which repositories changed, so that who prepares things for them need not look all the time. Only a hint: one that is missed is
//! found at the next regular look.

use std::sync::Arc;
use tokio::sync::broadcast;

/// Names that may wait for a slow listener (channel `changed repositories`).
const WAITING: usize = 64;

/// Where changes are told and heard.
#[derive(Clone)]
pub struct RepositoryChanges(Arc<broadcast::Sender<String>>);

impl Default for RepositoryChanges {
    fn default() -> Self {
        Self(Arc::new(broadcast::Sender::new(WAITING)))
    }
}

impl RepositoryChanges {
    /// A branch or the environment of the repository may have changed.
    pub fn tell(&self, repository: &str) {
        // Nobody listens while the server comes and goes.
        let _ = self.0.send(repository.to_owned());
    }

    /// Tells it when the value is dropped.
    pub fn tell_later(&self, repository: &str) -> LaterChange {
        LaterChange {
            changes: self.clone(),
            repository: repository.to_owned(),
        }
    }

    /// From now on.
    pub fn listen(&self) -> ChangeListener {
        ChangeListener(self.0.subscribe())
    }
}

/// See [`RepositoryChanges::tell_later`].
pub struct LaterChange {
    changes: RepositoryChanges,
    repository: String,
}

impl Drop for LaterChange {
    fn drop(&mut self) {
        self.changes.tell(&self.repository);
    }
}

/// Hears of changes.
pub struct ChangeListener(broadcast::Receiver<String>);

impl ChangeListener {
    /// The next repository that changed; `None`: some did, and any of them may have.
    pub async fn next(&mut self) -> Option<String> {
        match self.0.recv().await {
            Ok(repository) => Some(repository),
            Err(broadcast::error::RecvError::Lagged(_)) => None,
            // The server keeps a sender; without one nothing changes any more.
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}
