//! Repositories: list, create, import, delete, branches. Pull requests live elsewhere.

pub(crate) mod error;
pub(crate) mod file;
pub(crate) mod import;
pub(crate) mod name;

use crate::forge::Forge;
use crate::git::refs::{RefEdit, Refs, Transaction};
use crate::git::{Call, GitError, is_object_id};
use crate::pull_request::record::PULLS;
use crate::ref_name::is_branch_name;
use error::RepositoryError;
use futures_util::{StreamExt as _, TryStreamExt as _};
use greenroom_protocol::client::pull_request::{Commit, Diff};
use greenroom_protocol::client::repository::{Branch, Repository};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Duration;

/// Repositories read at once when all are listed.
const LISTED_AT_ONCE: usize = 4;
/// File in a repository's folder with what git has no place for.
const RECORD_FILE: &str = "greenroom.json";
/// Time for [`Forge::maintain`].
const MAINTENANCE_LIMIT: Duration = Duration::from_secs(60 * 60);

/// What is known of a repository besides its git data.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RepositoryRecord {
    pub(crate) created_at_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<String>,
}

impl Forge {
    /// All repositories, sorted by name.
    ///
    /// # Errors
    /// The folder cannot be read, or git fails.
    pub async fn repositories(&self) -> Result<Vec<Repository>, RepositoryError> {
        let names = self.names().await?;
        let listed: Vec<Option<Repository>> = futures_util::stream::iter(names)
            .map(|name| async move {
                match self.repository(&name).await {
                    Ok(repository) => Ok(Some(repository)),
                    // Deleted since the folder was read.
                    Err(RepositoryError::Unknown { .. }) => Ok(None),
                    Err(error) => Err(error),
                }
            })
            .buffered(LISTED_AT_ONCE)
            .try_collect()
            .await?;
        Ok(listed.into_iter().flatten().collect())
    }

    /// One repository.
    ///
    /// # Errors
    /// `repository_unknown`, or git fails.
    pub async fn repository(&self, name: &str) -> Result<Repository, RepositoryError> {
        let dir = self.dir(name).await?;
        let record = read_record(&dir).await?;
        let base = self.inner.config.public_url.trim_end_matches('/');
        Ok(Repository {
            name: name.to_owned(),
            default_branch: self.default_branch(name).await?,
            clone_url: format!("{base}/git/{name}.git"),
            source: record.source,
            created_at_ms: record.created_at_ms,
        })
    }

    /// The branch clones check out and pull requests go to; `None` while it does not exist (an empty repository).
    ///
    /// # Errors
    /// `repository_unknown`, or git fails.
    pub async fn default_branch(&self, name: &str) -> Result<Option<String>, RepositoryError> {
        let dir = self.dir(name).await?;
        let Some(branch) = self.head_target(&dir).await? else {
            return Ok(None);
        };
        let commit = self
            .git()
            .ref_commit(&dir, &format!("refs/heads/{branch}"))
            .await?;
        Ok(commit.map(|_| branch))
    }

    /// Makes an existing branch the default one.
    ///
    /// # Errors
    /// `repository_unknown`, `branch_unknown`, or git fails.
    pub async fn set_default_branch(&self, name: &str, branch: &str) -> Result<(), RepositoryError> {
        let dir = self.dir(name).await?;
        self.branch_commit(name, branch).await?;
        self.point_head(&dir, branch).await?;
        Ok(())
    }

    /// All branches, sorted by name; empty for an empty repository.
    ///
    /// # Errors
    /// `repository_unknown`, or git fails.
    pub async fn branches(&self, name: &str) -> Result<Vec<Branch>, RepositoryError> {
        let dir = self.dir(name).await?;
        let refs = self.git().refs(&dir, &["refs/heads"]).await?;
        Ok(refs
            .under("refs/heads/")
            .map(|(name, commit)| Branch {
                name: name.to_owned(),
                commit: commit.to_owned(),
            })
            .collect())
    }

