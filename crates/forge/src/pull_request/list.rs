//! Reads pull requests: one, many, their commits and their diff. Changes nothing but the mirror of a pushed head.

use super::error::PullRequestError;
use super::record::{PULLS, PullRecord, Stored, mirror_ref};
use crate::forge::Forge;
use crate::git::commits::MAX_COMMITS;
use crate::git::refs::{RefEdit, Refs};
use crate::repository::error::RepositoryError;
use futures_util::{StreamExt as _, TryStreamExt as _};
use greenroom_protocol::client::pull_request::{Commit, Diff, PullRequest, PullRequestState};
use std::path::Path;

/// Pull requests whose mergeability is computed at once when many are listed.
const LISTED_AT_ONCE: usize = 4;

/// Which pull requests to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PullRequestFilter {
    /// All of them.
    #[default]
    All,
    /// Those in one state.
    In(PullRequestState),
}

impl PullRequestFilter {
    fn takes(self, record: &PullRecord) -> bool {
        match self {
            Self::All => true,
            Self::In(state) => record.state == state,
        }
    }
}

impl Forge {
    /// One pull request, its head and mergeability as of now.
    ///
    /// # Errors
    /// `repository_unknown`, `pull_request_unknown`, or git fails.
    pub async fn pull_request(&self, repository: &str, number: u64) -> Result<PullRequest, PullRequestError> {
        let dir = self.dir(repository).await?;
        let refs = self.all_refs(&dir).await?;
        let stored = self.load(&dir, &refs, number).await?;
        self.show(repository, &dir, &refs, &stored).await
    }

    /// Pull requests of one repository, newest first.
    ///
    /// # Errors
    /// `repository_unknown`, or git fails.
    pub async fn pull_requests(
        &self,
        repository: &str,
        filter: PullRequestFilter,
    ) -> Result<Vec<PullRequest>, PullRequestError> {
        let dir = self.dir(repository).await?;
        let refs = self.all_refs(&dir).await?;
        let stored = self.load_all(&dir, &refs).await?;
        let wanted: Vec<Stored> = stored
            .into_iter()
            .rev()
            .filter(|one| filter.takes(&one.record))
            .collect();
        let (dir, refs) = (&dir, &refs);
        futures_util::stream::iter(wanted)
            .map(|stored| async move { self.show(repository, dir, refs, &stored).await })
            .buffered(LISTED_AT_ONCE)
            .try_collect()
            .await
    }

    /// Pull requests of all repositories, newest first.
    ///
    /// # Errors
    /// git fails.
    pub async fn all_pull_requests(
        &self,
        filter: PullRequestFilter,
    ) -> Result<Vec<PullRequest>, PullRequestError> {
        let mut all = Vec::new();
        for name in self.names().await? {
            match self.pull_requests(&name, filter).await {
                Ok(some) => all.extend(some),
                // Deleted since the folder was read.
                Err(PullRequestError::Repository(RepositoryError::Unknown { .. })) => {}
                Err(error) => return Err(error),
            }
        }
        all.sort_by_key(|one| std::cmp::Reverse((one.created_at_ms, one.number)));
        Ok(all)
    }

    /// Commits a pull request adds, oldest first; of a merged or closed one as they were then. At most the newest 10,000.
    ///
    /// # Errors
    /// `repository_unknown`, `pull_request_unknown`, or git fails.
    pub async fn pull_request_commits(
        &self,
        repository: &str,
        number: u64,
    ) -> Result<Vec<Commit>, PullRequestError> {
        let (dir, base, head) = self.ends(repository, number).await?;
        let commits = self.git().log(&dir, Some(&base), &head, MAX_COMMITS).await?;
        Ok(commits.into_iter().map(Commit::from).collect())
    }

    /// Changes from the merge base to the head.
    ///
    /// # Errors
    /// `repository_unknown`, `pull_request_unknown`, or git fails.
    pub async fn pull_request_diff(&self, repository: &str, number: u64) -> Result<Diff, PullRequestError> {
        let (dir, base, head) = self.ends(repository, number).await?;
        Ok(self.diff_commits(&dir, &base, &head).await?)
    }

    /// The repository's folder, the base and the head commit.
    async fn ends(
        &self,
        repository: &str,
        number: u64,
    ) -> Result<(std::path::PathBuf, String, String), PullRequestError> {
        let dir = self.dir(repository).await?;
        let refs = self.all_refs(&dir).await?;
        let record = self.load(&dir, &refs, number).await?.record;
        Ok((dir, record.base_now(&refs), record.head_now(&refs)))
    }

    /// A stored pull request as people see it.
    pub(crate) async fn show(
        &self,
        repository: &str,
        dir: &Path,
        refs: &Refs,
        stored: &Stored,
    ) -> Result<PullRequest, PullRequestError> {
        let mergeability = self.mergeability(dir, refs, &stored.record).await?;
        let record = PullRecord::clone(&stored.record);
        Ok(PullRequest {
            repository: repository.to_owned(),
            number: record.number,
            head_commit: record.head_now(refs),
            base_commit: record.base_now(refs),
            is_head_branch_deleted: refs.branch(&record.head_branch).is_none(),
            title: record.title,
            body: record.body,
            state: record.state,
            author: record.author,
            session: record.session,
            prompted_by: record.prompted_by,
            head_branch: record.head_branch,
            base_branch: record.base_branch,
            mergeability,
            comments: record.comments,
            reviews: record.reviews,
            merge: record.merge,
            created_at_ms: record.created_at_ms,
            updated_at_ms: record.updated_at_ms,
        })
    }

    /// The open pull request (other than `except`) that has `branch` as head or base, if there is one.
    pub(crate) async fn open_pull_request_using(
        &self,
        repository: &str,
        dir: &Path,
        branch: &str,
        except: Option<u64>,
    ) -> Result<Option<u64>, RepositoryError> {
        let refs = self.git().refs(dir, &[PULLS]).await?;
        let stored = match self.load_all(dir, &refs).await {
            Ok(stored) => stored,
            Err(PullRequestError::Repository(error)) => return Err(error),
            Err(PullRequestError::Record { source, .. }) => return Err(RepositoryError::Record { source }),
            Err(other) => {
                tracing::error!(repository, error = %other, "cannot read pull requests");
                return Err(RepositoryError::BranchMoved {
                    branch: branch.to_owned(),
                });
            }
        };
        let user = stored.into_iter().find(|one| {
            let record = &one.record;
            record.state == PullRequestState::Open
                && Some(record.number) != except
                && (record.head_branch == branch || record.base_branch == branch)
        });
        Ok(user.map(|one| one.record.number))
    }

    /// After a push: open pull requests' heads under `refs/pull/<n>/head` follow their branches.
    pub(crate) async fn mirror_heads(&self, dir: &Path, refs: &Refs) -> Result<(), PullRequestError> {
        let mut edits = Vec::new();
        for stored in self.load_all(dir, refs).await? {
            let record = &stored.record;
            let name = mirror_ref(record.number);
            let head = refs.branch(&record.head_branch).map(str::to_owned);
            let Some(new) = head.filter(|_| record.state == PullRequestState::Open) else {
                continue;
            };
            match refs.get(&name) {
                Some(old) if old == new => {}
                Some(old) => edits.push(RefEdit::Update {
                    name,
                    new,
                    old: old.to_owned(),
                }),
                None => edits.push(RefEdit::Create { name, new }),
            }
        }
        // Whoever won a race has mirrored a newer head, or the next push does.
        if !edits.is_empty() {
            self.git().update_refs(dir, &edits).await?;
        }
        Ok(())
    }
}
