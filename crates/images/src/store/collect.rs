//! What nobody needs any more, and what cannot be used: found by what lies on disk, and removed.

use super::layers::{BYTES, NOTE, PACKED};
use super::{DRAFT, ImageStore, names, read_json};
use crate::chain::Chain;
use crate::failure::ImageError;
use crate::record::Snapshot;
use crate::tree;
use greenroom_protocol::id::LayerId;
use greenroom_stdx::step;
use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::PoisonError;
use std::time::Duration;

/// How long images of registries are kept that nobody begins with.
const UNUSED_AGE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How long small things of registries are kept.
const ARTIFACT_AGE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

pub(super) const LEAVING: &str = ".leaving-";

/// What a collection removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    pub layers: usize,
}

impl ImageStore {
    /// Removes layers that no snapshot and no sandbox names. What cannot be removed now is tried again the next time; while a record
    /// cannot be read, nothing is.
    pub fn collect(&self) -> Result<Collected, ImageError> {
        self.forget_artifacts()?;
        let mut leaving = Vec::new();
        {
            let _names = self.lock();
            let named = match self.named() {
                Ok(named) => named,
                Err(error) => {
                    let error = greenroom_stdx::chain::Chain(&error);
                    tracing::warn!(%error, "no layer is removed, because it is not known which are needed");
                    return Ok(Collected::default());
                }
            };
            for name in names(&self.layers)? {
                let path = self.layers.join(&name);
                if name.starts_with(LEAVING) {
                    leaving.push(path);
                } else if let Ok(id) = name.strip_suffix(PACKED).unwrap_or(&name).parse::<LayerId>()
                    && (!named.contains(&id) || self.is_packed_too(&path, &id))
                {
                    if !named.contains(&id) {
                        // Before the layer: without it nobody would look for them.
                        for note in [BYTES, NOTE] {
                            let _ = fs::remove_file(self.layers.join(format!("{id}{note}")));
                        }
                        step::reached("collect.unnoted");
                    }
                    let gone = self.layers.join(format!("{LEAVING}{name}"));
                    fs::rename(&path, &gone).map_err(ImageError::file("rename", &path))?;
                    step::reached("collect.renamed");
                    leaving.push(gone);
                }
            }
        }
        let mut collected = Collected::default();
        for path in &leaving {
            match tree::remove(path) {
                Ok(()) => {
                    step::reached("collect.removed");
                    collected.layers += 1;
                }
                Err(error) => tracing::warn!(path = %path.display(), %error, "a layer is not removed yet"),
            }
        }
        Ok(collected)
    }

    /// Whether this is the directory of a layer that was packed, and killed before the directory was gone.
    fn is_packed_too(&self, path: &Path, id: &LayerId) -> bool {
        path == self.layer(id) && self.packed(id).is_file()
    }

    /// Layers that somebody needs. A record that cannot be read is an error: what it needs is unknown.
    fn named(&self) -> Result<HashSet<LayerId>, ImageError> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let mut named: HashSet<LayerId> = held.keys().cloned().collect();
        drop(held);
        for snapshot in self.snapshots()? {
            named.extend(snapshot.layers);
        }
        for name in names(&self.sandboxes)? {
            named.extend(Chain::read(&self.sandboxes.join(name))?.layers);
        }
        Ok(named)
    }

    /// Forgets snapshots of an earlier run of the machine that were not on disk for good, or whose layers are missing; removes
    /// copies that were killed in the making.
    pub(super) fn forget_unusable(&self) -> Result<(), ImageError> {
        for name in names(&self.layers)? {
            if name.starts_with(DRAFT) {
                let path = self.layers.join(&name);
                tree::remove(&path).map_err(ImageError::file("remove", &path))?;
            }
        }
        for name in names(&self.snapshots)? {
            let path = self.snapshots.join(&name);
            if !name.ends_with(".json") {
                // Killed while it was written: nobody was told of it.
                tree::remove_file(&path).map_err(ImageError::file("remove", &path))?;
                continue;
            }
            let why = match read_json::<Snapshot>(&path) {
                Ok(None) => continue,
                Ok(Some(snapshot)) if !snapshot.is_durable && snapshot.boot != self.owner.boot => {
                    "the machine was restarted before it was on disk"
                }
                Ok(Some(snapshot)) if snapshot.layers.iter().any(|id| self.place(id).is_none()) => {
                    "layers of it are missing"
                }
                Ok(Some(_)) => continue,
                Err(_) => "its record is damaged",
            };
            tracing::warn!(name, "a snapshot is forgotten: {why}");
            tree::remove_file(&path).map_err(ImageError::file("remove", &path))?;
        }
        Ok(())
    }

    /// Removes small things that were got long ago; whoever wants one gets it again.
    pub(super) fn forget_artifacts(&self) -> Result<(), ImageError> {
        for name in names(&self.artifacts)? {
            let path = self.artifacts.join(name);
            let got = fs::metadata(&path).and_then(|metadata| metadata.modified());
            if got
                .ok()
                .and_then(|got| got.elapsed().ok())
                .is_some_and(|age| age > ARTIFACT_AGE)
            {
                tree::remove_file(&path).map_err(ImageError::file("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Whether a snapshot that did not come from a sandbox was used lately. It is nobody's who would say that it is not needed
    /// any more.
    pub fn is_in_use(&self, snapshot: &Snapshot) -> bool {
        let used = fs::metadata(self.path(&snapshot.id)).and_then(|metadata| metadata.modified());
        let age = used.ok().and_then(|used| used.elapsed().ok()).unwrap_or_default();
        snapshot.sandbox.is_none() && age < UNUSED_AGE
    }
}
