//! Views: the fold as it was at some events of a log, kept beside it. A session of any length is loaded and opened from the newest of
//! them, and read backwards from one to the next. Each can be made again from the events, so none has to be kept.

use super::state::SessionFold;
use greenroom_protocol::client::event::{Event, EventBody, ItemBody};
use greenroom_protocol::client::overview::{History, SessionOverview};
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::id::{ItemId, PersonId, SessionId, SnapshotId};
use greenroom_store::session_log::{SessionStore, View};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io;

/// Of what is kept here. A new one whenever [`SessionFold::apply`] makes something else of the same events, or [`Kept`] changes: views of
/// old ones are made again.
const VERSION: u32 = 2;

/// A view is kept before a turn when so much came since the last one.
const DUE_EVENTS: u64 = 500;
const DUE_BYTES: usize = 1 << 20;
/// Then also in the middle of a turn: what lies between two is read in one piece.
const OVERDUE_EVENTS: u64 = 2_000;
const OVERDUE_BYTES: usize = 4 << 20;

/// Whoever opens a session gets at least so many events, if there are.
const RECENT_EVENTS: u64 = 300;

/// Events read at once when a session is loaded.
const PAGE_EVENTS: u32 = 2_000;

/// A view as it is stored: what pages show, and what only the server knows.
#[derive(Serialize, Deserialize)]
pub(super) struct Kept {
    pub overview: SessionOverview,
    pub had_sandbox: bool,
    pub removed_members: Vec<PersonId>,
    pub forked_snapshot: Option<SnapshotId>,
}

/// Whether an item under way is still so after a restart of the server.
#[derive(Debug, PartialEq, Eq)]
enum Outlives {
    /// A tool call, which gets its end.
    Restart,
    /// Half a message, which nobody ends.
    Nothing,
}

/// Where in a log views belong.
#[derive(Debug, Default)]
pub struct Cuts {
    events: u64,
    bytes: usize,
    /// Size of the last view: views take no more of the disk than the events between them.
    view_bytes: usize,
    /// A step is about to be asked for again, which no view tells.
    is_retrying: bool,
    /// Items under way: what becomes of them is not to be told from where they began.
    open: HashMap<ItemId, Outlives>,
}

impl Cuts {
    /// The view that belongs before this event, the next of the log, if one does.
    pub fn before(&mut self, event: &Event, fold: &SessionFold) -> Option<View> {
        let is_turn = matches!(event.body, EventBody::TurnStarted { .. });
        let is_due = self.events >= DUE_EVENTS || self.bytes >= DUE_BYTES;
        let is_overdue = self.events >= OVERDUE_EVENTS || self.bytes >= OVERDUE_BYTES;
        let is_between = self.open.is_empty() && !self.is_retrying;
        let is_cut = ((is_turn && is_due) || (is_overdue && is_between)) && self.bytes >= self.view_bytes;
        let view = is_cut.then(|| view_of(fold)).flatten();
        if let Some(view) = &view {
            *self = Self {
                view_bytes: view.body.len(),
                ..Self::default()
            };
        }
        match &event.body {
            EventBody::ItemStarted { item, .. } => {
                let outlives = match item.body {
                    ItemBody::ToolCall(_) => Outlives::Restart,
                    _ => Outlives::Nothing,
                };
                self.open.insert(item.id.clone(), outlives);
                self.is_retrying = false;
            }
            EventBody::ItemCompleted { item, .. } => {
                self.open.remove(&item.id);
                self.is_retrying = false;
            }
            EventBody::TurnResumed { .. } => {
                self.open.retain(|_, outlives| *outlives == Outlives::Restart);
                self.is_retrying = false;
            }
            EventBody::TurnRetrying { .. } => {
                self.open.clear();
                self.is_retrying = true;
            }
            EventBody::TurnCompleted { .. } => {
                self.open.clear();
                self.is_retrying = false;
            }
            _ => {}
        }
        self.events += 1;
        self.bytes += json_bytes(&event.body);
        view
    }
}

/// What is to be kept of a session at this moment.
pub fn view_of(fold: &SessionFold) -> Option<View> {
    let kept = Kept {
        overview: fold.overview(),
        had_sandbox: fold.had_sandbox,
        removed_members: fold.removed_members.clone(),
        forked_snapshot: fold.forked_snapshot.clone(),
    };
    // Plain data always encodes.
    let body = serde_json::to_string(&kept).ok()?;
    Some(View {
        seq: kept.overview.seq,
        version: VERSION,
        body,
    })
}

/// Keeps one; a log without it is only read more slowly.
pub async fn keep(store: &dyn SessionStore, id: &SessionId, view: View) {
    if let Err(error) = store.put_view(id, view).await {
        tracing::debug!(session = %id, code = error.problem().code, "a view is not kept");
    }
}

