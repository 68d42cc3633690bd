//! Frames of `GET /v1/sessions/{id}/stream?after=seq`: JSON text messages, server to client unless said otherwise.

use super::event::Event;
use super::overview::SessionOverview;
use super::person::Person;
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
    /// Of a client that asked for what is recent: the session where the events begin. Before the first of them, and only if they do not
    /// begin with the session.
    Overview { overview: Box<SessionOverview> },
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
    /// Who watches now, whenever that changes. Not stored.
    Presence { presence: Presence },
    /// The server closes the stream; reconnect with the cursor if `retryable`.
    Closing { problem: Problem, last_seq: u64 },
    #[serde(untagged)]
    #[cfg_attr(feature = "schema", schemars(skip))]
    Unknown(serde_json::Value),
}

/// Who watches a session at a moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Presence {
    /// Signed-in people, each once however many windows they have, in the order in which they came.
    pub watching: Vec<Watcher>,
    /// How many watch by a share link.
    pub guests: u32,
}

/// Somebody who watches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Watcher {
    pub person: Person,
    /// Has it open, but looks at something else.
    pub is_away: bool,
    /// The prompt that they write; absent: they write none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draft: Option<DraftState>,
}

/// A prompt that somebody writes, without its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DraftState {
    /// Its length, in UTF-16 code units as browsers count.
    pub length: u32,
    /// Where its cursor is, or its selection begins; at most `length`.
    pub cursor: u32,
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
    /// How the sender watches, for others to see. Send it when it changes, at most every 100 ms; a draft is forgotten after ten seconds without
    /// another.
    Presence {
        #[serde(default)]
        is_away: bool,
        /// The prompt that they write; only of those who may prompt.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        draft: Option<DraftState>,
    },
}
