//! Reads a tar archive that anybody may have made: its extensions are bounded, because whoever reads one has it in memory.

use super::failure::OciError;
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};
use tar::{EntryType, Header, PaxExtensions};

/// Directories in each other.
const MAX_DEPTH: usize = 256;

/// Longest extensions of an entry together: long names and attributes.
const MAX_EXTENSION_BYTES: u64 = 1 << 20;

/// The only attributes that are kept, but for those of an overlay.
const KEPT_ATTRIBUTES: &str = "user.";
const OVERLAY_ATTRIBUTES: &str = "user.overlay.";

/// Begins the names of extended attributes in an archive.
pub(super) const ATTRIBUTE: &str = "SCHILY.xattr.";

/// An entry, without its content.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) kind: EntryType,
    /// Relative, without `.` and `..`; empty for the root.
    pub(super) path: PathBuf,
    /// Where a link leads; for a hard link a path of the archive.
    pub(super) target: Option<OsString>,
    pub(super) mode: u32,
    /// Seconds since 1970.
    pub(super) modified: i64,
    pub(super) size: u64,
    /// Name and value.
    pub(super) attributes: Vec<(String, Vec<u8>)>,
}

/// What the extensions before an entry say of it.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    modified: Option<i64>,
    attributes: Vec<(String, Vec<u8>)>,
    /// Of all before one entry.
    length: u64,
}

/// Calls `each` with every entry and its content, in order.
pub(super) fn read(
    archive: impl Read,
    mut each: impl FnMut(Member, &mut dyn Read) -> Result<(), OciError>,
) -> Result<(), OciError> {
    let mut archive = tar::Archive::new(archive);
    let mut extensions = Extensions::default();
    // Raw: otherwise the library itself reads extensions, however long they are.
    for entry in archive.entries().map_err(unreadable)?.raw(true) {
        let mut entry = entry.map_err(unreadable)?;
        let header = entry.header().clone();
        match header.entry_type() {
            EntryType::GNULongName => extensions.path = Some(text(extensions.extension(&mut entry)?)),
            EntryType::GNULongLink => extensions.target = Some(text(extensions.extension(&mut entry)?)),
            EntryType::XHeader => {
                let bytes = extensions.extension(&mut entry)?;
                extensions.read(&bytes)?;
            }
            EntryType::XGlobalHeader => {}
            EntryType::GNUSparse => {
                return Err(OciError::Archive("it has files with holes".to_owned()));
            }
            _ => {
                let member = member(&header, std::mem::take(&mut extensions))?;
                each(member, &mut entry)?;
            }
        }
    }
    Ok(())
}

impl Extensions {
    /// The content of one, if all together are not too long.
    fn extension(&mut self, entry: &mut impl Read) -> Result<Vec<u8>, OciError> {
        let mut bytes = Vec::new();
        let left = MAX_EXTENSION_BYTES - self.length;
        let read = entry.take(left + 1).read_to_end(&mut bytes);
        let length = read.map_err(unreadable)? as u64;
        if length > left {
            return Err(OciError::Archive(format!(
                "extensions of an entry have more than {MAX_EXTENSION_BYTES} bytes"
            )));
        }
        self.length += length;
        Ok(bytes)
    }

    fn read(&mut self, bytes: &[u8]) -> Result<(), OciError> {
        for extension in PaxExtensions::new(bytes) {
            let extension = extension.map_err(unreadable)?;
            let Ok(key) = extension.key() else { continue };
            let value = extension.value_bytes();
            match key {
                "path" => self.path = Some(value.to_vec()),
                "linkpath" => self.target = Some(value.to_vec()),
                // With a fraction.
                "mtime" => {
                    let whole = extension.value().ok().and_then(|text| text.split('.').next());
                    self.modified = whole.and_then(|text| text.parse().ok());
                }
                // Only of files that do not fit into the header: above 8 GiB.
                "size" => return Err(OciError::Archive("it has a file above 8 GiB".to_owned())),
                _ => {
                    if let Some(name) = key.strip_prefix(ATTRIBUTE)
                        && is_kept(name)
                    {
                        self.attributes.push((name.to_owned(), value.to_vec()));
                    }
                }
            }
        }
        Ok(())
    }
}

fn member(header: &Header, extensions: Extensions) -> Result<Member, OciError> {
    let path = extensions
        .path
        .unwrap_or_else(|| header.path_bytes().into_owned());
    let target = extensions
        .target
        .or_else(|| header.link_name_bytes().map(|target| target.into_owned()));
    let modified = extensions
        .modified
        .or_else(|| header.mtime().ok().and_then(|time| i64::try_from(time).ok()));
    Ok(Member {
        kind: header.entry_type(),
        path: normalised(Path::new(&OsString::from_vec(path)))?,
        target: target.filter(|target| !target.is_empty()).map(OsString::from_vec),
        mode: header.mode().unwrap_or(0o755),
        modified: modified.unwrap_or(0),
        size: header.entry_size().map_err(unreadable)?,
        attributes: extensions.attributes,
    })
}

/// A path of an archive, relative and without `.`.
pub(super) fn normalised(path: &Path) -> Result<PathBuf, OciError> {
    let mut kept = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => kept.push(name),
            Component::ParentDir => {
                let message = format!("{} leads out of the layer", path.display());
                return Err(OciError::Archive(message));
            }
            _ => {}
        }
    }
    if kept.components().count() > MAX_DEPTH {
        return Err(OciError::Archive(format!(
            "it has directories more than {MAX_DEPTH} deep"
        )));
    }
    Ok(kept)
}

/// Ends with a zero.
fn text(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
}

/// Whether programs set an attribute, and not a kernel or an overlay.
pub(super) fn is_kept(attribute: &str) -> bool {
    attribute.starts_with(KEPT_ATTRIBUTES) && !attribute.starts_with(OVERLAY_ATTRIBUTES)
}

/// What a reader of ours said, or the library.
pub(super) fn unreadable(error: io::Error) -> OciError {
    match error.downcast::<OciError>() {
        Ok(error) => error,
        Err(error) => OciError::Archive(error.to_string()),
    }
}
