//! `greenroom backup` and `greenroom restore`: a data directory as it is, somewhere else. No server is asked: one may run or not.
//!
//! The order keeps what is copied whole although a server goes on: the catalog first, then what it names. What came later is not in it; what
//! went meanwhile is taken out of its copy. `backup.json` comes last, and without it there is no backup.

use crate::arguments::{BackupArguments, Global, RestoreArguments};
use crate::command::config;
use crate::config::Config;
use crate::failure::{Exit, Failure};
use crate::terminal::{Span, Style, Terminal};
use greenroom_host::{copy_snapshot, remove_tree};
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::id::SnapshotId;
use greenroom_stdx::clock::Clock;
use greenroom_store::backup::{self, Contents, session_file};
use greenroom_store::data_dir::{self, CATALOG, FORGE, IMAGE_LOGS, LOCK, SANDBOXES, SECRET_KEY, SESSIONS};
use greenroom_store::failure::StorageFailure;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Says that a backup is whole, and what is in it.
const MARK: &str = "backup.json";
const FORMAT: u32 = 1;

/// What is copied of a data directory beside snapshots.
const PARTS: [&str; 5] = [SECRET_KEY, IMAGE_LOGS, FORGE, SESSIONS, CATALOG];
const SNAPSHOTS: &str = "sandboxes/images";

/// What is being restored, until it is whole.
const DRAFT: &str = ".restoring";

#[derive(Debug, Serialize, Deserialize)]
struct Mark {
    format: u32,
    created_at_ms: i64,
    sessions: usize,
    repositories: usize,
    snapshots: usize,
    /// What could not be read, one sentence each.
    lacking: Vec<String>,
}

/// Copies the data directory to a new place.
pub async fn backup(
    global: &Global,
    arguments: BackupArguments,
    terminal: Terminal,
) -> Result<Exit, Failure> {
    let source = Source::of(&config::load(global, terminal)?);
    let target = arguments.directory;
    let mark = blocking(move || source.back_up(&target)).await?;
    tell("backed up", &mark, arguments.json, terminal)?;
    match mark.lacking.is_empty() {
        true => Ok(Exit::Success),
        false => Err(Failure::new(
            "backup_lacks_something",
            "the backup is whole but for what could not be read",
        )
        .with_hint("See the lines above; a session whose file is damaged is reported by the server, too.")),
    }
}

/// Makes a data directory of a backup.
pub async fn restore(
    global: &Global,
    arguments: RestoreArguments,
    terminal: Terminal,
) -> Result<Exit, Failure> {
    let place = Source::of(&config::load(global, terminal)?);
    let from = arguments.directory;
    let mark = blocking(move || place.restore(&from)).await?;
    tell("restored", &mark, arguments.json, terminal)?;
    Ok(Exit::Success)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(Failure::new("internal", "copying ended early")))
}

fn tell(what: &str, mark: &Mark, is_json: bool, terminal: Terminal) -> Result<(), Failure> {
    for lacking in &mark.lacking {
        terminal.note(&[Span::new(Style::Yellow, lacking.clone())]);
    }
    if is_json {
        return terminal.json(mark);
    }
    let count = |number: usize, one: &str, more: &str| match number {
        1 => format!("1 {one}"),
        _ => format!("{number} {more}"),
    };
    terminal.line(&[Span::plain(format!(
        "{what} {}, {} and {}",
        count(mark.sessions, "session", "sessions"),
        count(mark.repositories, "repository", "repositories"),
        count(mark.snapshots, "snapshot", "snapshots"),
    ))])
}

/// Where a server keeps what it has.
struct Source {
    data: PathBuf,
    /// Of layers and snapshots.
    images: PathBuf,
    /// Whether these lie in the data directory.
    has_images: bool,
}

impl Source {
    fn of(config: &Config) -> Self {
        let data = config.server.data_dir.clone();
        match &config.sandbox.state_dir {
            Some(state) => Self {
                images: state.join("images"),
                data,
                has_images: false,
            },
            None => Self {
                images: data.join(SNAPSHOTS),
                data,
                has_images: true,
            },
        }
    }

