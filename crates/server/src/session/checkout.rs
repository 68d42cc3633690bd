//! Brings the repository into a fresh sandbox, by git itself and through the broker's route, so without any credential.

use super::changes::ChangeAuthor;
use super::run::{cause, run, run_checked, run_named};
use crate::image::IMAGE_MARK;
use crate::sandbox::{Sandbox, SandboxError};
use crate::workspace_git::{self, REJOIN, SWITCH, SYNC};
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::session::Session;
use greenroom_protocol::guest::call::{Call, CallErrorCode, Reply, Scope};
use greenroom_protocol::guest::{GIT_PORT, WORKSPACE_PATH};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Says that the checkout is whole, and of which session's branch. Outside the workspace, so that an agent which throws `.git` away loses no files by it.
const DONE_MARK: &str = "/home/agent/.greenroom/checkout";

/// Leaves out the objects, where no lock lies and many files do.
const REMOVE_LOCKS: &str =
    "[ ! -d .git ] || find .git -path .git/objects -prune -o -name '*.lock' -type f -exec rm -f {} +";

/// A usable sandbox answers in milliseconds.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// A workspace to be made ready for a session.
pub struct Checkout<'a> {
    pub sandbox: &'a Arc<dyn Sandbox>,
    pub row: &'a Session,
    pub author: &'a ChangeAuthor,
    /// The newest commit, if it is known to be checked out already and only the branch is to be switched.
    pub head: Option<&'a str>,
    /// Whether the files may be older than the session's branch.
    pub is_restored: bool,
}

/// What became of a workspace.
#[derive(Debug, Default)]
pub struct CheckedOut {
    /// Files that changed since they could be read, as far as there are not too many to say.
    pub changed: Vec<String>,
    /// What was done about commits of the session's branch that the workspace lacked; `None`: there were none.
    pub rejoined: Option<Rejoined>,
}

/// What became of commits that others pushed to a session's branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejoined {
    /// They are below the own ones now.
    Joined,
    /// Not looked at, because the agent is merging or rebasing something.
    Busy,
    /// They conflict in these files.
    Conflict(Vec<String>),
}

impl Rejoined {
    /// From the lines of [`workspace_git::REJOIN`] and [`workspace_git::PUSH`]; `None` if there was nothing to join.
    pub fn read<'a>(mut lines: impl Iterator<Item = &'a str>) -> Option<Self> {
        match lines.next()? {
            "joined" => Some(Self::Joined),
            "busy" => Some(Self::Busy),
            "conflict" => Some(Self::Conflict(lines.map(str::to_owned).collect())),
            _ => None,
        }
    }
}

impl Checkout<'_> {
    /// Brings the session's repository into the workspace and switches to the session's branch: clones it, or goes on from what an
    /// image brought. Does nothing if an earlier start finished this; a half-finished one is done again. Calls `is_readable` when
    /// what is there can be read already.
    pub async fn ensure(&self, is_readable: impl FnOnce()) -> Result<CheckedOut, Problem> {
        let (sandbox, row) = (self.sandbox, self.row);
        // Bounded by the time limit of each program; the turn that waits for it may be stopped meanwhile.
        let cancel = CancellationToken::new();
        let env = self.author.git_environment();
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
                if row.forked_from.is_some() {
                    self.adopt(&cancel).await?;
                }
                return Ok(CheckedOut {
                    changed: Vec::new(),
                    rejoined: match self.is_restored {
                        true => self.rejoin(&cancel).await,
                        false => None,
                    },
                });
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
                match self.head {
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
            .write_file(DONE_MARK, Scope::Sandbox, row.branch.clone().into_bytes())
            .await
            .map_err(|error| match error {
                SandboxError::Call(error) => Problem::permanent("checkout_failed", error.message),
                SandboxError::Lost(problem) => problem,
            })?;
        Ok(CheckedOut {
            changed,
            rejoined: None,
        })
    }

    /// Makes the workspace of another session this one's, unless it is.
    async fn adopt(&self, cancel: &CancellationToken) -> Result<(), Problem> {
        let (branch, sandbox) = (&self.row.branch, self.sandbox);
        let whose = sandbox.read_file(DONE_MARK, Scope::Sandbox, 0, 1024).await;
        match whose {
            Ok(whose) if whose.bytes == branch.as_bytes() => return Ok(()),
            Ok(_) | Err(SandboxError::Call(_)) => {}
            Err(SandboxError::Lost(problem)) => return Err(problem),
        }
        let argv = workspace_git::command(workspace_git::ADOPT, &[branch, DONE_MARK]);
        let env = workspace_git::environment();
        let finished = run(sandbox, &argv, env, cancel).await?;
        if !finished.is_success {
            // The files are there all the same, and a push says what is wrong with the repository.
            let why = cause(&finished.output);
            tracing::info!(session = %self.row.id, "the branch of a fork is not switched to: {why}");
        }
        Ok(())
    }

    /// Brings files of some time ago together with what was pushed since then. If it cannot be done now, the next push does it.
    async fn rejoin(&self, cancel: &CancellationToken) -> Option<Rejoined> {
        let argv = workspace_git::command(REJOIN, &[&self.row.branch]);
        let env = [self.author.git_environment(), workspace_git::environment()].concat();
        match run_named(self.sandbox, "git rebase", &argv, env, "checkout_failed", cancel).await {
            Ok(said) => Rejoined::read(said.lines()),
            Err(problem) => {
                tracing::warn!(session = %self.row.id, code = problem.code, "a restored workspace may be older than its branch: {}", problem.message);
                None
            }
        }
    }
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

#[cfg(test)]
mod tests {
    use super::Rejoined;

    #[test]
    fn what_git_did_is_read() {
        let conflict = Rejoined::Conflict(vec!["a b".to_owned(), "c".to_owned()]);
        for (said, expected) in [
            ("", None),
            ("pushed\n1234", None),
            ("joined\n1234", Some(Rejoined::Joined)),
            ("joined", Some(Rejoined::Joined)),
            ("busy", Some(Rejoined::Busy)),
            ("conflict\na b\nc", Some(conflict)),
        ] {
            assert_eq!(Rejoined::read(said.lines()), expected, "{said}");
        }
    }
}
