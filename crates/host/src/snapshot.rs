//! Snapshots of sandboxes: taken of those that run and those that do not, kept, and used to start others.

use crate::failure::HostError;
use crate::host::{Host, StartSandbox, blocking};
use crate::supervisor;
use greenroom_images::tree;
use greenroom_images::{CHAIN_NAME, Chain, Collected, ImageError, OwnRoot, Programs, Snapshot, UPPER_NAME};
use greenroom_protocol::environment::Backend;
use greenroom_protocol::id::{SandboxId, SnapshotId};
use greenroom_sandbox::processes::{self, Stopped};
use greenroom_stdx::secret::Secret;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// Places that hold nothing to be kept: what is written there is for a while, or the platform's own.
const PASSING: [&str; 4] = ["tmp", "var/tmp", "run", "home/agent/.greenroom"];

/// A snapshot that was just taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    pub snapshot: Snapshot,
    /// How long programs of the sandbox stood still for it.
    pub paused: Duration,
}

impl Host {
    /// Takes a snapshot of a sandbox's files. One that does not run gives them away, at the same cost whatever there is; of
    /// one that runs what it wrote is copied, and its programs stand still only for what changed meanwhile. Usable at once; on
    /// disk for good a while later, as `is_durable` of the kept record tells.
    pub async fn snapshot(&self, id: &SandboxId) -> Result<Taken, HostError> {
        let (host, id) = (self.clone(), id.clone());
        let taken = blocking(move || host.snapshot_blocking(&id)).await?;
        self.make_durable_soon(&taken.snapshot.id);
        Ok(taken)
    }

    /// Another snapshot of the same files, which is removed by itself; like [`Host::snapshot`], on disk for good a while later.
    pub async fn copy_snapshot(&self, id: &SnapshotId) -> Result<Snapshot, HostError> {
        let (host, id) = (self.clone(), id.clone());
        let copied = blocking(move || Ok(host.0.images.copy_record(&id)?)).await?;
        self.make_durable_soon(&copied.id);
        Ok(copied)
    }

    /// Nobody waits for the disk.
    fn make_durable_soon(&self, snapshot: &SnapshotId) {
        let (host, snapshot) = (self.clone(), snapshot.clone());
        tokio::task::spawn_blocking(move || {
            if let Err(error) = host.0.images.make_durable(&snapshot) {
                let error = greenroom_stdx::chain::Chain(&error);
                tracing::warn!(%snapshot, %error, "a snapshot is not on disk for good");
            }
        });
    }

    /// Stops a sandbox and makes an image of it: like [`Host::snapshot`], and waits until it is packed, if this host packs layers, and
    /// on disk for good. No other sandbox may have begun with what this one wrote.
    pub async fn seal_image(&self, id: &SandboxId) -> Result<Snapshot, HostError> {
        self.stop(id).await?;
        let (host, id) = (self.clone(), id.clone());
        blocking(move || {
            let snapshot = host.snapshot_blocking(&id)?.snapshot;
            let own = snapshot.layers.len() - snapshot.given;
            host.0.images.pack(&snapshot.layers[..own])?;
            host.0.images.make_durable(&snapshot.id)?;
            Ok(snapshot)
        })
        .await
    }

    /// Makes everything in a sandbox stand still, its guest too, until the value is dropped. One that does not run is fine.
    pub async fn freeze(&self, id: &SandboxId) -> Result<Frozen, HostError> {
        let directory = self.directory(id);
        blocking(move || {
            let supervisor = supervisor::process(&directory)?;
            Ok(Frozen {
                _held: supervisor.map(|supervisor| HeldStill::new(&directory, supervisor)),
            })
        })
        .await
    }

    /// What sandboxes have below their layers, as a digest.
    pub fn base_digest(&self) -> String {
        self.0.base.digest()
    }

    /// The first file that a sandbox, which does not run, wrote since its last snapshot and that holds one of the texts; and which
    /// of them it is.
    pub async fn find_text(
        &self,
        id: &SandboxId,
        texts: Vec<Secret>,
    ) -> Result<Option<(PathBuf, usize)>, HostError> {
        let upper = self.directory(id).join(UPPER_NAME);
        blocking(move || {
            if !upper.is_dir() {
                return Ok(None);
            }
            let texts: Vec<_> = texts.iter().map(|text| text.expose().as_bytes()).collect();
            greenroom_images::search::find(&upper, &texts).map_err(HostError::file("search", &upper))
        })
        .await
    }

