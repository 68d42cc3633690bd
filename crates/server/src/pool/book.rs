//! Who has which sandbox of the warm pool. Pure: it is told the time and does nothing itself.

use greenroom_protocol::id::{PersonId, SandboxId};

/// A sandbox waits for somebody who types for this long after the last sign of it.
pub const SILENCE_MS: i64 = 60_000;

/// Sandboxes that wait for one person who types.
const MAX_RESERVED: usize = 3;

/// Which sandboxes are the same to whoever takes one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Kind {
    pub repository: String,
    pub branch: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Starting,
    Available,
    /// It is brought to another commit.
    Syncing,
}

#[derive(Debug)]
struct Entry {
    id: SandboxId,
    kind: Kind,
    /// Of its image and environment; only the same is taken.
    version: String,
    state: State,
    began_ms: i64,
    reserved: Option<(PersonId, i64)>,
}

/// What becomes of somebody's typing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reservation {
    /// A sandbox waits for this person.
    Ready,
    /// One is on its way.
    Starting,
    /// One is to be started for this person.
    Wanted,
    /// As many wait for this person as may.
    Refused,
}

/// All sandboxes of the pool.
#[derive(Debug, Default)]
pub struct Book {
    entries: Vec<Entry>,
    /// The server goes down: nothing comes in any more.
    is_closed: bool,
}

impl Book {
    /// A sandbox is being started, for somebody or for anybody.
    pub fn starting(
        &mut self,
        id: SandboxId,
        kind: Kind,
        version: String,
        person: Option<PersonId>,
        now_ms: i64,
    ) {
        if self.is_closed {
            return;
        }
        self.entries.push(Entry {
            id,
            kind,
            version,
            state: State::Starting,
            began_ms: now_ms,
            reserved: person.map(|person| (person, now_ms)),
        });
    }

    /// It is checked and may be taken. Whether it is still wanted.
    pub fn available(&mut self, id: &SandboxId) -> bool {
        match self.entries.iter_mut().find(|entry| entry.id == *id) {
            Some(entry) => {
                entry.state = State::Available;
                true
            }
            None => false,
        }
    }

    /// Begins to bring one to another commit; nobody takes it meanwhile. Whether it may.
    pub fn syncing(&mut self, id: &SandboxId) -> bool {
        let found = self
            .entries
            .iter_mut()
            .find(|entry| entry.id == *id && entry.state == State::Available);
        match found {
            Some(entry) => {
                entry.state = State::Syncing;
                true
            }
            None => false,
        }
    }

    /// Takes one out to make room for somebody's own: one that waits for nobody if there is one, the oldest first; rather one that
    /// is ready than one that starts.
    pub fn evict(&mut self) -> Option<SandboxId> {
        let is_ready = |entry: &Entry| entry.state == State::Available;
        let is_free = |entry: &Entry| entry.reserved.is_none();
        let first = |is_wanted: &dyn Fn(&Entry) -> bool| self.entries.iter().position(is_wanted);
        let position = first(&|entry| is_ready(entry) && is_free(entry))
            .or_else(|| first(&is_free))
            .or_else(|| first(&is_ready))?;
        Some(self.entries.remove(position).id)
    }

    /// It is nobody's any more. Whether it was the pool's until now.
    pub fn remove(&mut self, id: &SandboxId) -> bool {
        let before = self.entries.len();
        self.entries.retain(|entry| entry.id != *id);
        self.entries.len() < before
    }

    /// Takes a sandbox for somebody's prompt: the one that waits for this person, else one that waits for anybody. It is out of the book
    /// then.
    pub fn claim(&mut self, kind: &Kind, version: &str, person: &PersonId) -> Option<SandboxId> {
        let fits = |entry: &Entry| {
            entry.state == State::Available && entry.kind == *kind && entry.version == version
        };
        let own = self.entries.iter().position(|entry| {
            fits(entry)
                && entry
                    .reserved
                    .as_ref()
                    .is_some_and(|(holder, _)| holder == person)
        });
        let position = own.or_else(|| {
            self.entries
                .iter()
                .position(|entry| fits(entry) && entry.reserved.is_none())
        })?;
        Some(self.entries.remove(position).id)
    }

    /// Somebody types.
    pub fn typing(&mut self, kind: &Kind, version: &str, person: &PersonId, now_ms: i64) -> Reservation {
        let is_own = |entry: &Entry| {
            entry
                .reserved
                .as_ref()
                .is_some_and(|(holder, _)| holder == person)
        };
        let reserved = self.entries.iter().filter(|entry| is_own(entry)).count();
        let of_kind = |entry: &&mut Entry| entry.kind == *kind && entry.version == version;
        let mut entries = self.entries.iter_mut().filter(of_kind);
        let found = match entries.find(|entry| is_own(entry)) {
            Some(own) => Some(own),
            None if reserved >= MAX_RESERVED => return Reservation::Refused,
            None => {
                let mut free = self
                    .entries
                    .iter_mut()
                    .filter(of_kind)
                    .filter(|entry| entry.reserved.is_none());
                free.find(|entry| entry.state == State::Available)
            }
        };
        let Some(entry) = found else {
            return Reservation::Wanted;
        };
        entry.reserved = Some((person.clone(), now_ms));
        match entry.state {
            State::Available => Reservation::Ready,
            State::Starting | State::Syncing => Reservation::Starting,
        }
    }

