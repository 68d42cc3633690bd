//! One repository of a workspace: cloned, brought to the newest commit, or switched to the session's branch.

use super::{Checkout, Rejoined, exists, has_running_command, is_from_image, remove_locks};
use crate::sandbox::SandboxError;
use crate::session::run::{Runner, cause};
use crate::session::state::BRANCH_PREFIX;
use crate::workspace_git::{self, LOOK, NAME, PLACE, REJOIN, SWITCH, SYNC};
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::session::WorkspaceRepository;
use greenroom_protocol::guest::WORKSPACE_PATH;
use greenroom_protocol::guest::call::Scope;

/// One repository to be made ready.
pub(super) struct RepositoryCheckout<'a> {
    pub whole: &'a Checkout<'a>,
    pub repository: &'a WorkspaceRepository,
    pub runner: Runner<'a>,
    /// See [`Checkout::heads`].
    pub head: Option<&'a str>,
    /// Says that it is there.
    pub mark: String,
}

/// What became of one.
pub(super) struct Ensured {
    /// Whether it was not there before.
    pub is_fresh: bool,
    /// Files that changed since they could be read.
    pub changed: Vec<String>,
    pub rejoined: Option<Rejoined>,
}

/// What lies where another repository belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The repository.
    There,
    Missing,
    /// Files of the session's own repository.
    Tracked,
    /// Something else.
    Foreign,
}

impl Place {
    /// From what [`workspace_git::LOOK`] says.
    fn read(said: &str) -> Self {
        match said {
            "there" => Self::There,
            "missing" => Self::Missing,
            "tracked" => Self::Tracked,
            _ => Self::Foreign,
        }
    }

    /// Why the repository is not checked out there; `None`: it is, or can be.
    pub fn problem(self, repository: &WorkspaceRepository) -> Option<Problem> {
        let WorkspaceRepository { name, path, .. } = repository;
        let unusable = |what: &str, hint: &str| {
            let message = format!("The repository {name} is not at {path}: {what}.");
            Some(Problem::permanent("repository_path_unusable", message).with_hint(hint))
        };
        match self {
            Self::There | Self::Missing => None,
            Self::Tracked => unusable(
                "the session's own repository has files there",
                "Give it another `path` in the environment's `repositories`, or remove these files; nothing of it is pushed meanwhile.",
            ),
            Self::Foreign => unusable(
                "something else is there, which stays as it is",
                "Ask the agent to move it away; then the repository is checked out when the sandbox starts next. Nothing of it is pushed meanwhile.",
            ),
        }
    }
}

/// Looks where another repository belongs. `runner` is for any directory of the sandbox.
pub async fn look(runner: Runner<'_>, repository: &WorkspaceRepository) -> Result<Place, Problem> {
    let argv = workspace_git::command(LOOK, &[&repository.path, &repository.name]);
    let said = in_workspace(runner)
        .checked(&argv, workspace_git::environment(), "checkout_failed")
        .await?;
    Ok(Place::read(&said))
}

/// Makes the directory where another repository belongs, and lets the session's own ignore it. Refused where something else lies.
pub async fn place(runner: Runner<'_>, repository: &WorkspaceRepository) -> Result<Place, Problem> {
    let found = look(runner, repository).await?;
    if let Some(problem) = found.problem(repository) {
        return Err(problem);
    }
    let argv = workspace_git::command(PLACE, &[&repository.path]);
    let env = workspace_git::environment();
    in_workspace(runner)
        .named("mkdir", &argv, env, "repository_path_unusable")
        .await?;
    Ok(found)
}

