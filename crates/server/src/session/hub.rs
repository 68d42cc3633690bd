//! Fan-out of one session to its sockets. Holds the text of unfinished items, so that whoever joins in the middle gets it,
//! and a small ring of recent frames; a reader that falls behind the ring reads the log again instead.

use super::presence::Room;
use axum::body::Bytes;
use greenroom_protocol::client::event::{Event, EventBody};
use greenroom_protocol::client::person::Person;
use greenroom_protocol::client::session::Session;
use greenroom_protocol::client::stream::{DeltaChannel, DraftState, Presence, StreamFrame};
use greenroom_protocol::id::ItemId;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::sync::broadcast;

/// Frames kept for slow readers. `broadcast` allocates all of them up front, so this stays small.
const RING_FRAMES: usize = 64;
/// Text kept per unfinished item and channel, in bytes; what goes beyond is not replayed to joiners.
const MAX_PARTIAL_BYTES: usize = 256 * 1024;

/// What subscribers receive. However many there are, it is written as JSON once.
#[derive(Debug)]
pub struct Live {
    pub frame: StreamFrame,
    text: OnceLock<Bytes>,
}

impl Live {
    fn new(frame: StreamFrame) -> Arc<Self> {
        let text = OnceLock::new();
        Arc::new(Self { frame, text })
    }

    /// Its JSON; UTF-8.
    pub fn text(&self) -> Bytes {
        // Plain data always encodes.
        let encode = || serde_json::to_vec(&self.frame).unwrap_or_default().into();
        self.text.get_or_init(encode).clone()
    }
}

/// Text so far of an unfinished item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partial {
    pub item_id: ItemId,
    pub channel: DeltaChannel,
    pub text: String,
    /// Bytes sent in all, also those beyond what is kept.
    sent_bytes: u64,
}

/// One session's fan-out.
#[derive(Debug)]
pub struct Hub {
    sender: broadcast::Sender<Arc<Live>>,
    partials: Mutex<Vec<Partial>>,
    room: Mutex<Room>,
    /// The session's row as last told. Stays while the session sleeps.
    row: Mutex<Option<Arc<Session>>>,
}

impl Default for Hub {
    fn default() -> Self {
        Self {
            sender: broadcast::channel(RING_FRAMES).0,
            partials: Mutex::new(Vec::new()),
            room: Mutex::default(),
            row: Mutex::default(),
        }
    }
}

impl Hub {
    /// Joins: everything published from now on, and the texts so far. No delta falls between the two.
    pub fn subscribe(&self) -> (broadcast::Receiver<Arc<Live>>, Vec<Partial>) {
        let partials = self.lock();
        (self.sender.subscribe(), partials.clone())
    }

    /// No subscriber is not an error.
    fn send(&self, frame: StreamFrame) {
        let _ = self.sender.send(Live::new(frame));
    }

    /// Publishes a stored event. Ends the unfinished texts that it makes whole.
    pub fn publish_event(&self, event: Event) {
        let mut partials = self.lock();
        match &event.body {
            EventBody::ItemCompleted { item, .. } => partials.retain(|partial| partial.item_id != item.id),
            // A model that is asked again begins anew; what it had said of this step is nobody's.
            EventBody::TurnCompleted { .. }
            | EventBody::TurnResumed { .. }
            | EventBody::TurnRetrying { .. } => {
                partials.clear();
            }
            _ => {}
        }
        self.send(StreamFrame::Event { event });
    }

    /// Publishes more text of an unfinished item.
    pub fn publish_delta(&self, item_id: &ItemId, channel: DeltaChannel, text: &str) {
        if text.is_empty() {
            return;
        }
        let mut partials = self.lock();
        let position = partials
            .iter()
            .position(|partial| partial.item_id == *item_id && partial.channel == channel)
            .unwrap_or_else(|| {
                partials.push(Partial {
                    item_id: item_id.clone(),
                    channel,
                    text: String::new(),
                    sent_bytes: 0,
                });
                partials.len() - 1
            });
        let partial = &mut partials[position];
        let offset = partial.sent_bytes;
        partial.sent_bytes += text.len() as u64;
        if partial.text.len() as u64 == offset && partial.text.len() + text.len() <= MAX_PARTIAL_BYTES {
            partial.text.push_str(text);
        }
        self.send(StreamFrame::Delta {
            item_id: item_id.clone(),
            channel,
            offset,
            text: text.to_owned(),
        });
    }

    /// Keeps of these texts those that are still unfinished.
    pub fn retain_unfinished(&self, texts: &mut Vec<Partial>) {
        let now = self.lock();
        texts.retain(|text| {
            now.iter()
                .any(|partial| partial.item_id == text.item_id && partial.channel == text.channel)
        });
    }

    /// The session was loaded: what an actor before left unfinished is nobody's.
    pub fn begin(&self, row: Arc<Session>) {
        self.lock().clear();
        *self.row.lock().unwrap_or_else(PoisonError::into_inner) = Some(row);
    }

    /// The session as last told.
    pub fn row(&self) -> Option<Arc<Session>> {
        self.row.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Publishes the session's row, unless it says nothing that the event before it did not.
    pub fn publish_session(&self, row: Arc<Session>) {
        let mut known = self.row.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = known.as_ref().is_none_or(|known| is_news(known, &row));
        *known = Some(row.clone());
        if is_news {
            // While the row is locked, so that the last word is the newest.
            let session = Box::new(Session::clone(&row));
            self.send(StreamFrame::Session { session });
        }
    }

    /// Somebody watches, until what this returns is dropped. `None`: a guest.
    pub fn sit(self: &Arc<Self>, person: Option<Person>) -> Seat {
        let number = self.change_room(|room| room.sit(person));
        Seat {
            hub: self.clone(),
            number,
        }
    }

    /// Who watches now.
    pub fn presence(&self) -> Presence {
        self.lock_room().presence()
    }

    /// Changes who watches, and tells everybody if it makes a difference to them.
    fn change_room<T>(&self, change: impl FnOnce(&mut Room) -> T) -> T {
        let mut room = self.lock_room();
        let before = room.presence();
        let done = change(&mut room);
        let after = room.presence();
        if before != after {
            // While the room is locked, so that the last word is the newest.
            self.send(StreamFrame::Presence { presence: after });
        }
        done
    }

    fn lock_room(&self) -> MutexGuard<'_, Room> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Partial>> {
        // The texts stay usable whatever a panicking publisher left: worst case one delta is missing.
        self.partials.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a row differs in more than the number and the time of its last event.
fn is_news(known: &Session, row: &Session) -> bool {
    let same = Session {
        last_seq: row.last_seq,
        updated_at_ms: row.updated_at_ms,
        ..known.clone()
    };
    same != *row
}

/// The place of somebody who watches; they are gone when it is dropped.
#[derive(Debug)]
pub struct Seat {
    hub: Arc<Hub>,
    number: u64,
}

impl Seat {
    /// How they watch now.
    pub fn change(&self, is_away: bool, draft: Option<DraftState>) {
        self.hub
            .change_room(|room| room.change(self.number, is_away, draft));
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.hub.change_room(|room| room.leave(self.number));
    }
}
