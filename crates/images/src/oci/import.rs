//! Makes a snapshot of a root that lies on this machine: a directory, or an archive of one.

use super::digest::{bits, digest_of};
use super::failure::OciError;
use super::pack::Pack;
use super::pull::{Fittings, MAX_ENTRIES, blocking, fit, homes};
use super::unpack::Unpack;
use super::zstd::ZstdFrames;
use crate::failure::ImageError;
use crate::marks::Marks;
use crate::record::{OwnRoot, Snapshot};
use crate::store::ImageStore;
use crate::tree;
use crate::view::View;
use greenroom_protocol::id::{LayerId, SnapshotId};
use greenroom_protocol::reference::Digest;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Seek as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How compressed archives begin.
const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// A root to import.
#[derive(Clone)]
pub struct Import {
    pub path: PathBuf,
    pub fittings: Fittings,
    /// Most bytes of its files.
    pub max_bytes: u64,
}

impl Import {
    /// Changes when the archive or the directory itself does, not when only something deep in it does.
    pub fn digest(path: &Path) -> Result<Digest, OciError> {
        let metadata = fs::metadata(path).map_err(|error| OciError::Root {
            path: path.to_owned(),
            why: error.to_string(),
        })?;
        if !metadata.is_file() && !metadata.is_dir() {
            return Err(OciError::Root {
                path: path.to_owned(),
                why: "it is neither a file nor a directory".to_owned(),
            });
        }
        let stamp = (metadata.dev(), metadata.ino(), metadata.size());
        let times = (
            metadata.mtime(),
            metadata.mtime_nsec(),
            metadata.ctime(),
            metadata.ctime_nsec(),
        );
        Ok(digest_of(format!("{path:?} {stamp:?} {times:?}").as_bytes()))
    }

    /// The snapshot that it is or will be.
    pub fn snapshot_id(&self) -> Result<SnapshotId, OciError> {
        let digest = Self::digest(&self.path)?;
        let text = format!(
            "root {digest} {:?} {}",
            self.fittings.owner, self.fittings.version
        );
        Ok(SnapshotId::from_bits(bits(&digest_of(text.as_bytes()))))
    }

    /// Imports it, if it is not there yet.
    pub async fn run(&self, store: &Arc<ImageStore>) -> Result<Snapshot, OciError> {
        let id = self.snapshot_id()?;
        if let Some(snapshot) = store.usable_snapshot(&id)? {
            return Ok(snapshot);
        }
        let (import, store) = (self.clone(), store.clone());
        blocking(move || import.import(&store, id)).await
    }

    fn import(&self, store: &ImageStore, id: SnapshotId) -> Result<Snapshot, OciError> {
        let name = |part: &str| LayerId::from_bits(bits(&digest_of(format!("{id} {part}").as_bytes())));
        let ids = vec![name("fittings"), name("files")];
        let _held = store.hold(&ids);
        store.make_layer(&ids[1], |draft| {
            let unpack = Unpack::new(
                draft,
                &[],
                store.marks(),
                self.fittings.owner,
                self.max_bytes,
                MAX_ENTRIES,
            );
            match self.path.is_dir() {
                true => self.directory(unpack),
                false => unpack.run(self.archive()?),
            }
        })?;
        fit(store, &ids, &self.fittings)?;
        let root = OwnRoot {
            source: self.path.display().to_string(),
            variables: Vec::new(),
            user: String::new(),
            homes: homes(store, &ids)?,
        };
        store.record_pulled(id, ids, Some(root), BTreeMap::new())
    }

    /// Through an archive that is never whole.
    fn directory(&self, unpack: Unpack<'_>) -> Result<(), OciError> {
        let failed = |error| OciError::from(ImageError::file("read", &self.path)(error));
        let (reader, writer) = io::pipe().map_err(failed)?;
        std::thread::scope(|scope| {
            let pack = scope.spawn(|| {
                // It has marks of no overlay.
                let marks = Marks { by_root: false };
                let view = View::new(vec![self.path.clone()], marks);
                let pack = Pack::new(BufWriter::new(writer), &self.path, &view, marks);
                let mut writer = tree::with_deep_stack(|| pack.run())?;
                io::Write::flush(&mut writer)
            });
            let unpacked = unpack.run(BufReader::new(reader));
            match (unpacked, pack.join()) {
                (Err(error), _) => Err(error),
                (Ok(()), Ok(Err(error))) => Err(failed(error)),
                (Ok(()), Ok(Ok(()))) => Ok(()),
                (Ok(()), Err(_)) => Err(OciError::Cancelled),
            }
        })
    }

    fn archive(&self) -> Result<Box<dyn Read>, OciError> {
        let failed = |error| OciError::from(ImageError::file("read", &self.path)(error));
        let mut file = File::open(&self.path).map_err(failed)?;
        let mut first = Vec::new();
        (&mut file).take(4).read_to_end(&mut first).map_err(failed)?;
        file.rewind().map_err(failed)?;
        let file = BufReader::with_capacity(256 << 10, file);
        Ok(match () {
            () if first.starts_with(GZIP) => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
            () if first == ZSTD => Box::new(ZstdFrames::new(file)),
            () => Box::new(file),
        })
    }
}
