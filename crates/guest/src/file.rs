//! Reads, writes and lists files for the host.

use crate::call::BoundedList;
use crate::failure::{CallResult, failed};
use crate::path::{locate, os};
use crate::stream::{Input, Stream};
use crate::wake;
use greenroom_protocol::guest::call::{CallErrorCode, Entry, EntryKind, Reply, Scope};
use greenroom_protocol::guest::frame::FrameKind;
use rustix::event::PollFlags;
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, fstat, openat, renameat, statat, unlinkat};
use rustix::io::Errno;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How the names of files begin that are being written and then take another's place.
pub const DRAFT_PREFIX: &str = ".greenroom-draft-";

/// Names looked at in one directory; more are left out of a listing, which then says so.
const MAX_NAMES: usize = 100_000;

/// Sends the reply, the bytes and the end by itself; only an early failure is left to the caller.
pub fn read(stream: &Arc<Stream>, path: &str, scope: Scope, offset: u64, max_bytes: u64) -> CallResult<()> {
    // Not blocking: a FIFO without a writer would hold the call for ever.
    let file = locate(path, scope)?.open(OFlags::RDONLY | OFlags::NONBLOCK)?;
    let stat = fstat(&file).map_err(|error| os(error, path))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {}
        FileType::Directory => return Err(os(Errno::ISDIR, path)),
        _ => {
            return Err(failed(
                CallErrorCode::Invalid,
                format!("{path}: is not a regular file"),
            ));
        }
    }
    let file = File::from(file);
    let size_bytes = stat.st_size as u64;
    stream.reply(&Reply::File {
        size_bytes,
        is_executable: is_executable(&stat),
    });
    let mut buffer = vec![0; 64 << 10];
    let mut at = offset;
    // Of a file that grows what was there at first, or one that grows fast would never end. Files that the kernel makes up say
    // that they are empty.
    let whole = if size_bytes == 0 { u64::MAX } else { size_bytes };
    let end = offset.saturating_add(max_bytes).min(whole);
    while at < end {
        let want = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        match file.read_at(&mut buffer[..want], at) {
            Ok(0) => break,
            Ok(len) => {
                if !stream.send_all(FrameKind::Output, &buffer[..len]) {
                    stream.send_reset();
                    return Ok(());
                }
                at += len as u64;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => {
                // The reply is out already; the host must not take a part for the whole.
                stream.send_reset();
                return Ok(());
            }
        }
    }
    stream.send_end();
    Ok(())
}

/// A new file under a temporary name; removed unless it is kept.
struct Draft<'a> {
    parent: &'a OwnedFd,
    name: String,
    is_kept: bool,
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if !self.is_kept {
            let _ = unlinkat(self.parent, self.name.as_str(), AtFlags::empty());
        }
    }
}

/// Takes the content from the stream.
pub fn write(stream: &Arc<Stream>, path: &str, scope: Scope, executable: bool) -> CallResult {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let fail = |error: Errno| os(error, path);
    let (parent, name) = locate(path, scope)?.follow_last()?.make_parent()?;
    let old = match statat(&parent, name.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Some(stat),
            FileType::Directory => return Err(fail(Errno::ISDIR)),
            _ => {
                return Err(failed(
                    CallErrorCode::Invalid,
                    format!("{path}: is not a regular file"),
                ));
            }
        },
        Err(Errno::NOENT) => None,
        Err(error) => return Err(fail(error)),
    };
    let mut draft = Draft {
        parent: &parent,
        name: format!("{DRAFT_PREFIX}{}", COUNT.fetch_add(1, Ordering::Relaxed)),
        is_kept: false,
    };
    // Left by a guest that was killed in the middle.
    let _ = unlinkat(&parent, draft.name.as_str(), AtFlags::empty());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = openat(&parent, draft.name.as_str(), flags, Mode::from_raw_mode(0o644)).map_err(fail)?;
    loop {
        stream.wake.clear();
        if stream.is_cancelled() {
            return Err(failed(
                CallErrorCode::Os,
                format!("{path}: writing was cancelled"),
            ));
        }
        match stream.next_input() {
            Input::Bytes(bytes) => {
                write_all(&file, &bytes).map_err(fail)?;
                stream.grant(bytes.len());
            }
            Input::Ended => break,
            Input::Pending => wake::wait(&mut [wake::on(&stream.wake, PollFlags::IN)], None),
        }
    }
    let mode = old.map_or(0o644, |stat| stat.st_mode & 0o777) | if executable { 0o111 } else { 0 };
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).map_err(fail)?;
    drop(file);
    renameat(&parent, draft.name.as_str(), &parent, name.as_str()).map_err(fail)?;
    draft.is_kept = true;
    Ok(Reply::Done)
}

