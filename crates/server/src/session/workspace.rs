//! The session's sandbox as the agent sees it: started in the background when a turn starts, with the repository checked
//! out on the session's branch. The first tool call waits for it, the first model request does not.

mod beginning;
mod calls;

use super::changes::ChangeAuthor;
use super::checkout::{self, Checkout};
use super::command::SessionHandle;
use super::file_watch;
use super::running::{self, Admission};
use super::sandbox_slot::{Leave, SandboxSlot};
use super::service_watch::{self, READY_PATIENCE};
use super::services::SessionServices;
use super::snapshots;
use super::way_out::WayOut;
use crate::environment::BoundedEnvironment;
use crate::pool::{Claimed, Kind};
use crate::repositories;
use crate::sandbox::{Measure, Origin, Sandbox};
use crate::start_request::start_request;
use beginning::Beginning;
use greenroom_agent::world::ServiceFact;
use greenroom_protocol::client::event::{EventBody, Item, ItemBody, SandboxState, SandboxUsage};
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::session::{Session, WorkspaceRepository};
use greenroom_protocol::guest::service::{Readiness, Service};
use greenroom_protocol::id::{ItemId, SandboxId, TurnId};
use greenroom_stdx::id::fresh_bits;
use greenroom_stdx::step;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, Weak};
use std::time::{Instant, SystemTime};
use tokio::sync::{OnceCell, watch};

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
    /// Whether the turn has ended. What it was still waiting for is then nobody's.
    is_over: AtomicBool,
    /// When the first call began that may change files, by the clock that files are marked with.
    first_change: OnceLock<SystemTime>,
    /// For what must go on when its caller is gone.
    itself: Weak<Self>,
    /// As it was when the turn first asked for it.
    environment: OnceCell<BoundedEnvironment>,
    /// From the warm pool, until it is the session's.
    claimed: std::sync::Mutex<Option<Claimed>>,
    /// Of the sandbox, since this turn began to use it.
    measure: std::sync::Mutex<Option<Arc<dyn Measure>>>,
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
        Arc::new_cyclic(|itself| Self {
            services,
            handle,
            row,
            turn_id,
            author,
            slot,
            is_checked: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            first_change: OnceLock::new(),
            itself: itself.clone(),
            environment: OnceCell::new(),
            claimed: std::sync::Mutex::default(),
            measure: std::sync::Mutex::default(),
        })
    }

    /// Starts the sandbox in the background, after `begin` unless a call needs it before. A failure is met again, and then shown, by
    /// the first call.
    pub fn prepare(self: &Arc<Self>, begin: impl Future<Output = ()> + Send + 'static) {
        let workspace = self.clone();
        self.services.tasks.clone().spawn(async move {
            begin.await;
            if let Err(problem) = workspace.sandbox().await
                && !workspace.is_over.load(Ordering::SeqCst)
            {
                tracing::warn!(session = %workspace.row.id, code = problem.code, "sandbox not ready: {}", problem.message);
            }
        });
    }

    /// Whether files may have changed since the last push, in this turn or in one whose push failed.
    pub fn has_unpushed(&self) -> bool {
        self.slot.has_unpushed()
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
    ///
    /// A caller that is cancelled leaves nothing half started: the work goes on without it, and the server waits for that
    /// before it ends.
    pub async fn sandbox(&self) -> Result<Arc<dyn Sandbox>, Problem> {
        let workspace = self.itself.upgrade().ok_or_else(turn_over)?;
        let found = self
            .services
            .tasks
            .spawn(async move { workspace.find_or_start().await });
        found
            .await
            .unwrap_or_else(|_| Err(Problem::permanent("internal", "Starting the sandbox failed.")))
    }

    async fn find_or_start(&self) -> Result<Arc<dyn Sandbox>, Problem> {
        // Until it counts as one that a turn uses.
        let _in_use = self.slot.stillness.go_on().await;
        let mut ready = self.slot.ready.lock().await;
        if self.is_over.load(Ordering::SeqCst) {
            return Err(turn_over());
        }
        let is_checked = self.is_checked.load(Ordering::Relaxed);
        if let Some(sandbox) = ready.as_ref().filter(|sandbox| sandbox.is_alive())
            && (is_checked || checkout::is_usable(sandbox).await)
        {
            if !is_checked {
                let id = self.sandbox_id().await?;
                // It has its place already.
                self.services.running.admit(&id, &self.handle, 0);
                self.measure_from_now(sandbox).await;
            }
            self.is_checked.store(true, Ordering::Relaxed);
            return Ok(sandbox.clone());
        }
        let id = self.first_or_known_id().await?;
        if let Some(last) = ready.take()
            // If only the link to it broke, it is found again, and what runs in it goes on.
            && (last.is_alive() || !self.services.sandboxes.is_running(&id).await?)
        {
            self.report(&id, SandboxState::Lost, None).await;
            // What made it unusable, such as processes without end, must not be found again.
            self.services.sandboxes.stop(&id).await?;
        }
        let started = match self.admit(&id).await {
            Ok(()) => {
                self.report(&id, SandboxState::Starting, None).await;
                self.start_over(&id).await
            }
            Err(problem) => Err(problem),
        };
        self.is_checked.store(true, Ordering::Relaxed);
        match started {
            Ok(sandbox) => {
                step::reached("claim.synced");
                self.report(&id, SandboxState::Ready, None).await;
                step::reached("claim.ready");
                self.release_origin().await;
                if self.is_over.load(Ordering::SeqCst) {
                    // It ended meanwhile. The next turn takes the place again, when this lets go of the slot.
                    self.leave().await;
                }
                *ready = Some(sandbox.clone());
                self.slot.forget_adopted();
                Ok(sandbox)
            }
            Err(problem) => {
                self.slot.forget_adopted();
                self.services.metrics.sandbox_start_failed(&problem.code);
                self.services.running.gone(&id);
                self.report(&id, SandboxState::Lost, Some(problem.clone())).await;
                Err(problem)
            }
        }
    }

    /// The sandbox after the link `lost` to it broke, if it still runs; with new routes, and as the turn's sandbox from now on.
    async fn attached_again(&self, lost: &Arc<dyn Sandbox>) -> Option<Arc<dyn Sandbox>> {
        let id = self.sandbox_id().await.ok()?;
        let mut ready = self.slot.ready.lock().await;
        // Unless another call did it meanwhile.
        if ready.as_ref().is_none_or(|current| Arc::ptr_eq(current, lost)) {
            if !self.services.sandboxes.is_running(&id).await.ok()? {
                return None;
            }
            tracing::info!(session = %self.row.id, sandbox = %id, "the link to a sandbox broke; it is attached again");
            // What was forgotten is found, and not stopped first.
            *ready = None;
        }
        drop(ready);
        self.sandbox().await.ok()
    }

    /// Takes a place among the running sandboxes; one that is idle makes room.
    async fn admit(&self, id: &SandboxId) -> Result<(), Problem> {
        let running = &self.services.running;
        loop {
            let pool = &self.services.pool;
            let Admission::Full(idle) = running.admit(id, &self.handle, pool.count()) else {
                return Ok(());
            };
            // People's own go before what waits for anybody.
            if pool.make_room(&self.services).await {
                continue;
            }
            if !make_room(&self.services, idle).await? {
                return Err(running::exhausted(running.max_running()));
            }
        }
    }

    /// Takes a snapshot of what the turn changed, in the background. Unless it is certain that it changed something, that is looked for: git
    /// ignores files, and others lie outside the workspace.
    pub async fn keep_snapshot(&self, is_certain: bool) {
        let Ok(id) = self.sandbox_id().await else {
            return;
        };
        let since = self.first_change.get().copied();
        let (services, session) = (self.services.clone(), self.row.id.clone());
        self.services.tasks.spawn(async move {
            let has_changed = match since {
                _ if is_certain => true,
                Some(since) => services
                    .sandboxes
                    .has_changed_since(&id, since)
                    .await
                    .unwrap_or(true),
                None => false,
            };
            if !has_changed {
                return;
            }
            snapshots::take_by_itself(&services, &session, &id).await;
        });
    }

    /// The turn is over: nobody needs the sandbox now.
    pub async fn leave(&self) {
        self.is_over.store(true, Ordering::SeqCst);
        if let Ok(Some(id)) = self.services.catalog.sandbox(&self.row.id).await {
            self.services.running.leave(&id, self.services.clock.now_ms());
        }
    }

    /// Starts it by the environment of now; a second time if the first does not get far.
    async fn start_over(&self, id: &SandboxId) -> Result<Arc<dyn Sandbox>, Problem> {
        let environment = self.environment().await?;
        self.tell_once(&environment.notices).await;
        match self.start(id, environment).await {
            Ok(sandbox) => Ok(sandbox),
            Err(problem) => {
                tracing::info!(session = %self.row.id, code = problem.code, "a sandbox is started anew: {}", problem.message);
                self.services.sandboxes.stop(id).await?;
                self.start(id, environment).await
            }
        }
    }

    /// The environment that the next start goes by; looked for once in a turn.
    pub async fn environment(&self) -> Result<&BoundedEnvironment, Problem> {
        let find = async || {
            let services = &self.services;
            let (repository, branch) = (&self.row.repository, &self.row.base_branch);
            let found = services
                .environments(false)
                .find(repository, Some(branch))
                .await?;
            found.bounded(&services.bounds)
        };
        self.environment.get_or_try_init(find).await
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
        self.tell(fresh).await;
    }

    /// Shows problems that do not end the turn.
    pub async fn tell(&self, problems: Vec<Problem>) {
        let events = problems.into_iter().map(|problem| EventBody::ItemCompleted {
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
        let services = &self.services;
        let way_out = self.way_out(id, environment).await?;
        let repositories = way_out.repositories(&self.row);
        let (egress, routes) = way_out.open(services, &self.row, id, &self.slot);
        let claimed = self.claimed.lock().unwrap_or_else(PoisonError::into_inner).take();
        let claimed = claimed.filter(|claimed| claimed.id == *id && claimed.sandbox.is_alive());
        let began = Instant::now();
        let mut beginning = Beginning::Kept;
        let (sandbox, origin) = match &claimed {
            Some(claimed) => {
                claimed.lead(routes);
                (claimed.sandbox.clone(), Origin::Found)
            }
            None => {
                let wanted = self.beginning(id, environment).await;
                let from = wanted.snapshot().cloned();
                let request = start_request(environment, id, &egress, routes, from)?;
                let (sandbox, origin, began_with) = self.start_with(wanted, request).await?;
                beginning = began_with;
                (sandbox, origin)
            }
        };
        if origin == Origin::Started {
            services
                .metrics
                .sandbox_started(environment.backend, began.elapsed());
        }
        if origin == Origin::Started || !self.is_measuring() {
            self.measure_from_now(&sandbox).await;
        }
        self.write_decisions();
        self.report(id, SandboxState::Syncing, None).await;
        let readable = || drop(self.slot.early.send_replace(Some(sandbox.clone())));
        let heads = self.heads_if_claimed(claimed.as_ref(), &repositories).await;
        let checkout = Checkout {
            sandbox: &sandbox,
            row: &self.row,
            repositories: &repositories,
            author: &self.author,
            heads: heads.as_deref(),
            is_restored: matches!(beginning, Beginning::Restored(_)),
        };
        let checked_out = checkout.ensure(readable).await;
        self.slot.early.send_replace(None);
        let checked_out = checked_out?;
        self.slot.set_repositories(checked_out.repositories.clone());
        self.slot.workspace_notes.settled(&checked_out.changed);
        self.tell_beginning(&beginning, &checked_out).await;
        let following = file_watch::follow(sandbox.clone(), self.handle.clone());
        services.tasks.spawn(following);
        self.start_services(&sandbox, &environment.services).await;
        Ok(sandbox)
    }

    /// The commits that a sandbox of the pool has checked out, if they are still the newest.
    async fn heads_if_claimed(
        &self,
        claimed: Option<&Claimed>,
        repositories: &[WorkspaceRepository],
    ) -> Option<Vec<String>> {
        let claimed = claimed?;
        let heads = repositories::heads(&self.services.forge, repositories)
            .await
            .ok()?;
        (heads == claimed.heads).then_some(heads)
    }

    /// The repositories of the workspace, as its sandbox was started with; the session's own first.
    pub fn repositories(&self) -> Vec<WorkspaceRepository> {
        let known = self.slot.repositories();
        let own = || WorkspaceRepository::own(&self.row.repository, &self.row.base_branch);
        known.unwrap_or_else(|| vec![own()])
    }

    /// Those beside the session's own, also before there is a sandbox.
    pub async fn other_repositories(&self) -> Vec<WorkspaceRepository> {
        if let (Some(_), Some(known)) = (self.slot.running(), self.slot.repositories()) {
            return known.into_iter().skip(1).collect();
        }
        let Ok(environment) = self.environment().await else {
            return Vec::new();
        };
        // One that is wrong is said where the sandbox is needed.
        let found = self.find_repositories(environment).await.unwrap_or_default();
        found.into_iter().skip(1).collect()
    }

    /// Those of the environment, and those that the session has already: where they are, so that no work is left behind.
    async fn find_repositories(
        &self,
        environment: &BoundedEnvironment,
    ) -> Result<Vec<WorkspaceRepository>, Problem> {
        let (services, row) = (&self.services, &self.row);
        let kept = match WayOut::kept(services, &row.id).await {
            // What nobody can read concerns a start that was before this one; it is in the log.
            Err(problem) if !problem.retryable => None,
            kept => kept?,
        };
        let kept = kept.map(|kept| kept.repositories(row)).unwrap_or_default();
        let (name, branch) = (&row.repository, &row.base_branch);
        let named = repositories::repositories(&services.forge, name, branch, environment).await?;
        Ok(repositories::with_kept(named, kept))
    }

    /// What the sandbox may reach: one that runs what it was started with, one that starts what the environment says now.
    async fn way_out(&self, id: &SandboxId, environment: &BoundedEnvironment) -> Result<WayOut, Problem> {
        let (services, session) = (&self.services, &self.row.id);
        if services.sandboxes.is_running(id).await?
            && let Some(kept) = WayOut::kept(services, session).await?
        {
            return Ok(kept);
        }
        let fresh = WayOut::of(environment, self.find_repositories(environment).await?);
        // Before it runs, so that whoever finds it running finds this.
        fresh.keep(services, session).await?;
        Ok(fresh)
    }

    /// Brings what the ledger tells into the log, as long as the session is in memory.
    fn write_decisions(&self) {
        if self.slot.has_writer.swap(true, Ordering::Relaxed) {
            return;
        }
        let (ledger, handle) = (self.slot.ledger.clone(), self.handle.clone());
        self.services.tasks.spawn(async move {
            loop {
                let events = tokio::select! {
                    events = ledger.next() => events,
                    () = handle.closed() => return,
                };
                handle.tell(events, "a decision about connections").await;
            }
        });
    }

    /// Starts the environment's services and waits a little for them; after that tool calls run while they get ready.
    async fn start_services(&self, sandbox: &Arc<dyn Sandbox>, services: &[Service]) {
        self.slot
            .set_services(services.iter().map(service_fact).collect());
        if services.is_empty() {
            return;
        }
        service_watch::start(sandbox, services, &self.handle).await;
        let (settled, mut is_settled) = watch::channel(false);
        let following = service_watch::follow(sandbox.clone(), self.handle.clone(), settled);
        self.services.tasks.spawn(following);
        // The follower ends with the sandbox, and then nobody is waited for either.
        let _ = tokio::time::timeout(READY_PATIENCE, is_settled.wait_for(|is_settled| *is_settled)).await;
    }

    fn is_measuring(&self) -> bool {
        self.measure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
    }

    async fn measure_from_now(&self, sandbox: &Arc<dyn Sandbox>) {
        let measure = sandbox.begin_measure().await;
        if let Err(problem) = &measure {
            tracing::debug!(session = %self.row.id, code = problem.code, "what the turn uses is not measured");
        }
        *self.measure.lock().unwrap_or_else(PoisonError::into_inner) = measure.ok();
    }

    /// What this turn used of the sandbox; `None` if it used none, or nothing can be measured.
    pub async fn usage(&self) -> Option<SandboxUsage> {
        let measure = self
            .measure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()?;
        measure.usage().await.ok()
    }

    /// The session's sandbox; its first one comes from the warm pool, if one there fits.
    async fn first_or_known_id(&self) -> Result<SandboxId, Problem> {
        let (services, session) = (&self.services, &self.row.id);
        let known = services.catalog.sandbox(session).await;
        if let Some(id) = known.map_err(|error| error.problem())? {
            return Ok(id);
        }
        let kind = Kind {
            repository: self.row.repository.clone(),
            branch: self.row.base_branch.clone(),
        };
        // A fork begins with the files of another.
        if self.row.forked_from.is_some() && snapshots::newest(services, session).await?.is_some() {
            return self.sandbox_id().await;
        }
        // What is wrong with it is told by the start that follows.
        let Ok(environment) = self.environment().await else {
            return self.sandbox_id().await;
        };
        let claimed = services
            .pool
            .claim(services, &kind, environment, &self.author.person.id)
            .await;
        services.metrics.first_sandbox(claimed.is_some());
        let Some(claimed) = claimed else {
            return self.sandbox_id().await;
        };
        match services.catalog.claim_sandbox(session, &claimed.id).await {
            Ok(id) if id == claimed.id => {
                step::reached("claim.kept");
                tracing::debug!(%session, sandbox = %id, "a session took a sandbox of the pool");
                *self.claimed.lock().unwrap_or_else(PoisonError::into_inner) = Some(claimed);
                Ok(id)
            }
            Ok(other) => {
                services.pool.give_back(services, claimed).await;
                Ok(other)
            }
            Err(error) => {
                services.pool.give_back(services, claimed).await;
                Err(error.problem())
            }
        }
    }

    async fn sandbox_id(&self) -> Result<SandboxId, Problem> {
        let (catalog, session) = (&self.services.catalog, &self.row.id);
        let found = catalog.sandbox(session).await.map_err(|error| error.problem())?;
        match found {
            Some(id) => Ok(id),
            None => catalog
                .claim_sandbox(session, &SandboxId::from_bits(fresh_bits()))
                .await
                .map_err(|error| error.problem()),
        }
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
        self.handle.tell(events, "what became of the sandbox").await;
    }
}

/// Stops the first of these that is still idle. Whether there was one.
pub async fn make_room(
    services: &SessionServices,
    idle: Vec<(SandboxId, SessionHandle)>,
) -> Result<bool, Problem> {
    for (other, handle) in idle {
        if handle
            .sandbox
            .rest(services, &handle, &other, Leave::AtOnce)
            .await?
        {
            tracing::info!(sandbox = %other, "an idle sandbox made room for another");
            return Ok(true);
        }
    }
    Ok(false)
}

/// Nobody needs the sandbox any more.
fn turn_over() -> Problem {
    Problem::permanent("turn_over", "This turn is over.")
}

/// What the agent is told of a service.
pub(super) fn service_fact(service: &Service) -> ServiceFact {
    ServiceFact {
        name: service.name.clone(),
        port: match service.ready {
            Readiness::Port { port } => Some(port),
            Readiness::Started | Readiness::Command { .. } | Readiness::Output { .. } => None,
        },
    }
}
