//! Brings the repository into a fresh sandbox, by git itself and through the broker's route, so without any credential.

use super::changes::ChangeAuthor;
use super::run::{run, run_checked};
use crate::sandbox::{Sandbox, SandboxError};
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::session::Session;
use greenroom_protocol::guest::call::{Call, CallErrorCode, Scope};
use greenroom_protocol::guest::{GIT_PORT, WORKSPACE_PATH};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Says that the checkout is whole. Inside `.git`, so that no commit can hold it.
const DONE_MARK: &str = "/workspace/.git/greenroom-checkout";

/// A usable sandbox answers in milliseconds.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// Clones the session's repository into the workspace and switches to the session's branch. Does nothing if an earlier
/// start finished this; a half-finished one is done again.
pub async fn ensure(sandbox: &Arc<dyn Sandbox>, row: &Session, author: &ChangeAuthor) -> Result<(), Problem> {
    match sandbox
        .call(Call::Stat {
            path: DONE_MARK.to_owned(),
            scope: Scope::Sandbox,
        })
        .await
    {
        Ok(_) => return Ok(()),
        Err(SandboxError::Call(error)) if error.code == CallErrorCode::NotFound => {}
        // Anything else says nothing about the checkout, and doing it again would throw work away.
        Err(SandboxError::Call(error)) => {
            return Err(Problem::transient(
                "checkout_unknown",
                format!("The sandbox cannot be looked into: {}.", error.message),
            ));
        }
        Err(SandboxError::Lost(problem)) => return Err(problem),
    }
    let url = format!("http://127.0.0.1:{GIT_PORT}/{}.git", row.repository);
    let env = author.git_environment();
    // Bounded by the time limit of each program; the turn that waits for it may be stopped meanwhile.
    let cancel = CancellationToken::new();
    let git = async |arguments: &[&str]| {
        let argv = [&["git", "-C", WORKSPACE_PATH], arguments].concat();
        run_checked(sandbox, &argv, env.clone(), "checkout_failed", &cancel).await
    };
    git(&["init", "-q", "-b", &row.base_branch]).await?;
    // Set, not add: a second try after a crash finds the remote there.
    git(&["config", "remote.origin.url", &url]).await?;
    git(&[
        "config",
        "remote.origin.fetch",
        "+refs/heads/*:refs/remotes/origin/*",
    ])
    .await?;
    git(&["fetch", "-q", "--tags", "origin"]).await?;
    let start = [&row.branch, &row.base_branch];
    let mut is_switched = false;
    for branch in start {
        let remote = format!("refs/remotes/origin/{branch}");
        let probe = [
            "git",
            "-C",
            WORKSPACE_PATH,
            "rev-parse",
            "-q",
            "--verify",
            &remote,
        ];
        if run(sandbox, &probe, env.clone(), &cancel).await?.is_success {
            git(&["checkout", "-q", "-f", "--no-track", "-B", &row.branch, &remote]).await?;
            is_switched = true;
            break;
        }
    }
    if !is_switched {
        // An empty repository: the first commit will make the branch.
        git(&["symbolic-ref", "HEAD", &format!("refs/heads/{}", row.branch)]).await?;
    }
    sandbox
        .write_file(DONE_MARK, Scope::Sandbox, Vec::new())
        .await
        .map_err(|error| match error {
            SandboxError::Call(error) => Problem::permanent("checkout_failed", error.message),
            SandboxError::Lost(problem) => problem,
        })
}

/// Whether a sandbox that ran before can still run a program: one that is full of processes cannot.
pub async fn is_usable(sandbox: &Arc<dyn Sandbox>) -> bool {
    let check = async { run(sandbox, &["true"], Vec::new(), &CancellationToken::new()).await };
    let answered = tokio::time::timeout(CHECK_TIMEOUT, check).await;
    matches!(answered, Ok(Ok(finished)) if finished.is_success)
}
