//! What every session actor shares: the log, the forge, models, sandboxes, the clock.

use super::listing::Listing;
use super::right::Removed;
use super::running::RunningSandboxes;
use super::snapshots::SnapshotBounds;
use crate::changes::RepositoryChanges;
use crate::egress::EgressSettings;
use crate::environment::{Bounds, EnvironmentFinder};
use crate::metrics::Metrics;
use crate::models::ModelDirectory;
use crate::pool::WarmPool;
use crate::sandbox::SandboxProvider;
use greenroom_agent::world::{Driver, TurnLimits};
use greenroom_forge::Forge;
use greenroom_stdx::clock::Clock;
use greenroom_store::catalog::Catalog;
use greenroom_store::session_log::SessionStore;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Shared by all actors of a server.
pub struct SessionServices {
    pub store: Arc<dyn SessionStore>,
    pub catalog: Arc<Catalog>,
    pub forge: Arc<Forge>,
    pub models: ModelDirectory,
    pub driver: Arc<dyn Driver>,
    pub sandboxes: Arc<dyn SandboxProvider>,
    pub clock: Clock,
    /// What environments may ask for.
    pub bounds: Bounds,
    pub snapshots: SnapshotBounds,
    pub limits: TurnLimits,
    /// What the operator adds to every sandbox's way out.
    pub egress: EgressSettings,
    pub running: RunningSandboxes,
    pub pool: Arc<WarmPool>,
    pub changes: RepositoryChanges,
    pub metrics: Arc<Metrics>,
    /// Ends what serves sandboxes when the server goes down.
    pub shutdown: CancellationToken,
    /// Name of this server in leases.
    pub node: String,
    pub listing: Listing,
    pub removed: Removed,
    pub tasks: TaskTracker,
}

impl SessionServices {
    /// Where environments are looked for. `may_ask_again`: whether there is time to ask registries about names that are known.
    pub fn environments(&self, may_ask_again: bool) -> EnvironmentFinder<'_> {
        EnvironmentFinder {
            catalog: &self.catalog,
            forge: &self.forge,
            sandboxes: &*self.sandboxes,
            bounds: &self.bounds,
            now_ms: self.clock.now_ms(),
            may_ask_again,
        }
    }
}
