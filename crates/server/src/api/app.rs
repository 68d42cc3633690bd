//! What every handler shares.

use super::rights::Rights;
use super::tickets::Tickets;
use crate::image::ImageRegistry;
use crate::models::ModelDirectory;
use crate::session::ending::Retention;
use crate::session::registry::SessionRegistry;
use crate::session::services::SessionServices;
use greenroom_forge::Forge;
use greenroom_protocol::client::member::SessionAccess;
use greenroom_stdx::clock::Clock;
use greenroom_store::catalog::Catalog;
use greenroom_store::session_log::SessionStore;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How this server is reached.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Address people use, without a slash at the end.
    pub public_url: String,
    /// Host names besides loopback that requests may name.
    pub allowed_hosts: Vec<String>,
    /// Origins besides the server's own that a browser's requests may come from, such as `https://tools.example.com`.
    pub allowed_origins: Vec<String>,
    /// What people may do in sessions of which they are no members, if whoever begins one does not say it.
    pub session_access: SessionAccess,
    /// How long it is kept who did what.
    pub audit_age: Duration,
    /// When sessions end by themselves.
    pub retention: Retention,
    /// Connections held at once; who comes then is told to try again.
    pub max_connections: usize,
    /// Version of this program.
    pub version: String,
}

/// The parts behind [`App`].
pub struct Parts {
    pub settings: Settings,
    pub catalog: Arc<Catalog>,
    pub store: Arc<dyn SessionStore>,
    pub forge: Arc<Forge>,
    pub models: ModelDirectory,
    pub sessions: Arc<SessionRegistry>,
    /// Held by whoever makes forks.
    pub forking: tokio::sync::Mutex<()>,
    pub services: Arc<SessionServices>,
    pub images: Arc<ImageRegistry>,
    pub tickets: Tickets,
    pub rights: Rights,
    /// Of this run of the server; another after each start.
    pub run: String,
    pub clock: Clock,
    pub shutdown: CancellationToken,
}

/// Shared state of all handlers; cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Parts>);

impl App {
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

impl Deref for App {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.0
    }
}
