//! Comments and reviews of pull requests.

use super::error::PullRequestError;
use super::state::{check_body, check_open};
use crate::forge::Forge;
use greenroom_protocol::client::person::Person;
use greenroom_protocol::client::pull_request::{
    AddComment, AddReview, Comment, LinePosition, PullRequest, Review, ReviewVerdict,
};
use std::path::Path;

/// Most comments, and most reviews, of one pull request.
const MAX_ENTRIES: usize = 2000;

impl Forge {
    /// Adds a comment, in any state of the pull request.
    ///
    /// # Errors
    /// `pull_request_unknown`, `pull_request_invalid` (empty or too long, or a position that is not in the head),
    /// `contended`, or git fails.
    pub async fn add_comment(
        &self,
        repository: &str,
        number: u64,
        author: &Person,
        comment: &AddComment,
    ) -> Result<PullRequest, PullRequestError> {
        check_text(&comment.body)?;
        if let Some(position) = &comment.position {
            let dir = self.dir(repository).await?;
            let refs = self.all_refs(&dir).await?;
            let head = self.load(&dir, &refs, number).await?.record.head_now(&refs);
            self.check_position(&dir, &head, position).await?;
        }
        let at_ms = self.now_ms();
        self.change(repository, number, (author, "Comment on"), |record, _| {
            check_room(record.comments.len())?;
            record.comments.push(Comment {
                id: record.comments.len() as u64 + 1,
                author: author.clone(),
                body: comment.body.clone(),
                position: comment.position.clone(),
                at_ms,
            });
            Ok(())
        })
        .await
    }

    /// Adds a review of the head as it is now.
    ///
    /// # Errors
    /// `pull_request_unknown`, `not_open`, `own_change` (the author or a prompter approves), `pull_request_invalid`
    /// (too long, or empty without being an approval), `contended`, or git fails.
    pub async fn add_review(
        &self,
        repository: &str,
        number: u64,
        author: &Person,
        review: &AddReview,
    ) -> Result<PullRequest, PullRequestError> {
        match review.verdict {
            ReviewVerdict::Approve => check_body(&review.body)?,
            ReviewVerdict::RequestChanges | ReviewVerdict::Comment => check_text(&review.body)?,
        }
        let at_ms = self.now_ms();
        self.change(repository, number, (author, "Review"), |record, refs| {
            check_open(record)?;
            check_room(record.reviews.len())?;
            let mut prompters = record.prompted_by.iter().chain([&record.author]);
            if review.verdict == ReviewVerdict::Approve && prompters.any(|person| person.id == author.id) {
                return Err(PullRequestError::OwnChange);
            }
            record.reviews.push(Review {
                id: record.reviews.len() as u64 + 1,
                author: author.clone(),
                verdict: review.verdict,
                body: review.body.clone(),
                commit: record.head_now(refs),
                at_ms,
            });
            Ok(())
        })
        .await
    }

    async fn check_position(
        &self,
        dir: &Path,
        head: &str,
        position: &LinePosition,
    ) -> Result<(), PullRequestError> {
        const REASON: PullRequestError = PullRequestError::Invalid {
            reason: "A comment's position is an existing line of a file in the head.",
        };
        // A line break would start a second request to `cat-file --batch`.
        let is_plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(char::is_control);
        if position.line == 0 || !position.path.split('/').all(is_plain) {
            return Err(REASON);
        }
        let contents = self
            .git()
            .contents(dir, &[format!("{head}:{}", position.path)])
            .await?;
        let Some(Some(content)) = contents.into_iter().next() else {
            return Err(REASON);
        };
        let breaks = content.iter().filter(|byte| **byte == b'\n').count() as u64;
        let lines = breaks + u64::from(content.last().is_some_and(|last| *last != b'\n'));
        if position.line > lines {
            Err(REASON)
        } else {
            Ok(())
        }
    }
}

fn check_text(text: &str) -> Result<(), PullRequestError> {
    if text.trim().is_empty() {
        return Err(PullRequestError::Invalid {
            reason: "The text is empty.",
        });
    }
    check_body(text)
}

fn check_room(count: usize) -> Result<(), PullRequestError> {
    if count < MAX_ENTRIES {
        return Ok(());
    }
    Err(PullRequestError::Invalid {
        reason: "This pull request has as many comments or reviews as one can have.",
    })
}
