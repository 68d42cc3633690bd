//! What a copy was made from: by it the next copy knows which files did not change since.

use rustix::fs::Stat;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

/// No filesystem's time goes in larger steps, in nanoseconds: a tick of the slowest kernels, twice.
const TIME_STEP_NS: i64 = 20_000_000;

/// Files by their path below the root. Directories are not in it.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Manifest {
    files: HashMap<PathBuf, Mark>,
}

/// By what a file is told from itself after a change. Nobody can set a change time back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    inode: u64,
    size: i64,
    changed_ns: i64,
}

impl Mark {
    /// `None` for one that changed so shortly before `now_ns` that a further change could look the same.
    pub(crate) fn of(stat: &Stat, now_ns: i64) -> Option<Self> {
        let changed_ns = nanoseconds(stat.st_ctime, stat.st_ctime_nsec);
        let is_settled = now_ns.saturating_sub(changed_ns) > TIME_STEP_NS;
        is_settled.then_some(Self {
            inode: stat.st_ino,
            size: stat.st_size,
            changed_ns,
        })
    }

    /// Whether the file is as it was.
    pub(crate) fn fits(&self, stat: &Stat) -> bool {
        Self::of(stat, i64::MAX) == Some(*self)
    }
}

impl Manifest {
    pub(crate) fn insert(&mut self, path: PathBuf, mark: Mark) {
        self.files.insert(path, mark);
    }

    /// Whether the file at `path` was copied as it is now.
    pub(crate) fn has(&self, path: &Path, stat: &Stat) -> bool {
        self.files.get(path).is_some_and(|mark| mark.fits(stat))
    }

    pub(crate) fn mark(&self, path: &Path) -> Option<Mark> {
        self.files.get(path).copied()
    }
}

/// As a list, because names need not be UTF-8.
impl Serialize for Manifest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let files = self.files.iter();
        serializer.collect_seq(files.map(|(path, mark)| (path.as_os_str().as_bytes(), mark)))
    }
}

impl<'de> Deserialize<'de> for Manifest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let files = Vec::<(Vec<u8>, Mark)>::deserialize(deserializer)?.into_iter();
        Ok(Self {
            files: files
                .map(|(path, mark)| (PathBuf::from(OsString::from_vec(path)), mark))
                .collect(),
        })
    }
}

/// A time of the kernel since 1970.
pub(crate) fn nanoseconds(seconds: i64, nanoseconds: u64) -> i64 {
    let nanoseconds = i64::try_from(nanoseconds).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}
