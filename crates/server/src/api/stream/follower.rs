//! Follows a session for one client, over whatever carries it: subscribe first, replay from disk behind the client's cursor, then go on
//! live. A reader too slow for the ring is brought up from disk again; one that does not read at all is let go with its cursor.

use crate::api::access::Viewer;
use crate::api::app::App;
use crate::api::rights::RightsWatch;
use crate::session::command::shutting_down;
use crate::session::hub::{Hub, Live, Partial, Seat};
use crate::session::views;
use greenroom_protocol::client::event::{Event, EventBody};
use greenroom_protocol::client::member::Role;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::session::Session;
use greenroom_protocol::client::stream::{ClientFrame, DraftState, StreamFrame};
use greenroom_protocol::id::{ItemId, SessionId};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::MissedTickBehavior;

/// A client that takes longer for one frame is gone.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(20);
/// How often an idle client is asked whether it is still there.
const PING_EVERY: Duration = Duration::from_secs(25);
/// Frames sent to a client without looking at anything else.
const MAX_TOGETHER: usize = 32;
/// Events read at once in a replay.
const REPLAY_PAGE_EVENTS: u32 = 500;

/// What carries frames to a client.
pub trait Connection: Send {
    /// Sends a frame; waits at most [`SEND_TIMEOUT`].
    fn send(&mut self, frame: &StreamFrame) -> impl Future<Output = Result<(), Gone>> + Send;

    /// The same for one that is written already and may wait for [`Connection::flush`].
    fn feed(&mut self, live: &Live) -> impl Future<Output = Result<(), Gone>> + Send;

    /// Sends what waits.
    fn flush(&mut self) -> impl Future<Output = Result<(), Gone>> + Send;

    /// Shows that the server is still there, and finds out whether the client is.
    fn ping(&mut self) -> impl Future<Output = Result<(), Gone>> + Send;

    /// What the client says next. May be dropped at any time; then nothing is lost.
    fn heard(&mut self) -> impl Future<Output = Result<ClientFrame, Gone>> + Send;

    /// Ends it after the last frame.
    fn close(&mut self, reason: &str) -> impl Future<Output = ()> + Send;
}

/// The client went away; there is nobody to tell.
pub struct Gone;

/// Between two changes of how somebody watches that others hear of.
const PRESENCE_EVERY: Duration = Duration::from_millis(100);
/// After which a draft of which nothing is heard any more is no longer written.
const DRAFT_FORGOTTEN: Duration = Duration::from_secs(10);

/// How this client watches, as told to others: at most so often, and a draft no longer than it is written.
struct Watching {
    seat: Seat,
    told_at: Option<Instant>,
    /// Not told yet.
    next: Option<(bool, Option<DraftState>)>,
    is_away: bool,
    /// When the draft that others know of is forgotten.
    forget_at: Option<Instant>,
}

impl Watching {
    fn new(seat: Seat) -> Self {
        Self {
            seat,
            told_at: None,
            next: None,
            is_away: false,
            forget_at: None,
        }
    }

    fn told(&mut self, is_away: bool, draft: Option<DraftState>) {
        let draft = draft.map(|draft| DraftState {
            cursor: draft.cursor.min(draft.length),
            ..draft
        });
        self.next = Some((is_away, draft));
    }

    /// Returns when others have to hear something.
    async fn due(&self) {
        let at = match (self.next, self.told_at) {
            (Some(_), Some(told_at)) => Some(told_at + PRESENCE_EVERY),
            (Some(_), None) => return,
            (None, _) => self.forget_at,
        };
        match at {
            Some(at) => tokio::time::sleep_until(at.into()).await,
            None => std::future::pending().await,
        }
    }

    fn settle(&mut self) {
        let (is_away, draft) = self.next.take().unwrap_or((self.is_away, None));
        let now = Instant::now();
        self.told_at = Some(now);
        self.is_away = is_away;
        self.forget_at = draft.map(|_| now + DRAFT_FORGOTTEN);
        self.seat.change(is_away, draft);
    }
}

/// Why a stream ends.
enum End {
    /// The client went away; there is nobody to tell.
    Gone,
    /// Told to the client.
    Problem(Problem),
}

