//! Brings what a turn changed to the forge: a commit as the person who prompted, pushed to the session's branch by git in
//! the sandbox through the broker. The host never runs git inside a workspace.

use super::checkout::{self, Rejoined};
use super::command::SessionHandle;
use super::run::{disk_full, run, run_checked, run_named};
use super::services::SessionServices;
use super::workspace::SessionWorkspace;
use crate::workspace_git::{self, PUSH, SETTLE};
use greenroom_protocol::client::event::EventBody;
use greenroom_protocol::client::person::Person;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::pull_request::{Diff, PullRequestState};
use greenroom_protocol::guest::WORKSPACE_PATH;
use greenroom_protocol::guest::call::LimitKind;
use greenroom_protocol::id::SessionId;
use greenroom_stdx::chain::Chain;
use greenroom_store::session_log::Batch;
use tokio_util::sync::CancellationToken;

/// Who a turn's commits are by.
#[derive(Debug, Clone)]
pub struct ChangeAuthor {
    pub person: Person,
    pub session: SessionId,
}

impl ChangeAuthor {
    /// Environment for every program of the turn: git takes author and committer from it, the sandbox's commit hook the
    /// session for its trailer.
    pub fn git_environment(&self) -> Vec<(String, String)> {
        let session = ("GREENROOM_SESSION".to_owned(), self.session.as_str().to_owned());
        [git_identity(&self.person), vec![session]].concat()
    }
}

/// Environment by which git in a sandbox knows whose commits are made.
pub fn git_identity(person: &Person) -> Vec<(String, String)> {
    let Person { name, email, .. } = person;
    [
        ("GIT_AUTHOR_NAME", name.as_str()),
        ("GIT_AUTHOR_EMAIL", email),
        ("GIT_COMMITTER_NAME", name),
        ("GIT_COMMITTER_EMAIL", email),
        ("GIT_TERMINAL_PROMPT", "0"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

/// Options against what `.git/config` of a workspace may say.
const UNCONFIGURED: &[&str] = &[
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "commit.gpgsign=false",
];

/// Commits everything that is not ignored, pushes if the branch moved, and appends `change.pushed`. Returns the commit on
/// the forge, `None` while there is nothing to push. Cancelling ends it soon; the files stay in the sandbox.
pub async fn commit_and_push(
    services: &SessionServices,
    handle: &SessionHandle,
    workspace: &SessionWorkspace,
    subject: &str,
    cancel: &CancellationToken,
) -> Result<Option<String>, Problem> {
    let sandbox = tokio::select! {
        sandbox = workspace.sandbox() => sandbox?,
        () = cancel.cancelled() => {
            return Err(Problem::transient("push_stopped", "The turn was stopped before its changes were pushed.")
                .with_hint("They are in the sandbox; the next turn pushes them."));
        }
    };
    let fold = handle.fold().await?;
    let row = &fold.row;
    let env = workspace.author().git_environment();
    let git = async |arguments: &[&str], code: &str| {
        // What a repository configures must not decide whether work is kept.
        let argv = [&["git", "-C", WORKSPACE_PATH], UNCONFIGURED, arguments].concat();
        run_checked(&sandbox, &argv, env.clone(), code, cancel).await
    };
    let platform_env = [env.clone(), workspace_git::environment()].concat();
    let settle = workspace_git::command(SETTLE, &[]);
    let settled = run_named(
        &sandbox,
        "git status",
        &settle,
        platform_env.clone(),
        "commit_failed",
        cancel,
    )
    .await?;
    if let Some(unsettled) = Rejoined::read(settled.lines()) {
        // To be ended by who began it: a commit of it would be half of something.
        return Err(workspace.note_rejoined(&unsettled));
    }
    let add = [&["git", "-C", WORKSPACE_PATH], UNCONFIGURED, &["add", "-A"]].concat();
    let added = run(&sandbox, &add, env.clone(), cancel).await?;
    if added.limits_hit.contains(&LimitKind::Disk) {
        return Err(disk_full("commit_failed"));
    }
    if !added.is_success {
        if added.output.contains(".lock'") {
            // The turn is over, so whoever held the lock was stopped with it.
            checkout::remove_locks(&sandbox, env.clone(), cancel).await?;
        }
        git(&["add", "-A"], "commit_failed").await?;
    }
    let staged = [
        &["git", "-C", WORKSPACE_PATH],
        UNCONFIGURED,
        &["diff", "--cached", "--quiet"],
    ]
    .concat();
    if !run(&sandbox, &staged, env.clone(), cancel).await?.is_success {
        let trailer = format!("Greenroom-Session: {}", row.id);
        git(&["commit", "-q", "-m", subject, "-m", &trailer], "commit_failed").await?;
    }
    let head = ["git", "-C", WORKSPACE_PATH, "rev-parse", "-q", "--verify", "HEAD"];
    let head = run(&sandbox, &head, env.clone(), cancel).await?;
    if !head.is_success {
        workspace.pushed();
        return Ok(None);
    }
    let commit = head.output;
    let base = format!("refs/remotes/origin/{}", row.base_branch);
    let base = ["git", "-C", WORKSPACE_PATH, "rev-parse", "-q", "--verify", &base];
    let is_at_base = run(&sandbox, &base, env.clone(), cancel).await?.output == commit;
    if fold.pushed_commit.as_ref() == Some(&commit) || (fold.pushed_commit.is_none() && is_at_base) {
        workspace.pushed();
        return Ok(fold.pushed_commit);
    }
    let last = fold.pushed_commit.as_deref().unwrap_or_default();
    let argv = workspace_git::command(PUSH, &[&row.branch, last]);
    let said = run_named(&sandbox, "git push", &argv, platform_env, "push_failed", cancel).await?;
    if let Some(rejoined) = Rejoined::read(said.lines()) {
        let problem = workspace.note_rejoined(&rejoined);
        if rejoined != Rejoined::Joined {
            return Err(problem);
        }
        workspace.tell(vec![problem]).await;
    }
    let commit = said.lines().nth(1).unwrap_or(&commit).to_owned();
    let diff = services
        .forge
        .diff_branches(&row.repository, &row.base_branch, &row.branch)
        .await;
    let diff = diff.unwrap_or_else(|error| {
        // The push is a fact whatever can be said about its size.
        tracing::warn!(session = %row.id, error = %Chain(&error), "a pushed change could not be measured");
        Diff {
            files: Vec::new(),
            additions: 0,
            deletions: 0,
            is_truncated: true,
        }
    });
    let event = EventBody::ChangePushed {
        branch: row.branch.clone(),
        commit: commit.clone(),
        additions: diff.additions,
        deletions: diff.deletions,
        files: diff.files.into_iter().map(|file| file.path).collect(),
    };
    handle
        .append(Batch {
            events: vec![event],
            ..Batch::default()
        })
        .await?;
    workspace.pushed();
    for link in row
        .pull_requests
        .iter()
        .filter(|link| link.state == PullRequestState::Open)
    {
        // Whoever prompts a change may not approve it, also when the pull request was there before the prompt.
        let added = services
            .forge
            .add_prompter(&link.repository, link.number, &workspace.author().person)
            .await;
        added.map_err(|error| error.problem())?;
    }
    Ok(Some(commit))
}
