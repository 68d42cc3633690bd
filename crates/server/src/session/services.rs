//! What every session actor shares: the log, the forge, models, sandboxes, the clock.

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
use greenroom_protocol::client::session::Session;
use greenroom_stdx::clock::Clock;
use greenroom_store::catalog::Catalog;
use greenroom_store::session_log::SessionStore;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;
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
    pub rows: RowWriter,
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

/// Brings session rows into the catalog, off the actors' path. The catalog's rows can be rebuilt from the logs, so the
/// newest row per session is enough: a burst of events becomes one write.
#[derive(Default)]
pub struct RowWriter {
    changed: Mutex<HashMap<String, Arc<Session>>>,
    wake: Notify,
}

impl RowWriter {
    /// Remembers a row to write, unless a newer one waits.
    pub fn changed(&self, row: Arc<Session>) {
        let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = changed
            .entry(row.id.as_str().to_owned())
            .or_insert_with(|| row.clone());
        if newest.last_seq < row.last_seq {
            *newest = row;
        }
        drop(changed);
        self.wake.notify_one();
    }

    /// Waits for rows and takes them.
    pub async fn take(&self) -> Vec<Arc<Session>> {
        loop {
            let rows = self.take_now();
            if !rows.is_empty() {
                return rows;
            }
            self.wake.notified().await;
        }
    }

    /// Takes what is there.
    pub fn take_now(&self) -> Vec<Arc<Session>> {
        self.changed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .drain()
            .map(|(_, row)| row)
            .collect()
    }
}
