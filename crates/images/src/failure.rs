//! What can go wrong with layers and snapshots.

use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::id::SnapshotId;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why a snapshot could not be taken, used or removed.
#[derive(Debug, Error)]
pub enum ImageError {
    #[error("{action} {}", path.display())]
    File {
        /// Present-tense verb phrase.
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("there is no snapshot {0}")]
    Missing(SnapshotId),
    #[error("the snapshot {0} was made by a server with other rights")]
    OtherOwner(SnapshotId),
    #[error("{} names layers that are not there", .0.display())]
    LayerMissing(PathBuf),
    #[error("{} has no layers: its root was copied", .0.display())]
    NoLayers(PathBuf),
    #[error("{} does not hold what it should", path.display())]
    Damaged {
        path: PathBuf,
        source: serde_json::Error,
    },
}

impl ImageError {
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File {
            action,
            path: path.to_owned(),
            source,
        }
    }

    /// The error for people: stable code, one sentence, advice.
    pub fn problem(&self) -> Problem {
        match self {
            Self::File { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Problem::transient("disk_full", "The disk that holds the sandboxes is full.")
                    .with_hint("Free some space in the data directory.")
            }
            Self::File { .. } => {
                Problem::transient("snapshot_failed", "The snapshot could not be taken or used.")
                    .with_hint("Check that the data directory is writable and on a healthy disk.")
            }
            Self::Missing(id) => Problem::permanent(
                "snapshot_missing",
                format!("There is no snapshot {id}."),
            )
            .with_hint(
                "It was removed, or the machine lost power before it was on disk. Start from a newer one.",
            ),
            Self::OtherOwner(id) => Problem::permanent(
                "snapshot_other_owner",
                format!("The snapshot {id} was made by a server with other rights."),
            )
            .with_hint("Run the server as the user who made it, or start from a newer snapshot."),
            Self::LayerMissing(_) | Self::Damaged { .. } => Problem::permanent(
                "snapshot_damaged",
                "Files of the sandbox's snapshot are missing or damaged.",
            )
            .with_hint("Start from another snapshot, or without one."),
            Self::NoLayers(_) => Problem::permanent(
                "snapshot_unsupported",
                "This machine's sandboxes are not made of layers, so there are no snapshots of them.",
            )
            .with_hint(
                "Put the data directory on a real volume (ext4, xfs, btrfs), and use a backend with layers.",
            ),
        }
    }
}
