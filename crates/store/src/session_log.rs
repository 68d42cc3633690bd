//! One session's log as a trait: leases with epochs, fenced appends, reads. Says what every implementation promises; holds no I/O.
//!
//! # What an implementation promises
//! * `Ok` of a call that writes means: on disk, survives a crash of process and machine.
//! * A [`Batch`] is stored whole or not at all. Events get numbers from 1 with no gaps.
//! * Epochs of a session strictly grow, also over restarts. Only the newest unreleased epoch may append.
//! * Dropping a call's future stops the waiting, not the work: it may still happen. Ask again; an append is idempotent.

mod batch;

pub use batch::{
    Batch, Blob, Intent, IntentAttempt, IntentResult, JournalRow, NewIntent, NewReceipt, Receipt, digest_of,
};

use crate::failure::StorageFailure;
use async_trait::async_trait;
use greenroom_protocol::client::event::Event;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::id::{PersonId, SessionId};
use greenroom_protocol::reference::Digest;
use std::time::Duration;
use thiserror::Error;

/// Most events one [`SessionStore::read`] returns, whatever `limit` says.
pub const MAX_READ_EVENTS: u32 = 10_000;

/// A page is cut behind the event that reaches this many bytes of JSON, so that a hostile session cannot fill memory.
pub const MAX_READ_BYTES: usize = 8 * 1024 * 1024;

/// An append is remembered for idempotency until the session has grown by this many events. Later repetitions are a conflict.
pub const REMEMBERED_EVENTS: u64 = 1024;

/// What somebody who read all events up to one of them made of them, so that the next need not read them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Number of the last event that went into it.
    pub seq: u64,
    /// Of the reader: views of other versions are not understood.
    pub version: u32,
    pub body: String,
}

/// The right to write to a session, until it runs out or another node takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// From 1; larger than any epoch this session had before.
    pub epoch: u64,
}

/// Where sessions' logs are kept. See the module for what it promises.
#[async_trait]
pub trait SessionStore: Send + Sync {
    /// Makes sure the session exists; a new one is empty. Doing it again changes nothing.
    async fn create(&self, session: &SessionId) -> Result<(), StoreError>;

    /// Takes the session for `node` during `ttl` of the store's clock. The same node gets a new epoch at once, another one
    /// only when the lease ran out or was released.
    async fn acquire(&self, session: &SessionId, node: &str, ttl: Duration) -> Result<Lease, AcquireError>;

    /// Makes the lease last `ttl` from now. Also revives one that ran out if nobody else took it.
    async fn renew(&self, session: &SessionId, epoch: u64, ttl: Duration) -> Result<(), LeaseError>;

    /// Gives the lease back; the epoch may not append any more. Releasing a lease that is gone changes nothing.
    async fn release(&self, session: &SessionId, epoch: u64) -> Result<(), StoreError>;

    /// Stores the batch behind event `expected_seq` (0: the session is empty) and returns the number of the last event
    /// then. The same batch at the same `expected_seq` again (see [`REMEMBERED_EVENTS`]) returns what it
    /// returned first and writes nothing; this also holds for a batch without events, so two of those that are meant to
    /// be two must differ (`at_ms` counts).
    async fn append(
        &self,
        session: &SessionId,
        epoch: u64,
        expected_seq: u64,
        batch: Batch,
    ) -> Result<u64, AppendError>;

    /// Events behind `after_seq` in order, at most `limit`, [`MAX_READ_EVENTS`] and about [`MAX_READ_BYTES`]; at least one
    /// if there is one and `limit` is not 0. Needs no lease. Empty: there is nothing behind `after_seq`.
    async fn read(&self, session: &SessionId, after_seq: u64, limit: u32) -> Result<Vec<Event>, ReadError>;

    /// Number of the last event, 0 if there is none.
    async fn last_seq(&self, session: &SessionId) -> Result<u64, ReadError>;

    /// Journal rows of all turns in the order they were appended, without the first `known` of them.
    async fn journal(&self, session: &SessionId, known: u64) -> Result<Vec<JournalRow>, ReadError>;

    /// What this person was answered to the command with this idempotency key, if it was accepted.
    async fn receipt(
        &self,
        session: &SessionId,
        person: &PersonId,
        key: &str,
    ) -> Result<Option<Receipt>, ReadError>;

    /// Intents without a final result, oldest first.
    async fn outbox_pending(&self, session: &SessionId) -> Result<Vec<Intent>, ReadError>;

