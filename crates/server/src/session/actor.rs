//! The one writer of a session. Commands come through a bounded mailbox and are handled one at a time: decide, append,
//! fold, then publish. Turns run as tasks of their own and come back through the same mailbox.

use super::command::{Command, Sent, SessionHandle};
use super::hub::Hub;
use super::sandbox_slot::SandboxSlot;
use super::services::SessionServices;
use super::state::{SessionFold, UNTITLED, title_from_prompt};
use super::turn;
use greenroom_agent::world::{TurnEnd, TurnResult};
use greenroom_protocol::client::event::{Event, EventBody, SandboxUsage, TurnOutcome};
use greenroom_protocol::client::model::Usage;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::prompt::{ChangePrompt, Prompt, PromptReceipt};
use greenroom_protocol::client::session::{Session, SessionState};
use greenroom_protocol::id::{PersonId, PromptId, TurnId};
use greenroom_stdx::chain::Chain;
use greenroom_stdx::id::fresh_bits;
use greenroom_store::session_log::{AppendError, Batch, JournalRow, NewReceipt};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// Prompts that may wait in one session.
const MAX_QUEUED_PROMPTS: usize = 100;
/// Bytes of text and images that may wait in one session.
const MAX_QUEUED_BYTES: usize = 64 * 1024 * 1024;
/// How long to wait before a turn's end is written again after the log refused it.
const APPEND_RETRY: Duration = Duration::from_secs(2);

/// The actor of one session; [`Actor::run`] is its life.
pub struct Actor {
    pub(super) services: Arc<SessionServices>,
    pub(super) fold: SessionFold,
    pub(super) epoch: u64,
    pub(super) hub: Arc<Hub>,
    pub(super) mailbox: mpsc::Receiver<Command>,
    /// For the tasks it starts.
    pub(super) sender: mpsc::WeakSender<Command>,
    /// The session's sandbox, for its turns.
    pub(super) sandbox: Arc<SandboxSlot>,
    /// The end of a turn that the log has not taken yet.
    pub(super) pending_end: Option<Vec<EventBody>>,
    /// Stops the running turn.
    pub(super) stop: CancellationToken,
    /// Ends everything when the server shuts down.
    pub(super) shutdown: CancellationToken,
}

impl Actor {
    /// For a task that this actor starts; `None`: nobody holds a handle any more.
    pub(super) fn own_handle(&self) -> Option<SessionHandle> {
        Some(SessionHandle {
            id: self.fold.row.id.clone(),
            sender: self.sender.upgrade()?,
            hub: self.hub.clone(),
            sandbox: self.sandbox.clone(),
        })
    }

