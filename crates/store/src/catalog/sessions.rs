//! Rows of the sessions list, receipts of creation, and which sandbox belongs to which session. A session's own file is the
//! truth about it; a row here is what lists show.

use super::{Catalog, CatalogError, During, search};
use greenroom_protocol::client::member::SessionAccess;
use greenroom_protocol::client::session::{Session, SessionList, SessionState};
use greenroom_protocol::id::{PersonId, SandboxId, SessionId};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::str::FromStr;
use std::sync::Arc;

/// Most sessions in one page.
const MAX_PAGE: u32 = 200;

/// Which page of the sessions list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionQuery {
    /// Only sessions of this repository.
    pub repository: Option<String>,
    /// Only sessions whose title, or one prompt of which, has all these words or words that begin so.
    pub words: Option<String>,
    /// Only sessions that this person may see; absent: all.
    pub seen_by: Option<PersonId>,
    /// Only archived ones, or only others; absent: all.
    pub is_archived: Option<bool>,
    /// `next_cursor` of the page before; absent: from the start.
    pub cursor: Option<String>,
    /// 1 to 200; what lies outside is moved inside.
    pub limit: u32,
}

impl Catalog {
    /// Inserts or replaces a session's row. One whose `last_seq` is smaller than the stored row's is ignored, so that late
    /// writers do no harm.
    pub async fn put_session(&self, session: &Session) -> Result<(), CatalogError> {
        self.put_sessions(vec![Arc::new(session.clone())]).await
    }

    /// The same for many, all or none.
    pub async fn put_sessions(&self, sessions: Vec<Arc<Session>>) -> Result<(), CatalogError> {
        if sessions.is_empty() {
            return Ok(());
        }
        self.database
            .write(move |db| sessions.iter().try_for_each(|session| put(db, session)))
            .await
    }

    /// A session's row.
    pub async fn session(&self, id: &SessionId) -> Result<Option<Session>, CatalogError> {
        let id = id.clone();
        self.database
            .read(move |db| {
                db.prepare_cached("SELECT body FROM sessions WHERE id = ?1")
                    .and_then(|mut query| query.query_row([id.as_str()], session_of).optional())
                    .during("read session row")
            })
            .await
    }

