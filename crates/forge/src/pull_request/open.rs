//! Opens pull requests. The number is taken by creating its ref, which also keeps two equal ones from being opened.

use super::error::PullRequestError;
use super::record::{GENERATION, PULLS, PullRecord, Stored, mirror_ref, pull_ref};
use super::state::{ATTEMPTS, check_body, check_title, pause};
use crate::forge::Forge;
use crate::git::refs::{RefEdit, Refs, Transaction};
use crate::repository::error::RepositoryError;
use greenroom_protocol::client::person::Person;
use greenroom_protocol::client::pull_request::{Mergeability, PullRequest, PullRequestState};
use greenroom_protocol::id::SessionId;
use std::path::Path;
use std::sync::Arc;

/// A pull request to be opened.
#[derive(Debug, Clone)]
pub struct NewPullRequest {
    /// One line of 1 to 256 characters.
    pub title: String,
    /// Markdown of at most 64 KiB; may be empty.
    pub body: String,
    /// Must exist and add something to the base.
    pub head_branch: String,
    /// Absent: the default branch.
    pub base_branch: Option<String>,
    /// Who asked for the work.
    pub author: Person,
    /// The session that did it.
    pub session: Option<SessionId>,
    /// Everyone whose prompts led to it; they may not approve it, nor may the author.
    pub prompted_by: Vec<Person>,
    /// A repeated call with the same key and branches returns the one that exists, whatever has become of it.
    pub idempotency_key: Option<String>,
}

impl Forge {
    /// Opens a pull request.
    ///
    /// # Errors
    /// `repository_unknown`, `branch_unknown`, `pull_request_exists`, `pull_request_invalid`, `nothing_to_merge`,
    /// `unrelated_histories`, `idempotency_conflict`, `contended`, or git fails.
    pub async fn open_pull_request(
        &self,
        repository: &str,
        new: &NewPullRequest,
    ) -> Result<PullRequest, PullRequestError> {
        let dir = self.dir(repository).await?;
        check_title(&new.title)?;
        check_body(&new.body)?;
        let base_branch = match &new.base_branch {
            Some(branch) => branch.clone(),
            None => self
                .default_branch(repository)
                .await?
                .ok_or_else(|| RepositoryError::BranchUnknown {
                    branch: "main".to_owned(),
                })?,
        };
        for attempt in 1..=ATTEMPTS {
            let refs = self.all_refs(&dir).await?;
            let all = self.load_all(&dir, &refs).await?;
            if let Some(stored) = find_by_key(&all, new, &base_branch)? {
                return self.show(repository, &dir, &refs, stored).await;
            }
            let number = next_number(&refs);
            let record = self.plan(&dir, &refs, &all, new, (&base_branch, number)).await?;
            let message = format!("Open pull request {number}");
            let keep = [record.base_commit.as_str()];
            let commit = self
                .write_pull(&dir, &record, None, &keep, (&new.author, &message))
                .await?;
            let edits = [
                RefEdit::Create {
                    name: pull_ref(number),
                    new: commit.clone(),
                },
                RefEdit::Create {
                    name: mirror_ref(number),
                    new: record.head_commit.clone(),
                },
            ];
            match self.git().update_refs(&dir, &edits).await? {
                Transaction::Done => {
                    let stored = Stored {
                        record: Arc::new(record),
                        commit,
                    };
                    return self.show(repository, &dir, &refs, &stored).await;
                }
                Transaction::Raced => pause(attempt).await,
            }
        }
        Err(PullRequestError::Contended)
    }

    /// The record to store, if the branches allow it.
    async fn plan(
        &self,
        dir: &Path,
        refs: &Refs,
        all: &[Stored],
        new: &NewPullRequest,
        (base_branch, number): (&str, u64),
    ) -> Result<PullRecord, PullRequestError> {
        let branch = |name: &str| {
            let commit = refs.branch(name).map(str::to_owned);
            commit.ok_or_else(|| RepositoryError::BranchUnknown {
                branch: name.to_owned(),
            })
        };
        let (head_commit, base_commit) = (branch(&new.head_branch)?, branch(base_branch)?);
        let same = all.iter().find(|one| {
            one.record.state == PullRequestState::Open
                && one.record.head_branch == new.head_branch
                && one.record.base_branch == base_branch
        });
        if let Some(same) = same {
            return Err(PullRequestError::Exists {
                number: same.record.number,
            });
        }
        match self.merges(dir, &base_commit, &head_commit).await? {
            Mergeability::NothingToMerge => return Err(PullRequestError::NothingToMerge),
            Mergeability::NotApplicable => return Err(PullRequestError::Unrelated),
            Mergeability::Clean | Mergeability::Conflicting { .. } => {}
        }
        let now_ms = self.now_ms();
        Ok(PullRecord {
            generation: GENERATION,
            number,
            title: new.title.trim().to_owned(),
            body: new.body.clone(),
            state: PullRequestState::Open,
            author: new.author.clone(),
            session: new.session.clone(),
            prompted_by: new.prompted_by.clone(),
            head_branch: new.head_branch.clone(),
            base_branch: base_branch.to_owned(),
            head_commit,
            base_commit,
            comments: Vec::new(),
            reviews: Vec::new(),
            merge: None,
            idempotency_key: new.idempotency_key.clone(),
            created_at_ms: now_ms,
            updated_at_ms: now_ms,
        })
    }
}

fn find_by_key<'a>(
    all: &'a [Stored],
    new: &NewPullRequest,
    base_branch: &str,
) -> Result<Option<&'a Stored>, PullRequestError> {
    let Some(key) = &new.idempotency_key else {
        return Ok(None);
    };
    let found = all
        .iter()
        .find(|one| one.record.idempotency_key.as_ref() == Some(key));
    match found {
        Some(one) if one.record.head_branch != new.head_branch || one.record.base_branch != base_branch => {
            Err(PullRequestError::KeyReused {
                number: one.record.number,
            })
        }
        found => Ok(found),
    }
}

/// One more than the highest there is.
fn next_number(refs: &Refs) -> u64 {
    let prefix = format!("{PULLS}/");
    let highest = refs
        .under(&prefix)
        .filter_map(|(number, _)| number.parse::<u64>().ok())
        .max();
    highest.unwrap_or(0) + 1
}
