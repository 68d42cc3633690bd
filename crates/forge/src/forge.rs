//! Opens the forge: its folder, its git, what a crash left half-done. The operations live beside their subjects.

use crate::git::{Git, GitError};
use crate::pull_request::mergeability::MergeabilityCache;
use crate::pull_request::record::RecordCache;
use crate::repository::error::RepositoryError;
use crate::repository::file::FileCache;
use crate::repository::name::is_repository_name;
use greenroom_protocol::client::problem::Problem;
use greenroom_stdx::chain::Chain;
use greenroom_stdx::clock::Clock;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Semaphore;

/// What a forge needs to know.
#[derive(Debug, Clone)]
pub struct ForgeConfig {
    /// Folder of the repositories; created if missing. One forge at a time may use it.
    pub root: PathBuf,
    /// Address under which the server is reached, such as `http://127.0.0.1:7070`; clone URLs start with it.
    pub public_url: String,
    /// Time of records and commits.
    pub clock: Clock,
    /// The program; `git` is looked up in `PATH`.
    pub git_program: PathBuf,
    /// Largest pack a push may send, in bytes.
    pub max_pack_bytes: u64,
    /// Time for one import.
    pub import_limit: Duration,
    /// Time for one clone, fetch or push over HTTP.
    pub exchange_limit: Duration,
    /// Clones, fetches and pushes served at once; more wait a little, then get 503.
    pub max_exchanges: usize,
}

impl ForgeConfig {
    /// 2 GiB packs, 30 minutes for imports and exchanges, 32 exchanges at once, `git` from `PATH`.
    pub fn new(root: impl Into<PathBuf>, public_url: impl Into<String>, clock: Clock) -> Self {
        Self {
            root: root.into(),
            public_url: public_url.into(),
            clock,
            git_program: PathBuf::from("git"),
            max_pack_bytes: 2 * 1024 * 1024 * 1024,
            import_limit: Duration::from_secs(30 * 60),
            exchange_limit: Duration::from_secs(30 * 60),
            max_exchanges: 32,
        }
    }
}