fn write_all(file: &OwnedFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(file, bytes) {
            Ok(len) => bytes = &bytes[len..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Describes what a path names, not what a link there leads to.
pub fn stat(path: &str, scope: Scope) -> CallResult {
    let located = locate(path, scope)?;
    let fail = |error: Errno| os(error, path);
    let fd = located.open(OFlags::PATH | OFlags::NOFOLLOW)?;
    let stat = fstat(&fd).map_err(fail)?;
    let name = path
        .trim_end_matches('/')
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .to_owned();
    let link_target = rustix::fs::readlinkat(&fd, "", Vec::new()).ok();
    Ok(Reply::Stat {
        entry: entry(name, &stat, link_target.filter(|_| is_symlink(&stat))),
    })
}

/// Names in a directory.
pub fn list(path: &str, scope: Scope, max_entries: u32) -> CallResult {
    let fail = |error: Errno| os(error, path);
    let directory = locate(path, scope)?.open(OFlags::RDONLY | OFlags::DIRECTORY)?;
    let mut names = Vec::new();
    for item in Dir::read_from(&directory).map_err(fail)? {
        let item = item.map_err(fail)?;
        if !matches!(item.file_name().to_bytes(), b"." | b"..") {
            names.push(item.file_name().to_owned());
        }
        if names.len() > MAX_NAMES {
            break;
        }
    }
    let is_cut = names.len() > MAX_NAMES;
    names.sort();
    let mut list = BoundedList::new(max_entries);
    for name in names {
        // Gone since it was listed.
        let Ok(stat) = statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        let target = is_symlink(&stat)
            .then(|| rustix::fs::readlinkat(&directory, &name, Vec::new()).ok())
            .flatten();
        if !list.push(entry(name.to_string_lossy().into_owned(), &stat, target)) {
            break;
        }
    }
    Ok(Reply::Entries {
        is_truncated: list.is_truncated || is_cut,
        entries: list.items,
    })
}

/// Moves within the scope.
pub fn rename(from: &str, to: &str, scope: Scope) -> CallResult {
    let (from_parent, from_name) = locate(from, scope)?.parent()?;
    let (to_parent, to_name) = locate(to, scope)?.make_parent()?;
    match renameat(&from_parent, from_name.as_str(), &to_parent, to_name.as_str()) {
        Ok(()) => Ok(Reply::Done),
        // Not an escape: the paths are on different filesystems.
        Err(Errno::XDEV) => Err(failed(
            CallErrorCode::Os,
            format!("{from}: cannot be moved to another filesystem ({to})"),
        )),
        Err(error) => Err(os(error, from)),
    }
}

/// Removes one name.
pub fn remove(path: &str, scope: Scope) -> CallResult {
    let (parent, name) = locate(path, scope)?.parent()?;
    match unlinkat(&parent, name.as_str(), AtFlags::empty()) {
        Ok(()) => Ok(Reply::Done),
        Err(Errno::ISDIR) => match unlinkat(&parent, name.as_str(), AtFlags::REMOVEDIR) {
            Ok(()) => Ok(Reply::Done),
            Err(Errno::NOTEMPTY | Errno::EXIST) => Err(failed(
                CallErrorCode::IsDirectory,
                format!("{path}: is a directory that is not empty"),
            )),
            Err(error) => Err(os(error, path)),
        },
        Err(error) => Err(os(error, path)),
    }
}

/// Whether it is a symbolic link itself.
pub fn is_symlink(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Symlink
}

fn is_executable(stat: &Stat) -> bool {
    stat.st_mode & 0o111 != 0
}

/// Describes one name.
pub fn entry(name: String, stat: &Stat, link_target: Option<std::ffi::CString>) -> Entry {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => EntryKind::File,
        FileType::Directory => EntryKind::Directory,
        FileType::Symlink => EntryKind::Symlink,
        _ => EntryKind::Other,
    };
    Entry {
        name,
        kind,
        size_bytes: stat.st_size as u64,
        is_executable: kind == EntryKind::File && is_executable(stat),
        modified_at_ms: stat.st_mtime * 1000 + stat.st_mtime_nsec as i64 / 1_000_000,
        link_target: link_target.map(|target| target.to_string_lossy().into_owned()),
    }
}
