//! Sessions that were deleted. A row stays for each, so that nothing that comes late makes one anew (the schema's triggers see to that), and
//! so that a deletion that was cut off is finished.

use super::sessions::id_at;
use super::{Catalog, CatalogError, During};
use greenroom_protocol::id::{PersonId, SessionId};
use rusqlite::{OptionalExtension as _, params};

/// Takes a session out of lists, search, membership and links.
pub(crate) const FORGET_SESSION: [&str; 6] = [
    "DELETE FROM sessions WHERE id = ?1",
    "DELETE FROM session_words WHERE rowid IN (SELECT id FROM session_texts WHERE session_id = ?1)",
    "DELETE FROM session_texts WHERE session_id = ?1",
    "DELETE FROM session_indexed WHERE session_id = ?1",
    "DELETE FROM session_members WHERE session_id = ?1",
    "DELETE FROM session_links WHERE session_id = ?1",
];

impl Catalog {
    /// Takes a session out of everything people can see. From here on there is none of this id, and there never will be; what it has on
    /// disk, its sandbox and its snapshots are still to be removed ([`Self::unremoved_sessions`]). Deleting it again changes nothing.
    pub async fn delete_session(&self, id: &SessionId, by: Option<&PersonId>) -> Result<(), CatalogError> {
        let (id, by) = (id.clone(), by.map(|by| by.as_str().to_owned()));
        let now_ms = self.clock.now_ms();
        self.database
            .write(move |db| {
                db.execute(
                    "INSERT INTO deleted_sessions (session_id, deleted_by, deleted_at_ms, is_removed)
                     VALUES (?1, ?2, ?3, 0) ON CONFLICT DO NOTHING",
                    params![id.as_str(), by, now_ms],
                )
                .during("delete session")?;
                for statement in FORGET_SESSION {
                    db.execute(statement, [id.as_str()]).during("delete session")?;
                }
                Ok(())
            })
            .await
    }

    /// Whether a session was deleted.
    pub async fn is_deleted(&self, id: &SessionId) -> Result<bool, CatalogError> {
        let id = id.clone();
        self.database
            .read(move |db| {
                let found = db
                    .prepare_cached("SELECT 1 FROM deleted_sessions WHERE session_id = ?1")
                    .and_then(|mut query| query.query_row([id.as_str()], |_| Ok(())).optional())
                    .during("look for deleted session")?;
                Ok(found.is_some())
            })
            .await
    }

    /// Sessions that were deleted and may still have something on disk.
    pub async fn unremoved_sessions(&self) -> Result<Vec<SessionId>, CatalogError> {
        self.database
            .read(|db| {
                db.prepare_cached(
                    "SELECT session_id FROM deleted_sessions WHERE is_removed = 0 ORDER BY session_id",
                )
                .and_then(|mut query| query.query_map([], |row| id_at(row, 0))?.collect())
                .during("list deleted sessions")
            })
            .await
    }

    /// Nothing of a deleted session is left.
    pub async fn session_removed(&self, id: &SessionId) -> Result<(), CatalogError> {
        let id = id.clone();
        self.database
            .write(move |db| {
                db.execute(
                    "UPDATE deleted_sessions SET is_removed = 1 WHERE session_id = ?1",
                    [id.as_str()],
                )
                .during("note that a session is removed")?;
                Ok(())
            })
            .await
    }

    /// Sessions in which nothing happened since `before_ms`, the longest first: archived ones, or those that are idle and not archived.
    pub async fn quiet_sessions(
        &self,
        is_archived: bool,
        before_ms: i64,
    ) -> Result<Vec<SessionId>, CatalogError> {
        self.database
            .read(move |db| {
                let states = match is_archived {
                    true => "state = 'archived'",
                    false => "state IN ('created', 'idle')",
                };
                db.prepare_cached(&format!(
                    "SELECT id FROM sessions WHERE updated_at_ms < ?1 AND {states} ORDER BY updated_at_ms, id LIMIT 1000"
                ))
                .and_then(|mut query| query.query_map([before_ms], |row| id_at(row, 0))?.collect())
                .during("list quiet sessions")
            })
            .await
    }
}
