//! Makes a layer's directory of a tar archive, as the OCI image specification says (<https://github.com/opencontainers/image-spec/blob/main/layer.md>).
//! Everything in it belongs to the one owner of all layers, so ids, capabilities and device nodes are left out, and the
//! owner may read and write everything, as root may where such images usually run.

use super::archive::{self, Member, unreadable};
use super::failure::OciError;
use crate::marks::{self, Marks};
use crate::tree;
use crate::view::{Entry, View};
use rustix::fs::{CWD, FileType, Mode};
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, lchown, symlink};
use std::path::{Path, PathBuf};
use tar::EntryType;

/// Begins the name of an entry that removes one of lower layers.
pub(super) const WHITEOUT: &[u8] = b".wh.";
/// Name of an entry that makes its directory hide what lower layers have there.
pub(super) const OPAQUE: &[u8] = b".wh..wh..opq";
/// Other names that begin so mean nothing.
const WHITEOUT_META: &[u8] = b".wh..wh.";

/// Bits of a mode that are kept; what would change who a program runs as is not.
const MODE_BITS: u32 = 0o1777;
/// What root may do whatever the mode says.
const OWNER_OF_FILE: u32 = 0o600;
const OWNER_OF_DIRECTORY: u32 = 0o700;

/// What an entry takes beside its content, however small it is.
const ENTRY_BYTES: u64 = 1024;

/// How an archive becomes a layer.
pub(super) struct Unpack<'a> {
    target: &'a Path,
    /// With the target on top.
    view: View,
    marks: Marks,
    /// Uid and gid of everything; `None`: this process's.
    owner: Option<u32>,
    /// Most bytes of all files.
    bytes_left: u64,
    /// Most entries.
    entries_left: u64,
    /// Directories of the archive, and where they lead.
    resolved: HashMap<PathBuf, PathBuf>,
    /// Times of directories that are there, for the end.
    directories: BTreeMap<PathBuf, i64>,
}

impl<'a> Unpack<'a> {
    /// `target` is an empty directory that nobody else knows; `lower` are the layers below, topmost first.
    pub(super) fn new(
        target: &'a Path,
        lower: &[PathBuf],
        marks: Marks,
        owner: Option<u32>,
        max_bytes: u64,
        max_entries: u64,
    ) -> Self {
        let layers = std::iter::once(target.to_owned()).chain(lower.iter().cloned());
        Self {
            target,
            view: View::new(layers.collect(), marks),
            marks,
            owner,
            bytes_left: max_bytes,
            entries_left: max_entries,
            resolved: HashMap::new(),
            directories: BTreeMap::new(),
        }
    }

    /// Reads the archive to its end.
    pub(super) fn run(mut self, archive: impl Read) -> Result<(), OciError> {
        self.set_mode(self.target, 0o755)
            .and_then(|()| self.own(self.target))
            .map_err(local(self.target))?;
        archive::read(archive, |member, content| {
            self.entries_left = self
                .entries_left
                .checked_sub(1)
                .ok_or_else(|| OciError::Archive("it has too many entries".to_owned()))?;
            self.take(ENTRY_BYTES)?;
            self.member(member, content)
        })?;
        // Those inside first: making something in a directory changes its time.
        for (directory, modified) in self.directories.iter().rev() {
            marks::set_modified(directory, *modified, 0).map_err(local(directory))?;
        }
        Ok(())
    }