impl From<Gone> for End {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl From<Problem> for End {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

/// Who follows what.
pub struct Following {
    pub app: App,
    pub viewer: Viewer,
    pub hub: Arc<Hub>,
    pub session_id: SessionId,
    /// Number of the last event the client has.
    pub after: u64,
    /// Whether it wants no more of the past than it shows at first.
    pub is_recent: bool,
}

/// Follows until the client is gone or something else ends it, which the client is told.
pub async fn follow<C: Connection>(following: Following, connection: C) {
    let Following {
        app,
        viewer,
        hub,
        session_id,
        after,
        is_recent,
    } = following;
    let rights = app.rights.watch();
    let mut follower = Follower {
        app,
        viewer,
        hub,
        session_id,
        connection,
        rights,
        may_prompt: false,
        cursor: after,
        is_recent,
        completed: HashSet::new(),
    };
    if let Err(end) = follower.follow().await {
        follower.close(end).await;
    }
}

/// What a client gets that has seen more than there is.
pub fn cursor_ahead() -> Problem {
    Problem::permanent("cursor_ahead", "The cursor is past the session's last event.")
        .with_hint("Start again from 0.")
}

struct Follower<C> {
    app: App,
    viewer: Viewer,
    hub: Arc<Hub>,
    session_id: SessionId,
    connection: C,
    /// What ends what they may see, from before that was looked at.
    rights: RightsWatch,
    /// Whether others are told what this client writes.
    may_prompt: bool,
    /// Number of the last event the client has.
    cursor: u64,
    is_recent: bool,
    /// Items whose completion the client has, in this connection: late deltas of them are not sent.
    completed: HashSet<ItemId>,
}

impl<C: Connection> Follower<C> {
    async fn follow(&mut self) -> Result<(), End> {
        let (mut live, partials) = self.hub.subscribe();
        // What they were let in by may have gone since.
        self.check_still().await?;
        // Of the actor itself: what was told last may be a moment behind what a client that comes back has seen.
        let handle = self.app.sessions.get(&self.session_id).await?;
        let row = Arc::new(handle.fold().await?.row);
        drop(handle);
        if self.cursor > row.last_seq {
            return Err(cursor_ahead().into());
        }
        let generation = greenroom_protocol::CLIENT_GENERATION;
        let hello = StreamFrame::Hello {
            generation,
            session_id: self.session_id.clone(),
            last_seq: row.last_seq,
        };
        self.send(&hello).await?;
        if self.is_recent
            && let Some(overview) = views::recent(&*self.app.store, &self.session_id, row.last_seq).await?
        {
            self.cursor = overview.seq;
            let overview = Box::new(overview);
            self.send(&StreamFrame::Overview { overview }).await?;
        }
        self.replay().await?;
        self.send_partials(partials).await?;
        self.send(&StreamFrame::Session {
            session: Box::new((*row).clone()),
        })
        .await?;
        self.send(&StreamFrame::CaughtUp {
            last_seq: self.cursor,
        })
        .await?;
        let person = match &self.viewer {
            Viewer::Person(caller) => Some(caller.person.clone()),
            Viewer::Guest(_) => None,
        };
        let mut watching = Watching::new(self.hub.sit(person));
        // Others hear of it if it is news to them; this client knows nothing yet.
        let presence = self.hub.presence();
        self.send(&StreamFrame::Presence { presence }).await?;
        let mut ping = tokio::time::interval(PING_EVERY);
        // One is answered before the next, however long something took in between.
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ping.tick().await;
        let shutdown = self.app.shutdown.clone();
        let (viewer, session_id) = (self.viewer.clone(), self.session_id.clone());
        loop {
            tokio::select! {
                // Whoever may no longer look sees nothing more.
                biased;
                () = self.rights.changed(|change| viewer.is_concerned(&session_id, change)) => self.check_still().await?,
                () = shutdown.cancelled() => return Err(shutting_down().into()),
                // What happens from time to time goes before what one side can do without end.
                _ = ping.tick() => {
                    self.check_still().await?;
                    self.connection.ping().await?;
                }
                () = watching.due() => watching.settle(),
                frame = live.recv() => {
                    self.live_frame(frame, &mut live).await?;
                    // What came meanwhile goes in the same packet.
                    for _ in 0..MAX_TOGETHER {
                        let frame = match live.try_recv() {
                            Ok(frame) => Ok(frame),
                            Err(TryRecvError::Empty) => break,
                            // Told once, here or by the next `recv`.
                            Err(TryRecvError::Lagged(missed)) => Err(RecvError::Lagged(missed)),
                            Err(TryRecvError::Closed) => Err(RecvError::Closed),
                        };
                        self.live_frame(frame, &mut live).await?;
                    }
                    self.connection.flush().await?;
                }
                heard = self.connection.heard() => {
                    if let ClientFrame::Presence { is_away, draft } = heard? {
                        let draft = draft.filter(|_| self.may_prompt);
                        watching.told(is_away, draft);
                    }
                }
            }
        }
    }

