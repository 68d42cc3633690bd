//! Brings what a turn changed to the forge: a commit as the person who prompted, pushed to the session's branch by git in
//! the sandbox through the broker. The host never runs git inside a workspace.

use super::checkout::{self, Place, Rejoined};
use super::command::SessionHandle;
use super::run::{Runner, disk_full};
use super::services::SessionServices;
use super::state::SessionFold;
use super::workspace::SessionWorkspace;
use crate::workspace_git::{self, PUSH, SETTLE};
use greenroom_protocol::client::event::EventBody;
use greenroom_protocol::client::person::Person;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::pull_request::{Diff, PullRequestState};
use greenroom_protocol::client::session::{PullRequestLink, Session, WorkspaceRepository};
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

/// What is on the forge of one repository.
#[derive(Debug, Clone)]
pub struct OnForge {
    pub repository: WorkspaceRepository,
    /// `None` while there is nothing to push; or why it could not be pushed.
    pub commit: Result<Option<String>, Problem>,
}

/// Commits everything that is not ignored, pushes where a branch moved, and appends `change.pushed`. Returns what is on the forge of
/// each repository. Cancelling ends it soon; the files stay in the sandbox.
pub async fn commit_and_push(
    services: &SessionServices,
    handle: &SessionHandle,
    workspace: &SessionWorkspace,
    subject: &str,
    cancel: &CancellationToken,
) -> Result<Vec<OnForge>, Problem> {
    let sandbox = tokio::select! {
        sandbox = workspace.sandbox() => sandbox?,
        () = cancel.cancelled() => {
            return Err(Problem::transient("push_stopped", "The turn was stopped before its changes were pushed.")
                .with_hint("They are in the sandbox; the next turn pushes them."));
        }
    };
    let repositories = workspace.repositories();
    let mut on_forge: Vec<OnForge> = Vec::with_capacity(repositories.len());
    for repository in &repositories {
        let directory = repository.directory();
        let push = Push {
            services,
            handle,
            workspace,
            repository,
            others: &repositories[1..],
            runner: Runner {
                sandbox: &sandbox,
                directory: &directory,
                cancel,
            },
        };
        on_forge.push(OnForge {
            repository: repository.clone(),
            // What is wrong with one keeps no work in another from being pushed.
            commit: push.run(subject).await,
        });
    }
    if on_forge.iter().all(|one| one.commit.is_ok()) {
        workspace.pushed();
    }
    Ok(on_forge)
}

/// One repository's changes on their way.
struct Push<'a> {
    services: &'a SessionServices,
    handle: &'a SessionHandle,
    workspace: &'a SessionWorkspace,
    repository: &'a WorkspaceRepository,
    /// Those that lie in the session's own.
    others: &'a [WorkspaceRepository],
    runner: Runner<'a>,
}

