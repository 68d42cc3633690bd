//! Sessions that begin as a copy of another: with its files at one moment and what was said until then, on a branch of their own.
//!
//! Order makes every step safe to be killed in. Each fork's own snapshot is kept before its session exists; a session that exists is
//! whole, because its log begins with one batch. A snapshot whose session never came is removed at the next start of the server.

use super::command::SessionHandle;
use super::files;
use super::inherited::{Inherited, Timed};
use super::registry::SessionRegistry;
use super::services::SessionServices;
use super::snapshots;
use greenroom_protocol::client::event::EventBody;
use greenroom_protocol::client::person::Person;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::session::{Session, SessionSnapshot, SessionState};
use greenroom_protocol::id::{SandboxId, SessionId, SnapshotId};
use greenroom_protocol::reference::Digest;
use greenroom_stdx::step;
use greenroom_store::session_log::{Batch, JournalRow};
use std::collections::BTreeSet;

/// Events read at once.
const PAGE_EVENTS: u32 = 2_000;

/// What all forks of one request begin with.
pub struct Origin {
    from: SessionId,
    /// `None`: there is no sandbox yet.
    files: Option<SessionSnapshot>,
    /// Whether `files` were taken for the forks alone.
    is_own: bool,
    events: Vec<Timed>,
    journal: Vec<JournalRow>,
    /// Files that these name.
    files_named: BTreeSet<Digest>,
}

impl Origin {
    /// Takes what `session` is now, or was at one of its snapshots. Its sandbox and a turn that runs go on.
    pub async fn take(
        services: &SessionServices,
        session: &Session,
        snapshot: Option<SessionSnapshot>,
        had_files: bool,
        by: &Person,
    ) -> Result<Self, Problem> {
        let sandbox = sandbox_with_files(services, session).await?;
        let snapshot = match (snapshot, &sandbox) {
            (None, None) => last_files(services, session, had_files).await?,
            (snapshot, _) => snapshot,
        };
        let until_seq = snapshot.as_ref().map(|taken| taken.seq);
        // Before the files: the model may find more done than it remembers, never less.
        let (events, journal) = inherited(services, session, until_seq, by).await?;
        let (files, is_own) = match (snapshot, sandbox) {
            (Some(snapshot), _) => (Some(snapshot), false),
            (None, Some(sandbox)) => (Some(files_now(services, session, &sandbox).await?), true),
            (None, None) => (None, false),
        };
        Ok(Self {
            from: session.id.clone(),
            files_named: files::names_in(events.iter().map(|(_, body)| body), &journal),
            files,
            is_own,
            events,
            journal,
        })
    }

    /// Makes one fork; `created` must be [`EventBody::SessionCreated`] of `id`.
    pub async fn begin(
        &self,
        services: &SessionServices,
        sessions: &SessionRegistry,
        id: &SessionId,
        created: EventBody,
        by: &Person,
    ) -> Result<SessionHandle, Problem> {
        let snapshot_id = match &self.files {
            Some(files) => Some(self.own_files(services, id, files).await?),
            None => None,
        };
        let forked = EventBody::SessionForked {
            from: self.from.clone(),
            snapshot_id,
            by: by.clone(),
        };
        let idle = EventBody::SessionStateChanged {
            state: SessionState::Idle,
        };
        let now_ms = services.clock.now_ms();
        let before = vec![(now_ms, created)];
        let after = vec![(now_ms, forked), (now_ms, idle)];
        let (event_times_ms, events) = [before, self.events.clone(), after].concat().into_iter().unzip();
        let batch = Batch {
            events,
            event_times_ms,
            journal: self.journal.clone(),
            ..Batch::default()
        };
        // Before what names them; a session without events is begun again.
        files::copy(services, &self.from, id, &self.files_named).await?;
        sessions.create(id, batch).await
    }

    /// A snapshot of the fork's own, so that it stays until its sandbox has begun with it, whatever becomes of the other session.
    async fn own_files(
        &self,
        services: &SessionServices,
        id: &SessionId,
        files: &SessionSnapshot,
    ) -> Result<SnapshotId, Problem> {
        let copied = services.sandboxes.copy_snapshot(&files.id).await?;
        step::reached("fork.copied");
        let own = SessionSnapshot {
            id: copied.clone(),
            session_id: id.clone(),
            created_at_ms: services.clock.now_ms(),
            // The last of the batch that the fork begins with.
            seq: self.events.len() as u64 + 3,
            is_pinned: true,
            ..files.clone()
        };
        snapshots::keep_record(services, &own).await?;
        Ok(copied)
    }

