//! What waits in a session: taken in, changed, put in order, and told to a turn that runs already.

use super::{Actor, journal_rows, key_reused};
use crate::session::command::Sent;
use crate::session::files;
use crate::session::state::{UNTITLED, title_from_prompt};
use greenroom_agent::world::{Inserted, JournalEntry, MessageOf, Record};
use greenroom_protocol::client::event::EventBody;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::prompt::{ChangePrompt, Delivery, Prompt, PromptReceipt};
use greenroom_protocol::client::session::{Session, UpdateSession};
use greenroom_protocol::id::{PersonId, PromptId, TurnId};
use greenroom_stdx::id::fresh_bits;
use greenroom_store::session_log::{Batch, NewReceipt};

/// Prompts that may wait in one session.
const MAX_QUEUED_PROMPTS: usize = 100;
/// After which there may be room again, in milliseconds.
const FULL_RETRY_MS: u64 = 5_000;

impl Actor {
    pub(super) async fn send_prompt(&mut self, sent: Sent) -> Result<PromptReceipt, Problem> {
        let session_id = self.fold.row.id.clone();
        let known = self
            .services
            .store
            .receipt(&session_id, &sent.author.id, &sent.key)
            .await;
        if let Some(known) = known.map_err(|error| error.problem())? {
            if known.digest != sent.digest {
                return Err(key_reused());
            }
            return serde_json::from_value(known.body)
                .map_err(|_| Problem::permanent("internal", "A stored receipt cannot be read."));
        }
        self.check_not_archived()?;
        if self.fold.queue.len() >= MAX_QUEUED_PROMPTS {
            return Err(Problem {
                retry_after_ms: Some(FULL_RETRY_MS),
                ..Problem::transient("queue_full", "Too many prompts wait in this session.")
                    .with_hint("Wait for some to finish, or remove some from the queue.")
            });
        }
        let delivery = match (sent.delivery, &sent.model) {
            (Some(Delivery::Insert), Some(_)) => return Err(insertion_with_model()),
            // It is to be done by another model than the one that works.
            (None, Some(_)) => Delivery::Queue,
            (asked, _) => asked.unwrap_or(self.fold.row.delivery),
        };
        let images = files::keep_images(&self.services, &session_id, sent.images).await?;
        let now_ms = self.services.clock.now_ms();
        let prompt = Prompt {
            id: PromptId::from_bits(fresh_bits()),
            author: sent.author,
            text: sent.text,
            images,
            model: sent.model,
            delivery,
            queued_at_ms: now_ms,
        };
        let mut events = Vec::new();
        if self.fold.row.title == UNTITLED {
            events.push(EventBody::SessionTitled {
                title: title_from_prompt(&prompt.text),
                by: None,
            });
        }
        events.push(EventBody::PromptQueued {
            prompt: prompt.clone(),
            key: Some(sent.key.clone()),
        });
        let receipt = PromptReceipt {
            prompt_id: prompt.id.clone(),
            seq: self.fold.row.last_seq + events.len() as u64,
        };
        let starts = self.fold.running.is_none() && self.fold.queue.is_empty();
        if starts {
            // One transaction for "queued" and "started": the way from prompt to model crosses the disk once.
            events.extend(self.start_events(&prompt));
        }
        let batch = Batch {
            at_ms: now_ms,
            events,
            receipts: vec![NewReceipt {
                person: prompt.author.id.clone(),
                key: sent.key,
                digest: sent.digest,
                body: serde_json::to_value(&receipt).unwrap_or_default(),
            }],
            ..Batch::default()
        };
        self.append(batch).await?;
        if starts {
            self.spawn_running();
        }
        Ok(receipt)
    }

    /// A prompt that waits.
    fn queued(&self, prompt_id: &PromptId) -> Result<&Prompt, Problem> {
        let mut waiting = self.fold.queue.iter().map(|prompt| &**prompt);
        let found = waiting.find(|prompt| prompt.id == *prompt_id);
        found.ok_or_else(|| match self.fold.open_prompt_state(prompt_id) {
            Some(_) => Problem::permanent("prompt_not_queued", "This prompt runs already.")
                .with_hint("Stop the turn instead."),
            None => Problem::permanent("prompt_not_queued", "This prompt is not in the queue.")
                .with_hint("It has ended, or was taken out; the session's events tell which."),
        })
    }

    fn check_may_order(&self, prompt: &Prompt, by: &PersonId) -> Result<(), Problem> {
        if self.fold.may_order(prompt, by) {
            return Ok(());
        }
        let message = format!("This prompt is by {}.", prompt.author.name);
        Err(Problem::permanent("prompt_not_yours", message)
            .with_hint("Its author can move it or take it out, and so can the session's owner."))
    }

    pub(super) async fn cancel_prompt(&mut self, prompt_id: PromptId, by: PersonId) -> Result<(), Problem> {
        self.check_may_order(self.queued(&prompt_id)?, &by)?;
        self.append_events(vec![EventBody::PromptCancelled { prompt_id, by }])
            .await
            .map(|_| ())
    }