    /// The session's row. One that sleeps is not woken for it.
    async fn row(&mut self) -> Result<Arc<Session>, End> {
        match self.hub.row() {
            Some(row) => Ok(row),
            None => {
                let handle = self.app.sessions.get(&self.session_id).await?;
                Ok(Arc::new(handle.fold().await?.row))
            }
        }
    }

    async fn check_still(&mut self) -> Result<(), End> {
        let row = self.row().await?;
        let role = self.viewer.role_still(&self.app, &row).await?;
        self.may_prompt = role >= Role::Editor;
        Ok(())
    }

    async fn live_frame(
        &mut self,
        frame: Result<Arc<Live>, RecvError>,
        live: &mut broadcast::Receiver<Arc<Live>>,
    ) -> Result<(), End> {
        match frame {
            Ok(one) => {
                match &one.frame {
                    StreamFrame::Event { event } => {
                        if event.seq > self.cursor + 1 {
                            self.replay().await?;
                        }
                        if event.seq != self.cursor + 1 {
                            return Ok(());
                        }
                        self.passes(event);
                    }
                    StreamFrame::Delta { item_id, .. } if self.completed.contains(item_id) => return Ok(()),
                    _ => {}
                }
                self.check_rights().await?;
                Ok(self.connection.feed(&one).await?)
            }
            Err(RecvError::Lagged(_)) => {
                let partials;
                (*live, partials) = self.hub.subscribe();
                self.replay().await?;
                self.send_partials(partials).await?;
                // The newest of what is told but once may be among what was missed.
                let session = Box::new((*self.row().await?).clone());
                self.send(&StreamFrame::Session { session }).await?;
                let presence = self.hub.presence();
                self.send(&StreamFrame::Presence { presence }).await
            }
            Err(RecvError::Closed) => Err(shutting_down().into()),
        }
    }

    /// Sends what is on disk behind the cursor.
    async fn replay(&mut self) -> Result<(), End> {
        loop {
            let page = self
                .app
                .store
                .read(&self.session_id, self.cursor, REPLAY_PAGE_EVENTS)
                .await;
            let page = page.map_err(|error| error.problem())?;
            if page.is_empty() {
                return Ok(());
            }
            for event in page {
                self.passes(&event);
                self.send(&StreamFrame::Event { event }).await?;
            }
        }
    }

    /// The client has this event in a moment.
    fn passes(&mut self, event: &Event) {
        self.cursor = event.seq;
        match &event.body {
            EventBody::ItemCompleted { item, .. } => {
                self.completed.insert(item.id.clone());
            }
            // Deltas never cross the end of a turn.
            EventBody::TurnCompleted { .. } => self.completed.clear(),
            _ => {}
        }
    }

    /// Sends texts that were unfinished when this socket joined, and still are: an item that ended during the replay, or a
    /// step that was asked for again, leaves nothing behind.
    async fn send_partials(&mut self, mut partials: Vec<Partial>) -> Result<(), End> {
        self.hub.retain_unfinished(&mut partials);
        for Partial {
            item_id,
            channel,
            text,
            ..
        } in partials
        {
            if !self.completed.contains(&item_id) {
                self.send(&StreamFrame::Delta {
                    item_id,
                    channel,
                    offset: 0,
                    text,
                })
                .await?;
            }
        }
        Ok(())
    }

    async fn send(&mut self, frame: &StreamFrame) -> Result<(), End> {
        self.check_rights().await?;
        Ok(self.connection.send(frame).await?)
    }

    /// Also in the middle of much that is sent to somebody who reads slowly.
    async fn check_rights(&mut self) -> Result<(), End> {
        let (viewer, session_id) = (&self.viewer, &self.session_id);
        let has_changed = self
            .rights
            .has_changed(|change| viewer.is_concerned(session_id, change));
        match has_changed {
            true => self.check_still().await,
            false => Ok(()),
        }
    }

    async fn close(&mut self, end: End) {
        let End::Problem(problem) = end else { return };
        let reason = problem.code.clone();
        let last_seq = self.cursor;
        if self
            .connection
            .send(&StreamFrame::Closing { problem, last_seq })
            .await
            .is_ok()
        {
            self.connection.close(&reason).await;
        }
    }
}