    /// A snapshot that is kept.
    pub async fn find_snapshot(&self, id: &SnapshotId) -> Result<Option<Snapshot>, HostError> {
        let (host, id) = (self.clone(), id.clone());
        blocking(move || Ok(host.0.images.snapshot(&id)?)).await
    }

    /// All snapshots that are kept, the oldest first.
    pub async fn snapshots(&self) -> Result<Vec<Snapshot>, HostError> {
        let host = self.clone();
        blocking(move || Ok(host.0.images.snapshots()?)).await
    }

    /// Bytes of all layers of a snapshot.
    pub async fn snapshot_bytes(&self, snapshot: &Snapshot) -> Result<u64, HostError> {
        let (host, layers) = (self.clone(), snapshot.layers.clone());
        blocking(move || Ok(host.0.images.bytes_of(&layers)?)).await
    }

    /// Forgets all snapshots but these and images that were pulled lately, and removes what nobody needs then.
    pub async fn retain_snapshots(&self, wanted: &[SnapshotId]) -> Result<Collected, HostError> {
        let wanted: HashSet<SnapshotId> = wanted.iter().cloned().collect();
        let is_unwanted =
            |snapshot: &Snapshot| !wanted.contains(&snapshot.id) && !self.0.images.is_in_use(snapshot);
        let kept = self.snapshots().await?.into_iter();
        let unwanted: Vec<_> = kept.filter(is_unwanted).map(|snapshot| snapshot.id).collect();
        self.remove_snapshots(&unwanted).await
    }

    /// Forgets snapshots and removes what nobody needs then. Sandboxes that were started from them keep what they need.
    pub async fn remove_snapshots(&self, ids: &[SnapshotId]) -> Result<Collected, HostError> {
        let (host, ids) = (self.clone(), ids.to_vec());
        blocking(move || {
            for id in &ids {
                host.0.images.remove(id)?;
            }
            Ok(host.0.images.collect()?)
        })
        .await
    }

    /// What the layers of these snapshots take together, in bytes, each counted once. Those that do not exist take nothing.
    pub async fn bytes_of_snapshots(&self, ids: &[SnapshotId]) -> Result<u64, HostError> {
        let (host, ids) = (self.clone(), ids.to_vec());
        blocking(move || {
            let mut layers = Vec::new();
            for id in &ids {
                layers.extend(
                    host.0
                        .images
                        .snapshot(id)?
                        .into_iter()
                        .flat_map(|found| found.layers),
                );
            }
            layers.sort_unstable();
            layers.dedup();
            Ok(host.0.images.bytes_of(&layers)?)
        })
        .await
    }

    /// Whether a sandbox made, changed or removed files at `since` or later, repositories' own and those for a while not counted. True if
    /// that cannot be known.
    pub async fn has_changed_since(&self, id: &SandboxId, since: SystemTime) -> Result<bool, HostError> {
        let upper = self.directory(id).join(UPPER_NAME);
        blocking(move || {
            let is_passing = |path: &Path| {
                let inside = path.strip_prefix(&upper).unwrap_or(path);
                inside.ends_with(".git") || PASSING.iter().any(|place| inside == Path::new(place))
            };
            Ok(tree::has_changed_since(&upper, since, is_passing))
        })
        .await
    }

    fn snapshot_blocking(&self, id: &SandboxId) -> Result<Taken, HostError> {
        let directory = self.directory(id);
        let _busy = self.0.busy.hold(id);
        let images = &self.0.images;
        if let Some(supervisor) = supervisor::process(&directory)? {
            let running = Running {
                directory: &directory,
                supervisor,
            };
            let (snapshot, paused) = images.copy(id, &directory, &running)?;
            return Ok(Taken { snapshot, paused });
        }
        Ok(Taken {
            snapshot: images.seal(id, &directory)?,
            paused: Duration::ZERO,
        })
    }

    /// Whether a sandbox was never started, and so begins with what its start says.
    pub async fn is_new(&self, id: &SandboxId) -> bool {
        let directory = self.directory(id);
        tokio::task::spawn_blocking(move || is_unused(&directory))
            .await
            .unwrap_or(false)
    }

