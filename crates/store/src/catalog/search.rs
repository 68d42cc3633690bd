//! Words by which sessions are found: their titles and what people asked in them. Made from the sessions' logs, and can be made again.

use super::sessions::id_at;
use super::{Catalog, CatalogError, During};
use greenroom_protocol::id::SessionId;
use rusqlite::{Connection, OptionalExtension as _, params};

/// Longest text of which words are kept, in bytes; of a longer one its beginning.
const MAX_TEXT_BYTES: usize = 64 * 1024;

/// Words of a search that count.
const MAX_WORDS: usize = 16;

/// A text of a session that it is found by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchText {
    /// Names it within the session: a later one of the same name replaces it.
    pub part: String,
    /// Empty: there is none any more.
    pub text: String,
}

impl Catalog {
    /// Up to which event a session's words are known; 0 if none are.
    pub async fn indexed_seq(&self, session: &SessionId) -> Result<u64, CatalogError> {
        let session = session.clone();
        self.database
            .read(move |db| {
                let found = db
                    .prepare_cached("SELECT seq FROM session_indexed WHERE session_id = ?1")
                    .and_then(|mut query| query.query_row([session.as_str()], |row| row.get(0)).optional())
                    .during("read how far a session is indexed")?;
                Ok(found.unwrap_or(0))
            })
            .await
    }

    /// Keeps texts of a session's events up to `seq`.
    pub async fn index_session(
        &self,
        session: &SessionId,
        texts: Vec<SearchText>,
        seq: u64,
    ) -> Result<(), CatalogError> {
        let session = session.clone();
        self.database
            .write(move |db| {
                // Late, after the session was deleted.
                let is_deleted = db
                    .prepare_cached("SELECT 1 FROM deleted_sessions WHERE session_id = ?1")
                    .and_then(|mut query| query.exists([session.as_str()]))
                    .during("look for deleted session")?;
                if is_deleted {
                    return Ok(());
                }
                for text in &texts {
                    put(db, &session, text).during("index session")?;
                }
                db.execute(
                    "INSERT INTO session_indexed (session_id, seq) VALUES (?1, ?2)
                     ON CONFLICT (session_id) DO UPDATE SET seq = excluded.seq",
                    params![session.as_str(), seq],
                )
                .during("index session")?;
                Ok(())
            })
            .await
    }

    /// Sessions whose words are not known at all, such as those of an older Greenroom.
    pub async fn unindexed_sessions(&self) -> Result<Vec<SessionId>, CatalogError> {
        self.database
            .read(|db| {
                db.prepare_cached(
                    "SELECT id FROM sessions WHERE id NOT IN (SELECT session_id FROM session_indexed)",
                )
                .and_then(|mut query| query.query_map([], |row| id_at(row, 0))?.collect())
                .during("list sessions without an index")
            })
            .await
    }
}

fn put(db: &Connection, session: &SessionId, text: &SearchText) -> rusqlite::Result<()> {
    let named = params![session.as_str(), text.part];
    let id: i64 = db.query_row(
        "INSERT INTO session_texts (session_id, part) VALUES (?1, ?2)
         ON CONFLICT (session_id, part) DO UPDATE SET part = part RETURNING id",
        named,
        |row| row.get(0),
    )?;
    db.execute("DELETE FROM session_words WHERE rowid = ?1", [id])?;
    let end = text.text.floor_char_boundary(MAX_TEXT_BYTES);
    if end > 0 {
        db.execute(
            "INSERT INTO session_words (rowid, text) VALUES (?1, ?2)",
            params![id, &text.text[..end]],
        )?;
    }
    Ok(())
}

/// What people type as a question that SQLite understands: all words, each perhaps only begun. `None`: no word.
pub(super) fn question(text: &str) -> Option<String> {
    let words = text.split(|character: char| !character.is_alphanumeric());
    let words: Vec<_> = words
        .filter(|word| !word.is_empty())
        .take(MAX_WORDS)
        .map(|word| format!("\"{word}\"*"))
        .collect();
    (!words.is_empty()).then(|| words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::question;

    #[test]
    fn anything_is_a_question() {
        for (text, expected) in [
            ("fix the test", Some("\"fix\"* \"the\"* \"test\"*")),
            ("NEAR(a b)", Some("\"NEAR\"* \"a\"* \"b\"*")),
            ("\"un\"closed", Some("\"un\"* \"closed\"*")),
            ("src/main.rs", Some("\"src\"* \"main\"* \"rs\"*")),
            ("Grüße", Some("\"Grüße\"*")),
            (" -*^ ", None),
            ("", None),
        ] {
            assert_eq!(question(text).as_deref(), expected, "{text}");
        }
    }
}
