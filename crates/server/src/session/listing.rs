//! Brings what lists show and what sessions are found by into the catalog, off the actors' path. Both can be made from the logs again.

use super::services::SessionServices;
use greenroom_protocol::client::event::EventBody;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::session::Session;
use greenroom_protocol::id::SessionId;
use greenroom_stdx::chain::Chain;
use greenroom_store::catalog::SearchText;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// How long to wait after the catalog refused something.
const RETRY: Duration = Duration::from_secs(2);

/// Events read at once.
const PAGE_EVENTS: u32 = 1_000;

/// Between two rounds: a session at work changes often, and its row is written once in this time.
const PAUSE: Duration = Duration::from_millis(200);

/// Who looks at a list waits no longer than this for a slow catalog, and sees it as it was.
const PATIENCE: Duration = Duration::from_secs(1);

/// What waits to be brought.
#[derive(Default)]
pub struct Listing {
    waiting: Mutex<Waiting>,
    rows_wait: Notify,
    texts_wait: Notify,
    /// Ends the pause between two rounds.
    hurry: Notify,
    /// The last round whose rows were brought, or refused.
    brought: watch::Sender<u64>,
}

#[derive(Default)]
struct Waiting {
    /// The newest of a session is enough: a burst of events becomes one write.
    rows: HashMap<SessionId, Arc<Session>>,
    /// Sessions in which somebody asked or renamed something.
    texts: HashSet<SessionId>,
    /// The last round that took the rows that waited.
    round: u64,
}

impl Listing {
    /// Remembers a row to write, unless a newer one waits.
    pub fn changed(&self, row: Arc<Session>) {
        let mut waiting = self.lock();
        let known = waiting.rows.get(&row.id);
        if known.is_none_or(|known| known.last_seq < row.last_seq) {
            waiting.rows.insert(row.id.clone(), row);
        }
        self.rows_wait.notify_one();
    }

    /// Remembers that a session has texts to be found by which may be new.
    pub fn has_texts(&self, session: SessionId) {
        self.lock().texts.insert(session);
        self.texts_wait.notify_one();
    }

    /// Returns when the rows of all that happened before are brought: who did something finds it in the list.
    pub async fn brought(&self) {
        let round = {
            let waiting = self.lock();
            waiting.round + u64::from(!waiting.rows.is_empty())
        };
        let mut brought = self.brought.subscribe();
        if *brought.borrow() < round {
            self.hurry.notify_one();
            let _ = tokio::time::timeout(PATIENCE, brought.wait_for(|brought| *brought >= round)).await;
        }
    }

    fn take_rows(&self) -> (u64, Vec<Arc<Session>>) {
        let mut waiting = self.lock();
        if !waiting.rows.is_empty() {
            waiting.round += 1;
        }
        let rows = std::mem::take(&mut waiting.rows);
        (waiting.round, rows.into_values().collect())
    }

