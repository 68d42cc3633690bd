//! Brings the repositories into a fresh sandbox, by git itself and through the broker's route, so without any credential. One repository
//! is in `repository.rs`.

mod repository;

use super::changes::ChangeAuthor;
use super::run::Runner;
use crate::image::IMAGE_MARK;
use crate::sandbox::{Sandbox, SandboxError};
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::session::{Session, WorkspaceRepository};
use greenroom_protocol::guest::WORKSPACE_PATH;
use greenroom_protocol::guest::call::{Call, CallErrorCode, Reply, Scope};
use repository::RepositoryCheckout;
pub use repository::{Place, look, place};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Says that the checkout is whole, and of which session's branch. Outside the workspace, so that an agent which throws `.git` away loses no files by it.
const DONE_MARK: &str = "/home/agent/.greenroom/checkout";
/// The same for other repositories: a directory of such files.
const OTHERS_DONE_MARKS: &str = "/home/agent/.greenroom/checkouts";

/// Leaves out the objects, where no lock lies and many files do.
const REMOVE_LOCKS: &str =
    "[ ! -d .git ] || find .git -path .git/objects -prune -o -name '*.lock' -type f -exec rm -f {} +";

/// A usable sandbox answers in milliseconds.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// A workspace to be made ready for a session.
pub struct Checkout<'a> {
    pub sandbox: &'a Arc<dyn Sandbox>,
    pub row: &'a Session,
    /// The session's own first.
    pub repositories: &'a [WorkspaceRepository],
    pub author: &'a ChangeAuthor,
    /// The newest commit of each, if they are known to be checked out already and only the branches are to be switched.
    pub heads: Option<&'a [String]>,
    /// Whether the files may be older than the session's branches.
    pub is_restored: bool,
}

/// What became of a workspace.
#[derive(Debug, Default)]
pub struct CheckedOut {
    /// Files that changed since they could be read, as far as there are not too many to say. Relative to the workspace.
    pub changed: Vec<String>,
    /// What was done about commits of the session's branches that the workspace lacked; empty: there were none.
    pub rejoined: Vec<(WorkspaceRepository, Rejoined)>,
    /// Those that are there.
    pub repositories: Vec<WorkspaceRepository>,
    /// Why others are not.
    pub problems: Vec<Problem>,
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
    /// From the lines of [`crate::workspace_git::REJOIN`] and [`crate::workspace_git::PUSH`]; `None` if there was nothing to join.
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
    /// Brings the session's repositories into the workspace and switches to the session's branch in each: clones them, or goes on from
    /// what an image brought. Does nothing where an earlier start finished this; a half-finished one is done again. Calls
    /// `is_readable` when what is there can be read already.
    pub async fn ensure(&self, is_readable: impl FnOnce()) -> Result<CheckedOut, Problem> {
        // Bounded by the time limit of each program; the turn that waits for it may be stopped meanwhile.
        let cancel = CancellationToken::new();
        let mut is_readable = Some(is_readable);
        let mut is_fresh = false;
        let mut done = CheckedOut::default();
        for (index, repository) in self.repositories.iter().enumerate() {
            let directory = repository.directory();
            let one = RepositoryCheckout {
                whole: self,
                repository,
                runner: Runner {
                    sandbox: self.sandbox,
                    directory: &directory,
                    cancel: &cancel,
                },
                head: self.heads.and_then(|heads| heads.get(index)).map(String::as_str),
                mark: done_mark(repository),
            };
            let ensured = one
                .ensure(|| is_readable.take().into_iter().for_each(|call| call()))
                .await;
            let ensured = match ensured {
                // A session that has worked already goes on without it.
                Err(problem) if !is_fresh && !repository.is_own() && !problem.retryable => {
                    done.problems.push(problem);
                    continue;
                }
                ensured => ensured?,
            };
            if repository.is_own() {
                is_fresh = ensured.is_fresh;
            }
            done.changed
                .extend(ensured.changed.into_iter().map(|path| match repository.is_own() {
                    true => path,
                    false => format!("{}/{path}", repository.path),
                }));
            let rejoined = ensured.rejoined.map(|rejoined| (repository.clone(), rejoined));
            done.rejoined.extend(rejoined);
            done.repositories.push(repository.clone());
        }
        Ok(done)
    }
}

/// Where it is said that a repository is checked out.
fn done_mark(repository: &WorkspaceRepository) -> String {
    match repository.is_own() {
        true => DONE_MARK.to_owned(),
        false => format!(
            "{OTHERS_DONE_MARKS}/{}@{}",
            repository.name,
            repository.path.replace('/', "%")
        ),
    }
}

/// Whether something is there.
async fn exists(sandbox: &Arc<dyn Sandbox>, path: String) -> Result<bool, Problem> {
    let scope = Scope::Sandbox;
    match sandbox.call(Call::Stat { path, scope }).await {
        Ok(_) => Ok(true),
        Err(SandboxError::Call(error)) if error.code == CallErrorCode::NotFound => Ok(false),
        // Anything else says nothing about the checkout, and doing it again would throw work away.
        Err(SandboxError::Call(error)) => {
            let message = format!("The sandbox cannot be looked into: {}.", error.message);
            Err(Problem::transient("checkout_unknown", message))
        }
        Err(SandboxError::Lost(problem)) => Err(problem),
    }
}

/// Whether the workspace came with an image: repositories at some commits, and what was built of them.
async fn is_from_image(sandbox: &Arc<dyn Sandbox>) -> Result<bool, Problem> {
    let (path, scope) = (IMAGE_MARK.to_owned(), Scope::Sandbox);
    match sandbox.call(Call::Stat { path, scope }).await {
        Ok(_) => Ok(true),
        Err(SandboxError::Call(_)) => Ok(false),
        Err(SandboxError::Lost(problem)) => Err(problem),
    }
}

/// Whether a command of a turn still runs.
async fn has_running_command(sandbox: &Arc<dyn Sandbox>) -> bool {
    match sandbox.call(Call::ListProcesses).await {
        Ok(Reply::Processes { processes, .. }) => processes
            .iter()
            .any(|process| process.key.is_some() && process.exit.is_none()),
        // What cannot be looked into is met by what comes next.
        Ok(_) | Err(_) => false,
    }
}

/// Removes git's lock files: a git that was killed leaves them, and every later one would refuse to work.
pub async fn remove_locks(runner: Runner<'_>, env: Vec<(String, String)>) -> Result<(), Problem> {
    runner
        .checked(&["sh", "-c", REMOVE_LOCKS], env, "checkout_failed")
        .await
        .map(|_| ())
}

/// Whether a sandbox that ran before can still run a program: one that is full of processes cannot.
pub async fn is_usable(sandbox: &Arc<dyn Sandbox>) -> bool {
    let runner = Runner {
        sandbox,
        directory: WORKSPACE_PATH,
        cancel: &CancellationToken::new(),
    };
    let answered = tokio::time::timeout(CHECK_TIMEOUT, runner.run(&["true"], Vec::new())).await;
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
