//! Writes one batch. The caller undoes everything if this returns an error.

use super::LogFile;
use crate::failure::StorageFailure;
use crate::session_log::{AppendError, Batch, IntentAttempt, IntentResult, NewIntent, REMEMBERED_EVENTS};
use ring::digest::{Context, SHA256};
use rusqlite::{OptionalExtension, params};
use serde::Serialize;
use std::sync::Arc;

/// A batch as its rows will be, encoded once for digest and insert.
struct Encoded {
    events: Vec<String>,
    journal: Vec<String>,
    receipts: Vec<String>,
    payloads: Vec<String>,
    outcomes: Vec<String>,
    digest: Vec<u8>,
}

impl LogFile {
    pub fn append(&self, epoch: u64, expected_seq: u64, batch: &Batch) -> Result<u64, AppendError> {
        let lease = self.lease()?;
        if lease.epoch != epoch || lease.holder.is_none() {
            return Err(AppendError::Fenced);
        }
        let rows = encode(batch)?;
        if let Some(last_seq) = self.earlier(expected_seq, &rows.digest)? {
            return Ok(last_seq);
        }
        let last_seq = self.last_seq()?;
        if last_seq != expected_seq {
            return Err(AppendError::Conflict { last_seq });
        }
        let last_seq = self.insert_events(last_seq, batch, &rows)?;
        self.insert_journal(batch, &rows)?;
        self.insert_receipts(batch, &rows)?;
        for (intent, payload) in batch.intents.iter().zip(&rows.payloads) {
            self.insert_intent(batch.at_ms, intent, payload)?;
        }
        for attempt in &batch.attempts {
            self.begin_attempt(attempt)?;
        }
        for (result, outcome) in batch.results.iter().zip(&rows.outcomes) {
            self.record_result(result, outcome)?;
        }
        self.remember(expected_seq, &rows.digest, last_seq)?;
        Ok(last_seq)
    }

    /// What the same append returned before.
    fn earlier(&self, expected_seq: u64, digest: &[u8]) -> Result<Option<u64>, StorageFailure> {
        if expected_seq > i64::MAX.unsigned_abs() {
            return Ok(None);
        }
        self.during(
            "look for earlier append",
            self.db()
                .prepare_cached("SELECT last_seq FROM appends WHERE expected_seq = ?1 AND digest = ?2")
                .and_then(|mut query| {
                    query
                        .query_row(params![expected_seq, digest], |row| row.get(0))
                        .optional()
                }),
        )
    }

    fn remember(&self, expected_seq: u64, digest: &[u8], last_seq: u64) -> Result<(), StorageFailure> {
        let write = || -> rusqlite::Result<()> {
            self.db()
                .prepare_cached("INSERT INTO appends (expected_seq, digest, last_seq) VALUES (?1, ?2, ?3)")?
                .execute(params![expected_seq, digest, last_seq])?;
            self.db()
                .prepare_cached("DELETE FROM appends WHERE expected_seq < ?1")?
                .execute([last_seq.saturating_sub(REMEMBERED_EVENTS)])?;
            Ok(())
        };
        self.during("remember append", { write }())
    }

    fn insert_events(&self, last_seq: u64, batch: &Batch, rows: &Encoded) -> Result<u64, StorageFailure> {
        let write = || {
            let mut insert = self
                .db()
                .prepare_cached("INSERT INTO events (seq, at_ms, body) VALUES (?1, ?2, ?3)")?;
            let mut seq = last_seq;
            for (index, body) in rows.events.iter().enumerate() {
                seq += 1;
                insert.execute(params![seq, batch.event_time_ms(index), body])?;
            }
            Ok(seq)
        };
        self.during("insert events", write())
    }

    fn insert_journal(&self, batch: &Batch, rows: &Encoded) -> Result<(), StorageFailure> {
        let write = || {
            let mut insert = self
                .db()
                .prepare_cached("INSERT INTO journal (at_ms, turn_id, entry) VALUES (?1, ?2, ?3)")?;
            for (row, entry) in batch.journal.iter().zip(&rows.journal) {
                insert.execute(params![batch.at_ms, row.turn_id.as_str(), entry])?;
            }
            Ok(())
        };
        self.during("insert journal", write())
    }

    fn insert_receipts(&self, batch: &Batch, rows: &Encoded) -> Result<(), AppendError> {
        for (receipt, body) in batch.receipts.iter().zip(&rows.receipts) {
            let inserted = self
                .db()
                .prepare_cached(
                    "INSERT INTO receipts (person_id, key, at_ms, digest, body) VALUES (?1, ?2, ?3, ?4, ?5)
                     ON CONFLICT DO NOTHING",
                )
                .and_then(|mut insert| {
                    insert.execute(params![
                        receipt.person.as_str(),
                        receipt.key,
                        batch.at_ms,
                        receipt.digest,
                        body
                    ])
                });
            if self.during("insert receipt", inserted)? == 0 {
                return Err(AppendError::ReceiptExists {
                    key: receipt.key.clone(),
                });
            }
        }
        Ok(())
    }