    /// A page of sessions, latest activity first, then newest id first.
    pub async fn sessions(&self, query: SessionQuery) -> Result<SessionList, CatalogError> {
        let (before_ms, before_id) = match &query.cursor {
            Some(cursor) => parse_cursor(cursor).ok_or(CatalogError::CursorInvalid)?,
            None => (i64::MAX, String::new()),
        };
        let limit = query.limit.clamp(1, MAX_PAGE);
        let words = query.words.as_deref().and_then(search::question);
        if words.is_none() && query.words.is_some() {
            // Whoever searches for nothing that could be found finds nothing.
            return Ok(SessionList {
                sessions: Vec::new(),
                next_cursor: None,
            });
        }
        self.database
            .read(move |db| {
                let of_repository = match query.repository {
                    Some(_) => "repository = ?4",
                    None => "?4 IS NULL",
                };
                let with_words = match words {
                    Some(_) => {
                        "id IN (SELECT session_id FROM session_texts WHERE id IN
                         (SELECT rowid FROM session_words WHERE session_words MATCH ?5))"
                    }
                    None => "?5 IS NULL",
                };
                let seen = match query.seen_by {
                    Some(_) => {
                        "(access <> 'members' OR id IN (SELECT session_id FROM session_members WHERE person_id = ?6))"
                    }
                    None => "?6 IS NULL",
                };
                let archived = match query.is_archived {
                    Some(true) => "state = 'archived'",
                    Some(false) => "state <> 'archived'",
                    None => "TRUE",
                };
                let seen_by = query.seen_by.as_ref().map(PersonId::as_str);
                let mut sessions: Vec<Session> = db
                    .prepare_cached(&format!(
                        "SELECT body FROM sessions WHERE (updated_at_ms, id) < (?1, ?2) AND {of_repository} AND {with_words}
                         AND {seen} AND {archived}
                         ORDER BY updated_at_ms DESC, id DESC LIMIT ?3"
                    ))
                    .and_then(|mut rows| {
                        rows.query_map(
                            // One more than asked for tells whether there is another page.
                            params![before_ms, before_id, limit + 1, query.repository, words, seen_by],
                            session_of,
                        )?
                        .collect()
                    })
                    .during("list session rows")?;
                let has_more = sessions.len() > limit as usize;
                sessions.truncate(limit as usize);
                let next_cursor = match sessions.last() {
                    Some(last) if has_more => Some(format!("{}.{}", last.updated_at_ms, last.id)),
                    _ => None,
                };
                Ok(SessionList { sessions, next_cursor })
            })
            .await
    }

    /// Sessions whose row says `running` or `stopping`: after a crash their turns must be resumed. Oldest id first.
    pub async fn unfinished_sessions(&self) -> Result<Vec<SessionId>, CatalogError> {
        self.database
            .read(|db| {
                db.prepare_cached(
                    "SELECT id FROM sessions WHERE state IN ('running', 'stopping') ORDER BY id",
                )
                .and_then(|mut query| query.query_map([], |row| id_at(row, 0))?.collect())
                .during("list unfinished sessions")
            })
            .await
    }

    /// Binds a creating command to `session`, or tells which session it made before: the same person, key and digest always
    /// get the id that was bound first, also after a restart. Another digest is `KeyReused`.
    pub async fn claim_session_creation(
        &self,
        person: &PersonId,
        key: &str,
        digest: &str,
        session: &SessionId,
    ) -> Result<SessionId, CatalogError> {
        let (person, key, digest, session) =
            (person.clone(), key.to_owned(), digest.to_owned(), session.clone());
        let now_ms = self.clock.now_ms();
        self.database
            .write(move |db| {
                db.execute(
                    "INSERT INTO creation_receipts (person_id, key, digest, session_id, created_at_ms)
                     VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING",
                    params![person.as_str(), key, digest, session.as_str(), now_ms],
                )
                .during("insert creation receipt")?;
                let (stored_digest, stored): (String, SessionId) = db
                    .query_row(
                        "SELECT digest, session_id FROM creation_receipts WHERE person_id = ?1 AND key = ?2",
                        params![person.as_str(), key],
                        |row| Ok((row.get(0)?, id_at(row, 1)?)),
                    )
                    .during("read creation receipt")?;
                if stored_digest == digest {
                    Ok(stored)
                } else {
                    Err(CatalogError::KeyReused)
                }
            })
            .await
    }

    /// The sandbox that works for a session. If there is none yet, `fresh` is it from now on. However many ask at once, all
    /// get the same.
    pub async fn claim_sandbox(
        &self,
        session: &SessionId,
        fresh: &SandboxId,
    ) -> Result<SandboxId, CatalogError> {
        let (session, fresh) = (session.clone(), fresh.clone());
        self.database
            .write(move |db| {
                db.query_row(
                    "INSERT INTO sandboxes (session_id, sandbox_id) VALUES (?1, ?2)
                     ON CONFLICT (session_id) DO UPDATE SET sandbox_id = sandbox_id
                     RETURNING sandbox_id",
                    params![session.as_str(), fresh.as_str()],
                    |row| id_at(row, 0),
                )
                .during("claim sandbox")
            })
            .await
    }

    /// Keeps what a session's sandbox is about to be started with, in the words of whoever starts it.
    pub async fn put_started_with(&self, session: &SessionId, body: String) -> Result<(), CatalogError> {
        let session = session.clone();
        self.database
            .write(move |db| {
                db.execute(
                    "UPDATE sandboxes SET started_with = ?2 WHERE session_id = ?1",
                    params![session.as_str(), body],
                )
                .during("put what a sandbox is started with")?;
                Ok(())
            })
            .await
    }

    /// What a session's sandbox was last started with; `None` if nothing was kept.
    pub async fn started_with(&self, session: &SessionId) -> Result<Option<String>, CatalogError> {
        let session = session.clone();
        self.database
            .read(move |db| {
                db.query_row(
                    "SELECT started_with FROM sandboxes WHERE session_id = ?1",
                    [session.as_str()],
                    |row| row.get::<_, Option<String>>(0),
                )
                .optional()
                .map(Option::flatten)
                .during("read what a sandbox was started with")
            })
            .await
    }

    /// The sandbox that works for a session.
    pub async fn sandbox(&self, session: &SessionId) -> Result<Option<SandboxId>, CatalogError> {
        let session = session.clone();
        self.database
            .read(move |db| {
                db.query_row(
                    "SELECT sandbox_id FROM sandboxes WHERE session_id = ?1",
                    [session.as_str()],
                    |row| id_at(row, 0),
                )
                .optional()
                .during("read sandbox")
            })
            .await
    }

    /// All sessions with their sandboxes, ordered by session.
    pub async fn sandboxes(&self) -> Result<Vec<(SessionId, SandboxId)>, CatalogError> {
        self.database
            .read(|db| {
                db.prepare_cached("SELECT session_id, sandbox_id FROM sandboxes ORDER BY session_id")
                    .and_then(|mut query| {
                        query
                            .query_map([], |row| Ok((id_at(row, 0)?, id_at(row, 1)?)))?
                            .collect()
                    })
                    .during("list sandboxes")
            })
            .await
    }

    /// Forgets a session's sandbox. Removing one that does not exist changes nothing.
    pub async fn remove_sandbox(&self, session: &SessionId) -> Result<(), CatalogError> {
        let session = session.clone();
        self.database
            .write(move |db| {
                db.execute("DELETE FROM sandboxes WHERE session_id = ?1", [session.as_str()])
                    .during("remove sandbox")?;
                Ok(())
            })
            .await
    }
}

