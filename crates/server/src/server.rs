//! Puts a server together, runs it, and takes it down again in order: no new requests, sockets told, turns written down.

use crate::api;
use crate::api::app::{App, Parts, Settings};
use crate::api::audit;
use crate::api::people::SIGN_IN_LINK;
use crate::api::rights::{Rights, RightsChange};
use crate::api::tickets::Tickets;
use crate::changes::RepositoryChanges;
use crate::egress::EgressSettings;
use crate::environment::Bounds;
use crate::image::{ImageBounds, ImageRegistry, wanted_snapshots};
use crate::models::ModelDirectory;
use crate::pool;
use crate::rest;
use crate::sandbox::SandboxProvider;
use crate::serve;
use crate::session::ending;
use crate::session::fork;
use crate::session::listing::{self, Listing};
use crate::session::registry::SessionRegistry;
use crate::session::right::Removed;
use crate::session::running::{RunningBounds, RunningSandboxes};
use crate::session::services::SessionServices;
use crate::session::snapshots::SnapshotBounds;
use greenroom_agent::world::{Driver, TurnLimits};
use greenroom_forge::Forge;
use greenroom_protocol::client::person::Person;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::id::SessionId;
use greenroom_stdx::chain::Chain;
use greenroom_stdx::clock::Clock;
use greenroom_stdx::id::fresh_bits;
use greenroom_stdx::secret::Secret;
use greenroom_store::catalog::Catalog;
use greenroom_store::session_log::SessionStore;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long turns and sockets get to end when the server goes down.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

/// What a server is made of; the binary chooses the implementations.
pub struct ServerParts {
    pub settings: Settings,
    pub catalog: Arc<Catalog>,
    pub store: Arc<dyn SessionStore>,
    pub forge: Arc<Forge>,
    pub models: ModelDirectory,
    pub driver: Arc<dyn Driver>,
    pub sandboxes: Arc<dyn SandboxProvider>,
    pub clock: Clock,
    /// What environments may ask for.
    pub bounds: Bounds,
    pub egress: EgressSettings,
    pub running: RunningBounds,
    pub limits: TurnLimits,
    pub images: ImageBounds,
    pub snapshots: SnapshotBounds,
}

