//! How much disk a sandbox's own files take: walks them by descriptors and never follows a link. Only looks.

use crate::processes;
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, ResolveFlags};
use rustix::io::Errno;
use std::collections::HashSet;
use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// What an entry takes at least, in bytes: inodes are finite too, and an empty file takes one.
pub(crate) const MIN_ENTRY_BYTES: u64 = 4096;

/// Length of a relative path, in bytes, beyond which a directory is opened to go on from there.
const MAX_PATH_BYTES: usize = 2048;

/// Directories that may wait to be looked at; a tree beyond it is not counted to its end.
const MAX_PENDING: usize = 1 << 20;

/// Open files that are looked at in one go.
const MAX_OPEN_FILES: usize = 100_000;

/// `OVERLAYFS_SUPER_MAGIC` of linux/magic.h.
const OVERLAY_MAGIC: u64 = 0x794c_7630;

/// What was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Blocks that the files take; each entry counts at least 4 KiB.
    pub bytes: u64,
    /// Whether everything could be looked at. Programs that share the counter's uid can close a directory to it.
    pub is_whole: bool,
    /// Whether a directory that was listed was not there any more when it was looked for: removed, or renamed, and then its
    /// content may not be counted.
    pub has_moved: bool,
}

/// The directories below a sandbox's own that hold what it wrote; not all of them exist.
pub fn places(directory: &Path) -> [PathBuf; 3] {
    ["upper", "work", "copy"].map(|name| directory.join(name))
}

/// Counts what lies in a sandbox's directory. A place that is not there counts nothing.
pub fn count(directory: &Path) -> Tally {
    let mut tally = Tally {
        bytes: 0,
        is_whole: true,
        has_moved: false,
    };
    for place in places(directory) {
        match open(CWD, place.as_os_str().as_bytes(), ResolveFlags::empty()) {
            Ok(root) => count_tree(root, &mut tally),
            Err(Errno::NOENT) => {}
            Err(_) => tally.is_whole = false,
        }
    }
    tally
}

/// A directory to look at, by its way from an open one.
struct Pending {
    from: Rc<OwnedFd>,
    path: Vec<u8>,
}

