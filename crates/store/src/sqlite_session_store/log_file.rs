//! One open session file: what each call reads and writes in it. Knows no threads; transactions are the caller's.

mod append;

use crate::database::{failure_of, in_savepoint};
use crate::failure::StorageFailure;
use crate::session_log::{
    AcquireError, Blob, Intent, JournalRow, Lease, LeaseError, LogFault, MAX_READ_BYTES, MAX_READ_EVENTS,
    PutBlobError, Receipt, View, digest_of,
};
use greenroom_protocol::client::event::Event;
use greenroom_protocol::id::{PersonId, SessionId};
use greenroom_protocol::reference::Digest;
use rusqlite::config::DbConfig;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::de::DeserializeOwned;
use std::cell::Cell;

pub(super) struct LogFile {
    db: Connection,
    /// Set when anything read from the file made no sense; the file must then be moved aside.
    is_damaged: Cell<bool>,
}

/// The lease as stored.
struct LeaseRow {
    epoch: u64,
    holder: Option<String>,
    expires_at_ms: i64,
}

impl LogFile {
    pub fn new(db: Connection) -> Self {
        Self {
            db,
            is_damaged: Cell::new(false),
        }
    }

    pub fn db(&self) -> &Connection {
        &self.db
    }

    pub fn is_damaged(&self) -> bool {
        self.is_damaged.get()
    }

    /// Closes without moving the write-ahead log into the file, which would spoil what can still be saved.
    pub fn close_untouched(self) {
        if let Err(error) = self
            .db
            .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        {
            tracing::warn!(%error, "damaged session file is closed with a checkpoint");
        }
    }

    /// Runs work that writes; an error undoes it.
    pub fn undo_on_error<T, E>(&self, work: impl FnOnce(&Self) -> Result<T, E>) -> Result<T, E>
    where
        E: From<LogFault> + From<StorageFailure>,
    {
        in_savepoint(&self.db, || work(self))
    }

    /// Gives an SQLite error its context and notices damage.
    fn during<T>(&self, action: &'static str, result: rusqlite::Result<T>) -> Result<T, StorageFailure> {
        result.map_err(|error| {
            let failure = failure_of(action, error);
            if matches!(failure, StorageFailure::Corrupt { .. }) {
                self.is_damaged.set(true);
            }
            failure
        })
    }

    fn damaged(&self, what: &'static str) -> StorageFailure {
        tracing::error!(what, "session file is damaged");
        self.is_damaged.set(true);
        StorageFailure::Corrupt { moved_to: None }
    }

    pub fn check_owner(&self, session: &SessionId) -> Result<(), StorageFailure> {
        let owner: Option<String> = self.during(
            "read session id",
            self.db
                .query_row("SELECT session_id FROM lease", [], |row| row.get(0))
                .optional(),
        )?;
        if owner.as_deref() == Some(session.as_str()) {
            Ok(())
        } else {
            Err(self.damaged("it belongs to another session"))
        }
    }

    pub fn quick_check(&self) -> Result<(), StorageFailure> {
        self.check("PRAGMA quick_check(1)")
    }