/// A server that is ready to listen.
pub struct Server {
    app: App,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl Server {
    /// Puts the parts together; nothing runs yet.
    pub fn new(parts: ServerParts) -> Self {
        let shutdown = CancellationToken::new();
        let tasks = TaskTracker::new();
        let services = Arc::new(SessionServices {
            store: parts.store.clone(),
            catalog: parts.catalog.clone(),
            forge: parts.forge.clone(),
            models: parts.models.clone(),
            driver: parts.driver,
            sandboxes: parts.sandboxes,
            clock: parts.clock.clone(),
            bounds: parts.bounds,
            snapshots: parts.snapshots,
            limits: parts.limits,
            egress: parts.egress,
            running: RunningSandboxes::new(parts.running),
            pool: Arc::default(),
            changes: RepositoryChanges::default(),
            metrics: Arc::default(),
            shutdown: shutdown.clone(),
            node: "local".to_owned(),
            listing: Listing::default(),
            removed: Removed::default(),
            tasks: tasks.clone(),
        });
        let app = App::new(Parts {
            settings: parts.settings,
            catalog: parts.catalog,
            store: parts.store,
            forge: parts.forge,
            models: parts.models,
            sessions: SessionRegistry::new(services.clone(), shutdown.clone()),
            forking: tokio::sync::Mutex::default(),
            images: ImageRegistry::new(services.clone(), parts.images),
            services,
            tickets: Tickets::default(),
            rights: Rights::default(),
            run: format!("{:032x}", fresh_bits()),
            clock: parts.clock,
            shutdown: shutdown.clone(),
        });
        Self { app, tasks, shutdown }
    }

    /// Removes what an earlier server left and no session wants. Before the first request, so that nothing wanted is new.
    pub async fn clean_up(&self) {
        ending::finish(&self.app.services, &self.app.sessions).await;
        reap(&self.app).await;
    }

    /// A one-time sign-in link for the owner: an absolute URL.
    pub async fn owner_sign_in_link(&self) -> Result<String, Problem> {
        let owner = self.owner().await?;
        let secret = self
            .app
            .catalog
            .create_sign_in_link(&owner.id, SIGN_IN_LINK)
            .await;
        let secret = secret.map_err(|error| error.problem())?;
        Ok(format!(
            "{}/sign-in#token={}",
            self.app.settings.public_url,
            secret.expose()
        ))
    }

    /// An API token of the owner, for the programs on this machine. Earlier ones with the same label end.
    pub async fn owner_token(&self, label: &str) -> Result<Secret, Problem> {
        let catalog = &self.app.catalog;
        let owner = self.owner().await?;
        for token in catalog.tokens(&owner.id).await.map_err(|error| error.problem())? {
            if token.label == label {
                catalog
                    .revoke_token(&owner.id, &token.id)
                    .await
                    .map_err(|error| error.problem())?;
            }
        }
        let token = catalog
            .create_token(&owner.id, label)
            .await
            .map_err(|error| error.problem())?;
        Ok(Secret::new(token.secret))
    }

    async fn owner(&self) -> Result<Person, Problem> {
        self.app.catalog.owner().await.map_err(|error| error.problem())
    }

    /// Serves until `stop`, then ends in order. Sessions that were at work when the last server ended go on at once.
    pub async fn run(self, listener: TcpListener, stop: CancellationToken) -> std::io::Result<()> {
        let listing = self.tasks.spawn(listing::run(self.app.services.clone()));
        self.tasks.spawn(recover(self.app.clone()));
        self.tasks.spawn(audit::forget_old(self.app.clone()));
        self.tasks.spawn(end_old_sessions(self.app.clone()));
        self.tasks.spawn(self.app.images.clone().run());
        self.tasks.spawn(pool::keep(self.app.services.clone()));
        self.tasks
            .spawn(rest::idle_sandboxes(self.app.clone(), self.shutdown.clone()));
        self.tasks
            .spawn(rest::memory(self.app.clone(), self.shutdown.clone()));
        let router = api::router(self.app.clone());
        let max_connections = self.app.settings.max_connections;
        let grace_is_over = async {
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.shutdown.cancelled() => {}
            }
            // Sockets and turns end by this, and what serves waits for the sockets.
            self.shutdown.cancel();
            tokio::time::sleep(SHUTDOWN_GRACE).await;
        };
        let served = tokio::select! {
            served = serve::serve(listener, router, max_connections, self.shutdown.clone()) => served,
            () = grace_is_over => Ok(()),
        };
        self.shutdown.cancel();
        self.tasks.close();
        if tokio::time::timeout(SHUTDOWN_GRACE, self.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!("some work did not end in time; it goes on after the next start");
        }
        let _ = listing.await;
        served
    }
}

/// Wakes the sessions that were at work.
async fn recover(app: App) {
    match app.catalog.unfinished_sessions().await {
        Ok(ids) => {
            for id in ids {
                if let Err(problem) = app.sessions.get(&id).await {
                    tracing::error!(session = %id, code = problem.code, "a session cannot go on: {}", problem.message);
                }
            }
        }
        Err(error) => tracing::error!(error = %Chain(&error), "cannot list unfinished sessions"),
    }
}

/// Archives and deletes sessions as the server's settings say.
async fn end_old_sessions(app: App) {
    let ended = |id: &SessionId| app.rights.changed(RightsChange::Session(id.clone()));
    ending::by_age(&app.services, &app.sessions, app.settings.retention, ended).await;
}

async fn reap(app: &App) {
    let wanted: Vec<_> = match app.catalog.sandboxes().await {
        Ok(sandboxes) => sandboxes.into_iter().map(|(_, sandbox)| sandbox).collect(),
        Err(error) => {
            tracing::error!(error = %Chain(&error), "cannot list sandboxes, so none is removed");
            return;
        }
    };
    if let Err(problem) = app.services.sandboxes.reap(&wanted).await {
        tracing::warn!(
            code = problem.code,
            "old sandboxes could not be removed: {}",
            problem.message
        );
    }
    if let Err(problem) = fork::forget_unborn(&app.services, &app.sessions).await {
        tracing::warn!(
            code = problem.code,
            "files of forks that never came stay: {}",
            problem.message
        );
    }
    let retained = match wanted_snapshots(&app.services).await {
        Ok(snapshots) => app.services.sandboxes.retain_snapshots(&snapshots).await,
        Err(problem) => Err(problem),
    };
    if let Err(problem) = retained {
        tracing::warn!(
            code = problem.code,
            "old snapshots could not be removed: {}",
            problem.message
        );
    }
}
