//! Makes a snapshot of an image in a registry: its layers here, each once, whichever images have it.

use super::digest::{bits, digest_of, finished};
use super::document::{Descriptor, ImageConfig, Manifest, Platform, RunConfig};
use super::failure::OciError;
use super::push::BASE_ANNOTATION;
use super::registry::Registry;
use super::unpack::Unpack;
use super::zstd::ZstdFrames;
use crate::failure::ImageError;
use crate::marks::Marks;
use crate::packed;
use crate::record::{OwnRoot, Snapshot};
use crate::store::{Held, ImageStore, MAX_LAYERS};
use crate::view::View;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use greenroom_protocol::id::{LayerId, SnapshotId};
use greenroom_protocol::reference::{Digest, Reference};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Layers that are downloaded at once, while the one before them is unpacked.
const DOWNLOADS: usize = 3;

/// Entries of one layer.
pub(super) const MAX_ENTRIES: u64 = 5_000_000;

/// Writes what is put above the layers of an image into an empty directory.
pub type MakeFittings = Arc<dyn Fn(&RootFiles, &Path) -> io::Result<()> + Send + Sync>;

/// What is put above the layers of every image, so that it serves as the root of a sandbox.
#[derive(Clone)]
pub struct Fittings {
    /// Changes whenever they do.
    pub version: String,
    pub make: MakeFittings,
    /// Digest of the base that this host has below layers that are not a whole root.
    pub base_digest: String,
    /// Uid and gid of everything in layers; `None`: this process's.
    pub owner: Option<u32>,
}

/// The files of an image.
pub struct RootFiles(View);

impl RootFiles {
    /// Whether there is something at an absolute path. Follows links, within the image.
    pub fn has(&self, path: &Path) -> bool {
        let found = self.0.resolve(path).and_then(|path| self.0.find(&path));
        found.is_ok_and(|found| found.is_some())
    }

    /// The content of a file by its absolute path; `None` if there is none. Follows links, within the image.
    pub fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        self.0.read(path)
    }
}

/// An image to pull.
#[derive(Clone)]
pub struct Pull {
    /// With a digest.
    pub reference: Reference,
    pub fittings: Fittings,
    /// Most bytes of its files.
    pub max_bytes: u64,
}

/// What a manifest comes to: an image for this machine.
struct Image {
    layers: Vec<Descriptor>,
    config: ImageConfig,
    annotations: BTreeMap<String, String>,
}

impl Image {
    /// The base of a host that it wants below it; `None` if it is a whole root.
    fn base(&self) -> Option<&str> {
        self.annotations.get(BASE_ANNOTATION).map(String::as_str)
    }
}

impl Pull {
    /// The snapshot that it is or will be.
    pub fn snapshot_id(&self) -> Result<SnapshotId, OciError> {
        let digest = self.reference.digest.as_ref();
        let digest = digest.ok_or_else(|| OciError::NotPinned(self.reference.to_string()))?;
        // By its name too: who may have it is for the registry to say.
        let (registry, name) = (&self.reference.registry, &self.reference.repository);
        let text = format!(
            "image {registry}/{name} {digest} {:?} {}",
            self.fittings.owner, self.fittings.version
        );
        Ok(SnapshotId::from_bits(bits(&digest_of(text.as_bytes()))))
    }

    /// Pulls what is not there yet. `say` hears of every step.
    pub async fn run(
        &self,
        store: &Arc<ImageStore>,
        registry: &Registry,
        say: &(dyn Fn(String) + Send + Sync),
    ) -> Result<Snapshot, OciError> {
        let id = self.snapshot_id()?;
        if let Some(snapshot) = store.usable_snapshot(&id)? {
            return match snapshot.annotations.get(BASE_ANNOTATION) {
                Some(base) if *base != self.fittings.base_digest => Err(OciError::OtherBase(base.clone())),
                _ => Ok(snapshot),
            };
        }
        say(format!("pulling {}", self.reference));
        let image = find(registry, &self.reference).await?;
        let announced = image.layers.iter().map(|layer| layer.size);
        if announced.fold(0, u64::saturating_add) > self.max_bytes {
            return Err(OciError::TooLarge);
        }
        if let Some(base) = image.base()
            && base != self.fittings.base_digest
        {
            return Err(OciError::OtherBase(base.to_owned()));
        }
        let ids = self.layer_ids(&image);
        // Nothing names them until the end.
        let held = store.hold_owned(&ids);
        self.layers(store, registry, &image, &ids, say).await?;
        let (store, pull) = (store.clone(), self.clone());
        let record = move || {
            let _held = held;
            pull.record(&store, id, ids, &image)
        };
        blocking(record).await
    }