    fn member(&mut self, member: Member, content: &mut dyn Read) -> Result<(), OciError> {
        let (Some(name), Some(parent)) = (member.path.file_name(), member.path.parent()) else {
            // The root itself.
            let mode = member.mode | OWNER_OF_DIRECTORY;
            return self.set_mode(self.target, mode).map_err(local(self.target));
        };
        let parent = self.directory(parent)?;
        if name.as_bytes() == OPAQUE {
            return self.marks.make_opaque(&parent).map_err(local(&parent));
        }
        if name.as_bytes().starts_with(WHITEOUT_META) {
            return Ok(());
        }
        if let Some(gone) = name.as_bytes().strip_prefix(WHITEOUT) {
            return self.whiteout(&parent, OsStr::from_bytes(gone));
        }
        let place = parent.join(name);
        let target = || {
            let missing = || OciError::Archive(format!("the link {} leads nowhere", member.path.display()));
            member.target.as_deref().ok_or_else(missing)
        };
        match member.kind {
            EntryType::Directory => {
                self.make_directory(&place, member.mode)?;
                self.set_attributes(&place, &member.attributes);
                self.directories.insert(place, member.modified);
                return Ok(());
            }
            EntryType::Regular | EntryType::Continuous => {
                self.make_room(&place)?;
                let mut file = File::create_new(&place).map_err(local(&place))?;
                self.take(member.size)?;
                let written = io::copy(content, &mut file).map_err(copying(&place))?;
                if written != member.size {
                    return Err(OciError::Archive(format!(
                        "{} ends too early",
                        member.path.display()
                    )));
                }
                let mode = member.mode | OWNER_OF_FILE;
                self.set_mode(&place, mode).map_err(local(&place))?;
            }
            EntryType::Symlink => {
                self.make_room(&place)?;
                symlink(target()?, &place).map_err(local(&place))?;
                // A directory of lower layers may have been there.
                self.resolved.clear();
            }
            EntryType::Link => {
                let target = archive::normalised(Path::new(target()?))?;
                let source = self.file_of(&target)?;
                if source != place {
                    self.make_room(&place)?;
                    fs::hard_link(&source, &place).map_err(local(&place))?;
                }
                return Ok(());
            }
            EntryType::Fifo => {
                self.make_room(&place)?;
                let made = rustix::fs::mknodat(CWD, &place, FileType::Fifo, Mode::from_raw_mode(0o600), 0);
                made.map_err(io::Error::from).map_err(local(&place))?;
                let mode = member.mode | OWNER_OF_FILE;
                self.set_mode(&place, mode).map_err(local(&place))?;
            }
            // Devices: nobody could open them in a sandbox.
            _ => return Ok(()),
        }
        self.set_attributes(&place, &member.attributes);
        self.own(&place).map_err(local(&place))?;
        marks::set_modified(&place, member.modified, 0).map_err(local(&place))
    }

    fn take(&mut self, bytes: u64) -> Result<(), OciError> {
        self.bytes_left = self.bytes_left.checked_sub(bytes).ok_or(OciError::TooLarge)?;
        Ok(())
    }

    /// The directory of the layer that a path of the archive leads to, made where it is missing.
    fn directory(&mut self, path: &Path) -> Result<PathBuf, OciError> {
        if let Some(known) = self.resolved.get(path) {
            return Ok(known.clone());
        }
        let resolved = self.view.resolve(path).map_err(local(path))?;
        let mut place = self.target.to_owned();
        let mut below = PathBuf::new();
        for name in &resolved {
            place.push(name);
            below.push(name);
            match metadata(&place)? {
                Some(metadata) if metadata.is_dir() => {}
                Some(_) => self.make_directory(&place, 0o755)?,
                None => {
                    let lower = self.view.find(&below).map_err(local(&below))?;
                    self.make_directory(&place, mode_of(lower.as_ref()))?;
                }
            }
        }
        self.resolved.insert(path.to_owned(), place.clone());
        Ok(place)
    }

    fn make_directory(&mut self, place: &Path, mode: u32) -> Result<(), OciError> {
        match metadata(place)? {
            Some(found) if found.is_dir() => {}
            Some(found) => {
                let hides = marks::is_whiteout(&found);
                self.make_room(place)?;
                fs::create_dir(place).map_err(local(place))?;
                if hides {
                    self.marks.make_opaque(place).map_err(local(place))?;
                }
            }
            None => {
                fs::create_dir(place).map_err(local(place))?;
                // A link of lower layers may have been there.
                self.resolved.clear();
            }
        }
        self.set_mode(place, mode | OWNER_OF_DIRECTORY)
            .and_then(|()| self.own(place))
            .map_err(local(place))
    }

    /// Removes what this layer has at a place.
    fn make_room(&mut self, place: &Path) -> Result<(), OciError> {
        match metadata(place)? {
            None => return Ok(()),
            Some(found) if found.is_dir() => {
                // Their names may lead elsewhere from now on.
                self.directories
                    .retain(|directory, _| !directory.starts_with(place));
                tree::remove(place)
            }
            Some(_) => fs::remove_file(place),
        }
        .map_err(local(place))?;
        self.resolved.clear();
        Ok(())
    }

