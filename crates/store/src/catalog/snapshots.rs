//! Snapshots of sessions: which there are of whose sandbox.

use super::{Catalog, CatalogError, During};
use greenroom_protocol::client::session::SessionSnapshot;
use greenroom_protocol::id::{SessionId, SnapshotId};
use rusqlite::{Row, params};

const COLUMNS: &str = "id, session_id, created_at_ms, size_bytes, is_pinned, seq";

impl Catalog {
    /// Adds a snapshot, or replaces what is known of it.
    pub async fn put_snapshot(&self, snapshot: &SessionSnapshot) -> Result<(), CatalogError> {
        let snapshot = snapshot.clone();
        self.database
            .write(move |db| {
                db.execute(
                    "INSERT INTO snapshots (id, session_id, created_at_ms, size_bytes, is_pinned, seq) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                     ON CONFLICT (id) DO UPDATE SET is_pinned = excluded.is_pinned",
                    params![
                        snapshot.id.as_str(),
                        snapshot.session_id.as_str(),
                        snapshot.created_at_ms,
                        snapshot.size_bytes,
                        snapshot.is_pinned,
                        snapshot.seq
                    ],
                )
                .during("put snapshot")?;
                Ok(())
            })
            .await
    }

    /// Snapshots of a session, the newest first.
    pub async fn snapshots(&self, session: &SessionId) -> Result<Vec<SessionSnapshot>, CatalogError> {
        let session = session.clone();
        self.database
            .read(move |db| {
                let text = format!(
                    "SELECT {COLUMNS} FROM snapshots WHERE session_id = ?1 ORDER BY created_at_ms DESC, id DESC"
                );
                db.prepare_cached(&text)
                    .and_then(|mut query| query.query_map([session.as_str()], snapshot_of)?.collect())
                    .during("list snapshots")
            })
            .await
    }

    /// Snapshots of all sessions, the oldest first.
    pub async fn all_snapshots(&self) -> Result<Vec<SessionSnapshot>, CatalogError> {
        self.database
            .read(move |db| {
                let text = format!("SELECT {COLUMNS} FROM snapshots ORDER BY created_at_ms, id");
                db.prepare_cached(&text)
                    .and_then(|mut query| query.query_map([], snapshot_of)?.collect())
                    .during("list snapshots")
            })
            .await
    }

    /// Forgets a snapshot. One that is not there changes nothing.
    pub async fn remove_snapshot(&self, id: &SnapshotId) -> Result<(), CatalogError> {
        let id = id.clone();
        self.database
            .write(move |db| {
                db.execute("DELETE FROM snapshots WHERE id = ?1", [id.as_str()])
                    .during("remove snapshot")?;
                Ok(())
            })
            .await
    }
}

fn snapshot_of(row: &Row<'_>) -> rusqlite::Result<SessionSnapshot> {
    let id = |index: usize, text: String| {
        rusqlite::Error::FromSqlConversionFailure(index, rusqlite::types::Type::Text, text.into())
    };
    let (snapshot, session): (String, String) = (row.get(0)?, row.get(1)?);
    Ok(SessionSnapshot {
        id: snapshot.parse().map_err(|_| id(0, snapshot.clone()))?,
        session_id: session.parse().map_err(|_| id(1, session.clone()))?,
        created_at_ms: row.get(2)?,
        size_bytes: row.get(3)?,
        is_pinned: row.get(4)?,
        seq: row.get(5)?,
    })
}
