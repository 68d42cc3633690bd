//! Layers by name: made, held as long as nothing names them, joined, and what is noted of them.

use super::collect::LEAVING;
use super::{DRAFT, ImageStore, read_json, write_atomically};
use crate::failure::ImageError;
use crate::flatten::Flatten;
use crate::oci::Incoming;
use crate::packed::{self, OpenLayer};
use crate::tree;
use greenroom_protocol::id::LayerId;
use greenroom_stdx::id::fresh_bits;
use serde::Serialize;
use std::fs;
use std::ops::Deref;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

/// Ends the names of files beside a layer: its size, and how it looks in registries.
pub(super) const BYTES: &str = ".bytes";
pub(super) const NOTE: &str = ".oci.json";
/// Ends the name of a packed layer.
pub(crate) const PACKED: &str = ".erofs";

/// Layers that are not removed until this is dropped.
#[derive(Debug)]
pub struct Held<S: Deref<Target = ImageStore>> {
    store: S,
    ids: Vec<LayerId>,
}

impl<S: Deref<Target = ImageStore>> Drop for Held<S> {
    fn drop(&mut self) {
        let mut held = self.store.held.lock().unwrap_or_else(PoisonError::into_inner);
        for id in &self.ids {
            if let Some(count) = held.get_mut(id) {
                *count -= 1;
            }
        }
        held.retain(|_, count| *count > 0);
    }
}

impl ImageStore {
    /// Keeps layers from being removed that nothing names yet, whether they are there or not.
    pub(crate) fn hold(&self, ids: &[LayerId]) -> Held<&Self> {
        self.add_held(ids);
        Held {
            store: self,
            ids: ids.to_vec(),
        }
    }

    /// Like [`ImageStore::hold`], for work that goes on elsewhere.
    pub(crate) fn hold_owned(self: &Arc<Self>, ids: &[LayerId]) -> Held<Arc<Self>> {
        self.add_held(ids);
        Held {
            store: self.clone(),
            ids: ids.to_vec(),
        }
    }

    fn add_held(&self, ids: &[LayerId]) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        for id in ids {
            *held.entry(id.clone()).or_default() += 1;
        }
    }

    /// Makes a layer that has this name whoever makes it, unless it is there.
    pub(crate) fn make_layer<E: From<ImageError>>(
        &self,
        id: &LayerId,
        make: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.place(id).is_some() {
            return Ok(());
        }
        let draft = self
            .layers
            .join(format!("{DRAFT}{}", LayerId::from_bits(fresh_bits())));
        let made = fs::DirBuilder::new().mode(0o700).create(&draft);
        let made = made
            .map_err(ImageError::file("make directory", &draft))
            .map_err(E::from);
        if let Err(error) = made.and_then(|()| make(&draft)) {
            let _ = tree::remove(&draft);
            return Err(error);
        }
        let (made, place) = match self.pack_draft(&draft) {
            Some(packed) => (packed, self.packed(id)),
            None => (draft, self.layer(id)),
        };
        let _names = self.lock();
        // Somebody else may have been faster, and what is there may be in use.
        let done = match self.place(id) {
            Some(_) => tree::remove(&made).map_err(ImageError::file("remove", &made)),
            None => fs::rename(&made, &place).map_err(ImageError::file("publish", &made)),
        };
        Ok(done?)
    }

    /// The file of a packed layer.
    pub(super) fn packed(&self, id: &LayerId) -> PathBuf {
        self.layers.join(format!("{id}{PACKED}"))
    }

    /// Packs what is not a layer yet; the directory is gone then. `None` if it stays as it is.
    fn pack_draft(&self, draft: &Path) -> Option<PathBuf> {
        let packed = self.pack_to_draft(draft)?;
        if let Err(error) = tree::remove(draft) {
            tracing::warn!(path = %draft.display(), %error, "what was packed is there twice until the next start");
        }
        Some(packed)
    }

    fn pack_to_draft(&self, directory: &Path) -> Option<PathBuf> {
        let packer = self.packer.as_ref()?;
        let name = LayerId::from_bits(fresh_bits());
        let file = self.layers.join(format!("{DRAFT}{name}{PACKED}"));
        match packer.pack(directory, &file) {
            Ok(()) => Some(file),
            Err(error) => {
                tracing::warn!(path = %directory.display(), %error, "a layer stays unpacked");
                let _ = tree::remove_file(&file);
                None
            }
        }
    }

    /// Packs layers that nobody began with yet.
    pub fn pack(&self, ids: &[LayerId]) -> Result<(), ImageError> {
        for id in ids {
            let directory = self.layer(id);
            if !directory.is_dir() {
                continue;
            }
            let Some(file) = self.pack_to_draft(&directory) else {
                return Ok(());
            };
            let leaving = self.layers.join(format!("{LEAVING}{id}"));
            {
                let _names = self.lock();
                // From here on the directory is of no account, also after a crash.
                fs::rename(&file, self.packed(id)).map_err(ImageError::file("publish", &file))?;
                fs::rename(&directory, &leaving).map_err(ImageError::file("rename", &directory))?;
                // It was of the directory.
                let _ = fs::remove_file(self.layers.join(format!("{id}{BYTES}")));
            }
            tree::remove(&leaving).map_err(ImageError::file("remove", &leaving))?;
        }
        Ok(())
    }

    /// Layers to be read.
    pub(crate) fn open_layers(&self, ids: &[LayerId]) -> Result<Vec<OpenLayer>, ImageError> {
        let open = |id: &LayerId| {
            let packed = self.packed(id);
            match packed.is_file() {
                true => OpenLayer::packed(&packed).map_err(ImageError::file("mount", &packed)),
                false => Ok(OpenLayer::directory(self.layer(id))),
            }
        };
        ids.iter().map(open).collect()
    }

    /// Makes one layer of several. `below` lie below them, and the host's base if `is_on_base`.
    pub(crate) fn join(
        &self,
        layer: &LayerId,
        layers: &[LayerId],
        below: &[LayerId],
        is_on_base: bool,
    ) -> Result<(), ImageError> {
        let (layers, below) = (self.open_layers(layers)?, self.open_layers(below)?);
        let mut lower = packed::paths(&below);
        lower.extend(is_on_base.then(|| self.base.clone()));
        let flatten = Flatten::new(&packed::paths(&layers), &lower, self.marks());
        self.make_layer(layer, |draft| {
            flatten
                .run(draft)
                .map_err(ImageError::file("join layers in", draft))
        })
    }

    /// A file to download to.
    pub(crate) fn incoming(&self) -> Incoming {
        Incoming(self.incoming.join(LayerId::from_bits(fresh_bits()).as_str()))
    }

    /// Where the archive of a small thing of a registry is kept.
    pub(crate) fn artifact(&self, digest: &str) -> PathBuf {
        self.artifacts.join(digest.replace(':', "-"))
    }

    /// What was noted of a layer.
    pub(crate) fn note<T: serde::de::DeserializeOwned>(&self, id: &LayerId) -> Result<Option<T>, ImageError> {
        read_json(&self.layers.join(format!("{id}{NOTE}")))
    }

    /// Notes something of a layer that is held; gone with it.
    pub(crate) fn write_note(&self, id: &LayerId, note: &impl Serialize) -> Result<(), ImageError> {
        write_atomically(&self.layers.join(format!("{id}{NOTE}")), note)
    }
}
