//! What the agent needs from whoever runs it, as traits: a model, a workspace, a platform, and a recorder that makes each
//! step durable. Implementations live with their owners (`llm`, `server`); this file promises nothing about how.

use async_trait::async_trait;
use greenroom_llm::conversation::{Message, ModelRequest, StreamEvent, TokenUsage};
use greenroom_llm::failure::ModelFailure;
use greenroom_protocol::client::event::Item;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::prompt::Prompt;
use greenroom_protocol::client::session::WorkspaceRepository;
use greenroom_protocol::client::stream::DeltaChannel;
use greenroom_protocol::guest::call::{Call, CallError, Exec, Exit, FileBytes, OutputChunk, Reply, Scope};
use greenroom_protocol::id::{ItemId, TurnId};
use greenroom_protocol::reference::Digest;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Something that answers a [`ModelRequest`] with a stream.
#[async_trait]
pub trait ModelClient: Send + Sync {
    /// Sends the request. Retries (with `on_retry` told before each wait) only until the first byte of an answer.
    /// The receiver yields events in order and ends with `Finished` or an error. Dropping it cancels the request.
    async fn stream(
        &self,
        request: ModelRequest,
        on_retry: RetryObserver,
    ) -> Result<ModelStream, ModelFailure>;
}

/// Told before each retry: the attempt that failed (from 1), the wait in milliseconds, and why.
pub type RetryObserver = Arc<dyn Fn(u32, u64, &ModelFailure) + Send + Sync>;

/// A model's answer as it arrives.
pub type ModelStream = mpsc::Receiver<Result<StreamEvent, ModelFailure>>;

/// The session's sandbox as tools see it. The first call may wait until a sandbox is there.
#[async_trait]
pub trait Workspace: Send + Sync {
    /// Any call without data streams (everything but `Exec`, `ReadFile`, `WriteFile`).
    async fn call(&self, call: Call) -> Result<Reply, WorkspaceError>;

    /// At most `max_bytes` of a file from `offset`, and its whole size in bytes.
    async fn read_file(
        &self,
        path: &str,
        scope: Scope,
        offset: u64,
        max_bytes: u64,
    ) -> Result<FileBytes, WorkspaceError>;

    /// Replaces a file at once and completely.
    async fn write_file(&self, path: &str, scope: Scope, bytes: Vec<u8>) -> Result<(), WorkspaceError>;

    /// Runs a program, passing output on as it comes. On cancellation the process group is killed and the exit is
    /// still returned. A full `output` channel slows the program down. One with a key goes on when this future is dropped
    /// or the server dies, and is found again by `Call::ListProcesses`.
    async fn exec(
        &self,
        exec: Exec,
        output: mpsc::Sender<OutputChunk>,
        cancel: CancellationToken,
    ) -> Result<Exit, WorkspaceError>;

    /// Follows a process that goes on without us, from the first output that is kept; otherwise like
    /// [`Workspace::exec`]. Also one that has ended and is remembered.
    async fn attach(
        &self,
        process_id: u32,
        output: mpsc::Sender<OutputChunk>,
        cancel: CancellationToken,
    ) -> Result<Exit, WorkspaceError>;

    /// Starts a background process.
    async fn spawn(&self, exec: Exec) -> Result<u32, WorkspaceError>;

    /// Returns when the workspace may be changed: it has the commit that the turn works on. Reading need not wait for it.
    async fn settled(&self) -> Result<(), WorkspaceError> {
        Ok(())
    }

