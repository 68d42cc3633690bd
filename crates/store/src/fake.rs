//! A session store in memory, for tests of what stands above. Keeps every promise but that of surviving its process.

use crate::session_log::{
    AcquireError, AppendError, Batch, Blob, Intent, JournalRow, Lease, LeaseError, MAX_READ_BYTES,
    MAX_READ_EVENTS, PutBlobError, REMEMBERED_EVENTS, ReadError, Receipt, SessionStore, StoreError, View,
    digest_of,
};
use async_trait::async_trait;
use greenroom_protocol::client::event::Event;
use greenroom_protocol::id::{PersonId, SessionId};
use greenroom_protocol::reference::Digest;
use greenroom_stdx::clock::Clock;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Sessions that live as long as the value does.
#[derive(Debug, Default)]
pub struct MemorySessionStore {
    clock: Clock,
    sessions: Mutex<HashMap<SessionId, MemorySession>>,
}

#[derive(Debug, Clone, Default)]
struct MemorySession {
    epoch: u64,
    holder: Option<String>,
    expires_at_ms: i64,
    events: Vec<Event>,
    /// By expected number, then by the batch's JSON.
    appends: BTreeMap<u64, HashMap<String, u64>>,
    journal: Vec<JournalRow>,
    receipts: HashMap<(PersonId, String), Receipt>,
    outbox: Vec<Intent>,
    /// By version and number of the last event.
    views: BTreeMap<(u32, u64), String>,
    blobs: BTreeMap<Digest, Blob>,
}

impl MemorySessionStore {
    /// An empty store whose leases run by `clock`.
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            sessions: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, MemorySession>> {
        // A session is replaced as a whole or not at all, so a panic elsewhere leaves nothing half done.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_with<T>(
        &self,
        session: &SessionId,
        read: impl FnOnce(&MemorySession) -> T,
    ) -> Result<T, ReadError> {
        self.lock().get(session).map(read).ok_or(ReadError::Unknown)
    }
}

impl MemorySession {
    fn last_seq(&self) -> u64 {
        self.events.len() as u64
    }

    fn is_owned_by(&self, epoch: u64) -> bool {
        self.epoch == epoch && self.holder.is_some()
    }

    fn append(&mut self, expected_seq: u64, batch: Batch) -> Result<u64, AppendError> {
        let last_seq = self.last_seq();
        if last_seq != expected_seq {
            return Err(AppendError::Conflict { last_seq });
        }
        for (index, body) in batch.events.iter().enumerate() {
            self.events.push(Event {
                seq: self.last_seq() + 1,
                at_ms: batch.event_time_ms(index),
                body: body.clone(),
            });
        }
        let at_ms = batch.at_ms;
        self.journal
            .extend(batch.journal.into_iter().map(|row| JournalRow { at_ms, ..row }));
        for receipt in batch.receipts {
            let id = (receipt.person, receipt.key);
            if self.receipts.contains_key(&id) {
                return Err(AppendError::ReceiptExists { key: id.1 });
            }
            self.receipts.insert(
                id,
                Receipt {
                    digest: receipt.digest,
                    body: receipt.body,
                },
            );
        }
        for intent in batch.intents {
            match self.outbox.iter().find(|stored| stored.key == intent.key) {
                Some(stored) if stored.digest == intent.digest && stored.kind == intent.kind => {}
                Some(_) => return Err(AppendError::IntentConflict { key: intent.key }),
                None => self.outbox.push(Intent {
                    key: intent.key,
                    kind: intent.kind,
                    digest: intent.digest,
                    payload: intent.payload,
                    created_at_ms: batch.at_ms,
                    attempts: 0,
                    next_attempt_at_ms: 0,
                    outcome: None,
                    is_final: false,
                }),
            }
        }
        for attempt in batch.attempts {
            let intent = self.intent_mut(&attempt.key)?;
            if intent.is_final {
                return Err(AppendError::IntentConflict { key: attempt.key });
            }
            intent.attempts += 1;
            intent.next_attempt_at_ms = attempt.next_attempt_at_ms;
        }
        for result in batch.results {
            let intent = self.intent_mut(&result.key)?;
            if !intent.is_final {
                intent.outcome = Some(result.outcome);
                intent.is_final = result.is_final;
            } else if !result.is_final || intent.outcome.as_ref() != Some(&result.outcome) {
                return Err(AppendError::IntentConflict { key: result.key });
            }
        }
        Ok(self.last_seq())
    }

