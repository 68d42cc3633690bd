//! What a session's model was told and said in earlier turns. Read from the journal, and remembered between turns, so that a turn reads what
//! the one before it wrote and not everything since the session began.

use super::services::SessionServices;
use greenroom_agent::world::JournalEntry;
use greenroom_llm::conversation::Message;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::id::{SessionId, TurnId};
use greenroom_store::session_log::JournalRow;
use tokio::sync::Mutex;

/// For how long nothing may be asked until the journal is read again; sessions at rest should take little memory.
const REMEMBERED_MS: i64 = 10 * 60 * 1000;

/// The conversation of one session, as far as it is remembered.
#[derive(Debug, Default)]
pub struct Conversation(Mutex<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    /// Rows of the journal that `history` was made of.
    rows: u64,
    history: Vec<Message>,
    used_at_ms: i64,
}

impl Conversation {
    /// The messages of the turns before this one, and what this one wrote already.
    pub async fn of_turn(
        &self,
        services: &SessionServices,
        session: &SessionId,
        turn: &TurnId,
    ) -> Result<(Vec<Message>, Vec<JournalEntry>), Problem> {
        let mut remembered = self.0.lock().await;
        let new = services.store.journal(session, remembered.rows).await;
        let own = remembered
            .take(new.map_err(|error| error.problem())?, turn)
            .map_err(|error| {
                tracing::error!(session = %session, %error, "journal entry cannot be read");
                Problem::permanent("session_corrupt", "This session's journal cannot be read.")
                    .with_hint("start a new session; this one stays readable")
            })?;
        remembered.used_at_ms = services.clock.now_ms();
        Ok((remembered.history.clone(), own))
    }

    /// Forgets what nobody asked about for a while. It is read again when somebody does.
    pub fn rest(&self, now_ms: i64) {
        // Whoever holds it uses it.
        if let Ok(mut remembered) = self.0.try_lock()
            && remembered.used_at_ms + REMEMBERED_MS < now_ms
        {
            *remembered = Remembered::default();
        }
    }
}

impl Remembered {
    /// Takes the rows behind those that are known; answers with what is of this turn, which is last.
    fn take(&mut self, rows: Vec<JournalRow>, turn: &TurnId) -> Result<Vec<JournalEntry>, serde_json::Error> {
        let mut own = Vec::new();
        for row in rows {
            let entry: JournalEntry = serde_json::from_value(row.entry)?;
            if row.turn_id == *turn {
                own.push(entry);
                continue;
            }
            // Of an earlier turn: nothing is written there any more.
            self.rows += 1;
            if let JournalEntry::Message { message } = entry {
                self.history.push(message);
            }
        }
        Ok(own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use greenroom_llm::conversation::{Block, Role};

    fn row(turn: u128, text: &str) -> JournalRow {
        let message = Message {
            role: Role::User,
            blocks: vec![Block::Text {
                text: text.to_owned(),
            }],
        };
        JournalRow {
            at_ms: 0,
            turn_id: TurnId::from_bits(turn),
            entry: serde_json::to_value(JournalEntry::Message { message }).unwrap(),
        }
    }

    #[test]
    fn what_is_remembered_and_what_is_read_are_the_whole() {
        let journal = [row(1, "a"), row(1, "b"), row(2, "c"), row(3, "d"), row(3, "e")];
        let mut remembered = Remembered::default();
        // Each turn, the last one twice, as after a restart of the server in the middle of it.
        for (turn, written, history, own) in [
            (1, 0, 0, 0),
            (2, 2, 2, 0),
            (3, 3, 3, 0),
            (3, 5, 3, 2),
            (4, 5, 5, 0),
        ] {
            let known = usize::try_from(remembered.rows).unwrap();
            let new = journal[known..written].to_vec();
            let told = remembered.take(new, &TurnId::from_bits(turn)).unwrap();
            assert_eq!(
                (remembered.history.len(), told.len()),
                (history, own),
                "turn {turn}"
            );
        }
    }
}
