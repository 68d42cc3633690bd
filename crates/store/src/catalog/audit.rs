//! Who did what. Entries are only ever added and, when they are old, forgotten.

use super::people::person_of;
use super::{Catalog, CatalogError, During};
use greenroom_protocol::client::audit::{AuditEntry, AuditPage};
use greenroom_protocol::client::person::Person;
use greenroom_protocol::id::PersonId;
use rusqlite::params;
use std::time::Duration;

/// Most entries in one page.
const MAX_PAGE: u32 = 500;

/// What somebody is about to do, or did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAuditEntry {
    pub person: Person,
    pub action: String,
    /// Cut if it is long.
    pub target: String,
    /// How it was answered, if that is known already.
    pub status: Option<u16>,
    /// What it made or changed, where its path does not say it. Cut if it is long.
    pub subject: Option<String>,
}

/// Which entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditQuery {
    /// Older than this entry.
    pub before: Option<u64>,
    pub person: Option<PersonId>,
    /// In whose path or subject this stands, such as a session's id.
    pub about: Option<String>,
    /// 1 to 500; what lies outside is moved inside.
    pub limit: u32,
}

/// Longest text of an entry in characters: whoever is refused must not fill the disk.
const MAX_TEXT_CHARS: usize = 400;

fn cut(text: &str) -> &str {
    match text.char_indices().nth(MAX_TEXT_CHARS) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

impl Catalog {
    /// Writes down what somebody is about to do, or did; answers with the entry's number.
    pub async fn begin_audit(&self, new: NewAuditEntry) -> Result<u64, CatalogError> {
        let now_ms = self.clock.now_ms();
        self.database
            .write(move |db| {
                db.prepare_cached(
                    "INSERT INTO audit (at_ms, person_id, person_name, person_email, action, target, status, subject)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                )
                .and_then(|mut insert| {
                    insert.insert(params![
                        now_ms,
                        new.person.id.as_str(),
                        new.person.name,
                        new.person.email,
                        new.action,
                        cut(&new.target),
                        new.status,
                        new.subject.as_deref().map(cut)
                    ])
                })
                .map(i64::unsigned_abs)
                .during("begin audit entry")
            })
            .await
    }

    /// Writes down what came of it.
    pub async fn end_audit(&self, id: u64, status: u16, subject: Option<String>) -> Result<(), CatalogError> {
        self.database
            .write(move |db| {
                db.prepare_cached("UPDATE audit SET status = ?2, subject = ?3 WHERE id = ?1")
                    .and_then(|mut update| update.execute(params![id, status, subject.as_deref().map(cut)]))
                    .during("end audit entry")?;
                Ok(())
            })
            .await
    }

    /// A page of entries, the newest first.
    pub async fn audit(&self, query: AuditQuery) -> Result<AuditPage, CatalogError> {
        let limit = query.limit.clamp(1, MAX_PAGE);
        self.database
            .read(move |db| {
                let before = query.before.and_then(|before| i64::try_from(before).ok());
                let mut entries: Vec<AuditEntry> = db
                    .prepare_cached(
                        "SELECT person_id, person_name, person_email, id, at_ms, action, target, status, subject
                         FROM audit
                         WHERE id < ?1 AND (?2 IS NULL OR person_id = ?2)
                           AND (?3 IS NULL OR instr(target, ?3) > 0 OR instr(subject, ?3) > 0)
                         ORDER BY id DESC LIMIT ?4",
                    )
                    .and_then(|mut rows| {
                        rows.query_map(
                            params![
                                before.unwrap_or(i64::MAX),
                                query.person.as_ref().map(PersonId::as_str),
                                query.about,
                                // One more than asked for tells whether there is another page.
                                limit + 1
                            ],
                            |row| {
                                Ok(AuditEntry {
                                    person: person_of(row)?,
                                    id: row.get(3)?,
                                    at_ms: row.get(4)?,
                                    action: row.get(5)?,
                                    target: row.get(6)?,
                                    status: row.get(7)?,
                                    subject: row.get(8)?,
                                })
                            },
                        )?
                        .collect()
                    })
                    .during("list audit entries")?;
                let has_more = entries.len() > limit as usize;
                entries.truncate(limit as usize);
                let next_before = entries.last().filter(|_| has_more).map(|last| last.id);
                Ok(AuditPage { entries, next_before })
            })
            .await
    }

    /// Forgets entries that are older; tells how many.
    pub async fn forget_audit(&self, age: Duration) -> Result<usize, CatalogError> {
        let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        let oldest_ms = self.clock.now_ms().saturating_sub(age_ms);
        self.database
            .write(move |db| {
                db.execute("DELETE FROM audit WHERE at_ms < ?1", [oldest_ms])
                    .during("forget old audit entries")
            })
            .await
    }
}