    pub(super) async fn change_prompt(
        &mut self,
        prompt_id: PromptId,
        change: ChangePrompt,
        by: PersonId,
    ) -> Result<(), Problem> {
        let prompt = self.queued(&prompt_id)?;
        if change.text.as_ref().is_some_and(|text| *text != prompt.text) && prompt.author.id != by {
            let message = format!("This prompt is by {}.", prompt.author.name);
            return Err(Problem::permanent("prompt_not_yours", message)
                .with_hint("Only its author can change what it says."));
        }
        self.check_may_order(prompt, &by)?;
        let mut events = Vec::new();
        if let Some(text) = change.text.filter(|text| *text != prompt.text) {
            events.push(EventBody::PromptEdited {
                prompt_id: prompt_id.clone(),
                text,
                by: by.clone(),
            });
        }
        if let Some(delivery) = change.delivery.filter(|delivery| *delivery != prompt.delivery) {
            if delivery == Delivery::Insert && prompt.model.is_some() {
                return Err(insertion_with_model());
            }
            events.push(EventBody::PromptDeliveryChanged {
                prompt_id: prompt_id.clone(),
                delivery,
                by: by.clone(),
            });
        }
        let last = self.fold.queue.len().saturating_sub(1);
        let position = change.position.map(|position| last.min(position as usize));
        if let Some(position) = position.filter(|position| self.fold.queue[*position].id != prompt_id) {
            events.push(EventBody::PromptMoved {
                prompt_id,
                position: u32::try_from(position).unwrap_or(u32::MAX),
                by,
            });
        }
        match events.is_empty() {
            true => self.note_unchanged().await,
            false => self.append_events(events).await.map(|_| ()),
        }
    }

    /// Tells the turn that runs what waits to be inserted: their messages are in its journal, behind `record`, when this returns. If
    /// nothing does, nothing is written.
    pub(super) async fn take_inserted(
        &mut self,
        turn_id: TurnId,
        record: Record,
        message_of: MessageOf,
    ) -> Result<Inserted, Problem> {
        self.check_runs(&turn_id)?;
        let is_stopped = self
            .fold
            .running
            .as_ref()
            .is_some_and(|running| running.stopped_by.is_some());
        if is_stopped {
            // It would end with the turn, unheard.
            return Ok(Inserted::Nothing(record));
        }
        let waiting = self.fold.queue.iter().map(|prompt| &**prompt);
        let prompts: Vec<Prompt> = waiting
            .filter(|prompt| prompt.delivery == Delivery::Insert)
            .cloned()
            .collect();
        if prompts.is_empty() {
            return Ok(Inserted::Nothing(record));
        }
        let messages = prompts.iter().map(|prompt| JournalEntry::Message {
            message: message_of(prompt),
        });
        let mut batch = self.batch_of(&turn_id, record)?;
        batch.journal.extend(journal_rows(&turn_id, messages)?);
        batch
            .events
            .extend(prompts.iter().map(|prompt| EventBody::PromptInserted {
                turn_id: turn_id.clone(),
                prompt_id: prompt.id.clone(),
            }));
        self.append(batch).await?;
        Ok(Inserted::Prompts(prompts))
    }

    /// Changes what people can set of a session; returns it as it was right after that, and as its receipt tells it.
    pub(super) async fn update(&mut self, change: UpdateSession, by: PersonId) -> Result<Session, Problem> {
        if change.title.is_some() || change.delivery.is_some() || change.is_queue_paused.is_some() {
            self.check_not_archived()?;
        }
        let row = &self.fold.row;
        let mut events = Vec::new();
        if let Some(title) = change.title.filter(|title| *title != row.title) {
            let by = Some(by.clone());
            events.push(EventBody::SessionTitled { title, by });
        }
        if let Some(delivery) = change.delivery.filter(|delivery| *delivery != row.delivery) {
            events.push(EventBody::SessionDeliveryChanged {
                delivery,
                by: by.clone(),
            });
        }
        if let Some(access) = change.access.filter(|access| *access != row.access) {
            events.push(EventBody::SessionAccessChanged {
                access,
                by: by.clone(),
            });
        }
        let mut starts = false;
        if let Some(is_paused) = change
            .is_queue_paused
            .filter(|is_paused| *is_paused != row.is_queue_paused)
        {
            let Some(next) = self.fold.queue.front() else {
                return Err(
                    Problem::permanent("queue_empty", "No prompt waits in this session.")
                        .with_hint("A queue can be paused while something waits in it."),
                );
            };
            let by = by.clone();
            events.push(EventBody::SessionQueueChanged { is_paused, by });
            starts = !is_paused && self.fold.running.is_none();
            if starts {
                // In one transaction: whoever finds the log after a crash finds a session at work.
                events.extend(self.start_events(next));
            }
        }
        if events.is_empty() {
            self.note_unchanged().await?;
            return Ok(self.fold.row.clone());
        }
        self.append_events(events).await?;
        let updated = self.fold.row.clone();
        if starts {
            self.spawn_running();
        }
        if change.access.is_some() {
            self.settle_rights(&by).await;
        }
        Ok(updated)
    }
}

fn insertion_with_model() -> Problem {
    Problem::permanent(
        "insert_with_model",
        "What is inserted is told to the model that works, so it cannot name another one.",
    )
    .with_hint("Leave `model` out, or let it wait for a turn of its own (`delivery`: `queue`).")
}
