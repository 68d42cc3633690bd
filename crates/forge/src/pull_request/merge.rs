//! Merges pull requests without a working tree: new objects first, then all refs in one transaction, or nothing.
//!
//! A transaction over several refs is not proof against a crash in its middle. So the finished record is announced
//! under `refs/greenroom/merging/<n>` before it; whoever finds such a ref later sees from the base branch whether the
//! merge happened, and completes or forgets it.

use super::error::PullRequestError;
use super::message::{merge_message, squash_message};
use super::record::{MERGING, PullRecord, Stored, merging_ref, pull_ref};
use super::state::{ATTEMPTS, check_open, mirror_edit, pause};
use crate::forge::{Forge, Inner};
use crate::git::GitError;
use crate::git::commits::{MAX_COMMITS, NewCommit, Signature};
use crate::git::merge::{Replay, TreeMerge};
use crate::git::refs::{RefEdit, Refs, Transaction};
use crate::repository::error::RepositoryError;
use greenroom_protocol::client::person::Person;
use greenroom_protocol::client::pull_request::{
    MergeMethod, MergePullRequest, MergeRecord, PullRequest, PullRequestState,
};
use std::path::Path;
use std::sync::{Arc, PoisonError};

impl Forge {
    /// Merges an open pull request. Of several who try at once exactly one succeeds. Goes on to its end when the
    /// future is dropped.
    ///
    /// # Errors
    /// `pull_request_unknown`, `not_open`, `branch_unknown`, `head_moved`, `nothing_to_merge`, `merge_conflict`,
    /// `unrelated_histories`, `merge_in_progress`, `contended`; with `delete_head_branch` also `branch_is_default` and
    /// `branch_in_use`; or git fails. Nothing has changed then.
    pub async fn merge_pull_request(
        &self,
        repository: &str,
        number: u64,
        by: &Person,
        request: &MergePullRequest,
    ) -> Result<PullRequest, PullRequestError> {
        let (forge, repository, by, request) =
            (self.clone(), repository.to_owned(), by.clone(), request.clone());
        let merging = tokio::spawn(async move { forge.merge(&repository, number, &by, &request).await });
        merging.await.unwrap_or_else(|_| {
            Err(GitError::Unexpected {
                what: "merge".to_owned(),
            }
            .into())
        })
    }

    async fn merge(
        &self,
        repository: &str,
        number: u64,
        by: &Person,
        request: &MergePullRequest,
    ) -> Result<PullRequest, PullRequestError> {
        let dir = self.dir(repository).await?;
        let _turn = Turn::take(&self.inner, repository, number).ok_or(PullRequestError::MergeInProgress)?;
        self.finish_merge(&dir, number).await?;
        let mut expected_head = request.expected_head_commit.clone();
        for attempt in 1..=ATTEMPTS {
            let refs = self.all_refs(&dir).await?;
            let stored = self.load(&dir, &refs, number).await?;
            check_open(&stored.record)?;
            let (base, head) = ends(&refs, &stored.record)?;
            // A head that moves while this runs is not merged either: nobody has looked at it.
            if expected_head.as_ref().is_some_and(|expected| *expected != head) {
                return Err(PullRequestError::HeadMoved { head_commit: head });
            }
            expected_head = Some(head.clone());
            if request.delete_head_branch {
                self.check_deletable(repository, &dir, &stored.record.head_branch, Some(number))
                    .await?;
            }
            let plan = self
                .plan_merge(&dir, &stored, (&base, &head), by, request.method)
                .await?;
            match self.carry_out(&dir, &refs, &stored, &plan, request).await? {
                Transaction::Done => return self.pull_request(repository, number).await,
                Transaction::Raced => pause(attempt).await,
            }
        }
        Err(PullRequestError::Contended)
    }

    /// Writes the objects of a merge: the new tip of the base, and the record that says so.
    async fn plan_merge(
        &self,
        dir: &Path,
        stored: &Stored,
        (base, head): (&str, &str),
        by: &Person,
        method: MergeMethod,
    ) -> Result<Plan, PullRequestError> {
        let now_ms = self.now_ms();
        let merger = Signature::at(&by.name, &by.email, now_ms);
        let merged = match self.git().merge_trees(dir, base, head).await? {
            TreeMerge::Clean(tree) => tree,
            TreeMerge::Conflicts(paths) => return Err(PullRequestError::Conflict { paths }),
            TreeMerge::Unrelated => return Err(PullRequestError::Unrelated),
        };
        if merged == self.git().tree_of(dir, base).await? {
            return Err(PullRequestError::NothingToMerge);
        }
        let record = &stored.record;
        let commit = match method {
            MergeMethod::Merge => {
                let commit = NewCommit {
                    tree: &merged,
                    parents: &[base, head],
                    author: &merger,
                    committer: &merger,
                    message: &merge_message(record),
                };
                self.git().write_commit(dir, &commit).await?
            }
            MergeMethod::Squash => {
                let commits = self.git().log(dir, Some(base), head, MAX_COMMITS).await?;
                let commit = NewCommit {
                    tree: &merged,
                    parents: &[base],
                    author: &Signature::at(&record.author.name, &record.author.email, now_ms),
                    committer: &merger,
                    message: &squash_message(record, &commits),
                };
                self.git().write_commit(dir, &commit).await?
            }
            MergeMethod::Rebase => match self.git().replay(dir, base, head, &merger).await? {
                Replay::Tip(tip) if tip == base => return Err(PullRequestError::NothingToMerge),
                Replay::Tip(tip) => tip,
                Replay::Conflicts(paths) => return Err(PullRequestError::Conflict { paths }),
            },
        };
        let after = PullRecord {
            state: PullRequestState::Merged,
            head_commit: head.to_owned(),
            base_commit: base.to_owned(),
            merge: Some(MergeRecord {
                method,
                commit: commit.clone(),
                by: by.clone(),
                at_ms: now_ms,
            }),
            updated_at_ms: now_ms,
            ..PullRecord::clone(record)
        };
        let message = format!("Merge pull request {}", record.number);
        // The merged commits stay readable, also after a squash and after somebody rewrites the base.
        let record_commit = self
            .write_pull(dir, &after, Some(&stored.commit), &[head, base], (by, &message))
            .await?;
        Ok(Plan {
            base: base.to_owned(),
            head: head.to_owned(),
            commit,
            record_commit,
        })
    }