/// A session as it was after event `up_to`, or after its last, and what came since the newest view. `None`: it has no events.
pub async fn fold(
    store: &dyn SessionStore,
    id: &SessionId,
    up_to: u64,
) -> Result<(Option<SessionFold>, Cuts), Problem> {
    let last_seq = store.last_seq(id).await.map_err(|error| error.problem())?;
    let up_to = up_to.min(last_seq);
    let mut fold = newest(store, id, up_to).await?.map(SessionFold::restore);
    let mut cuts = Cuts::default();
    loop {
        let after = fold.as_ref().map_or(0, |fold| fold.row.last_seq);
        let limit = u32::try_from(up_to - after).map_or(PAGE_EVENTS, |missing| missing.min(PAGE_EVENTS));
        let page = store.read(id, after, limit).await;
        let page = page.map_err(|error| error.problem())?;
        if page.is_empty() {
            return Ok((fold, cuts));
        }
        for event in &page {
            match &mut fold {
                Some(fold) => {
                    if let Some(view) = cuts.before(event, fold) {
                        keep(store, id, view).await;
                    }
                    fold.apply(event);
                }
                None => {
                    fold = SessionFold::begin(event);
                    if fold.is_none() {
                        return Ok((None, cuts));
                    }
                }
            }
        }
    }
}

/// Where somebody begins who opens a session whose last event is `last_seq`; `None`: with its first event.
pub async fn recent(
    store: &dyn SessionStore,
    id: &SessionId,
    last_seq: u64,
) -> Result<Option<SessionOverview>, Problem> {
    let kept = newest(store, id, last_seq.saturating_sub(RECENT_EVENTS)).await?;
    Ok(kept.map(|kept| kept.overview))
}

/// What lies before event `before` and with it, back to the view before.
pub async fn history(store: &dyn SessionStore, id: &SessionId, before: u64) -> Result<History, Problem> {
    let up_to = before.saturating_sub(1);
    let mut kept = newest(store, id, up_to).await?;
    let reach = |kept: &Option<Kept>| before - kept.as_ref().map_or(0, |kept| kept.overview.seq);
    if reach(&kept) > OVERDUE_EVENTS + DUE_EVENTS {
        // Views that were lost, or are of another version.
        fold(store, id, up_to).await?;
        kept = newest(store, id, up_to).await?;
    }
    let mut events: Vec<Event> = Vec::new();
    let mut after = kept.as_ref().map_or(0, |kept| kept.overview.seq);
    while after < before {
        let missing = u32::try_from(before - after).unwrap_or(u32::MAX);
        let page = store.read(id, after, missing).await;
        let page = page.map_err(|error| error.problem())?;
        let Some(last) = page.last() else { break };
        after = last.seq;
        events.extend(page);
    }
    let overview = kept.map(|kept| kept.overview);
    Ok(History { overview, events })
}

async fn newest(store: &dyn SessionStore, id: &SessionId, up_to: u64) -> Result<Option<Kept>, Problem> {
    let mut up_to = up_to;
    loop {
        let view = store.view(id, VERSION, up_to).await;
        let Some(view) = view.map_err(|error| error.problem())? else {
            return Ok(None);
        };
        match serde_json::from_str::<Kept>(&view.body) {
            Ok(kept) if kept.overview.seq == view.seq && kept.overview.session.last_seq == view.seq => {
                return Ok(Some(kept));
            }
            // The events know it as well.
            _ => tracing::warn!(session = %id, seq = view.seq, "a view cannot be read"),
        }
        up_to = view.seq.saturating_sub(1);
    }
}