fn count_tree(root: OwnedFd, tally: &mut Tally) {
    let mut buffer = vec![MaybeUninit::uninit(); 32 << 10];
    let mut pending = vec![Pending {
        from: Rc::new(root),
        path: Vec::new(),
    }];
    while let Some(next) = pending.pop() {
        let path: &[u8] = match next.path.as_slice() {
            [] => b".",
            path => path,
        };
        // What is renamed meanwhile may count twice or not at all.
        let directory = match open(
            &next.from,
            path,
            ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH,
        ) {
            Ok(directory) => Rc::new(directory),
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => {
                tally.has_moved = true;
                continue;
            }
            Err(_) => {
                tally.is_whole = false;
                continue;
            }
        };
        let mut entries = RawDir::new(&*directory, &mut buffer);
        while let Some(entry) = entries.next() {
            let Ok(entry) = entry else {
                tally.is_whole = false;
                break;
            };
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let Ok(stat) = rustix::fs::statat(&*directory, name, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            // Links to one file share it; all of them are in this tree.
            let links = if is_directory {
                1
            } else {
                natural(stat.st_nlink).max(1)
            };
            let taken = natural(stat.st_blocks) * 512;
            tally.bytes += taken.max(MIN_ENTRY_BYTES) / links;
            if !is_directory {
                continue;
            }
            if pending.len() >= MAX_PENDING {
                tally.is_whole = false;
                return;
            }
            let is_near = next.path.len() + name.count_bytes() < MAX_PATH_BYTES;
            pending.push(match is_near {
                true if next.path.is_empty() => Pending {
                    from: Rc::clone(&next.from),
                    path: name.to_bytes().to_vec(),
                },
                true => Pending {
                    from: Rc::clone(&next.from),
                    path: [&next.path, b"/".as_slice(), name.to_bytes()].concat(),
                },
                false => Pending {
                    from: Rc::clone(&directory),
                    path: name.to_bytes().to_vec(),
                },
            });
        }
    }
}

fn open(at: impl rustix::fd::AsFd, path: &[u8], resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
    let path = CString::new(path).map_err(|_| Errno::INVAL)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat2(at, &path, flags, Mode::empty(), resolve)
}

/// A number of a `stat` structure, whose types differ between machines; 0 if it is negative.
pub(crate) fn natural(number: impl TryInto<u64>) -> u64 {
    number.try_into().unwrap_or(0)
}

/// What files take that have no name any more and are kept by the descriptors of `first` and all below it. Files that are
/// only mapped are not seen.
pub fn count_unnamed(first: i32, directory: &Path) -> u64 {
    let devices: HashSet<u64> = places(directory)
        .iter()
        .filter_map(|place| std::fs::symlink_metadata(place).ok())
        .map(|metadata| metadata.dev())
        .collect();
    let mut seen = HashSet::new();
    let mut looked_at = 0;
    let mut bytes = 0;
    for pid in processes::tree(first) {
        for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten()
            .flatten()
        {
            looked_at += 1;
            if looked_at > MAX_OPEN_FILES {
                return bytes;
            }
            // Looks through the link at what is open, without opening it.
            let Ok(metadata) = std::fs::metadata(entry.path()) else {
                continue;
            };
            if !metadata.is_file() || metadata.nlink() > 0 || !seen.insert((metadata.dev(), metadata.ino())) {
                continue;
            }
            // Not what lies in memory: it counts there.
            let is_on_disk = devices.contains(&metadata.dev())
                || rustix::fs::statfs(entry.path()).is_ok_and(|fs| natural(fs.f_type) == OVERLAY_MAGIC);
            if is_on_disk {
                bytes += metadata.blocks() * 512;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write as _;
    use std::os::unix::fs::symlink;

    struct Temp(PathBuf);

    impl Temp {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("gr-disk-{name}-{}", std::process::id()));
            fs::create_dir_all(path.join("upper")).unwrap();
            Self(path)
        }
    }

    impl Drop for Temp {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn files_count_by_their_blocks_and_links_once() {
        let temp = Temp::new("files");
        let upper = temp.0.join("upper");
        fs::write(upper.join("large"), vec![1; 1 << 20]).unwrap();
        fs::hard_link(upper.join("large"), upper.join("again")).unwrap();
        fs::write(upper.join("empty"), "").unwrap();
        let hole = fs::File::create(upper.join("hole")).unwrap();
        hole.set_len(1 << 40).unwrap();
        // Neither followed nor counted where they lead.
        symlink("/usr", upper.join("link")).unwrap();
        let tally = count(&temp.0);
        let expected = (1 << 20) + 3 * MIN_ENTRY_BYTES;
        assert!(tally.is_whole);
        assert!(tally.bytes.abs_diff(expected) <= 16 << 10, "{tally:?} {expected}");
    }

    #[test]
    fn deep_trees_are_counted_to_their_end() {
        let temp = Temp::new("deep");
        let mut at = rustix::fs::open(temp.0.join("upper"), OFlags::PATH, Mode::empty()).unwrap();
        let name = "d".repeat(200);
        let levels = 100;
        for _ in 0..levels {
            rustix::fs::mkdirat(&at, &name, Mode::RWXU).unwrap();
            at = rustix::fs::openat(&at, &name, OFlags::PATH, Mode::empty()).unwrap();
        }
        let tally = count(&temp.0);
        assert_eq!(
            tally,
            Tally {
                bytes: levels * MIN_ENTRY_BYTES,
                is_whole: true,
                has_moved: false
            }
        );
    }

    #[test]
    fn nothing_there_counts_nothing() {
        let tally = count(Path::new("/nonexistent/sandbox"));
        assert_eq!(
            tally,
            Tally {
                bytes: 0,
                is_whole: true,
                has_moved: false
            }
        );
    }

    #[test]
    fn files_without_a_name_are_found_by_who_has_them_open() {
        let temp = Temp::new("unnamed");
        let path = temp.0.join("upper/gone");
        let mut file = fs::File::create(&path).unwrap();
        file.write_all(&vec![1; 1 << 20]).unwrap();
        file.sync_all().unwrap();
        fs::remove_file(&path).unwrap();
        let own = std::process::id() as i32;
        let before = count_unnamed(own, &temp.0);
        assert!(before >= 1 << 20, "{before}");
        drop(file);
        assert!(count_unnamed(own, &temp.0) < before);
    }
}