    /// One intent with its result, if it has one.
    async fn intent(&self, session: &SessionId, key: &str) -> Result<Option<Intent>, ReadError>;

    /// Keeps what a reader made of the events up to one of them. What was kept for that event is replaced, and views of
    /// older versions are removed. May be lost at any time: it can always be made again.
    async fn put_view(&self, session: &SessionId, view: View) -> Result<(), StoreError>;

    /// The newest of a version that was kept for an event up to this one.
    async fn view(&self, session: &SessionId, version: u32, up_to: u64) -> Result<Option<View>, ReadError>;

    /// Keeps files and answers with their names; those that are there already change nothing, and a damaged one is mended. All or none:
    /// refused if the session's files would have more than `max_total_bytes` then. Whoever names a file in an event or in the journal
    /// keeps it before; one that nobody names stays as long as the session does.
    async fn put_blobs(
        &self,
        session: &SessionId,
        blobs: Vec<Blob>,
        max_total_bytes: u64,
    ) -> Result<Vec<Digest>, PutBlobError>;

    /// A file with this name; `None`: the session has none, or it is damaged.
    async fn blob(&self, session: &SessionId, digest: &Digest) -> Result<Option<Blob>, ReadError>;

    /// Deletes the session and all it holds. Removing one that does not exist changes nothing.
    async fn remove(&self, session: &SessionId) -> Result<(), StoreError>;
}

