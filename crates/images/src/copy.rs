//! Copies what a sandbox wrote while it may still write: walks by descriptors and never follows a link. A second pass over the
//! same target mends what changed during the first one.

use crate::manifest::{Manifest, Mark, nanoseconds};
use crate::tree;
use rustix::fd::{AsFd, AsRawFd as _, OwnedFd};
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, RawMode, ResolveFlags, SeekFrom, Stat, Timespec,
    Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;
use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString, OsString};
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Attributes that an overlay keeps about the copying up of a file; they mean nothing in another layer.
const LOCAL_ATTRIBUTES: &[&str] = &[
    "overlay.origin",
    "overlay.impure",
    "overlay.nlink",
    "overlay.upper",
];

/// Ends the name of the attribute of files that an overlay copied up.
const ORIGIN_ATTRIBUTE: &[u8] = b"overlay.origin";

/// Longest list of a file's attributes, in bytes (`XATTR_LIST_MAX`), and the longest value.
const ATTRIBUTES_BYTES: usize = 64 << 10;

/// Rights that a copier who is not root needs on files, directories of the source, and those of the target.
const OWNER_READS: RawMode = 0o400;
const OWNER_LISTS: RawMode = 0o500;
const OWNER_ENTERS: RawMode = 0o700;

/// A copy in the making.
pub(crate) struct Copy<'a> {
    source: &'a Path,
    target: &'a Path,
    /// A finished copy whose files may be shared, and from what it was made.
    before: Option<(&'a Path, &'a Manifest)>,
    /// What is in the target as it was.
    done: Manifest,
    /// Files that a program may change without the kernel noting the time: mapped shared and writable.
    unsteady: HashSet<u64>,
    /// Files with more than one name, by inode, and the first name in the target.
    linked: HashMap<u64, PathBuf>,
    /// Whether the filesystem can share the content of two files.
    can_share: bool,
    /// Directories of the source that nobody may list, opened for the pass: how they were, and how they are now.
    opened: Vec<(OwnedFd, RawMode, RawMode)>,
    /// Directories of the target that their owner may not enter or change, and their modes; opened until the end.
    closed: Vec<(PathBuf, RawMode)>,
}

impl<'a> Copy<'a> {
    /// `target` is an empty directory that nobody else knows, on the same filesystem as `before`.
    pub(crate) fn new(source: &'a Path, target: &'a Path, before: Option<(&'a Path, &'a Manifest)>) -> Self {
        Self {
            source,
            target,
            before,
            done: Manifest::default(),
            unsteady: HashSet::new(),
            linked: HashMap::new(),
            can_share: true,
            opened: Vec::new(),
            closed: Vec::new(),
        }
    }

    /// From now on files with these inodes are copied in every pass, and by later copies too.
    pub(crate) fn distrust(&mut self, inodes: HashSet<u64>) {
        self.unsteady.extend(inodes);
    }

    /// Gives the target its last touch, and says what it was made from.
    pub(crate) fn finish(self) -> io::Result<Manifest> {
        // Those inside first.
        for (path, mode) in self.closed.iter().rev() {
            fs::set_permissions(path, fs::Permissions::from_mode(*mode))?;
        }
        Ok(self.done)
    }

    /// Makes the target like the source. What is renamed meanwhile may be missing or twice, until a pass in which nobody writes.
    pub(crate) fn pass(&mut self) -> io::Result<()> {
        let passed = self.walk();
        // Those inside first, while they can be reached. Not those that a program changed meanwhile.
        for (directory, before, now) in self.opened.drain(..).rev() {
            if rustix::fs::fstat(&directory)?.st_mode & 0o7777 == now {
                rustix::fs::chmod(by_descriptor(&directory), Mode::from_raw_mode(before))?;
            }
        }
        passed
    }

