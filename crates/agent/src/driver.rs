//! The built-in agent as a driver: asks the model, runs tools, and makes each step durable before the next. What to do is
//! decided by [`crate::turn`]; this does it, and watches for the stop.

use crate::answer::{self, Answer, Finished};
use crate::call_run::{CallOutput, Doing, Ended, item, run_one, text_of};
use crate::context;
use crate::kept_images::{KeptImages, has_images};
use crate::tools;
use crate::turn::{Emptiness, Next, OpenCall, Turn};
use crate::world::{
    Driver, Inserted, JournalEntry, Record, RecordError, TurnEnd, TurnInput, TurnResult, WorkspaceError,
};
use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use greenroom_llm::conversation::{Block, ModelRequest, StreamEvent};
use greenroom_llm::failure::{FailureKind, ModelFailure};
use greenroom_protocol::client::event::{Item, ItemBody, ToolCallStatus};
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::guest::call::Scope;
use greenroom_protocol::id::ItemId;
use greenroom_stdx::backoff::Backoff;
use greenroom_stdx::id::fresh_bits;
use std::sync::Arc;
use std::time::Duration;

/// Tries of one step when the answer breaks off in the middle.
const MAX_TRIES: u32 = 3;
const BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(500),
    max: Duration::from_secs(8),
};
/// Largest answer, in bytes of text and arguments: a model that never stops must not fill memory.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// Greenroom's own agent.
#[derive(Debug, Clone, Copy, Default)]
pub struct BuiltInDriver;

#[async_trait]
impl Driver for BuiltInDriver {
    async fn run_turn(&self, input: TurnInput) -> TurnEnd {
        let (turn, first, cut) = begin(&input);
        let mut run = Run {
            input,
            turn,
            images: KeptImages::default(),
            to_tell: None,
            is_sandbox_there: false,
            has_instructions_settled: false,
        };
        let result = run
            .whole(first, cut)
            .await
            .unwrap_or_else(|RecordError(problem)| TurnResult::Failed(problem));
        TurnEnd {
            result,
            usage: run.turn.usage(),
        }
    }
}

/// The turn as it stands, what must be recorded of it first, and calls that a crash cut.
fn begin(input: &TurnInput) -> (Turn, Record, Vec<OpenCall>) {
    let limits = input.facts.limits;
    let resumed = Turn::resumed(input.history.clone(), &input.resumed, limits, fresh_item_id);
    if let Some((turn, cut)) = resumed {
        return (turn, Record::default(), cut);
    }
    let message = context::prompt_message(&input.prompt);
    let record = Record {
        journal: vec![JournalEntry::Message {
            message: message.clone(),
        }],
        ..Record::default()
    };
    (
        Turn::fresh(input.history.clone(), message, limits),
        record,
        Vec::new(),
    )
}

struct Run {
    input: TurnInput,
    turn: Turn,
    images: KeptImages,
    /// With the next answer.
    to_tell: Option<Problem>,
    /// Whether a call of this turn came back from it.
    is_sandbox_there: bool,
    /// Whether this turn looked for the repository's instructions already.
    has_instructions_settled: bool,
}

/// How asking the model ended.
enum Asked {
    Whole(Finished),
    Stopped(Vec<(ItemId, Block)>),
    Failed(ModelFailure),
}

impl Run {
    /// Settles what a crash cut, then goes on to the end.
    async fn whole(&mut self, first: Record, cut: Vec<OpenCall>) -> Result<TurnResult, RecordError> {
        // Calls whose program the sandbox still has get their real result, the others say that nobody knows.
        self.end_calls(cut, Doing::FindAgain).await?;
        self.finish(first).await
    }

