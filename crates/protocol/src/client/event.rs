//! Events: appended, numbered facts of a session, in the order every client replays. Unknown kinds must be kept, not refused.

use super::model::Usage;
use super::person::Person;
use super::problem::Problem;
use super::prompt::Prompt;
use super::pull_request::PullRequestState;
use super::session::SessionState;
use crate::id::{ItemId, PersonId, PromptId, SandboxId, SessionId, TurnId};
use serde::{Deserialize, Serialize};

/// One fact. `seq` counts from 1 with no gaps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Event {
    pub seq: u64,
    pub at_ms: i64,
    #[serde(flatten)]
    pub body: EventBody,
}

/// What happened. The JSON form has the kind in `type`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "type")]
pub enum EventBody {
    /// Always the first.
    #[serde(rename = "session.created")]
    SessionCreated {
        session_id: SessionId,
        title: String,
        repository: String,
        base_branch: String,
        branch: String,
        model: String,
        is_scripted: bool,
        created_by: Person,
    },
    #[serde(rename = "session.titled")]
    SessionTitled { title: String },
    #[serde(rename = "session.state_changed")]
    SessionStateChanged { state: SessionState },
    #[serde(rename = "prompt.queued")]
    PromptQueued { prompt: Prompt },
    /// Removed from the queue before it ran.
    #[serde(rename = "prompt.cancelled")]
    PromptCancelled { prompt_id: PromptId, by: PersonId },
    #[serde(rename = "turn.started")]
    TurnStarted {
        turn_id: TurnId,
        prompt_id: PromptId,
        model: String,
        is_scripted: bool,
    },
    /// An item began; its text or output follows as deltas until `item.completed`.
    #[serde(rename = "item.started")]
    ItemStarted { turn_id: TurnId, item: Item },
    #[serde(rename = "item.completed")]
    ItemCompleted { turn_id: TurnId, item: Item },
    /// The model failed and is asked again; nothing of this step was shown as done.
    #[serde(rename = "turn.retrying")]
    TurnRetrying {
        turn_id: TurnId,
        attempt: u32,
        delay_ms: u64,
        problem: Problem,
    },
    /// The server restarted in mid-turn and goes on with it.
    #[serde(rename = "turn.resumed")]
    TurnResumed { turn_id: TurnId },
    /// Someone asked the running turn to stop.
    #[serde(rename = "turn.stopping")]
    TurnStopping { turn_id: TurnId, by: PersonId },
    /// The turn ended and so did its prompt.
    #[serde(rename = "turn.completed")]
    TurnCompleted {
        turn_id: TurnId,
        prompt_id: PromptId,
        outcome: TurnOutcome,
        usage: Usage,
    },
    #[serde(rename = "sandbox.state_changed")]
    SandboxStateChanged {
        sandbox_id: SandboxId,
        state: SandboxState,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        problem: Option<Problem>,
    },
    /// Commits reached the session's branch on the forge.
    #[serde(rename = "change.pushed")]
    ChangePushed {
        branch: String,
        commit: String,
        additions: u64,
        deletions: u64,
        /// Paths that differ from the base branch, sorted.
        files: Vec<String>,
    },
    #[serde(rename = "pull_request.opened")]
    PullRequestOpened {
        repository: String,
        number: u64,
        title: String,
        path: String,
    },
    #[serde(rename = "pull_request.state_changed")]
    PullRequestStateChanged {
        repository: String,
        number: u64,
        state: PullRequestState,
    },
    /// An effect outside was given up; a person must look.
    #[serde(rename = "effect.failed")]
    EffectFailed { effect: String, problem: Problem },
    #[serde(untagged)]
    #[cfg_attr(feature = "schema", schemars(skip))]
    Unknown(serde_json::Value),
}

/// How a turn ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum TurnOutcome {
    /// The model said it is done.
    Completed,
    /// It could not go on; the workspace keeps what was done.
    Failed { problem: Problem },
    /// A person stopped it.
    Stopped { by: PersonId },
}

/// Where a sandbox stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum SandboxState {
    Starting,
    Syncing,
    Ready,
    Busy,
    Snapshotting,
    Stopped,
    Lost,
}

/// One visible piece of a turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Item {
    pub id: ItemId,
    #[serde(flatten)]
    pub body: ItemBody,
}

/// What an item shows. The JSON form has the kind in `kind`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "kind")]
pub enum ItemBody {
    /// The agent speaks; markdown.
    #[serde(rename = "message")]
    Message { text: String },
    /// What the provider shows of the model's reasoning; markdown, may be empty.
    #[serde(rename = "reasoning")]
    Reasoning { text: String },
    #[serde(rename = "tool_call")]
    ToolCall(ToolCallItem),
    /// A file changed by a tool.
    #[serde(rename = "file_change")]
    FileChange {
        path: String,
        /// Unified diff with header, cut at 64 KiB.
        patch: String,
        additions: u64,
        deletions: u64,
        /// The tool call that did it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tool_item: Option<ItemId>,
    },
    /// Something the platform did or noticed in the turn, such as a commit or a limit.
    #[serde(rename = "notice")]
    Notice { problem: Problem },
    #[serde(untagged)]
    #[cfg_attr(feature = "schema", schemars(skip))]
    Unknown(serde_json::Value),
}

/// A tool call with what is known of its result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ToolCallItem {
    /// Name the model used, such as `bash`; may be a tool that does not exist.
    pub tool: String,
    /// One line for a person, such as the command or the path; may be empty.
    pub summary: String,
    /// Arguments as the model gave them: an object, or a string if they were not JSON.
    pub input: serde_json::Value,
    pub status: ToolCallStatus,
    /// What the tool answered to the model, cut at 64 KiB; empty while it runs.
    pub output: String,
    /// Only of ended calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
}

/// Where a tool call stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ToolCallStatus {
    Running,
    Succeeded,
    /// The tool answered with an error the model can act on.
    Failed,
    /// Stopped, or the server went away while it ran.
    Interrupted,
}

/// Answer to `GET /v1/sessions/{id}/events`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EventPage {
    /// In order, without gaps, starting behind `after`.
    pub events: Vec<Event>,
    /// Number of the session's last event.
    pub last_seq: u64,
}