    fn walk(&mut self) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let root = rustix::fs::open(self.source, flags, Mode::empty())?;
        self.linked.clear();
        self.closed.clear();
        let mut done = Manifest::default();
        let mut pending = vec![PathBuf::new()];
        while let Some(path) = pending.pop() {
            let Some(directory) = self.open_directory(&root, &path)? else {
                continue;
            };
            let names = list(&directory)?;
            let target = self.target.join(&path);
            remove_others(&target, &names)?;
            for name in &names {
                let below = path.join(std::ffi::OsStr::from_bytes(name.to_bytes()));
                let stat = match rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => stat,
                    Err(Errno::NOENT) => continue,
                    Err(error) => return Err(error.into()),
                };
                match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Directory => {
                        make_directory(&self.target.join(&below))?;
                        pending.push(below);
                    }
                    FileType::Socket => {}
                    _ => self.entry(&directory, name, &below, &stat, &mut done)?,
                }
            }
            self.finish_directory(&directory, target)?;
        }
        self.done = done;
        Ok(())
    }

    /// `None` if it is no directory any more.
    fn open_directory(&mut self, root: &OwnedFd, path: &Path) -> io::Result<Option<OwnedFd>> {
        let path = match path.as_os_str().is_empty() {
            true => Path::new("."),
            false => path,
        };
        let open = |kind| {
            let flags = kind | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            rustix::fs::openat2(root, path, flags, Mode::empty(), within)
        };
        let opened = match open(OFlags::PATH) {
            Ok(opened) => opened,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mode = rustix::fs::fstat(&opened)?.st_mode & 0o7777;
        if !rustix::process::geteuid().is_root() && mode & OWNER_LISTS != OWNER_LISTS {
            // An ordinary user's own, closed by a program.
            let now = mode | OWNER_LISTS;
            rustix::fs::chmod(by_descriptor(&opened), Mode::from_raw_mode(now))?;
            self.opened.push((opened, mode, now));
        }
        match open(OFlags::RDONLY) {
            Ok(directory) => Ok(Some(directory)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives a directory the owner, mode, attributes and times of its source; after its entries, which change the times.
    fn finish_directory(&mut self, source: &OwnedFd, target: PathBuf) -> io::Result<()> {
        let stat = rustix::fs::fstat(source)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::open(&target, flags, Mode::empty())?;
        copy_attributes(source, &opened)?;
        copy_owner(&opened, &stat)?;
        let opened_for_now = self
            .opened
            .iter()
            .rev()
            .find(|(directory, ..)| is_same(directory, &stat));
        let mode = opened_for_now.map_or(stat.st_mode & 0o7777, |(_, before, _)| *before);
        let is_open = rustix::process::geteuid().is_root() || mode & OWNER_ENTERS == OWNER_ENTERS;
        let for_now = if is_open { mode } else { mode | OWNER_ENTERS };
        rustix::fs::fchmod(&opened, Mode::from_raw_mode(for_now))?;
        rustix::fs::futimens(&opened, &times(&stat))?;
        if !is_open {
            self.closed.push((target, mode));
        }
        Ok(())
    }

    /// Everything but a directory.
    fn entry(
        &mut self,
        directory: &OwnedFd,
        name: &CStr,
        path: &Path,
        stat: &Stat,
        done: &mut Manifest,
    ) -> io::Result<()> {
        let target = self.target.join(path);
        let is_linked = stat.st_nlink > 1;
        if is_linked && let Some(first) = self.linked.get(&stat.st_ino) {
            remove_any(&target)?;
            return fs::hard_link(first, &target);
        }
        let now_ns = now_ns();
        let is_steady = !self.may_be_mapped(directory, name, stat);
        let mark = if self.done.has(path, stat) && is_steady && target.symlink_metadata().is_ok() {
            self.done.mark(path)
        } else if is_steady && self.share_before(path, stat, &target)? {
            Mark::of(stat, now_ns)
        } else {
            remove_any(&target)?;
            let copied = match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => self.copy_file(directory, name, &target)?,
                FileType::Symlink => copy_link(directory, name, &target)?,
                kind => make_node(kind, stat, &target)?,
            };
            let Some(copied) = copied else { return Ok(()) };
            // Of the moment before its content was read.
            Mark::of(&copied, now_ns)
        };
        if let Some(mark) = mark.filter(|_| is_steady) {
            done.insert(path.to_owned(), mark);
        }
        if is_linked {
            self.linked.insert(stat.st_ino, target);
        }
        Ok(())
    }

    /// Whether a program may change the file without the kernel noting the time. Programs see a file that was copied up from a lower
    /// layer by another inode than it has in the upper one, so any such may be what is mapped.
    fn may_be_mapped(&self, directory: &OwnedFd, name: &CStr, stat: &Stat) -> bool {
        let is_copied_up = || {
            let name = std::ffi::OsStr::from_bytes(name.to_bytes());
            let path = Path::new(&by_descriptor(directory)).join(name);
            let mut names = vec![0_u8; ATTRIBUTES_BYTES];
            let listed = rustix::fs::llistxattr(&path, names.as_mut_slice()).unwrap_or(0);
            let mut listed = names[..listed].split(|byte| *byte == 0);
            listed.any(|name| name.ends_with(ORIGIN_ATTRIBUTE))
        };
        !self.unsteady.is_empty() && (self.unsteady.contains(&stat.st_ino) || is_copied_up())
    }

    /// Takes the file from the copy before, if it is the same.
    fn share_before(&self, path: &Path, stat: &Stat, target: &Path) -> io::Result<bool> {
        let Some((tree, manifest)) = self.before else {
            return Ok(false);
        };
        // Names of one file are not shared with a copy in which they may be several.
        if stat.st_nlink > 1 || !manifest.has(path, stat) {
            return Ok(false);
        }
        remove_any(target)?;
        // Such as too many names for one file.
        Ok(fs::hard_link(tree.join(path), target).is_ok())
    }

    /// Returns the file as it was before it was read; `None` if it is gone, or no file any more.
    fn copy_file(&mut self, directory: &OwnedFd, name: &CStr, target: &Path) -> io::Result<Option<Stat>> {
        // A pipe that took its place must not make anybody wait.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOATIME | OFlags::CLOEXEC;
        let Some(source) = open_file(directory, name, flags)? else {
            return Ok(None);
        };
        let stat = rustix::fs::fstat(&source)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(None);
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let written = rustix::fs::open(target, flags, Mode::RUSR | Mode::WUSR)?;
        self.copy_content(&source, &written, &stat)?;
        copy_attributes(&source, &written)?;
        copy_owner(&written, &stat)?;
        rustix::fs::fchmod(&written, Mode::from_raw_mode(stat.st_mode))?;
        rustix::fs::futimens(&written, &times(&stat))?;
        Ok(Some(stat))
    }

    fn copy_content(&mut self, source: &OwnedFd, target: &OwnedFd, stat: &Stat) -> io::Result<()> {
        if self.can_share {
            match rustix::fs::ioctl_ficlone(target, source) {
                Ok(()) => return Ok(()),
                Err(_) => self.can_share = false,
            }
        }
        let (mut source, mut target) = (
            fs::File::from(source.try_clone()?),
            fs::File::from(target.try_clone()?),
        );
        let is_sparse = stat.st_blocks.saturating_mul(512) < stat.st_size;
        if !is_sparse {
            return io::copy(&mut source, &mut target).map(|_| ());
        }
        let mut at = 0;
        loop {
            let data = match rustix::fs::seek(&source, SeekFrom::Data(at)) {
                Ok(data) => data,
                // Only a hole is left.
                Err(Errno::NXIO) => break,
                Err(error) => return Err(error.into()),
            };
            let end = rustix::fs::seek(&source, SeekFrom::Hole(data))?;
            rustix::fs::seek(&source, SeekFrom::Start(data))?;
            rustix::fs::seek(&target, SeekFrom::Start(data))?;
            io::copy(&mut (&mut source).take(end - data), &mut target)?;
            at = end;
        }
        let size = rustix::fs::fstat(&source)?.st_size;
        target.set_len(u64::try_from(size).unwrap_or(0))
    }
}

fn open_file(directory: &OwnedFd, name: &CStr, flags: OFlags) -> io::Result<Option<OwnedFd>> {
    let open = |flags| rustix::fs::openat(directory, name, flags, Mode::empty());
    match open(flags) {
        Ok(file) => Ok(Some(file)),
        Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => Ok(None),
        // Of another owner: an id that only some runtimes use.
        Err(Errno::PERM) => Ok(Some(open(flags - OFlags::NOATIME)?)),
        Err(Errno::ACCESS) => {
            let closed = open(OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC)?;
            let opened = readable(&closed, || open(flags));
            Ok(Some(opened?))
        }
        Err(error) => Err(error.into()),
    }
}

/// Does something while the owner may read a file from which a program took the right.
fn readable<T>(closed: &OwnedFd, work: impl FnOnce() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    let (path, mode) = (by_descriptor(closed), rustix::fs::fstat(closed)?.st_mode & 0o7777);
    rustix::fs::chmod(&path, Mode::from_raw_mode(mode | OWNER_READS))?;
    let worked = work();
    rustix::fs::chmod(&path, Mode::from_raw_mode(mode))?;
    worked
}

fn is_same(opened: &OwnedFd, stat: &Stat) -> bool {
    rustix::fs::fstat(opened).is_ok_and(|other| (other.st_dev, other.st_ino) == (stat.st_dev, stat.st_ino))
}

/// The name by which something that was opened only to be named can be changed.
fn by_descriptor(opened: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", opened.as_raw_fd())
}

fn list(directory: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

/// Removes what is in the target and not in the list.
fn remove_others(target: &Path, names: &[CString]) -> io::Result<()> {
    let mut there = Vec::new();
    for entry in fs::read_dir(target)? {
        there.push(entry?.file_name());
    }
    if there.is_empty() {
        return Ok(());
    }
    let wanted: HashSet<&[u8]> = names.iter().map(|name| name.to_bytes()).collect();
    for name in there {
        if !wanted.contains(name.as_bytes()) {
            remove_any(&target.join(name))?;
        }
    }
    Ok(())
}

/// Removes whatever is there, if anything.
fn remove_any(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(_) => tree::remove(path),
    }
}

fn make_directory(target: &Path) -> io::Result<()> {
    match fs::create_dir(target) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if !target.symlink_metadata()?.is_dir() {
                remove_any(target)?;
                fs::create_dir(target)?;
            }
            Ok(())
        }
        done => done,
    }
}

