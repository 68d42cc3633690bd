//! Who did what on this server.

use super::person::Person;
use serde::{Deserialize, Serialize};

/// A command that somebody gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AuditEntry {
    /// Counts up; later entries have larger ones.
    pub id: u64,
    pub at_ms: i64,
    /// As they were called then.
    pub person: Person,
    /// What was asked for: the operation of the API, such as `setMember`; `gitPush`, `openShell`.
    pub action: String,
    /// The path it was asked at, without its query; sessions, people and repositories stand in it.
    pub target: String,
    /// How it was answered, as an HTTP status. Absent: it was begun, and the server ended before it knew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What it made or changed, if the path does not say it, such as a session's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
}

/// Answer to `GET /v1/audit`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AuditPage {
    /// The newest first.
    pub entries: Vec<AuditEntry>,
    /// Pass as `before` to get the next page; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_before: Option<u64>,
}