impl Push<'_> {
    async fn run(&self, subject: &str) -> Result<Option<String>, Problem> {
        let fold = self.handle.fold().await?;
        let (row, name) = (&fold.row, &self.repository.name);
        let pushed = fold.pushed.iter().find(|pushed| pushed.name(row) == name);
        let pushed = pushed.map(|pushed| pushed.commit.clone());
        match self.repository.is_own() {
            true => self.ignore_others().await?,
            false => self.check_place().await?,
        }
        self.settle().await?;
        self.commit(subject, &self.trailers(&fold)).await?;
        let head = self
            .runner
            .run(&["git", "rev-parse", "-q", "--verify", "HEAD"], self.env())
            .await?;
        if !head.is_success {
            return Ok(None);
        }
        let commit = head.output;
        let base = format!("refs/remotes/origin/{}", self.repository.base_branch);
        let base = ["git", "rev-parse", "-q", "--verify", &base];
        let is_at_base = self.runner.run(&base, self.env()).await?.output == commit;
        // The agent can make refs say what it likes, but not what the forge has.
        let is_at_base = is_at_base && self.services.forge.commit_info(name, &commit).await.is_ok();
        if pushed.as_ref() == Some(&commit) || (pushed.is_none() && is_at_base) {
            return Ok(pushed);
        }
        let last = pushed.as_deref().unwrap_or_default();
        let remote = self.repository.remote();
        let argv = workspace_git::command(PUSH, &[&row.branch, last, &remote]);
        let said = self
            .runner
            .named("git push", &argv, self.platform_env(), "push_failed")
            .await?;
        if let Some(rejoined) = Rejoined::read(said.lines()) {
            let problem = self.workspace.note_rejoined(self.repository, &rejoined);
            if rejoined != Rejoined::Joined {
                return Err(problem);
            }
            self.workspace.tell(vec![problem]).await;
        }
        let commit = said.lines().nth(1).unwrap_or(&commit).to_owned();
        self.tell(row, &commit).await?;
        Ok(Some(commit))
    }

    fn env(&self) -> Vec<(String, String)> {
        self.workspace.author().git_environment()
    }

    fn platform_env(&self) -> Vec<(String, String)> {
        [self.env(), workspace_git::environment()].concat()
    }

    /// An agent may have thrown away what says so.
    async fn ignore_others(&self) -> Result<(), Problem> {
        for other in self.others {
            if checkout::look(self.runner, other).await? == Place::There {
                checkout::place(self.runner, other).await?;
            }
        }
        Ok(())
    }

    /// Of a directory that is not this repository nothing is pushed to it.
    async fn check_place(&self) -> Result<(), Problem> {
        let WorkspaceRepository { name, path, .. } = self.repository;
        match checkout::look(self.runner, self.repository).await? {
            Place::Missing => {
                let message = format!("The repository {name} is not at {path} any more.");
                Err(Problem::permanent("repository_missing", message)
                    .with_hint("It is checked out again, as it was pushed, when the sandbox starts next."))
            }
            place => place.problem(self.repository).map_or(Ok(()), Err),
        }
    }

    async fn settle(&self) -> Result<(), Problem> {
        let settle = workspace_git::command(SETTLE, &[]);
        let settled = self
            .runner
            .named("git status", &settle, self.platform_env(), "commit_failed")
            .await?;
        match Rejoined::read(settled.lines()) {
            // To be ended by who began it: a commit of it would be half of something.
            Some(unsettled) => Err(self.workspace.note_rejoined(self.repository, &unsettled)),
            None => Ok(()),
        }
    }

    /// What stands at the end of a commit's message: its session, and who else spoke to its turn.
    fn trailers(&self, fold: &SessionFold) -> String {
        let mut lines = vec![format!("Greenroom-Session: {}", fold.row.id)];
        let author = &self.workspace.author().person.id;
        let inserted = fold.running.iter().flat_map(|running| &running.inserted);
        for Person { name, email, .. } in inserted
            .map(|prompt| &prompt.author)
            .filter(|other| other.id != *author)
        {
            let line = format!("Co-authored-by: {name} <{email}>");
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        lines.join("\n")
    }

    async fn commit(&self, subject: &str, trailers: &str) -> Result<(), Problem> {
        // What a repository configures must not decide whether work is kept.
        let argv = |arguments: &[&'static str]| [&["git"], UNCONFIGURED, arguments].concat();
        let add = argv(&["add", "-A"]);
        let added = self.runner.run(&add, self.env()).await?;
        if added.limits_hit.contains(&LimitKind::Disk) {
            return Err(disk_full("commit_failed"));
        }
        if !added.is_success {
            if added.output.contains(".lock'") {
                // The turn is over, so whoever held the lock was stopped with it.
                checkout::remove_locks(self.runner, self.env()).await?;
            }
            self.runner.checked(&add, self.env(), "commit_failed").await?;
        }
        if self.repository.is_own() && !self.others.is_empty() {
            // Whatever the repository's own ignore files say, others are none of its files.
            let others = self.others.iter().map(|other| other.path.as_str());
            let reset: Vec<_> = ["git", "reset", "-q", "--"].into_iter().chain(others).collect();
            let env = self.platform_env();
            self.runner.checked(&reset, env, "commit_failed").await?;
        }
        let staged = argv(&["diff", "--cached", "--quiet"]);
        if !self.runner.run(&staged, self.env()).await?.is_success {
            let commit = [&argv(&["commit", "-q", "-m"])[..], &[subject, "-m", trailers]].concat();
            self.runner.checked(&commit, self.env(), "commit_failed").await?;
        }
        Ok(())
    }

    /// Appends what was pushed, and lets nobody who prompted it approve it.
    async fn tell(&self, row: &Session, commit: &str) -> Result<(), Problem> {
        let (
            forge,
            WorkspaceRepository {
                name, base_branch, ..
            },
        ) = (&self.services.forge, self.repository);
        let diff = forge.diff_branches(name, base_branch, &row.branch).await;
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
            repository: (!self.repository.is_own()).then(|| self.repository.clone()),
            branch: row.branch.clone(),
            commit: commit.to_owned(),
            additions: diff.additions,
            deletions: diff.deletions,
            files: diff.files.into_iter().map(|file| file.path).collect(),
        };
        self.handle
            .append(Batch {
                events: vec![event],
                ..Batch::default()
            })
            .await?;
        let is_open =
            |link: &&PullRequestLink| link.state == PullRequestState::Open && link.repository == *name;
        for link in row.pull_requests.iter().filter(is_open) {
            // Whoever prompts a change may not approve it, also when the pull request was there before the prompt.
            let added = forge
                .add_prompter(&link.repository, link.number, &self.workspace.author().person)
                .await;
            added.map_err(|error| error.problem())?;
        }
        Ok(())
    }
}
