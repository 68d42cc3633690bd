//! Brings the repository into a fresh sandbox, by git itself and through the broker's route, so without any credential.

use super::changes::ChangeAuthor;
use super::run::{run, run_checked};
use crate::image::IMAGE_MARK;
use crate::sandbox::{Sandbox, SandboxError};
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::session::Session;
use greenroom_protocol::guest::call::{Call, CallErrorCode, Reply, Scope};
use greenroom_protocol::guest::{GIT_PORT, WORKSPACE_PATH};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Says that the checkout is whole. Outside the workspace, so that an agent which throws `.git` away loses no files by it.
const DONE_MARK: &str = "/home/agent/.greenroom/checkout";

/// Leaves out the objects, where no lock lies and many files do.
const REMOVE_LOCKS: &str =
    "[ ! -d .git ] || find .git -path .git/objects -prune -o -name '*.lock' -type f -exec rm -f {} +";

/// A usable sandbox answers in milliseconds.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// Clones the session's repository into the workspace and switches to the session's branch. Does nothing if an earlier
/// start finished this; a half-finished one is done again from nothing.
pub async fn ensure(sandbox: &Arc<dyn Sandbox>, row: &Session, author: &ChangeAuthor) -> Result<(), Problem> {
    // Bounded by the time limit of each program; the turn that waits for it may be stopped meanwhile.
    let cancel = CancellationToken::new();
    let env = author.git_environment();
    let shell = async |script: &str| {
        run_checked(
            sandbox,
            &["sh", "-c", script],
            env.clone(),
            "checkout_failed",
            &cancel,
        )
        .await
    };
    match sandbox
        .call(Call::Stat {
            path: DONE_MARK.to_owned(),
            scope: Scope::Sandbox,
        })
        .await
    {
        Ok(_) => {
            // A command that went on without its server may be a git at work; its locks are its own.
            return match has_running_command(sandbox).await {
                true => Ok(()),
                false => remove_locks(sandbox, env, &cancel).await,
            };
        }
        // No tool was here before the mark: what there is can only be half a checkout, or what an image brought.
        Err(SandboxError::Call(error)) if error.code == CallErrorCode::NotFound => {
            match is_from_image(sandbox).await? {
                true => remove_locks(sandbox, env.clone(), &cancel).await?,
                false => drop(shell("find . -mindepth 1 -delete").await?),
            }
        }
        // Anything else says nothing about the checkout, and doing it again would throw work away.
        Err(SandboxError::Call(error)) => {
            let message = format!("The sandbox cannot be looked into: {}.", error.message);
            return Err(Problem::transient("checkout_unknown", message));
        }
        Err(SandboxError::Lost(problem)) => return Err(problem),
    }
    let url = format!("http://127.0.0.1:{GIT_PORT}/{}.git", row.repository);
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

/// Whether the workspace came with an image: the repository at some commit, and what was built of it.
async fn is_from_image(sandbox: &Arc<dyn Sandbox>) -> Result<bool, Problem> {
    let call = Call::Stat {
        path: IMAGE_MARK.to_owned(),
        scope: Scope::Sandbox,
    };
    match sandbox.call(call).await {
        Ok(_) => Ok(true),
        Err(SandboxError::Call(_)) => Ok(false),
        Err(SandboxError::Lost(problem)) => Err(problem),
    }
}

/// Whether a command of a turn still runs.
async fn has_running_command(sandbox: &Arc<dyn Sandbox>) -> bool {
    match sandbox.call(Call::ListProcesses).await {
        Ok(Reply::Processes { processes }) => processes
            .iter()
            .any(|process| process.key.is_some() && process.exit.is_none()),
        // What cannot be looked into is met by what comes next.
        Ok(_) | Err(_) => false,
    }
}

/// Removes git's lock files: a git that was killed leaves them, and every later one would refuse to work.
pub async fn remove_locks(
    sandbox: &Arc<dyn Sandbox>,
    env: Vec<(String, String)>,
    cancel: &CancellationToken,
) -> Result<(), Problem> {
    run_checked(
        sandbox,
        &["sh", "-c", REMOVE_LOCKS],
        env,
        "checkout_failed",
        cancel,
    )
    .await
    .map(|_| ())
}

/// Whether a sandbox that ran before can still run a program: one that is full of processes cannot.
pub async fn is_usable(sandbox: &Arc<dyn Sandbox>) -> bool {
    let check = async { run(sandbox, &["true"], Vec::new(), &CancellationToken::new()).await };
    let answered = tokio::time::timeout(CHECK_TIMEOUT, check).await;
    matches!(answered, Ok(Ok(finished)) if finished.is_success)
}
