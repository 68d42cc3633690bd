//! Who works on which session when: each session has a queue that one thread at a time serves, so a file has one writer, and
//! calls that waited together share one transaction. Knows nothing of what the calls do.

use super::StoreOptions;
use super::files::SessionFiles;
use super::log_file::LogFile;
use crate::database::{Announce, and_committed, in_transaction, spawn};
use crate::failure::StorageFailure;
use crate::session_log::LogFault;
use greenroom_protocol::id::SessionId;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Most calls of one session that share a transaction.
const GROUP: usize = 256;

/// What a call does to its session's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    Write,
    Read,
}

type Work = Box<dyn FnOnce(Result<&LogFile, LogFault>) -> Announce + Send>;
type Answer = oneshot::Sender<Result<(), LogFault>>;

enum Job {
    Run(Task, Work, OwnedSemaphorePermit),
    Create(Answer, OwnedSemaphorePermit),
    Remove(Answer, OwnedSemaphorePermit),
    /// Makes room for another open file.
    Close,
}

/// A session with calls waiting or a file open.
#[derive(Default)]
struct Mailbox {
    jobs: VecDeque<Job>,
    /// In `ready`, or with a thread.
    is_scheduled: bool,
    file: Option<LogFile>,
    last_used: u64,
}

#[derive(Default)]
struct State {
    mailboxes: HashMap<SessionId, Mailbox>,
    ready: VecDeque<SessionId>,
    /// Files in mailboxes and with threads.
    open_files: usize,
    uses: u64,
    is_closed: bool,
}

struct Shared {
    files: SessionFiles,
    max_open: usize,
    state: Mutex<State>,
    has_work: Condvar,
}

/// The writer threads; see the module.
pub(super) struct Threads {
    shared: Arc<Shared>,
    room: Arc<Semaphore>,
    threads: Vec<JoinHandle<()>>,
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Threads").finish_non_exhaustive()
    }
}

impl Threads {
    pub fn start(files: SessionFiles, options: &StoreOptions) -> Result<Self, StorageFailure> {
        let mut threads = Self {
            shared: Arc::new(Shared {
                files,
                max_open: options.max_open.max(1),
                state: Mutex::default(),
                has_work: Condvar::new(),
            }),
            room: Arc::new(Semaphore::new(options.queue.clamp(1, Semaphore::MAX_PERMITS))),
            threads: Vec::new(),
        };
        for number in 0..options.writer_threads.clamp(1, 64) {
            let shared = Arc::clone(&threads.shared);
            threads
                .threads
                .push(spawn(&format!("session-log-{number}"), move || shared.serve())?);
        }
        Ok(threads)
    }

    /// Waits for room, then for `work`; what it wrote is on disk when this returns.
    pub async fn ask<T, E>(
        &self,
        session: &SessionId,
        task: Task,
        work: impl FnOnce(&LogFile) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<LogFault> + From<StorageFailure> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let work: Work = Box::new(move |file| {
            let result = file.map_err(E::from).and_then(work);
            Box::new(move |committed| {
                // A caller that went away does not want to know.
                let _ = answer.send(and_committed(result, committed));
            })
        });
        self.submit(session, |room| Job::Run(task, work, room)).await?;
        answered
            .await
            .unwrap_or_else(|_| Err(StorageFailure::Closed.into()))
    }

    pub async fn create(&self, session: &SessionId) -> Result<(), LogFault> {
        self.submit_and_wait(session, Job::Create).await
    }

    /// The session's file need not stay open; whoever wants it opens it again.
    pub async fn close(&self, session: &SessionId) {
        // A store that is closed has closed its files.
        let _ = self.submit(session, |_| Job::Close).await;
    }

    pub async fn remove(&self, session: &SessionId) -> Result<(), LogFault> {
        self.submit_and_wait(session, Job::Remove).await
    }

    async fn submit_and_wait(
        &self,
        session: &SessionId,
        job: impl FnOnce(Answer, OwnedSemaphorePermit) -> Job,
    ) -> Result<(), LogFault> {
        let (answer, answered) = oneshot::channel();
        self.submit(session, |room| job(answer, room)).await?;
        answered
            .await
            .unwrap_or_else(|_| Err(StorageFailure::Closed.into()))
    }

