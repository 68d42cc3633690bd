//! The data directory: its layout, its lock, and the checks before anything is written. Knows paths, not what is in the files
//! (but for `server.json`, which tells who holds the lock).

use crate::failure::StorageFailure;
use greenroom_protocol::client::problem::Problem;
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// What lies in a data directory, by name.
pub const LOCK: &str = "lock";
pub const CATALOG: &str = "catalog.db";
pub const SESSIONS: &str = "sessions";
pub const SECRET_KEY: &str = "secret.key";
pub const FORGE: &str = "forge";
pub const IMAGE_LOGS: &str = "image-logs";
pub const SANDBOXES: &str = "sandboxes";

/// A server does not start with less space than this.
pub const MIN_FREE_BYTES: u64 = 32 * 1024 * 1024;

/// Who serves a data directory; the content of `server.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerInfo {
    pub pid: u32,
    /// Address people open, such as `http://127.0.0.1:7000`.
    pub url: String,
    pub started_at_ms: i64,
}

/// An open data directory. While it lives no other process can open the same one; the lock goes with the process, however
/// it ends.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

/// Why a data directory cannot be used.
#[derive(Debug, Error)]
pub enum DataDirError {
    /// Another process has it.
    #[error("data directory {} is in use{}", .path.display(), .by.as_ref().map(|by| format!(" by process {} at {}", by.pid, by.url)).unwrap_or_default())]
    InUse {
        path: PathBuf,
        /// What it wrote into `server.json`; absent while it starts.
        by: Option<ServerInfo>,
    },
    /// It cannot be made, or files in it cannot be.
    #[error("data directory {} is not writable", .path.display())]
    NotWritable { path: PathBuf, source: std::io::Error },
    /// Something that is not a directory has this path.
    #[error("{} is not a directory", .path.display())]
    NotADirectory { path: PathBuf },
    /// Less than [`MIN_FREE_BYTES`] left.
    #[error("only {free_bytes} bytes are free for data directory {}", .path.display())]
    DiskFull { path: PathBuf, free_bytes: u64 },
    #[error("open data directory")]
    Io(#[from] StorageFailure),
}

/// How often, and how long each time, the lock of a server is waited for that is not alive any more.
const MAX_LOCK_WAITS: u32 = 100;
const LOCK_WAIT: Duration = Duration::from_millis(20);

fn is_alive(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

impl DataDirError {
    /// What a person is told; codes `data_dir_in_use`, `data_dir_not_writable`, `data_dir_not_a_directory`, `disk_full` and
    /// those of [`StorageFailure::problem`]. Paths are named: the reader is the operator who gave them.
    pub fn problem(&self) -> Problem {
        match self {
            Self::InUse { path, by: Some(by) } => Problem::permanent(
                "data_dir_in_use",
                format!(
                    "The data directory {} is already served by process {} at {}.",
                    path.display(),
                    by.pid,
                    by.url
                ),
            )
            .with_hint(format!(
                "Use the server at {}, stop it (kill {}), or choose another directory with GREENROOM_DATA_DIR or `server.data_dir`.",
                by.url, by.pid
            )),
            Self::InUse { path, by: None } => Problem::permanent(
                "data_dir_in_use",
                format!(
                    "The data directory {} is in use by another process.",
                    path.display()
                ),
            )
            .with_hint("Stop the other server, or choose another directory with GREENROOM_DATA_DIR or `server.data_dir`."),
            Self::NotWritable { path, source } => Problem::permanent(
                "data_dir_not_writable",
                format!(
                    "The data directory {} cannot be written: {source}.",
                    path.display()
                ),
            )
            .with_hint(
                "Give it to the user the server runs as, or choose another directory with GREENROOM_DATA_DIR or `server.data_dir`.",
            ),
            Self::NotADirectory { path } => Problem::permanent(
                "data_dir_not_a_directory",
                format!("{} exists and is not a directory.", path.display()),
            )
            .with_hint("Choose another directory with GREENROOM_DATA_DIR or `server.data_dir`."),
            Self::DiskFull { path, free_bytes } => Problem::transient(
                "disk_full",
                format!(
                    "The disk of {} has {} MiB free; a server needs {} MiB to start.",
                    path.display(),
                    free_bytes / (1024 * 1024),
                    MIN_FREE_BYTES / (1024 * 1024)
                ),
            )
            .with_hint("Free some space, or choose a directory on another disk with GREENROOM_DATA_DIR or `server.data_dir`."),
            Self::Io(failure) => failure.problem(),
        }
    }
}

/// Keeps every other process out of a data directory, which must be there, as long as what is returned is held.
pub fn lock(path: &Path) -> Result<File, DataDirError> {
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(path.join(LOCK))
        .map_err(|source| DataDirError::NotWritable {
            path: path.to_owned(),
            source,
        })?;
    let mut waits = 0;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(TryLockError::WouldBlock) => {
                let by = read_server_info(path);
                // A server that was killed while it started a program is gone a moment before its lock is: what it forked has it too
                // until it is that program.
                if by.as_ref().is_some_and(|by| !is_alive(by.pid)) && waits < MAX_LOCK_WAITS {
                    waits += 1;
                    std::thread::sleep(LOCK_WAIT);
                    continue;
                }
                let path = path.to_owned();
                return Err(DataDirError::InUse { by, path });
            }
            Err(TryLockError::Error(source)) => {
                return Err(StorageFailure::io("lock data directory", source).into());
            }
        }
    }
}