fn put(db: &Connection, session: &Session) -> Result<(), CatalogError> {
    let changed = db
        .prepare_cached(
            "INSERT INTO sessions (id, repository, state, updated_at_ms, last_seq, body, access)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (id) DO UPDATE SET repository = excluded.repository, state = excluded.state,
               updated_at_ms = excluded.updated_at_ms, last_seq = excluded.last_seq, body = excluded.body,
               access = excluded.access
             WHERE excluded.last_seq >= sessions.last_seq",
        )
        .and_then(|mut insert| {
            insert.execute(params![
                session.id.as_str(),
                session.repository,
                state_name(session.state),
                session.updated_at_ms,
                session.last_seq,
                encode(session)?,
                access_name(session.access),
            ])
        })
        .during("put session row")?;
    match changed {
        0 => Ok(()),
        _ => put_members(db, session).during("put session members"),
    }
}

/// Who finds a session although others do not.
fn put_members(db: &Connection, session: &Session) -> rusqlite::Result<()> {
    let ids: Vec<_> = session.members.iter().map(|member| &member.person.id).collect();
    let ids = serde_json::to_string(&ids)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    db.prepare_cached(
        "DELETE FROM session_members WHERE session_id = ?1 AND person_id NOT IN (SELECT value FROM json_each(?2))",
    )?
    .execute(params![session.id.as_str(), ids])?;
    db.prepare_cached(
        "INSERT OR IGNORE INTO session_members (session_id, person_id) SELECT ?1, value FROM json_each(?2)",
    )?
    .execute(params![session.id.as_str(), ids])?;
    Ok(())
}

fn access_name(access: SessionAccess) -> &'static str {
    match access {
        SessionAccess::Members => "members",
        SessionAccess::Viewer => "viewer",
        SessionAccess::Editor => "editor",
    }
}

/// An id in a text column; another text there means a damaged file.
pub(super) fn id_at<Id>(row: &Row<'_>, column: usize) -> rusqlite::Result<Id>
where
    Id: FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    row.get_ref(column)?.as_str()?.parse().map_err(|error: Id::Err| {
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
    })
}

fn session_of(row: &Row<'_>) -> rusqlite::Result<Session> {
    serde_json::from_str(row.get_ref(0)?.as_str()?)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(error)))
}

fn encode(session: &Session) -> rusqlite::Result<String> {
    serde_json::to_string(session).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

fn state_name(state: SessionState) -> &'static str {
    match state {
        SessionState::Created => "created",
        SessionState::Idle => "idle",
        SessionState::Running => "running",
        SessionState::Stopping => "stopping",
        SessionState::Asleep => "asleep",
        SessionState::Archived => "archived",
    }
}

fn parse_cursor(cursor: &str) -> Option<(i64, String)> {
    let (at_ms, id) = cursor.split_once('.')?;
    let id: SessionId = id.parse().ok()?;
    Some((at_ms.parse().ok()?, id.into()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_our_own_cursors_are_taken() {
        let id = "ses_00000000000000000000000001";
        assert_eq!(super::parse_cursor(&format!("5.{id}")), Some((5, id.to_owned())));
        for cursor in [
            "",
            ".",
            "5",
            "5.",
            "5.ses_x",
            "x.ses_00000000000000000000000001",
            "5.' OR 1",
        ] {
            assert_eq!(super::parse_cursor(cursor), None, "{cursor:?}");
        }
    }
}
