//! The one sandbox of a session, shared by its turns, and how it is put to rest when nobody uses it.

use super::command::SessionHandle;
use super::diff::LastLook;
use super::services::SessionServices;
use super::snapshots;
use super::stillness::{InUse, Stillness};
use super::way_out::WayOut;
use super::workspace_notes::WorkspaceNotes;
use crate::egress::EgressLedger;
use crate::sandbox::{RouteHandler, Sandbox};
use greenroom_agent::world::ServiceFact;
use greenroom_protocol::client::event::{EventBody, SandboxState};
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::session::{Session, WorkspaceRepository};
use greenroom_protocol::guest::call::{Call, Reply};
use greenroom_protocol::id::SandboxId;
use greenroom_store::session_log::Batch;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::{Mutex, watch};

/// A sandbox that takes longer to say what runs in it is as good as gone.
const LIST_TIMEOUT: Duration = Duration::from_secs(10);

/// A person works in the sandbox until this is dropped.
pub struct PersonsWork {
    sandbox: Arc<dyn Sandbox>,
    slot: Arc<SandboxSlot>,
    _in_use: InUse,
}

impl PersonsWork {
    pub fn sandbox(&self) -> &Arc<dyn Sandbox> {
        &self.sandbox
    }
}

impl Drop for PersonsWork {
    fn drop(&mut self) {
        self.slot.has_unpushed.store(true, Ordering::SeqCst);
        self.slot.people.fetch_sub(1, Ordering::SeqCst);
    }
}

/// How an idle sandbox is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    WithSnapshot,
    /// Somebody waits for its place. Its files stay.
    AtOnce,
    /// With a snapshot, and whatever runs in it: its session is archived.
    ForGood,
}

/// The session's sandbox: whoever needs it while it starts waits for the same start.
pub struct SandboxSlot {
    pub(super) ready: Mutex<Option<Arc<dyn Sandbox>>>,
    /// One that starts from an image and can be read from, while it is brought to the newest commit.
    pub(super) early: watch::Sender<Option<Arc<dyn Sandbox>>>,
    /// What was read meanwhile.
    pub(super) workspace_notes: WorkspaceNotes,
    /// The sandbox as an earlier server left it: only served, until a turn looks after it and takes the link over.
    adopted: std::sync::Mutex<Option<Arc<dyn Sandbox>>>,
    /// Whether files may have changed since the last push. Outlives a turn whose push failed.
    pub(super) has_unpushed: AtomicBool,
    /// People who work in it now.
    people: AtomicUsize,
    /// What people were told last about cuts of the environment.
    pub(super) told: std::sync::Mutex<Vec<Problem>>,
    /// Decisions about the sandbox's way out.
    pub ledger: Arc<EgressLedger>,
    /// Whether someone writes down what the ledger tells.
    pub(super) has_writer: AtomicBool,
    /// What runs in it beside the agent, by the environment it was started with.
    services: std::sync::Mutex<Vec<ServiceFact>>,
    pub(super) stillness: Arc<Stillness>,
    /// How its files were seen last.
    pub(super) last_look: LastLook,
    /// What is checked out in it, by the environment it was started with; `None`: not started yet.
    repositories: std::sync::Mutex<Option<Vec<WorkspaceRepository>>>,
}

impl SandboxSlot {
    /// `has_unpushed`: what an earlier process left in the sandbox may not have been pushed.
    pub fn new(has_unpushed: bool) -> Self {
        Self {
            ready: Mutex::new(None),
            early: watch::Sender::new(None),
            workspace_notes: WorkspaceNotes::default(),
            adopted: std::sync::Mutex::default(),
            has_unpushed: AtomicBool::new(has_unpushed),
            people: AtomicUsize::new(0),
            told: std::sync::Mutex::default(),
            ledger: Arc::default(),
            has_writer: AtomicBool::new(false),
            services: std::sync::Mutex::default(),
            stillness: Arc::default(),
            last_look: LastLook::default(),
            repositories: std::sync::Mutex::default(),
        }
    }

    /// The sandbox if it runs now; `None` also while it starts.
    pub fn running(&self) -> Option<Arc<dyn Sandbox>> {
        let ready = self.ready.try_lock().ok()?;
        ready.clone().filter(|sandbox| sandbox.is_alive())
    }

    /// The sandbox if it runs now, also if no turn looked after it since the server started.
    pub fn serving(&self) -> Option<Arc<dyn Sandbox>> {
        let adopted = || self.adopted().filter(|sandbox| sandbox.is_alive());
        self.running().or_else(adopted)
    }

    /// Whether the sandbox stands still, since nobody uses it.
    pub fn is_still(&self) -> bool {
        self.stillness.is_held()
    }

    /// Whether nothing of it is in memory that a fresh one would not find again.
    pub(super) fn is_at_rest(&self) -> bool {
        let is_stopped = self.ready.try_lock().is_ok_and(|ready| ready.is_none());
        is_stopped
            && self.adopted().is_none()
            && self.early.borrow().is_none()
            && self.people.load(Ordering::SeqCst) == 0
    }

    /// The sandbox for a person to work in, if it runs now: what is changed there is pushed with the next turn.
    pub async fn for_person(self: &Arc<Self>) -> Option<PersonsWork> {
        let in_use = self.stillness.go_on().await;
        let sandbox = self.running().or_else(|| self.adopted())?;
        self.people.fetch_add(1, Ordering::SeqCst);
        Some(PersonsWork {
            sandbox,
            slot: self.clone(),
            _in_use: in_use,
        })
    }

    /// The sandbox to be asked something, if it runs now; it may stand still again when the second is dropped.
    pub async fn to_ask(&self) -> Option<(Arc<dyn Sandbox>, InUse)> {
        let in_use = self.stillness.go_on().await;
        Some((self.serving()?, in_use))
    }

