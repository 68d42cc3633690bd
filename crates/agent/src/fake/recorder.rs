//! A recorder and a platform that remember what they were told. Nothing is stored beyond the test.

use crate::world::{
    Inserted, MessageOf, Platform, PullRequestOpened, PullRequestRequest, Record, RecordError, Recorder,
};
use async_trait::async_trait;
use greenroom_llm::failure::ModelFailure;
use greenroom_protocol::client::event::Item;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::prompt::Prompt;
use greenroom_protocol::client::stream::DeltaChannel;
use greenroom_protocol::id::ItemId;
use greenroom_protocol::reference::Digest;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::world::JournalEntry;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Unfinished text as it was shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    pub item_id: ItemId,
    pub channel: DeltaChannel,
    pub text: String,
}

/// A retry as it was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    pub attempt: u32,
    pub delay_ms: u64,
    pub message: String,
}

/// Keeps records, deltas and retries in the order they came.
#[derive(Debug, Default)]
pub struct RecordingRecorder {
    records: Mutex<Vec<Record>>,
    deltas: Mutex<Vec<Delta>>,
    retries: Mutex<Vec<Retry>>,
    /// What people say next.
    inserted: Mutex<Vec<Prompt>>,
    /// By their names.
    files: Mutex<HashMap<String, Vec<u8>>>,
    files_asked: Mutex<Vec<String>>,
    /// Records that may still be written; `None`: any number.
    room: Mutex<Option<usize>>,
}

impl RecordingRecorder {
    /// One that refuses every record behind the first `count`, as a full disk or a crash would.
    pub fn failing_after(count: usize) -> Self {
        Self {
            room: Mutex::new(Some(count)),
            ..Self::default()
        }
    }

    /// Says something to the turn, which hears it before the model is asked the next time.
    pub fn insert(&self, prompt: Prompt) {
        lock(&self.inserted).push(prompt);
    }

    /// Keeps a file under a name.
    pub fn keep(&self, digest: &str, bytes: &[u8]) {
        lock(&self.files).insert(digest.to_owned(), bytes.to_vec());
    }

    /// Names of the files that were asked for, in order.
    pub fn files_asked(&self) -> Vec<String> {
        lock(&self.files_asked).clone()
    }

    /// Every record, in order.
    pub fn records(&self) -> Vec<Record> {
        lock(&self.records).clone()
    }

    /// The journal of all records, in order.
    pub fn journal(&self) -> Vec<JournalEntry> {
        lock(&self.records)
            .iter()
            .flat_map(|record| record.journal.clone())
            .collect()
    }

    /// Items that are whole, in order.
    pub fn completed(&self) -> Vec<Item> {
        lock(&self.records)
            .iter()
            .flat_map(|record| record.completed.clone())
            .collect()
    }

    /// Every delta, in order.
    pub fn deltas(&self) -> Vec<Delta> {
        lock(&self.deltas).clone()
    }

    /// All text shown of one item's channel.
    pub fn shown(&self, item_id: &ItemId, channel: DeltaChannel) -> String {
        lock(&self.deltas)
            .iter()
            .filter(|delta| delta.item_id == *item_id && delta.channel == channel)
            .map(|delta| delta.text.as_str())
            .collect()
    }

    /// Every retry, in order.
    pub fn retries(&self) -> Vec<Retry> {
        lock(&self.retries).clone()
    }
}

#[async_trait]
impl Recorder for RecordingRecorder {
    async fn record(&self, record: Record) -> Result<(), RecordError> {
        if let Some(room) = lock(&self.room).as_mut() {
            if *room == 0 {
                return Err(RecordError(Problem::transient(
                    "journal_unwritable",
                    "The session's journal could not be written.",
                )));
            }
            *room -= 1;
        }
        lock(&self.records).push(record);
        Ok(())
    }

    async fn take_inserted(
        &self,
        mut record: Record,
        message_of: MessageOf,
    ) -> Result<Inserted, RecordError> {
        let prompts = std::mem::take(&mut *lock(&self.inserted));
        if prompts.is_empty() {
            return Ok(Inserted::Nothing(record));
        }
        let message = |prompt| JournalEntry::Message {
            message: message_of(prompt),
        };
        record.journal.extend(prompts.iter().map(message));
        self.record(record).await?;
        Ok(Inserted::Prompts(prompts))
    }

    async fn kept_file(&self, digest: &str) -> Result<Option<Vec<u8>>, RecordError> {
        lock(&self.files_asked).push(digest.to_owned());
        Ok(lock(&self.files).get(digest).cloned())
    }

    fn delta(&self, item_id: &ItemId, channel: DeltaChannel, text: &str) {
        lock(&self.deltas).push(Delta {
            item_id: item_id.clone(),
            channel,
            text: text.to_owned(),
        });
    }

    fn retrying(&self, attempt: u32, delay_ms: u64, failure: &ModelFailure) {
        lock(&self.retries).push(Retry {
            attempt,
            delay_ms,
            message: failure.message.clone(),
        });
    }
}

/// Opens one pull request, number 1; the next requests update it. Or refuses all.
#[derive(Debug, Default)]
pub struct FakePlatform {
    requests: Mutex<Vec<PullRequestRequest>>,
    files: Mutex<Vec<(String, Vec<u8>)>>,
    refusal: Option<Problem>,
}

impl FakePlatform {
    /// One that answers every request with this problem.
    pub fn refusing(problem: Problem) -> Self {
        Self {
            refusal: Some(problem),
            ..Self::default()
        }
    }

    /// Files that were kept, with their types, in order.
    pub fn files(&self) -> Vec<(String, Vec<u8>)> {
        lock(&self.files).clone()
    }

    /// Every request, refused ones too, in order.
    pub fn requests(&self) -> Vec<PullRequestRequest> {
        lock(&self.requests).clone()
    }
}

#[async_trait]
impl Platform for FakePlatform {
    async fn open_pull_request(&self, request: PullRequestRequest) -> Result<PullRequestOpened, Problem> {
        let mut requests = lock(&self.requests);
        requests.push(request);
        match &self.refusal {
            Some(problem) => Err(problem.clone()),
            None => Ok(PullRequestOpened {
                number: 1,
                path: "/pulls/1".to_owned(),
                is_new: requests.len() == 1,
            }),
        }
    }

    async fn keep_file(&self, media_type: &str, bytes: Vec<u8>) -> Result<Digest, Problem> {
        if let Some(problem) = &self.refusal {
            return Err(problem.clone());
        }
        let mut files = lock(&self.files);
        files.push((media_type.to_owned(), bytes));
        // Another for each: what the name is made of is the store's.
        let mut sum = [0; 32];
        sum[..8].copy_from_slice(&(files.len() as u64).to_le_bytes());
        Ok(Digest::of_sha256(&sum))
    }
}
