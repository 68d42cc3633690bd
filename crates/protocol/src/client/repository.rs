//! Repositories of the built-in forge.

use serde::{Deserialize, Serialize};

/// A repository a session can work on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Repository {
    /// Unique; 1 to 100 of `a-z 0-9 . _ -`, starts with a letter or digit, does not end in `.git`.
    pub name: String,
    /// Where work starts and pull requests go; absent while the repository is empty.
    pub default_branch: Option<String>,
    /// What `git clone` takes, with an API token as password.
    pub clone_url: String,
    /// Where it was imported from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    pub created_at_ms: i64,
}

/// Body of `POST /v1/repositories`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AddRepository {
    pub name: String,
    /// A path on the server's machine or an `https://` URL to import all branches and tags from; absent: empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// Answer to `GET /v1/repositories`, sorted by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RepositoryList {
    pub repositories: Vec<Repository>,
}

/// A branch and where it points.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Branch {
    pub name: String,
    pub commit: String,
}

/// Answer to `GET /v1/repositories/{name}/branches`, sorted by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct BranchList {
    pub branches: Vec<Branch>,
}

/// Answer to `POST /v1/repositories/{name}/typing`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TypingReport {
    pub sandbox: WarmSandbox,
}

/// Whether a sandbox waits for somebody who types. It does for a minute after the last sign of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum WarmSandbox {
    Ready,
    Starting,
    /// None will: the repository is empty, or as many wait for this person or run on this server as may.
    None,
}
