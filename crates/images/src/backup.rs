//! Copies snapshots from one place to another, such as a backup, while sandboxes run and layers come and go.

use crate::copy::Copy;
use crate::failure::ImageError;
use crate::record::Snapshot;
use crate::store::{DRAFT, PACKED, read_json, write_atomically};
use crate::tree;
use greenroom_protocol::id::{LayerId, SnapshotId};
use greenroom_stdx::id::fresh_bits;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

/// Copies a snapshot with the layers it needs; those that `to` has already are shared. Both are the places of image stores. The caller
/// waits for the disk before it relies on the copy.
///
/// # Errors
/// [`ImageError::Missing`] if it was removed, [`ImageError::LayerMissing`] if that happens meanwhile.
pub fn copy_snapshot(from: &Path, to: &Path, id: &SnapshotId) -> Result<(), ImageError> {
    let record = |place: &Path| place.join("snapshots").join(format!("{id}.json"));
    let snapshot: Snapshot = read_json(&record(from))?.ok_or_else(|| ImageError::Missing(id.clone()))?;
    for directory in ["layers", "snapshots"].map(|name| to.join(name)) {
        let made = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory);
        made.map_err(ImageError::file("make directory", &directory))?;
    }
    for layer in &snapshot.layers {
        match copy_layer(&from.join("layers"), &to.join("layers"), layer) {
            Err(ImageError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Err(ImageError::LayerMissing(record(from)));
            }
            copied => copied?,
        }
    }
    let kept = Snapshot {
        is_durable: true,
        ..snapshot
    };
    write_atomically(&record(to), &kept)
}

fn copy_layer(from: &Path, to: &Path, id: &LayerId) -> Result<(), ImageError> {
    let packed = format!("{id}{PACKED}");
    let name = match from.join(&packed).exists() {
        true => packed,
        false => id.to_string(),
    };
    let (source, target) = (from.join(&name), to.join(&name));
    if target.exists() {
        return Ok(());
    }
    let draft = to.join(format!("{DRAFT}{}", LayerId::from_bits(fresh_bits())));
    let copied = match source.is_dir() {
        true => copy_directory(&source, &draft),
        false => fs::copy(&source, &draft).map(drop),
    };
    if let Err(error) = copied.and_then(|()| fs::rename(&draft, &target)) {
        let _ = tree::remove(&draft);
        return Err(ImageError::file("copy", &source)(error));
    }
    Ok(())
}

fn copy_directory(source: &Path, draft: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(draft)?;
    let mut copy = Copy::new(source, draft, None);
    copy.pass()?;
    copy.finish().map(drop)
}