    /// Removes a name of the layers below, not of this one.
    fn whiteout(&mut self, parent: &Path, name: &OsStr) -> Result<(), OciError> {
        if matches!(name.as_bytes(), b"" | b"." | b"..") {
            return Err(OciError::Archive("a whiteout names nothing".to_owned()));
        }
        let place = parent.join(name);
        let done = match metadata(&place)? {
            Some(found) if found.is_dir() => self.marks.make_opaque(&place),
            Some(_) => Ok(()),
            None => marks::make_whiteout(&place),
        };
        done.map_err(local(&place))
    }

    /// A file that a hard link leads to, in this layer: one of lower layers is copied up.
    fn file_of(&mut self, path: &Path) -> Result<PathBuf, OciError> {
        let missing = || {
            OciError::Archive(format!(
                "a hard link leads to {}, which is no file",
                path.display()
            ))
        };
        let (Some(name), Some(parent)) = (path.file_name(), path.parent()) else {
            return Err(missing());
        };
        let place = self.directory(parent)?.join(name);
        let below = place.strip_prefix(self.target).unwrap_or(&place).to_owned();
        let found = self.view.find(&below).map_err(local(&place))?;
        let Some(Entry::Other(source, metadata)) = found else {
            return Err(missing());
        };
        if source != place {
            if metadata.is_symlink() {
                let target = fs::read_link(&source).map_err(local(&source))?;
                symlink(target, &place).map_err(local(&place))?;
            } else if metadata.is_file() {
                self.take(metadata.len())?;
                fs::copy(&source, &place).map_err(local(&place))?;
            } else {
                return Err(missing());
            }
            self.own(&place).map_err(local(&place))?;
            let modified = std::os::unix::fs::MetadataExt::mtime(&metadata);
            marks::set_modified(&place, modified, 0).map_err(local(&place))?;
        }
        Ok(place)
    }

    fn set_mode(&self, place: &Path, mode: u32) -> io::Result<()> {
        fs::set_permissions(place, fs::Permissions::from_mode(mode & MODE_BITS))
    }

    fn own(&self, place: &Path) -> io::Result<()> {
        match self.owner {
            Some(id) => lchown(place, Some(id), Some(id)),
            None => Ok(()),
        }
    }

    /// Not every filesystem has attributes, and no program relies on these.
    fn set_attributes(&self, place: &Path, attributes: &[(String, Vec<u8>)]) {
        for (name, value) in attributes {
            let _ = rustix::fs::lsetxattr(place, name.as_str(), value, rustix::fs::XattrFlags::empty());
        }
    }
}

fn mode_of(entry: Option<&Entry>) -> u32 {
    match entry {
        Some(Entry::Directory(directory)) => {
            fs::metadata(directory.top()).map_or(0o755, |metadata| metadata.permissions().mode())
        }
        _ => 0o755,
    }
}

fn metadata(place: &Path) -> Result<Option<Metadata>, OciError> {
    match fs::symlink_metadata(place) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(local(place)(error)),
    }
}

/// Something is wrong with the disk here.
fn local(path: &Path) -> impl FnOnce(io::Error) -> OciError {
    let path = path.to_owned();
    move |source| match source.raw_os_error() {
        // The archive's doing.
        Some(
            libc::ENAMETOOLONG
            | libc::EINVAL
            | libc::ELOOP
            | libc::ENOENT
            | libc::ENOTDIR
            | libc::EISDIR
            | libc::EEXIST,
        ) => OciError::Archive(format!("{}: {source}", path.display())),
        _ => OciError::Local(crate::ImageError::File {
            action: "unpack",
            path,
            source,
        }),
    }
}

/// Copying fails by what is read or what is written; the operating system's errors are those of writing.
fn copying(path: &Path) -> impl FnOnce(io::Error) -> OciError {
    let path = path.to_owned();
    move |error| match error.raw_os_error() {
        Some(_) => local(&path)(error),
        None => unreadable(error),
    }
}
