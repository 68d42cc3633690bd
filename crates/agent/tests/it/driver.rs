//! Turns of the built-in agent in a world in memory: what is recorded, what runs, and what the model is asked. The shared
//! world is here; the tests are in the files below.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a test fails"
)]

mod durability;
mod hostile;
mod insert;
mod order;
mod resume;
mod stop;
mod watched;

use greenroom_agent::driver::BuiltInDriver;
use greenroom_agent::fake::{Answer, FakePlatform, ListedModel, RecordingRecorder};
use greenroom_agent::world::{
    Driver as _, JournalEntry, ModelClient, SessionFacts, TurnEnd, TurnInput, TurnLimits, TurnResult,
};
use greenroom_llm::conversation::{
    Block, BlockKind, Message, ModelRequest, Role, StopReason, StreamEvent, TokenUsage, ToolCall,
};
use greenroom_protocol::client::event::{ItemBody, ToolCallItem};
use greenroom_protocol::client::person::Person;
use greenroom_protocol::client::prompt::{Delivery, Prompt};
use greenroom_protocol::id::{ItemId, PersonId, PromptId, TurnId};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use watched::WatchedWorkspace;

/// Longer than anything here takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// Everything around one turn.
struct World {
    workspace: Arc<WatchedWorkspace>,
    platform: Arc<FakePlatform>,
    recorder: Arc<RecordingRecorder>,
    stop: CancellationToken,
    limits: TurnLimits,
}

impl World {
    fn new(workspace: WatchedWorkspace) -> Self {
        Self {
            workspace: Arc::new(workspace),
            platform: Arc::default(),
            recorder: Arc::default(),
            stop: CancellationToken::new(),
            limits: TurnLimits::default(),
        }
    }

    fn input(
        &self,
        model: Arc<dyn ModelClient>,
        history: Vec<Message>,
        resumed: Vec<JournalEntry>,
    ) -> TurnInput {
        TurnInput {
            turn_id: TurnId::from_bits(1),
            prompt: Prompt {
                id: PromptId::from_bits(1),
                author: Person {
                    id: PersonId::from_bits(1),
                    name: "Ada".into(),
                    email: "ada@example.com".into(),
                },
                text: "Do it.".into(),
                images: Vec::new(),
                model: None,
                delivery: Delivery::Queue,
                queued_at_ms: 0,
            },
            history,
            resumed,
            facts: SessionFacts {
                model: "m".into(),
                repository: "sample".into(),
                base_branch: "main".into(),
                branch: "greenroom/x".into(),
                repositories: Vec::new(),
                today: "2026-01-01".into(),
                cache_key: "ses".into(),
                network: Vec::new(),
                services: Vec::new(),
                limits: self.limits,
            },
            model,
            workspace: self.workspace.clone(),
            platform: self.platform.clone(),
            recorder: self.recorder.clone(),
            stop: self.stop.clone(),
        }
    }

    /// Runs a turn from its prompt to its end.
    async fn run(&self, model: &Arc<ListedModel>) -> TurnEnd {
        self.resume(model, Vec::new()).await
    }

    async fn resume(&self, model: &Arc<ListedModel>, journal: Vec<JournalEntry>) -> TurnEnd {
        let input = self.input(model.clone(), Vec::new(), journal);
        within_deadline(BuiltInDriver.run_turn(input)).await
    }

    /// Starts a turn that the test looks at while it runs.
    fn start(&self, model: Arc<dyn ModelClient>) -> JoinHandle<TurnEnd> {
        let input = self.input(model, Vec::new(), Vec::new());
        tokio::spawn(BuiltInDriver.run_turn(input))
    }

    /// Tool calls as people see them in the end.
    fn shown_calls(&self) -> Vec<ToolCallItem> {
        let items = self.recorder.completed().into_iter();
        items
            .filter_map(|item| match item.body {
                ItemBody::ToolCall(call) => Some(call),
                _ => None,
            })
            .collect()
    }

    fn shown_messages(&self) -> Vec<String> {
        let items = self.recorder.completed().into_iter();
        items
            .filter_map(|item| match item.body {
                ItemBody::Message { text } => Some(text),
                _ => None,
            })
            .collect()
    }

    fn shown_notices(&self) -> Vec<String> {
        let items = self.recorder.completed().into_iter();
        items
            .filter_map(|item| match item.body {
                ItemBody::Notice { problem } => Some(problem.code),
                _ => None,
            })
            .collect()
    }
}

async fn within_deadline<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work)
        .await
        .expect("the turn goes on")
}

/// Lets everything else run until the state is there.
async fn until(what: &str, is_there: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_there() {
        assert!(began.elapsed() < DEADLINE, "never came: {what}");
        tokio::task::yield_now().await;
    }
}

fn model(answers: impl IntoIterator<Item = Answer>) -> Arc<ListedModel> {
    Arc::new(ListedModel::new(answers))
}

/// The code of the problem a turn failed with.
#[track_caller]
fn failure(end: &TurnEnd) -> &str {
    match &end.result {
        TurnResult::Failed(problem) => &problem.code,
        other => panic!("{other:?}"),
    }
}