    /// Every page, every index, that no event is missing, and that files are what their names say.
    pub fn verify(&self) -> Result<(), StorageFailure> {
        self.check("PRAGMA integrity_check(1)")?;
        let (count, last): (u64, u64) = self.during(
            "count events",
            self.db
                .query_row("SELECT count(*), coalesce(max(seq), 0) FROM events", [], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                }),
        )?;
        if count != last {
            return Err(self.damaged("events are missing"));
        }
        let digests: Vec<Digest> = self.during(
            "list files",
            self.db
                .prepare("SELECT digest FROM blobs")
                .and_then(|mut query| query.query_map([], |row| text_at(row, 0))?.collect()),
        )?;
        for digest in &digests {
            if self.blob(digest)?.is_none() {
                return Err(self.damaged("a file is not what its name says"));
            }
        }
        Ok(())
    }

    fn check(&self, pragma: &str) -> Result<(), StorageFailure> {
        let verdict: String = self.during(
            "check session file",
            self.db.query_row(pragma, [], |row| row.get(0)),
        )?;
        if verdict == "ok" {
            Ok(())
        } else {
            tracing::error!(verdict, "session file fails its check");
            Err(self.damaged("its pages contradict each other"))
        }
    }

    fn lease(&self) -> Result<LeaseRow, StorageFailure> {
        self.during(
            "read lease",
            self.db
                .prepare_cached("SELECT epoch, holder, expires_at_ms FROM lease WHERE id = 1")
                .and_then(|mut query| {
                    query.query_row([], |row| {
                        Ok(LeaseRow {
                            epoch: row.get(0)?,
                            holder: row.get(1)?,
                            expires_at_ms: row.get(2)?,
                        })
                    })
                }),
        )
    }

    pub fn acquire(&self, node: &str, now_ms: i64, ttl_ms: i64) -> Result<Lease, AcquireError> {
        let lease = self.lease()?;
        if let Some(holder) = lease.holder
            && holder != node
            && lease.expires_at_ms > now_ms
        {
            return Err(AcquireError::Held {
                node: holder,
                remaining_ms: lease.expires_at_ms.abs_diff(now_ms),
            });
        }
        let epoch = lease.epoch + 1;
        self.during(
            "write lease",
            self.db.execute(
                "UPDATE lease SET epoch = ?1, holder = ?2, expires_at_ms = ?3",
                params![epoch, node, now_ms.saturating_add(ttl_ms)],
            ),
        )?;
        Ok(Lease { epoch })
    }

    pub fn renew(&self, epoch: u64, expires_at_ms: i64) -> Result<(), LeaseError> {
        let lease = self.lease()?;
        if lease.epoch != epoch || lease.holder.is_none() {
            return Err(LeaseError::Fenced);
        }
        self.during(
            "renew lease",
            self.db
                .execute("UPDATE lease SET expires_at_ms = ?1", [expires_at_ms]),
        )?;
        Ok(())
    }

    pub fn release(&self, epoch: u64) -> Result<(), StorageFailure> {
        if self.lease()?.epoch == epoch {
            self.during(
                "release lease",
                self.db
                    .execute("UPDATE lease SET holder = NULL, expires_at_ms = 0", []),
            )?;
        }
        Ok(())
    }

    pub fn last_seq(&self) -> Result<u64, StorageFailure> {
        self.during(
            "read last event number",
            self.db
                .prepare_cached("SELECT coalesce(max(seq), 0) FROM events")
                .and_then(|mut query| query.query_row([], |row| row.get(0))),
        )
    }

    pub fn read(&self, after_seq: u64, limit: u32) -> Result<Vec<Event>, StorageFailure> {
        // No event has a number SQLite cannot hold.
        let after_seq = after_seq.min(i64::MAX.unsigned_abs());
        let (mut events, mut bytes) = (Vec::new(), 0);
        let collect = || -> rusqlite::Result<()> {
            let mut query = self
                .db
                .prepare_cached("SELECT seq, at_ms, body FROM events WHERE seq > ?1 ORDER BY seq LIMIT ?2")?;
            let mut rows = query.query(params![after_seq, limit.min(MAX_READ_EVENTS)])?;
            while bytes < MAX_READ_BYTES
                && let Some(row) = rows.next()?
            {
                bytes += row.get_ref(2)?.as_str()?.len();
                events.push(Event {
                    seq: row.get(0)?,
                    at_ms: row.get(1)?,
                    body: json_at(row, 2)?,
                });
            }
            Ok(())
        };
        self.during("read events", { collect }())?;
        if (after_seq + 1..)
            .zip(&events)
            .any(|(seq, event)| seq != event.seq)
        {
            return Err(self.damaged("events are missing"));
        }
        Ok(events)
    }

    /// Rows are only ever added, and numbered from 1.
    pub fn journal(&self, known: u64) -> Result<Vec<JournalRow>, StorageFailure> {
        let known = i64::try_from(known).unwrap_or(i64::MAX);
        self.during(
            "read journal",
            self.db
                .prepare_cached("SELECT at_ms, turn_id, entry FROM journal WHERE id > ?1 ORDER BY id")
                .and_then(|mut query| {
                    query
                        .query_map([known], |row| {
                            Ok(JournalRow {
                                at_ms: row.get(0)?,
                                turn_id: text_at(row, 1)?,
                                entry: json_at(row, 2)?,
                            })
                        })?
                        .collect()
                }),
        )
    }

    pub fn receipt(&self, person: &PersonId, key: &str) -> Result<Option<Receipt>, StorageFailure> {
        self.during(
            "read receipt",
            self.db
                .prepare_cached("SELECT digest, body FROM receipts WHERE person_id = ?1 AND key = ?2")
                .and_then(|mut query| {
                    query
                        .query_row(params![person.as_str(), key], |row| {
                            Ok(Receipt {
                                digest: row.get(0)?,
                                body: json_at(row, 1)?,
                            })
                        })
                        .optional()
                }),
        )
    }

    pub fn put_view(&self, view: &View) -> Result<(), StorageFailure> {
        // Those of other versions are nobody's.
        self.during(
            "remove views",
            self.db
                .prepare_cached("DELETE FROM views WHERE version < ?1")
                .and_then(|mut query| query.execute([view.version])),
        )?;
        self.during(
            "write view",
            self.db
                .prepare_cached("INSERT OR REPLACE INTO views (version, seq, body) VALUES (?1, ?2, ?3)")
                .and_then(|mut query| query.execute(params![view.version, view.seq, view.body])),
        )?;
        Ok(())
    }

    pub fn view(&self, version: u32, up_to: u64) -> Result<Option<View>, StorageFailure> {
        let up_to = up_to.min(i64::MAX.unsigned_abs());
        self.during(
            "read view",
            self.db
                .prepare_cached(
                    "SELECT seq, body FROM views WHERE version = ?1 AND seq <= ?2 ORDER BY seq DESC LIMIT 1",
                )
                .and_then(|mut query| {
                    query
                        .query_row(params![version, up_to], |row| {
                            Ok(View {
                                seq: row.get(0)?,
                                version,
                                body: row.get(1)?,
                            })
                        })
                        .optional()
                }),
        )
    }

    pub fn put_blob(&self, blob: &Blob, max_total_bytes: u64) -> Result<Digest, PutBlobError> {
        let digest = digest_of(&blob.bytes);
        if self.blob(&digest)?.is_some() {
            return Ok(digest);
        }
        // One that is damaged.
        self.during(
            "remove a file",
            self.db
                .prepare_cached("DELETE FROM blobs WHERE digest = ?1")
                .and_then(|mut query| query.execute([digest.as_str()])),
        )?;
        let total_bytes: u64 = self.during(
            "add up files",
            self.db
                .prepare_cached("SELECT coalesce(sum(size_bytes), 0) FROM blobs")
                .and_then(|mut query| query.query_row([], |row| row.get(0))),
        )?;
        let size_bytes = blob.bytes.len() as u64;
        if total_bytes.saturating_add(size_bytes) > max_total_bytes {
            return Err(PutBlobError::TooMuch {
                total_bytes,
                max_total_bytes,
            });
        }
        self.during(
            "write a file",
            self.db
                .prepare_cached(
                    "INSERT INTO blobs (digest, media_type, size_bytes, bytes) VALUES (?1, ?2, ?3, ?4)",
                )
                .and_then(|mut query| {
                    query.execute(params![digest.as_str(), blob.media_type, size_bytes, blob.bytes])
                }),
        )?;
        Ok(digest)
    }

    pub fn blob(&self, digest: &Digest) -> Result<Option<Blob>, StorageFailure> {
        let found = self.during(
            "read a file",
            self.db
                .prepare_cached("SELECT media_type, bytes FROM blobs WHERE digest = ?1")
                .and_then(|mut query| {
                    query
                        .query_row([digest.as_str()], |row| {
                            Ok(Blob {
                                media_type: row.get(0)?,
                                bytes: row.get(1)?,
                            })
                        })
                        .optional()
                }),
        )?;
        // The rest of the session is worth more than this file.
        Ok(found.filter(|blob| {
            let is_whole = digest_of(&blob.bytes) == *digest;
            if !is_whole {
                tracing::error!(%digest, "a file of a session is damaged");
            }
            is_whole
        }))
    }

    pub fn outbox_pending(&self) -> Result<Vec<Intent>, StorageFailure> {
        self.during(
            "read outbox",
            self.db
                .prepare_cached(
                    "SELECT key, kind, digest, payload, created_at_ms, attempts, next_attempt_at_ms, outcome, is_final
                     FROM outbox WHERE is_final = 0 ORDER BY id",
                )
                .and_then(|mut query| query.query_map([], intent_of)?.collect()),
        )
    }

    pub fn intent(&self, key: &str) -> Result<Option<Intent>, StorageFailure> {
        self.during(
            "read intent",
            self.db
                .prepare_cached(
                    "SELECT key, kind, digest, payload, created_at_ms, attempts, next_attempt_at_ms, outcome, is_final
                     FROM outbox WHERE key = ?1",
                )
                .and_then(|mut query| query.query_row([key], intent_of).optional()),
        )
    }
}

fn intent_of(row: &Row<'_>) -> rusqlite::Result<Intent> {
    Ok(Intent {
        key: row.get(0)?,
        kind: row.get(1)?,
        digest: row.get(2)?,
        payload: json_at(row, 3)?,
        created_at_ms: row.get(4)?,
        attempts: row.get(5)?,
        next_attempt_at_ms: row.get(6)?,
        outcome: match row.get_ref(7)?.as_str_or_null()? {
            Some(_) => Some(json_at(row, 7)?),
            None => None,
        },
        is_final: row.get(8)?,
    })
}

fn json_at<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    serde_json::from_str(row.get_ref(column)?.as_str()?).map_err(|error| not_ours(column, error))
}

fn text_at<T>(row: &Row<'_>, column: usize) -> rusqlite::Result<T>
where
    T: std::str::FromStr<Err: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    row.get_ref(column)?
        .as_str()?
        .parse()
        .map_err(|error| not_ours(column, error))
}

fn not_ours(column: usize, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, error.into())
}
