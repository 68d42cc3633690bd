//! What is true of all databases of a server that ended in order, whatever happened before.

use greenroom_store::session_log::digest_of;
use rusqlite::{Connection, OpenFlags};
use std::path::{Path, PathBuf};

/// Asserts all of it.
pub fn hold(data_dir: &Path) {
    let catalog = open(&data_dir.join("catalog.db"));
    let rows: Vec<(String, String, i64)> = select(
        &catalog,
        "SELECT id, state, last_seq FROM sessions ORDER BY id",
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    );
    let mut files = session_files(&data_dir.join("sessions"));
    files.sort();
    let ids: Vec<&str> = files.iter().map(|(id, _)| id.as_str()).collect();
    let listed: Vec<&str> = rows.iter().map(|(id, ..)| id.as_str()).collect();
    assert_eq!(ids, listed, "sessions with a log, and those in lists");
    for ((id, file), (_, state, listed_seq)) in files.iter().zip(&rows) {
        let log = open(file);
        let one = |query: &str| -> i64 { log.query_row(query, [], |row| row.get(0)).unwrap() };
        let last_seq = one("SELECT coalesce(max(seq), 0) FROM events");
        assert_eq!(
            one("SELECT count(*) FROM events"),
            last_seq,
            "{id}: numbers without gaps"
        );
        assert_eq!(*listed_seq, last_seq, "{id}: the list knows all");
        assert_eq!(state, "idle", "{id}");
        assert_eq!(
            one("SELECT count(*) FROM outbox WHERE is_final = 0"),
            0,
            "{id}: effects that wait"
        );
        assert_eq!(
            one("SELECT count(*) FROM views WHERE seq > (SELECT max(seq) FROM events)"),
            0,
            "{id}: views of what is not there"
        );
        let files: Vec<(String, Vec<u8>)> = select(&log, "SELECT digest, bytes FROM blobs", |row| {
            Ok((row.get(0)?, row.get(1)?))
        });
        for (name, bytes) in &files {
            assert_eq!(*name, digest_of(bytes).as_str(), "{id}: a file's name");
        }
        let events: Vec<String> = select(&log, "SELECT body FROM events", |row| row.get(0));
        let entries: Vec<String> = select(&log, "SELECT entry FROM journal", |row| row.get(0));
        for text in events.iter().chain(&entries) {
            for named in text
                .match_indices("\"digest\":\"sha256:")
                .map(|(at, _)| &text[at + 10..at + 81])
            {
                let is_there = files.iter().any(|(name, _)| name == named);
                assert!(is_there, "{id}: {named} is named and not there");
            }
        }
        let times: Vec<i64> = select(&log, "SELECT at_ms FROM events ORDER BY seq", |row| row.get(0));
        assert!(times.is_sorted(), "{id}: times go back");
    }
}

fn open(path: &Path) -> Connection {
    let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let found: Vec<String> = select(&database, "PRAGMA integrity_check", |row| row.get(0));
    assert_eq!(found, ["ok"], "{}", path.display());
    let broken = select(&database, "PRAGMA foreign_key_check", |_| Ok(()));
    assert_eq!(broken.len(), 0, "{}", path.display());
    database
}

fn select<T>(
    database: &Connection,
    query: &str,
    read: impl Fn(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
) -> Vec<T> {
    let mut statement = database.prepare(query).unwrap();
    let rows = statement.query_map([], |row| read(row)).unwrap();
    rows.map(Result::unwrap).collect()
}

/// Id and log of each session.
fn session_files(directory: &Path) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    for shelf in std::fs::read_dir(directory).unwrap() {
        for session in std::fs::read_dir(shelf.unwrap().path()).unwrap() {
            let place = session.unwrap();
            let id = place.file_name().into_string().unwrap();
            found.push((id, place.path().join("session.db")));
        }
    }
    found
}