    /// `pending` goes to disk together with the first step.
    async fn finish(&mut self, mut pending: Record) -> Result<TurnResult, RecordError> {
        // A stopped turn that is resumed only to say so may look finished: its last words are kept as an answer.
        if self.input.stop.is_cancelled() {
            return self.stopped(pending, Vec::new()).await;
        }
        loop {
            match self.turn.next() {
                Next::End(result) => {
                    self.flush(pending).await?;
                    return Ok(result);
                }
                _ if self.input.stop.is_cancelled() => return self.stopped(pending, Vec::new()).await,
                Next::Ask => {
                    if self.turn.has_begun() {
                        pending = self.take_inserted(pending).await?;
                    }
                    let step = self.turn.begin_step();
                    pending.journal.push(JournalEntry::ModelRequested { step });
                    self.flush(std::mem::take(&mut pending)).await?;
                    match self.ask_showing().await? {
                        Asked::Whole(finished) => pending = self.answered(finished),
                        Asked::Stopped(said) => return self.stopped(pending, said).await,
                        Asked::Failed(failure) => return Ok(TurnResult::Failed(problem_of(&failure))),
                    }
                }
                Next::Run(calls) => {
                    if let Some(lost) = self.run_calls(std::mem::take(&mut pending), calls).await? {
                        return Ok(TurnResult::Failed(lost));
                    }
                }
                Next::CloseStep => {
                    let is_wanted = self.is_sandbox_there && !self.has_instructions_settled;
                    let instructions = if is_wanted && !self.turn.has_text(context::INSTRUCTIONS_MARKER) {
                        self.has_instructions_settled = true;
                        tokio::select! {
                            () = self.input.stop.cancelled() => None,
                            instructions = self.instructions() => instructions,
                        }
                    } else {
                        None
                    };
                    pending.journal.push(self.turn.results_message(instructions));
                }
            }
        }
    }

    /// Hears what people say to the turn while it runs. If they said something, `pending` is written with it; returns what is still to
    /// be written.
    async fn take_inserted(&mut self, pending: Record) -> Result<Record, RecordError> {
        let recorder = &self.input.recorder;
        let inserted = recorder.take_inserted(pending, context::prompt_message);
        match inserted.await? {
            Inserted::Nothing(pending) => Ok(pending),
            Inserted::Prompts(prompts) => {
                self.turn.inserted(prompts.iter().map(context::prompt_message));
                Ok(Record::default())
            }
        }
    }

    async fn flush(&self, record: Record) -> Result<(), RecordError> {
        if record == Record::default() {
            return Ok(());
        }
        self.input.recorder.record(record).await
    }

    /// Asks. If the provider refuses a request with images, asks once more without any: one that it does not take would be refused with
    /// every later request of the session.
    async fn ask_showing(&mut self) -> Result<Asked, RecordError> {
        let Some(request) = self.request().await? else {
            return Ok(Asked::Stopped(Vec::new()));
        };
        let has_images = has_images(&request.messages);
        let failure = match self.ask(request).await {
            Asked::Failed(failure) if has_images && failure.kind == FailureKind::InvalidRequest => failure,
            asked => return Ok(asked),
        };
        self.images.leave_out();
        let Some(request) = self.request().await? else {
            return Ok(Asked::Stopped(Vec::new()));
        };
        let asked = self.ask(request).await;
        if let Asked::Failed(_) = asked {
            // It was not for the images.
            return Ok(Asked::Failed(failure));
        }
        let message = format!("The model was not shown the images: {}", failure.message);
        let problem = Problem::permanent("model_images_refused", message);
        self.to_tell = Some(problem.with_hint("Send them in another form, or choose another model."));
        Ok(asked)
    }

    /// Asks until the answer is whole, it is clear that it will not be, or the turn is stopped.
    async fn ask(&self, request: ModelRequest) -> Asked {
        let mut attempt = 1;
        loop {
            let failure = match self.ask_once(request.clone()).await {
                Ok(asked) => return asked,
                Err(failure) => failure,
            };
            if attempt >= MAX_TRIES || !failure.kind.is_retryable() {
                return Asked::Failed(failure);
            }
            let delay = BACKOFF.delay(attempt, Backoff::random());
            let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
            self.input.recorder.retrying(attempt, delay_ms, &failure);
            tokio::select! {
                () = self.input.stop.cancelled() => return Asked::Stopped(Vec::new()),
                () = tokio::time::sleep(delay) => {}
            }
            attempt += 1;
        }
    }