    /// The commit id a branch points at.
    ///
    /// # Errors
    /// `repository_unknown`, `branch_unknown`, or git fails.
    pub async fn branch_commit(&self, name: &str, branch: &str) -> Result<String, RepositoryError> {
        let dir = self.dir(name).await?;
        let unknown = || RepositoryError::BranchUnknown {
            branch: branch.to_owned(),
        };
        if !is_branch_name(branch) {
            return Err(unknown());
        }
        let commit = self
            .git()
            .ref_commit(&dir, &format!("refs/heads/{branch}"))
            .await?;
        commit.ok_or_else(unknown)
    }

    /// What `head` changes since it left `base`: from their merge base to `head`. Each is a branch or a commit id;
    /// without common history everything in `head` counts as added. Files at most [`crate::MAX_DIFF_FILES`].
    ///
    /// # Errors
    /// `repository_unknown`, `branch_unknown`, or git fails.
    pub async fn diff_branches(&self, name: &str, base: &str, head: &str) -> Result<Diff, RepositoryError> {
        let dir = self.dir(name).await?;
        let base = self.resolve(name, &dir, base).await?;
        let head = self.resolve(name, &dir, head).await?;
        Ok(self.diff_commits(&dir, &base, &head).await?)
    }

    /// One commit, named by a branch or its id.
    ///
    /// # Errors
    /// `repository_unknown`, `branch_unknown`, or git fails.
    pub async fn commit_info(&self, name: &str, revision: &str) -> Result<Commit, RepositoryError> {
        let dir = self.dir(name).await?;
        let id = self.resolve(name, &dir, revision).await?;
        let commit = self.git().log(&dir, None, &id, 1).await?.pop();
        commit.map(Commit::from).ok_or_else(|| {
            GitError::Unexpected {
                what: "log".to_owned(),
            }
            .into()
        })
    }

    /// Removes a repository with everything in it, at once for all who look.
    ///
    /// # Errors
    /// `repository_unknown`, or the folder cannot be moved away.
    pub async fn delete_repository(&self, name: &str) -> Result<(), RepositoryError> {
        let dir = self.dir(name).await?;
        let doomed = self.temporary_path();
        tokio::fs::rename(&dir, &doomed)
            .await
            .map_err(|source| RepositoryError::Folder { source })?;
        // What stays behind after a failure here is removed when the forge opens next.
        if let Err(error) = tokio::fs::remove_dir_all(&doomed).await {
            tracing::warn!(repository = name, %error, "a deleted repository's files remain until the next start");
        }
        Ok(())
    }

    /// Deletes a branch. For one of a pull request use [`Forge::delete_head_branch`].
    ///
    /// # Errors
    /// `repository_unknown`, `branch_unknown`, `branch_is_default`, `branch_in_use` (an open pull request needs it),
    /// `head_moved` if it moved meanwhile, or git fails.
    pub async fn delete_branch(&self, name: &str, branch: &str) -> Result<(), RepositoryError> {
        let dir = self.dir(name).await?;
        let commit = self.branch_commit(name, branch).await?;
        self.check_deletable(name, &dir, branch, None).await?;
        let edit = RefEdit::Delete {
            name: format!("refs/heads/{branch}"),
            old: commit,
        };
        match self.git().update_refs(&dir, &[edit]).await? {
            Transaction::Done => Ok(()),
            Transaction::Raced => Err(RepositoryError::BranchMoved {
                branch: branch.to_owned(),
            }),
        }
    }

    /// Packs objects and refs and drops what nothing refers to for two weeks. Takes up to an hour; call it now and then.
    ///
    /// # Errors
    /// `repository_unknown`, or git fails.
    pub async fn maintain(&self, name: &str) -> Result<(), RepositoryError> {
        let dir = self.dir(name).await?;
        let call = Call::new(["gc", "--quiet"]).within(&dir).limit(MAINTENANCE_LIMIT);
        self.git().run(call).await?.success()?;
        Ok(())
    }

    /// Refuses to lose a branch that others rely on; `except` is a pull request whose head it may be.
    pub(crate) async fn check_deletable(
        &self,
        repository: &str,
        dir: &Path,
        branch: &str,
        except: Option<u64>,
    ) -> Result<(), RepositoryError> {
        let branch_name = || branch.to_owned();
        if self.head_target(dir).await?.as_deref() == Some(branch) {
            return Err(RepositoryError::BranchIsDefault {
                branch: branch_name(),
            });
        }
        match self
            .open_pull_request_using(repository, dir, branch, except)
            .await?
        {
            Some(number) => Err(RepositoryError::BranchInUse {
                branch: branch_name(),
                number,
            }),
            None => Ok(()),
        }
    }