    /// Names of the layers, lowest first, and of the fittings above those of a whole root. What a layer is depends on those below: links there lead
    /// its entries.
    fn layer_ids(&self, image: &Image) -> Vec<LayerId> {
        let mut chain = format!("{:?}", self.fittings.owner);
        let below = image.config.rootfs.diff_ids.iter().map(Digest::as_str);
        let fittings = format!("fittings {}", self.fittings.version);
        let fittings = image.base().is_none().then_some(fittings.as_str());
        below
            .chain(fittings)
            .map(|part| {
                let digest = digest_of(format!("{chain} {part}").as_bytes());
                chain = digest.to_string();
                LayerId::from_bits(bits(&digest))
            })
            .collect()
    }

    async fn layers(
        &self,
        store: &Arc<ImageStore>,
        registry: &Registry,
        image: &Image,
        ids: &[LayerId],
        say: &(dyn Fn(String) + Send + Sync),
    ) -> Result<(), OciError> {
        let count = image.layers.len();
        let mut downloads: Vec<BoxFuture<'_, Result<Option<Incoming>, OciError>>> = Vec::new();
        for (layer, id) in image.layers.iter().zip(ids) {
            downloads.push(Box::pin(self.download(store, registry, layer, id)));
        }
        let mut arriving = futures_util::stream::iter(downloads)
            .buffered(DOWNLOADS)
            .enumerate();
        let mut bytes_left = self.max_bytes;
        while let Some((number, file)) = arriving.next().await {
            let Some(file) = file? else { continue };
            say(format!(
                "unpacking layer {} of {count}, {} bytes",
                number + 1,
                image.layers[number].size
            ));
            let unpack = UnpackLayer {
                file,
                media_type: image.layers[number].media_type.clone(),
                diff_id: image.config.rootfs.diff_ids[number].clone(),
                id: ids[number].clone(),
                below: ids[..number].to_vec(),
                owner: self.fittings.owner,
                max_bytes: bytes_left,
            };
            let (store, id) = (store.clone(), ids[number].clone());
            let bytes = blocking(move || {
                unpack.run(&store)?;
                Ok(store.bytes_of(&[id])?)
            })
            .await?;
            bytes_left = bytes_left.saturating_sub(bytes);
        }
        Ok(())
    }

    /// `None` for a layer that is there.
    async fn download(
        &self,
        store: &ImageStore,
        registry: &Registry,
        layer: &Descriptor,
        id: &LayerId,
    ) -> Result<Option<Incoming>, OciError> {
        if store.place(id).is_some() {
            return Ok(None);
        }
        let file = store.incoming();
        registry.download(&self.reference, layer, file.path()).await?;
        Ok(Some(file))
    }

    /// Puts the fittings on top of a whole root and writes the record.
    fn record(
        &self,
        store: &ImageStore,
        id: SnapshotId,
        mut ids: Vec<LayerId>,
        image: &Image,
    ) -> Result<Snapshot, OciError> {
        ids.reverse();
        let (ids, _held) = self.flat(store, ids, image.base().is_some())?;
        let root = match image.base() {
            Some(_) => None,
            None => {
                fit(store, &ids, &self.fittings)?;
                let run = &image.config.config;
                Some(OwnRoot {
                    source: self.reference.to_string(),
                    variables: variables(run),
                    user: run.user.clone(),
                    homes: homes(store, &ids)?,
                })
            }
        };
        store.record_pulled(id, ids, root, image.annotations.clone())
    }

    /// Makes many layers one, but for the fittings.
    fn flat<'a>(
        &self,
        store: &'a ImageStore,
        ids: Vec<LayerId>,
        is_on_base: bool,
    ) -> Result<(Vec<LayerId>, Option<Held<&'a ImageStore>>), OciError> {
        if ids.len() <= MAX_LAYERS / 2 {
            return Ok((ids, None));
        }
        let (above, layers) = ids.split_at(usize::from(!is_on_base));
        let name = format!("flat {is_on_base} {:?}", layers.first());
        let joined = LayerId::from_bits(bits(&digest_of(name.as_bytes())));
        let held = store.hold(std::slice::from_ref(&joined));
        store.join(&joined, layers, &[], is_on_base)?;
        Ok(([above, &[joined]].concat(), Some(held)))
    }
}

/// Makes the layer of fittings above the layers of a root; `ids` are the topmost first.
pub(super) fn fit(store: &ImageStore, ids: &[LayerId], fittings: &Fittings) -> Result<(), OciError> {
    let layers = store.open_layers(&ids[1..])?;
    let files = RootFiles(View::new(packed::paths(&layers), store.marks()));
    store.make_layer(&ids[0], |draft| {
        let made = (fittings.make)(&files, draft);
        made.map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => OciError::Archive(error.to_string()),
            _ => ImageError::file("write", draft)(error).into(),
        })
    })
}

