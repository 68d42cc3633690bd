//! Directory trees that sandboxes wrote, whatever modes they left: measured, copied, removed. Never follows links.

use rustix::fs::{IFlags, Mode, OFlags};
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Removes `path` and all below it, or a file; one that is not there is fine. Nothing else may write there any more.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path)?;
            match fs::remove_dir_all(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                done => done,
            }
        }
        done => done,
    }
}

/// Removes a file; one that is not there is fine.
pub fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Gives the owner every right on all directories. However deep they are: sandboxes make what they like.
fn open_up(directory: &Path) -> io::Result<()> {
    let mut pending = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        match open_up_one(&directory, &mut pending) {
            // What ends by itself may remove its files meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => done?,
        }
    }
    Ok(())
}

fn open_up_one(directory: &Path, pending: &mut Vec<PathBuf>) -> io::Result<()> {
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        // Of the entry itself, not of what a link leads to.
        if entry.file_type()?.is_dir() {
            pending.push(entry.path());
        }
    }
    Ok(())
}

/// Bytes of all files below `directory`, each rounded up to a page, and a page for everything else; or of a file. Follows no links.
pub fn size_bytes(directory: &Path) -> io::Result<u64> {
    const PAGE: u64 = 4096;
    let metadata = fs::symlink_metadata(directory)?;
    if metadata.is_file() {
        return Ok(metadata.len().div_ceil(PAGE) * PAGE);
    }
    let mut total = 0;
    let mut pending = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        total += PAGE;
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                pending.push(entry.path());
            } else if metadata.is_file() {
                total += metadata.len().div_ceil(PAGE) * PAGE;
            } else {
                total += PAGE;
            }
        }
    }
    Ok(total)
}

/// The time that the kernel marks files with now. It goes in steps, and lags behind the machine's clock by up to one.
pub fn file_clock() -> SystemTime {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
    UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_nanos(nanoseconds)
}

/// Whether anything below `directory` was made, changed or removed at `since` or later, by [`file_clock`]. Does not look into
/// directories for which `is_left_out`, and ends at the first that it finds. What cannot be looked at counts as changed.
pub fn has_changed_since(directory: &Path, since: SystemTime, is_left_out: impl Fn(&Path) -> bool) -> bool {
    let has_changed = |metadata: &fs::Metadata| {
        let seconds = u64::try_from(metadata.ctime()).unwrap_or(0);
        let nanoseconds = u64::try_from(metadata.ctime_nsec()).unwrap_or(0);
        UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_nanos(nanoseconds) >= since
    };
    let mut pending = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        let Ok(metadata) = fs::symlink_metadata(&directory) else {
            return true;
        };
        if has_changed(&metadata) {
            return true;
        }
        let Ok(entries) = fs::read_dir(&directory) else {
            return true;
        };
        for entry in entries {
            let Ok((entry, metadata)) = entry.and_then(|entry| entry.metadata().map(|found| (entry, found)))
            else {
                return true;
            };
            if metadata.is_dir() {
                if !is_left_out(&entry.path()) {
                    pending.push(entry.path());
                }
            } else if has_changed(&metadata) {
                return true;
            }
        }
    }
    false
}

/// Copies directories, files and links of `from` that are not yet in `to`, with their modes.
pub fn copy_missing(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let exists = fs::symlink_metadata(&target).is_ok();
        let kind = entry.file_type()?;
        if kind.is_dir() {
            if !exists {
                fs::create_dir(&target)?;
                fs::set_permissions(&target, entry.metadata()?.permissions())?;
            }
            copy_missing(&source, &target)?;
        } else if exists {
            continue;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&source)?, &target)?;
        } else {
            fs::copy(&source, &target)?;
        }
    }
    Ok(())
}

/// Tells ext4 that directories in this one have nothing to do with each other, so that each gets room of its own. Without it
/// they share one group of inodes, and finding a free one among thousands that were just freed takes longer and longer.
/// Other filesystems do not know the flag, which is fine.
pub fn spread(directory: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(directory, flags, Mode::empty())?;
    if let Ok(flags) = rustix::fs::ioctl_getflags(&directory) {
        let _ = rustix::fs::ioctl_setflags(&directory, flags | IFlags::TOPDIR);
    }
    Ok(())
}

/// Runs work that calls itself for each directory in a directory, as deep as sandboxes may make them.
pub(crate) fn with_deep_stack<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    const STACK_BYTES: usize = 64 << 20;
    std::thread::scope(|scope| {
        let worker = std::thread::Builder::new()
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, work)?;
        worker
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("a worker ended early")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deep_trees_are_measured_and_removed() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("root");
        // Longer than a path may be.
        let mut place = root.clone();
        for _ in 0..1800 {
            place.push("d");
        }
        fs::create_dir_all(&place).unwrap();
        fs::write(place.join("file"), "x").unwrap();
        assert_eq!(size_bytes(&root).unwrap(), 1802 * 4096);
        fs::set_permissions(&root, fs::Permissions::from_mode(0o500)).unwrap();
        remove(&root).unwrap();
        assert!(!root.exists());
    }
}