    pub(crate) async fn diff_commits(&self, dir: &Path, base: &str, head: &str) -> Result<Diff, GitError> {
        let old = match self.git().merge_base(dir, base, head).await? {
            Some(merge_base) => merge_base,
            None => self.git().write_object(dir, "tree", Vec::new()).await?,
        };
        self.git().diff(dir, &old, head).await
    }

    /// The commit a branch name or a full commit id stands for.
    async fn resolve(&self, name: &str, dir: &Path, revision: &str) -> Result<String, RepositoryError> {
        match self.branch_commit(name, revision).await {
            Err(RepositoryError::BranchUnknown { .. }) if is_object_id(revision) => {
                let commit = self.git().ref_commit(dir, revision).await?;
                commit.ok_or_else(|| RepositoryError::BranchUnknown {
                    branch: revision.to_owned(),
                })
            }
            resolved => resolved,
        }
    }

    /// The branch `HEAD` names, whether it exists or not.
    pub(crate) async fn head_target(&self, dir: &Path) -> Result<Option<String>, GitError> {
        let call = Call::new(["symbolic-ref", "--quiet", "HEAD"]).within(dir);
        let finished = self.git().run(call).await?;
        match finished.code {
            Some(1) => Ok(None),
            _ => {
                let target = String::from_utf8_lossy(&finished.success()?).trim().to_owned();
                Ok(target.strip_prefix("refs/heads/").map(str::to_owned))
            }
        }
    }

    pub(crate) async fn point_head(&self, dir: &Path, branch: &str) -> Result<(), GitError> {
        let target = format!("refs/heads/{branch}");
        let call = Call::new(["symbolic-ref", "HEAD", &target]).within(dir);
        self.git().run(call).await?.success()?;
        Ok(())
    }

    /// Gives a repository whose default branch does not exist one of the branches it has: `main`, `master`, or the first.
    pub(crate) async fn settle_head(&self, dir: &Path, refs: &Refs) -> Result<(), GitError> {
        let current = self.head_target(dir).await?;
        if current.is_some_and(|branch| refs.branch(&branch).is_some()) {
            return Ok(());
        }
        let preferred = ["main", "master"]
            .into_iter()
            .find(|name| refs.branch(name).is_some());
        let first = || refs.under("refs/heads/").map(|(name, _)| name).next();
        match preferred.or_else(first) {
            Some(branch) => self.point_head(dir, branch).await,
            None => Ok(()),
        }
    }

    /// Names of all repositories, sorted.
    pub(crate) async fn names(&self) -> Result<Vec<String>, RepositoryError> {
        let folder = |source| RepositoryError::Folder { source };
        let mut entries = tokio::fs::read_dir(&self.inner.config.root)
            .await
            .map_err(folder)?;
        let mut names = Vec::new();
        while let Some(entry) = entries.next_entry().await.map_err(folder)? {
            let file_name = entry.file_name();
            let name = file_name.to_str().and_then(|name| name.strip_suffix(".git"));
            names.extend(
                name.filter(|name| name::is_repository_name(name))
                    .map(str::to_owned),
            );
        }
        names.sort();
        Ok(names)
    }

    /// Refs that matter to pull requests, in one call.
    pub(crate) async fn all_refs(&self, dir: &Path) -> Result<Refs, GitError> {
        self.git().refs(dir, &["refs/heads", PULLS, "refs/pull"]).await
    }
}

async fn read_record(dir: &Path) -> Result<RepositoryRecord, RepositoryError> {
    let bytes = tokio::fs::read(dir.join(RECORD_FILE))
        .await
        .map_err(|source| RepositoryError::Folder { source })?;
    serde_json::from_slice(&bytes).map_err(|source| RepositoryError::Record { source })
}

pub(crate) async fn write_record(dir: &Path, record: &RepositoryRecord) -> Result<(), RepositoryError> {
    let bytes = serde_json::to_vec_pretty(record).map_err(|source| RepositoryError::Record { source })?;
    tokio::fs::write(dir.join(RECORD_FILE), bytes)
        .await
        .map_err(|source| RepositoryError::Folder { source })
}
