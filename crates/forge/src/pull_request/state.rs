//! Changes of a pull request that move no branch: title, prompters, close, reopen; and deleting its head branch.

use super::error::PullRequestError;
use super::record::{PullRecord, Stored, mirror_ref, pull_ref};
use crate::forge::Forge;
use crate::git::refs::{RefEdit, Refs, Transaction};
use crate::repository::error::RepositoryError;
use greenroom_protocol::client::person::Person;
use greenroom_protocol::client::pull_request::{Mergeability, PullRequest, PullRequestState};
use greenroom_stdx::backoff::Backoff;
use std::sync::Arc;
use std::time::Duration;

/// How often an operation starts anew because somebody else was faster.
pub(crate) const ATTEMPTS: u32 = 50;
/// Pause before it does, so that many at once get through.
const PAUSE: Backoff = Backoff {
    first: Duration::from_millis(5),
    max: Duration::from_millis(200),
};
const MAX_TITLE_CHARS: usize = 256;
const MAX_BODY_BYTES: usize = 64 * 1024;

/// Waits a little after losing a race for the `attempt`th time.
pub(crate) async fn pause(attempt: u32) {
    tokio::time::sleep(PAUSE.delay(attempt, Backoff::random())).await;
}

pub(crate) fn check_title(title: &str) -> Result<(), PullRequestError> {
    let title = title.trim();
    if title.is_empty() || title.chars().count() > MAX_TITLE_CHARS || title.contains(char::is_control) {
        return Err(PullRequestError::Invalid {
            reason: "A title is one line of 1 to 256 characters.",
        });
    }
    Ok(())
}

pub(crate) fn check_body(body: &str) -> Result<(), PullRequestError> {
    if body.len() > MAX_BODY_BYTES || body.contains('\0') {
        return Err(PullRequestError::Invalid {
            reason: "A text has at most 64 KiB and no NUL characters.",
        });
    }
    Ok(())
}

pub(crate) fn check_open(record: &PullRecord) -> Result<(), PullRequestError> {
    match record.state {
        PullRequestState::Open => Ok(()),
        state => Err(PullRequestError::NotOpen { state }),
    }
}

impl Forge {
    /// Changes title or body, whichever is given.
    ///
    /// # Errors
    /// `pull_request_unknown`, `pull_request_invalid`, `contended`, or git fails.
    pub async fn update_pull_request(
        &self,
        repository: &str,
        number: u64,
        by: &Person,
        (title, body): (Option<&str>, Option<&str>),
    ) -> Result<PullRequest, PullRequestError> {
        title.map_or(Ok(()), check_title)?;
        body.map_or(Ok(()), check_body)?;
        self.change(repository, number, (by, "Edit"), |record, _| {
            if let Some(title) = title {
                title.trim().clone_into(&mut record.title);
            }
            if let Some(body) = body {
                body.clone_into(&mut record.body);
            }
            Ok(())
        })
        .await
    }

    /// Notes that somebody's prompt went into the change, so that they may not approve it. Nothing changes if known.
    ///
    /// # Errors
    /// `pull_request_unknown`, `contended`, or git fails.
    pub async fn add_prompter(
        &self,
        repository: &str,
        number: u64,
        prompter: &Person,
    ) -> Result<PullRequest, PullRequestError> {
        self.change(
            repository,
            number,
            (prompter, "Add a prompter to"),
            |record, _| {
                if !record.prompted_by.iter().any(|person| person.id == prompter.id) {
                    record.prompted_by.push(prompter.clone());
                }
                Ok(())
            },
        )
        .await
    }

    /// Closes an open pull request; its head and base stay recorded as they are now.
    ///
    /// # Errors
    /// `pull_request_unknown`, `not_open`, `contended`, or git fails.
    pub async fn close_pull_request(
        &self,
        repository: &str,
        number: u64,
        by: &Person,
    ) -> Result<PullRequest, PullRequestError> {
        self.change(repository, number, (by, "Close"), |record, refs| {
            check_open(record)?;
            let (head, base) = (record.head_now(refs), record.base_now(refs));
            record.state = PullRequestState::Closed;
            record.head_commit = head;
            record.base_commit = base;
            Ok(())
        })
        .await
    }

