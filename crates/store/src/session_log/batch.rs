//! What is written to and read from a session's log. Data only.

use greenroom_protocol::client::event::EventBody;
use greenroom_protocol::id::{PersonId, TurnId};
use greenroom_protocol::reference::Digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;

/// Everything one step writes, in one transaction. Lists may be empty; an empty batch is allowed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// Time of all its rows, Unix milliseconds.
    pub at_ms: i64,
    /// New events in order; they get the next numbers.
    pub events: Vec<EventBody>,
    /// When they happened, if that was not at `at_ms`, as for what was copied: one of each event, in order; empty otherwise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub event_times_ms: Vec<i64>,
    /// New journal rows in order.
    pub journal: Vec<JournalRow>,
    /// Receipts of the commands this step accepts.
    pub receipts: Vec<NewReceipt>,
    /// Effects on the outside world to dispatch. One that exists with the same digest is left as it is.
    pub intents: Vec<NewIntent>,
    /// Tries that are about to begin, of intents that exist (or are in this batch).
    pub attempts: Vec<IntentAttempt>,
    /// What came of tries.
    pub results: Vec<IntentResult>,
}

impl Batch {
    /// When the event at this place in the batch happened.
    pub fn event_time_ms(&self, index: usize) -> i64 {
        self.event_times_ms.get(index).copied().unwrap_or(self.at_ms)
    }
}

/// A step of a turn. What `entry` holds is the agent's business.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JournalRow {
    /// When it was stored, Unix milliseconds. Of no account in a batch, which has one time.
    #[serde(default)]
    pub at_ms: i64,
    pub turn_id: TurnId,
    pub entry: Value,
}

/// The answer to a command, to be given again when the command is repeated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewReceipt {
    /// Who sent the command.
    pub person: PersonId,
    /// The idempotency key the client chose; unique per person in a session.
    pub key: String,
    /// Digest of the command, to tell a repetition from another command under the same key.
    pub digest: String,
    /// What was answered.
    pub body: Value,
}

/// A file of a session, named by what is in it.
#[derive(Clone, PartialEq, Eq)]
pub struct Blob {
    pub media_type: String,
    pub bytes: Vec<u8>,
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} bytes", self.media_type, self.bytes.len())
    }
}

/// The name of what is in a file.
pub fn digest_of(bytes: &[u8]) -> Digest {
    let sum = ring::digest::digest(&ring::digest::SHA256, bytes);
    let mut whole = [0; 32];
    whole.copy_from_slice(sum.as_ref());
    Digest::of_sha256(&whole)
}

/// A stored receipt.
#[derive(Debug, Clone, PartialEq)]
pub struct Receipt {
    /// Digest of the command that was accepted.
    pub digest: String,
    /// What was answered.
    pub body: Value,
}

/// An effect on the outside world, to be done once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewIntent {
    /// Idempotency key, unique in the session.
    pub key: String,
    /// Which dispatcher does it, such as `push` or `open_pull_request`.
    pub kind: String,
    /// Digest of what is asked for. The same key with another digest is a conflict.
    pub digest: String,
    /// What the dispatcher needs. Never a credential.
    pub payload: Value,
}

/// A try that is about to begin; written before it does, so that a crash leaves a trace of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IntentAttempt {
    /// Key of the intent.
    pub key: String,
    /// When to try again if no result of this try is recorded, Unix milliseconds.
    pub next_attempt_at_ms: i64,
}

/// What came of a try.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IntentResult {
    /// Key of the intent.
    pub key: String,
    /// What the other side answered, or the problem.
    pub outcome: Value,
    /// Whether the intent is over: done, or given up. Otherwise it stays pending and `outcome` is kept as the last one.
    pub is_final: bool,
}

/// A stored intent.
#[derive(Debug, Clone, PartialEq)]
pub struct Intent {
    pub key: String,
    pub kind: String,
    pub digest: String,
    pub payload: Value,
    /// Unix milliseconds.
    pub created_at_ms: i64,
    /// Tries begun so far.
    pub attempts: u32,
    /// Not before this time, Unix milliseconds; 0: at once.
    pub next_attempt_at_ms: i64,
    /// The final result, or the last one that was not final, if any.
    pub outcome: Option<Value>,
    /// Whether `outcome` is final.
    pub is_final: bool,
}