    /// Lets go of sandboxes whose person is silent: they wait for anybody then. Whether there were any.
    pub fn release_silent(&mut self, now_ms: i64) -> bool {
        let is_silent = |last: i64| !(0..SILENCE_MS).contains(&(now_ms - last));
        let mut has_released = false;
        for entry in &mut self.entries {
            if entry.reserved.as_ref().is_some_and(|(_, last)| is_silent(*last)) {
                entry.reserved = None;
                has_released = true;
            }
        }
        has_released
    }

    /// Takes out what is to be ended: of another version, too old, or more than wanted. Reserved ones end only with their version.
    pub fn outdated(
        &mut self,
        kind: &Kind,
        version: &str,
        ttl_ms: i64,
        target: usize,
        now_ms: i64,
    ) -> Vec<SandboxId> {
        let is_young = |entry: &Entry| (0..ttl_ms).contains(&(now_ms - entry.began_ms));
        let is_ready = |entry: &&Entry| {
            entry.kind == *kind
                && entry.version == version
                && entry.reserved.is_none()
                && entry.state == State::Available
                && is_young(entry)
        };
        // One that can be taken is not given up for one that is still on its way.
        let mut may_start = target.saturating_sub(self.entries.iter().filter(is_ready).count());
        let mut may_wait = target;
        let mut gone = Vec::new();
        self.entries.retain(|entry| {
            if entry.kind != *kind {
                return true;
            }
            let is_current = entry.version == version;
            let stays = match (&entry.reserved, entry.state) {
                _ if !is_current => false,
                (Some(_), _) => true,
                (None, State::Available) if !is_young(entry) => false,
                (None, State::Available) => take_one(&mut may_wait),
                (None, _) => take_one(&mut may_start),
            };
            if !stays {
                gone.push(entry.id.clone());
            }
            stays
        });
        gone
    }

    /// How many more are to be started for anybody.
    pub fn missing(&self, kind: &Kind, version: &str, target: usize) -> usize {
        let free = self
            .entries
            .iter()
            .filter(|entry| entry.kind == *kind && entry.version == version && entry.reserved.is_none());
        target.saturating_sub(free.count())
    }

    /// Kinds of which there is any.
    pub fn kinds(&self) -> Vec<Kind> {
        let mut kinds: Vec<Kind> = Vec::new();
        for entry in &self.entries {
            if !kinds.contains(&entry.kind) {
                kinds.push(entry.kind.clone());
            }
        }
        kinds
    }

    /// Those that may be taken.
    pub fn waiting(&self) -> Vec<(SandboxId, Kind)> {
        let available = self
            .entries
            .iter()
            .filter(|entry| entry.state == State::Available);
        available
            .map(|entry| (entry.id.clone(), entry.kind.clone()))
            .collect()
    }

    /// All of them, those that start included.
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// Takes everything out, and nothing in any more.
    pub fn close(&mut self) -> Vec<SandboxId> {
        self.is_closed = true;
        self.entries.drain(..).map(|entry| entry.id).collect()
    }
}