/// Messages of a journal: what the next turn gets as its history.
fn conversation(journal: &[JournalEntry]) -> Vec<Message> {
    let messages = journal.iter().filter_map(|entry| match entry {
        JournalEntry::Message { message } => Some(message.clone()),
        _ => None,
    });
    messages.collect()
}

/// What the model is asked in the turn behind this journal; checked to be valid.
async fn next_request(journal: &[JournalEntry]) -> ModelRequest {
    let world = World::new(WatchedWorkspace::default());
    let model = model([Answer::text("Next.")]);
    let input = world.input(model.clone(), conversation(journal), Vec::new());
    let end = within_deadline(BuiltInDriver.run_turn(input)).await;
    assert_eq!(end.result, TurnResult::Completed);
    let request = model.requests().remove(0);
    assert_valid(&request.messages);
    request
}

/// What every provider insists on.
#[track_caller]
fn assert_valid(messages: &[Message]) {
    let mut known = HashSet::new();
    let mut open: Vec<&str> = Vec::new();
    let mut before: Option<&Message> = None;
    assert_eq!(messages.last().map(|message| message.role), Some(Role::User));
    for message in messages {
        assert!(!message.blocks.is_empty(), "an empty message in {messages:#?}");
        let results = result_ids(message);
        match message.role {
            Role::Assistant => {
                assert!(
                    before.is_some_and(|before| before.role == Role::User),
                    "{messages:#?}"
                );
                assert_eq!(open, Vec::<&str>::new(), "calls without results in {messages:#?}");
                assert_eq!(results, Vec::<&str>::new());
                open = calls_of(message).iter().map(|call| call.id.as_str()).collect();
                for id in &open {
                    assert!(known.insert(*id), "call id {id} is used twice");
                    assert!(!id.is_empty());
                }
            }
            Role::User => {
                if let Some(before) = before.filter(|before| before.role == Role::User) {
                    let is_prompt_behind_results =
                        !result_ids(before).is_empty() && results.is_empty() && open.is_empty();
                    assert!(
                        is_prompt_behind_results,
                        "two user messages side by side in {messages:#?}"
                    );
                }
                assert_eq!(results, open, "results stand right behind their calls, each once");
                let first = &message.blocks[..results.len()];
                assert!(
                    first
                        .iter()
                        .all(|block| matches!(block, Block::ToolResult { .. })),
                    "results come first"
                );
                open.clear();
            }
        }
        before = Some(message);
    }
}

fn result_ids(message: &Message) -> Vec<&str> {
    let blocks = message.blocks.iter();
    blocks
        .filter_map(|block| match block {
            Block::ToolResult { call_id, .. } => Some(call_id.as_str()),
            _ => None,
        })
        .collect()
}

fn calls_of(message: &Message) -> Vec<&ToolCall> {
    let blocks = message.blocks.iter();
    blocks
        .filter_map(|block| match block {
            Block::ToolCall(call) => Some(call),
            _ => None,
        })
        .collect()
}

/// Text of one call's result, and whether it is an error.
#[track_caller]
fn result_of(messages: &[Message], id: &str) -> (String, bool) {
    let mut blocks = messages.iter().flat_map(|message| &message.blocks);
    let found = blocks.find_map(|block| match block {
        Block::ToolResult {
            call_id,
            content,
            is_error,
        } if call_id == id => Some((texts(content).join("\n"), *is_error)),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("no result of {id} in {messages:#?}"))
}

/// Every text, also inside results.
fn texts(blocks: &[Block]) -> Vec<&str> {
    let mut found = Vec::new();
    for block in blocks {
        match block {
            Block::Text { text } => found.push(text.as_str()),
            Block::ToolResult { content, .. } => found.extend(texts(content)),
            _ => {}
        }
    }
    found
}

/// A text block that is whole.
fn text_block(index: usize, text: &str) -> Vec<StreamEvent> {
    let block = Block::Text { text: text.into() };
    let mut events = half_text(index, text);
    events.push(StreamEvent::BlockCompleted { index, block });
    events
}

/// A text block that breaks off.
fn half_text(index: usize, text: &str) -> Vec<StreamEvent> {
    vec![
        StreamEvent::BlockStarted {
            index,
            kind: BlockKind::Text,
        },
        StreamEvent::TextDelta {
            index,
            text: text.into(),
        },
    ]
}

fn finished(stop_reason: StopReason) -> StreamEvent {
    StreamEvent::Finished {
        stop_reason,
        usage: TokenUsage {
            input_tokens: 10,
            output_tokens: 5,
            ..TokenUsage::default()
        },
    }
}

/// A text that ends for this reason.
fn text_ending(text: &str, stop_reason: StopReason) -> Answer {
    let mut events = text_block(0, text);
    events.push(finished(stop_reason));
    Answer::of(events)
}

/// Ids of the items that were shown as begun.
fn started_ids(recorder: &RecordingRecorder) -> Vec<ItemId> {
    let records = recorder.records().into_iter();
    records
        .flat_map(|record| record.started)
        .map(|item| item.id)
        .collect()
}
