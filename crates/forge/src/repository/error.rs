//! What can go wrong with repositories and branches, and how a person is told.

use crate::git::GitError;
use greenroom_protocol::client::problem::Problem;

/// Why an operation on a repository failed.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// No such repository.
    #[error("no repository named {name:?}")]
    Unknown {
        /// As it was asked for.
        name: String,
    },
    /// The name is taken.
    #[error("a repository named {name:?} exists")]
    NameTaken {
        /// As it was asked for.
        name: String,
    },
    /// Not a name for a repository.
    #[error("{name:?} cannot name a repository")]
    NameInvalid {
        /// As it was asked for.
        name: String,
    },
    /// Neither an absolute path nor an `https://` URL without credentials.
    #[error("cannot import from {source_text:?}")]
    SourceInvalid {
        /// As it was given.
        source_text: String,
    },
    /// Nothing that git can import from is there, or it may not be read.
    #[error("{source_text:?} is not a git repository: {detail}")]
    SourceNotARepository {
        /// As it was given.
        source_text: String,
        /// What git said.
        detail: String,
    },
    /// The source is a repository, but copying it failed.
    #[error("import from {source_text:?}")]
    ImportFailed {
        /// As it was given.
        source_text: String,
        /// What happened.
        #[source]
        source: GitError,
    },
    /// No such branch or commit.
    #[error("no branch named {branch:?}")]
    BranchUnknown {
        /// As it was asked for.
        branch: String,
    },
    /// The default branch cannot be deleted.
    #[error("{branch:?} is the default branch")]
    BranchIsDefault {
        /// Its name.
        branch: String,
    },
    /// An open pull request has it as head or base.
    #[error("{branch:?} belongs to pull request {number}")]
    BranchInUse {
        /// Its name.
        branch: String,
        /// The pull request.
        number: u64,
    },
    /// It moved while the operation ran.
    #[error("{branch:?} moved")]
    BranchMoved {
        /// Its name.
        branch: String,
    },
    /// The repository's folder cannot be read or written.
    #[error("use the repository's folder")]
    Folder {
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A record of the forge is not readable.
    #[error("read the forge's record")]
    Record {
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// git failed.
    #[error("run git")]
    Git(#[from] GitError),
}

impl RepositoryError {
    /// What a person is told; the code is stable.
    pub fn problem(&self) -> Problem {
        match self {
            Self::Unknown { name } => {
                Problem::permanent("repository_unknown", format!("There is no repository named {name:?}."))
                    .with_hint("List the repositories, or add this one first.")
            }
            Self::NameTaken { name } => {
                Problem::permanent("repository_name_taken", format!("A repository named {name:?} exists already."))
                    .with_hint("Choose another name, or delete the other one first.")
            }
            Self::NameInvalid { name } => {
                Problem::permanent("repository_name_invalid", format!("{name:?} cannot name a repository."))
                    .with_hint("Use 1 to 100 of a-z 0-9 . _ -, start with a letter or digit, do not end in .git.")
            }
            Self::SourceInvalid { source_text } => Problem::permanent(
                "source_invalid",
                format!("A repository cannot be imported from {source_text:?}."),
            )
            .with_hint("Give an absolute path on the server's machine or an https:// URL without user name and password."),
            Self::SourceNotARepository { source_text, .. } => Problem::permanent(
                "source_not_a_repository",
                format!("There is no git repository at {source_text:?} that the server may read."),
            )
            .with_hint("Give the top folder of a repository (the one with .git in it), or create one with `git init`."),
            Self::ImportFailed { source, .. } => match source.problem() {
                problem if problem.code == "git_failed" => {
                    Problem::transient("import_failed", "Copying the repository failed; nothing was added.")
                        .with_hint("Check the source with `git fsck` and try again.")
                }
                problem => problem,
            },
            Self::BranchUnknown { branch } => {
                Problem::permanent("branch_unknown", format!("There is no branch named {branch:?}."))
                    .with_hint("Push the branch first, or check its name.")
            }
            Self::BranchIsDefault { branch } => Problem::permanent(
                "branch_is_default",
                format!("{branch:?} is the default branch and cannot be deleted."),
            )
            .with_hint("Make another branch the default one first."),
            Self::BranchInUse { branch, number } => Problem::permanent(
                "branch_in_use",
                format!("{branch:?} belongs to the open pull request {number}."),
            )
            .with_hint("Merge or close that pull request first."),
            Self::BranchMoved { branch } => {
                Problem::transient("head_moved", format!("Somebody pushed to {branch:?} meanwhile."))
                    .with_hint("Look at what is new and try again.")
            }
            Self::Folder { source } if is_full(source) => disk_full(),
            Self::Folder { .. } | Self::Record { .. } => Problem::transient(
                "repository_unreadable",
                "The repository's folder cannot be used right now.",
            )
            .with_hint("An operator finds the cause in the server's log."),
            Self::Git(error) => error.problem(),
        }
    }
}

impl GitError {
    /// What a person is told; the code is stable.
    pub fn problem(&self) -> Problem {
        match self {
            Self::Missing { program, .. } => Problem::permanent(
                "git_missing",
                format!("The program {} does not start.", program.display()),
            )
            .with_hint("Install git 2.38 or newer and make sure that the server finds it in PATH."),
            Self::TooOld { found } => {
                Problem::permanent("git_too_old", format!("The server's git is too old ({found})."))
                    .with_hint("Install git 2.38 or newer.")
            }
            Self::DiskFull { .. } => disk_full(),
            Self::TimedOut { limit, .. } => {
                let message = format!(
                    "git took longer than {} seconds and was stopped.",
                    limit.as_secs()
                );
                Problem::transient("git_timed_out", message).with_hint(
                    "Try again; if it happens again, the repository may be too large for this machine.",
                )
            }
            Self::Pipe { source, .. } if is_full(source) => disk_full(),
            Self::TooMuchOutput { .. }
            | Self::Failed { .. }
            | Self::Unexpected { .. }
            | Self::Pipe { .. } => {
                Problem::transient("git_failed", "git failed on the server; nothing was changed.")
                    .with_hint("Try again; an operator finds the cause in the server's log.")
            }
        }
    }
}

fn disk_full() -> Problem {
    Problem::transient("disk_full", "The server's disk is full; nothing was changed.")
        .with_hint("Free space on the server and try again.")
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
    )
}