    /// Handles commands until the server shuts down or nobody can send any more.
    pub async fn run(mut self) {
        self.recover().await;
        let mut again = tokio::time::interval(APPEND_RETRY);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let command = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => break,
                command = self.mailbox.recv() => command,
                _ = again.tick(), if self.has_unfinished() => {
                    self.catch_up().await;
                    continue;
                }
            };
            let Some(command) = command else { break };
            self.handle(command).await;
            self.catch_up().await;
        }
        let lease = self.services.store.release(&self.fold.row.id, self.epoch).await;
        if let Err(error) = lease {
            tracing::warn!(session = %self.fold.row.id, %error, "could not release the session's lease");
        }
    }

    /// Goes on with what the log says was running, and starts what waits.
    async fn recover(&mut self) {
        // The catalog's row may be older than the log.
        self.services.rows.changed(Arc::new(self.fold.row.clone()));
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
        let Some(running) = self.fold.running.clone() else {
            self.catch_up().await;
            return;
        };
        tracing::info!(session = %self.fold.row.id, turn = %running.turn_id, "going on with an interrupted turn");
        let resumed = EventBody::TurnResumed {
            turn_id: running.turn_id.clone(),
        };
        if let Err(problem) = self.append_events(vec![resumed]).await {
            tracing::error!(session = %self.fold.row.id, code = problem.code, "cannot resume: {}", problem.message);
        }
        self.stop = self.shutdown.child_token();
        if running.stopped_by.is_some() {
            self.stop.cancel();
        }
        turn::spawn(self, running, turn::Start::Resumed);
    }

    async fn handle(&mut self, command: Command) {
        match command {
            // A caller that went away does not undo what is on disk, so failed replies are ignored throughout.
            Command::Send { sent, reply } => {
                let _ = reply.send(self.send_prompt(sent).await);
            }
            Command::CancelPrompt { prompt_id, by, reply } => {
                let _ = reply.send(self.cancel_prompt(prompt_id, by).await);
            }
            Command::ChangePrompt {
                prompt_id,
                change,
                by,
                reply,
            } => {
                let _ = reply.send(self.change_prompt(prompt_id, change, by).await);
            }
            Command::Stop { by, reply } => {
                let _ = reply.send(self.stop(by).await);
            }
            Command::Record {
                record,
                turn_id,
                reply,
            } => {
                let _ = reply.send(self.record(turn_id, record).await);
            }
            Command::Append { mut batch, reply } => {
                batch.at_ms = self.services.clock.now_ms();
                let _ = reply.send(self.append(batch).await);
            }
            Command::TurnEnded {
                turn_id,
                end,
                sandbox,
            } => self.turn_ended(turn_id, end, sandbox).await,
            Command::Row { reply } => {
                let _ = reply.send(self.fold.clone());
            }
        }
    }

    async fn send_prompt(&mut self, sent: Sent) -> Result<PromptReceipt, Problem> {
        let session_id = self.fold.row.id.clone();
        let known = self
            .services
            .store
            .receipt(&session_id, &sent.author.id, &sent.key)
            .await;
        if let Some(known) = known.map_err(|error| error.problem())? {
            if known.digest != sent.digest {
                return Err(Problem::permanent(
                    "idempotency_key_reused",
                    "This idempotency key was used for another prompt.",
                )
                .with_hint("use a fresh key for each prompt"));
            }
            return serde_json::from_value(known.body)
                .map_err(|_| Problem::permanent("internal", "A stored receipt cannot be read."));
        }
        if self.fold.queue.len() >= MAX_QUEUED_PROMPTS {
            return Err(
                Problem::transient("queue_full", "Too many prompts wait in this session.")
                    .with_hint("wait for some to finish, or remove some from the queue"),
            );
        }
        let waiting_bytes: usize = self.fold.queue.iter().map(size_of_prompt).sum();
        let now_ms = self.services.clock.now_ms();
        let prompt = Prompt {
            id: PromptId::from_bits(fresh_bits()),
            author: sent.author,
            text: sent.text,
            images: sent.images,
            model: sent.model,
            queued_at_ms: now_ms,
        };
        if waiting_bytes + size_of_prompt(&prompt) > MAX_QUEUED_BYTES && !self.fold.queue.is_empty() {
            return Err(queue_too_large());
        }
        let mut events = Vec::new();
        if self.fold.row.state == SessionState::Created && self.fold.row.title == UNTITLED {
            events.push(EventBody::SessionTitled {
                title: title_from_prompt(&prompt.text),
            });
        }
        events.push(EventBody::PromptQueued {
            prompt: prompt.clone(),
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
            // After a crash the catalog says which sessions to wake; a prompt is only accepted once it does. The turn
            // already runs meanwhile.
            if let Err(error) = self.services.catalog.put_session(&self.fold.row).await {
                // The prompt is on disk and runs; refusing it now would make people send it twice. The row is tried again.
                tracing::warn!(session = %self.fold.row.id, error = %Chain(&error), "the catalog does not know yet that a turn runs");
            }
        }
        Ok(receipt)
    }

    fn start_events(&self, prompt: &Prompt) -> Vec<EventBody> {
        let model = prompt
            .model
            .clone()
            .unwrap_or_else(|| self.fold.row.model.clone());
        let is_scripted = self.services.models.is_scripted(&model);
        vec![
            EventBody::TurnStarted {
                turn_id: TurnId::from_bits(fresh_bits()),
                prompt_id: prompt.id.clone(),
                model,
                is_scripted,
            },
            EventBody::SessionStateChanged {
                state: SessionState::Running,
            },
        ]
    }

    /// Whether something waits for the log to take it.
    fn has_unfinished(&self) -> bool {
        self.pending_end.is_some() || (self.fold.running.is_none() && !self.fold.queue.is_empty())
    }

    /// Writes a turn's end that could not be written, then starts what waits. Called after each command and from time to
    /// time, so that a disk that was full holds nothing up for longer than it is.
    async fn catch_up(&mut self) {
        if let Some(events) = self.pending_end.take()
            && let Err(problem) = self.append_events(events.clone()).await
        {
            tracing::error!(session = %self.fold.row.id, code = problem.code, "cannot write a turn's end, trying again");
            // Nothing can be stored, but those who watch can be told why nothing happens.
            let row = Session {
                last_error_code: Some(problem.code),
                ..self.fold.row.clone()
            };
            self.hub.publish_session(Arc::new(row));
            self.pending_end = Some(events);
            return;
        }
        self.start_next().await;
    }

    async fn start_next(&mut self) {
        if self.fold.running.is_some() {
            return;
        }
        let Some(prompt) = self.fold.queue.front().cloned() else {
            return;
        };
        match self.append_events(self.start_events(&prompt)).await {
            Ok(_) => self.spawn_running(),
            Err(problem) => {
                // The prompt stays queued on disk, and is tried again.
                tracing::error!(session = %self.fold.row.id, code = problem.code, "cannot start the next prompt");
            }
        }
    }

    fn spawn_running(&mut self) {
        if let Some(running) = self.fold.running.clone() {
            self.stop = self.shutdown.child_token();
            turn::spawn(self, running, turn::Start::Fresh);
        }
    }

    /// A prompt that waits.
    fn queued(&self, prompt_id: &PromptId) -> Result<&Prompt, Problem> {
        let found = self.fold.queue.iter().find(|prompt| prompt.id == *prompt_id);
        found.ok_or_else(|| match self.fold.open_prompt_state(prompt_id) {
            Some(_) => Problem::permanent("prompt_not_queued", "This prompt runs already.")
                .with_hint("stop the turn instead"),
            None => Problem::permanent("prompt_not_queued", "This prompt is not in the queue."),
        })
    }

    fn check_may_order(&self, prompt: &Prompt, by: &PersonId) -> Result<(), Problem> {
        if self.fold.may_order(prompt, by) {
            return Ok(());
        }
        let message = format!("This prompt is by {}.", prompt.author.name);
        Err(Problem::permanent("prompt_not_yours", message)
            .with_hint("Its author can change it, or whoever began the session."))
    }

    async fn cancel_prompt(&mut self, prompt_id: PromptId, by: PersonId) -> Result<(), Problem> {
        self.check_may_order(self.queued(&prompt_id)?, &by)?;
        self.append_events(vec![EventBody::PromptCancelled { prompt_id, by }])
            .await
            .map(|_| ())
    }

    async fn change_prompt(
        &mut self,
        prompt_id: PromptId,
        change: ChangePrompt,
        by: PersonId,
    ) -> Result<(), Problem> {
        let prompt = self.queued(&prompt_id)?;
        self.check_may_order(prompt, &by)?;
        let mut events = Vec::new();
        if let Some(text) = change.text.filter(|text| *text != prompt.text) {
            if prompt.author.id != by {
                let message = format!("This prompt is by {}.", prompt.author.name);
                return Err(Problem::permanent("prompt_not_yours", message)
                    .with_hint("Only its author can change what it says."));
            }
            let waiting_bytes: usize = self.fold.queue.iter().map(size_of_prompt).sum();
            if waiting_bytes - prompt.text.len() + text.len() > MAX_QUEUED_BYTES {
                return Err(queue_too_large());
            }
            events.push(EventBody::PromptEdited {
                prompt_id: prompt_id.clone(),
                text,
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
            true => Ok(()),
            false => self.append_events(events).await.map(|_| ()),
        }
    }

    async fn stop(&mut self, by: PersonId) -> Result<(), Problem> {
        let Some(running) = &self.fold.running else {
            return Err(Problem::permanent(
                "nothing_to_stop",
                "No turn runs in this session.",
            ));
        };
        if running.stopped_by.is_none() {
            let turn_id = running.turn_id.clone();
            self.append_events(vec![
                EventBody::TurnStopping { turn_id, by },
                EventBody::SessionStateChanged {
                    state: SessionState::Stopping,
                },
            ])
            .await?;
        }
        self.stop.cancel();
        Ok(())
    }

    async fn record(
        &mut self,
        turn_id: TurnId,
        record: greenroom_agent::world::Record,
    ) -> Result<(), Problem> {
        if self
            .fold
            .running
            .as_ref()
            .is_none_or(|running| running.turn_id != turn_id)
        {
            return Err(Problem::permanent("turn_over", "This turn is over."));
        }
        let journal = record
            .journal
            .iter()
            .map(|entry| {
                serde_json::to_value(entry)
                    .map(|entry| JournalRow {
                        at_ms: 0,
                        turn_id: turn_id.clone(),
                        entry,
                    })
                    .map_err(|_| Problem::permanent("internal", "A journal entry cannot be written as JSON."))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let started = record.started.into_iter().map(|item| EventBody::ItemStarted {
            turn_id: turn_id.clone(),
            item,
        });
        let completed = record.completed.into_iter().map(|item| EventBody::ItemCompleted {
            turn_id: turn_id.clone(),
            item,
        });
        let events = started.chain(completed).collect();
        let at_ms = self.services.clock.now_ms();
        self.append(Batch {
            at_ms,
            events,
            journal,
            ..Batch::default()
        })
        .await
        .map(|_| ())
    }

    async fn turn_ended(&mut self, turn_id: TurnId, end: TurnEnd, sandbox: Option<SandboxUsage>) {
        let Some(running) = self
            .fold
            .running
            .clone()
            .filter(|running| running.turn_id == turn_id)
        else {
            return;
        };
        if self.shutdown.is_cancelled() {
            // The server is going down, nobody asked this turn to stop: it resumes after the restart.
            return;
        }
        let outcome = match end.result {
            // A resumed turn may have ended before the stop was seen; people are told what they asked for.
            TurnResult::Completed if running.stopped_by.is_some() => TurnOutcome::Stopped {
                by: running.stopped_by.unwrap_or(running.prompt.author.id.clone()),
            },
            TurnResult::Completed => TurnOutcome::Completed,
            TurnResult::Failed(problem) => TurnOutcome::Failed { problem },
            TurnResult::Stopped => TurnOutcome::Stopped {
                by: running.stopped_by.unwrap_or(running.prompt.author.id.clone()),
            },
        };
        self.services.metrics.turn_ended(&outcome);
        let usage = Usage {
            input_tokens: end.usage.input_tokens,
            output_tokens: end.usage.output_tokens,
            cache_read_tokens: end.usage.cache_read_tokens,
            cache_write_tokens: end.usage.cache_write_tokens,
        };
        let completed = EventBody::TurnCompleted {
            turn_id: turn_id.clone(),
            prompt_id: running.prompt.id,
            outcome,
            usage,
            sandbox,
        };
        let mut events = vec![completed];
        if self.fold.queue.is_empty() {
            events.push(EventBody::SessionStateChanged {
                state: SessionState::Idle,
            });
        }
        self.pending_end = Some(events);
    }

    /// Appends events alone.
    pub(super) async fn append_events(&mut self, events: Vec<EventBody>) -> Result<u64, Problem> {
        let at_ms = self.services.clock.now_ms();
        self.append(Batch {
            at_ms,
            events,
            ..Batch::default()
        })
        .await
    }

    /// Disk first, then memory, then everyone who watches.
    pub(super) async fn append(&mut self, batch: Batch) -> Result<u64, Problem> {
        let session_id = self.fold.row.id.clone();
        let at_ms = batch.at_ms;
        let events = batch.events.clone();
        let expected_seq = self.fold.row.last_seq;
        let last_seq = match self
            .services
            .store
            .append(&session_id, self.epoch, expected_seq, batch)
            .await
        {
            Ok(last_seq) => last_seq,
            Err(error) => {
                if matches!(error, AppendError::Fenced) {
                    tracing::error!(session = %session_id, "another writer took this session over");
                    self.shutdown.cancel();
                }
                return Err(error.problem());
            }
        };
        if events.is_empty() {
            return Ok(last_seq);
        }
        for (position, body) in events.into_iter().enumerate() {
            let event = Arc::new(Event {
                seq: expected_seq + 1 + position as u64,
                at_ms,
                body,
            });
            self.fold.apply(&event);
            self.hub.publish_event(event);
        }
        let row = Arc::new(self.fold.row.clone());
        self.hub.publish_session(row.clone());
        self.services.rows.changed(row);
        Ok(last_seq)
    }
}

fn queue_too_large() -> Problem {
    Problem::transient(
        "queue_full",
        "The prompts that wait in this session are too large together.",
    )
    .with_hint("Wait for some to finish, or remove some from the queue.")
}

fn size_of_prompt(prompt: &Prompt) -> usize {
    prompt.text.len()
        + prompt
            .images
            .iter()
            .map(|image| image.data_base64.len())
            .sum::<usize>()
}
