//! Ports of sandboxes on this machine's loopback network. Which are open is kept in each sandbox's directory, so that a
//! server that was killed opens the same addresses again when it finds the sandbox.

use crate::link::Link;
use crate::sandbox::{EndLink, Sandbox};
use crate::splice::Ending;
use crate::usage::Meter;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::id::SandboxId;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use std::{fs, io};
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Name of the file in a sandbox's directory.
const FILE_NAME: &str = "exposed.json";

/// Addresses per sandbox.
const MAX_EXPOSED: usize = 64;

/// Connections per sandbox at once; the guest keeps the same bound by itself.
const MAX_CONNECTIONS: usize = 192;

/// How long a listener may take to close.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// Between two tries to accept when this process has no descriptors for a moment.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A port of a sandbox and the address that leads to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposed {
    /// In the sandbox.
    pub port: u16,
    /// On this machine; always a loopback address.
    pub address: SocketAddr,
    /// Why nothing listens there, such as another program that took the address while no server ran; one sentence. It is
    /// tried again whenever the sandbox is found or started.
    pub problem: Option<String>,
}

/// Why a port could not be exposed or hidden.
#[derive(Debug, Error)]
pub enum ExposeError {
    #[error("{0} is not a loopback address")]
    NotLoopback(SocketAddr),
    #[error("{MAX_EXPOSED} ports of this sandbox are exposed already")]
    TooMany,
    #[error("listen on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("write {}", path.display())]
    Save { path: PathBuf, source: io::Error },
    #[error("the sandbox was stopped, or its host is gone")]
    Closed,
}

impl ExposeError {
    /// The error for people: stable code, one sentence, advice.
    pub fn problem(&self) -> Problem {
        match self {
            Self::NotLoopback(_) => Problem::permanent(
                "address_not_loopback",
                "A port can only be exposed on a loopback address.",
            ),
            Self::TooMany => Problem::permanent(
                "too_many_ports",
                "This sandbox has as many exposed ports as it may have.",
            ),
            Self::Listen { .. } => Problem::transient("address_taken", "The address cannot be listened on.")
                .with_hint("Another program may listen there; choose another port, or 0 for any."),
            Self::Save { .. } => {
                Problem::transient("sandbox_files", "The exposed port could not be recorded.")
                    .with_hint("Check that the data directory is writable and on a healthy disk.")
            }
            Self::Closed => Problem::transient("sandbox_lost", "The sandbox does not run any more."),
        }
    }
}

/// What a sandbox's file says.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    ports: Vec<KeptPort>,
}

#[derive(Debug, Serialize, Deserialize)]
struct KeptPort {
    port: u16,
    address: SocketAddr,
}

/// The exposed ports of all sandboxes of a host.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    sandboxes: Mutex<HashMap<SandboxId, Arc<Ports>>>,
    closed: CancellationToken,
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

impl Registry {
    /// The ports of a sandbox that runs.
    pub(crate) fn ports(&self, id: &SandboxId, directory: &Path) -> Arc<Ports> {
        let mut sandboxes = self.sandboxes.lock().unwrap_or_else(PoisonError::into_inner);
        let ports = sandboxes.entry(id.clone()).or_insert_with(|| {
            Arc::new(Ports {
                id: id.clone(),
                file: directory.join(FILE_NAME),
                closed: self.closed.child_token(),
                places: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
                state: Mutex::default(),
            })
        });
        Arc::clone(ports)
    }

    /// The sandbox is being stopped: nothing listens for it any more. What was exposed stays written down. Blocking.
    pub(crate) fn forget(&self, id: &SandboxId) {
        let known = self
            .sandboxes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(id);
        if let Some(ports) = known {
            ports.close();
        }
    }
}

/// The exposed ports of one sandbox.
pub(crate) struct Ports {
    id: SandboxId,
    file: PathBuf,
    closed: CancellationToken,
    places: Arc<Semaphore>,
    state: Mutex<State>,
}

impl std::fmt::Debug for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ports")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct State {
    is_loaded: bool,
    link: Option<Attached>,
    entries: Vec<Entry>,
}

