//! Makes one layer of several that lie on each other, by hard links: nothing is copied, and nobody sees a difference.

use crate::marks::{self, Marks};
use crate::tree;
use crate::view::{Directory, Entry, View};
use rustix::fs::{CWD, FileType, Mode, XattrFlags};
use rustix::io::Errno;
use std::ffi::CStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown, symlink};
use std::path::{Path, PathBuf};

/// Longest list of a file's attributes and longest value, in bytes.
const ATTRIBUTES_BYTES: usize = 64 << 10;

/// Begins the names of attributes by which an overlay keeps what it knows.
const OVERLAY_ATTRIBUTES: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];

/// Layers on their way to be one.
pub(crate) struct Flatten {
    marks: Marks,
    /// Those that become one.
    joined: View,
    /// With all that is below them.
    whole: View,
    /// Whether anything is below them.
    is_above_others: bool,
}

impl Flatten {
    /// `layers` are those that become one, topmost first; `below` are what lies below them.
    pub(crate) fn new(layers: &[PathBuf], below: &[PathBuf], marks: Marks) -> Self {
        Self {
            marks,
            joined: View::new(layers.to_vec(), marks),
            whole: View::new([layers, below].concat(), marks),
            is_above_others: !below.is_empty(),
        }
    }

    /// Into an empty directory on the same filesystem.
    pub(crate) fn run(&self, target: &Path) -> io::Result<()> {
        match self.joined.root() {
            Some(root) => tree::with_deep_stack(|| self.directory(&root, Path::new(""), target)),
            None => Ok(()),
        }
    }

    fn directory(&self, directory: &Directory, below: &Path, target: &Path) -> io::Result<()> {
        for (name, entry) in self.joined.list(directory)? {
            let (below, place) = (below.join(&name), target.join(&name));
            match entry {
                None if self.is_above_others => marks::make_whiteout(&place)?,
                None => {}
                Some(Entry::Other(source, metadata)) => link(&source, &place, &metadata)?,
                Some(Entry::Directory(found)) => {
                    fs::create_dir(&place)?;
                    match found.is_redirected {
                        // What it takes from below has another name there.
                        true => {
                            if let Some(Entry::Directory(all)) = self.whole.find(&below)? {
                                self.everything(&all, &place)?;
                            }
                            self.hide_below(&place)?;
                        }
                        false => {
                            self.directory(&found, &below, &place)?;
                            if !found.is_open {
                                self.hide_below(&place)?;
                            }
                        }
                    }
                    like(found.top(), &place)?;
                }
            }
        }
        like(directory.top(), target)
    }

    fn everything(&self, directory: &Directory, target: &Path) -> io::Result<()> {
        for (name, entry) in self.whole.list(directory)? {
            let place = target.join(name);
            match entry {
                None => {}
                Some(Entry::Other(source, metadata)) => link(&source, &place, &metadata)?,
                Some(Entry::Directory(found)) => {
                    fs::create_dir(&place)?;
                    self.everything(&found, &place)?;
                    like(found.top(), &place)?;
                }
            }
        }
        Ok(())
    }

    fn hide_below(&self, place: &Path) -> io::Result<()> {
        match self.is_above_others {
            true => self.marks.make_opaque(place),
            false => Ok(()),
        }
    }
}

/// The same file under another name; a copy where a file cannot have more names, or has them on another filesystem.
fn link(source: &Path, place: &Path, metadata: &Metadata) -> io::Result<()> {
    match rustix::fs::link(source, place) {
        Err(Errno::MLINK | Errno::XDEV) if metadata.is_file() => {
            fs::copy(source, place)?;
            like(source, place)
        }
        Err(Errno::XDEV) if metadata.is_symlink() => {
            symlink(fs::read_link(source)?, place)?;
            lchown(place, Some(metadata.uid()), Some(metadata.gid()))?;
            marks::set_modified(place, metadata.mtime(), metadata.mtime_nsec())
        }
        Err(Errno::XDEV) => {
            let kind = FileType::from_raw_mode(metadata.mode());
            let mode = Mode::from_raw_mode(metadata.mode());
            rustix::fs::mknodat(CWD, place, kind, mode, metadata.rdev())?;
            like(source, place)
        }
        done => Ok(done?),
    }
}

/// Gives a directory or a copy the owner, mode, attributes and time of another.
fn like(source: &Path, place: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(source)?;
    let current = fs::symlink_metadata(place)?;
    if (current.uid(), current.gid()) != (metadata.uid(), metadata.gid()) {
        lchown(place, Some(metadata.uid()), Some(metadata.gid()))?;
    }
    fs::set_permissions(place, fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
    copy_attributes(source, place)?;
    marks::set_modified(place, metadata.mtime(), metadata.mtime_nsec())
}

fn copy_attributes(source: &Path, place: &Path) -> io::Result<()> {
    let mut names = vec![0; ATTRIBUTES_BYTES];
    let length = match rustix::fs::llistxattr(source, &mut names) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let mut value = vec![0; ATTRIBUTES_BYTES];
    for name in names[..length].split_inclusive(|byte| *byte == 0) {
        let is_overlays = OVERLAY_ATTRIBUTES.iter().any(|own| name.starts_with(own));
        let Ok(name) = CStr::from_bytes_with_nul(name) else {
            continue;
        };
        if !is_overlays {
            let length = rustix::fs::lgetxattr(source, name, &mut value)?;
            rustix::fs::lsetxattr(place, name, &value[..length], XattrFlags::empty())?;
        }
    }
    Ok(())
}
