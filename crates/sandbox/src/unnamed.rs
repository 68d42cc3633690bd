//! What a sandbox takes on disk by files that have no name any more, found by what its processes have open. Only looks.

use crate::disk_usage::{natural, root_directory};
use crate::processes;
use rustix::fd::AsRawFd as _;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use std::collections::HashSet;
use std::io::{BufRead as _, BufReader};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// `OVERLAYFS_SUPER_MAGIC` of linux/magic.h.
const OVERLAY_MAGIC: u64 = 0x794c_7630;

/// Files without a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unnamed {
    /// Blocks that they take.
    pub bytes: u64,
    /// Descriptors on their way through sockets. What they lead to cannot be seen.
    pub in_flight: u64,
    /// Whether everything could be looked at, and in time.
    pub is_whole: bool,
}

/// What files take that have no name any more and are kept by `first` and all below it, by their descriptors and mappings. The
/// size of a file that is only mapped is told to root of the machine alone. Only a process that ends soon after it
/// `may_borrow` descriptors of programs that close themselves to others.
pub(crate) fn count(first: i32, directory: &Path, patience: Duration, may_borrow: bool) -> Unnamed {
    let mut search = Search {
        root_device: std::fs::symlink_metadata(root_directory(directory))
            .ok()
            .map(|metadata| metadata.dev()),
        seen: HashSet::new(),
        sockets: HashSet::new(),
        unnamed: Unnamed {
            bytes: 0,
            in_flight: 0,
            is_whole: true,
        },
        deadline: Instant::now() + patience,
        may_borrow,
    };
    for pid in processes::tree(first) {
        search.look_at_process(pid);
    }
    search.unnamed
}

struct Search {
    /// Of a root that is no overlay.
    root_device: Option<u64>,
    /// By device and inode.
    seen: HashSet<(u64, u64)>,
    /// By what the link to them says.
    sockets: HashSet<PathBuf>,
    unnamed: Unnamed,
    deadline: Instant,
    may_borrow: bool,
}

impl Search {
    fn is_late(&mut self) -> bool {
        let is_late = Instant::now() >= self.deadline;
        self.unnamed.is_whole &= !is_late;
        is_late
    }

    /// Of every thread: each may have descriptors of its own, and the first may have ended before the others.
    fn look_at_process(&mut self, pid: i32) {
        let mut has_maps = false;
        for task in std::fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten()
            .flatten()
        {
            if self.is_late() {
                return;
            }
            let task = task.path();
            match std::fs::read_dir(task.join("fd")) {
                Ok(entries) => self.look_at_descriptors(&task, entries),
                Err(error) if is_gone(&error) => {}
                Err(_) if self.may_borrow => self.look_through_pidfd(pid),
                Err(_) => self.unnamed.is_whole = false,
            }
            if !has_maps {
                has_maps = self.look_at_mappings(pid, &task);
            }
        }
    }

    fn look_at_descriptors(&mut self, task: &Path, entries: std::fs::ReadDir) {
        for (number, entry) in entries.flatten().enumerate() {
            if number % 256 == 255 && self.is_late() {
                return;
            }
            // One that was closed meanwhile is not there.
            let _ = self.look_at(&entry.path());
            self.look_into_socket(task, &entry.file_name());
        }
    }

    /// The descriptors of a process that has closed its directory in /proc; works with rights over its user namespace.
    fn look_through_pidfd(&mut self, pid: i32) {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let slots = status
            .lines()
            .find_map(|line| line.strip_prefix("FDSize:")?.trim().parse::<i32>().ok());
        let process = Pid::from_raw(pid).map(|pid| pidfd_open(pid, PidfdFlags::empty()));
        let (Some(slots), Some(Ok(process))) = (slots, process) else {
            return;
        };
        for number in 0..slots {
            if number % 256 == 255 && self.is_late() {
                return;
            }
            match pidfd_getfd(&process, number, PidfdGetfdFlags::empty()) {
                Ok(descriptor) => {
                    let own = descriptor.as_raw_fd().to_string();
                    let _ = self.look_at(&Path::new("/proc/self/fd").join(&own));
                    self.look_into_socket(Path::new("/proc/self"), own.as_ref());
                    // Not closed before this process ends: if it is the last owner by now, closing may wait as long as the
                    // program wished (`SO_LINGER`); the end of a process never does.
                    std::mem::forget(descriptor);
                }
                Err(Errno::BADF) => {}
                Err(Errno::SRCH) => return,
                Err(_) => {
                    self.unnamed.is_whole = false;
                    return;
                }
            }
        }
    }

    /// How many descriptors wait in a socket to be received (`scm_fds` of its entry in `fdinfo`).
    fn look_into_socket(&mut self, task: &Path, number: &std::ffi::OsStr) {
        let target = std::fs::read_link(task.join("fd").join(number)).unwrap_or_default();
        if !target.as_os_str().as_bytes().starts_with(b"socket:") || !self.sockets.insert(target) {
            return;
        }
        let info = task.join("fdinfo").join(number);
        let info = std::fs::read_to_string(info).unwrap_or_default();
        let in_flight = info
            .lines()
            .find_map(|line| line.strip_prefix("scm_fds:")?.trim().parse::<u64>().ok());
        self.unnamed.in_flight += in_flight.unwrap_or(0);
    }

