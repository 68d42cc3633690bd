//! Pull requests of the built-in forge.

use super::person::Person;
use crate::id::SessionId;
use serde::{Deserialize, Serialize};

/// Where a pull request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum PullRequestState {
    Open,
    Merged,
    Closed,
}

/// A request to merge `head_branch` into `base_branch`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PullRequest {
    pub repository: String,
    /// Counts from 1 in each repository.
    pub number: u64,
    pub title: String,
    /// Markdown; may be empty.
    pub body: String,
    pub state: PullRequestState,
    /// The person who asked for the work.
    pub author: Person,
    /// The session that did it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// Everyone whose prompts led to it; none of them may approve it.
    #[serde(default)]
    pub prompted_by: Vec<Person>,
    pub head_branch: String,
    pub base_branch: String,
    /// Commit ids, 40 hexadecimal digits. Of a merged or closed one: as they were at that time.
    pub head_commit: String,
    pub base_commit: String,
    /// Whether it would merge now without conflict; `conflicts` names the paths if not. Only for open ones.
    pub mergeability: Mergeability,
    pub comments: Vec<Comment>,
    pub reviews: Vec<Review>,
    pub is_head_branch_deleted: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merge: Option<MergeRecord>,
    pub created_at_ms: i64,
    pub updated_at_ms: i64,
}

/// Whether merging works right now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Mergeability {
    Clean,
    /// Paths that conflict, sorted.
    Conflicting {
        paths: Vec<String>,
    },
    /// The head adds nothing to the base.
    NothingToMerge,
    /// Already merged or closed, or a branch is gone.
    NotApplicable,
}

/// How a merge writes history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum MergeMethod {
    Merge,
    Squash,
    Rebase,
}

/// A merge that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MergeRecord {
    pub method: MergeMethod,
    /// The base branch's commit after the merge.
    pub commit: String,
    pub by: Person,
    pub at_ms: i64,
}

/// A remark on the whole or on a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Comment {
    /// Counts from 1 in each pull request.
    pub id: u64,
    pub author: Person,
    pub body: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<LinePosition>,
    pub at_ms: i64,
}

/// A line of the new version of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LinePosition {
    pub path: String,
    /// Counts from 1.
    pub line: u64,
}

/// What a reviewer concluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ReviewVerdict {
    Approve,
    RequestChanges,
    Comment,
}

/// A person's review of one head commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Review {
    pub id: u64,
    pub author: Person,
    pub verdict: ReviewVerdict,
    pub body: String,
    /// The head commit that was reviewed.
    pub commit: String,
    pub at_ms: i64,
}

/// Body of `POST /v1/repositories/{name}/pull-requests`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct OpenPullRequest {
    pub title: String,
    #[serde(default)]
    pub body: String,
    pub head_branch: String,
    /// Absent: the default branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_branch: Option<String>,
}

/// Body of `POST …/comments`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AddComment {
    pub body: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<LinePosition>,
}

/// Body of `POST …/reviews`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AddReview {
    pub verdict: ReviewVerdict,
    #[serde(default)]
    pub body: String,
}

/// Body of `POST …/merge`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct MergePullRequest {
    pub method: MergeMethod,
    /// Refuse if the head moved since the caller looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_head_commit: Option<String>,
    #[serde(default)]
    pub delete_head_branch: bool,
}

/// A commit of a pull request, oldest first in lists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Commit {
    pub id: String,
    pub author_name: String,
    pub author_email: String,
    pub committer_name: String,
    pub committer_email: String,
    /// Whole message, trailers included.
    pub message: String,
    pub committed_at_ms: i64,
}

/// Changes from the merge base to the head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Diff {
    /// Sorted by path.
    pub files: Vec<FileDiff>,
    pub additions: u64,
    pub deletions: u64,
    /// Whether files or lines were left out for size.
    pub is_truncated: bool,
}

/// Answer to `GET /v1/sessions/{id}/diff`: what a session changed. Paths are relative to the workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SessionDiff {
    #[serde(flatten)]
    pub diff: Diff,
    pub source: DiffSource,
}

/// Where a session's diff was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum DiffSource {
    /// In the sandbox: the files as they were then.
    Workspace,
    /// On the forge: what was pushed.
    Pushed,
}

/// One file's change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FileDiff {
    pub path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_path: Option<String>,
    pub status: FileStatus,
    pub additions: u64,
    pub deletions: u64,
    pub is_binary: bool,
    /// Unified diff of this file with its `---`/`+++` header; empty for binary or left-out ones.
    pub patch: String,
}

/// What happened to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum FileStatus {
    Added,
    Modified,
    Deleted,
    Renamed,
}

/// Answer to `GET /v1/pull-requests` and `GET /v1/repositories/{name}/pull-requests`, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PullRequestList {
    pub pull_requests: Vec<PullRequest>,
}

/// Answer to `GET …/commits`, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CommitList {
    pub commits: Vec<Commit>,
}
