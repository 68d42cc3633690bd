//! Who watches a session. Pure; kept in memory only, because whoever comes back says so by coming.

use greenroom_protocol::client::person::Person;
use greenroom_protocol::client::stream::{DraftState, Presence, Watcher};
use std::collections::BTreeMap;

/// People told by name; more than these watch without being told.
const MAX_TOLD: usize = 50;

/// Everybody who watches, by their connections.
#[derive(Debug, Default)]
pub struct Room {
    last: u64,
    seats: BTreeMap<u64, Sitting>,
}

#[derive(Debug)]
struct Sitting {
    /// `None`: a guest.
    person: Option<Person>,
    is_away: bool,
    draft: Option<DraftState>,
}

impl Room {
    /// Another connection; answers with its number.
    pub fn sit(&mut self, person: Option<Person>) -> u64 {
        self.last += 1;
        let sitting = Sitting {
            person,
            is_away: false,
            draft: None,
        };
        self.seats.insert(self.last, sitting);
        self.last
    }

    pub fn leave(&mut self, number: u64) {
        self.seats.remove(&number);
    }

    pub fn change(&mut self, number: u64, is_away: bool, draft: Option<DraftState>) {
        if let Some(sitting) = self.seats.get_mut(&number) {
            sitting.is_away = is_away;
            sitting.draft = draft;
        }
    }

    /// As others see it: each person once, there if one of their windows is in front, writing where they write.
    pub fn presence(&self) -> Presence {
        let mut presence = Presence::default();
        for sitting in self.seats.values() {
            let Some(person) = &sitting.person else {
                presence.guests += 1;
                continue;
            };
            let mut watching = presence.watching.iter_mut();
            if let Some(watcher) = watching.find(|watcher| watcher.person.id == person.id) {
                watcher.is_away &= sitting.is_away;
                watcher.draft = watcher.draft.or(sitting.draft);
            } else if presence.watching.len() < MAX_TOLD {
                presence.watching.push(Watcher {
                    person: person.clone(),
                    is_away: sitting.is_away,
                    draft: sitting.draft,
                });
            }
        }
        presence
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use greenroom_protocol::id::PersonId;

    fn person(number: u128) -> Person {
        Person {
            id: PersonId::from_bits(number),
            name: format!("Person {number}"),
            email: String::new(),
        }
    }

    fn told(room: &Room) -> Vec<(String, bool, bool)> {
        let watching = room.presence().watching.into_iter();
        watching
            .map(|watcher| (watcher.person.name, watcher.is_away, watcher.draft.is_some()))
            .collect()
    }

    #[test]
    fn each_person_is_told_once_however_many_windows_they_have() {
        let draft = Some(DraftState { length: 3, cursor: 1 });
        let mut room = Room::default();
        let first = room.sit(Some(person(1)));
        room.sit(None);
        let other = room.sit(Some(person(2)));
        let second = room.sit(Some(person(1)));
        let is = |name: &str, is_away, writes| (name.to_owned(), is_away, writes);
        assert_eq!(
            told(&room),
            [is("Person 1", false, false), is("Person 2", false, false)]
        );
        assert_eq!(room.presence().guests, 1);
        room.change(first, true, None);
        assert_eq!(
            told(&room)[0],
            is("Person 1", false, false),
            "another window is in front"
        );
        room.change(second, true, draft);
        assert_eq!(told(&room)[0], is("Person 1", true, true));
        room.leave(second);
        assert_eq!(told(&room)[0], is("Person 1", true, false));
        room.leave(first);
        room.leave(other);
        room.change(other, false, draft);
        assert_eq!(told(&room), []);
    }

    #[test]
    fn a_crowd_is_not_told_by_name() {
        let mut room = Room::default();
        for number in 0..200 {
            room.sit(Some(person(number)));
        }
        assert_eq!(room.presence().watching.len(), MAX_TOLD);
    }
}