/// Whether there is room for one more, which it takes.
fn take_one(room: &mut usize) -> bool {
    let has_room = *room > 0;
    *room = room.saturating_sub(1);
    has_room
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(repository: &str) -> Kind {
        Kind {
            repository: repository.to_owned(),
            branch: "main".to_owned(),
        }
    }

    fn id(number: u128) -> SandboxId {
        SandboxId::from_bits(number)
    }

    fn person(number: u128) -> PersonId {
        PersonId::from_bits(number)
    }

    /// Sandboxes of one kind and version that wait for anybody.
    fn book(count: u128) -> Book {
        let mut book = Book::default();
        for number in 0..count {
            book.starting(id(number), kind("shop"), "v1".to_owned(), None, 0);
            assert!(book.available(&id(number)));
        }
        book
    }

    #[test]
    fn only_what_fits_is_taken_and_only_once() {
        let mut book = book(1);
        book.starting(id(9), kind("shop"), "v1".to_owned(), None, 0);
        assert_eq!(book.claim(&kind("other"), "v1", &person(1)), None);
        assert_eq!(book.claim(&kind("shop"), "v2", &person(1)), None);
        assert_eq!(book.claim(&kind("shop"), "v1", &person(1)), Some(id(0)));
        assert_eq!(
            book.claim(&kind("shop"), "v1", &person(1)),
            None,
            "the other one still starts"
        );
        assert!(book.available(&id(9)));
        book.remove(&id(9));
        assert!(!book.available(&id(9)), "nobody wants it any more");
    }

    #[test]
    fn what_can_be_taken_stays_before_what_still_starts() {
        let (shop, mut book) = (kind("shop"), Book::default());
        book.starting(id(1), shop.clone(), "v1".to_owned(), None, 0);
        // Given back, after another was started in its place.
        book.starting(id(2), shop.clone(), "v1".to_owned(), None, 0);
        assert!(book.available(&id(2)));
        assert_eq!(book.outdated(&shop, "v1", 1000, 1, 0), [id(1)]);
        assert!(!book.available(&id(1)), "nobody wants it any more");
        assert_eq!(book.missing(&shop, "v1", 1), 0);
        assert_eq!(book.claim(&shop, "v1", &person(1)), Some(id(2)));
    }

    #[test]
    fn a_hundred_claims_get_a_hundred_sandboxes() {
        let book = std::sync::Mutex::new(book(100));
        let claimed = std::sync::Mutex::new(std::collections::HashSet::new());
        std::thread::scope(|scope| {
            for number in 0..110 {
                let (book, claimed) = (&book, &claimed);
                scope.spawn(move || {
                    let taken = book.lock().unwrap().claim(&kind("shop"), "v1", &person(number));
                    if let Some(id) = taken {
                        assert!(claimed.lock().unwrap().insert(id), "two have the same");
                    }
                });
            }
        });
        assert_eq!(claimed.lock().unwrap().len(), 100);
    }

    #[test]
    fn what_waits_for_somebody_is_not_taken_by_another() {
        let mut book = book(2);
        let shop = kind("shop");
        assert_eq!(book.typing(&shop, "v1", &person(1), 0), Reservation::Ready);
        assert_eq!(book.typing(&shop, "v1", &person(1), 10), Reservation::Ready);
        assert_eq!(book.missing(&shop, "v1", 2), 1, "a reserved one is replaced");
        assert_eq!(book.claim(&shop, "v1", &person(2)), Some(id(1)));
        assert_eq!(book.claim(&shop, "v1", &person(2)), None);
        assert_eq!(book.typing(&shop, "v1", &person(2), 10), Reservation::Wanted);
        book.starting(id(5), shop.clone(), "v1".to_owned(), Some(person(2)), 10);
        assert_eq!(book.typing(&shop, "v1", &person(2), 20), Reservation::Starting);
        // Silence.
        book.release_silent(10 + SILENCE_MS - 1);
        assert_eq!(book.claim(&shop, "v1", &person(3)), None);
        book.release_silent(10 + SILENCE_MS);
        assert_eq!(book.claim(&shop, "v1", &person(3)), Some(id(0)));
        // One person cannot have everything.
        for number in 10..13 {
            let other = kind(&number.to_string());
            assert_eq!(book.typing(&other, "v1", &person(7), 0), Reservation::Wanted);
            book.starting(id(number), other, "v1".to_owned(), Some(person(7)), 0);
        }
        assert_eq!(
            book.typing(&kind("more"), "v1", &person(7), 0),
            Reservation::Refused
        );
    }

    #[test]
    fn what_is_brought_along_is_taken_by_nobody_and_room_is_made_gently() {
        let mut book = book(3);
        let shop = kind("shop");
        assert_eq!(book.typing(&shop, "v1", &person(1), 0), Reservation::Ready);
        assert!(book.syncing(&id(1)) && !book.syncing(&id(1)));
        assert_eq!(book.claim(&shop, "v1", &person(2)), Some(id(2)));
        assert_eq!(book.claim(&shop, "v1", &person(2)), None);
        assert!(book.available(&id(1)));
        assert_eq!(book.evict(), Some(id(1)), "not the one that waits for somebody");
        assert_eq!(book.evict(), Some(id(0)));
        assert_eq!(book.evict(), None);
        assert!(book.close().is_empty());
        book.starting(id(7), shop, "v1".to_owned(), None, 0);
        assert!(!book.available(&id(7)), "it is closed");
    }

    #[test]
    fn what_is_old_or_too_much_ends() {
        let mut book = book(4);
        let shop = kind("shop");
        assert_eq!(book.typing(&shop, "v1", &person(1), 0), Reservation::Ready);
        assert_eq!(book.outdated(&shop, "v1", 1000, 3, 0), []);
        assert_eq!(book.outdated(&shop, "v1", 1000, 2, 0), [id(3)]);
        assert_eq!(book.missing(&shop, "v1", 2), 0);
        assert_eq!(
            book.outdated(&shop, "v1", 1000, 2, 1000),
            [id(1), id(2)],
            "they waited too long"
        );
        assert_eq!(book.missing(&shop, "v1", 2), 2);
        assert_eq!(
            book.outdated(&shop, "v2", 1000, 2, 0),
            [id(0)],
            "its image is old"
        );
        assert_eq!(book.count(), 0);
        assert_eq!(book.kinds(), []);
    }
}
