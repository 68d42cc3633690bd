//! `greenroom pr …`.

use super::{diff, input, table};
use crate::arguments::{Global, Method, PrCommand, StateFilter};
use crate::connection;
use crate::failure::{Exit, Failure};
use crate::terminal::{Span, Style, Terminal};
use greenroom_protocol::client::pull_request::{
    AddReview, Commit, MergeMethod, MergePullRequest, Mergeability, PullRequest, PullRequestState,
    ReviewVerdict,
};

/// Carries out one of the pull request commands.
pub async fn run(global: &Global, command: PrCommand, terminal: Terminal) -> Result<Exit, Failure> {
    match command {
        PrCommand::List { state, repo, json } => {
            let state = match state {
                StateFilter::Open => Some(PullRequestState::Open),
                StateFilter::Merged => Some(PullRequestState::Merged),
                StateFilter::Closed => Some(PullRequestState::Closed),
                StateFilter::All => None,
            };
            let client = connection::connect(global)?;
            let pull_requests = client.pull_requests(state, repo.as_deref()).await?.pull_requests;
            if json {
                pull_requests
                    .iter()
                    .try_for_each(|pull_request| terminal.json(pull_request))?;
            } else {
                list(&pull_requests, terminal)?;
            }
        }
        PrCommand::Show { which, json } => {
            let (repository, number) = input::pull_request(&which.pull_request)?;
            let client = connection::connect(global)?;
            let pull_request = client.pull_request(&repository, number).await?;
            if json {
                terminal.json(&pull_request)?;
            } else {
                let commits = client.pull_request_commits(&repository, number).await?.commits;
                let url = client.page_url(&format!("/repositories/{repository}/pull-requests/{number}"));
                show(&pull_request, &commits, &url, terminal)?;
            }
        }
        PrCommand::Diff { which, json } => {
            let (repository, number) = input::pull_request(&which.pull_request)?;
            let client = connection::connect(global)?;
            let diff = client.pull_request_diff(&repository, number).await?;
            match json {
                true => terminal.json(&diff)?,
                false => diff::print(&diff, terminal)?,
            }
        }
        PrCommand::Merge {
            which,
            method,
            delete_branch,
            json,
        } => {
            let (repository, number) = input::pull_request(&which.pull_request)?;
            let client = connection::connect(global)?;
            let _progress = terminal.progress(format!("merging {repository}#{number}"));
            // The head as it is now: what this person could have looked at, and nothing pushed since.
            let head = client.pull_request(&repository, number).await?.head_commit;
            let merge = MergePullRequest {
                method: match method {
                    Method::Merge => MergeMethod::Merge,
                    Method::Squash => MergeMethod::Squash,
                    Method::Rebase => MergeMethod::Rebase,
                },
                expected_head_commit: Some(head),
                delete_head_branch: delete_branch,
            };
            let merged = client.merge_pull_request(&repository, number, &merge).await?;
            match (json, &merged.merge) {
                (true, _) => terminal.json(&merged)?,
                (false, Some(record)) => terminal.line(&[
                    Span::new(Style::Green, format!("merged {repository}#{number} ")),
                    Span::plain(format!(
                        "into {} as {}",
                        merged.base_branch,
                        short(&record.commit)
                    )),
                ])?,
                (false, None) => terminal.line(&[Span::plain(state_word(merged.state))])?,
            }
        }
        PrCommand::Review {
            which,
            approve,
            request_changes,
            body,
            json,
        } => {
            let (repository, number) = input::pull_request(&which.pull_request)?;
            let verdict = match (approve, request_changes) {
                (true, _) => ReviewVerdict::Approve,
                (false, true) => ReviewVerdict::RequestChanges,
                (false, false) => ReviewVerdict::Comment,
            };
            let client = connection::connect(global)?;
            let reviewed = client
                .add_review(&repository, number, &AddReview { verdict, body })
                .await?;
            match json {
                true => terminal.json(&reviewed)?,
                false => terminal.line(&[Span::plain(format!(
                    "{repository}#{number} {}",
                    verdict_word(verdict)
                ))])?,
            }
        }
    }
    Ok(Exit::Success)
}

fn list(pull_requests: &[PullRequest], terminal: Terminal) -> Result<(), Failure> {
    let rows: Vec<_> = pull_requests
        .iter()
        .map(|pull_request| {
            vec![
                format!("{}#{}", pull_request.repository, pull_request.number),
                state_word(pull_request.state).to_owned(),
                pull_request.author.name.clone(),
                pull_request.head_branch.clone(),
                pull_request.title.clone(),
            ]
        })
        .collect();
    table::print(
        terminal,
        &["PULL REQUEST", "STATE", "AUTHOR", "BRANCH", "TITLE"],
        &rows,
    )
}

fn show(
    pull_request: &PullRequest,
    commits: &[Commit],
    url: &str,
    terminal: Terminal,
) -> Result<(), Failure> {
    let title = format!(
        "{}#{} {}",
        pull_request.repository, pull_request.number, pull_request.title
    );
    terminal.line(&[Span::new(Style::Bold, title)])?;
    let facts = format!(
        "{}, {} → {}, by {}",
        state_word(pull_request.state),
        pull_request.head_branch,
        pull_request.base_branch,
        pull_request.author.name
    );
    terminal.line(&[Span::new(Style::Dim, facts)])?;
    terminal.line(&[Span::new(Style::Dim, url)])?;
    if let Some(session) = &pull_request.session {
        terminal.line(&[Span::new(Style::Dim, format!("from session {session}"))])?;
    }
    match &pull_request.mergeability {
        Mergeability::Clean => terminal.line(&[Span::new(Style::Green, "can be merged")])?,
        Mergeability::Conflicting { paths } => {
            terminal.line(&[Span::new(
                Style::Red,
                format!("conflicts in {}", paths.join(", ")),
            )])?;
        }
        Mergeability::NothingToMerge => {
            terminal.line(&[Span::new(Style::Yellow, "adds nothing to its base")])?
        }
        Mergeability::NotApplicable => {}
    }
    if !pull_request.body.trim().is_empty() {
        terminal.line(&[Span::plain(format!("\n{}", pull_request.body.trim()))])?;
    }
    terminal.line(&[])?;
    for commit in commits {
        let subject = commit.message.lines().next().unwrap_or_default();
        terminal.line(&[
            Span::new(Style::Yellow, short(&commit.id)),
            Span::plain(format!(" {subject} ")),
            Span::new(
                Style::Dim,
                format!("{} <{}>", commit.author_name, commit.author_email),
            ),
        ])?;
    }
    for review in &pull_request.reviews {
        let line = format!(
            "{} {}: {}",
            review.author.name,
            verdict_word(review.verdict),
            review.body
        );
        terminal.line(&[Span::plain(line)])?;
    }
    for comment in &pull_request.comments {
        let place = comment
            .position
            .as_ref()
            .map(|at| format!(" on {}:{}", at.path, at.line))
            .unwrap_or_default();
        terminal.line(&[Span::plain(format!(
            "{}{place}: {}",
            comment.author.name, comment.body
        ))])?;
    }
    Ok(())
}

fn short(commit: &str) -> String {
    commit.chars().take(10).collect()
}

fn state_word(state: PullRequestState) -> &'static str {
    match state {
        PullRequestState::Open => "open",
        PullRequestState::Merged => "merged",
        PullRequestState::Closed => "closed",
    }
}

fn verdict_word(verdict: ReviewVerdict) -> &'static str {
    match verdict {
        ReviewVerdict::Approve => "approved",
        ReviewVerdict::RequestChanges => "requested changes",
        ReviewVerdict::Comment => "commented",
    }
}
