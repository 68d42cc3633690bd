//! Endpoints about pull requests of the built-in forge.

use super::Client;
use crate::failure::ClientError;
use greenroom_protocol::client::pull_request::{
    AddComment, AddReview, CommitList, Diff, MergePullRequest, OpenPullRequest, PullRequest, PullRequestList,
    PullRequestState,
};
use reqwest::Method;

impl Client {
    /// Pull requests of all repositories, newest first, narrowed by what is given.
    pub async fn pull_requests(
        &self,
        state: Option<PullRequestState>,
        repository: Option<&str>,
    ) -> Result<PullRequestList, ClientError> {
        let state = state.map(|state| match state {
            PullRequestState::Open => "open",
            PullRequestState::Merged => "merged",
            PullRequestState::Closed => "closed",
        });
        let query: Vec<_> = [("state", state), ("repository", repository)]
            .into_iter()
            .filter_map(|(name, value)| value.map(|value| (name, value.to_owned())))
            .collect();
        self.get_with(&["pull-requests"], &query).await
    }

    /// Opens a pull request from a branch that was pushed.
    pub async fn open_pull_request(
        &self,
        repository: &str,
        open: &OpenPullRequest,
    ) -> Result<PullRequest, ClientError> {
        self.post(&["repositories", repository, "pull-requests"], open)
            .await
    }

    /// One pull request.
    pub async fn pull_request(&self, repository: &str, number: u64) -> Result<PullRequest, ClientError> {
        self.get(&["repositories", repository, "pull-requests", &number.to_string()])
            .await
    }

    /// Its commits, oldest first.
    pub async fn pull_request_commits(
        &self,
        repository: &str,
        number: u64,
    ) -> Result<CommitList, ClientError> {
        self.get(&[
            "repositories",
            repository,
            "pull-requests",
            &number.to_string(),
            "commits",
        ])
        .await
    }

    /// Its changes from the merge base to the head.
    pub async fn pull_request_diff(&self, repository: &str, number: u64) -> Result<Diff, ClientError> {
        self.get(&[
            "repositories",
            repository,
            "pull-requests",
            &number.to_string(),
            "diff",
        ])
        .await
    }

    /// Adds a remark.
    pub async fn add_comment(
        &self,
        repository: &str,
        number: u64,
        comment: &AddComment,
    ) -> Result<PullRequest, ClientError> {
        self.post(
            &[
                "repositories",
                repository,
                "pull-requests",
                &number.to_string(),
                "comments",
            ],
            comment,
        )
        .await
    }

    /// Adds a review; 403 `own_change` if someone who prompted the change approves it.
    pub async fn add_review(
        &self,
        repository: &str,
        number: u64,
        review: &AddReview,
    ) -> Result<PullRequest, ClientError> {
        self.post(
            &[
                "repositories",
                repository,
                "pull-requests",
                &number.to_string(),
                "reviews",
            ],
            review,
        )
        .await
    }

    /// Merges; 409 `merge_conflict`, `head_moved`, `nothing_to_merge` or `not_open`.
    pub async fn merge_pull_request(
        &self,
        repository: &str,
        number: u64,
        merge: &MergePullRequest,
    ) -> Result<PullRequest, ClientError> {
        self.post(
            &[
                "repositories",
                repository,
                "pull-requests",
                &number.to_string(),
                "merge",
            ],
            merge,
        )
        .await
    }

    /// Closes without merging.
    pub async fn close_pull_request(
        &self,
        repository: &str,
        number: u64,
    ) -> Result<PullRequest, ClientError> {
        let segments = [
            "repositories",
            repository,
            "pull-requests",
            &number.to_string(),
            "close",
        ];
        self.command(Method::POST, &segments).await
    }

    /// Opens a closed one again.
    pub async fn reopen_pull_request(
        &self,
        repository: &str,
        number: u64,
    ) -> Result<PullRequest, ClientError> {
        let segments = [
            "repositories",
            repository,
            "pull-requests",
            &number.to_string(),
            "reopen",
        ];
        self.command(Method::POST, &segments).await
    }

    /// Deletes the branch of a merged or closed one.
    pub async fn delete_head_branch(
        &self,
        repository: &str,
        number: u64,
    ) -> Result<PullRequest, ClientError> {
        let segments = [
            "repositories",
            repository,
            "pull-requests",
            &number.to_string(),
            "head-branch",
        ];
        self.command(Method::DELETE, &segments).await
    }
}
