//! Finds a session's actor, loading it when nobody has it. One actor per session in a process, one process per session by
//! the store's lease.

use super::actor::Actor;
use super::command::{MAILBOX_COMMANDS, Mail, SessionHandle, shutting_down};
use super::conversation::Conversation;
use super::hub::Hub;
use super::right::session_unknown;
use super::sandbox_slot::SandboxSlot;
use super::services::SessionServices;
use super::views;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::session::SessionState;
use greenroom_protocol::id::SessionId;
use greenroom_store::session_log::{AcquireError, Batch};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::mpsc::error::SendError;
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

/// How long a lease is good for. One process holds the data directory's lock, so it is never contended here.
const LEASE: Duration = Duration::from_secs(24 * 3600);

/// A session's place in memory; empty while it is loaded.
type Slot = Arc<Mutex<Option<SessionHandle>>>;

/// All sessions this process has in memory.
pub struct SessionRegistry {
    services: Arc<SessionServices>,
    shutdown: CancellationToken,
    loaded: Mutex<HashMap<SessionId, Slot>>,
    /// Those who watch stay while a session sleeps, and find it again when it wakes.
    hubs: std::sync::Mutex<HashMap<SessionId, Weak<Hub>>>,
    /// Sessions that were deleted and may still be on disk.
    deleted: std::sync::Mutex<HashSet<SessionId>>,
    itself: Weak<Self>,
}

impl SessionRegistry {
    pub fn new(services: Arc<SessionServices>, shutdown: CancellationToken) -> Arc<Self> {
        Arc::new_cyclic(|itself| Self {
            services,
            shutdown,
            loaded: Mutex::new(HashMap::new()),
            hubs: std::sync::Mutex::default(),
            deleted: std::sync::Mutex::default(),
            itself: itself.clone(),
        })
    }

    /// Gives a session what came for it while it fell asleep.
    pub(super) async fn deliver(&self, id: &SessionId, mut mail: Mail) -> Result<(), Problem> {
        while !self.shutdown.is_cancelled() {
            let handle = match self.get(id).await {
                Ok(handle) => handle,
                Err(problem) => {
                    mail.command.refuse(problem.clone());
                    return Err(problem);
                }
            };
            match handle.sender.send(mail).await {
                Ok(()) => return Ok(()),
                Err(SendError(back)) => mail = back,
            }
        }
        Err(shutting_down())
    }

    /// A session's actor has ended. What came for it meanwhile wakes it again.
    pub(super) async fn fell_asleep(&self, id: &SessionId, late: Vec<Mail>) {
        let shared = self.loaded.lock().await.get(id).cloned();
        if let Some(shared) = shared {
            let mut slot = shared.lock().await;
            if !is_awake(&slot) {
                // Also if somebody else looks at it now.
                *slot = None;
            }
            drop(slot);
            self.forget(id, &shared).await;
        }
        self.lock_hubs().retain(|_, hub| hub.strong_count() > 0);
        for mail in late {
            if let Err(problem) = self.deliver(id, mail).await
                && problem.code != "session_unknown"
            {
                tracing::error!(session = %id, code = problem.code, "a command that came while a session fell asleep is lost: {}", problem.message);
            }
        }
    }

    /// Forgets places that nobody looks at any more. Whoever looked while a session fell asleep kept its own.
    pub async fn sweep(&self) {
        let mut loaded = self.loaded.lock().await;
        loaded.retain(|_, slot| {
            Arc::strong_count(slot) > 1 || slot.try_lock().map_or(true, |slot| is_awake(&slot))
        });
    }

    /// How many sessions are in memory.
    pub async fn awake(&self) -> usize {
        let slots: Vec<Slot> = self.loaded.lock().await.values().cloned().collect();
        // One that is being loaded is awake in a moment.
        slots
            .iter()
            .filter(|slot| slot.try_lock().map_or(true, |slot| is_awake(&slot)))
            .count()
    }

    /// There is no such session any more, whatever is still on disk.
    pub fn is_deleted(&self, id: &SessionId) {
        let mut deleted = self.deleted.lock().unwrap_or_else(PoisonError::into_inner);
        deleted.insert(id.clone());
    }

    pub fn check_not_deleted(&self, id: &SessionId) -> Result<(), Problem> {
        let deleted = self.deleted.lock().unwrap_or_else(PoisonError::into_inner);
        match deleted.contains(id) {
            true => Err(session_unknown()),
            false => Ok(()),
        }
    }

    fn lock_hubs(&self) -> std::sync::MutexGuard<'_, HashMap<SessionId, Weak<Hub>>> {
        self.hubs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session's hub: that of those who watch already, if somebody does.
    fn hub(&self, id: &SessionId) -> Arc<Hub> {
        let mut hubs = self.lock_hubs();
        if let Some(hub) = hubs.get(id).and_then(Weak::upgrade) {
            return hub;
        }
        let hub = Arc::new(Hub::default());
        hubs.insert(id.clone(), Arc::downgrade(&hub));
        hub
    }

    /// Refuses to make a session again that was deleted since.
    pub async fn refuse_deleted(&self, id: &SessionId) -> Result<(), Problem> {
        let is_deleted = self.services.catalog.is_deleted(id).await;
        match is_deleted.map_err(|error| error.problem())? {
            true => Err(
                Problem::permanent("session_deleted", "The session that this made was deleted.")
                    .with_hint("Use a fresh idempotency key to make another one."),
            ),
            false => Ok(()),
        }
    }

