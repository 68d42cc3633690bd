//! The session's sandbox as the agent sees it: started in the background when a turn starts, with the repository checked
//! out on the session's branch. The first tool call waits for it, the first model request does not.

use super::changes::ChangeAuthor;
use super::checkout;
use super::command::SessionHandle;
use super::services::SessionServices;
use crate::environment::{self, BoundedEnvironment};
use crate::sandbox::{Sandbox, SandboxError, StartRequest};
use async_trait::async_trait;
use greenroom_agent::world::{Workspace, WorkspaceError};
use greenroom_protocol::client::event::{EventBody, Item, ItemBody, SandboxState};
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::session::Session;
use greenroom_protocol::guest::call::{Call, Exec, Exit, FileBytes, OutputChunk, Reply, Scope};
use greenroom_protocol::id::{ItemId, SandboxId, TurnId};
use greenroom_stdx::id::fresh_bits;
use greenroom_store::session_log::Batch;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

/// The session's sandbox, shared by all its turns: whoever needs it while it starts waits for the same start.
pub struct SandboxSlot {
    ready: Mutex<Option<Arc<dyn Sandbox>>>,
    /// Whether files may have changed since the last push. Outlives a turn whose push failed.
    has_unpushed: AtomicBool,
    /// What people were told last about cuts of the environment.
    told: std::sync::Mutex<Vec<Problem>>,
}

impl SandboxSlot {
    /// `has_unpushed`: what an earlier process left in the sandbox may not have been pushed.
    pub fn new(has_unpushed: bool) -> Self {
        Self {
            ready: Mutex::new(None),
            has_unpushed: AtomicBool::new(has_unpushed),
            told: std::sync::Mutex::default(),
        }
    }
}

/// A turn's way to the sandbox.
pub struct SessionWorkspace {
    services: Arc<SessionServices>,
    handle: SessionHandle,
    row: Session,
    turn_id: TurnId,
    author: ChangeAuthor,
    slot: Arc<SandboxSlot>,
    /// Whether this turn has seen that the sandbox can still run a program.
    is_checked: AtomicBool,
}

impl SessionWorkspace {
    /// Nothing starts yet.
    pub fn new(
        services: Arc<SessionServices>,
        handle: SessionHandle,
        row: Session,
        turn_id: TurnId,
        author: ChangeAuthor,
        slot: Arc<SandboxSlot>,
    ) -> Arc<Self> {
        Arc::new(Self {
            services,
            handle,
            row,
            turn_id,
            author,
            slot,
            is_checked: AtomicBool::new(false),
        })
    }

    /// Starts the sandbox in the background. A failure is met again, and then shown, by the first call.
    pub fn prepare(self: &Arc<Self>) {
        let workspace = self.clone();
        self.services.tasks.clone().spawn(async move {
            if let Err(problem) = workspace.sandbox().await {
                tracing::warn!(session = %workspace.row.id, code = problem.code, "sandbox not ready: {}", problem.message);
            }
        });
    }

    /// Whether files may have changed since the last push, in this turn or in one whose push failed.
    pub fn has_unpushed(&self) -> bool {
        self.slot.has_unpushed.load(Ordering::Relaxed)
    }

    /// Everything is on the forge.
    pub fn pushed(&self) {
        self.slot.has_unpushed.store(false, Ordering::Relaxed);
    }

    /// Who the turn's commits are by.
    pub fn author(&self) -> &ChangeAuthor {
        &self.author
    }

    /// The sandbox, started and checked out; found again or restarted if it went away.
    pub async fn sandbox(&self) -> Result<Arc<dyn Sandbox>, Problem> {
        let mut ready = self.slot.ready.lock().await;
        if let Some(sandbox) = ready.as_ref().filter(|sandbox| sandbox.is_alive())
            && (self.is_checked.load(Ordering::Relaxed) || checkout::is_usable(sandbox).await)
        {
            self.is_checked.store(true, Ordering::Relaxed);
            return Ok(sandbox.clone());
        }
        let id = self.sandbox_id().await?;
        if ready.take().is_some() {
            self.report(&id, SandboxState::Lost, None).await;
            // What made it unusable, such as processes without end, must not be found again.
            self.services.sandboxes.stop(&id).await?;
        }
        self.report(&id, SandboxState::Starting, None).await;
        let started = self.start_over(&id).await;
        self.is_checked.store(true, Ordering::Relaxed);
        match started {
            Ok(sandbox) => {
                self.report(&id, SandboxState::Ready, None).await;
                *ready = Some(sandbox.clone());
                Ok(sandbox)
            }
            Err(problem) => {
                self.report(&id, SandboxState::Lost, Some(problem.clone())).await;
                Err(problem)
            }
        }
    }

    /// Starts it by the environment of now; a second time if the first does not get far.
    async fn start_over(&self, id: &SandboxId) -> Result<Arc<dyn Sandbox>, Problem> {
        let environment = self.environment().await?;
        match self.start(id, &environment).await {
            Ok(sandbox) => Ok(sandbox),
            Err(problem) => {
                tracing::info!(session = %self.row.id, code = problem.code, "a sandbox is started anew: {}", problem.message);
                self.services.sandboxes.stop(id).await?;
                self.start(id, &environment).await
            }
        }
    }

