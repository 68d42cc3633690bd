//! Events: appended, numbered facts of a session, in the order every client replays. Unknown kinds must be kept, not refused.

use super::member::{Role, SessionAccess};
use super::model::Usage;
use super::person::Person;
use super::problem::Problem;
use super::prompt::{Delivery, Prompt};
use super::pull_request::PullRequestState;
use super::session::{SessionState, WorkspaceRepository};
use crate::guest::call::Change;
use crate::guest::service::ServiceState;
use crate::id::{ItemId, PersonId, PromptId, SandboxId, SessionId, SnapshotId, TurnId};
use crate::reference::Digest;
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
        /// What people of this server may do in it who are no members.
        #[serde(default)]
        access: SessionAccess,
    },
    /// The session began as a copy of another: what stands before this was said there. Their branches and sandboxes are two.
    #[serde(rename = "session.forked")]
    SessionForked {
        from: SessionId,
        /// Absent: the other had no sandbox yet.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        snapshot_id: Option<SnapshotId>,
        by: Person,
    },
    #[serde(rename = "session.titled")]
    SessionTitled {
        title: String,
        /// Absent: the platform, after the first prompt.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<PersonId>,
    },
    /// How prompts of this session are delivered that do not say it themselves.
    #[serde(rename = "session.delivery_changed")]
    SessionDeliveryChanged { delivery: Delivery, by: PersonId },
    /// What waits stays, or goes on.
    #[serde(rename = "session.queue_changed")]
    SessionQueueChanged { is_paused: bool, by: PersonId },
    #[serde(rename = "session.access_changed")]
    SessionAccessChanged { access: SessionAccess, by: PersonId },
    /// Somebody became a member, has another role, or is no member any more.
    #[serde(rename = "session.member_changed")]
    SessionMemberChanged {
        person: Person,
        /// Absent: no member any more.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        role: Option<Role>,
        by: PersonId,
    },
    /// The session has another owner; who owned it is an editor now.
    #[serde(rename = "session.handed_over")]
    SessionHandedOver { to: Person, by: PersonId },
    #[serde(rename = "session.state_changed")]
    SessionStateChanged { state: SessionState },
    /// Kept for reading only from here on; its sandbox is stopped. Nothing ran or waited.
    #[serde(rename = "session.archived")]
    SessionArchived {
        /// Absent: the server itself, because nothing had happened in it for long.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<PersonId>,
    },
    /// Takes prompts again.
    #[serde(rename = "session.unarchived")]
    SessionUnarchived { by: PersonId },
    #[serde(rename = "prompt.queued")]
    PromptQueued {
        prompt: Prompt,
        /// Idempotency key of the command that sent it, by which its sender knows it again: whoever sees the session sees it. Absent in events of old
        /// servers.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
    },
    /// Removed from the queue before it ran.
    #[serde(rename = "prompt.cancelled")]
    PromptCancelled { prompt_id: PromptId, by: PersonId },
    /// Its author wrote a prompt that waits anew.
    #[serde(rename = "prompt.edited")]
    PromptEdited {
        prompt_id: PromptId,
        text: String,
        by: PersonId,
    },
    /// A prompt that waits runs earlier or later.
    #[serde(rename = "prompt.moved")]
    PromptMoved {
        prompt_id: PromptId,
        /// How many prompts wait before it now.
        position: u32,
        by: PersonId,
    },
    /// A prompt that waits is delivered otherwise.
    #[serde(rename = "prompt.delivery_changed")]
    PromptDeliveryChanged {
        prompt_id: PromptId,
        delivery: Delivery,
        by: PersonId,
    },
    /// The running turn was told a prompt that waited. The prompt ends with that turn.
    #[serde(rename = "prompt.inserted")]
    PromptInserted { turn_id: TurnId, prompt_id: PromptId },
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
        /// What the turn used of its sandbox; absent if no sandbox ran, or nothing could be measured.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sandbox: Option<SandboxUsage>,
    },
    #[serde(rename = "sandbox.state_changed")]
    SandboxStateChanged {
        sandbox_id: SandboxId,
        state: SandboxState,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        problem: Option<Problem>,
    },
    /// The sandbox connected to a host, or was refused. The first of a kind in a turn comes at once with a count of 1;
    /// more of the same host, port, protocol and verdict come together when the turn ends, as one event with the turn's
    /// whole count, which replaces the first.
    #[serde(rename = "egress.decided")]
    EgressDecided {
        /// Absent between turns, such as for services.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        turn_id: Option<TurnId>,
        host: String,
        port: u16,
        protocol: EgressProtocol,
        verdict: EgressVerdict,
        /// Stable word for the reason, such as `rule`, `not_allowed`, `private` or `name_unknown`.
        code: String,
        /// What follows "HOST:PORT" in a sentence, such as `is not allowed by this environment`.
        reason: String,
        /// What would allow a refused one, if anything would.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hint: Option<String>,
        /// How often, from 1.
        count: u64,
    },
    /// A service of the environment moved on.
    #[serde(rename = "service.state_changed")]
    ServiceStateChanged {
        name: String,
        state: ServiceState,
        /// Why it is not ready, one sentence; empty if it is.
        reason: String,
    },
    /// Files in the workspace changed, whoever changed them: told once a second at most, and less often the more there was to tell.
    /// What `.gitignore` names is left out. What the files hold now is in the live diff.
    #[serde(rename = "workspace.changed")]
    WorkspaceChanged {
        /// Sorted by path, relative to the workspace, each path once.
        files: Vec<Change>,
        /// Whether more changed than is listed.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_incomplete: bool,
    },
    /// Commits reached the session's branch on the forge.
    #[serde(rename = "change.pushed")]
    ChangePushed {
        /// Of which of the workspace's other repositories; absent: the session's own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        repository: Option<WorkspaceRepository>,
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
    EffectFailed {
        effect: String,
        /// Names it for who tries again; absent in events of old servers.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        effect_key: Option<String>,
        /// The repository it concerns.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        repository: Option<String>,
        problem: Problem,
    },
    /// Somebody lets an effect be tried again that was given up.
    #[serde(rename = "effect.retried")]
    EffectRetried { effect_key: String, by: PersonId },
    /// Something that was given up needs no other try, because the same was done since.
    #[serde(rename = "effect.superseded")]
    EffectSuperseded { effect_key: String },
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

/// What one turn used of its sandbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SandboxUsage {
    /// Processor time of all processes, in milliseconds.
    pub cpu_ms: u64,
    /// Largest memory of all processes together, in bytes. On machines that cannot measure a turn alone, since the sandbox
    /// started.
    pub peak_memory_bytes: u64,
    /// What the sandbox's own files take at the turn's end, in bytes.
    pub disk_bytes: u64,
}