fn copy_link(directory: &OwnedFd, name: &CStr, target: &Path) -> io::Result<Option<Stat>> {
    let (stat, leads_to) = match (
        rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW),
        rustix::fs::readlinkat(directory, name, Vec::new()),
    ) {
        (Ok(stat), Ok(leads_to)) => (stat, leads_to),
        // Replaced meanwhile.
        (Err(Errno::NOENT | Errno::INVAL), _) | (_, Err(Errno::NOENT | Errno::INVAL)) => return Ok(None),
        (Err(error), _) | (_, Err(error)) => return Err(error.into()),
    };
    let leads_to = OsString::from_vec(leads_to.into_bytes());
    std::os::unix::fs::symlink(leads_to, target)?;
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::lchown(target, Some(stat.st_uid), Some(stat.st_gid))?;
    }
    rustix::fs::utimensat(CWD, target, &times(&stat), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(Some(stat))
}

/// Pipes, and the devices by which an overlay hides what is below. There can be no others.
fn make_node(kind: FileType, stat: &Stat, target: &Path) -> io::Result<Option<Stat>> {
    if kind == FileType::CharacterDevice && stat.st_rdev != 0 || kind == FileType::BlockDevice {
        return Ok(None);
    }
    let mode = Mode::from_raw_mode(stat.st_mode);
    rustix::fs::mknodat(CWD, target, kind, mode, 0)?;
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::lchown(target, Some(stat.st_uid), Some(stat.st_gid))?;
    }
    if kind == FileType::Fifo {
        rustix::fs::chmod(target, mode)?;
    }
    Ok(Some(*stat))
}