/// The newest link to the sandbox.
struct Attached {
    link: Link,
    meter: Arc<Meter>,
    end: Weak<EndLink>,
    /// Keeps the link open while there is something to connect to.
    kept: Option<Arc<EndLink>>,
}

struct Entry {
    port: u16,
    address: SocketAddr,
    listening: Result<Listening, String>,
}

impl Entry {
    fn exposed(&self) -> Exposed {
        Exposed {
            port: self.port,
            address: self.address,
            problem: self.listening.as_ref().err().cloned(),
        }
    }
}

/// A task that accepts connections.
struct Listening {
    closed: CancellationToken,
    task: JoinHandle<()>,
}

impl Listening {
    /// Returns when the address is free again. Blocking.
    fn close(self) {
        self.closed.cancel();
        let ended = async { tokio::time::timeout(CLOSE_PATIENCE, self.task).await };
        // Too slow only where the whole process is; the address then reports itself as taken.
        let _ = tokio::runtime::Handle::current().block_on(ended);
    }
}

impl Ports {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connections go over `link` from now on. Opens what is written down and not open yet. Blocking.
    pub(crate) fn attach(self: &Arc<Self>, link: Link, meter: Arc<Meter>, end: &Arc<EndLink>) {
        let mut state = self.state();
        if !state.is_loaded {
            state.is_loaded = true;
            state.entries = self
                .load()
                .into_iter()
                .map(|kept| Entry {
                    port: kept.port,
                    address: kept.address,
                    listening: Err("It was not tried yet.".to_owned()),
                })
                .collect();
        }
        for entry in state.entries.iter_mut().filter(|entry| entry.listening.is_err()) {
            entry.listening = match self.listen(entry.port, entry.address) {
                Ok((_, listening)) => Ok(listening),
                Err(error) => {
                    tracing::warn!(sandbox = %self.id, address = %entry.address, %error, "an exposed port cannot be opened again");
                    Err(format!("{} cannot be listened on: {error}.", entry.address))
                }
            };
        }
        state.link = Some(Attached {
            link,
            meter,
            end: Arc::downgrade(end),
            kept: (!state.entries.is_empty()).then(|| Arc::clone(end)),
        });
    }

    pub(crate) async fn expose(
        self: &Arc<Self>,
        port: u16,
        listen: SocketAddr,
    ) -> Result<Exposed, ExposeError> {
        let ports = Arc::clone(self);
        blocking(move || ports.expose_blocking(port, listen)).await
    }

    fn expose_blocking(self: &Arc<Self>, port: u16, listen: SocketAddr) -> Result<Exposed, ExposeError> {
        if !listen.ip().is_loopback() {
            return Err(ExposeError::NotLoopback(listen));
        }
        if self.closed.is_cancelled() {
            return Err(ExposeError::Closed);
        }
        let mut state = self.state();
        let same = |entry: &&Entry| entry.port == port && entry.address == listen && entry.listening.is_ok();
        if let Some(entry) = state.entries.iter().find(same) {
            return Ok(entry.exposed());
        }
        if state.entries.len() >= MAX_EXPOSED {
            return Err(ExposeError::TooMany);
        }
        let (address, listening) = self.listen(port, listen).map_err(|source| ExposeError::Listen {
            address: listen,
            source,
        })?;
        // One that could not be opened before is replaced.
        let mut before = std::mem::take(&mut state.entries);
        let kept = before.iter().filter(|entry| entry.address != address);
        let saved = self.save(kept.chain([&Entry {
            port,
            address,
            listening: Err(String::new()),
        }]));
        if let Err(error) = saved {
            state.entries = before;
            drop(state);
            listening.close();
            return Err(error);
        }
        before.retain(|entry| entry.address != address);
        let entry = Entry {
            port,
            address,
            listening: Ok(listening),
        };
        let exposed = entry.exposed();
        before.push(entry);
        state.entries = before;
        if let Some(attached) = &mut state.link {
            attached.kept = attached.end.upgrade();
        }
        Ok(exposed)
    }

