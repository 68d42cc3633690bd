//! Reads one file of a branch. For what the server itself needs to know of a repository, not for browsing it.

use super::error::RepositoryError;
use crate::forge::Forge;
use crate::git::{Call, GitError, is_object_id};
use crate::ref_name::is_branch_name;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A file at the head of a branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileAtCommit {
    /// There is nothing of that name.
    Missing,
    /// A directory, symbolic link or submodule.
    NotAFile,
    /// More than was asked for; nothing was read.
    TooLarge {
        size_bytes: u64,
    },
    Content(Vec<u8>),
}

/// Tells one state of a branch's head from another without starting git, which takes milliseconds that every turn would wait
/// for (gitrepository-layout(5), `refs` and `packed-refs`; both are replaced by renaming).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum HeadStamp {
    Commit(String),
    Packed { inode: u64, len: u64, mtime_ns: i128 },
}

impl HeadStamp {
    /// `None` where refs are kept otherwise.
    async fn of(dir: &Path, branch: &str) -> Option<Self> {
        use std::os::unix::fs::MetadataExt as _;
        match tokio::fs::read_to_string(dir.join("refs/heads").join(branch)).await {
            Ok(text) => {
                let commit = text.trim_end();
                is_object_id(commit).then(|| Self::Commit(commit.to_owned()))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let packed = tokio::fs::metadata(dir.join("packed-refs")).await.ok()?;
                Some(Self::Packed {
                    inode: packed.ino(),
                    len: packed.len(),
                    mtime_ns: i128::from(packed.mtime()) * 1_000_000_000 + i128::from(packed.mtime_nsec()),
                })
            }
            Err(_) => None,
        }
    }
}

/// Repository, branch, path and bound of a file that was read, and the head it was read at.
type FileKey = (PathBuf, String, String, u64, HeadStamp);

/// Small files that were read lately.
#[derive(Debug, Default)]
pub(crate) struct FileCache(Mutex<HashMap<FileKey, FileAtCommit>>);

impl FileCache {
    /// Files kept at once; beyond it all are forgotten, and read again when they are asked for.
    const MOST: usize = 256;

    /// Largest file that is kept, in bytes.
    const MOST_BYTES: usize = 64 << 10;

    fn get(&self, key: &FileKey) -> Option<FileAtCommit> {
        self.lock().get(key).cloned()
    }

    fn put(&self, key: FileKey, file: FileAtCommit) {
        if matches!(&file, FileAtCommit::Content(bytes) if bytes.len() > Self::MOST_BYTES) {
            return;
        }
        let mut files = self.lock();
        if files.len() >= Self::MOST {
            files.clear();
        }
        files.insert(key, file);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<FileKey, FileAtCommit>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Forge {
    /// The file at `path` (from the top, without a leading slash) on the head of a branch, if it has at most `max_bytes`.
    ///
    /// # Errors
    /// `repository_unknown`, `branch_unknown`, or git fails.
    pub async fn read_file(
        &self,
        repository: &str,
        branch: &str,
        path: &str,
        max_bytes: u64,
    ) -> Result<FileAtCommit, RepositoryError> {
        let dir = self.dir(repository).await?;
        let unknown = || RepositoryError::BranchUnknown {
            branch: branch.to_owned(),
        };
        if !is_branch_name(branch) {
            return Err(unknown());
        }
        let before = HeadStamp::of(&dir, branch).await;
        let key = before.map(|stamp| (dir.clone(), branch.to_owned(), path.to_owned(), max_bytes, stamp));
        if let Some(known) = key.as_ref().and_then(|key| self.inner.files.get(key)) {
            return Ok(known);
        }
        let found = self
            .read_file_by_git(repository, &dir, branch, path, max_bytes)
            .await?;
        if let Some(key) = key
            // Moved meanwhile, it is not known of which head it was read.
            && HeadStamp::of(&dir, branch).await.as_ref() == Some(&key.4)
        {
            self.inner.files.put(key, found.clone());
        }
        Ok(found)
    }

    async fn read_file_by_git(
        &self,
        repository: &str,
        dir: &Path,
        branch: &str,
        path: &str,
        max_bytes: u64,
    ) -> Result<FileAtCommit, RepositoryError> {
        // One process where there is no such file, which is usual.
        let head = format!("refs/heads/{branch}");
        let call = Call::new(["ls-tree", "-z", "-l", &head, "--", path]).within(dir);
        let listed = self.git().run(call).await?;
        if listed.code == Some(128) {
            self.branch_commit(repository, branch).await?;
        }
        let printed = listed.success()?;
        let unexpected = || {
            RepositoryError::Git(GitError::Unexpected {
                what: "ls-tree".to_owned(),
            })
        };
        // `MODE TYPE OBJECT SIZE<TAB>PATH<NUL>` (git-ls-tree(1)); the size is padded.
        let Some(entry) = printed.split(|byte| *byte == 0).find(|entry| !entry.is_empty()) else {
            return Ok(FileAtCommit::Missing);
        };
        let entry = std::str::from_utf8(entry).map_err(|_| unexpected())?;
        let (facts, _) = entry.split_once('\t').ok_or_else(unexpected)?;
        let facts: Vec<_> = facts.split_ascii_whitespace().collect();
        let [mode, _, object, size] = facts[..] else {
            return Err(unexpected());
        };
        if !matches!(mode, "100644" | "100755") {
            return Ok(FileAtCommit::NotAFile);
        }
        let size_bytes: u64 = size.parse().map_err(|_| unexpected())?;
        if size_bytes > max_bytes {
            return Ok(FileAtCommit::TooLarge { size_bytes });
        }
        if !is_object_id(object) {
            return Err(unexpected());
        }
        let call = Call::new(["cat-file", "blob", object]).within(dir);
        Ok(FileAtCommit::Content(self.git().run(call).await?.success()?))
    }
}