    async fn environment(&self) -> Result<BoundedEnvironment, Problem> {
        let services = &self.services;
        let branch = services
            .forge
            .branch_commit(&self.row.repository, &self.row.base_branch)
            .await;
        // An empty repository has no branch yet, and no file.
        let branch = branch.is_ok().then_some(self.row.base_branch.as_str());
        let found =
            environment::find(&services.catalog, &services.forge, &self.row.repository, branch).await?;
        let checked = found.checked.map_err(|error| error.problem())?;
        let environment = services.bounds.apply(found.source, &checked)?;
        self.tell_once(&environment.notices).await;
        Ok(environment)
    }

    /// Shows what was cut of the environment, once for each as long as it is the same.
    async fn tell_once(&self, notices: &[Problem]) {
        let fresh: Vec<_> = {
            let mut told = self.slot.told.lock().unwrap_or_else(PoisonError::into_inner);
            let fresh = notices
                .iter()
                .filter(|notice| !told.contains(notice))
                .cloned()
                .collect();
            notices.clone_into(&mut told);
            fresh
        };
        let events = fresh.into_iter().map(|problem| EventBody::ItemCompleted {
            turn_id: self.turn_id.clone(),
            item: Item {
                id: ItemId::from_bits(fresh_bits()),
                body: ItemBody::Notice { problem },
            },
        });
        self.append(events.collect()).await;
    }

    async fn start(
        &self,
        id: &SandboxId,
        environment: &BoundedEnvironment,
    ) -> Result<Arc<dyn Sandbox>, Problem> {
        let request = StartRequest {
            id: id.clone(),
            routes: crate::broker::session_routes(self.services.clone(), self.row.clone()),
            backend: environment.backend,
            runtime: environment.runtime.clone(),
            resources: environment.resources,
            variables: environment.variables.clone(),
            files: Vec::new(),
        };
        let (sandbox, _) = self.services.sandboxes.start(request).await?;
        self.report(id, SandboxState::Syncing, None).await;
        checkout::ensure(&sandbox, &self.row, &self.author).await?;
        Ok(sandbox)
    }

    async fn sandbox_id(&self) -> Result<SandboxId, Problem> {
        let catalog = &self.services.catalog;
        if let Some(id) = catalog
            .sandbox(&self.row.id)
            .await
            .map_err(|error| error.problem())?
        {
            return Ok(id);
        }
        let id = SandboxId::from_bits(fresh_bits());
        catalog
            .put_sandbox(&self.row.id, &id)
            .await
            .map_err(|error| error.problem())?;
        Ok(id)
    }

    async fn report(&self, id: &SandboxId, state: SandboxState, problem: Option<Problem>) {
        let event = EventBody::SandboxStateChanged {
            sandbox_id: id.clone(),
            state,
            problem,
        };
        self.append(vec![event]).await;
    }

    /// Facts about the sandbox are for people to see; a turn does not fail because they cannot be written.
    async fn append(&self, events: Vec<EventBody>) {
        if events.is_empty() {
            return;
        }
        let batch = Batch {
            events,
            ..Batch::default()
        };
        if let Err(problem) = self.handle.append(batch).await {
            tracing::warn!(session = %self.row.id, code = problem.code, "what became of the sandbox is not recorded");
        }
    }

    async fn used(&self) -> Result<Arc<dyn Sandbox>, WorkspaceError> {
        let sandbox = self.sandbox().await.map_err(WorkspaceError::Lost)?;
        self.slot.has_unpushed.store(true, Ordering::Relaxed);
        Ok(sandbox)
    }

    /// Commits made by whatever runs carry the prompting person's name.
    fn with_author(&self, mut exec: Exec) -> Exec {
        let mut env = self.author.git_environment();
        env.append(&mut exec.env);
        Exec { env, ..exec }
    }
}

fn workspace_error(error: SandboxError) -> WorkspaceError {
    match error {
        SandboxError::Call(error) => WorkspaceError::Call(error),
        SandboxError::Lost(problem) => WorkspaceError::Lost(problem),
    }
}

#[async_trait]
impl Workspace for SessionWorkspace {
    async fn call(&self, call: Call) -> Result<Reply, WorkspaceError> {
        self.used().await?.call(call).await.map_err(workspace_error)
    }

    async fn read_file(
        &self,
        path: &str,
        scope: Scope,
        offset: u64,
        max_bytes: u64,
    ) -> Result<FileBytes, WorkspaceError> {
        self.used()
            .await?
            .read_file(path, scope, offset, max_bytes)
            .await
            .map_err(workspace_error)
    }

    async fn write_file(&self, path: &str, scope: Scope, bytes: Vec<u8>) -> Result<(), WorkspaceError> {
        self.used()
            .await?
            .write_file(path, scope, bytes)
            .await
            .map_err(workspace_error)
    }

    async fn exec(
        &self,
        exec: Exec,
        output: mpsc::Sender<OutputChunk>,
        cancel: CancellationToken,
    ) -> Result<Exit, WorkspaceError> {
        self.used()
            .await?
            .exec(self.with_author(exec), output, cancel)
            .await
            .map_err(workspace_error)
    }

    async fn spawn(&self, exec: Exec) -> Result<u32, WorkspaceError> {
        self.used()
            .await?
            .spawn(self.with_author(exec))
            .await
            .map_err(workspace_error)
    }
}