    fn intent_mut(&mut self, key: &str) -> Result<&mut Intent, AppendError> {
        self.outbox
            .iter_mut()
            .find(|intent| intent.key == key)
            .ok_or_else(|| AppendError::IntentUnknown { key: key.to_owned() })
    }
}

#[async_trait]
impl SessionStore for MemorySessionStore {
    async fn create(&self, session: &SessionId) -> Result<(), StoreError> {
        self.lock().entry(session.clone()).or_default();
        Ok(())
    }

    async fn acquire(&self, session: &SessionId, node: &str, ttl: Duration) -> Result<Lease, AcquireError> {
        let now_ms = self.clock.now_ms();
        let mut sessions = self.lock();
        let session = sessions.get_mut(session).ok_or(AcquireError::Unknown)?;
        if let Some(holder) = &session.holder
            && holder != node
            && session.expires_at_ms > now_ms
        {
            return Err(AcquireError::Held {
                node: holder.clone(),
                remaining_ms: session.expires_at_ms.abs_diff(now_ms),
            });
        }
        session.epoch += 1;
        session.holder = Some(node.to_owned());
        session.expires_at_ms = expiry(now_ms, ttl);
        Ok(Lease { epoch: session.epoch })
    }

    async fn renew(&self, session: &SessionId, epoch: u64, ttl: Duration) -> Result<(), LeaseError> {
        let now_ms = self.clock.now_ms();
        let mut sessions = self.lock();
        let session = sessions.get_mut(session).ok_or(LeaseError::Unknown)?;
        if !session.is_owned_by(epoch) {
            return Err(LeaseError::Fenced);
        }
        session.expires_at_ms = expiry(now_ms, ttl);
        Ok(())
    }

    async fn release(&self, session: &SessionId, epoch: u64) -> Result<(), StoreError> {
        let mut sessions = self.lock();
        let session = sessions.get_mut(session).ok_or(StoreError::Unknown)?;
        if session.epoch == epoch {
            session.holder = None;
        }
        Ok(())
    }

    async fn append(
        &self,
        session: &SessionId,
        epoch: u64,
        expected_seq: u64,
        batch: Batch,
    ) -> Result<u64, AppendError> {
        let mut sessions = self.lock();
        let stored = sessions.get_mut(session).ok_or(AppendError::Unknown)?;
        if !stored.is_owned_by(epoch) {
            return Err(AppendError::Fenced);
        }
        let digest = serde_json::to_string(&batch).map_err(|source| {
            AppendError::Io(crate::failure::StorageFailure::Io {
                action: "encode batch",
                source: std::sync::Arc::new(source),
            })
        })?;
        if let Some(last_seq) = stored.appends.get(&expected_seq).and_then(|by| by.get(&digest)) {
            return Ok(*last_seq);
        }
        // Works on a copy so that a refused batch leaves no trace.
        let mut changed = stored.clone();
        let last_seq = changed.append(expected_seq, batch)?;
        changed
            .appends
            .entry(expected_seq)
            .or_default()
            .insert(digest, last_seq);
        changed.appends = changed
            .appends
            .split_off(&last_seq.saturating_sub(REMEMBERED_EVENTS));
        *stored = changed;
        Ok(last_seq)
    }