/// Why a forge did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenForgeError {
    /// No usable git.
    #[error("find git")]
    Git(#[from] GitError),
    /// The folder cannot be made or written.
    #[error("prepare {}", path.display())]
    Folder {
        /// What was tried to create or write.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

impl OpenForgeError {
    /// What a person is told.
    pub fn problem(&self) -> Problem {
        match self {
            Self::Git(error) => error.problem(),
            Self::Folder { path, source } => {
                let message = format!("The folder {} cannot be written: {source}.", path.display());
                Problem::permanent("forge_folder_unusable", message)
                    .with_hint("Choose another data directory, or give its owner the right to write.")
            }
        }
    }
}

/// The built-in forge. Cheap to clone; all clones are the same forge. Every method is safe to call at any time from
/// any task; a dropped future leaves each ref either as it was or fully changed.
#[derive(Debug, Clone)]
pub struct Forge {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) config: ForgeConfig,
    pub(crate) git: Git,
    pub(crate) records: RecordCache,
    pub(crate) files: FileCache,
    pub(crate) mergeabilities: MergeabilityCache,
    /// Pull requests this process is merging right now: repository and number.
    pub(crate) merging: Mutex<HashSet<(String, u64)>>,
    pub(crate) exchanges: Arc<Semaphore>,
}

impl Forge {
    /// Opens the forge in `config.root`, removes what interrupted imports left, and finishes interrupted merges.
    ///
    /// # Errors
    /// git is missing or too old, or the folder cannot be written.
    pub async fn open(config: ForgeConfig) -> Result<Self, OpenForgeError> {
        let root = config.root.clone();
        let folder = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenForgeError::Folder { path, source }
        };
        tokio::fs::create_dir_all(&root).await.map_err(folder(&root))?;
        // git runs elsewhere, so a relative root would mean another folder there.
        let root = tokio::fs::canonicalize(&root).await.map_err(folder(&root))?;
        let temporary = root.join(TEMPORARY);
        if tokio::fs::try_exists(&temporary).await.unwrap_or(true) {
            tokio::fs::remove_dir_all(&temporary)
                .await
                .map_err(folder(&temporary))?;
        }
        tokio::fs::create_dir(&temporary)
            .await
            .map_err(folder(&temporary))?;
        let git_config = root.join(".forge.gitconfig");
        tokio::fs::write(&git_config, git_configuration(config.max_pack_bytes))
            .await
            .map_err(folder(&git_config))?;
        let git = Git::find(config.git_program.clone(), git_config).await?;
        let forge = Self {
            inner: Arc::new(Inner {
                exchanges: Arc::new(Semaphore::new(config.max_exchanges)),
                config: ForgeConfig { root, ..config },
                git,
                records: RecordCache::default(),
                files: FileCache::default(),
                mergeabilities: MergeabilityCache::default(),
                merging: Mutex::default(),
            }),
        };
        forge.finish_interrupted_merges().await;
        Ok(forge)
    }

    /// A merge that a crash cut in two is completed; a repository that cannot be read does not keep the others shut.
    async fn finish_interrupted_merges(&self) {
        let names = match self.names().await {
            Ok(names) => names,
            Err(error) => {
                tracing::error!(error = %Chain(&error), "cannot look for interrupted merges");
                return;
            }
        };
        for name in names {
            if let Err(error) = self.finish_merges_of(&name).await {
                tracing::error!(repository = name, error = %Chain(&error), "cannot finish interrupted merges");
            }
        }
    }

    /// The folder of a repository that exists.
    pub(crate) async fn dir(&self, repository: &str) -> Result<PathBuf, RepositoryError> {
        let unknown = || RepositoryError::Unknown {
            name: repository.to_owned(),
        };
        if !is_repository_name(repository) {
            return Err(unknown());
        }
        let dir = self.dir_of(repository);
        match tokio::fs::try_exists(dir.join("HEAD")).await {
            Ok(true) => Ok(dir),
            Ok(false) => Err(unknown()),
            Err(source) => Err(RepositoryError::Folder { source }),
        }
    }

    /// Where a repository of this valid name lies or would lie.
    pub(crate) fn dir_of(&self, repository: &str) -> PathBuf {
        self.inner.config.root.join(format!("{repository}.git"))
    }

    /// A fresh path for something that is being made or removed; on the same file system as the repositories.
    pub(crate) fn temporary_path(&self) -> PathBuf {
        let name = format!("{:032x}", greenroom_stdx::id::fresh_bits());
        self.inner.config.root.join(TEMPORARY).join(name)
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.inner.config.clock.now_ms()
    }

    pub(crate) fn git(&self) -> &Git {
        &self.inner.git
    }
}

/// Folder in the root for what is being made or removed. No repository can have its name.
const TEMPORARY: &str = ".tmp";

/// The only configuration git reads apart from each repository's own, which only the forge writes.
fn git_configuration(max_pack_bytes: u64) -> String {
    format!(
        "# Written at every start of the forge.
[user]
	name = Greenroom
	email = greenroom@localhost
[init]
	defaultBranch = main
[core]
	hooksPath = /dev/null
	logAllRefUpdates = false
	quotePath = false
	filesRefLockTimeout = 10000
	packedRefsTimeout = 10000
[safe]
	directory = *
	bareRepository = all
[gc]
	auto = 0
[maintenance]
	auto = false
[i18n]
	logOutputEncoding = UTF-8
[http]
	lowSpeedLimit = 1000
	lowSpeedTime = 60
[transfer]
	hideRefs = refs/greenroom
	advertiseSID = false
[uploadpack]
	allowFilter = true
[receive]
	fsckObjects = true
	maxInputSize = {max_pack_bytes}
	autogc = false
	hideRefs = refs/pull
	advertisePushOptions = false
	denyDeletes = false
	denyDeleteCurrent = refuse
	denyNonFastForwards = false
[receive \"fsck\"]
	zeroPaddedFilemode = ignore
	badTimezone = ignore
	missingSpaceBeforeDate = ignore
"
    )
}
