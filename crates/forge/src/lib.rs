//! The built-in forge: bare repositories, git over HTTP, pull requests. Knows no sessions, no web framework, no SQLite.
//!
//! All state is in git: a repository is `<root>/<name>.git`, a pull request is the history of the ref
//! `refs/greenroom/pulls/<n>`, whose newest commit holds `pull.json`. Every change names the old value of each ref it
//! moves and moves all of them in one transaction, so two people at once never lose one another's work.

mod forge;
mod git;
mod http;
mod pull_request;
mod ref_name;
mod repository;

pub use forge::{Forge, ForgeConfig, OpenForgeError};
pub use git::GitError;
pub use git::diff::{DIFF_TREE, MAX_DIFF_BYTES, MAX_DIFF_FILES, MAX_FILE_PATCH_BYTES, read_diff};
pub use http::body::{ByteStream, GitBody};
pub use http::policy::{Decision, Member, OwnBranchOnly, PushPolicy, RefUpdate, RefUpdateKind};
pub use http::{GitAccess, GitHttpError, GitMethod, GitRequest, GitResponse};
pub use pull_request::error::PullRequestError;
pub use pull_request::list::PullRequestFilter;
pub use pull_request::open::NewPullRequest;
pub use ref_name::{MAX_BRANCH_NAME_BYTES, is_branch_name};
pub use repository::error::RepositoryError;
pub use repository::file::FileAtCommit;
pub use repository::name::is_repository_name;
