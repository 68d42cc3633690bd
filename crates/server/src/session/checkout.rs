//! Brings the repository into a fresh sandbox, by git itself and through the broker's route, so without any credential.

use super::changes::ChangeAuthor;
use super::run::{cause, run, run_checked};
use crate::image::IMAGE_MARK;
use crate::sandbox::{Sandbox, SandboxError};
use crate::workspace_git::{self, SWITCH, SYNC};
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

/// Brings the session's repository into the workspace and switches to the session's branch: clones it, or goes on from what an image
/// brought. Does nothing if an earlier start finished this; a half-finished one is done again.
/// `head`: the newest commit, if it is known to be checked out already and only the branch is to be switched.
/// Calls `is_readable` when what is there can be read already. Returns the files that changed since then, as far as there are not too
/// many to say.
pub async fn ensure(
    sandbox: &Arc<dyn Sandbox>,
    row: &Session,
    author: &ChangeAuthor,
    head: Option<&str>,
    is_readable: impl FnOnce(),
) -> Result<Vec<String>, Problem> {
    // Bounded by the time limit of each program; the turn that waits for it may be stopped meanwhile.
    let cancel = CancellationToken::new();
    let env = author.git_environment();
    match sandbox
        .call(Call::Stat {
            path: DONE_MARK.to_owned(),
            scope: Scope::Sandbox,
        })
        .await
    {
        Ok(_) => {
            // A command that went on without its server may be a git at work; its locks are its own.
            if !has_running_command(sandbox).await {
                remove_locks(sandbox, env, &cancel).await?;
            }
            return Ok(Vec::new());
        }
        Err(SandboxError::Call(error)) if error.code == CallErrorCode::NotFound => {}
        // Anything else says nothing about the checkout, and doing it again would throw work away.
        Err(SandboxError::Call(error)) => {
            let message = format!("The sandbox cannot be looked into: {}.", error.message);
            return Err(Problem::transient("checkout_unknown", message));
        }
        Err(SandboxError::Lost(problem)) => return Err(problem),
    }
    let changed = match is_from_image(sandbox).await? {
        true => {
            is_readable();
            match head {
                Some(head) => switch(sandbox, row, head, &cancel).await?,
                None => sync_or_clone(sandbox, row, env, &cancel).await?,
            }
        }
        false => {
            clone(sandbox, row, env, &cancel).await?;
            Vec::new()
        }
    };
    sandbox
        .write_file(DONE_MARK, Scope::Sandbox, Vec::new())
        .await
        .map_err(|error| match error {
            SandboxError::Call(error) => Problem::permanent("checkout_failed", error.message),
            SandboxError::Lost(problem) => problem,
        })?;
    Ok(changed)
}

fn remote(row: &Session) -> String {
    format!("http://127.0.0.1:{GIT_PORT}/{}.git", row.repository)
}

/// Clones if the workspace of the image cannot be brought up to date: steps may have left anything in it.
async fn sync_or_clone(
    sandbox: &Arc<dyn Sandbox>,
    row: &Session,
    env: Vec<(String, String)>,
    cancel: &CancellationToken,
) -> Result<Vec<String>, Problem> {
    let remote = remote(row);
    let argv = workspace_git::command(SYNC, &[&row.base_branch, &row.branch, &remote]);
    let finished = run(sandbox, &argv, workspace_git::environment(), cancel).await?;
    if finished.is_success {
        return Ok(finished.output.lines().map(str::to_owned).collect());
    }
    let why = cause(&finished.output);
    tracing::warn!(session = %row.id, "the workspace of an image cannot be brought to the newest commit, so it is cloned anew: {why}");
    clone(sandbox, row, env, cancel).await?;
    Ok(Vec::new())
}

/// The workspace of a sandbox that was prepared a moment ago.
async fn switch(
    sandbox: &Arc<dyn Sandbox>,
    row: &Session,
    head: &str,
    cancel: &CancellationToken,
) -> Result<Vec<String>, Problem> {
    let argv = workspace_git::command(SWITCH, &[&row.branch, head]);
    run_checked(
        sandbox,
        &argv,
        workspace_git::environment(),
        "checkout_failed",
        cancel,
    )
    .await?;
    Ok(Vec::new())
}

async fn clone(
    sandbox: &Arc<dyn Sandbox>,
    row: &Session,
    env: Vec<(String, String)>,
    cancel: &CancellationToken,
) -> Result<(), Problem> {
    // No tool was here before the mark: what there is can only be half a checkout.
    let wipe = ["sh", "-c", "find . -mindepth 1 -maxdepth 1 -exec rm -rf {} +"];
    run_checked(sandbox, &wipe, env.clone(), "checkout_failed", cancel).await?;
    let git = async |arguments: &[&str]| {
        let argv = [&["git", "-C", WORKSPACE_PATH], arguments].concat();
        run_checked(sandbox, &argv, env.clone(), "checkout_failed", cancel).await
    };
    git(&["init", "-q", "-b", &row.base_branch]).await?;
    // Set, not add: a second try after a crash finds the remote there.
    git(&["config", "remote.origin.url", &remote(row)]).await?;
    git(&[
        "config",
        "remote.origin.fetch",
        "+refs/heads/*:refs/remotes/origin/*",
    ])
    .await?;
    git(&["fetch", "-q", "--tags", "origin"]).await?;
    for branch in [&row.branch, &row.base_branch] {
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
        if run(sandbox, &probe, env.clone(), cancel).await?.is_success {
            git(&["checkout", "-q", "-f", "--no-track", "-B", &row.branch, &remote]).await?;
            return Ok(());
        }
    }
    // An empty repository: the first commit will make the branch.
    git(&["symbolic-ref", "HEAD", &format!("refs/heads/{}", row.branch)]).await?;
    Ok(())
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
