//! Puts a snapshot into a registry, as an image that other tools and other servers can use.

use super::digest::{digest_of, finished};
use super::document::{
    CONFIG_TYPE, Descriptor, ImageConfig, LAYER_TYPE, MANIFEST_TYPE, Manifest, Platform, RootFs, RunConfig,
};
use super::failure::OciError;
use super::pack::Pack;
use super::pull::{Incoming, blocking};
use super::registry::Registry;
use crate::failure::ImageError;
use crate::packed;
use crate::record::Snapshot;
use crate::store::ImageStore;
use crate::tree;
use crate::view::View;
use flate2::Compression;
use flate2::write::GzEncoder;
use greenroom_protocol::reference::{Digest, Reference};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::sync::Arc;

/// Annotation of images that are not a whole root: the base of a host that they want below them.
pub(super) const BASE_ANNOTATION: &str = "dev.greenroom.base";

/// Where programs of the image begin.
const WORKSPACE: &str = "/workspace";

/// A snapshot on its way to a registry.
#[derive(Clone)]
pub struct Push {
    pub snapshot: Snapshot,
    /// Its tag is the name by which it is found; without one it is found by its digest alone.
    pub reference: Reference,
    /// Digest of what the host has below snapshots that are not a whole root.
    pub base_digest: String,
    /// Kept with it. Names begin with a domain.
    pub annotations: BTreeMap<String, String>,
}

/// A layer's archive, as far as it is known from before.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Packed {
    /// Of the archive.
    diff_id: Digest,
    /// Of the archive compressed.
    digest: Digest,
    size: u64,
}

impl Push {
    /// Uploads what the registry does not have. Returns the reference with the digest. `say` hears of every step.
    pub async fn run(
        &self,
        store: &Arc<ImageStore>,
        registry: &Registry,
        say: &(dyn Fn(String) + Send + Sync),
    ) -> Result<Reference, OciError> {
        let _held = store.hold(&self.snapshot.layers);
        let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
        let count = self.snapshot.layers.len();
        // The lowest first.
        for number in (0..count).rev() {
            let packed = self.layer(store, registry, number, say).await?;
            layers.push(Descriptor {
                media_type: LAYER_TYPE.to_owned(),
                digest: packed.digest,
                size: packed.size,
                platform: None,
            });
            diff_ids.push(packed.diff_id);
        }
        let config = json(&self.config(diff_ids))?;
        let config_blob = descriptor(CONFIG_TYPE, &config);
        if !registry.has(&self.reference, &config_blob.digest).await? {
            registry
                .upload_bytes(&self.reference, &config_blob, &config)
                .await?;
        }
        let mut annotations = self.annotations.clone();
        if self.snapshot.root.is_none() {
            annotations.insert(BASE_ANNOTATION.to_owned(), self.base_digest.clone());
        }
        let manifest = json(&Manifest {
            schema_version: 2,
            media_type: Some(MANIFEST_TYPE.to_owned()),
            config: Some(config_blob),
            layers,
            manifests: Vec::new(),
            annotations,
        })?;
        registry
            .put_manifest(&self.reference, MANIFEST_TYPE, &manifest)
            .await?;
        Ok(self.reference.pinned(digest_of(&manifest)))
    }

    fn config(&self, diff_ids: Vec<Digest>) -> ImageConfig {
        let platform = Platform::here();
        let root = self.snapshot.root.as_ref();
        let variables = root.map(|root| root.variables.as_slice()).unwrap_or_default();
        ImageConfig {
            architecture: platform.architecture,
            os: platform.os,
            config: RunConfig {
                env: variables
                    .iter()
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect(),
                user: root.map(|root| root.user.clone()).unwrap_or_default(),
                working_dir: WORKSPACE.to_owned(),
                cmd: vec!["/bin/sh".to_owned()],
                labels: BTreeMap::new(),
            },
            rootfs: RootFs {
                kind: "layers".to_owned(),
                diff_ids,
            },
            created: None,
        }
    }

    /// Makes sure that the registry has a layer.
    async fn layer(
        &self,
        store: &Arc<ImageStore>,
        registry: &Registry,
        number: usize,
        say: &(dyn Fn(String) + Send + Sync),
    ) -> Result<Packed, OciError> {
        let id = self.snapshot.layers[number].clone();
        let known: Option<Packed> = store.note(&id)?;
        if let Some(packed) = known
            && registry.has(&self.reference, &packed.digest).await?
        {
            return Ok(packed);
        }
        let (push, own_store) = (self.clone(), store.clone());
        let (packed, file) = blocking(move || push.pack(&own_store, number)).await?;
        store.write_note(&id, &packed)?;
        if !registry.has(&self.reference, &packed.digest).await? {
            let count = self.snapshot.layers.len();
            say(format!(
                "pushing layer {} of {count}, {} bytes",
                count - number,
                packed.size
            ));
            let blob = Descriptor {
                media_type: LAYER_TYPE.to_owned(),
                digest: packed.digest.clone(),
                size: packed.size,
                platform: None,
            };
            registry.upload(&self.reference, &blob, &file.0).await?;
        }
        Ok(packed)
    }

    fn pack(&self, store: &ImageStore, number: usize) -> Result<(Packed, Incoming), OciError> {
        let layers = store.open_layers(&self.snapshot.layers[number..])?;
        let mut places = packed::paths(&layers);
        let layer = places[0].clone();
        // A renamed directory of the base is the layer's own.
        places.extend(self.snapshot.root.is_none().then(|| store.base().to_owned()));
        let view = View::new(places, store.marks());
        let incoming = store.incoming();
        let write = || -> io::Result<Packed> {
            let file = BufWriter::with_capacity(256 << 10, File::create(&incoming.0)?);
            let encoder = GzEncoder::new(Hashed::new(file), Compression::fast());
            let pack = Pack::new(Hashed::new(encoder), &layer, &view, store.marks());
            let archive = tree::with_deep_stack(|| pack.run())?;
            let compressed = archive.inner.finish()?;
            compressed
                .inner
                .into_inner()
                .map_err(io::IntoInnerError::into_error)?;
            Ok(Packed {
                diff_id: finished(archive.hash),
                digest: finished(compressed.hash),
                size: compressed.length,
            })
        };
        let packed = write().map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => OciError::Archive(error.to_string()),
            _ => ImageError::file("pack", &layer)(error).into(),
        })?;
        Ok((packed, incoming))
    }
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest: digest_of(bytes),
        size: bytes.len() as u64,
        platform: None,
    }
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, OciError> {
    serde_json::to_vec(value).map_err(|error| OciError::Document {
        what: "a document",
        message: error.to_string(),
    })
}

/// Hashes and counts what is written.
struct Hashed<W> {
    inner: W,
    hash: Sha256,
    length: u64,
}

impl<W> Hashed<W> {
    fn new(inner: W) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
            length: 0,
        }
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.inner.write(bytes)?;
        self.hash.update(&bytes[..length]);
        self.length += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
