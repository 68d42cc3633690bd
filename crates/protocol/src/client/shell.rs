//! A terminal over a WebSocket: what is typed and what is shown are binary messages, everything else is JSON in text messages.

use super::problem::Problem;
use serde::{Deserialize, Serialize};

/// A text message of the server. Clients skip frames that they do not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "frame", rename_all = "snake_case")]
pub enum ShellFrame {
    /// The sandbox is being started.
    Starting,
    /// The shell runs; what it shows follows.
    Ready,
    /// The shell ended; the last frame.
    Exited {
        /// Exit status, if it exited by itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<i32>,
        /// Signal number, if one ended it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signal: Option<i32>,
    },
    /// Why the server ends it; the last frame.
    Closing { problem: Problem },
    #[serde(untagged)]
    #[cfg_attr(feature = "schema", schemars(skip))]
    Unknown(serde_json::Value),
}

/// A text message of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "frame", rename_all = "snake_case")]
pub enum ShellControl {
    /// The client's terminal has another size now.
    Resize { columns: u16, rows: u16 },
    /// Nothing more is typed.
    End,
}

/// Query of a shell's path.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ShellQuery {
    /// Characters in a line; 80 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<u16>,
    /// Lines; 24 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u16>,
    /// Kind of terminal, such as `xterm-256color`, which is it if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<String>,
    /// Only of an environment's shell: the branch; absent: the default one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// From `POST /v1/stream-tickets`; browsers need one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
}