    /// The layers that a start goes by.
    pub(crate) fn layers(
        &self,
        start: &StartSandbox,
        directory: &Path,
        is_blank: bool,
    ) -> Result<Layers, HostError> {
        let images = &self.0.images;
        let is_new = is_blank || is_unused(directory);
        let chain = match &start.from {
            Some(snapshot) if is_new => {
                if !is_blank {
                    crate::backend::make_private(directory)
                        .map_err(HostError::file("make directory", directory))?;
                }
                images.begin(directory, snapshot, &start.root_variables)?
            }
            Some(_) | None if is_new => Chain::default(),
            Some(_) | None => images.chain(directory)?,
        };
        if !chain.layers.is_empty() && start.backend == Backend::Microvm {
            return Err(ImageError::NoLayers(directory.to_owned()).into());
        }
        let place = |id: &_| images.place(id).unwrap_or_else(|| images.layer(id));
        let layers = chain.layers.iter().map(place).collect();
        Ok(Layers {
            layers,
            own_bytes: images.bytes_of(chain.own())?,
            root: chain.root,
        })
    }
}

/// What a sandbox is started over.
pub(crate) struct Layers {
    /// Topmost first.
    pub(crate) layers: Vec<PathBuf>,
    /// How many bytes of them the sandbox itself wrote.
    pub(crate) own_bytes: u64,
    /// Set if the host's base is not below them.
    pub(crate) root: Option<OwnRoot>,
}

/// A sandbox that stands still.
pub struct Frozen {
    _held: Option<HeldStill>,
}

/// Name of the file that says that programs of a sandbox stand still.
const HELD_NAME: &str = "held";

/// Programs of a sandbox that stand still until this is dropped. A host that is killed meanwhile leaves a mark, by which the next
/// lets them go on.
pub(crate) struct HeldStill {
    stopped: Option<Stopped>,
    mark: PathBuf,
}

impl HeldStill {
    fn new(directory: &Path, supervisor: i32) -> Self {
        let mark = directory.join(HELD_NAME);
        // Without it they stand still only if this host is killed right now.
        let _ = std::fs::write(&mark, "");
        Self {
            stopped: Some(processes::stop_below(supervisor)),
            mark,
        }
    }

    /// Lets programs go on that a host held which was killed.
    pub(crate) fn release(directory: &Path) {
        let mark = directory.join(HELD_NAME);
        if mark.exists()
            && let Ok(Some(supervisor)) = supervisor::process(directory)
        {
            processes::continue_below(supervisor);
            let _ = std::fs::remove_file(mark);
        }
    }
}

impl Drop for HeldStill {
    fn drop(&mut self) {
        drop(self.stopped.take());
        let _ = std::fs::remove_file(&self.mark);
    }
}

/// Whether a sandbox was never started.
fn is_unused(directory: &Path) -> bool {
    [UPPER_NAME, CHAIN_NAME, "copy"]
        .into_iter()
        .all(|name| std::fs::symlink_metadata(directory.join(name)).is_err())
}

/// The programs of a sandbox that runs.
struct Running<'a> {
    directory: &'a Path,
    supervisor: i32,
}

impl Programs for Running<'_> {
    type Held = HeldStill;

    fn hold(&self) -> HeldStill {
        HeldStill::new(self.directory, self.supervisor)
    }

    fn mapped(&self) -> HashSet<u64> {
        processes::shared_mappings_below(self.supervisor)
    }
}

/// Names that somebody holds.
#[derive(Debug, Default)]
pub(crate) struct Busy {
    held: Mutex<HashSet<SandboxId>>,
    freed: Condvar,
}

/// Frees a name when it is dropped.
pub(crate) struct Hold<'a> {
    busy: &'a Busy,
    id: SandboxId,
}

impl Busy {
    /// Waits until nobody else holds the name, and takes it. Blocking.
    pub(crate) fn hold(&self, id: &SandboxId) -> Hold<'_> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let mut held = self
            .freed
            .wait_while(held, |held| held.contains(id))
            .unwrap_or_else(PoisonError::into_inner);
        held.insert(id.clone());
        Hold {
            busy: self,
            id: id.clone(),
        }
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        let mut held = self.busy.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.remove(&self.id);
        self.busy.freed.notify_all();
    }
}
