//! The layers and snapshots of one state directory. What lies on disk is the truth: a store that is opened after a crash knows
//! as much as the one before.
//!
//! Order makes every step safe to be killed in. Sealing writes the sandbox's chain, which names the new layer, before the
//! layer gets its place: a first layer that is missing means that the sealing did not happen. A snapshot's record is written
//! after its layers are there. Collecting renames before it removes.

mod collect;
mod layers;

use crate::chain::Chain;
use crate::copy::Copy;
use crate::failure::ImageError;
use crate::manifest::Manifest;
use crate::marks::Marks;
use crate::packed::Packer;
use crate::record::{OwnRoot, Snapshot};
use crate::tree;
use greenroom_protocol::id::{LayerId, SandboxId, SnapshotId};
use greenroom_stdx::id::fresh_bits;
use greenroom_stdx::step;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use layers::BYTES;
pub(crate) use layers::PACKED;

pub use collect::Collected;
pub use layers::Held;

/// Name of the directory below a sandbox's own that holds what it writes.
pub const UPPER_NAME: &str = "upper";

/// Name of the file there that tells from what the last copy of a running sandbox was made.
const COPIED_NAME: &str = "copied.json";

/// Begins the name of a layer that is not whole yet, and of one that is being removed.
pub(crate) const DRAFT: &str = ".new-";
/// Layers below a sandbox from which on they are made one: every one costs each start, and the kernel has a limit.
pub(crate) const MAX_LAYERS: usize = 40;

/// Who made a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub by_root: bool,
    /// This run of the machine.
    pub boot: String,
}

impl Owner {
    /// This process, now.
    pub fn current() -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Self {
            by_root: rustix::process::geteuid().is_root(),
            boot: boot.trim().to_owned(),
        }
    }
}

/// Layers and snapshots on disk.
#[derive(Debug)]
pub struct ImageStore {
    layers: PathBuf,
    snapshots: PathBuf,
    /// What is being downloaded.
    incoming: PathBuf,
    /// Small things of registries.
    artifacts: PathBuf,
    /// Directories of sandboxes, each with its chain.
    sandboxes: PathBuf,
    owner: Owner,
    /// What the host has below layers that are not a whole root.
    base: PathBuf,
    /// Whoever names layers or looks which are named holds it.
    names: Mutex<()>,
    /// Layers that nothing names yet, and how many want each.
    held: Mutex<HashMap<LayerId, usize>>,
    /// Set if sealed layers are packed.
    packer: Option<Packer>,
}

/// Programs that may write while a sandbox is copied.
pub trait Programs {
    /// They stand still until it is dropped.
    type Held;

    fn hold(&self) -> Self::Held;

    /// Inodes that they have mapped for writing: what is written there changes no time of the file.
    fn mapped(&self) -> HashSet<u64>;
}

/// From what the last copy of a running sandbox was made.
#[derive(Serialize, Deserialize)]
struct LastCopy {
    layer: LayerId,
    manifest: Manifest,
}