/// Why a session could not be made, released or removed.
#[derive(Debug, Error)]
pub enum StoreError {
    /// There is no such session.
    #[error("session does not exist")]
    Unknown,
    #[error("change session storage")]
    Io(#[from] StorageFailure),
}

/// Why files could not be kept.
#[derive(Debug, Error)]
pub enum PutBlobError {
    /// There is no such session.
    #[error("session does not exist")]
    Unknown,
    /// The session's files would have more bytes than they may.
    #[error("the session's files have {total_bytes} bytes")]
    TooMuch {
        /// Without these.
        total_bytes: u64,
        max_total_bytes: u64,
    },
    #[error("keep a file of a session")]
    Io(#[from] StorageFailure),
}

/// Why a session could not be taken.
#[derive(Debug, Error)]
pub enum AcquireError {
    /// There is no such session.
    #[error("session does not exist")]
    Unknown,
    /// Another node has it.
    #[error("session is held by node {node} for another {remaining_ms} ms")]
    Held {
        node: String,
        /// Until its lease runs out, unless it is renewed; at least 1.
        remaining_ms: u64,
    },
    #[error("acquire session")]
    Io(#[from] StorageFailure),
}

/// Why a lease could not be prolonged.
#[derive(Debug, Error)]
pub enum LeaseError {
    /// There is no such session.
    #[error("session does not exist")]
    Unknown,
    /// The epoch is not the newest, or was released.
    #[error("another owner took the session")]
    Fenced,
    #[error("renew session lease")]
    Io(#[from] StorageFailure),
}

/// Why a batch was not stored. Nothing of it was written.
#[derive(Debug, Error)]
pub enum AppendError {
    /// There is no such session.
    #[error("session does not exist")]
    Unknown,
    /// The epoch is not the newest, or was released: this writer must stop.
    #[error("another owner took the session")]
    Fenced,
    /// The session's last event is not `expected_seq`.
    #[error("the session's last event is {last_seq}")]
    Conflict { last_seq: u64 },
    /// An intent with this key exists and asks for something else, or already has another final result.
    #[error("intent {key} exists with other contents")]
    IntentConflict { key: String },
    /// A result or attempt names an intent that does not exist.
    #[error("intent {key} does not exist")]
    IntentUnknown { key: String },
    /// This person's command with this key was accepted before; see [`SessionStore::receipt`].
    #[error("the command was accepted before")]
    ReceiptExists { key: String },
    /// No space left; works again when there is.
    #[error("the disk is full")]
    Full,
    /// Any failure of the storage but a full disk.
    #[error("append to session")]
    Io(#[source] StorageFailure),
}

/// Why nothing could be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// There is no such session.
    #[error("session does not exist")]
    Unknown,
    #[error("read session")]
    Io(#[from] StorageFailure),
}

/// What stops a call before it begins, whichever it is.
#[derive(Debug, Clone)]
pub(crate) enum LogFault {
    Unknown,
    Storage(StorageFailure),
}

impl From<StorageFailure> for LogFault {
    fn from(failure: StorageFailure) -> Self {
        Self::Storage(failure)
    }
}

macro_rules! from_log_fault {
    ($($error:ident),+) => {
        $(impl From<LogFault> for $error {
            fn from(fault: LogFault) -> Self {
                match fault {
                    LogFault::Unknown => Self::Unknown,
                    LogFault::Storage(failure) => failure.into(),
                }
            }
        })+
    };
}

from_log_fault!(
    StoreError,
    AcquireError,
    LeaseError,
    AppendError,
    PutBlobError,
    ReadError
);

impl From<StorageFailure> for AppendError {
    fn from(failure: StorageFailure) -> Self {
        match failure {
            StorageFailure::Full => Self::Full,
            other => Self::Io(other),
        }
    }
}

fn session_unknown() -> Problem {
    Problem::permanent("session_unknown", "There is no such session.")
        .with_hint("Check the session's id, or list the sessions you can see.")
}

fn session_moved() -> Problem {
    Problem::transient("session_moved", "Another server process took over this session.")
        .with_hint("Try again; the request goes to the new owner.")
}

impl StoreError {
    /// What a person or a client is told; codes `session_unknown` and those of [`StorageFailure::problem`].
    pub fn problem(&self) -> Problem {
        match self {
            Self::Unknown => session_unknown(),
            Self::Io(failure) => failure.problem(),
        }
    }
}

impl PutBlobError {
    /// What a person or a client is told; codes `session_unknown`, `session_files_full` and those of [`StorageFailure::problem`].
    pub fn problem(&self) -> Problem {
        match self {
            Self::Unknown => session_unknown(),
            Self::TooMuch {
                total_bytes,
                max_total_bytes,
            } => {
                let mib = |bytes: &u64| bytes.div_ceil(1024 * 1024);
                let message = format!(
                    "The files of this session have {} MiB; at most {} MiB are kept.",
                    mib(total_bytes),
                    mib(max_total_bytes)
                );
                Problem::permanent("session_files_full", message)
                    .with_hint("Go on in a new session, or put the files into the repository.")
            }
            Self::Io(failure) => failure.problem(),
        }
    }
}

impl AcquireError {
    /// What a person or a client is told; codes `session_unknown`, `session_held` and those of
    /// [`StorageFailure::problem`].
    pub fn problem(&self) -> Problem {
        match self {
            Self::Unknown => session_unknown(),
            Self::Held { remaining_ms, .. } => Problem {
                retry_after_ms: Some(*remaining_ms),
                ..Problem::transient(
                    "session_held",
                    "Another server process is working on this session.",
                )
                .with_hint("Try again when its lease has run out, or stop the other process.")
            },
            Self::Io(failure) => failure.problem(),
        }
    }
}

impl LeaseError {
    /// What a person or a client is told; codes `session_unknown`, `session_moved` and those of
    /// [`StorageFailure::problem`].
    pub fn problem(&self) -> Problem {
        match self {
            Self::Unknown => session_unknown(),
            Self::Fenced => session_moved(),
            Self::Io(failure) => failure.problem(),
        }
    }
}

impl AppendError {
    /// What a person or a client is told; codes `session_unknown`, `session_moved`, `session_changed`, `effect_conflict`,
    /// `effect_unknown`, `command_repeated` and those of [`StorageFailure::problem`].
    pub fn problem(&self) -> Problem {
        match self {
            Self::Unknown => session_unknown(),
            Self::Fenced => session_moved(),
            Self::Conflict { .. } => {
                Problem::transient("session_changed", "The session changed in the meantime.")
                    .with_hint("Try again with the session's current state.")
            }
            Self::IntentConflict { .. } => Problem::permanent(
                "effect_conflict",
                "The same effect was already asked for with other contents, so nothing was done.",
            )
            .with_hint("Look at the session to see what was done first."),
            Self::IntentUnknown { .. } => Problem::permanent(
                "effect_unknown",
                "The effect this result belongs to does not exist.",
            )
            .with_hint("This is a defect of the server; please report it."),
            Self::ReceiptExists { .. } => {
                Problem::permanent("command_repeated", "This command was already accepted.")
                    .with_hint("Use a new idempotency key for a new command.")
            }
            Self::Full => StorageFailure::Full.problem(),
            Self::Io(failure) => failure.problem(),
        }
    }
}

impl ReadError {
    /// What a person or a client is told; codes `session_unknown` and those of [`StorageFailure::problem`].
    pub fn problem(&self) -> Problem {
        match self {
            Self::Unknown => session_unknown(),
            Self::Io(failure) => failure.problem(),
        }
    }
}
