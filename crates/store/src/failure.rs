//! What can be wrong with the storage itself, whatever was asked of it. Decides nothing about retries.

use greenroom_protocol::client::problem::Problem;
use rustix::io::Errno;
use std::path::PathBuf;
use std::sync::Arc;
use thiserror::Error;

/// The disk, the file or the store failed; what was asked did not happen.
#[derive(Debug, Clone, Error)]
pub enum StorageFailure {
    /// No space left. The same call works once there is space again.
    #[error("the disk is full")]
    Full,
    /// The file system or the file may only be read.
    #[error("the disk is read-only")]
    ReadOnly,
    /// The file's contents make no sense. Nothing else is affected.
    #[error("the file is damaged{}", .moved_to.as_ref().map(|to| format!(" and was moved to {}", to.display())).unwrap_or_default())]
    Corrupt {
        /// Where a damaged session file lies now; the catalog is never moved.
        moved_to: Option<PathBuf>,
    },
    /// The file was written by a newer Greenroom.
    #[error("the file has schema version {found}, this program knows up to {known}")]
    TooNew { found: i64, known: i64 },
    /// This process has as many files open as it may. The same call works once others are closed.
    #[error("no more files can be opened")]
    Crowded,
    /// The store is shutting down.
    #[error("the store is closed")]
    Closed,
    /// The system said no for another reason.
    #[error("{action}")]
    Io {
        /// Short present-tense verb phrase, such as "open session file".
        action: &'static str,
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
}

/// Whether it says that no more files can be opened, by this process or on this machine.
fn is_crowded(error: &std::io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE))
}

/// Descriptors that come and go while somebody looks how many there are.
const FEW: usize = 32;

/// Whether next to no more files can be opened now, for which not everybody who fails for it says so.
pub(crate) fn is_crowded_now() -> bool {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.and_then(|limit| usize::try_from(limit).ok());
    match std::fs::read_dir("/proc/self/fd") {
        Ok(open) => limit.is_some_and(|limit| open.count() + FEW > limit),
        Err(error) => is_crowded(&error),
    }
}

impl StorageFailure {
    /// An error of the system while doing `action`, a short present-tense verb phrase. Sorts out full and read-only disks.
    pub(crate) fn io(action: &'static str, source: std::io::Error) -> Self {
        match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::Full,
            std::io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
            _ if is_crowded(&source) => Self::Crowded,
            _ => Self::Io {
                action,
                source: Arc::new(source),
            },
        }
    }

    /// Whether the same call may work later, unchanged.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Full | Self::ReadOnly | Self::Crowded | Self::Closed | Self::Io { .. } => true,
            Self::Corrupt { .. } | Self::TooNew { .. } => false,
        }
    }

    /// What a person or a client is told. Codes: `disk_full`, `disk_read_only`, `session_corrupt`, `schema_too_new`,
    /// `server_busy`, `shutting_down`, `storage_failed`.
    pub fn problem(&self) -> Problem {
        match self {
            Self::Full => Problem::transient("disk_full", "The server's disk is full, so nothing was stored.")
                .with_hint("Free space on the disk that holds the data directory, then send it again."),
            Self::ReadOnly => {
                Problem::transient("disk_read_only", "The server's disk is read-only, so nothing was stored.")
                    .with_hint("Make the disk that holds the data directory writable (see the kernel log for why it is not).")
            }
            Self::Corrupt { .. } => {
                Problem::permanent("session_corrupt", "The stored data is damaged and cannot be used.")
                    .with_hint("Restore it from a backup; the server's log names the damaged file. Other sessions are not affected.")
            }
            Self::TooNew { .. } => Problem::permanent(
                "schema_too_new",
                "The stored data was written by a newer version of Greenroom.",
            )
            .with_hint("Start the newer version again; going back is not supported."),
            Self::Crowded => {
                let problem = Problem::transient(
                    "server_busy",
                    "The server has as many files open as it may.",
                )
                .with_hint("Try again in a moment; if that happens often, let the operator raise the limit of open files.");
                Problem {
                    retry_after_ms: Some(1_000),
                    ..problem
                }
            }
            Self::Closed => Problem::transient("shutting_down", "The server is shutting down.")
                .with_hint("Try again in a few seconds."),
            Self::Io { .. } => Problem::transient("storage_failed", "The server could not reach its storage.")
                .with_hint("Look into the server's log for the cause."),
        }
    }
}