impl ImageStore {
    /// Opens the store of a state directory, on the same filesystem as `sandboxes`. Forgets snapshots that cannot be used any
    /// more, and says so in the log.
    pub fn open(place: &Path, sandboxes: &Path, base: &Path, owner: Owner) -> Result<Self, ImageError> {
        let store = Self {
            layers: place.join("layers"),
            snapshots: place.join("snapshots"),
            incoming: place.join("incoming"),
            artifacts: place.join("artifacts"),
            sandboxes: sandboxes.to_owned(),
            owner,
            base: base.to_owned(),
            names: Mutex::new(()),
            held: Mutex::default(),
            packer: None,
        };
        // Downloads that were killed.
        tree::remove(&store.incoming).map_err(ImageError::file("remove", &store.incoming))?;
        for directory in [
            place,
            &store.layers,
            &store.snapshots,
            &store.incoming,
            &store.artifacts,
        ] {
            let made = fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory);
            made.map_err(ImageError::file("make directory", directory))?;
        }
        tree::spread(&store.layers).map_err(ImageError::file("open", &store.layers))?;
        store.forget_unusable()?;
        // What a pull made that was killed, and what lost power before it was on disk: nothing trusts it that finds it by its name.
        store.collect()?;
        Ok(store)
    }

    /// From now on layers of images are packed.
    pub fn with_packer(self, packer: Option<Packer>) -> Self {
        Self { packer, ..self }
    }

    /// The directory of a layer that is not packed.
    pub fn layer(&self, id: &LayerId) -> PathBuf {
        self.layers.join(id.as_str())
    }

    /// Where a layer lies, a directory or a packed file; `None` if it is not there.
    pub fn place(&self, id: &LayerId) -> Option<PathBuf> {
        let (packed, directory) = (self.packed(id), self.layer(id));
        match packed.is_file() {
            true => Some(packed),
            false => directory.is_dir().then_some(directory),
        }
    }

    /// The layers below a sandbox. A sealing that was killed before its end is taken back.
    pub fn chain(&self, directory: &Path) -> Result<Chain, ImageError> {
        let _names = self.lock();
        self.settled_chain(directory)
    }

    fn settled_chain(&self, directory: &Path) -> Result<Chain, ImageError> {
        let mut chain = Chain::read(directory)?;
        let is_there = |id: &LayerId| self.place(id).is_some();
        if chain.layers.first().is_some_and(|first| !is_there(first)) && !chain.own().is_empty() {
            chain.layers.remove(0);
            chain.write(directory)?;
        }
        match chain.layers.iter().all(is_there) {
            true => Ok(chain),
            false => Err(ImageError::LayerMissing(directory.to_owned())),
        }
    }

    /// Makes a sandbox that was never started begin with a snapshot.
    /// `variables` are added to those of a root of its own.
    pub fn begin(
        &self,
        directory: &Path,
        from: &SnapshotId,
        variables: &[(String, String)],
    ) -> Result<Chain, ImageError> {
        let _names = self.lock();
        let snapshot = self
            .snapshot(from)?
            .ok_or_else(|| ImageError::Missing(from.clone()))?;
        if snapshot.by_root != self.owner.by_root {
            return Err(ImageError::OtherOwner(from.clone()));
        }
        // Before anything is written, so that the sandbox can still begin without it.
        if snapshot.layers.iter().any(|id| self.place(id).is_none()) {
            return Err(ImageError::LayerMissing(self.path(from)));
        }
        let chain = Chain {
            given: snapshot.layers.len(),
            layers: snapshot.layers,
            root: snapshot.root.map(|root| root.with_variables(variables)),
        };
        chain.write(directory)?;
        Ok(chain)
    }

    /// Takes a snapshot of a sandbox that does not run and is not started meanwhile. What it wrote becomes a layer; it goes on
    /// with nothing of its own.
    pub fn seal(&self, sandbox: &SandboxId, directory: &Path) -> Result<Snapshot, ImageError> {
        let upper = directory.join(UPPER_NAME);
        let mut chain = self.chain(directory)?;
        if chain.layers.len() >= MAX_LAYERS {
            chain = self.flatten(chain, directory)?;
        }
        let _names = self.lock();
        if has_content(&upper).map_err(ImageError::file("look into", &upper))? {
            let layer = LayerId::from_bits(fresh_bits());
            chain.layers.insert(0, layer.clone());
            chain.write(directory)?;
            step::reached("seal.named");
            let place = self.layer(&layer);
            fs::rename(&upper, &place).map_err(ImageError::file("seal", &upper))?;
            step::reached("seal.moved");
            // It was for files that are in the layer now.
            let _ = fs::remove_file(directory.join(COPIED_NAME));
        } else if chain.layers.is_empty() && !upper.is_dir() {
            return Err(ImageError::NoLayers(directory.to_owned()));
        }
        self.record(sandbox, chain)
    }

    /// Makes one layer of those that the sandbox wrote, and if they are few, one of those that it began with.
    fn flatten(&self, chain: Chain, directory: &Path) -> Result<Chain, ImageError> {
        let (own, given) = (chain.own().to_vec(), chain.layers[chain.own().len()..].to_vec());
        let is_on_base = chain.root.is_none();
        let mut held = Vec::new();
        let mut join = |layers: &[LayerId], below: &[LayerId]| {
            if layers.len() < 2 {
                return Ok(layers.to_vec());
            }
            let layer = LayerId::from_bits(fresh_bits());
            held.push(self.hold(std::slice::from_ref(&layer)));
            self.join(&layer, layers, below, is_on_base)?;
            Ok::<_, ImageError>(vec![layer])
        };
        let joined = join(&own, &given)?;
        let given = match given.len() >= MAX_LAYERS / 2 {
            true => join(&given, &[])?,
            false => given,
        };
        let flat = Chain {
            given: given.len(),
            layers: [joined, given].concat(),
            root: chain.root,
        };
        let _names = self.lock();
        flat.write(directory)?;
        Ok(flat)
    }

    /// What the host has below layers that are not a whole root.
    pub(crate) fn base(&self) -> &Path {
        &self.base
    }

    /// Takes a snapshot of a sandbox that may run. Its programs stand still when nearly everything is copied; returns for how
    /// long.
    pub fn copy(
        &self,
        sandbox: &SandboxId,
        directory: &Path,
        programs: &impl Programs,
    ) -> Result<(Snapshot, Duration), ImageError> {
        let upper = directory.join(UPPER_NAME);
        let mut chain = self.chain(directory)?;
        if !upper.is_dir() {
            return match chain.layers.is_empty() {
                true => Err(ImageError::NoLayers(directory.to_owned())),
                // Sealed, and not started since.
                false => {
                    let _names = self.lock();
                    Ok((self.record(sandbox, chain)?, Duration::ZERO))
                }
            };
        }
        let layer = LayerId::from_bits(fresh_bits());
        let draft = self.layers.join(format!("{DRAFT}{layer}"));
        let copied = self.copy_upper(&upper, directory, &draft, programs);
        let (manifest, held) = match copied {
            Ok(copied) => copied,
            Err(error) => {
                let _ = tree::remove(&draft);
                return Err(ImageError::file("copy", &upper)(error));
            }
        };
        step::reached("copy.copied");
        let _names = self.lock();
        let place = self.layer(&layer);
        fs::rename(&draft, &place).map_err(ImageError::file("publish", &draft))?;
        step::reached("copy.published");
        chain.layers.insert(0, layer.clone());
        let snapshot = self.record(sandbox, chain)?;
        // Without it the next copy shares nothing.
        let path = directory.join(COPIED_NAME);
        let _ = write_atomically(&path, &LastCopy { layer, manifest });
        Ok((snapshot, held))
    }

    fn copy_upper(
        &self,
        upper: &Path,
        directory: &Path,
        draft: &Path,
        programs: &impl Programs,
    ) -> io::Result<(Manifest, Duration)> {
        let before = self.last_copy(directory);
        let before = before.as_ref().map(|(path, manifest)| (path.as_path(), manifest));
        fs::DirBuilder::new().mode(0o700).create(draft)?;
        let mut copy = Copy::new(upper, draft, before);
        copy.distrust(programs.mapped());
        copy.pass()?;
        let began = Instant::now();
        let held = programs.hold();
        copy.distrust(programs.mapped());
        let passed = copy.pass();
        drop(held);
        let stood_still = began.elapsed();
        passed?;
        Ok((copy.finish()?, stood_still))
    }

    /// The last copy of a sandbox, if it is still there.
    fn last_copy(&self, directory: &Path) -> Option<(PathBuf, Manifest)> {
        let text = fs::read(directory.join(COPIED_NAME)).ok()?;
        let last: LastCopy = serde_json::from_slice(&text).ok()?;
        let place = self.layer(&last.layer);
        place.is_dir().then_some((place, last.manifest))
    }

    fn record(&self, sandbox: &SandboxId, chain: Chain) -> Result<Snapshot, ImageError> {
        let id = SnapshotId::from_bits(fresh_bits());
        self.write_record(id, Some(sandbox.clone()), chain, BTreeMap::new())
    }

    /// Writes the record of layers that did not come from a sandbox; on disk for good.
    pub(crate) fn record_pulled<E: From<ImageError>>(
        &self,
        id: SnapshotId,
        layers: Vec<LayerId>,
        root: Option<OwnRoot>,
        annotations: BTreeMap<String, String>,
    ) -> Result<Snapshot, E> {
        let chain = Chain {
            given: layers.len(),
            layers,
            root,
        };
        let snapshot = {
            let _names = self.lock();
            if chain.layers.iter().any(|id| self.place(id).is_none()) {
                return Err(ImageError::LayerMissing(self.path(&id)).into());
            }
            self.write_record(id, None, chain, annotations)?
        };
        self.make_durable(&snapshot.id)?;
        Ok(Snapshot {
            is_durable: true,
            ..snapshot
        })
    }

    fn write_record(
        &self,
        id: SnapshotId,
        sandbox: Option<SandboxId>,
        chain: Chain,
        annotations: BTreeMap<String, String>,
    ) -> Result<Snapshot, ImageError> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let snapshot = Snapshot {
            id,
            sandbox,
            layers: chain.layers,
            given: chain.given,
            created_at_ms: i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            by_root: self.owner.by_root,
            boot: self.owner.boot.clone(),
            is_durable: false,
            root: chain.root,
            annotations,
        };
        write_atomically(&self.path(&snapshot.id), &snapshot)?;
        step::reached("record.written");
        Ok(snapshot)
    }

    /// Another snapshot of the same layers, which is removed by itself.
    pub fn copy_record(&self, id: &SnapshotId) -> Result<Snapshot, ImageError> {
        let _names = self.lock();
        let snapshot = self
            .snapshot(id)?
            .ok_or_else(|| ImageError::Missing(id.clone()))?;
        if snapshot.layers.iter().any(|id| self.place(id).is_none()) {
            return Err(ImageError::LayerMissing(self.path(id)));
        }
        let chain = Chain {
            given: snapshot.given,
            layers: snapshot.layers,
            root: snapshot.root,
        };
        let id = SnapshotId::from_bits(fresh_bits());
        self.write_record(id, snapshot.sandbox, chain, snapshot.annotations)
    }

    /// Waits until a snapshot is on disk for good. May take as long as the disk needs for all that waits for it.
    pub fn make_durable(&self, id: &SnapshotId) -> Result<(), ImageError> {
        let opened = fs::File::open(&self.layers).map_err(ImageError::file("open", &self.layers))?;
        rustix::fs::syncfs(&opened).map_err(|error| ImageError::file("sync", &self.layers)(error.into()))?;
        step::reached("record.synced");
        let _names = self.lock();
        let Some(snapshot) = self.snapshot(id)? else {
            return Ok(());
        };
        let path = self.path(id);
        write_atomically(
            &path,
            &Snapshot {
                is_durable: true,
                ..snapshot
            },
        )?;
        for path in [&path, &self.snapshots] {
            let synced = fs::File::open(path).and_then(|file| file.sync_all());
            synced.map_err(ImageError::file("sync", path))?;
        }
        Ok(())
    }

    /// A snapshot by its name.
    pub fn snapshot(&self, id: &SnapshotId) -> Result<Option<Snapshot>, ImageError> {
        read_json(&self.path(id))
    }

    /// A snapshot by its name, if its layers are there. It counts as used now.
    pub(crate) fn usable_snapshot(&self, id: &SnapshotId) -> Result<Option<Snapshot>, ImageError> {
        let names = self.lock();
        let is_whole = |snapshot: &Snapshot| snapshot.layers.iter().all(|id| self.place(id).is_some());
        let found = self.snapshot(id)?.filter(is_whole);
        drop(names);
        if let Some(snapshot) = found.as_ref().filter(|snapshot| !snapshot.is_durable) {
            self.make_durable(&snapshot.id)?;
        }
        if found.is_some() {
            // One that cannot be touched is removed early, and pulled again.
            let file = fs::File::options().append(true).open(self.path(id));
            let _ = file.and_then(|file| file.set_modified(SystemTime::now()));
        }
        Ok(found)
    }

    /// All snapshots, the oldest first.
    pub fn snapshots(&self) -> Result<Vec<Snapshot>, ImageError> {
        let mut found = Vec::new();
        for name in names(&self.snapshots)? {
            if let Some(id) = name.strip_suffix(".json").and_then(|id| id.parse().ok()) {
                found.extend(self.snapshot(&id)?);
            }
        }
        found.sort_by(|a, b| (a.created_at_ms, a.id.as_str()).cmp(&(b.created_at_ms, b.id.as_str())));
        Ok(found)
    }

    /// Bytes that layers take.
    pub fn bytes_of(&self, layers: &[LayerId]) -> Result<u64, ImageError> {
        layers.iter().map(|id| self.layer_bytes(id)).sum()
    }

    /// Measured once: a layer does not change.
    fn layer_bytes(&self, id: &LayerId) -> Result<u64, ImageError> {
        let path = self.layers.join(format!("{id}{BYTES}"));
        let known = fs::read_to_string(&path).ok().and_then(|text| text.parse().ok());
        if let Some(bytes) = known {
            return Ok(bytes);
        }
        let place = self.place(id).unwrap_or_else(|| self.layer(id));
        let bytes = tree::size_bytes(&place).map_err(ImageError::file("measure", &place))?;
        // Measured again if it cannot be kept.
        let _ = fs::write(&path, bytes.to_string());
        Ok(bytes)
    }

    /// Forgets a snapshot; one that does not exist is fine. Its layers go with the next [`ImageStore::collect`].
    pub fn remove(&self, id: &SnapshotId) -> Result<(), ImageError> {
        let _names = self.lock();
        let path = self.path(id);
        tree::remove_file(&path).map_err(ImageError::file("remove", &path))?;
        step::reached("record.removed");
        Ok(())
    }

    /// What overlays write on files of these layers.
    pub(crate) fn marks(&self) -> Marks {
        Marks {
            by_root: self.owner.by_root,
        }
    }

    fn path(&self, id: &SnapshotId) -> PathBuf {
        self.snapshots.join(format!("{id}.json"))
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Replaces a file at once: whoever reads it finds the old or the new.
pub(crate) fn write_atomically(path: &Path, value: &impl Serialize) -> Result<(), ImageError> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let written = serde_json::to_vec(value)
        .map_err(io::Error::from)
        .and_then(|text| fs::write(&draft, text))
        .inspect(|()| step::reached("record.drafted"))
        .and_then(|()| fs::rename(&draft, path));
    written.map_err(ImageError::file("write", path))
}

pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, ImageError> {
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|source| ImageError::Damaged {
                path: path.to_owned(),
                source,
            }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ImageError::file("read", path)(error)),
    }
}

fn has_content(directory: &Path) -> io::Result<bool> {
    match fs::read_dir(directory) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn names(directory: &Path) -> Result<Vec<String>, ImageError> {
    let list = || -> io::Result<Vec<String>> {
        fs::read_dir(directory)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    };
    list().map_err(ImageError::file("list", directory))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::os::unix::fs::MetadataExt as _;
    use std::process::{Command, Stdio};

    /// A program that has one file mapped.
    struct Mapping(HashSet<u64>);

    impl Programs for Mapping {
        type Held = ();

        fn hold(&self) {}

        fn mapped(&self) -> HashSet<u64> {
            self.0.clone()
        }
    }

    /// What is written to a mapping changes no time of the file until the kernel brings it to disk.
    #[test]
    fn what_is_mapped_is_not_taken_from_the_copy_before() {
        let temp = tempfile::tempdir().unwrap();
        let sandboxes = temp.path().join("sb");
        let id = SandboxId::from_bits(1);
        let directory = sandboxes.join(id.as_str());
        let file = directory.join("upper/file");
        fs::create_dir_all(directory.join(UPPER_NAME)).unwrap();
        fs::write(&file, [0; 4096]).unwrap();
        let store = ImageStore::open(
            &temp.path().join("images"),
            &sandboxes,
            temp.path(),
            Owner::current(),
        )
        .unwrap();
        let script = "import mmap, os, sys\n\
            one = mmap.mmap(os.open(sys.argv[1], os.O_RDWR), 4096)\n\
            for line in sys.stdin:\n\
            \x20   one[0:5] = line[:5].encode()\n\
            \x20   print('done', flush=True)\n";
        let mut writer = Command::new("python3")
            .args(["-c", script, file.to_str().unwrap()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut orders = writer.stdin.take().unwrap();
        let mut answers = BufReader::new(writer.stdout.take().unwrap());
        let mapping = Mapping(HashSet::from([fs::metadata(&file).unwrap().ino()]));
        for text in ["first", "other", "third"] {
            writeln!(orders, "{text}").unwrap();
            answers.read_line(&mut String::new()).unwrap();
            // So that the time of the first change is old.
            std::thread::sleep(Duration::from_millis(50));
            let (snapshot, _) = store.copy(&id, &directory, &mapping).unwrap();
            let copied = fs::read(store.layer(&snapshot.layers[0]).join("file")).unwrap();
            assert_eq!(&copied[..5], text.as_bytes());
        }
        drop(orders);
        writer.wait().unwrap();
    }
}