/// Home directories of a root's users, as far as they can be used.
pub(super) fn homes(store: &ImageStore, ids: &[LayerId]) -> Result<BTreeMap<String, String>, OciError> {
    const MAX_USERS: usize = 200;
    let layers = store.open_layers(ids)?;
    let path = Path::new("/etc/passwd");
    let read = RootFiles(View::new(packed::paths(&layers), store.marks())).read(path);
    let text = read
        .map_err(|error| OciError::Archive(error.to_string()))?
        .unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let users = text.lines().filter_map(|line| {
        let fields: Vec<_> = line.split(':').collect();
        let (name, home) = (fields.first()?, fields.get(5)?);
        let is_fit = |text: &str| !text.is_empty() && text.len() < 256 && !text.contains('\0');
        (is_fit(name) && is_fit(home) && home.starts_with('/'))
            .then(|| ((*name).to_owned(), (*home).to_owned()))
    });
    Ok(users.take(MAX_USERS).collect())
}

/// What a reference stands for now, as one that stays.
pub async fn pin(registry: &Registry, reference: &Reference) -> Result<Reference, OciError> {
    let (bytes, digest) = registry.manifest(reference).await?;
    Manifest::read(&bytes)?;
    Ok(reference.pinned(digest))
}

async fn find(registry: &Registry, reference: &Reference) -> Result<Image, OciError> {
    let platform = Platform::here();
    let (bytes, _) = registry.manifest(reference).await?;
    let mut manifest = Manifest::read(&bytes)?;
    let mut config = manifest.config.take();
    if config.is_none() {
        let image = manifest.choose(&platform)?;
        let (bytes, _) = registry.manifest(&reference.pinned(image.digest.clone())).await?;
        manifest = Manifest::read(&bytes)?;
        config = manifest.config.take();
    }
    let config = config.ok_or_else(|| OciError::Document {
        what: "the manifest",
        message: "it is a list in a list".to_owned(),
    })?;
    let bytes = registry
        .small_blob(reference, &config, "the configuration")
        .await?;
    let config = ImageConfig::read(&bytes, manifest.layers.len(), &platform)?;
    Ok(Image {
        layers: manifest.layers,
        config,
        annotations: manifest.annotations,
    })
}

fn variables(run: &RunConfig) -> Vec<(String, String)> {
    let pairs = run.env.iter().filter_map(|pair| pair.split_once('='));
    let is_right =
        |(name, value): &(&str, &str)| !name.is_empty() && !name.contains('\0') && !value.contains('\0');
    pairs
        .filter(is_right)
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// A file that is removed when nobody needs it any more.
pub(crate) struct Incoming(pub(crate) PathBuf);

impl Incoming {
    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A downloaded layer.
struct UnpackLayer {
    file: Incoming,
    media_type: String,
    diff_id: Digest,
    id: LayerId,
    /// Lowest first.
    below: Vec<LayerId>,
    owner: Option<u32>,
    max_bytes: u64,
}

impl UnpackLayer {
    fn run(&self, store: &ImageStore) -> Result<(), OciError> {
        let path = self.file.path();
        let file = File::open(path).map_err(ImageError::file("open", path))?;
        let file = BufReader::with_capacity(256 << 10, file);
        let plain: Box<dyn Read> = match self.media_type.as_str() {
            kind if kind.ends_with("gzip") => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
            kind if kind.ends_with("zstd") => Box::new(ZstdFrames::new(file)),
            kind if kind.ends_with("tar") => Box::new(file),
            kind => return Err(OciError::MediaType(kind.to_owned())),
        };
        let below: Vec<_> = self.below.iter().rev().cloned().collect();
        let below = store.open_layers(&below)?;
        let lower = packed::paths(&below);
        store.make_layer(&self.id, |draft| {
            unpack_verified(
                plain,
                &self.diff_id,
                draft,
                &lower,
                store.marks(),
                self.owner,
                self.max_bytes,
            )
        })
    }
}

/// Unpacks an archive that must have a digest as a whole.
fn unpack_verified(
    archive: impl Read,
    diff_id: &Digest,
    draft: &Path,
    lower: &[PathBuf],
    marks: Marks,
    owner: Option<u32>,
    max_bytes: u64,
) -> Result<(), OciError> {
    // What headers and padding take beside files.
    let mut archive = Hashing {
        inner: archive,
        hash: Sha256::new(),
        bytes_left: max_bytes.saturating_mul(2).saturating_add(64 << 20),
    };
    Unpack::new(draft, lower, marks, owner, max_bytes, MAX_ENTRIES).run(&mut archive)?;
    // Archives are padded.
    io::copy(&mut archive, &mut io::sink()).map_err(super::archive::unreadable)?;
    match finished(archive.hash) {
        found if found == *diff_id => Ok(()),
        found => Err(OciError::Digest {
            what: "a layer's archive",
            expected: diff_id.clone(),
            found,
        }),
    }
}

/// Hashes what is read, up to a length.
struct Hashing<R> {
    inner: R,
    hash: Sha256,
    bytes_left: u64,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.bytes_left = self
            .bytes_left
            .checked_sub(length as u64)
            .ok_or_else(|| io::Error::other(OciError::TooLarge))?;
        self.hash.update(&buffer[..length]);
        Ok(length)
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, OciError> + Send + 'static,
) -> Result<T, OciError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or(Err(OciError::Cancelled))
}
