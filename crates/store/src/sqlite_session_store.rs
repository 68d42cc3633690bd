//! The session store on one machine: one SQLite file per session. Turns calls into work for the writer threads; what the work
//! does to a file stands in `log_file`, who does it when in `threads`.

mod files;
mod log_file;
mod schema;
mod threads;

pub(crate) use self::schema::SCHEMA;
use crate::failure::StorageFailure;
use crate::session_log::{
    AcquireError, AppendError, Batch, Blob, Intent, JournalRow, Lease, LeaseError, LogFault, PutBlobError,
    ReadError, Receipt, SessionStore, StoreError, View,
};
use async_trait::async_trait;
use files::SessionFiles;
pub use files::session_file;
use greenroom_protocol::client::event::Event;
use greenroom_protocol::id::{PersonId, SessionId};
use greenroom_protocol::reference::Digest;
use greenroom_stdx::clock::Clock;
use log_file::LogFile;
use std::path::PathBuf;
use std::time::Duration;
use threads::{Task, Threads};

/// How much the store may use.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Threads that wait for the disk, 1 to 64.
    pub writer_threads: usize,
    /// Calls that may be under way, at least 1; more wait for room.
    pub queue: usize,
    /// Session files kept open, at least 1; the one unused longest is closed first. Each costs three file descriptors.
    pub max_open: usize,
    /// A file up to this size is checked as a whole when it is opened; larger ones only where they are read.
    pub check_on_open_max_bytes: u64,
    /// What leases are measured with.
    pub clock: Clock,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            writer_threads: 8,
            queue: 4096,
            max_open: 1024,
            check_on_open_max_bytes: 1024 * 1024,
            clock: Clock::system(),
        }
    }
}

/// A [`SessionStore`] over a directory. Dropping it finishes the calls under way and closes all files.
#[derive(Debug)]
pub struct SqliteSessionStore {
    threads: Threads,
    clock: Clock,
}

impl SqliteSessionStore {
    /// Opens or makes the directory and starts the threads. Nobody else may write to it (see
    /// [`crate::data_dir::DataDir`]).
    pub fn open(dir: impl Into<PathBuf>, options: StoreOptions) -> Result<Self, StoreError> {
        let files = SessionFiles::open(dir.into(), options.check_on_open_max_bytes)?;
        Ok(Self {
            threads: Threads::start(files, &options)?,
            clock: options.clock,
        })
    }

    /// Checks every page and index of a session's file, whatever its size. A damaged one is moved aside and reported.
    pub async fn verify(&self, session: &SessionId) -> Result<(), ReadError> {
        self.read_with(session, LogFile::verify).await
    }

    async fn write_with<T, E>(
        &self,
        session: &SessionId,
        work: impl FnOnce(&LogFile) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<LogFault> + From<StorageFailure> + Send + 'static,
    {
        self.threads
            .ask(session, Task::Write, move |file| file.undo_on_error(work))
            .await
    }

    async fn read_with<T>(
        &self,
        session: &SessionId,
        work: impl FnOnce(&LogFile) -> Result<T, StorageFailure> + Send + 'static,
    ) -> Result<T, ReadError>
    where
        T: Send + 'static,
    {
        self.threads
            .ask(session, Task::Read, move |file| Ok(work(file)?))
            .await
    }
}

#[async_trait]
impl SessionStore for SqliteSessionStore {
    async fn create(&self, session: &SessionId) -> Result<(), StoreError> {
        Ok(self.threads.create(session).await?)
    }

    async fn acquire(&self, session: &SessionId, node: &str, ttl: Duration) -> Result<Lease, AcquireError> {
        let (node, now_ms) = (node.to_owned(), self.clock.now_ms());
        self.write_with(session, move |file| file.acquire(&node, now_ms, ttl_ms(ttl)))
            .await
    }

    async fn renew(&self, session: &SessionId, epoch: u64, ttl: Duration) -> Result<(), LeaseError> {
        let expires_at_ms = self.clock.now_ms().saturating_add(ttl_ms(ttl));
        self.write_with(session, move |file| file.renew(epoch, expires_at_ms))
            .await
    }

    async fn release(&self, session: &SessionId, epoch: u64) -> Result<(), StoreError> {
        let released = self
            .write_with(session, move |file| Ok(file.release(epoch)?))
            .await;
        // Nobody writes to it for now.
        self.threads.close(session).await;
        released
    }

    async fn append(
        &self,
        session: &SessionId,
        epoch: u64,
        expected_seq: u64,
        batch: Batch,
    ) -> Result<u64, AppendError> {
        self.write_with(session, move |file| file.append(epoch, expected_seq, &batch))
            .await
    }

    async fn read(&self, session: &SessionId, after_seq: u64, limit: u32) -> Result<Vec<Event>, ReadError> {
        self.read_with(session, move |file| file.read(after_seq, limit))
            .await
    }

    async fn last_seq(&self, session: &SessionId) -> Result<u64, ReadError> {
        self.read_with(session, LogFile::last_seq).await
    }

    async fn journal(&self, session: &SessionId, known: u64) -> Result<Vec<JournalRow>, ReadError> {
        self.read_with(session, move |log| log.journal(known)).await
    }

    async fn receipt(
        &self,
        session: &SessionId,
        person: &PersonId,
        key: &str,
    ) -> Result<Option<Receipt>, ReadError> {
        let (person, key) = (person.clone(), key.to_owned());
        self.read_with(session, move |file| file.receipt(&person, &key))
            .await
    }

    async fn outbox_pending(&self, session: &SessionId) -> Result<Vec<Intent>, ReadError> {
        self.read_with(session, LogFile::outbox_pending).await
    }

    async fn intent(&self, session: &SessionId, key: &str) -> Result<Option<Intent>, ReadError> {
        let key = key.to_owned();
        self.read_with(session, move |file| file.intent(&key)).await
    }

    async fn put_view(&self, session: &SessionId, view: View) -> Result<(), StoreError> {
        self.write_with(session, move |file| Ok(file.put_view(&view)?))
            .await
    }

    async fn view(&self, session: &SessionId, version: u32, up_to: u64) -> Result<Option<View>, ReadError> {
        self.read_with(session, move |file| file.view(version, up_to))
            .await
    }

    async fn put_blobs(
        &self,
        session: &SessionId,
        blobs: Vec<Blob>,
        max_total_bytes: u64,
    ) -> Result<Vec<Digest>, PutBlobError> {
        self.write_with(session, move |file| {
            let put = |blob| file.put_blob(blob, max_total_bytes);
            blobs.iter().map(put).collect()
        })
        .await
    }

    async fn blob(&self, session: &SessionId, digest: &Digest) -> Result<Option<Blob>, ReadError> {
        let digest = digest.clone();
        self.read_with(session, move |file| file.blob(&digest)).await
    }

    async fn remove(&self, session: &SessionId) -> Result<(), StoreError> {
        Ok(self.threads.remove(session).await?)
    }
}

fn ttl_ms(ttl: Duration) -> i64 {
    i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX)
}
