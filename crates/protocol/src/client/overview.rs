//! What a session's page shows besides its turns, as it was at one point of the log: what is read instead of all that stands before it.

use super::event::{Event, SandboxState};
use super::problem::Problem;
use super::prompt::Prompt;
use super::session::{Session, WorkspaceRepository};
use crate::guest::service::ServiceState;
use crate::id::{PersonId, SandboxId, TurnId};
use serde::{Deserialize, Serialize};

/// A session at one point of its log. With the events behind `seq` it is the session as it is now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SessionOverview {
    /// Number of the last event in it.
    pub seq: u64,
    pub session: Box<Session>,
    /// Prompts that wait, first to run first.
    pub queued: Vec<Prompt>,
    /// The turn in the middle of which the events begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn: Option<OpenTurn>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<SandboxStatus>,
    /// Services of the sandbox, in the order in which they were first heard of.
    pub services: Vec<ServiceStatus>,
    /// What was last pushed, once for each repository.
    pub changes: Vec<PushedChange>,
    /// Number of the last event that told of changed files since the last push; 0: there was none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub files_changed_seq: u64,
}

fn is_zero(seq: &u64) -> bool {
    *seq == 0
}

/// A turn that had not ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OpenTurn {
    pub turn_id: TurnId,
    pub prompt: Prompt,
    /// What it was told since, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inserted: Vec<Prompt>,
    pub model: String,
    pub is_scripted: bool,
    pub started_at_ms: i64,
    /// Who asked it to stop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_by: Option<PersonId>,
}

/// The sandbox as last heard of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SandboxStatus {
    pub sandbox_id: SandboxId,
    pub state: SandboxState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// A service of the environment as last heard of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ServiceStatus {
    pub name: String,
    pub state: ServiceState,
    /// Why it is not ready, one sentence; empty if it is.
    pub reason: String,
}

/// What is on the forge of one repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PushedChange {
    /// Of which of the workspace's other repositories; absent: the session's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<WorkspaceRepository>,
    pub branch: String,
    pub commit: String,
    pub additions: u64,
    pub deletions: u64,
    /// Paths that differ from the base branch, sorted.
    pub files: Vec<String>,
}

impl PushedChange {
    /// The name of its repository, which is a session's own or another.
    pub fn name<'a>(&'a self, session: &'a Session) -> &'a str {
        self.repository
            .as_ref()
            .map_or(&session.repository, |repository| &repository.name)
    }
}

/// A part of a session's log before what is known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct History {
    /// The session before these events; absent: they begin with the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overview: Option<SessionOverview>,
    /// In order, without gaps, up to the number that was asked for.
    pub events: Vec<Event>,
}
