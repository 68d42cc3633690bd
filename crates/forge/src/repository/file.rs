//! Reads one file of a branch. For what the server itself needs to know of a repository, not for browsing it.

use super::error::RepositoryError;
use crate::forge::Forge;
use crate::git::{Call, GitError, is_object_id};
use crate::ref_name::is_branch_name;

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
        // One process where there is no such file, which is usual.
        let head = format!("refs/heads/{branch}");
        let call = Call::new(["ls-tree", "-z", "-l", &head, "--", path]).within(&dir);
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
        let call = Call::new(["cat-file", "blob", object]).within(&dir);
        Ok(FileAtCommit::Content(self.git().run(call).await?.success()?))
    }
}
