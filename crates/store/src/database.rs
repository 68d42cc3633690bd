//! SQLite as this crate uses it: opening, migrating, naming failures, and a writer thread whose callers share transactions.
//! Knows no table.

use crate::failure::{StorageFailure, is_crowded_now};
use rusqlite::{Connection, Error, ErrorCode, OpenFlags, ffi};
use rustix::fs::StatVfsMountFlags;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Calls that may wait for the catalog's threads before callers have to wait for room.
const QUEUE: usize = 1024;
/// Most calls that share one transaction.
const GROUP: usize = 128;

/// The tables of one kind of file.
#[derive(Debug)]
pub(crate) struct Schema {
    /// Marks the file's kind (<https://www.sqlite.org/pragma.html#pragma_application_id>).
    pub application_id: i32,
    /// `migrations[n]` leads from `user_version` n to n + 1.
    pub migrations: &'static [&'static str],
}

/// Whether a file that is missing is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    Create,
    Refuse,
}

/// What an SQLite error means for the caller.
pub(crate) fn failure_of(action: &'static str, error: Error) -> StorageFailure {
    match &error {
        Error::SqliteFailure(failure, _) => match failure.code {
            ErrorCode::DiskFull => StorageFailure::Full,
            // The shared-memory file could not grow: SQLite gives ENOSPC this code.
            ErrorCode::SystemIoFailure if failure.extended_code == ffi::SQLITE_IOERR_SHMSIZE => {
                StorageFailure::Full
            }
            // SQLite does not say why; what it cannot open for writing it takes for read-only.
            ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::SystemIoFailure if is_crowded_now() => {
                StorageFailure::Crowded
            }
            ErrorCode::ReadOnly => StorageFailure::ReadOnly,
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => {
                tracing::error!(action, %error, "database file is damaged");
                StorageFailure::Corrupt { moved_to: None }
            }
            _ => io_failure(action, error),
        },
        // What is stored cannot be what we stored.
        Error::FromSqlConversionFailure(..)
        | Error::InvalidColumnType(..)
        | Error::IntegralValueOutOfRange(..)
        | Error::Utf8Error(..) => {
            tracing::error!(action, %error, "database row is damaged");
            StorageFailure::Corrupt { moved_to: None }
        }
        _ => io_failure(action, error),
    }
}

fn io_failure(action: &'static str, error: Error) -> StorageFailure {
    StorageFailure::Io {
        action,
        source: Arc::new(error),
    }
}

/// Opens a file for reading and writing, durable at each commit, and brings its tables up to date.
pub(crate) fn open(path: &Path, schema: &Schema, missing: Missing) -> Result<Connection, StorageFailure> {
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if missing == Missing::Create {
        flags |= OpenFlags::SQLITE_OPEN_CREATE;
    }
    let opened = Connection::open_with_flags(path, flags).and_then(|db| configure(&db).map(|()| db));
    let mut db = opened.map_err(|error| {
        // SQLite only says that it cannot open the write-ahead log's files; the file system knows why.
        let is_unclear = error.sqlite_error_code() == Some(ErrorCode::CannotOpen);
        match rustix::fs::statvfs(path) {
            Ok(disk) if is_unclear && disk.f_flag.contains(StatVfsMountFlags::RDONLY) => {
                StorageFailure::ReadOnly
            }
            Ok(disk) if is_unclear && disk.f_bavail == 0 => StorageFailure::Full,
            _ => failure_of("open database", error),
        }
    })?;
    migrate(&mut db, schema, missing)?;
    Ok(db)
}

/// Makes a new file as one piece, without syncing: the caller syncs it and gives it its name.
pub(crate) fn build(
    path: &Path,
    schema: &Schema,
    fill: impl FnOnce(&Connection) -> rusqlite::Result<()>,
) -> Result<(), StorageFailure> {
    let failed = |e| failure_of("make database", e);
    let mut db = Connection::open(path).map_err(failed)?;
    db.execute_batch("PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF;")
        .map_err(failed)?;
    migrate(&mut db, schema, Missing::Create)?;
    fill(&db).map_err(failed)?;
    // Stays in the file's header.
    db.execute_batch("PRAGMA journal_mode = WAL;").map_err(failed)?;
    db.close().map_err(|(_, error)| failed(error))
}

