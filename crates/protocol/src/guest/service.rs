//! Services: processes that an environment wants to run beside the agent, such as a database. The guest starts, watches
//! and restarts them; they survive the link.

use super::call::Exit;
use serde::{Deserialize, Serialize};

/// A service to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Unique in its sandbox; 1 to 63 of `a-z0-9-`, beginning with a letter.
    pub name: String,
    /// Program and arguments. Never empty.
    pub argv: Vec<String>,
    /// Absolute, or relative to the workspace; empty: the workspace.
    pub cwd: String,
    pub env: Vec<(String, String)>,
    /// Run to its end before each start; a failure counts as a failed start. Empty: nothing.
    pub before: Vec<String>,
    pub ready: Readiness,
    /// How long a start may take until it is ready, in milliseconds; then it is killed and counts as failed.
    pub ready_timeout_ms: u64,
    pub restart: RestartPolicy,
}

/// When a service counts as ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum Readiness {
    /// As soon as it runs.
    Started,
    /// When a loopback port accepts connections.
    Port { port: u16 },
    /// When a program exits with 0; tried again and again.
    Command { argv: Vec<String> },
    /// When a line of its output contains the text.
    Output { text: String },
}

/// What happens when a service ends by itself. Starts are spaced with growing pauses, from 0.5 s to 30 s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestartPolicy {
    Never,
    /// After an exit that is not 0, and a failed start.
    OnFailure,
    Always,
}

/// Where a service stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    pub name: String,
    pub state: ServiceState,
    /// Starts beyond the first.
    pub restarts: u32,
    /// How it last ended, if it did.
    pub last_exit: Option<Exit>,
    /// Why it is not ready, one sentence; empty if it is.
    pub reason: String,
}

/// State of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ServiceState {
    Starting,
    Ready,
    /// Ended, and waits to be started again.
    Waiting,
    /// Ended by itself and its policy does not start it again.
    Ended,
    /// Failed and its policy does not start it again.
    Failed,
    /// Stopped by the host.
    Stopped,
}
