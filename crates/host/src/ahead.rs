//! One thing that is made before it is asked for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Holds at most one; clones share it.
#[derive(Debug)]
pub(crate) struct Ahead<T>(Arc<Mutex<State<T>>>);

#[derive(Debug)]
enum State<T> {
    Empty,
    Ready(T),
    /// Nothing is made any more.
    Closed,
}

impl<T> Ahead<T> {
    /// Takes what is ready.
    pub(crate) fn take(&self) -> Option<T> {
        let mut state = self.lock();
        match std::mem::replace(&mut *state, State::Empty) {
            State::Ready(it) => Some(it),
            State::Closed => {
                *state = State::Closed;
                None
            }
            State::Empty => None,
        }
    }

    /// Makes one if none is ready. What cannot be made is tried again the next time.
    pub(crate) fn refill<E>(&self, make: impl FnOnce() -> Result<T, E>) {
        let mut state = self.lock();
        if matches!(*state, State::Empty)
            && let Ok(made) = make()
        {
            *state = State::Ready(made);
        }
    }

    /// Takes what is ready, the last there is.
    pub(crate) fn close(&self) -> Option<T> {
        match std::mem::replace(&mut *self.lock(), State::Closed) {
            State::Ready(it) => Some(it),
            State::Empty | State::Closed => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Default for Ahead<T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State::Empty)))
    }
}

impl<T> Clone for Ahead<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::Ahead;

    #[test]
    fn one_is_ready_at_a_time_and_none_after_the_end() {
        let ahead = Ahead::default();
        assert_eq!(ahead.take(), None);
        ahead.refill(|| Err::<u32, _>("cannot"));
        assert_eq!(ahead.take(), None);
        ahead.refill(|| Ok::<_, ()>(1));
        ahead.refill(|| -> Result<u32, ()> { panic!("one is ready") });
        assert_eq!((ahead.take(), ahead.take()), (Some(1), None));
        ahead.refill(|| Ok::<_, ()>(2));
        assert_eq!(ahead.clone().close(), Some(2));
        ahead.refill(|| -> Result<u32, ()> { panic!("nothing is made any more") });
        assert_eq!((ahead.take(), ahead.close()), (None, None));
    }
}
