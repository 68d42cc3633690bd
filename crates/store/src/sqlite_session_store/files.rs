//! Where sessions' files lie, and how one is made, opened, moved aside and deleted. Blocks; for the writer threads only.

use super::log_file::LogFile;
use super::schema::SCHEMA;
use crate::database::{self, Missing};
use crate::failure::StorageFailure;
use crate::session_log::LogFault;
use greenroom_protocol::id::SessionId;
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

const FILE: &str = "session.db";
const DAMAGED: &str = "session.db.damaged-";

/// `<root>/<last two characters of the id>/<id>/session.db`: ids begin with their time, so only their end spreads.
#[derive(Debug)]
pub(super) struct SessionFiles {
    root: PathBuf,
    check_max_bytes: u64,
}

/// Where the file of a session lies in the directory of all.
pub fn session_file(root: &Path, session: &SessionId) -> PathBuf {
    dir(root, session).join(FILE)
}

fn dir(root: &Path, session: &SessionId) -> PathBuf {
    let id = session.as_str();
    root.join(&id[id.len() - 2..]).join(id)
}

impl SessionFiles {
    pub fn open(root: PathBuf, check_max_bytes: u64) -> Result<Self, StorageFailure> {
        make_dir(&root).map_err(|error| StorageFailure::io("make sessions directory", error))?;
        Ok(Self {
            root,
            check_max_bytes,
        })
    }

    fn dir(&self, session: &SessionId) -> PathBuf {
        dir(&self.root, session)
    }

    /// Makes the file complete under another name, then renames it: a `session.db` that exists is whole.
    pub fn create(&self, session: &SessionId) -> Result<(), LogFault> {
        let dir = self.dir(session);
        let path = dir.join(FILE);
        let failed = |error| StorageFailure::io("make session file", error);
        if path.try_exists().map_err(failed)? {
            return Ok(());
        }
        make_dir(&dir).map_err(failed)?;
        if let Some(moved_to) = damaged_file(&dir) {
            return Err(StorageFailure::Corrupt {
                moved_to: Some(moved_to),
            }
            .into());
        }
        let fresh = dir.join("new.db");
        remove_if_there(&fresh).map_err(failed)?;
        database::build(&fresh, &SCHEMA, |db| {
            db.execute(
                "INSERT INTO lease (id, session_id, epoch, expires_at_ms) VALUES (1, ?1, 0, 0)",
                [session.as_str()],
            )?;
            Ok(())
        })?;
        let publish = || {
            File::open(&fresh)?.sync_all()?;
            fs::rename(&fresh, &path)?;
            // Names are durable only when their directories are; the upper two may be new as well.
            for dir in dir.ancestors().take(3) {
                File::open(dir)?.sync_all()?;
            }
            Ok(())
        };
        publish().map_err(failed)?;
        Ok(())
    }

    pub fn open_log(&self, session: &SessionId) -> Result<LogFile, LogFault> {
        let dir = self.dir(session);
        let path = dir.join(FILE);
        let size = match fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(match damaged_file(&dir) {
                    Some(moved_to) => StorageFailure::Corrupt {
                        moved_to: Some(moved_to),
                    }
                    .into(),
                    None => LogFault::Unknown,
                });
            }
            Err(error) => return Err(StorageFailure::io("inspect session file", error).into()),
        };
        let opened = database::open(&path, &SCHEMA, Missing::Refuse).and_then(|db| {
            let file = LogFile::new(db);
            let checked = file.check_owner(session).and_then(|()| {
                if size <= self.check_max_bytes {
                    file.quick_check()
                } else {
                    Ok(())
                }
            });
            if let Err(failure) = checked {
                file.close_untouched();
                return Err(failure);
            }
            Ok(file)
        });
        opened.map_err(|failure| match failure {
            StorageFailure::Corrupt { .. } => self.quarantine(session).into(),
            other => LogFault::Storage(other),
        })
    }

    /// Moves a damaged file aside with its write-ahead log, so that a person can try to save something. Returns what to
    /// tell callers.
    pub fn quarantine(&self, session: &SessionId) -> StorageFailure {
        let dir = self.dir(session);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let moved_to = dir.join(format!("{DAMAGED}{}", since.as_millis()));
        // The log first: a database without its log would look whole and have lost events.
        for suffix in ["-wal", "-shm", ""] {
            let (from, to) = (
                with_suffix(&dir.join(FILE), suffix),
                with_suffix(&moved_to, suffix),
            );
            if let Err(error) = fs::rename(&from, &to)
                && error.kind() != ErrorKind::NotFound
            {
                tracing::error!(%session, path = %from.display(), %error, "damaged session file cannot be moved aside");
                return StorageFailure::Corrupt { moved_to: None };
            }
        }
        tracing::error!(%session, moved_to = %moved_to.display(), "session file is damaged and was moved aside");
        StorageFailure::Corrupt {
            moved_to: Some(moved_to),
        }
    }

    /// Deletes the session's directory.
    pub fn remove(&self, session: &SessionId) -> Result<(), LogFault> {
        let dir = self.dir(session);
        let failed = |error| StorageFailure::io("delete session files", error);
        // The database goes first and at once: what a crash leaves behind is no session any more.
        match fs::remove_file(dir.join(FILE)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error).into()),
            _ => {}
        }
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            other => other.map_err(failed)?,
        }
        for parent in dir.ancestors().skip(1).take(1) {
            File::open(parent)
                .and_then(|parent| parent.sync_all())
                .map_err(failed)?;
        }
        Ok(())
    }
}

fn make_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn damaged_file(dir: &Path) -> Option<PathBuf> {
    let mut damaged: Vec<PathBuf> = fs::read_dir(dir)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name()
                .and_then(|name| name.to_str())
                .and_then(|name| name.strip_prefix(DAMAGED))
                .is_some_and(|at| at.bytes().all(|byte| byte.is_ascii_digit()))
        })
        .collect();
    damaged.sort();
    damaged.pop()
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        match fs::remove_file(with_suffix(path, suffix)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
