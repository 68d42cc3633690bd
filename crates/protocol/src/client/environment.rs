//! The environment of a repository as the API tells it: where it comes from, what it says, what was cut of it.

use super::problem::Problem;
use crate::environment::Environment;
use crate::guest::service::ServiceState;
use serde::{Deserialize, Serialize};

/// Where an environment comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum EnvironmentSource {
    /// Nobody wrote one; the server's defaults.
    Defaults,
    /// `.greenroom/environment.toml` on the default branch.
    Repository,
    /// An administrator set it for the repository.
    Administrator,
}

/// Answer to `GET` and `PUT /v1/repositories/{name}/environment` and to `POST /v1/environment-checks`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EnvironmentReport {
    pub source: EnvironmentSource,
    /// As it was written; the defaults if it cannot be read, and then `problem` says why.
    pub environment: Environment,
    /// What the server's rules take away from it, in the order of the fields; may be empty.
    pub notices: Vec<Problem>,
    /// Why no sandbox can start with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// Body of `POST /v1/environment-checks`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CheckEnvironment {
    /// Text of an `environment.toml` or a `devcontainer.json`, at most 64 KiB; checked as a repository's own file.
    pub text: String,
    #[serde(default)]
    pub kind: EnvironmentKind,
}

/// In what language an environment is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum EnvironmentKind {
    #[default]
    Toml,
    Devcontainer,
}

/// A service of a session's sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SessionService {
    pub name: String,
    pub state: ServiceState,
    /// Starts beyond the first.
    pub restarts: u32,
    /// Why it is not ready, one sentence; empty if it is.
    pub reason: String,
}

/// Answer to `GET /v1/sessions/{id}/services`, sorted by name; empty while no sandbox runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SessionServices {
    pub services: Vec<SessionService>,
}

/// Answer to `GET /v1/sessions/{id}/services/{name}/log`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ServiceLog {
    /// Where `output` begins; above what was asked for if older output is not kept any more.
    pub start_offset: u64,
    /// Pass as `after` to get what comes next.
    pub end_offset: u64,
    pub output: String,
}