    pub(crate) async fn unexpose(self: &Arc<Self>, address: SocketAddr) -> Result<(), ExposeError> {
        let ports = Arc::clone(self);
        blocking(move || {
            let mut state = ports.state();
            ports.save(state.entries.iter().filter(|entry| entry.address != address))?;
            let gone: Vec<_> = state
                .entries
                .extract_if(.., |entry| entry.address == address)
                .collect();
            let is_last = state.entries.is_empty();
            let last = state
                .link
                .as_mut()
                .filter(|_| is_last)
                .and_then(|attached| attached.kept.take());
            drop(state);
            drop(last);
            for entry in gone {
                if let Ok(listening) = entry.listening {
                    listening.close();
                }
            }
            Ok(())
        })
        .await
    }

    pub(crate) fn exposed(&self) -> Vec<Exposed> {
        self.state().entries.iter().map(Entry::exposed).collect()
    }

    fn close(&self) {
        self.closed.cancel();
        let mut state = self.state();
        let (entries, link) = (std::mem::take(&mut state.entries), state.link.take());
        drop(state);
        drop(link);
        for entry in entries {
            if let Ok(listening) = entry.listening {
                listening.close();
            }
        }
    }

    fn load(&self) -> Vec<KeptPort> {
        let read = match fs::read(&self.file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
            read => read,
        };
        let kept = read.and_then(|bytes| Ok(serde_json::from_slice::<Kept>(&bytes)?));
        match kept {
            Ok(kept) => {
                let mut ports = kept.ports;
                ports.retain(|kept| kept.address.ip().is_loopback());
                ports
            }
            Err(error) => {
                tracing::warn!(sandbox = %self.id, %error, "the list of exposed ports cannot be read");
                Vec::new()
            }
        }
    }

    /// Whole or not at all.
    fn save<'a>(&self, entries: impl Iterator<Item = &'a Entry>) -> Result<(), ExposeError> {
        let kept = Kept {
            ports: entries
                .map(|entry| KeptPort {
                    port: entry.port,
                    address: entry.address,
                })
                .collect(),
        };
        let draft = self.file.with_extension("new");
        let saved = serde_json::to_vec(&kept)
            .map_err(io::Error::from)
            .and_then(|json| fs::write(&draft, json))
            .and_then(|()| fs::rename(&draft, &self.file));
        saved.map_err(|source| ExposeError::Save {
            path: self.file.clone(),
            source,
        })
    }

    fn listen(self: &Arc<Self>, port: u16, address: SocketAddr) -> io::Result<(SocketAddr, Listening)> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let address = listener.local_addr()?;
        let closed = self.closed.child_token();
        let (ports, token) = (Arc::downgrade(self), closed.clone());
        let task = tokio::spawn(async move {
            tokio::select! {
                () = accept(&ports, &listener, port) => {}
                () = token.cancelled() => {}
            }
        });
        Ok((address, Listening { closed, task }))
    }

    /// A handle over the newest link; `None` once that was given up.
    fn sandbox(self: &Arc<Self>) -> Option<Sandbox> {
        let state = self.state();
        let attached = state.link.as_ref()?;
        let end = attached.end.upgrade()?;
        Some(Sandbox::assemble(
            self.id.clone(),
            attached.link.clone(),
            Arc::clone(&attached.meter),
            end,
            Arc::clone(self),
        ))
    }
}

async fn accept(ports: &Weak<Ports>, listener: &TcpListener, port: u16) {
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Some(ports) = ports.upgrade() else { return };
        tokio::spawn(serve(ports, socket, port));
    }
}

/// One connection to its end. What cannot be served is reset at once.
async fn serve(ports: Arc<Ports>, mut socket: TcpStream, port: u16) {
    let place = Arc::clone(&ports.places).try_acquire_owned();
    let (Ok(_place), Some(sandbox)) = (place, ports.sandbox()) else {
        let _ = socket.set_zero_linger();
        return;
    };
    let closed = ports.closed.clone();
    drop(ports);
    let _ = socket.set_nodelay(true);
    let served = tokio::select! {
        ending = sandbox.carry(port, &mut socket) => ending,
        () = closed.cancelled() => Ending::Broken,
    };
    if served == Ending::Broken {
        let _ = socket.set_zero_linger();
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ExposeError> + Send + 'static,
) -> Result<T, ExposeError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or(Err(ExposeError::Closed))
}
