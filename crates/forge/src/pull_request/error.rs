//! What can go wrong with pull requests, and how a person is told.

use crate::git::GitError;
use crate::repository::error::RepositoryError;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::pull_request::PullRequestState;

/// Why an operation on a pull request failed; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum PullRequestError {
    /// The repository or a branch is the reason.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// No pull request has this number.
    #[error("no pull request {number}")]
    Unknown {
        /// As it was asked for.
        number: u64,
    },
    /// An open one joins the same two branches.
    #[error("pull request {number} is open for these branches")]
    Exists {
        /// The open one.
        number: u64,
    },
    /// The idempotency key belongs to a pull request of other branches.
    #[error("the idempotency key belongs to pull request {number}")]
    KeyReused {
        /// The one that has it.
        number: u64,
    },
    /// A title, text or position cannot be taken.
    #[error("{reason}")]
    Invalid {
        /// One sentence for a person.
        reason: &'static str,
    },
    /// Merging would conflict.
    #[error("conflicts in {} files", paths.len())]
    Conflict {
        /// Paths that conflict, sorted, at least one.
        paths: Vec<String>,
    },
    /// The head is not where the caller thought, or moved during the operation.
    #[error("the head moved")]
    HeadMoved {
        /// Where it is now.
        head_commit: String,
    },
    /// The head adds nothing to the base.
    #[error("the head adds nothing to the base")]
    NothingToMerge,
    /// Head and base have no common history.
    #[error("the branches have no common history")]
    Unrelated,
    /// The operation needs an open pull request.
    #[error("the pull request is not open")]
    NotOpen {
        /// What it is instead.
        state: PullRequestState,
    },
    /// The operation needs a closed pull request.
    #[error("the pull request is not closed")]
    NotClosed {
        /// What it is instead.
        state: PullRequestState,
    },
    /// Nobody approves a change they asked for.
    #[error("a person approves their own change")]
    OwnChange,
    /// Somebody else is merging it right now.
    #[error("another merge is under way")]
    MergeInProgress,
    /// Others changed the same things all the time.
    #[error("others changed the same refs too often")]
    Contended,
    /// A stored pull request is not readable.
    #[error("read the stored pull request {number}")]
    Record {
        /// Which.
        number: u64,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

impl From<GitError> for PullRequestError {
    fn from(error: GitError) -> Self {
        Self::Repository(RepositoryError::Git(error))
    }
}

impl PullRequestError {
    /// What a person is told; the code is stable.
    pub fn problem(&self) -> Problem {
        match self {
            Self::Repository(error) => error.problem(),
            Self::Unknown { number } => Problem::permanent(
                "pull_request_unknown",
                format!("There is no pull request {number}."),
            )
            .with_hint("List the repository's pull requests."),
            Self::Exists { number } => Problem::permanent(
                "pull_request_exists",
                format!("Pull request {number} is already open for these branches."),
            )
            .with_hint("Push to its head branch to update it, or close it first."),
            Self::KeyReused { number } => Problem::permanent(
                "idempotency_conflict",
                format!("This idempotency key was used for pull request {number} of other branches."),
            )
            .with_hint("Use a fresh key for a different request."),
            Self::Invalid { reason } => Problem::permanent("pull_request_invalid", *reason),
            Self::Conflict { paths } => Problem::permanent("merge_conflict", conflict_message(paths))
                .with_hint(
                    "Merge the base into the head branch, resolve the conflicts, push, and try again.",
                ),
            Self::HeadMoved { .. } => {
                Problem::permanent("head_moved", "Somebody pushed to the head branch meanwhile.")
                    .with_hint("Look at the new commits, then try again.")
            }
            Self::NothingToMerge => Problem::permanent(
                "nothing_to_merge",
                "The head branch adds nothing to the base branch.",
            )
            .with_hint("Push a commit to the head branch first, or close the pull request."),
            Self::Unrelated => {
                Problem::permanent("unrelated_histories", "The two branches have no common history.")
                    .with_hint("Start the head branch from the base branch.")
            }
            Self::NotOpen { state } => {
                Problem::permanent("not_open", format!("The pull request is {}.", state_word(*state)))
                    .with_hint("Only an open pull request allows this.")
            }
            Self::NotClosed { state } => Problem::permanent(
                "not_closed",
                format!("The pull request is {}.", state_word(*state)),
            )
            .with_hint("Only a closed pull request allows this."),
            Self::OwnChange => Problem::permanent(
                "own_change",
                "You asked for this change, so your approval does not count.",
            )
            .with_hint("Ask somebody who did not prompt for it to review it."),
            Self::MergeInProgress => Problem::transient(
                "merge_in_progress",
                "Somebody else is merging this pull request right now.",
            )
            .with_hint("Look at it again in a moment."),
            Self::Contended => Problem::transient(
                "contended",
                "Too many others changed the same thing at the same time.",
            )
            .with_hint("Try again."),
            Self::Record { .. } => Problem::permanent(
                "pull_request_unreadable",
                "The stored pull request cannot be read.",
            )
            .with_hint("An operator finds the cause in the server's log."),
        }
    }
}

fn state_word(state: PullRequestState) -> &'static str {
    match state {
        PullRequestState::Open => "open",
        PullRequestState::Merged => "merged",
        PullRequestState::Closed => "closed",
    }
}

/// Names the first few paths.
fn conflict_message(paths: &[String]) -> String {
    const NAMED: usize = 5;
    let named = paths
        .iter()
        .take(NAMED)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    match paths.len().saturating_sub(NAMED) {
        0 => format!("Merging conflicts in {named}."),
        more => format!("Merging conflicts in {named} and {more} more."),
    }
}
