//! The end of a session: archived it is kept for reading only, and from there it may be deleted.

use super::Actor;
use crate::session::command::Reason;
use crate::session::ending::{check_not_archived, not_archived};
use greenroom_protocol::client::event::EventBody;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::session::SessionState;
use greenroom_protocol::id::PersonId;

impl Actor {
    /// What changes a session is refused while it is archived.
    pub(super) fn check_not_archived(&self) -> Result<(), Problem> {
        check_not_archived(&self.fold.row)
    }

    /// Archiving an archived one changes nothing.
    pub(super) async fn archive(&mut self, why: Reason) -> Result<(), Problem> {
        self.check_age(&why)?;
        if self.fold.row.state == SessionState::Archived {
            return self.note_unchanged().await;
        }
        if self.fold.running.is_some() || !self.fold.queue.is_empty() || self.pending_end.is_some() {
            return Err(Problem::permanent(
                "session_busy",
                "A turn runs in this session, or prompts wait in it.",
            )
            .with_hint("Stop the turn and empty the queue, then archive it."));
        }
        let archived = EventBody::SessionArchived { by: why.person() };
        self.append_events(vec![archived]).await.map(|_| ())
    }

    /// What is too old may have been used since that was found.
    fn check_age(&self, why: &Reason) -> Result<(), Problem> {
        match why {
            Reason::Age { quiet_since_ms } if self.fold.row.updated_at_ms > *quiet_since_ms => {
                let message = "Something happened in this session since it was found to be old.";
                Err(Problem::permanent("session_in_use", message))
            }
            _ => Ok(()),
        }
    }

    /// It takes prompts again, and goes on with the files it had.
    pub(super) async fn unarchive(&mut self, by: PersonId) -> Result<(), Problem> {
        match self.fold.row.state {
            SessionState::Archived => {
                let back = EventBody::SessionUnarchived { by };
                self.append_events(vec![back]).await.map(|_| ())
            }
            _ => self.note_unchanged().await,
        }
    }

    /// From here on there is no such session. What it has on disk is removed by whoever asked, or at the next start.
    pub(super) async fn delete(&mut self, why: Reason) -> Result<(), Problem> {
        self.check_age(&why)?;
        let row = &self.fold.row;
        if row.state != SessionState::Archived {
            return Err(not_archived());
        }
        let by = why.person();
        let deleted = self.services.catalog.delete_session(&row.id, by.as_ref()).await;
        deleted.map_err(|error| error.problem())?;
        if let Some(registry) = self.registry.upgrade() {
            registry.is_deleted(&row.id);
        }
        self.is_deleted = true;
        Ok(())
    }
}