    fn back_up(&self, target: &Path) -> Result<Mark, Failure> {
        if !self.data.join(CATALOG).is_file() {
            let message = format!(
                "{} is no data directory: it has no {CATALOG}",
                self.data.display()
            );
            return Err(Failure::new("data_dir_missing", message)
                .with_hint("Name the server's with GREENROOM_DATA_DIR, `server.data_dir` or --config."));
        }
        claim(target, "backup_target_not_empty")?;
        let catalog = target.join(CATALOG);
        let copied = backup::copy_database(&self.data.join(CATALOG), &catalog);
        copied.map_err(|failure| of_storage(&failure))?;
        let named = backup::contents(&catalog).map_err(|failure| of_storage(&failure))?;
        let mut lacking = Contents::default();
        let mut said = Vec::new();
        // At once: those of a session at work soon make room for newer ones.
        let mut has_files = HashSet::new();
        for (id, session) in &named.snapshots {
            match copy_snapshot(&self.images, &target.join(SNAPSHOTS), id) {
                Ok(()) => drop(has_files.insert(session)),
                Err(error) => {
                    let problem = error.problem();
                    if problem.code == "disk_full" {
                        return Err(problem.into());
                    }
                    lacking.snapshots.push((id.clone(), session.clone()));
                }
            }
        }
        // An older one that went is nothing to speak of.
        let without: BTreeSet<_> = lacking.snapshots.iter().map(|(_, session)| session).collect();
        for session in without.into_iter().filter(|session| !has_files.contains(session)) {
            said.push(format!(
                "the files of session {session} are left out: none of its snapshots could be copied; what it pushed is there"
            ));
        }
        for id in &named.sessions {
            let (from, to) = (&self.data.join(SESSIONS), &target.join(SESSIONS));
            let (from, to) = (session_file(from, id), session_file(to, id));
            // Deleted since the catalog was copied, or moved aside because it is damaged.
            let copied = match from.exists() {
                true => {
                    make_directory(to.parent().unwrap_or(target))?;
                    backup::copy_database(&from, &to).and_then(|()| backup::damaged_files(&to))
                }
                false if is_damaged(&from) => Err(StorageFailure::Corrupt { moved_to: None }),
                false => {
                    lacking.sessions.push(id.clone());
                    continue;
                }
            };
            match copied {
                Ok(damaged) => said.extend(damaged.iter().map(|name| {
                    format!("session {id} is there, but its file {name} is damaged, here and in the backup")
                })),
                Err(failure @ (StorageFailure::Full | StorageFailure::ReadOnly)) => {
                    return Err(of_storage(&failure));
                }
                Err(failure) => {
                    said.push(format!("session {id} is left out: {}", failure.problem().message));
                    lacking.sessions.push(id.clone());
                    remove_tree(to.parent().unwrap_or(&to)).map_err(|error| of_files(&to, &error))?;
                }
            }
        }
        for name in [SECRET_KEY, IMAGE_LOGS, FORGE] {
            copy(&self.data.join(name), &target.join(name), Path::new(""))?;
        }
        backup::forget(&catalog, &lacking).map_err(|failure| of_storage(&failure))?;
        let mark = Mark {
            format: FORMAT,
            created_at_ms: Clock::system().now_ms(),
            sessions: named.sessions.len() - lacking.sessions.len(),
            repositories: repositories(&target.join(FORGE)),
            snapshots: named.snapshots.len() - lacking.snapshots.len(),
            lacking: said,
        };
        sync(target)?;
        // Plain data always encodes.
        write(
            &target.join(MARK),
            &serde_json::to_vec_pretty(&mark).unwrap_or_default(),
        )?;
        sync(target)?;
        Ok(mark)
    }

    fn restore(&self, from: &Path) -> Result<Mark, Failure> {
        let mark = fs::read(from.join(MARK)).ok();
        let mark: Option<Mark> = mark.and_then(|text| serde_json::from_slice(&text).ok());
        let Some(mark) = mark.filter(|mark| mark.format == FORMAT) else {
            let message = format!("{} holds no backup that is whole", from.display());
            return Err(Failure::new("backup_unusable", message).with_hint(
                "`greenroom backup` writes backup.json last; a newer Greenroom may write another format.",
            ));
        };
        make_directory(&self.data)?;
        // No server starts there meanwhile.
        let _lock = data_dir::lock(&self.data).map_err(|error| error.problem())?;
        // Inside: the data directory may be a file system of its own.
        let draft = self.data.join(DRAFT);
        if draft.exists() && !self.data.join(CATALOG).exists() {
            // Of a restoring that was cut off. Whoever started a server there since then has a catalog.
            for name in PARTS.iter().chain(&[SANDBOXES, DRAFT]) {
                let path = self.data.join(name);
                remove_tree(&path).map_err(|error| of_files(&path, &error))?;
            }
        }
        claim(&self.data, "data_dir_not_empty")?;
        make_directory(&draft)?;
        for name in PARTS {
            copy(&from.join(name), &draft.join(name), Path::new(""))?;
        }
        let images = match self.has_images {
            true => draft.join(SNAPSHOTS),
            false => self.images.clone(),
        };
        let snapshots = from.join(SNAPSHOTS).join("snapshots");
        for id in names(&snapshots)?.iter().filter_map(|name| snapshot_id(name)) {
            copy_snapshot(&from.join(SNAPSHOTS), &images, &id).map_err(|error| error.problem())?;
        }
        sync(&draft)?;
        if !self.has_images && images.exists() {
            sync(&images)?;
        }
        // The catalog last: without it there is no data directory.
        for name in [SANDBOXES].iter().chain(PARTS.iter()) {
            match fs::rename(draft.join(name), self.data.join(name)) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                renamed => renamed.map_err(|error| of_files(&self.data, &error))?,
            }
        }
        fs::remove_dir(&draft).map_err(|error| of_files(&draft, &error))?;
        sync(&self.data)?;
        Ok(mark)
    }
}

