//! The one writer of a session. Commands come through a bounded mailbox and are handled one at a time: decide, append,
//! fold, then publish. Turns run as tasks of their own and come back through the same mailbox.

mod effects;
mod ending;
mod members;
mod prompts;

use super::command::{COMMAND_REPEATED, Command, Mail, Once, SessionHandle};
use super::conversation::Conversation;
use super::hub::Hub;
use super::listing;
use super::registry::SessionRegistry;
use super::right::{Right, session_unknown};
use super::sandbox_slot::SandboxSlot;
use super::services::SessionServices;
use super::state::SessionFold;
use super::turn;
use super::views::{self, Cuts};
use greenroom_agent::world::{JournalEntry, TurnEnd, TurnResult};
use greenroom_protocol::client::event::{Event, EventBody, SandboxUsage, TurnOutcome};
use greenroom_protocol::client::model::Usage;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::prompt::Prompt;
use greenroom_protocol::client::session::{Session, SessionState};
use greenroom_protocol::id::{PersonId, TurnId};
use greenroom_stdx::chain::Chain;
use greenroom_stdx::id::fresh_bits;
use greenroom_store::session_log::{AppendError, Batch, JournalRow, NewReceipt};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

/// How long to wait before a turn's end is written again after the log refused it.
const APPEND_RETRY: Duration = Duration::from_secs(2);

/// The actor of one session; [`Actor::run`] is its life.
pub struct Actor {
    pub(super) services: Arc<SessionServices>,
    pub(super) fold: SessionFold,
    pub(super) epoch: u64,
    pub(super) hub: Arc<Hub>,
    pub(super) mailbox: mpsc::Receiver<Mail>,
    /// For the tasks it starts.
    pub(super) sender: mpsc::WeakSender<Mail>,
    /// The session's sandbox, for its turns.
    pub(super) sandbox: Arc<SandboxSlot>,
    /// What its model was told and said, for its turns.
    pub(super) conversation: Arc<Conversation>,
    pub(super) registry: Weak<SessionRegistry>,
    /// Where views of the log belong.
    pub(super) cuts: Cuts,
    /// The end of a turn that the log has not taken yet.
    pub(super) pending_end: Option<EventBody>,
    /// Stops the running turn.
    pub(super) stop: CancellationToken,
    /// Ends everything when the server shuts down.
    pub(super) shutdown: CancellationToken,
    /// There is no such session any more.
    pub(super) is_deleted: bool,
    /// The command that is carried out now, until its receipt is written.
    pub(super) once: Option<Once>,
    /// Whether the catalog must know the session's row before a command is answered; see [`Actor::bring_row`].
    pub(super) is_row_due: bool,
}

impl Actor {
    /// For a task that this actor starts, and for this actor alone; `None`: nobody holds a handle any more.
    pub(super) fn own_handle(&self) -> Option<SessionHandle> {
        Some(SessionHandle {
            id: self.fold.row.id.clone(),
            sender: self.sender.upgrade()?,
            right: None,
            once: None,
            // What it says is nothing to an actor after this one.
            registry: Weak::new(),
            hub: self.hub.clone(),
            sandbox: self.sandbox.clone(),
            conversation: self.conversation.clone(),
        })
    }

    /// Handles commands until the server shuts down, nobody can send any more, or nothing was asked for a while. Boxed: an actor that falls
    /// asleep may load the one after it.
    pub fn run(self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(self.live())
    }