    async fn submit(
        &self,
        session: &SessionId,
        job: impl FnOnce(OwnedSemaphorePermit) -> Job,
    ) -> Result<(), StorageFailure> {
        let room = Arc::clone(&self.room)
            .acquire_owned()
            .await
            .map_err(|_| StorageFailure::Closed)?;
        let mut state = self.shared.lock();
        if state.is_closed {
            return Err(StorageFailure::Closed);
        }
        state.push(session, job(room));
        drop(state);
        self.shared.has_work.notify_one();
        Ok(())
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.room.close();
        self.shared.lock().is_closed = true;
        self.shared.has_work.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl State {
    fn push(&mut self, session: &SessionId, job: Job) {
        let mailbox = self.mailboxes.entry(session.clone()).or_default();
        mailbox.jobs.push_back(job);
        if !mailbox.is_scheduled {
            mailbox.is_scheduled = true;
            self.ready.push_back(session.clone());
        }
    }

    /// The idle open file that was unused longest.
    fn least_used(&self) -> Option<SessionId> {
        self.mailboxes
            .iter()
            .filter(|(_, mailbox)| mailbox.file.is_some() && !mailbox.is_scheduled)
            .min_by_key(|(_, mailbox)| mailbox.last_used)
            .map(|(session, _)| session.clone())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock; if it did, the maps inside are still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A thread's life: serve one ready session after the other until the store closes.
    fn serve(&self) {
        loop {
            let mut state = self.lock();
            let session = loop {
                if let Some(session) = state.ready.pop_front() {
                    break session;
                }
                if state.is_closed {
                    // Files that are open now close with the last thread's reference.
                    return;
                }
                state = self.has_work.wait(state).unwrap_or_else(PoisonError::into_inner);
            };
            let Some(mailbox) = state.mailboxes.get_mut(&session) else {
                continue;
            };
            let count = mailbox.jobs.len().min(GROUP);
            let jobs: Vec<Job> = mailbox.jobs.drain(..count).collect();
            let mut file = mailbox.file.take();
            drop(state);

            let was_open = file.is_some();
            self.run(&session, jobs, &mut file);
            self.put_back(&session, file, was_open);
        }
    }

    fn put_back(&self, session: &SessionId, file: Option<LogFile>, was_open: bool) {
        let mut state = self.lock();
        let is_open = file.is_some();
        state.open_files = state.open_files + usize::from(is_open) - usize::from(was_open);
        state.uses += 1;
        let uses = state.uses;
        if let Some(mailbox) = state.mailboxes.get_mut(session) {
            mailbox.file = file;
            mailbox.last_used = uses;
            if !mailbox.jobs.is_empty() {
                state.ready.push_back(session.clone());
                self.has_work.notify_one();
            } else {
                mailbox.is_scheduled = false;
                if !is_open {
                    state.mailboxes.remove(session);
                }
            }
        }
        if state.open_files > self.max_open
            && let Some(idle) = state.least_used()
        {
            state.push(&idle, Job::Close);
            self.has_work.notify_one();
        }
    }

    /// Writes between two barriers share a transaction; reads of the same time see what they wrote.
    fn run(&self, session: &SessionId, jobs: Vec<Job>, file: &mut Option<LogFile>) {
        let (mut writes, mut reads) = (Vec::new(), Vec::new());
        for job in jobs {
            match job {
                Job::Run(Task::Write, work, room) => writes.push((work, room)),
                Job::Run(Task::Read, work, room) => reads.push((work, room)),
                barrier => {
                    self.flush(session, file, &mut writes, &mut reads);
                    self.pass(session, file, barrier);
                }
            }
        }
        self.flush(session, file, &mut writes, &mut reads);
    }

    fn pass(&self, session: &SessionId, file: &mut Option<LogFile>, barrier: Job) {
        match barrier {
            Job::Create(answer, _room) => {
                let _ = answer.send(self.files.create(session));
            }
            Job::Remove(answer, _room) => {
                if let Some(file) = file.take() {
                    file.close_untouched();
                }
                let _ = answer.send(self.files.remove(session));
            }
            // Dropping it moves the write-ahead log into the file and closes it.
            Job::Close => *file = None,
            Job::Run(_, work, _room) => work(Err(StorageFailure::Closed.into()))(Ok(())),
        }
    }

    fn flush(
        &self,
        session: &SessionId,
        file: &mut Option<LogFile>,
        writes: &mut Vec<(Work, OwnedSemaphorePermit)>,
        reads: &mut Vec<(Work, OwnedSemaphorePermit)>,
    ) {
        if writes.is_empty() && reads.is_empty() {
            return;
        }
        if file.is_none() {
            match self.files.open_log(session) {
                Ok(opened) => *file = Some(opened),
                Err(fault) => {
                    for (work, _room) in writes.drain(..).chain(reads.drain(..)) {
                        work(Err(fault.clone()))(Ok(()));
                    }
                    return;
                }
            }
        }
        let Some(log) = file else { return };
        // A call's room is free again only when its caller has the answer.
        let (works, rooms): (Vec<Work>, Vec<_>) = writes.drain(..).unzip();
        let (mut announcements, mut committed) = if works.is_empty() {
            (Vec::new(), Ok(()))
        } else {
            in_transaction(log.db(), works, |work, state| {
                work(state.map(|()| &*log).map_err(LogFault::from))
            })
        };
        let mut is_damaged = log.is_damaged() || matches!(committed, Err(StorageFailure::Corrupt { .. }));
        let mut read_announcements = Vec::new();
        let mut read_rooms = Vec::new();
        for (work, room) in reads.drain(..) {
            read_announcements.push(work(Ok(log)));
            read_rooms.push(room);
        }
        is_damaged |= log.is_damaged();
        let mut read_state = Ok(());
        if is_damaged && let Some(log) = file.take() {
            log.close_untouched();
            let failure = self.files.quarantine(session);
            // What was committed before the damage was noticed is in the file that was moved away.
            committed = Err(failure.clone());
            read_state = Err(failure);
        }
        for announce in announcements.drain(..) {
            announce(committed.clone());
        }
        for announce in read_announcements {
            announce(read_state.clone());
        }
        drop((rooms, read_rooms));
    }
}
