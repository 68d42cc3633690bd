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

/// No filesystem's time goes in larger steps, in nanoseconds: a tick of the slowest kernels.
const TIME_STEP_NS: i64 = 10_000_000;

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
    rustix::fs::openat2(at, &path, flags, Mode::empty(), resolve)
}

/// A number of a `stat` structure, whose types differ between machines; 0 if it is negative.
pub(crate) fn natural(number: impl TryInto<u64>) -> u64 {
    number.try_into().unwrap_or(0)
}

/// Files without a name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unnamed {
    /// Blocks that they take.
    pub bytes: u64,
    /// Descriptors on their way through sockets. What they lead to cannot be seen.
    pub in_flight: u64,
}

/// What files take that have no name any more and are kept by `first` and all below it: by their descriptors, and by their
/// mappings where this process may see these (as root of the machine).
pub fn count_unnamed(first: i32, directory: &Path) -> Unnamed {
    let mut search = Search {
        devices: places(directory)
            .iter()
            .filter_map(|place| std::fs::symlink_metadata(place).ok())
            .map(|metadata| metadata.dev())
            .collect(),
        seen: HashSet::new(),
        unnamed: Unnamed::default(),
    };
    let mut looked_at = 0;
    for pid in processes::tree(first) {
        for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten()
            .flatten()
        {
            looked_at += 1;
            if looked_at > MAX_OPEN_FILES {
                return search.unnamed;
            }
            search.look_at(&entry.path());
            search.unnamed.in_flight += in_flight(pid, &entry);
        }
        for range in removed_mappings(pid) {
            search.look_at(Path::new(&format!("/proc/{pid}/map_files/{range}")));
        }
    }
    search.unnamed
}

struct Search {
    devices: HashSet<u64>,
    /// By device and inode.
    seen: HashSet<(u64, u64)>,
    unnamed: Unnamed,
}

impl Search {
    /// Looks through a link of /proc at what is open, without opening it.
    fn look_at(&mut self, link: &Path) {
        let Ok(metadata) = std::fs::metadata(link) else {
            return;
        };
        if !metadata.is_file() || metadata.nlink() > 0 || !self.seen.insert((metadata.dev(), metadata.ino()))
        {
            return;
        }
        // Not what lies in memory: it counts there.
        let is_on_disk = self.devices.contains(&metadata.dev())
            || rustix::fs::statfs(link).is_ok_and(|fs| natural(fs.f_type) == OVERLAY_MAGIC);
        if is_on_disk {
            self.unnamed.bytes += metadata.blocks() * 512;
        }
    }
}

/// How many descriptors wait in a socket to be received (`scm_fds` of its entry in `/proc/pid/fdinfo`).
fn in_flight(pid: i32, descriptor: &std::fs::DirEntry) -> u64 {
    let is_socket = std::fs::read_link(descriptor.path())
        .is_ok_and(|target| target.as_os_str().as_bytes().starts_with(b"socket:"));
    if !is_socket {
        return 0;
    }
    let name = descriptor.file_name();
    let info = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", name.display())).unwrap_or_default();
    info.lines()
        .find_map(|line| line.strip_prefix("scm_fds:")?.trim().parse().ok())
        .unwrap_or(0)
}

/// The address ranges at which a process mapped files that are gone, as `/proc/pid/map_files` names them.
fn removed_mappings(pid: i32) -> Vec<String> {
    let maps = std::fs::read(format!("/proc/{pid}/maps")).unwrap_or_default();
    maps.split(|byte| *byte == b'\n')
        .filter(|line| line.ends_with(b" (deleted)"))
        .filter_map(|line| {
            let range = line.split(|byte| *byte == b' ').next()?;
            let (from, to) = std::str::from_utf8(range).ok()?.split_once('-')?;
            // Without the zeros that fill it up there.
            let [from, to] = [from, to].map(|at| u64::from_str_radix(at, 16));
            Some(format!("{:x}-{:x}", from.ok()?, to.ok()?))
        })
        .collect()
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
        assert_eq!(tally.bytes, levels * MIN_ENTRY_BYTES);
        assert!(tally.is_whole && !tally.has_moved, "{tally:?}");
    }

    #[test]
    fn nothing_there_counts_nothing() {
        assert_eq!(count(Path::new("/nonexistent/sandbox")), Tally::NOTHING);
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
        let before = count_unnamed(own, &temp.0).bytes;
        assert!(before >= 1 << 20, "{before}");
        drop(file);
        assert!(count_unnamed(own, &temp.0).bytes < before);
    }

    #[test]
    fn descriptors_in_sockets_are_seen() {
        let temp = Temp::new("in-flight");
        let path = temp.0.join("upper/gone");
        let file = fs::File::create(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let (from, to) = std::os::unix::net::UnixStream::pair().unwrap();
        let own = std::process::id() as i32;
        let before = count_unnamed(own, &temp.0).in_flight;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = rustix::net::SendAncillaryBuffer::new(&mut space);
        let descriptors = [rustix::fd::AsFd::as_fd(&file)];
        assert!(control.push(rustix::net::SendAncillaryMessage::ScmRights(&descriptors)));
        rustix::net::sendmsg(
            &from,
            &[std::io::IoSlice::new(b"x")],
            &mut control,
            rustix::net::SendFlags::empty(),
        )
        .unwrap();
        assert_eq!(count_unnamed(own, &temp.0).in_flight, before + 1);
        drop(to);
        assert_eq!(count_unnamed(own, &temp.0).in_flight, before);
    }

    #[test]
    fn directories_that_change_while_they_are_listed_are_known() {
        let temp = Temp::new("changing");
        assert!(count(&temp.0).has_changed, "it was made a moment ago");
        std::thread::sleep(std::time::Duration::from_nanos(TIME_STEP_NS as u64 * 2));
        assert!(!count(&temp.0).has_changed);
    }
}