    /// What the model must know about what it read so far, such as that it is out of date; each is told once.
    fn take_notes(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Why the workspace could not do it.
#[derive(Debug, Clone, Error)]
pub enum WorkspaceError {
    /// The guest refused or failed; the model can act on it.
    #[error("{}", .0.message)]
    Call(CallError),
    /// No sandbox, or it went away in the middle; the turn cannot rely on it.
    #[error("{}", .0.message)]
    Lost(Problem),
}

/// What the platform does for the agent beyond the sandbox.
#[async_trait]
pub trait Platform: Send + Sync {
    /// Commits what changed, pushes it to the session's branch, and opens (or updates) the session's pull request in the
    /// name of the prompt's author.
    async fn open_pull_request(&self, request: PullRequestRequest) -> Result<PullRequestOpened, Problem>;

    /// Keeps a file for the people of the session and answers with its name; the same again changes nothing.
    async fn keep_file(&self, media_type: &str, bytes: Vec<u8>) -> Result<Digest, Problem>;
}

/// What the model asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullRequestRequest {
    /// One of the workspace's other repositories; `None`: the session's own.
    pub repository: Option<String>,
    pub title: String,
    pub body: String,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullRequestOpened {
    pub number: u64,
    /// Path of its page on the server.
    pub path: String,
    /// False if it existed and was updated.
    pub is_new: bool,
}

/// Makes the turn durable and visible.
#[async_trait]
pub trait Recorder: Send + Sync {
    /// Returns when entry and items are on disk, in this order, in one transaction. An error ends the turn.
    async fn record(&self, record: Record) -> Result<(), RecordError>;

    /// What people want this turn to hear now. If there is anything, `record` and its messages are on disk when this returns, in one
    /// transaction; if not, nothing is written and `record` comes back. An error ends the turn.
    async fn take_inserted(&self, record: Record, message_of: MessageOf) -> Result<Inserted, RecordError>;

    /// A file that is kept of a prompt or of a call's result, by the name that [`greenroom_llm::conversation::Block::KeptImage`] has;
    /// `None`: it is lost. An error ends the turn.
    async fn kept_file(&self, digest: &str) -> Result<Option<Vec<u8>>, RecordError>;

    /// Shows unfinished text. Not stored, never waits, may be dropped.
    fn delta(&self, item_id: &ItemId, channel: DeltaChannel, text: &str);

    /// Tells people that the model is asked again.
    fn retrying(&self, attempt: u32, delay_ms: u64, failure: &ModelFailure);
}

/// How a prompt is told to the model.
pub type MessageOf = fn(&Prompt) -> Message;

/// What people said to a turn that runs.
#[derive(Debug, Clone, PartialEq)]
pub enum Inserted {
    /// Nothing; this is still to be written.
    Nothing(Record),
    /// It is on disk, in this order.
    Prompts(Vec<Prompt>),
}

/// One durable step.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Record {
    /// For the journal; what a resumed turn starts from.
    pub journal: Vec<JournalEntry>,
    /// Items that began: `item.started` events.
    pub started: Vec<Item>,
    /// Items that are whole: `item.completed` events.
    pub completed: Vec<Item>,
}

/// The journal of a turn, enough to go on after a crash. Entries of all turns of a session in order are its conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
pub enum JournalEntry {
    /// A message of the conversation, whole: the prompt, the model's answer, or the results of its calls.
    Message { message: Message },
    /// The model is being asked; no answer behind it means it must be asked again.
    ModelRequested { step: u32 },
    /// What an answered request used.
    ModelUsed { step: u32, usage: TokenUsage },
    /// A tool call is about to run.
    ToolCallStarted { call_id: String, item_id: ItemId },
    /// One call's result; its message follows when all calls of the step have one.
    ToolCallEnded {
        call_id: String,
        result: greenroom_llm::conversation::Block,
    },
}

/// The journal could not be written.
#[derive(Debug, Clone, Error)]
#[error("{}", .0.message)]
pub struct RecordError(pub Problem);

/// Everything a driver needs for one turn.
pub struct TurnInput {
    pub turn_id: TurnId,
    pub prompt: Prompt,
    /// Conversation before this turn.
    pub history: Vec<Message>,
    /// What this turn already did before a crash; empty for a fresh one.
    pub resumed: Vec<JournalEntry>,
    pub facts: SessionFacts,
    pub model: Arc<dyn ModelClient>,
    pub workspace: Arc<dyn Workspace>,
    pub platform: Arc<dyn Platform>,
    pub recorder: Arc<dyn Recorder>,
    /// Cancelled when a person stops the turn.
    pub stop: CancellationToken,
}

/// What the system prompt tells the model about where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionFacts {
    /// Provider's model name.
    pub model: String,
    pub repository: String,
    pub base_branch: String,
    pub branch: String,
    /// Other repositories in the workspace; may be empty.
    pub repositories: Vec<WorkspaceRepository>,
    /// `YYYY-MM-DD`.
    pub today: String,
    pub cache_key: String,
    /// Where the sandbox may connect to, each a host or a set of hosts in words; empty: nowhere.
    pub network: Vec<String>,
    /// What runs in the sandbox beside the agent; may be empty.
    pub services: Vec<ServiceFact>,
    pub limits: TurnLimits,
}

/// A service in the sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceFact {
    pub name: String,
    /// Loopback port it listens on, if that is known.
    pub port: Option<u16>,
}

/// What ends a turn that does not end by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TurnLimits {
    /// Model requests in one turn.
    pub max_steps: u32,
    /// Tool calls in one answer.
    pub max_calls_per_step: u32,
    pub max_output_tokens: u32,
}

impl Default for TurnLimits {
    fn default() -> Self {
        Self {
            max_steps: 200,
            max_calls_per_step: 64,
            max_output_tokens: 16_384,
        }
    }
}

/// How a turn ended. `Stopped` has no person here: the caller knows who asked.
#[derive(Debug, Clone, PartialEq)]
pub struct TurnEnd {
    pub result: TurnResult,
    pub usage: TokenUsage,
}

/// The caller makes `turn.completed` of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TurnResult {
    Completed,
    Failed(Problem),
    Stopped,
}

/// What runs a turn: the built-in agent, later an external one.
#[async_trait]
pub trait Driver: Send + Sync {
    /// Runs to the end; never panics on model or tool input. Cancelling `stop` ends it within 2 s of the last tool's end.
    async fn run_turn(&self, input: TurnInput) -> TurnEnd;
}
