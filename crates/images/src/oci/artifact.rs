//! Small things in registries that are no images, such as dev container features: one archive each.

use super::archive;
use super::digest::digest_of;
use super::document::Manifest;
use super::failure::OciError;
use super::pull::blocking;
use super::registry::Registry;
use crate::failure::ImageError;
use crate::store::ImageStore;
use greenroom_protocol::reference::Reference;
use std::ffi::OsStr;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

/// Largest archive, and largest file that is read of one, in bytes.
const MAX_ARCHIVE_BYTES: u64 = 16 << 20;
const MAX_FILE_BYTES: u64 = 1 << 20;

/// What lies in a registry as one archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// A tar archive, perhaps compressed with gzip.
    pub archive: Vec<u8>,
}

impl Artifact {
    /// Gets it, from here if it was got before. `reference` has a digest.
    pub async fn pull(
        store: &Arc<ImageStore>,
        registry: &Registry,
        reference: &Reference,
    ) -> Result<Self, OciError> {
        if reference.digest.is_none() {
            return Err(OciError::NotPinned(reference.to_string()));
        }
        let name = format!(
            "{}/{} {}",
            reference.registry,
            reference.repository,
            reference.version()
        );
        let kept = store.artifact(digest_of(name.as_bytes()).as_str());
        if let Ok(archive) = std::fs::read(&kept) {
            return Ok(Self { archive });
        }
        let (bytes, _) = registry.manifest(reference).await?;
        let manifest = Manifest::read(&bytes)?;
        let [layer] = manifest.layers.as_slice() else {
            return Err(OciError::Document {
                what: "the manifest",
                message: format!("it has {} layers, not one", manifest.layers.len()),
            });
        };
        if layer.size > MAX_ARCHIVE_BYTES {
            return Err(OciError::TooLarge);
        }
        let file = store.incoming();
        registry.download(reference, layer, &file.0).await?;
        blocking(move || {
            let archive = std::fs::read(&file.0).map_err(ImageError::file("read", &file.0))?;
            // Got again if it cannot be kept; on disk before it has its name.
            let synced = std::fs::File::open(&file.0).and_then(|file| file.sync_all());
            let _ = synced.and_then(|()| std::fs::rename(&file.0, kept));
            Ok(Self { archive })
        })
        .await
    }

    /// A file at the top of it.
    pub fn file(&self, name: &str) -> Result<Option<Vec<u8>>, OciError> {
        let plain: Box<dyn std::io::Read> = match self.archive.starts_with(&[0x1f, 0x8b]) {
            true => Box::new(flate2::bufread::MultiGzDecoder::new(self.archive.as_slice())),
            false => Box::new(self.archive.as_slice()),
        };
        let mut found = None;
        // However much comes of what is compressed.
        archive::read(plain.take(MAX_ARCHIVE_BYTES * 16), |member, content| {
            if member.path == Path::new(OsStr::new(name)) {
                let mut bytes = Vec::new();
                let read = content.take(MAX_FILE_BYTES).read_to_end(&mut bytes);
                read.map_err(archive::unreadable)?;
                found = Some(bytes);
            }
            Ok(())
        })?;
        Ok(found)
    }
}