    /// Forgets what only the making needed.
    pub async fn finish(self, services: &SessionServices) {
        let Some(files) = self.files.filter(|_| self.is_own) else {
            return;
        };
        if let Err(problem) = services.sandboxes.remove_snapshots(&[files.id]).await {
            tracing::warn!(
                code = problem.code,
                "a snapshot that nobody needs stays until the next start: {}",
                problem.message
            );
        }
    }
}

/// The session's sandbox, if it has one that has its files.
async fn sandbox_with_files(
    services: &SessionServices,
    session: &Session,
) -> Result<Option<SandboxId>, Problem> {
    let sandbox = services.catalog.sandbox(&session.id).await;
    let Some(sandbox) = sandbox.map_err(|error| error.problem())? else {
        return Ok(None);
    };
    let is_new = services.sandboxes.is_new(&sandbox).await;
    Ok((!is_new).then_some(sandbox))
}

/// What a session without files begins with itself: so it is for a fork that was not prompted yet, and after files were lost.
async fn last_files(
    services: &SessionServices,
    session: &Session,
    had_files: bool,
) -> Result<Option<SessionSnapshot>, Problem> {
    let newest = snapshots::newest(services, &session.id).await?;
    let had_sandbox = services.catalog.sandbox(&session.id).await;
    let had_sandbox = had_sandbox.map_err(|error| error.problem())?.is_some();
    match newest {
        None if had_sandbox && had_files => Err(Problem::permanent(
            "fork_files_lost",
            "The files of the session's sandbox are lost, so that nothing can begin with them.",
        )
        .with_hint("Prompt the session: its sandbox begins anew with what was pushed.")),
        newest => Ok(newest),
    }
}

async fn files_now(
    services: &SessionServices,
    session: &Session,
    sandbox: &SandboxId,
) -> Result<SessionSnapshot, Problem> {
    let sealed = services.sandboxes.snapshot(sandbox).await?;
    Ok(SessionSnapshot {
        id: sealed.id,
        session_id: session.id.clone(),
        seq: session.last_seq,
        created_at_ms: services.clock.now_ms(),
        size_bytes: sealed.size_bytes,
        is_pinned: false,
    })
}

/// What was said until then, for people and for the model.
async fn inherited(
    services: &SessionServices,
    session: &Session,
    until_seq: Option<u64>,
    by: &Person,
) -> Result<(Vec<Timed>, Vec<JournalRow>), Problem> {
    let mut inherited = Inherited::new(until_seq);
    let mut after = 0;
    loop {
        let page = services.store.read(&session.id, after, PAGE_EVENTS).await;
        let page = page.map_err(|error| error.problem())?;
        let Some(last) = page.last() else { break };
        after = last.seq;
        page.into_iter().for_each(|event| inherited.push(event));
    }
    let journal = services.store.journal(&session.id, 0).await;
    let mut journal = journal.map_err(|error| error.problem())?;
    journal.retain(|row| inherited.remembers(row.at_ms));
    let now_ms = services.clock.now_ms();
    Ok((inherited.into_events(&by.id, now_ms), journal))
}

/// Removes files of forks whose making was cut off before there was a session.
pub async fn forget_unborn(services: &SessionServices, sessions: &SessionRegistry) -> Result<(), Problem> {
    let all = services.catalog.all_snapshots().await;
    let mut unborn = Vec::new();
    for snapshot in all.map_err(|error| error.problem())? {
        let known = services.catalog.session(&snapshot.session_id).await;
        if known.map_err(|error| error.problem())?.is_some() {
            continue;
        }
        // The list of sessions may be behind the sessions.
        match sessions.get(&snapshot.session_id).await {
            Err(problem) if problem.code == "session_unknown" => {
                // Files may lie there already, which nothing names.
                let removed = services.store.remove(&snapshot.session_id).await;
                removed.map_err(|error| error.problem())?;
                unborn.push(snapshot.id);
            }
            _ => {}
        }
    }
    snapshots::remove(services, &unborn).await
}