/// Makes a directory that nobody uses yet, or finds an empty one.
fn claim(directory: &Path, code: &str) -> Result<(), Failure> {
    make_directory(directory)?;
    match names(directory)?.iter().all(|name| name == LOCK) {
        // What will lie there is its owner's alone.
        true => fs::set_permissions(directory, Permissions::from_mode(0o700))
            .map_err(|error| of_files(directory, &error)),
        false => Err(
            Failure::new(code, format!("{} is not empty", directory.display()))
                .with_hint("Choose a directory that does not exist yet."),
        ),
    }
}

/// Whether a session's file was moved aside.
fn is_damaged(file: &Path) -> bool {
    let beside = file.parent().map(names).and_then(Result::ok).unwrap_or_default();
    beside
        .iter()
        .any(|name| name.to_string_lossy().contains(".damaged-"))
}

fn snapshot_id(name: &OsStr) -> Option<SnapshotId> {
    name.to_str()?.strip_suffix(".json")?.parse().ok()
}

fn repositories(forge: &Path) -> usize {
    let names = names(forge).unwrap_or_default();
    names
        .iter()
        .filter(|name| name.to_string_lossy().ends_with(".git"))
        .count()
}

/// Copies files and directories as they are; what is not there, or goes meanwhile, is left out. Of a repository the refs come before the
/// objects: what a ref names is there before it is named, and nothing removes objects. `below`: where this is in what is copied.
fn copy(from: &Path, to: &Path, below: &Path) -> Result<(), Failure> {
    let failed = |error: io::Error| of_files(from, &error);
    let metadata = match fs::symlink_metadata(from) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        metadata => metadata.map_err(failed)?,
    };
    if metadata.is_file() {
        return match fs::copy(from, to) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            copied => copied.map(drop).map_err(failed),
        };
    }
    if !metadata.is_dir() {
        return Ok(());
    }
    make_directory(to)?;
    let mut names = names(from)?;
    // Loose refs before packed ones: whoever packs them writes these first.
    names.sort_by_key(|name| (name == "objects", name == "packed-refs", name.clone()));
    for name in names
        .iter()
        .filter(|name| !is_passing(below, &name.to_string_lossy()))
    {
        copy(&from.join(name), &to.join(name), &below.join(name))?;
    }
    Ok(())
}

/// Whether something in the forge is a program's that is at work: git's drafts of objects, its locks, and repositories that are being made.
/// Repositories and branches may have names that only look like such.
fn is_passing(below: &Path, name: &str) -> bool {
    let mut parts = below.iter().map(|part| part.to_string_lossy());
    let is_in_repository = parts.next().is_some_and(|first| first.ends_with(".git"));
    let is_object = parts.next().is_some_and(|second| second == "objects");
    match (is_in_repository, is_object) {
        (false, _) => name == ".tmp",
        (true, true) => name.starts_with("tmp_") || name.starts_with("incoming-") || name.ends_with(".lock"),
        // No ref ends so.
        (true, false) => name.ends_with(".lock"),
    }
}

/// Names in a directory; one that is not there has none.
fn names(directory: &Path) -> Result<Vec<OsString>, Failure> {
    let read = || {
        let entries = match fs::read_dir(directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        entries.map(|entry| Ok(entry?.file_name())).collect()
    };
    read().map_err(|error: io::Error| of_files(directory, &error))
}

fn make_directory(path: &Path) -> Result<(), Failure> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| of_files(path, &error))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let opened = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path);
    let written = opened.and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    written.map_err(|error| of_files(path, &error))
}

/// Waits until all on the disk of `path` is there for good.
fn sync(path: &Path) -> Result<(), Failure> {
    let synced = File::open(path).and_then(|opened| Ok(rustix::fs::syncfs(&opened)?));
    synced.map_err(|error| of_files(path, &error))
}

fn of_storage(failure: &StorageFailure) -> Failure {
    Failure::from(failure.problem())
}

fn of_files(path: &Path, error: &io::Error) -> Failure {
    let name = path.file_name().unwrap_or(OsStr::new("/")).display().to_string();
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Failure::from(
            Problem::transient("disk_full", "The disk is full.").with_hint("Free some space and try again."),
        ),
        _ => Failure::new("copy_failed", format!("{name}: {error}"))
            .with_hint(format!("It is about {}.", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::is_passing;
    use std::path::Path;

    #[test]
    fn only_what_is_under_way_is_left_out() {
        for (below, name, expected) in [
            ("", ".tmp", true),
            ("", "tmp_scripts.git", false),
            ("", "incoming-mail.git", false),
            ("a.git", "packed-refs.lock", true),
            ("a.git", "objects", false),
            ("a.git/refs/heads", "tmp_fix", false),
            ("a.git/refs/heads", "main.lock", true),
            ("a.git/refs/heads/objects", "incoming-x", false),
            ("a.git/objects", "tmp_objdir-incoming-x", true),
            ("a.git/objects/4b", "tmp_obj_x", true),
            ("a.git/objects/pack", "pack-x.pack", false),
            ("xx/ses_x", "x.lock", false),
        ] {
            assert_eq!(is_passing(Path::new(below), name), expected, "{below} {name}");
        }
    }
}
