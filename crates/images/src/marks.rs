//! What an overlay writes on files of a layer beside their content: which names are gone, which directories hide what is below.

use rustix::fs::{AtFlags, CWD, FileType, Mode, XattrFlags};
use rustix::io::Errno;
use std::fs::Metadata;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// Longest value that is read: a path.
const VALUE_BYTES: usize = 4096;

/// The names of these marks differ by who mounts the overlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marks {
    pub(crate) by_root: bool,
}

impl Marks {
    fn opaque(self) -> &'static str {
        match self.by_root {
            true => "trusted.overlay.opaque",
            false => "user.overlay.opaque",
        }
    }

    /// Only root's overlays rename directories of lower layers.
    fn redirect(self) -> Option<&'static str> {
        self.by_root.then_some("trusted.overlay.redirect")
    }

    /// Whether a directory hides what lower layers have at its place.
    pub(crate) fn is_opaque(self, directory: &Path) -> io::Result<bool> {
        Ok(value(directory, self.opaque())?.is_some_and(|value| value == b"y"))
    }

    pub(crate) fn make_opaque(self, directory: &Path) -> io::Result<()> {
        Ok(rustix::fs::lsetxattr(
            directory,
            self.opaque(),
            b"y",
            XattrFlags::empty(),
        )?)
    }

    /// Where lower layers have what belongs below a directory, if it was renamed: absolute, or another name beside it.
    pub(crate) fn redirect_of(self, directory: &Path) -> io::Result<Option<PathBuf>> {
        let Some(name) = self.redirect() else {
            return Ok(None);
        };
        Ok(value(directory, name)?.map(|value| PathBuf::from(std::ffi::OsString::from_vec(value))))
    }
}

/// Whether this stands for a name that lower layers have and this one removed.
pub(crate) fn is_whiteout(metadata: &Metadata) -> bool {
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

/// Removes a name of lower layers. Nothing is there yet.
pub(crate) fn make_whiteout(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::mknodat(
        CWD,
        path,
        FileType::CharacterDevice,
        Mode::empty(),
        0,
    )?)
}

/// An extended attribute of the file itself.
pub(crate) fn value(path: &Path, name: &str) -> io::Result<Option<Vec<u8>>> {
    let mut buffer = vec![0; VALUE_BYTES];
    match rustix::fs::lgetxattr(path, name, &mut buffer) {
        Ok(length) => {
            buffer.truncate(length);
            Ok(Some(buffer))
        }
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Sets the time of the last change of a file's content, of the file itself.
pub(crate) fn set_modified(path: &Path, seconds: i64, nanoseconds: i64) -> io::Result<()> {
    let time = rustix::fs::Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds,
    };
    let times = rustix::fs::Timestamps {
        last_access: time,
        last_modification: time,
    };
    Ok(rustix::fs::utimensat(
        CWD,
        path,
        &times,
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}