    fn take_texts(&self) -> HashSet<SessionId> {
        std::mem::take(&mut self.lock().texts)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an event holds words that its session is found by.
pub fn is_text(event: &EventBody) -> bool {
    matches!(
        event,
        EventBody::SessionCreated { .. }
            | EventBody::SessionTitled { .. }
            | EventBody::PromptQueued { .. }
            | EventBody::PromptEdited { .. }
            | EventBody::PromptCancelled { .. }
    )
}

/// Brings what comes until the server goes down, and then what is left.
pub async fn run(services: Arc<SessionServices>) {
    match services.catalog.unindexed_sessions().await {
        Ok(sessions) => sessions
            .into_iter()
            .for_each(|session| services.listing.has_texts(session)),
        Err(error) => {
            tracing::warn!(error = %Chain(&error), "which sessions cannot be found is not known");
        }
    }
    // Apart: texts of many sessions may take long, and lists wait for rows.
    tokio::join!(run_rows(&services), run_texts(&services));
}

async fn run_rows(services: &SessionServices) {
    let Listing {
        rows_wait,
        hurry,
        brought,
        ..
    } = &services.listing;
    loop {
        let is_over = services.shutdown.is_cancelled();
        let (round, rows) = services.listing.take_rows();
        if rows.is_empty() {
            if is_over {
                return;
            }
            wait(services, rows_wait.notified()).await;
            continue;
        }
        let is_refused = !bring_rows(services, rows).await;
        brought.send_replace(round);
        if is_over {
            if is_refused {
                return;
            }
            continue;
        }
        let pause = tokio::time::sleep(if is_refused { RETRY } else { PAUSE });
        wait(services, async {
            tokio::select! {
                () = pause => {}
                () = hurry.notified() => {}
            }
        })
        .await;
    }
}

async fn run_texts(services: &SessionServices) {
    loop {
        let texts = services.listing.take_texts();
        if texts.is_empty() {
            if services.shutdown.is_cancelled() {
                return;
            }
            wait(services, services.listing.texts_wait.notified()).await;
            continue;
        }
        let mut is_refused = false;
        for session in texts {
            // What is left the next start finds again.
            if services.shutdown.is_cancelled() {
                return;
            }
            is_refused |= !bring_texts(services, session).await;
        }
        // What was refused waits; the disk may need a while.
        let pause = tokio::time::sleep(if is_refused { RETRY } else { PAUSE });
        wait(services, pause).await;
    }
}

/// For something, or the end of the server.
async fn wait(services: &SessionServices, something: impl Future<Output = ()>) {
    tokio::select! {
        () = something => {}
        () = services.shutdown.cancelled() => {}
    }
}

/// Returns false if something has to be tried again.
async fn bring_rows(services: &SessionServices, rows: Vec<Arc<Session>>) -> bool {
    let Err(error) = services.catalog.put_sessions(rows.clone()).await else {
        return true;
    };
    tracing::warn!(sessions = rows.len(), error = %Chain(&error), "rows of sessions in lists are out of date");
    for row in rows {
        services.listing.changed(row);
    }
    false
}

/// The same.
async fn bring_texts(services: &SessionServices, session: SessionId) -> bool {
    let Err(problem) = index(services, &session).await else {
        return true;
    };
    tracing::warn!(%session, code = problem.code, "a session is not found by its newest words: {}", problem.message);
    // One that cannot be read is not better the next time.
    if problem.retryable {
        services.listing.has_texts(session);
    }
    !problem.retryable
}

/// Reads what was said since the last time.
async fn index(services: &SessionServices, session: &SessionId) -> Result<(), Problem> {
    let indexed = services.catalog.indexed_seq(session).await;
    let mut seq = indexed.map_err(|error| error.problem())?;
    let mut texts = Vec::new();
    loop {
        let page = services.store.read(session, seq, PAGE_EVENTS).await;
        let page = page.map_err(|error| error.problem())?;
        let Some(last) = page.last() else { break };
        seq = last.seq;
        texts.extend(page.into_iter().filter_map(|event| text_of(event.body)));
    }
    let kept = services.catalog.index_session(session, texts, seq).await;
    kept.map_err(|error| error.problem())
}

fn text_of(event: EventBody) -> Option<SearchText> {
    let title = |text| SearchText {
        part: "title".to_owned(),
        text,
    };
    match event {
        EventBody::SessionCreated { title: text, .. } | EventBody::SessionTitled { title: text, .. } => {
            Some(title(text))
        }
        EventBody::PromptQueued { prompt, .. } => Some(SearchText {
            part: prompt.id.to_string(),
            text: prompt.text,
        }),
        EventBody::PromptEdited { prompt_id, text, .. } => Some(SearchText {
            part: prompt_id.to_string(),
            text,
        }),
        EventBody::PromptCancelled { prompt_id, .. } => Some(SearchText {
            part: prompt_id.to_string(),
            text: String::new(),
        }),
        _ => None,
    }
}