    fn insert_intent(&self, at_ms: i64, intent: &NewIntent, payload: &str) -> Result<(), AppendError> {
        let inserted = self
            .db()
            .prepare_cached(
                "INSERT INTO outbox (key, kind, digest, payload, created_at_ms) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT DO NOTHING",
            )
            .and_then(|mut insert| {
                insert.execute(params![intent.key, intent.kind, intent.digest, payload, at_ms])
            });
        if self.during("insert intent", inserted)? == 1 {
            return Ok(());
        }
        match self.intent(&intent.key)? {
            Some(stored) if stored.digest == intent.digest && stored.kind == intent.kind => Ok(()),
            _ => Err(AppendError::IntentConflict {
                key: intent.key.clone(),
            }),
        }
    }

    fn begin_attempt(&self, attempt: &IntentAttempt) -> Result<(), AppendError> {
        let updated = self
            .db()
            .prepare_cached(
                "UPDATE outbox SET attempts = attempts + 1, next_attempt_at_ms = ?2 WHERE key = ?1 AND is_final = 0",
            )
            .and_then(|mut update| update.execute(params![attempt.key, attempt.next_attempt_at_ms]));
        if self.during("begin attempt", updated)? == 1 {
            return Ok(());
        }
        let key = attempt.key.clone();
        match self.intent(&attempt.key)? {
            // Over already: doing it again is what the outbox is there to prevent.
            Some(_) => Err(AppendError::IntentConflict { key }),
            None => Err(AppendError::IntentUnknown { key }),
        }
    }

    fn record_result(&self, result: &IntentResult, outcome: &str) -> Result<(), AppendError> {
        let updated = self
            .db()
            .prepare_cached("UPDATE outbox SET outcome = ?2, is_final = ?3 WHERE key = ?1 AND is_final = 0")
            .and_then(|mut update| update.execute(params![result.key, outcome, result.is_final]));
        if self.during("record result", updated)? == 1 {
            return Ok(());
        }
        let key = result.key.clone();
        match self.intent(&result.key)? {
            Some(stored) if result.is_final && stored.outcome.as_ref() == Some(&result.outcome) => Ok(()),
            Some(_) => Err(AppendError::IntentConflict { key }),
            None => Err(AppendError::IntentUnknown { key }),
        }
    }
}

fn encode(batch: &Batch) -> Result<Encoded, StorageFailure> {
    let mut digest = Context::new(&SHA256);
    digest.update(&batch.at_ms.to_be_bytes());
    // Lengths before texts: no two batches give the same bytes.
    let mut add = |text: &str| {
        digest.update(&text.len().to_be_bytes());
        digest.update(text.as_bytes());
    };
    for count in [
        batch.events.len(),
        batch.event_times_ms.len(),
        batch.journal.len(),
        batch.receipts.len(),
        batch.intents.len(),
        batch.attempts.len(),
        batch.results.len(),
    ] {
        add(&count.to_string());
    }
    let events = encode_all(batch.events.iter())?;
    events.iter().for_each(|event| add(event));
    batch
        .event_times_ms
        .iter()
        .for_each(|time_ms| add(&time_ms.to_string()));
    let journal = encode_all(batch.journal.iter().map(|row| &row.entry))?;
    for (row, entry) in batch.journal.iter().zip(&journal) {
        add(row.turn_id.as_str());
        add(entry);
    }
    let receipts = encode_all(batch.receipts.iter().map(|receipt| &receipt.body))?;
    for (receipt, body) in batch.receipts.iter().zip(&receipts) {
        add(receipt.person.as_str());
        add(&receipt.key);
        add(&receipt.digest);
        add(body);
    }
    let payloads = encode_all(batch.intents.iter().map(|intent| &intent.payload))?;
    for (intent, payload) in batch.intents.iter().zip(&payloads) {
        add(&intent.key);
        add(&intent.kind);
        add(&intent.digest);
        add(payload);
    }
    for attempt in &batch.attempts {
        add(&attempt.key);
        add(&attempt.next_attempt_at_ms.to_string());
    }
    let outcomes = encode_all(batch.results.iter().map(|result| &result.outcome))?;
    for (result, outcome) in batch.results.iter().zip(&outcomes) {
        add(&result.key);
        add(if result.is_final { "final" } else { "pending" });
        add(outcome);
    }
    Ok(Encoded {
        events,
        journal,
        receipts,
        payloads,
        outcomes,
        digest: digest.finish().as_ref().to_vec(),
    })
}

fn encode_all<'a, T: Serialize + 'a>(
    values: impl Iterator<Item = &'a T>,
) -> Result<Vec<String>, StorageFailure> {
    values
        .map(serde_json::to_string)
        .collect::<Result<_, _>>()
        .map_err(|source| StorageFailure::Io {
            action: "encode batch",
            source: Arc::new(source),
        })
}
