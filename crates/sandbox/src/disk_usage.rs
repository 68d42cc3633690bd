//! How much disk a sandbox's own files take: walks them by descriptors and never follows a link. Only looks.

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, ResolveFlags};
use rustix::io::Errno;
use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// What an entry takes at least, in bytes: inodes are finite too, and an empty file takes one.
pub(crate) const MIN_ENTRY_BYTES: u64 = 4096;

/// Length of a relative path, in bytes, beyond which a directory is opened to go on from there.
const MAX_PATH_BYTES: usize = 2048;

/// Directories that may wait to be looked at; a tree beyond it is not counted to its end.
const MAX_PENDING: usize = 1 << 20;

/// What a further name of a file takes at least, in bytes: its place in a directory, and the time to look at it.
const MIN_NAME_BYTES: u64 = 1024;

/// No filesystem's time goes in larger steps, in nanoseconds: a tick of the slowest kernels.
const TIME_STEP_NS: i64 = 10_000_000;

/// What was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Blocks that the files take; each file counts at least 4 KiB, each name at least 1.
    pub bytes: u64,
    /// Whether everything could be looked at. Programs that share the counter's uid can close a directory to it.
    pub is_whole: bool,
    /// Whether a directory that was listed was not there any more when it was looked for: removed, or renamed, and then its
    /// content may not be counted.
    pub has_moved: bool,
    /// Whether a directory changed while it was listed, or so shortly before that it cannot be told. What is renamed in it at
    /// such a moment may be missing in the list.
    pub has_changed: bool,
}

impl Tally {
    const NOTHING: Self = Self {
        bytes: 0,
        is_whole: true,
        has_moved: false,
        has_changed: false,
    };
}

/// The directories below a sandbox's own that hold what it wrote; not all of them exist.
pub fn places(directory: &Path) -> [PathBuf; 3] {
    ["upper", "work", "copy"].map(|name| directory.join(name))
}

/// Where a sandbox's root is if it is no overlay.
pub(crate) fn root_directory(directory: &Path) -> PathBuf {
    directory.join("copy")
}

/// Counts what lies in a sandbox's directory. A place that is not there counts nothing.
pub fn count(directory: &Path) -> Tally {
    let mut tally = Tally::NOTHING;
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
        let began = change(&*directory);
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
            tally.bytes += (taken.max(MIN_ENTRY_BYTES) / links).max(MIN_NAME_BYTES);
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
        tally.has_changed |= began.is_none() || began != change(&*directory);
    }
}

/// When a directory changed last; `None` if that is so short ago that another change would show the same time.
fn change(directory: impl rustix::fd::AsFd) -> Option<(i64, i64)> {
    let stat = rustix::fs::fstat(directory).ok()?;
    let changed = (stat.st_ctime, stat.st_ctime_nsec.try_into().ok()?);
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    let age_ns = (now.tv_sec - changed.0)
        .saturating_mul(1_000_000_000)
        .saturating_add(now.tv_nsec - changed.1);
    (age_ns > TIME_STEP_NS).then_some(changed)
}

fn open(at: impl rustix::fd::AsFd, path: &[u8], resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
    let path = CString::new(path).map_err(|_| Errno::INVAL)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // Nobody inside is to see when it was looked at. Only who owns a directory, or root, may ask for that.
    match rustix::fs::openat2(&at, &path, flags | OFlags::NOATIME, Mode::empty(), resolve) {
        Err(Errno::PERM) => rustix::fs::openat2(&at, &path, flags, Mode::empty(), resolve),
        opened => opened,
    }
}

/// A number of a `stat` structure, whose types differ between machines; 0 if it is negative.
pub(crate) fn natural(number: impl TryInto<u64>) -> u64 {
    number.try_into().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
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
        // The entry of the second name is in what the large file takes.
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
        assert_eq!(tally.bytes, levels * MIN_ENTRY_BYTES);
        assert!(tally.is_whole && !tally.has_moved, "{tally:?}");
    }

    #[test]
    fn nothing_there_counts_nothing() {
        assert_eq!(count(Path::new("/nonexistent/sandbox")), Tally::NOTHING);
    }

    #[test]
    fn directories_that_change_while_they_are_listed_are_known() {
        let temp = Temp::new("changing");
        assert!(count(&temp.0).has_changed, "it was made a moment ago");
        std::thread::sleep(std::time::Duration::from_nanos(TIME_STEP_NS as u64 * 2));
        assert!(!count(&temp.0).has_changed);
    }
}
