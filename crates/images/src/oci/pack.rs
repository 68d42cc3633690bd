//! Makes a tar archive of a layer's directory. The same layer always gives the same bytes, so a registry has it once.

use super::archive::{ATTRIBUTE, is_kept};
use super::unpack::{OPAQUE, WHITEOUT};
use crate::marks::{Marks, is_whiteout};
use crate::view::{Directory, Entry, View};
use std::collections::HashMap;
use std::ffi::{CStr, OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use tar::{EntryType, Header};

/// Longest list of a file's attributes and longest value, in bytes (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const ATTRIBUTES_BYTES: usize = 64 << 10;

/// Longest target of a link that fits into a header.
const SHORT_BYTES: usize = 100;

/// A layer on its way into an archive.
pub(super) struct Pack<'a, W: Write> {
    archive: tar::Builder<W>,
    marks: Marks,
    /// The layer and those below it.
    view: &'a View,
    layer: &'a Path,
    /// Files with several names, and the first of them in the archive.
    linked: HashMap<(u64, u64), PathBuf>,
}

impl<'a, W: Write> Pack<'a, W> {
    pub(super) fn new(to: W, layer: &'a Path, view: &'a View, marks: Marks) -> Self {
        Self {
            archive: tar::Builder::new(to),
            marks,
            view,
            layer,
            linked: HashMap::new(),
        }
    }

    pub(super) fn run(mut self) -> io::Result<W> {
        self.directory(Path::new(""))?;
        self.archive.into_inner()
    }

    /// What the layer has in one of its directories.
    fn directory(&mut self, below: &Path) -> io::Result<()> {
        let place = self.layer.join(below);
        let mut names: Vec<OsString> = fs::read_dir(&place)?
            .map(|entry| Ok(entry?.file_name()))
            .collect::<io::Result<_>>()?;
        names.sort();
        for name in names {
            let (path, below) = (place.join(&name), below.join(&name));
            let metadata = fs::symlink_metadata(&path)?;
            if is_whiteout(&metadata) {
                self.mark(&below, &[WHITEOUT, name.as_bytes()].concat())?;
            } else if !metadata.is_dir() {
                self.entry(&path, &below, &metadata)?;
            } else if self.marks.redirect_of(&path)?.is_some() {
                // A renamed directory, of which only overlays know. Here it is a new one with everything in it.
                self.entry(&path, &below, &metadata)?;
                self.mark(&below.join("_"), OPAQUE)?;
                if let Some(Entry::Directory(directory)) = self.view.find(&below)? {
                    self.merged(&directory, &below)?;
                }
            } else {
                self.entry(&path, &below, &metadata)?;
                if self.marks.is_opaque(&path)? {
                    self.mark(&below.join("_"), OPAQUE)?;
                }
                self.directory(&below)?;
            }
        }
        Ok(())
    }

    /// Everything in a directory, from whichever layer.
    fn merged(&mut self, directory: &Directory, below: &Path) -> io::Result<()> {
        for (name, entry) in self.view.list(directory)? {
            let below = below.join(name);
            match entry {
                None => {}
                Some(Entry::Other(path, metadata)) => self.entry(&path, &below, &metadata)?,
                Some(Entry::Directory(directory)) => {
                    let metadata = fs::symlink_metadata(directory.top())?;
                    self.entry(directory.top(), &below, &metadata)?;
                    self.merged(&directory, &below)?;
                }
            }
        }
        Ok(())
    }

    /// An empty file beside `path` that says something about the layers below.
    fn mark(&mut self, path: &Path, name: &[u8]) -> io::Result<()> {
        let mut header = header(EntryType::Regular, 0, 0, 0);
        let path = path.with_file_name(OsStr::from_bytes(name));
        self.archive.append_data(&mut header, path, io::empty())
    }

    fn entry(&mut self, path: &Path, below: &Path, metadata: &Metadata) -> io::Result<()> {
        let name = below.file_name().unwrap_or_default().as_bytes();
        if name.starts_with(WHITEOUT) {
            let message = format!(
                "{} is named as what archives of layers mean something else by",
                below.display()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let kind = metadata.file_type();
        let entry_type = match () {
            () if kind.is_dir() => EntryType::Directory,
            () if kind.is_symlink() => EntryType::Symlink,
            () if kind.is_fifo() => EntryType::Fifo,
            () if kind.is_file() => EntryType::Regular,
            // Sockets mean nothing without the program that listens.
            () => return Ok(()),
        };
        let size = match kind.is_file() {
            true => metadata.len(),
            false => 0,
        };
        let mut header = header(entry_type, metadata.mode() & 0o1777, size, metadata.mtime());
        if kind.is_file() && metadata.nlink() > 1 {
            if let Some(first) = self.linked.get(&(metadata.dev(), metadata.ino())) {
                header.set_entry_type(EntryType::Link);
                header.set_size(0);
                return self.archive.append_link(&mut header, below, first);
            }
            self.linked
                .insert((metadata.dev(), metadata.ino()), below.to_owned());
        }
        let mut more = attributes(path)?;
        if entry_type == EntryType::Symlink {
            let target = fs::read_link(path)?;
            let target = target.as_os_str().as_bytes();
            // As it is: the library would make it another path.
            match target.len() <= SHORT_BYTES {
                true => header.set_link_name_literal(target)?,
                false => more.push((b"linkpath".to_vec(), target.to_vec())),
            }
        }
        // All in one: other readers believe the last only.
        if !more.is_empty() {
            self.extension(&more)?;
        }
        match entry_type {
            EntryType::Regular => {
                // Exactly as long as the header says, whatever becomes of the file meanwhile.
                let content = File::open(path)?.chain(io::repeat(0)).take(size);
                self.archive.append_data(&mut header, below, content)
            }
            _ => self.archive.append_data(&mut header, below, io::empty()),
        }
    }

    /// Says more of the entry that follows.
    fn extension(&mut self, records: &[(Vec<u8>, Vec<u8>)]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for (key, value) in records {
            // Its own length is part of it.
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            bytes.extend_from_slice(length.to_string().as_bytes());
            bytes.push(b' ');
            bytes.extend_from_slice(key);
            bytes.push(b'=');
            bytes.extend_from_slice(value);
            bytes.push(b'\n');
        }
        let mut header = header(EntryType::XHeader, 0o644, bytes.len() as u64, 0);
        self.archive
            .append_data(&mut header, "PaxHeaders/entry", bytes.as_slice())
    }
}

/// What programs noted on a file, as records of an extension.
fn attributes(path: &Path) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut names = vec![0; ATTRIBUTES_BYTES];
    let length = match rustix::fs::llistxattr(path, &mut names) {
        Ok(length) => length,
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    for name in names[..length].split_inclusive(|byte| *byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else {
            continue;
        };
        if name.to_str().is_ok_and(is_kept) {
            let mut value = vec![0; ATTRIBUTES_BYTES];
            let length = rustix::fs::lgetxattr(path, name, &mut value)?;
            value.truncate(length);
            found.push(([ATTRIBUTE.as_bytes(), name.to_bytes()].concat(), value));
        }
    }
    found.sort();
    Ok(found)
}

/// Everything is root's: here it has one owner, whose number means nothing elsewhere.
fn header(kind: EntryType, mode: u32, size: u64, modified: i64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(u64::try_from(modified).unwrap_or(0));
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    header
}
