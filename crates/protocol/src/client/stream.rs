//! Frames of `GET /v1/sessions/{id}/stream?after=seq`: JSON text messages, server to client unless said otherwise.

use super::event::Event;
use super::problem::Problem;
use super::session::Session;
use crate::id::{ItemId, SessionId};
use serde::{Deserialize, Serialize};

/// What the server sends. The JSON form has the kind in `frame`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "frame", rename_all = "snake_case")]
pub enum StreamFrame {
    /// Always first: the API generation and the number of the last event at this moment.
    Hello {
        generation: u32,
        session_id: SessionId,
        last_seq: u64,
    },
    /// A stored event. In order, without gaps, starting behind the cursor the client gave.
    Event { event: Event },
    /// The client has every event there is; what follows is live. Sent once.
    CaughtUp { last_seq: u64 },
    /// More of an unfinished item, which may not have an event yet. `offset` counts UTF-8 bytes of that channel so far; a client whose text is shorter or
    /// longer than `offset` replaces or ignores accordingly. After joining, the text so far comes as one delta at offset 0.
    Delta {
        item_id: ItemId,
        channel: DeltaChannel,
        offset: u64,
        text: String,
    },
    /// The session's row in lists changed.
    Session { session: Box<Session> },
    /// The server closes the stream; reconnect with the cursor if `retryable`.
    Closing { problem: Problem, last_seq: u64 },
    #[serde(untagged)]
    #[cfg_attr(feature = "schema", schemars(skip))]
    Unknown(serde_json::Value),
}

/// Which text of an item a delta extends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum DeltaChannel {
    /// Text of a message item.
    Message,
    /// Text of a reasoning item.
    Reasoning,
    /// Arguments of a tool call, as raw JSON text.
    Input,
    /// Output of a running tool call.
    Output,
}

/// What a client may send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "frame", rename_all = "snake_case", deny_unknown_fields)]
pub enum ClientFrame {
    /// Keeps proxies from closing an idle socket; not answered.
    Ping {},
}
