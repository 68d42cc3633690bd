//! Sessions as lists and pages show them; everything inside one comes as events.

use super::member::{Member, Role, SessionAccess};
use super::person::Person;
use super::problem::Problem;
use super::prompt::{Delivery, ImageAttachment, PromptReceipt};
use super::pull_request::PullRequestState;
use crate::guest::{GIT_PORT, WORKSPACE_PATH};
use crate::id::{PersonId, SessionId, SnapshotId};
use serde::{Deserialize, Serialize};

/// What a session is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// No prompt yet.
    Created,
    /// Waits for a prompt.
    Idle,
    /// A turn runs.
    Running,
    /// A turn was asked to stop and has not ended.
    Stopping,
    /// Not in memory; wakes by itself.
    Asleep,
    /// Kept for reading only, until somebody takes it back or deletes it.
    Archived,
}

/// A repository in a session's workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WorkspaceRepository {
    pub name: String,
    /// Work begins at its head, and pull requests go to it.
    pub base_branch: String,
    /// Directory where it is checked out, relative to the workspace; empty for the session's own, which is the workspace.
    pub path: String,
}

impl WorkspaceRepository {
    /// The session's own.
    pub fn own(name: &str, base_branch: &str) -> Self {
        Self {
            name: name.to_owned(),
            base_branch: base_branch.to_owned(),
            path: String::new(),
        }
    }

    /// Whether it is the session's own.
    pub fn is_own(&self) -> bool {
        self.path.is_empty()
    }

    /// Where it is checked out in the sandbox, absolute.
    pub fn directory(&self) -> String {
        match self.is_own() {
            true => WORKSPACE_PATH.to_owned(),
            false => format!("{WORKSPACE_PATH}/{}", self.path),
        }
    }

    /// Where git in the sandbox finds it.
    pub fn remote(&self) -> String {
        format!("http://127.0.0.1:{GIT_PORT}/{}.git", self.name)
    }
}

/// One row of the sessions list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Session {
    pub id: SessionId,
    /// First line of the first prompt, shortened; never empty.
    pub title: String,
    pub state: SessionState,
    pub repository: String,
    /// Branch the work starts from and the pull request goes to.
    pub base_branch: String,
    /// The session's own branch, where its commits are pushed.
    pub branch: String,
    pub model: String,
    /// Whether the model plays a script; clients must show it.
    pub is_scripted: bool,
    pub created_by: Person,
    pub created_at_ms: i64,
    pub updated_at_ms: i64,
    /// Number of the last event.
    pub last_seq: u64,
    /// Pull requests opened from it, oldest first; may be empty.
    pub pull_requests: Vec<PullRequestLink>,
    /// The session that it began as a copy of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forked_from: Option<SessionId>,
    /// How the last prompt ended, if it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error_code: Option<String>,
    /// When the agent is told prompts that do not say it themselves.
    #[serde(default)]
    pub delivery: Delivery,
    /// Whether what waits stays until somebody lets it go on. Ends with the last prompt that waits.
    #[serde(default)]
    pub is_queue_paused: bool,
    /// What was to be done outside and was given up, until somebody tries again with success.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed_effects: Vec<FailedEffect>,
    /// The owner first, then in the order in which they came.
    #[serde(default)]
    pub members: Vec<Member>,
    /// What people of this server may do who are not among them.
    #[serde(default)]
    pub access: SessionAccess,
}

impl Session {
    /// What a person of this server may do here; `None`: not even know of it. Owners of the server are another matter.
    pub fn role_of(&self, person: &PersonId) -> Option<Role> {
        let member = self.members.iter().find(|member| member.person.id == *person);
        // Nobody may do less for being a member.
        member.map(|member| member.role).max(self.access.role())
    }

    /// Whose it is.
    pub fn owner(&self) -> &Person {
        let owner = self.members.iter().find(|member| member.role == Role::Owner);
        owner.map_or(&self.created_by, |owner| &owner.person)
    }
}

/// Something outside that was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FailedEffect {
    pub key: String,
    /// Such as `open_pull_request`.
    pub effect: String,
    /// The repository it concerns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    pub problem: Problem,
}

/// Body of `POST /v1/sessions/{id}/effect-retries`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RetryEffect {
    pub effect_key: String,
}

/// Body of `PATCH /v1/sessions/{id}`; at least one of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct UpdateSession {
    /// One line, not empty, at most 80 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// When the agent is told prompts that do not say it themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Delivery>,
    /// Whether what waits stays until this is false again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_queue_paused: Option<bool>,
    /// What people of this server may do who are no members. Only its owner changes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<SessionAccess>,
    /// Whether it is kept for reading only, its sandbox stopped, and left out of lists. Only its owner changes it, and not with anything
    /// else. Refused while something runs or waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_archived: Option<bool>,
}

/// A pull request a session opened, as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PullRequestLink {
    pub repository: String,
    pub number: u64,
    pub title: String,
    pub state: PullRequestState,
    /// Path of its page on this server.
    pub path: String,
}

/// Body of `POST /v1/sessions`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateSession {
    pub repository: String,
    /// Absent: the repository's default branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_branch: Option<String>,
    /// Absent: the server's default model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// First prompt; absent: the session waits for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<ImageAttachment>,
    /// What people of this server may do in it; absent: what the server's settings say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<SessionAccess>,
}

/// Answer to `POST /v1/sessions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CreatedSession {
    pub session: Session,
    /// Receipt of the first prompt, if one was sent.
    pub prompt: Option<PromptReceipt>,
}

/// Body of `POST /v1/sessions/{id}/forks`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ForkSession {
    /// How many, 1 to 8; absent: 1. All begin with the same files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// Of this snapshot of the session, with what was said before it; absent: of its sandbox now, which may go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<SnapshotId>,
    /// First prompt of each; absent: they wait for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<ImageAttachment>,
    /// Absent: the session's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

/// Answer to `POST /v1/sessions/{id}/forks`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ForkedSession {
    pub sessions: Vec<CreatedSession>,
}

/// The files of a session's sandbox at one moment. Answer to `POST /v1/sessions/{id}/snapshots`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SessionSnapshot {
    pub id: SnapshotId,
    pub session_id: SessionId,
    /// Milliseconds since 1970.
    pub created_at_ms: i64,
    /// The session's last event before it was taken: what is later may or may not be in the files.
    #[serde(default)]
    pub seq: u64,
    /// Of all its layers; layers that snapshots share count in each.
    pub size_bytes: u64,
    /// Whether it stays until somebody removes it.
    pub is_pinned: bool,
}

/// Answer to `GET /v1/sessions/{id}/snapshots`: the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SessionSnapshotList {
    pub snapshots: Vec<SessionSnapshot>,
}

/// Answer to `GET /v1/sessions`: newest activity first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SessionList {
    pub sessions: Vec<Session>,
    /// Pass as `cursor` to get the next page; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}