    async fn read(&self, session: &SessionId, after_seq: u64, limit: u32) -> Result<Vec<Event>, ReadError> {
        self.read_with(session, |session| {
            let after = usize::try_from(after_seq).unwrap_or(usize::MAX);
            let mut bytes = 0;
            session
                .events
                .iter()
                .skip(after)
                .take(limit.min(MAX_READ_EVENTS) as usize)
                .take_while(|event| {
                    let fits = bytes < MAX_READ_BYTES;
                    bytes += serde_json::to_string(&event.body).map_or(0, |text| text.len());
                    fits
                })
                .cloned()
                .collect()
        })
    }

    async fn last_seq(&self, session: &SessionId) -> Result<u64, ReadError> {
        self.read_with(session, MemorySession::last_seq)
    }

    async fn journal(&self, session: &SessionId, known: u64) -> Result<Vec<JournalRow>, ReadError> {
        let known = usize::try_from(known).unwrap_or(usize::MAX);
        self.read_with(session, |session| {
            session.journal.iter().skip(known).cloned().collect()
        })
    }

    async fn receipt(
        &self,
        session: &SessionId,
        person: &PersonId,
        key: &str,
    ) -> Result<Option<Receipt>, ReadError> {
        let id = (person.clone(), key.to_owned());
        self.read_with(session, |session| session.receipts.get(&id).cloned())
    }

    async fn outbox_pending(&self, session: &SessionId) -> Result<Vec<Intent>, ReadError> {
        self.read_with(session, |session| {
            session
                .outbox
                .iter()
                .filter(|intent| !intent.is_final)
                .cloned()
                .collect()
        })
    }

    async fn intent(&self, session: &SessionId, key: &str) -> Result<Option<Intent>, ReadError> {
        self.read_with(session, |session| {
            session.outbox.iter().find(|intent| intent.key == key).cloned()
        })
    }

    async fn put_view(&self, session: &SessionId, view: View) -> Result<(), StoreError> {
        let mut sessions = self.lock();
        let session = sessions.get_mut(session).ok_or(StoreError::Unknown)?;
        session.views.retain(|(version, _), _| *version >= view.version);
        session.views.insert((view.version, view.seq), view.body);
        Ok(())
    }

    async fn view(&self, session: &SessionId, version: u32, up_to: u64) -> Result<Option<View>, ReadError> {
        self.read_with(session, |session| {
            let mut views = session.views.range((version, 0)..=(version, up_to));
            views.next_back().map(|((version, seq), body)| View {
                seq: *seq,
                version: *version,
                body: body.clone(),
            })
        })
    }

    async fn put_blobs(
        &self,
        session: &SessionId,
        blobs: Vec<Blob>,
        max_total_bytes: u64,
    ) -> Result<Vec<Digest>, PutBlobError> {
        let size = |blobs: &BTreeMap<Digest, Blob>| blobs.values().map(|blob| blob.bytes.len() as u64).sum();
        let mut sessions = self.lock();
        let session = sessions.get_mut(session).ok_or(PutBlobError::Unknown)?;
        let (total_bytes, mut changed) = (size(&session.blobs), session.blobs.clone());
        let mut digests = Vec::new();
        for blob in blobs {
            let digest = digest_of(&blob.bytes);
            changed.entry(digest.clone()).or_insert(blob);
            digests.push(digest);
        }
        if changed.len() > session.blobs.len() && size(&changed) > max_total_bytes {
            return Err(PutBlobError::TooMuch {
                total_bytes,
                max_total_bytes,
            });
        }
        session.blobs = changed;
        Ok(digests)
    }

    async fn blob(&self, session: &SessionId, digest: &Digest) -> Result<Option<Blob>, ReadError> {
        self.read_with(session, |session| session.blobs.get(digest).cloned())
    }

    async fn remove(&self, session: &SessionId) -> Result<(), StoreError> {
        self.lock().remove(session);
        Ok(())
    }
}

fn expiry(now_ms: i64, ttl: Duration) -> i64 {
    now_ms.saturating_add(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX))
}