fn configure(db: &Connection) -> rusqlite::Result<()> {
    // Another process that looks (a backup, a person with `sqlite3`) must not fail a write.
    db.busy_timeout(Duration::from_secs(10))?;
    db.set_prepared_statement_cache_capacity(32);
    db.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -256;
         PRAGMA journal_size_limit = 1048576; PRAGMA wal_autocheckpoint = 400; PRAGMA foreign_keys = ON;
         PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;",
    )
}

fn migrate(db: &mut Connection, schema: &Schema, missing: Missing) -> Result<(), StorageFailure> {
    let known = schema.migrations.len();
    let (application_id, found): (i32, i64) = db
        .query_row(
            "SELECT application_id, user_version FROM pragma_application_id, pragma_user_version",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .map_err(|e| failure_of("read schema version", e))?;
    // An empty file is a new one only where new ones are made; elsewhere its contents were lost.
    let is_new = missing == Missing::Create && application_id == 0 && found == 0;
    let foreign = application_id != schema.application_id && !is_new;
    let start = match usize::try_from(found) {
        Ok(found) if !foreign => found,
        _ => return Err(StorageFailure::Corrupt { moved_to: None }),
    };
    if start > known {
        return Err(StorageFailure::TooNew {
            found,
            known: i64::try_from(known).unwrap_or(i64::MAX),
        });
    }
    for (version, migration) in schema.migrations.iter().enumerate().skip(start) {
        let mut apply = || -> rusqlite::Result<()> {
            let tx = db.transaction()?;
            tx.execute_batch(migration)?;
            tx.pragma_update(None, "application_id", schema.application_id)?;
            tx.pragma_update(
                None,
                "user_version",
                i64::try_from(version + 1).unwrap_or(i64::MAX),
            )?;
            tx.commit()
        };
        apply().map_err(|e| failure_of("migrate database", e))?;
        tracing::debug!(version = version + 1, "migrated database");
    }
    Ok(())
}

/// What a call does once it is known whether its transaction was committed: answer its caller.
pub(crate) type Announce = Box<dyn FnOnce(Result<(), StorageFailure>) + Send>;

/// Work inside a shared transaction, each in a savepoint of its own. Given an error, it only passes it on.
type Job = Box<dyn FnOnce(Result<&Connection, StorageFailure>) -> Announce + Send>;

/// One database file with a thread that writes and a thread that reads.
#[derive(Debug)]
pub(crate) struct Database {
    writer: Option<mpsc::Sender<Job>>,
    reader: Option<mpsc::Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Database {
    /// Opens or makes the file.
    pub async fn open(path: PathBuf, schema: &'static Schema) -> Result<Self, StorageFailure> {
        let (opened_tx, opened) = oneshot::channel();
        let (writer, writer_jobs) = mpsc::channel(QUEUE);
        let (reader, reader_jobs) = mpsc::channel(QUEUE);
        let reader_path = path.clone();
        let write_thread = spawn("catalog-writer", move || {
            let connections = open(&path, schema, Missing::Create).and_then(|writer| {
                let reader = open(&reader_path, schema, Missing::Refuse)?;
                reader
                    .pragma_update(None, "query_only", true)
                    .map_err(|e| failure_of("configure database", e))?;
                Ok((writer, reader))
            });
            let (writer, reader) = match connections {
                Ok(connections) => connections,
                Err(failure) => {
                    let _ = opened_tx.send(Err(failure));
                    return;
                }
            };
            if opened_tx.send(Ok(reader)).is_ok() {
                write_loop(&writer, writer_jobs);
            }
        })?;
        let reader_connection = opened.await.unwrap_or(Err(StorageFailure::Closed))?;
        let read_thread = spawn("catalog-reader", move || {
            read_loop(&reader_connection, reader_jobs)
        })?;
        Ok(Self {
            writer: Some(writer),
            reader: Some(reader),
            threads: vec![read_thread, write_thread],
        })
    }

    /// Runs `work` in a transaction, perhaps together with others; returns when it is on disk.
    pub async fn write<T, E>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StorageFailure> + Send + 'static,
    {
        Self::ask(self.writer.as_ref(), |db| in_savepoint(db, || work(db))).await
    }

    /// Runs `work`, which must only read; sees everything that was written before the call.
    pub async fn read<T, E>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StorageFailure> + Send + 'static,
    {
        Self::ask(self.reader.as_ref(), work).await
    }

    async fn ask<T, E>(
        thread: Option<&mpsc::Sender<Job>>,
        work: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StorageFailure> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |db| {
            let result = db.map_err(E::from).and_then(work);
            Box::new(move |committed| {
                // A caller that went away does not want to know.
                let _ = answer.send(and_committed(result, committed));
            })
        });
        let thread = thread.ok_or(StorageFailure::Closed)?;
        thread.send(job).await.map_err(|_| StorageFailure::Closed)?;
        answered.await.unwrap_or(Err(StorageFailure::Closed.into()))
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.writer = None;
        self.reader = None;
        for thread in self.threads.drain(..) {
            // Waits for calls under way, so that the file is closed when this returns.
            let _ = thread.join();
        }
    }
}

/// A result that counts only if it was committed; an error of the call itself says more than the commit's.
pub(crate) fn and_committed<T, E: From<StorageFailure>>(
    result: Result<T, E>,
    committed: Result<(), StorageFailure>,
) -> Result<T, E> {
    let value = result?;
    committed?;
    Ok(value)
}

/// Undoes what `work` wrote if it fails, without harm to others in the same transaction.
pub(crate) fn in_savepoint<T, E: From<StorageFailure>>(
    db: &Connection,
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    let run = |sql| {
        db.prepare_cached(sql)
            .and_then(|mut statement| statement.execute([]))
            .map_err(|e| failure_of("use savepoint", e))
    };
    run("SAVEPOINT call")?;
    let result = work();
    // A full disk can end the whole transaction; then there is no savepoint to go back to.
    if !db.is_autocommit() {
        if result.is_err() {
            run("ROLLBACK TO call")?;
        }
        run("RELEASE call")?;
    }
    result
}

/// Runs jobs in one transaction and says how it ended. Jobs behind one that broke the transaction only hear of it.
pub(crate) fn in_transaction<J>(
    db: &Connection,
    jobs: Vec<J>,
    mut run: impl FnMut(J, Result<(), StorageFailure>) -> Announce,
) -> (Vec<Announce>, Result<(), StorageFailure>) {
    let statement = |sql| {
        db.prepare_cached(sql)
            .and_then(|mut statement| statement.execute([]))
            .map(|_| ())
            .map_err(|e| failure_of("commit", e))
    };
    let mut state = statement("BEGIN IMMEDIATE");
    let mut announcements = Vec::with_capacity(jobs.len());
    for job in jobs {
        announcements.push(run(job, state.clone()));
        if state.is_ok() && db.is_autocommit() {
            // Only a full disk, an I/O error or no memory does this; the job itself knows which, the others need one answer.
            state = Err(StorageFailure::Full);
        }
    }
    if state.is_ok() {
        state = statement("COMMIT");
    }
    if !db.is_autocommit() {
        let _ = statement("ROLLBACK");
    }
    (announcements, state)
}

fn write_loop(db: &Connection, mut jobs: mpsc::Receiver<Job>) {
    while let Some(first) = jobs.blocking_recv() {
        let mut group = vec![first];
        while group.len() < GROUP
            && let Ok(next) = jobs.try_recv()
        {
            group.push(next);
        }
        let (announcements, committed) = in_transaction(db, group, |job, state| job(state.map(|()| db)));
        for announce in announcements {
            announce(committed.clone());
        }
    }
}

fn read_loop(db: &Connection, mut jobs: mpsc::Receiver<Job>) {
    while let Some(job) = jobs.blocking_recv() {
        job(Ok(db))(Ok(()));
    }
}

/// Starts a named thread.
pub(crate) fn spawn(
    name: &str,
    body: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, StorageFailure> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map_err(|error| StorageFailure::io("start database thread", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "CREATE TABLE notes (text TEXT NOT NULL) STRICT;";
    const SECOND: &str = "ALTER TABLE notes ADD COLUMN at_ms INTEGER NOT NULL DEFAULT 7;";
    const BROKEN: &str = "CREATE TABLE half (x INTEGER) STRICT; CREATE TABLE notes (x INTEGER) STRICT;";

    fn schema(migrations: &'static [&'static str]) -> Schema {
        Schema {
            application_id: 1,
            migrations,
        }
    }

    #[test]
    fn older_files_are_brought_up_to_date_with_their_contents() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        let old = open(&path, &schema(&[FIRST]), Missing::Create).unwrap();
        old.execute("INSERT INTO notes (text) VALUES ('kept')", [])
            .unwrap();
        drop(old);
        for _ in 0..2 {
            let new = open(&path, &schema(&[FIRST, SECOND]), Missing::Refuse).unwrap();
            let row: (String, i64) = new
                .query_row("SELECT text, at_ms FROM notes", [], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })
                .unwrap();
            assert_eq!(row, ("kept".to_owned(), 7));
        }
        assert!(matches!(
            open(&path, &schema(&[FIRST]), Missing::Refuse),
            Err(StorageFailure::TooNew { found: 2, known: 1 })
        ));
    }

    #[test]
    fn a_migration_that_fails_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        drop(open(&path, &schema(&[FIRST]), Missing::Create).unwrap());
        assert!(open(&path, &schema(&[FIRST, BROKEN]), Missing::Refuse).is_err());
        let file = open(&path, &schema(&[FIRST]), Missing::Refuse).unwrap();
        let tables: i64 = file
            .query_row(
                "SELECT count(*) FROM sqlite_schema WHERE name = 'half'",
                [],
                |row| row.get(0),
            )
            .unwrap();
        assert_eq!(tables, 0);
    }

    #[test]
    fn commits_wait_for_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let file = open(&dir.path().join("a.db"), &schema(&[FIRST]), Missing::Create).unwrap();
        for (pragma, expected) in [
            ("journal_mode", "wal"),
            ("synchronous", "2"),
            ("cache_size", "-256"),
        ] {
            let value: rusqlite::types::Value = file
                .query_row(&format!("PRAGMA {pragma}"), [], |row| row.get(0))
                .unwrap();
            let value = match value {
                rusqlite::types::Value::Integer(number) => number.to_string(),
                rusqlite::types::Value::Text(text) => text,
                other => panic!("{other:?}"),
            };
            assert_eq!(value, expected, "{pragma}");
        }
    }

    #[test]
    fn a_call_that_fails_does_not_undo_its_neighbours() {
        let dir = tempfile::tempdir().unwrap();
        let file = open(&dir.path().join("a.db"), &schema(&[FIRST]), Missing::Create).unwrap();
        let (_, committed) = in_transaction(&file, vec!["a", "bad", "b"], |text, state| {
            state.unwrap();
            let result = in_savepoint(&file, || {
                file.execute("INSERT INTO notes (text) VALUES (?1)", [text])
                    .unwrap();
                if text == "bad" {
                    Err(StorageFailure::Closed)
                } else {
                    Ok(())
                }
            });
            assert_eq!(result.is_err(), text == "bad");
            Box::new(|_| {})
        });
        committed.unwrap();
        let texts: String = file
            .query_row("SELECT group_concat(text) FROM notes", [], |row| row.get(0))
            .unwrap();
        assert_eq!(texts, "a,b");
    }
}