fn in_workspace(runner: Runner<'_>) -> Runner<'_> {
    Runner {
        directory: WORKSPACE_PATH,
        ..runner
    }
}

impl RepositoryCheckout<'_> {
    /// See [`Checkout::ensure`].
    pub async fn ensure(&self, is_readable: impl FnOnce()) -> Result<Ensured, Problem> {
        let (sandbox, row) = (self.whole.sandbox, self.whole.row);
        let is_own = self.repository.is_own();
        let mut is_done = exists(sandbox, self.mark.clone()).await?;
        let mut is_there = true;
        if !is_own {
            is_there = place(self.runner, self.repository).await? == Place::There;
            // What was thrown away comes back as it was pushed.
            is_done = is_done && is_there;
        }
        if is_done {
            // A command that went on without its server may be a git at work; its locks are its own.
            if !has_running_command(sandbox).await {
                remove_locks(self.runner, self.author_env()).await?;
            }
            if row.forked_from.is_some() {
                self.adopt().await?;
            }
            let rejoined = match self.whole.is_restored {
                true => self.rejoin().await,
                false => None,
            };
            return Ok(Ensured {
                is_fresh: false,
                changed: Vec::new(),
                rejoined,
            });
        }
        let changed = match is_there && is_from_image(sandbox).await? {
            true => {
                is_readable();
                match self.head {
                    Some(head) => self.switch(head).await?,
                    None => self.sync_or_clone().await?,
                }
            }
            false => {
                self.clone().await?;
                Vec::new()
            }
        };
        let written = sandbox
            .write_file(&self.mark, Scope::Sandbox, row.branch.clone().into_bytes())
            .await;
        written.map_err(|error| match error {
            SandboxError::Call(error) => Problem::permanent("checkout_failed", error.message),
            SandboxError::Lost(problem) => problem,
        })?;
        Ok(Ensured {
            is_fresh: true,
            changed,
            rejoined: None,
        })
    }

    fn author_env(&self) -> Vec<(String, String)> {
        self.whole.author.git_environment()
    }

    /// Makes the workspace of another session this one's, unless it is.
    async fn adopt(&self) -> Result<(), Problem> {
        let (branch, sandbox) = (&self.whole.row.branch, self.whole.sandbox);
        let whose = sandbox.read_file(&self.mark, Scope::Sandbox, 0, 1024).await;
        match whose {
            Ok(whose) if whose.bytes == branch.as_bytes() => return Ok(()),
            Ok(_) | Err(SandboxError::Call(_)) => {}
            Err(SandboxError::Lost(problem)) => return Err(problem),
        }
        let argv = workspace_git::command(workspace_git::ADOPT, &[branch, &self.mark]);
        let finished = self.runner.run(&argv, workspace_git::environment()).await?;
        if !finished.is_success {
            // The files are there all the same, and a push says what is wrong with the repository.
            let why = cause(&finished.output);
            tracing::info!(session = %self.whole.row.id, "the branch of a fork is not switched to: {why}");
        }
        Ok(())
    }

    /// Brings files of some time ago together with what was pushed since then. If it cannot be done now, the next push does it.
    async fn rejoin(&self) -> Option<Rejoined> {
        let remote = self.repository.remote();
        let argv = workspace_git::command(REJOIN, &[&self.whole.row.branch, &remote]);
        let env = [self.author_env(), workspace_git::environment()].concat();
        match self
            .runner
            .named("git rebase", &argv, env, "checkout_failed")
            .await
        {
            Ok(said) => Rejoined::read(said.lines()),
            Err(problem) => {
                tracing::warn!(session = %self.whole.row.id, code = problem.code, "a restored workspace may be older than its branch: {}", problem.message);
                None
            }
        }
    }

    /// Clones if the workspace of the image cannot be brought up to date: steps may have left anything in it.
    async fn sync_or_clone(&self) -> Result<Vec<String>, Problem> {
        let (base, own, remote) = (
            &self.repository.base_branch,
            &self.whole.row.branch,
            self.repository.remote(),
        );
        let argv = workspace_git::command(SYNC, &[base, own, &remote]);
        let finished = self.runner.run(&argv, workspace_git::environment()).await?;
        if finished.is_success {
            return Ok(finished.output.lines().map(str::to_owned).collect());
        }
        let why = cause(&finished.output);
        tracing::warn!(session = %self.whole.row.id, "the workspace of an image cannot be brought to the newest commit, so it is cloned anew: {why}");
        self.clone().await?;
        Ok(Vec::new())
    }

    /// The workspace of a sandbox that was prepared a moment ago.
    async fn switch(&self, head: &str) -> Result<Vec<String>, Problem> {
        let argv = workspace_git::command(SWITCH, &[&self.whole.row.branch, head]);
        let env = workspace_git::environment();
        self.runner.checked(&argv, env, "checkout_failed").await?;
        Ok(Vec::new())
    }

    async fn clone(&self) -> Result<(), Problem> {
        let branch = &self.whole.row.branch;
        let env = self.author_env();
        // No tool was here before the mark: what there is can only be half a checkout.
        let wipe = ["sh", "-c", "find . -mindepth 1 -maxdepth 1 -exec rm -rf {} +"];
        self.runner.checked(&wipe, env.clone(), "checkout_failed").await?;
        let git = async |arguments: &[&str]| {
            let argv = [&["git"], arguments].concat();
            self.runner.checked(&argv, env.clone(), "checkout_failed").await
        };
        git(&["init", "-q", "-b", &self.repository.base_branch]).await?;
        if !self.repository.is_own() {
            let argv = workspace_git::command(NAME, &[&self.repository.name]);
            self.runner.checked(&argv, env.clone(), "checkout_failed").await?;
        }
        // Set, not add: a second try after a crash finds the remote there.
        git(&["config", "remote.origin.url", &self.repository.remote()]).await?;
        git(&[
            "config",
            "remote.origin.fetch",
            "+refs/heads/*:refs/remotes/origin/*",
        ])
        .await?;
        git(&["fetch", "-q", "--tags", "origin"]).await?;
        for found in [branch, &self.repository.base_branch] {
            let remote = format!("refs/remotes/origin/{found}");
            let probe = ["git", "rev-parse", "-q", "--verify", &remote];
            if self.runner.run(&probe, env.clone()).await?.is_success {
                git(&["checkout", "-q", "-f", "--no-track", "-B", branch, &remote]).await?;
                return Ok(());
            }
        }
        let WorkspaceRepository {
            name, base_branch, ..
        } = self.repository;
        let message = format!("The repository {name} has no branch {base_branch}.");
        let missing = Problem::permanent("branch_unknown", message);
        if !self.repository.is_own() {
            return Err(missing.with_hint("Name another `branch` in the environment's `repositories`."));
        }
        // Work of other sessions may be all that an empty repository has.
        let others = [
            "git",
            "for-each-ref",
            "--count=1",
            &format!("--exclude=refs/remotes/origin/{BRANCH_PREFIX}"),
            "refs/remotes/origin",
        ];
        let others = self
            .runner
            .checked(&others, env.clone(), "checkout_failed")
            .await?;
        if !others.is_empty() {
            return Err(missing.with_hint(
                "Push the branch again, or start a session from another one; what this session pushed is on its own branch.",
            ));
        }
        // An empty repository: the first commit will make the branch.
        git(&["symbolic-ref", "HEAD", &format!("refs/heads/{branch}")]).await?;
        Ok(())
    }
}