    /// One request. `Err` is an answer that broke off and may be asked for again.
    async fn ask_once(&self, request: ModelRequest) -> Result<Asked, ModelFailure> {
        let recorder = self.input.recorder.clone();
        let on_retry = Arc::new(move |attempt, delay_ms, failure: &ModelFailure| {
            recorder.retrying(attempt, delay_ms, failure);
        });
        let asking = self.input.model.stream(request, on_retry);
        let stream = tokio::select! {
            () = self.input.stop.cancelled() => return Ok(Asked::Stopped(Vec::new())),
            stream = asking => stream,
        };
        // What failed before the first byte was tried again already.
        let mut stream = match stream {
            Ok(stream) => stream,
            Err(failure) => return Ok(Asked::Failed(failure)),
        };
        let mut answer = Answer::default();
        let mut answer_bytes = 0;
        loop {
            let event = tokio::select! {
                () = self.input.stop.cancelled() => return Ok(Asked::Stopped(answer.texts_so_far())),
                event = stream.recv() => event,
            };
            match event {
                Some(Ok(event)) => {
                    answer_bytes += text_bytes(&event);
                    if answer_bytes > MAX_ANSWER_BYTES {
                        let message = format!("The model's answer is larger than {MAX_ANSWER_BYTES} bytes.");
                        return Ok(Asked::Failed(ModelFailure::new(FailureKind::Malformed, message)));
                    }
                    if let Some(shown) = answer.push(event, fresh_item_id) {
                        self.input
                            .recorder
                            .delta(&shown.item_id, shown.channel, &shown.text);
                    }
                }
                Some(Err(failure)) => return Err(failure),
                None => break,
            }
        }
        answer.finished().map(Asked::Whole).ok_or_else(|| ModelFailure {
            kind: FailureKind::Truncated,
            message: "The model's answer ended in the middle.".to_owned(),
            retry_after: None,
        })
    }

    /// `None`: the turn is stopped meanwhile.
    async fn request(&mut self) -> Result<Option<ModelRequest>, RecordError> {
        let mut messages = self.turn.conversation();
        let recorder = &*self.input.recorder;
        tokio::select! {
            () = self.input.stop.cancelled() => return Ok(None),
            put = self.images.put_into(&mut messages, recorder) => put?,
        }
        let facts = &self.input.facts;
        Ok(Some(ModelRequest {
            model: facts.model.clone(),
            system: context::system_blocks(&context::fragments(facts)),
            messages,
            tools: tools::specs().to_vec(),
            max_output_tokens: facts.limits.max_output_tokens,
            reasoning: None,
            cache_key: Some(facts.cache_key.clone()),
        }))
    }

    fn answered(&mut self, finished: Finished) -> Record {
        let mut completed: Vec<_> = self.to_tell.take().map(notice).into_iter().collect();
        completed.extend(answer::items(&finished.blocks));
        let (journal, emptiness) = self.turn.answered(finished);
        if emptiness == Emptiness::Empty {
            completed.push(notice(Problem::permanent(
                "model_said_nothing",
                "The model gave an empty answer.",
            )));
        }
        Record {
            journal,
            completed,
            ..Record::default()
        }
    }

    /// Runs calls beside each other. Returns what ends the turn, if something does.
    async fn run_calls(
        &mut self,
        pending: Record,
        calls: Vec<OpenCall>,
    ) -> Result<Option<Problem>, RecordError> {
        // What is done before what begins, so that events stand in the order in which things happened.
        self.flush(pending).await?;
        let mut begin = Record::default();
        for call in &calls {
            begin.journal.extend(self.turn.call_started(&call.call.id));
            begin.started.push(item(call, ToolCallStatus::Running, "", None));
        }
        self.flush(begin).await?;

        let lost = self.end_calls(calls, Doing::Run).await?;
        if lost.is_some() {
            let mut journal = self.turn.give_up_waiting("not run: the sandbox is gone");
            journal.extend(self.turn.close_open_step());
            self.flush(Record {
                journal,
                ..Record::default()
            })
            .await?;
        }
        Ok(lost)
    }

