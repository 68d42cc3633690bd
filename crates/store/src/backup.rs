//! Copies of a data directory's databases, taken while a server may write to them. Blocks.

use crate::catalog::{FORGET_SESSION, SCHEMA as CATALOG};
use crate::database::{Missing, failure_of, open};
use crate::failure::StorageFailure;
use crate::session_log::digest_of;
use crate::sqlite_session_store::SCHEMA as SESSION;
use greenroom_protocol::id::{SessionId, SnapshotId};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::types::Type;
use rusqlite::{Connection, OpenFlags, Row};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

pub use crate::sqlite_session_store::session_file;

/// How often, and how long each time, a database is waited for that somebody locks.
const MAX_LOCKED: u32 = 200;
const LOCKED: Duration = Duration::from_millis(50);

/// What a catalog names that lies elsewhere.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Contents {
    pub sessions: Vec<SessionId>,
    /// With the session whose files each has.
    pub snapshots: Vec<(SnapshotId, SessionId)>,
}

/// Copies a database as it is at one moment to a file that does not exist, and looks the copy over. The copy is on disk when this returns.
///
/// # Errors
/// [`StorageFailure::Corrupt`] if the copy, and so what was copied, makes no sense.
pub fn copy_database(from: &Path, to: &Path) -> Result<(), StorageFailure> {
    let failed = |error| failure_of("copy database", error);
    // Whoever reads a write-ahead log writes to its index.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let source = Connection::open_with_flags(from, flags).map_err(failed)?;
    // What SQLite makes beside it gets the same mode.
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to);
    made.map_err(|error| StorageFailure::io("make database", error))?;
    let mut target = Connection::open(to).map_err(failed)?;
    let backup = Backup::new(&source, &mut target).map_err(failed)?;
    let mut waits = 0;
    loop {
        match backup.step(-1).map_err(failed)? {
            StepResult::Done => break,
            StepResult::Busy | StepResult::Locked if waits >= MAX_LOCKED => {
                return Err(StorageFailure::io(
                    "copy database",
                    std::io::ErrorKind::TimedOut.into(),
                ));
            }
            StepResult::Busy | StepResult::Locked => {
                waits += 1;
                std::thread::sleep(LOCKED);
            }
            _ => {}
        }
    }
    drop(backup);
    let found = target.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    if found.map_err(failed)? != "ok" {
        return Err(StorageFailure::Corrupt { moved_to: None });
    }
    target.close().map_err(|(_, error)| failed(error))?;
    let synced = File::open(to).and_then(|file| file.sync_all());
    synced.map_err(|error| StorageFailure::io("sync database", error))
}

/// Names of files in a copied session that are not what their names say.
pub fn damaged_files(session: &Path) -> Result<Vec<String>, StorageFailure> {
    let db = open(session, &SESSION, Missing::Refuse)?;
    let failed = |error| failure_of("look at files of a session", error);
    let names: Vec<String> = rows(&db, "SELECT digest FROM blobs", |row| row.get(0)).map_err(failed)?;
    let mut damaged = Vec::new();
    for name in names {
        let bytes = db.query_row("SELECT bytes FROM blobs WHERE digest = ?1", [&name], |row| {
            row.get::<_, Vec<u8>>(0)
        });
        if digest_of(&bytes.map_err(failed)?).as_str() != name {
            damaged.push(name);
        }
    }
    db.close().map_err(|(_, error)| failed(error))?;
    Ok(damaged)
}

/// What a copied catalog names.
pub fn contents(catalog: &Path) -> Result<Contents, StorageFailure> {
    let db = open(catalog, &CATALOG, Missing::Refuse)?;
    let failed = |error| failure_of("list contents of catalog", error);
    let sessions = rows(&db, "SELECT id FROM sessions ORDER BY id", |row| id(row, 0));
    let query = "SELECT id, session_id FROM snapshots ORDER BY id";
    let snapshots = rows(&db, query, |row| Ok((id(row, 0)?, id(row, 1)?)));
    Ok(Contents {
        sessions: sessions.map_err(failed)?,
        snapshots: snapshots.map_err(failed)?,
    })
}

fn rows<T>(
    db: &Connection,
    query: &str,
    read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    db.prepare(query)?.query_map([], |row| read(row))?.collect()
}

fn id<T: std::str::FromStr>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    text.parse()
        .map_err(|_| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, text.into()))
}

/// Makes a copied catalog forget what could not be copied with it, and published images, whose files are in no backup.
pub fn forget(catalog: &Path, lacking: &Contents) -> Result<(), StorageFailure> {
    let mut db = open(catalog, &CATALOG, Missing::Refuse)?;
    let failed = |error| failure_of("forget what a backup lacks", error);
    let forget = |db: &mut Connection| {
        let all = db.transaction()?;
        for id in &lacking.sessions {
            for statement in FORGET_SESSION {
                all.execute(statement, [id.as_str()])?;
            }
        }
        all.execute("DELETE FROM images WHERE state = 'published'", [])?;
        for (id, _) in &lacking.snapshots {
            all.execute("DELETE FROM snapshots WHERE id = ?1", [id.as_str()])?;
        }
        all.commit()
    };
    forget(&mut db).map_err(failed)?;
    db.close().map_err(|(_, error)| failed(error))
}