/// How long something is as JSON, in bytes.
fn json_bytes(value: &impl Serialize) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Counting never fails, and what cannot be written has no length.
    let _ = serde_json::to_writer(&mut count, value);
    count.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use greenroom_protocol::client::event::{SandboxState, TurnOutcome};
    use greenroom_protocol::client::member::{Role, SessionAccess};
    use greenroom_protocol::client::model::Usage;
    use greenroom_protocol::client::person::Person;
    use greenroom_protocol::client::prompt::{Delivery, KeptImage, Prompt, PromptImage};
    use greenroom_protocol::guest::service::ServiceState;
    use greenroom_protocol::id::{PromptId, SandboxId, TurnId};
    use greenroom_protocol::reference::Digest;
    use greenroom_stdx::clock::Clock;
    use greenroom_store::fake::MemorySessionStore;
    use greenroom_store::session_log::Batch;
    use std::time::Duration;

    fn person(number: u128) -> Person {
        Person {
            id: PersonId::from_bits(number),
            name: format!("Person {number}"),
            email: format!("{number}@example.com"),
        }
    }

    fn created() -> EventBody {
        EventBody::SessionCreated {
            session_id: SessionId::from_bits(1),
            title: "Long".to_owned(),
            repository: "shop".to_owned(),
            base_branch: "main".to_owned(),
            branch: "greenroom/x".to_owned(),
            model: "m".to_owned(),
            is_scripted: true,
            created_by: person(1),
            access: SessionAccess::Viewer,
        }
    }

    /// All that happens in one turn, which is told `length` more things.
    fn turn(number: u128, length: usize) -> Vec<EventBody> {
        let (turn_id, prompt_id) = (TurnId::from_bits(number), PromptId::from_bits(number));
        let prompt = |number, delivery| Prompt {
            id: PromptId::from_bits(number),
            author: person(number % 3),
            text: format!("prompt {number}"),
            images: (0..number % 2)
                .map(|_| {
                    PromptImage::Kept(KeptImage {
                        media_type: "image/png".to_owned(),
                        digest: Digest::of_sha256(&[7; 32]),
                        size_bytes: 10_000,
                    })
                })
                .collect(),
            model: None,
            delivery,
            queued_at_ms: 0,
        };
        let queued = |number, delivery| EventBody::PromptQueued {
            prompt: prompt(number, delivery),
            key: None,
        };
        let mut bodies = vec![
            queued(number, Delivery::Queue),
            EventBody::TurnStarted {
                turn_id: turn_id.clone(),
                prompt_id: prompt_id.clone(),
                model: "m".to_owned(),
                is_scripted: true,
            },
            EventBody::SandboxStateChanged {
                sandbox_id: SandboxId::from_bits(number),
                state: SandboxState::Ready,
                problem: None,
            },
            EventBody::ServiceStateChanged {
                name: format!("service {}", number % 2),
                state: ServiceState::Ready,
                reason: String::new(),
            },
            EventBody::SessionMemberChanged {
                person: person(number % 4),
                role: (!number.is_multiple_of(3)).then_some(Role::Editor),
                by: person(1).id,
            },
            queued(number + 1_000_000, Delivery::Insert),
            EventBody::PromptInserted {
                turn_id: turn_id.clone(),
                prompt_id: PromptId::from_bits(number + 1_000_000),
            },
        ];
        bodies.extend((0..length).map(|at| EventBody::SessionTitled {
            title: format!("{number} {at}"),
            by: None,
        }));
        bodies.extend([
            EventBody::TurnStopping {
                turn_id: turn_id.clone(),
                by: person(2).id,
            },
            EventBody::ChangePushed {
                repository: None,
                branch: "greenroom/x".to_owned(),
                commit: format!("{number}"),
                additions: 1,
                deletions: 2,
                files: vec!["a".to_owned()],
            },
            EventBody::TurnCompleted {
                turn_id,
                prompt_id,
                outcome: TurnOutcome::Completed,
                usage: Usage::default(),
                sandbox: None,
            },
        ]);
        bodies
    }

    async fn stored(bodies: Vec<EventBody>) -> (MemorySessionStore, SessionId, Vec<SessionFold>) {
        let (store, id) = (MemorySessionStore::new(Clock::system()), SessionId::from_bits(1));
        store.create(&id).await.unwrap();
        let ttl = Duration::from_secs(60);
        let epoch = store.acquire(&id, "test", ttl).await.unwrap().epoch;
        // The session after each event, as if it had been read from the first.
        let mut folds: Vec<SessionFold> = Vec::new();
        for (seq, body) in (1..).zip(&bodies) {
            let event = Event {
                seq,
                at_ms: 0,
                body: body.clone(),
            };
            let next = match folds.last() {
                Some(before) => {
                    let mut next = before.clone();
                    next.apply(&event);
                    next
                }
                None => SessionFold::begin(&event).unwrap(),
            };
            folds.push(next);
        }
        let batch = Batch {
            events: bodies,
            ..Batch::default()
        };
        store.append(&id, epoch, 0, batch).await.unwrap();
        (store, id, folds)
    }

    #[tokio::test]
    async fn a_session_goes_on_from_its_view_as_if_it_had_been_read_from_the_start() {
        let turns = (1..=12).flat_map(|number| turn(number, 120 + 700 * usize::from(number == 7)));
        let bodies: Vec<_> = std::iter::once(created()).chain(turns).collect();
        let (store, id, folds) = stored(bodies).await;
        for (read, expected) in folds.iter().enumerate().step_by(37) {
            let up_to = read as u64 + 1;
            let (fold, _) = fold(&store, &id, up_to).await.unwrap();
            assert_eq!(fold.as_ref(), Some(expected), "up to {up_to}");
        }
        // At any place, also in the middle of a turn.
        for fold in &folds {
            let view = view_of(fold).unwrap();
            let kept: Kept = serde_json::from_str(&view.body).unwrap();
            assert_eq!(SessionFold::restore(kept), *fold, "at {}", view.seq);
        }
    }

    #[tokio::test]
    async fn the_past_is_read_backwards_in_bounded_parts_without_gaps() {
        for (what, turns) in [
            (
                "many turns",
                (1..=40).flat_map(|number| turn(number, 200)).collect::<Vec<_>>(),
            ),
            ("one turn", turn(1, 9_000)),
            ("little", turn(1, 10)),
        ] {
            let bodies: Vec<_> = std::iter::once(created()).chain(turns).collect();
            let (store, id, folds) = stored(bodies).await;
            let last_seq = folds.len() as u64;
            // Nothing is kept yet, as in sessions of old servers.
            fold(&store, &id, last_seq).await.unwrap();
            let recent = recent(&store, &id, last_seq).await.unwrap();
            let mut before = recent.as_ref().map_or(0, |overview| overview.seq);
            assert_eq!(before == 0, last_seq < RECENT_EVENTS, "{what}");
            assert!(
                last_seq - before <= OVERDUE_EVENTS + RECENT_EVENTS,
                "{what}: {before}"
            );
            let mut parts = 0;
            while before > 0 {
                let part = history(&store, &id, before).await.unwrap();
                let after = part.overview.as_ref().map_or(0, |overview| overview.seq);
                let numbers: Vec<_> = part.events.iter().map(|event| event.seq).collect();
                assert_eq!(numbers, (after + 1..=before).collect::<Vec<_>>(), "{what}");
                // The first event begins the session, and is in no part's count.
                assert!(
                    before - after <= OVERDUE_EVENTS + 1,
                    "{what}: {after} to {before}"
                );
                if let Some(overview) = part.overview {
                    let expected = &folds[usize::try_from(after).unwrap() - 1];
                    assert_eq!(overview, expected.overview(), "{what}");
                }
                before = after;
                parts += 1;
            }
            assert!(parts >= last_seq.div_ceil(OVERDUE_EVENTS) - 1, "{what}");
        }
    }

    #[tokio::test]
    async fn views_that_are_lost_or_broken_cost_time_and_nothing_else() {
        let turns = (1..=30).flat_map(|number| turn(number, 200));
        let bodies: Vec<_> = std::iter::once(created()).chain(turns).collect();
        let (store, id, folds) = stored(bodies).await;
        let last_seq = folds.len() as u64;
        let part = history(&store, &id, last_seq).await.unwrap();
        assert!(part.overview.is_some(), "it is made when it is missed");
        let broken = View {
            seq: last_seq - 1,
            version: VERSION,
            body: "{".to_owned(),
        };
        store.put_view(&id, broken).await.unwrap();
        // One of a log that was longer, such as before a backup was brought back.
        let ahead = View {
            seq: last_seq + 100,
            ..view_of(folds.last().unwrap()).unwrap()
        };
        store.put_view(&id, ahead).await.unwrap();
        let (fold, _) = fold(&store, &id, u64::MAX).await.unwrap();
        assert_eq!(fold.as_ref(), folds.last());
        let recent = recent(&store, &id, last_seq + RECENT_EVENTS).await.unwrap();
        assert!(recent.is_some_and(|overview| overview.seq < last_seq - 1));
    }

    /// Clients in every language begin with these. If they change, [`VERSION`] must, too; `GREENROOM_UPDATE_GOLDEN=1` writes them anew.
    #[test]
    fn golden_logs_have_golden_overviews() {
        let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
        let mut logs = 0;
        for entry in std::fs::read_dir(&golden).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let Some(name) = name.strip_suffix(".jsonl").filter(|name| !name.contains('.')) else {
                continue;
            };
            logs += 1;
            let mut fold: Option<SessionFold> = None;
            let mut lines = String::new();
            for line in std::fs::read_to_string(&path).unwrap().lines() {
                let event: Event = serde_json::from_str(line).unwrap();
                match &mut fold {
                    Some(fold) => fold.apply(&event),
                    None => fold = SessionFold::begin(&event),
                }
                let overview = fold.as_ref().expect("a log begins with its session").overview();
                lines += &serde_json::to_string(&overview).unwrap();
                lines += "\n";
            }
            let expected = golden.join(format!("{name}.overviews.jsonl"));
            if std::env::var_os("GREENROOM_UPDATE_GOLDEN").is_some() {
                std::fs::write(&expected, &lines).unwrap();
            }
            assert!(
                std::fs::read_to_string(&expected).is_ok_and(|known| known == lines),
                "{name} has other overviews"
            );
        }
        assert!(logs >= 4);
    }
}