    /// Opens a closed pull request again if both branches exist, still differ, and no other open one joins them.
    ///
    /// # Errors
    /// `pull_request_unknown`, `not_closed`, `branch_unknown`, `pull_request_exists`, `nothing_to_merge`,
    /// `unrelated_histories`, `contended`, or git fails.
    pub async fn reopen_pull_request(
        &self,
        repository: &str,
        number: u64,
        by: &Person,
    ) -> Result<PullRequest, PullRequestError> {
        let dir = self.dir(repository).await?;
        let refs = self.all_refs(&dir).await?;
        let record = self.load(&dir, &refs, number).await?.record;
        if record.state == PullRequestState::Closed
            && let (Some(base), Some(head)) =
                (refs.branch(&record.base_branch), refs.branch(&record.head_branch))
        {
            match self.merges(&dir, base, head).await? {
                Mergeability::NothingToMerge => return Err(PullRequestError::NothingToMerge),
                Mergeability::NotApplicable => return Err(PullRequestError::Unrelated),
                Mergeability::Clean | Mergeability::Conflicting { .. } => {}
            }
        }
        let others: Vec<Stored> = self.load_all(&dir, &refs).await?;
        self.change(repository, number, (by, "Reopen"), |record, refs| {
            if record.state != PullRequestState::Closed {
                return Err(PullRequestError::NotClosed { state: record.state });
            }
            for branch in [&record.head_branch, &record.base_branch] {
                if refs.branch(branch).is_none() {
                    let branch = branch.clone();
                    return Err(RepositoryError::BranchUnknown { branch }.into());
                }
            }
            let same = others.iter().map(|one| &one.record).find(|other| {
                other.number != number
                    && other.state == PullRequestState::Open
                    && other.head_branch == record.head_branch
                    && other.base_branch == record.base_branch
            });
            if let Some(same) = same {
                return Err(PullRequestError::Exists { number: same.number });
            }
            record.state = PullRequestState::Open;
            Ok(())
        })
        .await
    }

    /// Deletes the head branch of a merged or closed pull request. Nothing happens if it is gone.
    ///
    /// # Errors
    /// `pull_request_unknown`, `not_closed` (it is open), `branch_is_default`, `branch_in_use`, `head_moved` (somebody
    /// pushed to it after the merge), or git fails.
    pub async fn delete_head_branch(
        &self,
        repository: &str,
        number: u64,
    ) -> Result<PullRequest, PullRequestError> {
        let dir = self.dir(repository).await?;
        let refs = self.all_refs(&dir).await?;
        let stored = self.load(&dir, &refs, number).await?;
        let record = &stored.record;
        if record.state == PullRequestState::Open {
            return Err(PullRequestError::NotClosed { state: record.state });
        }
        let Some(head) = refs.branch(&record.head_branch) else {
            return self.show(repository, &dir, &refs, &stored).await;
        };
        self.check_deletable(repository, &dir, &record.head_branch, Some(number))
            .await?;
        let moved = |head: &str| PullRequestError::HeadMoved {
            head_commit: head.to_owned(),
        };
        // Commits pushed after the merge would be lost without anybody having seen them.
        if head != record.head_commit {
            return Err(moved(head));
        }
        let edit = RefEdit::Delete {
            name: format!("refs/heads/{}", record.head_branch),
            old: head.to_owned(),
        };
        match self.git().update_refs(&dir, &[edit]).await? {
            Transaction::Done => self.pull_request(repository, number).await,
            Transaction::Raced => Err(moved(head)),
        }
    }

    /// Applies `change` to the newest record and stores it; starts anew if somebody else stored one meanwhile.
    /// `change` sees the refs of that moment and may be called several times.
    pub(crate) async fn change(
        &self,
        repository: &str,
        number: u64,
        (by, verb): (&Person, &str),
        change: impl Fn(&mut PullRecord, &Refs) -> Result<(), PullRequestError>,
    ) -> Result<PullRequest, PullRequestError> {
        let dir = self.dir(repository).await?;
        for attempt in 1..=ATTEMPTS {
            let refs = self.all_refs(&dir).await?;
            let stored = self.load(&dir, &refs, number).await?;
            let mut record = PullRecord::clone(&stored.record);
            change(&mut record, &refs)?;
            if record == *stored.record {
                return self.show(repository, &dir, &refs, &stored).await;
            }
            record.updated_at_ms = self.now_ms();
            let message = format!("{verb} pull request {number}");
            // A closed one shows these commits for ever, whatever becomes of the branches.
            let keep: &[&str] = match record.state {
                PullRequestState::Closed => &[&record.head_commit, &record.base_commit],
                PullRequestState::Open | PullRequestState::Merged => &[],
            };
            let commit = self
                .write_pull(&dir, &record, Some(&stored.commit), keep, (by, &message))
                .await?;
            let mut edits = vec![RefEdit::Update {
                name: pull_ref(number),
                new: commit.clone(),
                old: stored.commit.clone(),
            }];
            edits.extend(mirror_edit(&refs, number, &record.head_now(&refs)));
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
}

/// What makes the mirror of a head right, if it is not.
pub(crate) fn mirror_edit(refs: &Refs, number: u64, head: &str) -> Option<RefEdit> {
    let (name, new) = (mirror_ref(number), head.to_owned());
    match refs.get(&name) {
        Some(old) if old == head => None,
        Some(old) => Some(RefEdit::Update {
            name,
            new,
            old: old.to_owned(),
        }),
        None => Some(RefEdit::Create { name, new }),
    }
}