    async fn live(mut self) {
        // Whatever ends this ends its turn: the next actor goes on with it.
        let _end = self.shutdown.clone().drop_guard();
        self.recover().await;
        let mut again = tokio::time::interval(APPEND_RETRY);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let idle = self.services.running.session_idle();
        let mut asked_at = Instant::now();
        loop {
            let command = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => break,
                command = self.mailbox.recv() => {
                    asked_at = Instant::now();
                    command
                }
                () = tokio::time::sleep_until(asked_at + idle) => {
                    if self.may_sleep() {
                        break;
                    }
                    asked_at = Instant::now();
                    continue;
                }
                _ = again.tick(), if self.has_unfinished() => {
                    self.catch_up().await;
                    continue;
                }
            };
            let Some(Mail { right, once, command }) = command else {
                break;
            };
            match self.admit(right.as_ref(), once).await {
                // What only tells how the session is takes no right here.
                Err(problem) if !matches!(command, Command::Row { .. }) => command.refuse(problem),
                _ => self.handle(command).await,
            }
            self.once = None;
            if self.is_deleted {
                break;
            }
            self.catch_up().await;
        }
        // From here on whoever asks wakes the session anew; who asked already is not forgotten.
        self.mailbox.close();
        let mut late = Vec::new();
        while let Some(mail) = self.mailbox.recv().await {
            late.push(mail);
        }
        let lease = self.services.store.release(&self.fold.row.id, self.epoch).await;
        if let Err(error) = lease {
            tracing::warn!(session = %self.fold.row.id, %error, "could not release the session's lease");
        }
        if !self.shutdown.is_cancelled()
            && let Some(registry) = self.registry.upgrade()
        {
            registry.fell_asleep(&self.fold.row.id, late).await;
        }
    }

    /// Whether nothing is under way that memory is needed for: the log tells the rest.
    fn may_sleep(&self) -> bool {
        // The registry's, this, and whoever writes decisions down, which ends with this: no request, no effect outside and no terminal is
        // on its way.
        let known = 2 + usize::from(self.sandbox.has_writer.load(Ordering::Relaxed));
        self.fold.running.is_none()
            && self.fold.next().is_none()
            && self.pending_end.is_none()
            && self.sandbox.is_at_rest()
            && Arc::strong_count(&self.sandbox) <= known
    }

    /// Goes on with what the log says was running, and starts what waits.
    async fn recover(&mut self) {
        // The catalog's row may be older than the log, and what the session is found by with it.
        let known = self.services.catalog.session(&self.fold.row.id).await;
        if !known.is_ok_and(|known| known.as_ref() == Some(&self.fold.row)) {
            self.services.listing.changed(Arc::new(self.fold.row.clone()));
            self.services.listing.has_texts(self.fold.row.id.clone());
        }
        self.resume_effects().await;
        let owner = self.fold.row.owner().id.clone();
        self.settle_rights(&owner).await;
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

    /// Whether a command may be carried out: by whoever asks, and for the first time.
    async fn admit(&mut self, right: Option<&Right>, once: Option<Once>) -> Result<(), Problem> {
        if let Some(right) = right {
            self.check(right)?;
        }
        let Some(once) = once else { return Ok(()) };
        let (store, id) = (&self.services.store, &self.fold.row.id);
        let known = store.receipt(id, &once.person, &once.key).await;
        match known.map_err(|error| error.problem())? {
            Some(known) if known.digest == once.digest => Err(Problem::permanent(
                COMMAND_REPEATED,
                "This command was carried out before.",
            )),
            Some(_) => Err(key_reused()),
            None => {
                self.once = Some(once);
                Ok(())
            }
        }
    }

    /// The receipt of a command that changes nothing: repeated later, it must not change anything either.
    pub(super) async fn note_unchanged(&mut self) -> Result<(), Problem> {
        match self.once {
            Some(_) => self.append_events(Vec::new()).await.map(|_| ()),
            None => Ok(()),
        }
    }

    /// Whoever asked may have lost the right to it on the way here.
    fn check(&self, right: &Right) -> Result<(), Problem> {
        match self.services.removed.has(&right.person) {
            true => Err(session_unknown()),
            false => right.check(&self.fold.row).map(|_| ()),
        }
    }

    async fn handle(&mut self, command: Command) {
        match command {
            // A caller that went away does not undo what is on disk, so failed replies are ignored throughout.
            Command::Send { sent, reply } => {
                let done = self.send_prompt(sent).await;
                // The turn runs already.
                self.bring_row().await;
                let _ = reply.send(done);
            }
            Command::CancelPrompt { prompt_id, by, reply } => {
                let done = self.cancel_prompt(prompt_id, by).await;
                let _ = reply.send(self.answer(done));
            }
            Command::ChangePrompt {
                prompt_id,
                change,
                by,
                reply,
            } => {
                let done = self.change_prompt(prompt_id, change, by).await;
                let _ = reply.send(self.answer(done));
            }
            Command::Stop {
                by,
                pauses_queue,
                reply,
            } => {
                let done = self.stop(by, pauses_queue).await;
                let _ = reply.send(self.answer(done));
            }
            Command::Update { change, by, reply } => {
                let done = self.update(change, by).await;
                self.bring_row().await;
                let _ = reply.send(done);
            }
            Command::SetMember {
                person,
                role,
                by,
                reply,
            } => {
                let done = self.set_member(person, role, by).await;
                self.bring_row().await;
                let _ = reply.send(done);
            }
            Command::Join { person, role, reply } => {
                let done = self.join(person, role).await;
                self.bring_row().await;
                let _ = reply.send(done);
            }
            Command::EndUnentitled { by, reply } => {
                let _ = reply.send(self.end_unentitled(&by).await);
            }
            Command::RetryEffect { key, by, reply } => {
                let done = self.retry_effect(key, by).await;
                let _ = reply.send(self.answer(done));
            }
            Command::Archive { why, reply } => {
                let done = self.archive(why).await;
                self.bring_row().await;
                let _ = reply.send(self.answer(done));
            }
            Command::Unarchive { by, reply } => {
                let done = self.unarchive(by).await;
                self.bring_row().await;
                let _ = reply.send(self.answer(done));
            }
            Command::Delete { why, reply } => {
                let _ = reply.send(self.delete(why).await);
            }
            Command::TakeInserted {
                turn_id,
                record,
                message_of,
                reply,
            } => {
                let _ = reply.send(self.take_inserted(turn_id, record, message_of).await);
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
                let _ = reply.send(Ok(self.fold.clone()));
            }
        }
    }

    /// After a crash the catalog says which sessions to wake and who finds them, so what changes that is only answered once the catalog
    /// knows. Other changes of the row come a little later, all together (`listing`).
    async fn bring_row(&mut self) {
        if !std::mem::take(&mut self.is_row_due) {
            return;
        }
        if let Err(error) = self.services.catalog.put_session(&self.fold.row).await {
            // What was asked for is on disk; refusing it now would make people ask twice. The row is tried again.
            tracing::warn!(session = %self.fold.row.id, error = %Chain(&error), "the catalog does not know yet what became of a session");
        }
    }

    /// The session right after what was done.
    fn answer(&self, done: Result<(), Problem>) -> Result<Session, Problem> {
        done.map(|()| self.fold.row.clone())
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
        self.pending_end.is_some() || (self.fold.running.is_none() && self.fold.next().is_some())
    }

    /// Writes a turn's end that could not be written, then starts what waits. Called after each command and from time to
    /// time, so that a disk that was full holds nothing up for longer than it is.
    async fn catch_up(&mut self) {
        if let Some(completed) = self.pending_end.take()
            && let Err(problem) = self.append_events(self.end_events(completed.clone())).await
        {
            tracing::error!(session = %self.fold.row.id, code = problem.code, "cannot write a turn's end, trying again");
            // Nothing can be stored, but those who watch can be told why nothing happens.
            let row = Session {
                last_error_code: Some(problem.code),
                ..self.fold.row.clone()
            };
            self.hub.publish_session(Arc::new(row));
            self.pending_end = Some(completed);
            return;
        }
        self.start_next().await;
        self.settle_state().await;
    }

    /// A turn's end, and that nothing follows, if nothing does now.
    fn end_events(&self, completed: EventBody) -> Vec<EventBody> {
        let idle = self
            .fold
            .next()
            .is_none()
            .then_some(EventBody::SessionStateChanged {
                state: SessionState::Idle,
            });
        [Some(completed), idle].into_iter().flatten().collect()
    }

    /// A session in which nothing runs or may begin is idle, whatever became of what was next when its turn ended.
    async fn settle_state(&mut self) {
        let seems_at_work = matches!(
            self.fold.row.state,
            SessionState::Running | SessionState::Stopping
        );
        if seems_at_work && self.fold.running.is_none() && self.fold.next().is_none() {
            let idle = EventBody::SessionStateChanged {
                state: SessionState::Idle,
            };
            if let Err(problem) = self.append_events(vec![idle]).await {
                tracing::warn!(session = %self.fold.row.id, code = problem.code, "a session that is idle is shown as at work");
            }
        }
    }

    async fn start_next(&mut self) {
        if self.fold.running.is_some() {
            return;
        }
        let Some(prompt) = self.fold.next().cloned() else {
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

    async fn stop(&mut self, by: PersonId, pauses_queue: bool) -> Result<(), Problem> {
        let Some(running) = &self.fold.running else {
            return Err(Problem::permanent(
                "nothing_to_stop",
                "No turn runs in this session.",
            ));
        };
        let mut events = Vec::new();
        if running.stopped_by.is_none() {
            let turn_id = running.turn_id.clone();
            events.push(EventBody::TurnStopping {
                turn_id,
                by: by.clone(),
            });
            events.push(EventBody::SessionStateChanged {
                state: SessionState::Stopping,
            });
        }
        if pauses_queue && !self.fold.row.is_queue_paused && !self.fold.queue.is_empty() {
            events.push(EventBody::SessionQueueChanged { is_paused: true, by });
        }
        match events.is_empty() {
            true => self.note_unchanged().await?,
            false => drop(self.append_events(events).await?),
        }
        self.stop.cancel();
        Ok(())
    }

    async fn record(
        &mut self,
        turn_id: TurnId,
        record: greenroom_agent::world::Record,
    ) -> Result<(), Problem> {
        self.check_runs(&turn_id)?;
        let batch = self.batch_of(&turn_id, record)?;
        self.append(batch).await.map(|_| ())
    }

    fn check_runs(&self, turn_id: &TurnId) -> Result<(), Problem> {
        match &self.fold.running {
            Some(running) if running.turn_id == *turn_id => Ok(()),
            _ => Err(Problem::permanent("turn_over", "This turn is over.")),
        }
    }

    /// A step of a turn as what is stored of it.
    fn batch_of(&self, turn_id: &TurnId, record: greenroom_agent::world::Record) -> Result<Batch, Problem> {
        let started = record.started.into_iter().map(|item| EventBody::ItemStarted {
            turn_id: turn_id.clone(),
            item,
        });
        let completed = record.completed.into_iter().map(|item| EventBody::ItemCompleted {
            turn_id: turn_id.clone(),
            item,
        });
        Ok(Batch {
            at_ms: self.services.clock.now_ms(),
            events: started.chain(completed).collect(),
            journal: journal_rows(turn_id, record.journal)?,
            ..Batch::default()
        })
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
            prompt_id: running.prompt.id.clone(),
            outcome,
            usage,
            sandbox,
        };
        self.pending_end = Some(completed);
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

    /// What whoever repeats a command is answered: the session after what it appends.
    fn receipt(&self, once: Once, batch: &Batch) -> NewReceipt {
        let mut after = self.fold.clone();
        for (seq, body) in (self.fold.row.last_seq + 1..).zip(batch.events.clone()) {
            let at_ms = batch.at_ms;
            after.apply(&Event { seq, at_ms, body });
        }
        NewReceipt {
            person: once.person,
            key: once.key,
            digest: once.digest,
            body: serde_json::to_value(&after.row).unwrap_or_default(),
        }
    }

    /// Whether the row in the catalog has to tell of an event that comes now.
    fn is_needed_after_a_crash(&self, event: &EventBody) -> bool {
        match event {
            EventBody::TurnStarted { .. } => !matches!(
                self.fold.row.state,
                SessionState::Running | SessionState::Stopping
            ),
            EventBody::SessionAccessChanged { .. }
            | EventBody::SessionMemberChanged { .. }
            | EventBody::SessionHandedOver { .. }
            | EventBody::SessionArchived { .. }
            | EventBody::SessionUnarchived { .. } => true,
            _ => false,
        }
    }

    /// Disk first, then memory, then everyone who watches.
    pub(super) async fn append(&mut self, batch: Batch) -> Result<u64, Problem> {
        let session_id = self.fold.row.id.clone();
        let at_ms = batch.at_ms;
        let expected_seq = self.fold.row.last_seq;
        let mut batch = batch;
        if let Some(once) = self.once.take() {
            batch.receipts.push(self.receipt(once, &batch));
        }
        let events = batch.events.clone();
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
        let has_texts = events.iter().any(listing::is_text);
        self.is_row_due |= events.iter().any(|event| self.is_needed_after_a_crash(event));
        for (position, body) in events.into_iter().enumerate() {
            let event = Event {
                seq: expected_seq + 1 + position as u64,
                at_ms,
                body,
            };
            if let Some(view) = self.cuts.before(&event, &self.fold) {
                let (store, session_id) = (self.services.store.clone(), session_id.clone());
                // Nobody waits for it.
                self.services
                    .tasks
                    .spawn(async move { views::keep(&*store, &session_id, view).await });
            }
            self.fold.apply(&event);
            self.hub.publish_event(event);
        }
        let row = Arc::new(self.fold.row.clone());
        self.hub.publish_session(row.clone());
        self.services.listing.changed(row);
        if has_texts {
            self.services.listing.has_texts(session_id);
        }
        Ok(last_seq)
    }
}

/// What somebody is told whose idempotency key stands for something else.
fn key_reused() -> Problem {
    let message = "This idempotency key was used for another command.";
    Problem::permanent("idempotency_key_reused", message).with_hint("Use a fresh key for each command.")
}

fn journal_rows(
    turn_id: &TurnId,
    entries: impl IntoIterator<Item = JournalEntry>,
) -> Result<Vec<JournalRow>, Problem> {
    let row = |entry: JournalEntry| {
        serde_json::to_value(&entry)
            .map(|entry| JournalRow {
                at_ms: 0,
                turn_id: turn_id.clone(),
                entry,
            })
            .map_err(|_| Problem::permanent("internal", "A journal entry cannot be written as JSON."))
    };
    entries.into_iter().map(row).collect()
}