    /// Makes a session; `begin` is what its log begins with, and its first event must be [`EventBody::SessionCreated`] of this id.
    /// Doing it twice loads the first.
    ///
    /// [`EventBody::SessionCreated`]: greenroom_protocol::client::event::EventBody::SessionCreated
    pub async fn create(&self, id: &SessionId, begin: Batch) -> Result<SessionHandle, Problem> {
        self.refuse_deleted(id).await?;
        let store = &self.services.store;
        store.create(id).await.map_err(|error| error.problem())?;
        let slot = self.slot(id).await;
        let mut slot = slot.lock().await;
        if let Some(handle) = slot.as_ref().filter(|handle| !handle.sender.is_closed()) {
            return Ok(handle.clone());
        }
        self.check_runs()?;
        let epoch = self.acquire(id).await?;
        if store.last_seq(id).await.map_err(|error| error.problem())? == 0 {
            let batch = Batch {
                at_ms: self.services.clock.now_ms(),
                ..begin
            };
            store
                .append(id, epoch, 0, batch)
                .await
                .map_err(|error| error.problem())?;
        }
        let handle = self.load(id, epoch).await?;
        *slot = Some(handle.clone());
        Ok(handle)
    }

    /// The session's actor, loaded if need be. `session_unknown` if there is no such session.
    pub async fn get(&self, id: &SessionId) -> Result<SessionHandle, Problem> {
        let shared = self.slot(id).await;
        let mut slot = shared.lock().await;
        if let Some(handle) = slot.as_ref().filter(|handle| !handle.sender.is_closed()) {
            return Ok(handle.clone());
        }
        let loaded = match self.check_runs().and_then(|()| self.check_not_deleted(id)) {
            Ok(()) => match self.acquire(id).await {
                Ok(epoch) => self.load(id, epoch).await,
                Err(problem) => Err(problem),
            },
            Err(problem) => Err(problem),
        };
        match loaded {
            Ok(handle) => {
                *slot = Some(handle.clone());
                Ok(handle)
            }
            Err(problem) => {
                drop(slot);
                self.forget(id, &shared).await;
                Err(problem)
            }
        }
    }

    /// Those that are in memory.
    pub async fn loaded(&self) -> Vec<SessionHandle> {
        let slots: Vec<Slot> = self.loaded.lock().await.values().cloned().collect();
        let mut loaded = Vec::new();
        for slot in slots {
            // One that is being loaded asks the catalog itself whom there is.
            let handle = slot.lock().await.clone();
            loaded.extend(handle.filter(|handle| !handle.sender.is_closed()));
        }
        loaded
    }

    /// A server that goes down loads nothing: what runs would be gone on with while it still ends.
    fn check_runs(&self) -> Result<(), Problem> {
        match self.shutdown.is_cancelled() {
            true => Err(shutting_down()),
            false => Ok(()),
        }
    }

    /// Ids that lead nowhere must not stay in memory. Whoever waits for this slot keeps it: two slots would mean two actors.
    async fn forget(&self, id: &SessionId, shared: &Slot) {
        let mut loaded = self.loaded.lock().await;
        let is_ours = loaded.get(id).is_some_and(|known| Arc::ptr_eq(known, shared));
        // One in the map, one here: nobody else has it, and nobody can get it while the map is locked.
        if is_ours && Arc::strong_count(shared) == 2 && shared.try_lock().is_ok_and(|slot| !is_awake(&slot)) {
            loaded.remove(id);
        }
    }

    async fn slot(&self, id: &SessionId) -> Slot {
        self.loaded.lock().await.entry(id.clone()).or_default().clone()
    }

    async fn acquire(&self, id: &SessionId) -> Result<u64, Problem> {
        match self.services.store.acquire(id, &self.services.node, LEASE).await {
            Ok(lease) => Ok(lease.epoch),
            Err(error @ AcquireError::Unknown) => Err(error.problem()),
            Err(error) => {
                tracing::error!(session = %id, error = %greenroom_stdx::chain::Chain(&error), "cannot open the session");
                Err(error.problem())
            }
        }
    }

    async fn load(&self, id: &SessionId, epoch: u64) -> Result<SessionHandle, Problem> {
        let (fold, cuts) = views::fold(&*self.services.store, id, u64::MAX).await?;
        let fold = fold.ok_or_else(|| Problem::permanent("session_unknown", "There is no such session."))?;
        // What an earlier process left in the sandbox may not have reached the forge.
        let has_past = fold.row.state != SessionState::Created;
        let (sender, mailbox) = mpsc::channel(MAILBOX_COMMANDS);
        let hub = self.hub(id);
        hub.begin(Arc::new(fold.row.clone()));
        let shutdown = self.shutdown.child_token();
        let sandbox = Arc::new(SandboxSlot::new(has_past));
        let conversation = Arc::new(Conversation::default());
        let actor = Actor {
            services: self.services.clone(),
            fold,
            epoch,
            hub: hub.clone(),
            mailbox,
            sender: sender.downgrade(),
            sandbox: sandbox.clone(),
            conversation: conversation.clone(),
            cuts,
            pending_end: None,
            registry: self.itself.clone(),
            stop: shutdown.child_token(),
            shutdown,
            is_deleted: false,
            once: None,
            is_row_due: false,
        };
        self.services.tasks.spawn(actor.run());
        Ok(SessionHandle {
            id: id.clone(),
            sender,
            right: None,
            once: None,
            registry: self.itself.clone(),
            hub,
            sandbox,
            conversation,
        })
    }
}

fn is_awake(slot: &Option<SessionHandle>) -> bool {
    slot.as_ref().is_some_and(|handle| !handle.sender.is_closed())
}
