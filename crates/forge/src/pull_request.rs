//! Pull requests, kept in git: one ref each, every change a commit on it. Knows no HTTP and no sessions.

pub(crate) mod error;
pub(crate) mod feedback;
pub(crate) mod list;
pub(crate) mod merge;
pub(crate) mod mergeability;
pub(crate) mod message;
pub(crate) mod open;
pub(crate) mod record;
pub(crate) mod state;

use greenroom_protocol::client::pull_request::Commit;

impl From<crate::git::commits::CommitRecord> for Commit {
    fn from(commit: crate::git::commits::CommitRecord) -> Self {
        Self {
            id: commit.id,
            author_name: commit.author.name,
            author_email: commit.author.email,
            committer_name: commit.committer_name,
            committer_email: commit.committer_email,
            message: commit.message,
            committed_at_ms: commit.committed_at_s.saturating_mul(1000),
        }
    }
}