    /// Brings calls to their end beside each other and records each result as it comes. Returns why the sandbox is gone, if
    /// it is.
    async fn end_calls(
        &mut self,
        calls: Vec<OpenCall>,
        doing: Doing,
    ) -> Result<Option<Problem>, RecordError> {
        let mut running = FuturesUnordered::new();
        for call in calls {
            running.push(run_one(call, doing, &self.input));
        }
        let mut lost = None;
        while let Some(ended) = running.next().await {
            let Ended {
                call,
                output,
                status,
                duration,
            } = ended;
            match &output {
                CallOutput::Lost(problem) => lost = Some(problem.clone()),
                CallOutput::Tool(_) | CallOutput::Text(_) => {
                    self.is_sandbox_there |= call.refusal.is_none()
                        && status != ToolCallStatus::Interrupted
                        && tools::plan(&call.call).needs_workspace;
                }
            }
            let (content, items, is_error) = output.into_parts();
            let shown = text_of(&content);
            let mut record = Record::default();
            record
                .journal
                .extend(self.turn.call_ended(&call.call.id, content, is_error));
            record.completed.push(item(&call, status, &shown, Some(duration)));
            for body in items {
                let body = match body {
                    ItemBody::FileChange {
                        path,
                        patch,
                        additions,
                        deletions,
                        ..
                    } => {
                        let tool_item = Some(call.item_id.clone());
                        ItemBody::FileChange {
                            path,
                            patch,
                            additions,
                            deletions,
                            tool_item,
                        }
                    }
                    other => other,
                };
                record.completed.push(Item {
                    id: fresh_item_id(),
                    body,
                });
            }
            self.input.recorder.record(record).await?;
        }
        Ok(lost)
    }

    /// Ends a stopped turn: what was said stays, what did not run says so.
    async fn stopped(
        &mut self,
        mut record: Record,
        said: Vec<(ItemId, Block)>,
    ) -> Result<TurnResult, RecordError> {
        record.completed.extend(answer::items(&said));
        let blocks = said.into_iter().map(|(_, block)| block).collect();
        record.journal.extend(self.turn.stopped_saying(blocks));
        record
            .journal
            .extend(self.turn.give_up_waiting("not run: the person stopped this turn"));
        record.journal.extend(self.turn.close_open_step());
        self.flush(record).await?;
        Ok(TurnResult::Stopped)
    }

    /// The repository's instructions, once per session and only when the sandbox is there anyway: the first request to the
    /// model waits for nothing.
    async fn instructions(&self) -> Option<Block> {
        let mut files = Vec::new();
        for name in context::INSTRUCTION_FILES {
            let read =
                self.input
                    .workspace
                    .read_file(name, Scope::Workspace, 0, context::MAX_INSTRUCTION_BYTES);
            match read.await {
                Ok(file) => {
                    let completeness = if file.size_bytes > file.bytes.len() as u64 {
                        context::Completeness::Cut
                    } else {
                        context::Completeness::Whole
                    };
                    files.push((
                        name,
                        String::from_utf8_lossy(&file.bytes).into_owned(),
                        completeness,
                    ));
                }
                // A missing file is the usual case, and a lost sandbox is met by the next call.
                Err(WorkspaceError::Call(_) | WorkspaceError::Lost(_)) => {}
            }
        }
        context::instructions_block(&files)
    }
}

fn text_bytes(event: &StreamEvent) -> usize {
    match event {
        StreamEvent::TextDelta { text, .. } | StreamEvent::ReasoningDelta { text, .. } => text.len(),
        StreamEvent::ArgumentsDelta { json, .. } => json.len(),
        StreamEvent::BlockStarted { .. }
        | StreamEvent::BlockCompleted { .. }
        | StreamEvent::Finished { .. } => 0,
    }
}

fn notice(problem: Problem) -> Item {
    Item {
        id: fresh_item_id(),
        body: ItemBody::Notice { problem },
    }
}

fn problem_of(failure: &ModelFailure) -> Problem {
    Problem {
        hint: Some(failure.kind.hint().to_owned()),
        retryable: failure.kind.is_retryable(),
        retry_after_ms: failure
            .retry_after
            .map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
        ..Problem::permanent(failure.kind.code(), &failure.message)
    }
}

fn fresh_item_id() -> ItemId {
    ItemId::from_bits(fresh_bits())
}