    /// Announces the merge, then moves all refs at once.
    async fn carry_out(
        &self,
        dir: &Path,
        refs: &Refs,
        stored: &Stored,
        plan: &Plan,
        request: &MergePullRequest,
    ) -> Result<Transaction, PullRequestError> {
        let record = &stored.record;
        let number = record.number;
        let announcement = RefEdit::Create {
            name: merging_ref(number),
            new: plan.record_commit.clone(),
        };
        if self.git().update_refs(dir, &[announcement]).await? == Transaction::Raced {
            return Ok(Transaction::Raced);
        }
        let head = format!("refs/heads/{}", record.head_branch);
        let old = plan.head.clone();
        // git moves refs in the order given, so the base comes first: it is what a later look decides by.
        let mut edits = vec![
            RefEdit::Update {
                name: format!("refs/heads/{}", record.base_branch),
                new: plan.commit.clone(),
                old: plan.base.clone(),
            },
            RefEdit::Update {
                name: pull_ref(number),
                new: plan.record_commit.clone(),
                old: stored.commit.clone(),
            },
        ];
        edits.extend(mirror_edit(refs, number, &plan.head));
        edits.push(if request.delete_head_branch {
            RefEdit::Delete { name: head, old }
        } else {
            RefEdit::Verify { name: head, old }
        });
        edits.push(RefEdit::Delete {
            name: merging_ref(number),
            old: plan.record_commit.clone(),
        });
        let moved = self.git().update_refs(dir, &edits).await;
        if !matches!(moved, Ok(Transaction::Done)) {
            self.finish_merge(dir, number).await?;
        }
        Ok(moved?)
    }

    /// Completes or forgets every announced merge of a repository; only while nobody merges.
    pub(crate) async fn finish_merges_of(&self, repository: &str) -> Result<(), PullRequestError> {
        let dir = self.dir(repository).await?;
        let refs = self.git().refs(&dir, &[MERGING]).await?;
        let prefix = format!("{MERGING}/");
        let numbers: Vec<u64> = refs
            .under(&prefix)
            .filter_map(|(number, _)| number.parse().ok())
            .collect();
        for number in numbers {
            self.finish_merge(&dir, number).await?;
        }
        Ok(())
    }

    /// Completes an announced merge if the base branch has it, forgets it otherwise.
    async fn finish_merge(&self, dir: &Path, number: u64) -> Result<(), PullRequestError> {
        let announced = self.git().refs(dir, &[&merging_ref(number)]).await?;
        let Some(announced) = announced.get(&merging_ref(number)).map(str::to_owned) else {
            return Ok(());
        };
        let refs = self.all_refs(dir).await?;
        let current = self.load(dir, &refs, number).await?;
        let planned = self.load_commit(dir, number, &announced).await?.record;
        let mut edits = Vec::new();
        if current.commit != announced && current.record.state == PullRequestState::Open {
            let base = refs.branch(&planned.base_branch);
            if let (Some(base), Some(merge)) = (base, &planned.merge)
                && self.git().is_ancestor(dir, &merge.commit, base).await?
            {
                tracing::warn!(number, "a merge that was cut short is completed");
                edits.push(RefEdit::Update {
                    name: pull_ref(number),
                    new: announced.clone(),
                    old: current.commit,
                });
                edits.extend(mirror_edit(&refs, number, &planned.head_commit));
            }
        }
        edits.push(RefEdit::Delete {
            name: merging_ref(number),
            old: announced,
        });
        self.git().update_refs(dir, &edits).await?;
        Ok(())
    }
}

/// What a merge will write to refs; its objects exist.
#[derive(Debug)]
struct Plan {
    base: String,
    head: String,
    commit: String,
    record_commit: String,
}

/// Base and head commit of an open pull request.
fn ends(refs: &Refs, record: &PullRecord) -> Result<(String, String), RepositoryError> {
    let branch = |name: &str| {
        let commit = refs.branch(name).map(str::to_owned);
        commit.ok_or_else(|| RepositoryError::BranchUnknown {
            branch: name.to_owned(),
        })
    };
    Ok((branch(&record.base_branch)?, branch(&record.head_branch)?))
}

/// The right to merge one pull request in this process; given back on drop.
struct Turn {
    inner: Arc<Inner>,
    key: (String, u64),
}

impl Turn {
    fn take(inner: &Arc<Inner>, repository: &str, number: u64) -> Option<Self> {
        let key = (repository.to_owned(), number);
        let mut merging = inner.merging.lock().unwrap_or_else(PoisonError::into_inner);
        merging.insert(key.clone()).then(|| Self {
            inner: Arc::clone(inner),
            key,
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut merging = self.inner.merging.lock().unwrap_or_else(PoisonError::into_inner);
        merging.remove(&self.key);
    }
}