    /// Whether files may have changed since the last push.
    pub(super) fn has_unpushed(&self) -> bool {
        self.has_unpushed.load(Ordering::SeqCst) || self.people.load(Ordering::SeqCst) > 0
    }

    /// Services of the sandbox that runs; `None` if none does.
    pub(super) fn running_services(&self) -> Option<Vec<ServiceFact>> {
        self.running()?;
        Some(
            self.services
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        )
    }

    pub(super) fn set_services(&self, services: Vec<ServiceFact>) {
        *self.services.lock().unwrap_or_else(PoisonError::into_inner) = services;
    }

    /// The workspace's repositories, as its sandbox was last started.
    pub(super) fn repositories(&self) -> Option<Vec<WorkspaceRepository>> {
        let known = self.repositories.lock();
        known.unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_repositories(&self, repositories: Vec<WorkspaceRepository>) {
        *self.repositories.lock().unwrap_or_else(PoisonError::into_inner) = Some(repositories);
    }

    /// Serves a sandbox that an earlier server left running: its connections go out as they did before, and its exposed ports
    /// are open, although no turn uses it yet. Leaves it to a turn that has begun.
    pub async fn adopt(
        &self,
        services: &Arc<SessionServices>,
        row: &Session,
        id: &SandboxId,
    ) -> Result<(), Problem> {
        // Whoever holds the lock uses it.
        let Ok(ready) = self.ready.try_lock() else {
            return Ok(());
        };
        if ready.is_some() {
            return Ok(());
        }
        let routes = match WayOut::kept(services, &row.id).await? {
            Some(way_out) => way_out.open(services, row, id, self).1,
            // Nobody knows what it may do.
            None => refuse_routes(),
        };
        let found = services.sandboxes.find(id, routes).await?;
        *self.adopted.lock().unwrap_or_else(PoisonError::into_inner) = found;
        Ok(())
    }

    /// A turn looks after the sandbox itself from now on, or it is gone.
    pub(super) fn forget_adopted(&self) {
        self.adopted.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn adopted(&self) -> Option<Arc<dyn Sandbox>> {
        let adopted = self.adopted.lock().unwrap_or_else(PoisonError::into_inner);
        adopted.clone()
    }

    /// Stops the sandbox if no turn uses it and no command runs in it, and says whether it is stopped. Its files stay.
    pub async fn rest(
        &self,
        services: &SessionServices,
        handle: &SessionHandle,
        id: &SandboxId,
        leave: Leave,
    ) -> Result<bool, Problem> {
        // Whoever holds the lock uses it.
        let Ok(mut ready) = self.ready.try_lock() else {
            return Ok(false);
        };
        if !services.running.is_idle(id) {
            return Ok(false);
        }
        let known = ready.clone().or_else(|| self.adopted());
        let known = known.filter(|sandbox| sandbox.is_alive());
        let sandbox = match known {
            Some(sandbox) => Some(sandbox),
            // Its link broke.
            None => services.sandboxes.find(id, refuse_routes()).await?,
        };
        if let Some(sandbox) = &sandbox
            && leave != Leave::ForGood
            // Nothing that an agent started runs in one that stands still.
            && !self.stillness.is_held()
            && runs(sandbox, Counted::Commands).await
        {
            return Ok(false);
        }
        // What stands still cannot end in order.
        let _in_use = self.stillness.go_on().await;
        if leave != Leave::AtOnce {
            // What its last turn left, and what went on after it.
            snapshots::take_by_itself(services, &handle.id, id).await;
        }
        services.sandboxes.stop(id).await?;
        *ready = None;
        self.adopted.lock().unwrap_or_else(PoisonError::into_inner).take();
        services.running.gone(id);
        let stopped = EventBody::SandboxStateChanged {
            sandbox_id: id.clone(),
            state: SandboxState::Stopped,
            problem: None,
        };
        handle
            .append(Batch {
                events: vec![stopped],
                ..Batch::default()
            })
            .await?;
        Ok(true)
    }
}

impl SandboxSlot {
    /// Holds the sandbox still if nobody has used it for so long and only services run in it; says whether it stands still since now.
    pub async fn hold_still(
        &self,
        services: &SessionServices,
        id: &SandboxId,
        unused_for: Duration,
    ) -> Result<bool, Problem> {
        let freeze = async || {
            let Some(sandbox) = self.serving() else {
                return Ok(None);
            };
            let is_busy = !services.running.is_idle(id) || runs(&sandbox, Counted::LeftBehindToo).await;
            match is_busy {
                true => Ok(None),
                false => services.sandboxes.freeze(id).await.map(Some),
            }
        };
        self.stillness.hold(unused_for, freeze).await
    }
}

/// What counts as work that goes on in a sandbox. Services never do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Counted {
    Commands,
    /// Also what a command started and did not wait for. It does not keep a sandbox for ever, since nobody can tell whether it is wanted.
    LeftBehindToo,
}

/// Whether something that an agent started still runs.
async fn runs(sandbox: &Arc<dyn Sandbox>, counted: Counted) -> bool {
    let listed = tokio::time::timeout(LIST_TIMEOUT, sandbox.call(Call::ListProcesses)).await;
    match listed {
        Ok(Ok(Reply::Processes {
            processes,
            left_behind,
        })) => {
            let is_left_behind = counted == Counted::LeftBehindToo && left_behind > 0;
            is_left_behind || processes.iter().any(|process| process.exit.is_none())
        }
        _ => false,
    }
}

fn refuse_routes() -> RouteHandler {
    Arc::new(|_, stream| drop(stream))
}
