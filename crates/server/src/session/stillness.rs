//! Sandboxes that nobody uses stand still: what goes on in them by itself, such as services, takes no processor then. Whoever comes lets
//! theirs go on first.

use crate::sandbox::Frozen;
use greenroom_protocol::client::problem::Problem;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// Of one sandbox.
#[derive(Default)]
pub struct Stillness {
    users: AtomicUsize,
    /// When the last of them went.
    left_at: std::sync::Mutex<Option<Instant>>,
    frozen: Mutex<Option<Frozen>>,
}

/// Somebody uses the sandbox until this is dropped.
#[must_use = "the sandbox may stand still when this is dropped"]
pub struct InUse(Arc<Stillness>);

impl Drop for InUse {
    fn drop(&mut self) {
        *self.0.left_at() = Some(Instant::now());
        self.0.users.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Stillness {
    /// Lets the sandbox go on if it stands still, and keeps it from standing still for so long as what is returned lives.
    pub async fn go_on(self: &Arc<Self>) -> InUse {
        // Counted first: whoever looks for users with the lock held either sees this one, or is waited for and undone.
        self.users.fetch_add(1, Ordering::SeqCst);
        let in_use = InUse(self.clone());
        self.frozen.lock().await.take();
        in_use
    }

    /// Holds the sandbox still if nobody has used it for so long and `freeze`, which is asked only then, has it done; says whether it
    /// stands still now and did not before.
    pub async fn hold(
        &self,
        unused_for: Duration,
        freeze: impl AsyncFnOnce() -> Result<Option<Frozen>, Problem>,
    ) -> Result<bool, Problem> {
        let mut frozen = self.frozen.lock().await;
        let is_in_use = || self.users.load(Ordering::SeqCst) > 0;
        let was_used = || self.left_at().is_some_and(|at| at.elapsed() < unused_for);
        if frozen.is_some() || is_in_use() || was_used() {
            return Ok(false);
        }
        *frozen = freeze().await?;
        Ok(frozen.is_some())
    }

    /// Whether the sandbox stands still.
    pub fn is_held(&self) -> bool {
        self.frozen.try_lock().is_ok_and(|frozen| frozen.is_some())
    }

    fn left_at(&self) -> MutexGuard<'_, Option<Instant>> {
        self.left_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    /// Notes that it goes on.
    struct Thaws(Arc<AtomicBool>);

    impl Drop for Thaws {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn nobody_finds_it_standing_still() {
        let still = Arc::new(Stillness::default());
        let goes_on = Arc::new(AtomicBool::new(false));
        let freeze = async || Ok(Some(Box::new(Thaws(goes_on.clone())) as Frozen));
        let hold = || still.hold(Duration::ZERO, freeze);
        assert!(hold().await.unwrap());
        assert!(still.is_held());
        assert!(!hold().await.unwrap(), "it does already");
        let first = still.go_on().await;
        assert!(goes_on.load(Ordering::SeqCst) && !still.is_held());
        let second = still.go_on().await;
        drop(first);
        assert!(!hold().await.unwrap(), "there is another");
        drop(second);
        assert!(
            !still.hold(Duration::from_secs(3_600), freeze).await.unwrap(),
            "somebody used it"
        );
        assert!(hold().await.unwrap());
    }

    #[tokio::test]
    async fn what_cannot_be_held_goes_on() {
        let still = Arc::new(Stillness::default());
        assert!(!still.hold(Duration::ZERO, async || Ok(None)).await.unwrap());
        let refused = async || Err(Problem::transient("lost", "It is gone."));
        assert!(still.hold(Duration::ZERO, refused).await.is_err());
        assert!(!still.is_held());
        let _in_use = still.go_on().await;
    }
}