fn copy_attributes(source: &OwnedFd, target: &OwnedFd) -> io::Result<()> {
    // Nearly always there is none.
    let mut names = vec![0_u8; 256];
    let listed = loop {
        match rustix::fs::flistxattr(source, names.as_mut_slice()) {
            Ok(length) => break length,
            Err(Errno::RANGE) if names.len() < ATTRIBUTES_BYTES => names.resize(ATTRIBUTES_BYTES, 0),
            Err(Errno::OPNOTSUPP) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    };
    for name in names[..listed].split_inclusive(|byte| *byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else {
            continue;
        };
        let text = name.to_string_lossy();
        if LOCAL_ATTRIBUTES.iter().any(|local| text.ends_with(local)) || text.starts_with("security.") {
            continue;
        }
        let mut value = vec![0; ATTRIBUTES_BYTES];
        let length = match rustix::fs::fgetxattr(source, name, value.as_mut_slice()) {
            Ok(length) => length,
            Err(Errno::NODATA) => continue,
            Err(error) => return Err(error.into()),
        };
        rustix::fs::fsetxattr(target, name, &value[..length], XattrFlags::empty())?;
    }
    Ok(())
}

fn copy_owner(target: impl AsFd, stat: &Stat) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        rustix::fs::fchown(target, Some(uid), Some(gid))?;
    }
    Ok(())
}

fn times(stat: &Stat) -> Timestamps {
    let time = |tv_sec, nanoseconds| Timespec {
        tv_sec,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or(0),
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    nanoseconds(
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        u64::from(since.subsec_nanos()),
    )
}