    /// Whether there were any; a thread that ended has none.
    fn look_at_mappings(&mut self, pid: i32, task: &Path) -> bool {
        let Ok(maps) = std::fs::File::open(task.join("maps")) else {
            return false;
        };
        let mut maps = BufReader::new(maps);
        let (mut line, mut number, mut last) = (Vec::new(), 0_usize, Vec::new());
        loop {
            line.clear();
            match maps.read_until(b'\n', &mut line) {
                Ok(0) => return number > 0,
                Ok(_) => number += 1,
                Err(error) => {
                    self.unnamed.is_whole &= is_gone(&error);
                    return number > 0;
                }
            }
            if number.is_multiple_of(256) && self.is_late() {
                return true;
            }
            let Some((range, file)) = removed_mapping(&line) else {
                continue;
            };
            // Mappings of one file follow each other.
            if file == last.as_slice() {
                continue;
            }
            if self
                .look_at(Path::new(&format!("/proc/{pid}/map_files/{range}")))
                .is_err()
            {
                self.unnamed.is_whole = false;
            }
            last = file.to_vec();
        }
    }

    /// Looks through a link of /proc at what is open, without opening it.
    fn look_at(&mut self, link: &Path) -> std::io::Result<()> {
        let metadata = std::fs::metadata(link)?;
        if !metadata.is_file() || metadata.nlink() > 0 || !self.seen.insert((metadata.dev(), metadata.ino()))
        {
            return Ok(());
        }
        // Not what lies in memory: it counts there. Nor what the host replaced of its own, such as a library.
        let is_on_disk = self.root_device == Some(metadata.dev())
            || rustix::fs::statfs(link).is_ok_and(|fs| natural(fs.f_type) == OVERLAY_MAGIC);
        if is_on_disk {
            self.unnamed.bytes += metadata.blocks() * 512;
        }
        Ok(())
    }
}

/// The process or thread ended meanwhile.
fn is_gone(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// Of a line of `/proc/PID/maps` (proc_pid_maps(5)) that names a file on disk which is gone: the range, as `map_files` names it,
/// and what tells the file from others.
fn removed_mapping(line: &[u8]) -> Option<(String, &[u8])> {
    const IN_MEMORY: [&[u8]; 3] = [b"/memfd:", b"/SYSV", b"/dev/"];
    let line = line
        .strip_suffix(b"\n")
        .unwrap_or(line)
        .strip_suffix(b" (deleted)")?;
    let path = &line[line.iter().position(|byte| *byte == b'/')?..];
    if IN_MEMORY.iter().any(|start| path.starts_with(start)) {
        return None;
    }
    let mut fields = line.split(|byte| *byte == b' ');
    let (from, to) = std::str::from_utf8(fields.next()?).ok()?.split_once('-')?;
    // Without the zeros that fill it up there.
    let [from, to] = [from, to].map(|at| u64::from_str_radix(at, 16));
    // Rights and offset differ between mappings of one file; device, inode and path do not.
    let differing: usize = fields.take(2).map(|field| field.len() + 1).sum();
    let range_len = line.iter().position(|byte| *byte == b' ')? + 1;
    Some((
        format!("{:x}-{:x}", from.ok()?, to.ok()?),
        line.get(range_len + differing..)?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write as _;
    use std::mem::MaybeUninit;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// A sandbox's directory.
    fn directory() -> tempfile::TempDir {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir(root_directory(temp.path())).unwrap();
        temp
    }

    #[test]
    fn files_without_a_name_are_found_by_who_has_them_open() {
        let temp = directory();
        let path = root_directory(temp.path()).join("gone");
        let mut file = fs::File::create(&path).unwrap();
        file.write_all(&vec![1; 1 << 20]).unwrap();
        file.sync_all().unwrap();
        fs::remove_file(&path).unwrap();
        let own = std::process::id() as i32;
        let before = count(own, temp.path(), PATIENCE, false).bytes;
        assert!(before >= 1 << 20, "{before}");
        drop(file);
        assert!(count(own, temp.path(), PATIENCE, false).bytes < before);
    }

    #[test]
    fn descriptors_in_sockets_are_seen() {
        let temp = directory();
        let path = root_directory(temp.path()).join("gone");
        let file = fs::File::create(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let (from, to) = std::os::unix::net::UnixStream::pair().unwrap();
        let own = std::process::id() as i32;
        let before = count(own, temp.path(), PATIENCE, false).in_flight;
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
        assert_eq!(count(own, temp.path(), PATIENCE, false).in_flight, before + 1);
        drop(to);
        assert_eq!(count(own, temp.path(), PATIENCE, false).in_flight, before);
    }

    #[test]
    fn what_is_not_looked_at_in_time_is_not_whole() {
        let own = std::process::id() as i32;
        assert!(!count(own, Path::new("/"), Duration::ZERO, false).is_whole);
    }

    #[test]
    fn mappings_of_files_that_are_gone_are_told_from_others() {
        let line = |text: &'static str| removed_mapping(text.as_bytes());
        let gone = "00e0000-7f0000001000 r--p 0000a000 08:01 77 /srv/a b (deleted)\n";
        assert_eq!(
            line(gone),
            Some(("e0000-7f0000001000".to_owned(), b"08:01 77 /srv/a b".as_slice()))
        );
        for other in [
            "e0000-e1000 r--p 00000000 08:01 77 /srv/a\n",
            "e0000-e1000 rw-p 00000000 00:00 0 \n",
            "e0000-e1000 rw-s 00000000 00:01 9 /memfd:x (deleted)\n",
            "e0000-e1000 rw-s 00000000 00:01 9 /SYSV00000000 (deleted)\n",
            "e0000-e1000 rw-s 00000000 00:01 9 /dev/zero (deleted)\n",
            "",
            " (deleted)",
        ] {
            assert_eq!(line(other), None, "{other}");
        }
    }
}