impl DataDir {
    /// Makes the directory (mode 0700) if it is missing, checks that it can be written and has space, and locks it.
    /// Blocks for some file operations; call it at start.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let not_writable = |source| DataDirError::NotWritable {
            path: path.to_owned(),
            source,
        };
        if path.exists() && !path.is_dir() {
            return Err(DataDirError::NotADirectory {
                path: path.to_owned(),
            });
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(not_writable)?;
        let path = path.canonicalize().map_err(not_writable)?;
        let lock = lock(&path)?;
        let data_dir = Self { path, _lock: lock };
        data_dir.check_space()?;
        // What a dead server said about itself must not mislead anyone while this one starts.
        match std::fs::remove_file(data_dir.server_json()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(DataDirError::NotWritable {
                    path: data_dir.path,
                    source: error,
                });
            }
            _ => {}
        }
        for part in [data_dir.sessions(), data_dir.forge(), data_dir.sandboxes()] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&part)
                .map_err(|source| DataDirError::NotWritable { path: part, source })?;
        }
        Ok(data_dir)
    }

    /// Absolute, without symbolic links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sessions' files.
    pub fn sessions(&self) -> PathBuf {
        self.path.join(SESSIONS)
    }

    /// The catalog database (a file).
    pub fn catalog(&self) -> PathBuf {
        self.path.join(CATALOG)
    }

    /// The key that encrypts secrets in the catalog (a file, mode 0600).
    pub fn secret_key(&self) -> PathBuf {
        self.path.join(SECRET_KEY)
    }

    /// Repositories and pull requests of the built-in forge.
    pub fn forge(&self) -> PathBuf {
        self.path.join(FORGE)
    }

    /// Run directories of sandboxes.
    pub fn image_logs(&self) -> PathBuf {
        self.path.join(IMAGE_LOGS)
    }

    /// Sandboxes, layers and snapshots (a directory).
    pub fn sandboxes(&self) -> PathBuf {
        self.path.join(SANDBOXES)
    }

    /// Where the running server says how to reach it (a file, see [`ServerInfo`]).
    pub fn server_json(&self) -> PathBuf {
        self.path.join("server.json")
    }

    /// The API token of this machine's command line (a file, mode 0600).
    pub fn cli_token(&self) -> PathBuf {
        self.path.join("cli-token")
    }

    /// Bytes the server may still write on the directory's disk.
    pub fn free_bytes(&self) -> Result<u64, StorageFailure> {
        let stat = rustix::fs::statvfs(&self.path)
            .map_err(|errno| StorageFailure::io("measure free space", errno.into()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Writes `server.json` in one step, mode 0600.
    pub fn write_server_info(&self, info: &ServerInfo) -> Result<(), StorageFailure> {
        let text = serde_json::to_vec_pretty(info).map_err(|source| StorageFailure::Io {
            action: "encode server.json",
            source: std::sync::Arc::new(source),
        })?;
        self.write_private("server.json", &text)
    }

    /// Removes `server.json`; call it when the server no longer answers.
    pub fn clear_server_info(&self) -> Result<(), StorageFailure> {
        match std::fs::remove_file(self.server_json()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(StorageFailure::io("remove server.json", error))
            }
            _ => Ok(()),
        }
    }

    /// Writes the command line's token in one step, mode 0600.
    pub fn write_cli_token(&self, token: &greenroom_stdx::secret::Secret) -> Result<(), StorageFailure> {
        self.write_private("cli-token", token.expose().as_bytes())
    }

    fn write_private(&self, name: &str, bytes: &[u8]) -> Result<(), StorageFailure> {
        let fresh = self.path.join(format!("{name}.new"));
        let mut file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)
            .map_err(|error| StorageFailure::io("create file in data directory", error))?;
        file.write_all(bytes)
            .and_then(|()| file.sync_all())
            .map_err(|error| StorageFailure::io("write file in data directory", error))?;
        std::fs::rename(&fresh, self.path.join(name))
            .map_err(|error| StorageFailure::io("replace file in data directory", error))
    }

    fn check_space(&self) -> Result<(), DataDirError> {
        let free_bytes = self.free_bytes()?;
        if free_bytes < MIN_FREE_BYTES {
            return Err(DataDirError::DiskFull {
                path: self.path.clone(),
                free_bytes,
            });
        }
        Ok(())
    }
}

/// Who serves the data directory at `path`, if a server says so. It may be dead; only the lock is proof.
pub fn read_server_info(path: &Path) -> Option<ServerInfo> {
    let text = std::fs::read(path.join("server.json")).ok()?;
    serde_json::from_slice(&text).ok()
}
