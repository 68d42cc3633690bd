//! What is done outside the session: begun again after a crash, and when somebody asks for it.

use super::Actor;
use crate::session::outbox;
use crate::session::turn;
use greenroom_protocol::client::event::EventBody;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::id::PersonId;
use greenroom_stdx::chain::Chain;
use greenroom_store::session_log::{Batch, Intent};

impl Actor {
    /// Goes on with what has no result.
    pub(super) async fn resume_effects(&self) {
        match self.services.store.outbox_pending(&self.fold.row.id).await {
            Ok(intents) => {
                for intent in intents {
                    turn::resume_intent(self, intent);
                }
            }
            Err(error) => {
                tracing::error!(session = %self.fold.row.id, error = %Chain(&error), "cannot read what is still to be done outside");
            }
        }
    }

    /// Tries something again that was given up; returns when that is on disk, not when it is done.
    pub(super) async fn retry_effect(&mut self, key: String, by: PersonId) -> Result<(), Problem> {
        self.check_not_archived()?;
        let session = self.fold.row.id.clone();
        let is_failed = self
            .fold
            .row
            .failed_effects
            .iter()
            .any(|failed| failed.key == key);
        let given_up = match is_failed {
            true => self.services.store.intent(&session, &key).await,
            false => Ok(None),
        };
        let Some(given_up) = given_up.map_err(|error| error.problem())? else {
            return Err(
                Problem::permanent("effect_not_failed", "Nothing of that key was given up.")
                    .with_hint("The session's `failed_effects` are what can be tried again."),
            );
        };
        let again = outbox::retry_intent(&given_up);
        let now_ms = self.services.clock.now_ms();
        let intent = Intent {
            key: again.key.clone(),
            created_at_ms: now_ms,
            attempts: 0,
            next_attempt_at_ms: 0,
            outcome: None,
            is_final: false,
            ..given_up
        };
        self.append(Batch {
            at_ms: now_ms,
            events: vec![EventBody::EffectRetried { effect_key: key, by }],
            intents: vec![again],
            ..Batch::default()
        })
        .await?;
        turn::resume_intent(self, intent);
        Ok(())
    }
}