/// How a sandbox asked to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum EgressProtocol {
    /// A request through the proxy, without encryption up to the host.
    Http,
    /// `CONNECT` through the proxy, such as for `https://`.
    Connect,
    Socks,
}

/// What became of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum EgressVerdict {
    Allowed,
    /// Allowed, and the host adds a credential to its requests.
    AllowedWithCredential,
    Refused,
    /// Allowed, but the host could not be reached.
    Failed,
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
    /// A file that the agent shows to people.
    #[serde(rename = "artifact")]
    Artifact(ArtifactItem),
    /// Something the platform did or noticed in the turn, such as a commit or a limit.
    #[serde(rename = "notice")]
    Notice { problem: Problem },
    #[serde(untagged)]
    #[cfg_attr(feature = "schema", schemars(skip))]
    Unknown(serde_json::Value),
}

/// A file that the agent shows to people, kept as it was then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ArtifactItem {
    /// Of the file, without directories.
    pub name: String,
    /// What people see in it; one line, may be empty.
    pub title: String,
    /// One of the image types of prompts, `text/plain; charset=utf-8`, `application/pdf` or `application/octet-stream`.
    pub media_type: String,
    /// Names the file: `GET /v1/sessions/{id}/blobs/{digest}`.
    pub digest: Digest,
    pub size_bytes: u64,
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
