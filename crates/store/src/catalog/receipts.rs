//! Receipts of commands that are no prompts: what each idempotency key was used for, and what came of it.

use super::{Catalog, CatalogError, During};
use greenroom_protocol::id::PersonId;
use rusqlite::{OptionalExtension as _, params};
use std::time::Duration;

/// How long a receipt is kept; a client that repeats does so within minutes.
const KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Largest answer that is kept, in bytes. Commands answer with little.
pub const MAX_RECEIPT_BYTES: usize = 1 << 20;

/// What is known of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Receipt {
    /// Nothing: the key is the caller's now, who must end it by [`Catalog::keep_receipt`] or [`Catalog::forget_receipt`].
    Fresh,
    /// The same command is being carried out, by the server that has this name.
    Begun { server: String },
    /// It was carried out; this was answered.
    Done { status: u16, body: Vec<u8> },
}

impl Catalog {
    /// Takes a key for a command, or tells what came of the one that took it before. Another digest is `KeyReused`.
    pub async fn begin_receipt(
        &self,
        person: &PersonId,
        key: &str,
        digest: &str,
        server: &str,
    ) -> Result<Receipt, CatalogError> {
        let (person, key) = (person.clone(), key.to_owned());
        let (digest, server) = (digest.to_owned(), server.to_owned());
        let now_ms = self.clock.now_ms();
        let oldest_ms = now_ms.saturating_sub(i64::try_from(KEPT.as_millis()).unwrap_or(i64::MAX));
        self.database
            .write(move |db| {
                db.execute("DELETE FROM receipts WHERE begun_at_ms < ?1", [oldest_ms])
                    .during("forget old receipts")?;
                let known = db
                    .query_row(
                        "SELECT digest, server, status, body FROM receipts WHERE person_id = ?1 AND key = ?2",
                        params![person.as_str(), key],
                        |row| {
                            let digest: String = row.get(0)?;
                            let receipt = match row.get::<_, Option<u16>>(2)? {
                                Some(status) => Receipt::Done {
                                    status,
                                    body: row.get(3)?,
                                },
                                None => Receipt::Begun { server: row.get(1)? },
                            };
                            Ok((digest, receipt))
                        },
                    )
                    .optional()
                    .during("read receipt")?;
                match known {
                    Some((known, receipt)) if known == digest => return Ok(receipt),
                    Some(_) => return Err(CatalogError::KeyReused),
                    None => {}
                }
                db.execute(
                    "INSERT INTO receipts (person_id, key, digest, server, begun_at_ms) VALUES (?1, ?2, ?3, ?4, ?5)",
                    params![person.as_str(), key, digest, server, now_ms],
                )
                .during("begin receipt")?;
                Ok(Receipt::Fresh)
            })
            .await
    }

    /// Keeps what a command was answered with, for its repetitions.
    pub async fn keep_receipt(
        &self,
        person: &PersonId,
        key: &str,
        status: u16,
        body: Vec<u8>,
    ) -> Result<(), CatalogError> {
        let (person, key) = (person.clone(), key.to_owned());
        self.database
            .write(move |db| {
                db.execute(
                    "UPDATE receipts SET status = ?3, body = ?4 WHERE person_id = ?1 AND key = ?2",
                    params![person.as_str(), key, status, body],
                )
                .during("keep receipt")?;
                Ok(())
            })
            .await
    }

    /// Gives a key back whose command did nothing: it may be tried again.
    pub async fn forget_receipt(&self, person: &PersonId, key: &str) -> Result<(), CatalogError> {
        let (person, key) = (person.clone(), key.to_owned());
        self.database
            .write(move |db| {
                db.execute(
                    "DELETE FROM receipts WHERE person_id = ?1 AND key = ?2 AND status IS NULL",
                    params![person.as_str(), key],
                )
                .during("forget receipt")?;
                Ok(())
            })
            .await
    }
}
