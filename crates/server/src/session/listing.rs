//! Brings what lists show and what sessions are found by into the catalog, off the actors' path. Both can be made from the logs again.

use super::services::SessionServices;
use greenroom_protocol::client::event::EventBody;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::session::Session;
use greenroom_protocol::id::SessionId;
use greenroom_stdx::chain::Chain;
use greenroom_store::catalog::SearchText;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// How long to wait after the catalog refused something.
const RETRY: Duration = Duration::from_secs(2);

/// Events read at once.
const PAGE_EVENTS: u32 = 1_000;

/// What is to be brought of a session.
#[derive(Debug, Clone, Default)]
struct Changed {
    /// The newest row is enough: a burst of events becomes one write.
    row: Option<Arc<Session>>,
    /// Whether somebody asked or renamed something.
    has_texts: bool,
}

/// What waits to be brought.
#[derive(Default)]
pub struct Listing {
    changed: Mutex<HashMap<SessionId, Changed>>,
    wake: Notify,
}

impl Listing {
    /// Remembers a row to write, unless a newer one waits.
    pub fn changed(&self, row: Arc<Session>) {
        self.with(row.id.clone(), |changed| {
            if changed
                .row
                .as_ref()
                .is_none_or(|known| known.last_seq < row.last_seq)
            {
                changed.row = Some(row);
            }
        });
    }

    /// Remembers that a session has texts to be found by which may be new.
    pub fn has_texts(&self, session: SessionId) {
        self.with(session, |changed| changed.has_texts = true);
    }

    fn with(&self, session: SessionId, change: impl FnOnce(&mut Changed)) {
        let mut all = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        change(all.entry(session).or_default());
        drop(all);
        self.wake.notify_one();
    }

    fn take(&self) -> HashMap<SessionId, Changed> {
        std::mem::take(&mut *self.changed.lock().unwrap_or_else(PoisonError::into_inner))
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
    loop {
        let changed = services.listing.take();
        let is_over = services.shutdown.is_cancelled();
        if changed.is_empty() {
            if is_over {
                return;
            }
            tokio::select! {
                () = services.listing.wake.notified() => {}
                () = services.shutdown.cancelled() => {}
            }
            continue;
        }
        let mut is_refused = false;
        for (session, changed) in changed {
            if services.shutdown.is_cancelled() && changed.row.is_none() {
                // Of long ago; the next start finds it again.
                continue;
            }
            is_refused |= !bring(&services, session, changed).await;
        }
        if is_refused {
            if is_over {
                return;
            }
            // What was refused waits; the disk may need a while.
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// Returns false if something has to be tried again.
async fn bring(services: &SessionServices, session: SessionId, changed: Changed) -> bool {
    let mut is_done = true;
    if let Some(row) = changed.row
        && let Err(error) = services.catalog.put_session(&row).await
    {
        tracing::warn!(%session, error = %Chain(&error), "a session's row in lists is out of date");
        services.listing.changed(row);
        is_done = false;
    }
    if changed.has_texts
        && let Err(problem) = index(services, &session).await
    {
        tracing::warn!(%session, code = problem.code, "a session is not found by its newest words: {}", problem.message);
        // One that cannot be read is not better the next time.
        if problem.retryable {
            services.listing.has_texts(session);
            is_done = false;
        }
    }
    is_done
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
        EventBody::SessionCreated { title: text, .. } | EventBody::SessionTitled { title: text } => {
            Some(title(text))
        }
        EventBody::PromptQueued { prompt } => Some(SearchText {
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
