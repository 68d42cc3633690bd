//! Single-use tickets for sockets: a browser cannot send a header with an upgrade, and a cookie alone would let any page
//! open one. In memory only; a restart makes clients ask again.

use greenroom_protocol::client::person::Person;
use greenroom_stdx::id::random_token;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// How long a ticket can be used.
const LIFETIME_MS: i64 = 30_000;
/// Unused tickets kept; more than this at once is nobody's honest use.
const MAX_TICKETS: usize = 4_096;

/// Tickets that were given out and not used.
#[derive(Default)]
pub struct Tickets {
    open: Mutex<HashMap<String, (Person, i64)>>,
}

impl Tickets {
    /// A ticket for this person; `None` while too many are open.
    pub fn issue(&self, person: Person, now_ms: i64) -> Option<String> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, (_, expires_at_ms)| *expires_at_ms > now_ms);
        if open.len() >= MAX_TICKETS {
            return None;
        }
        let ticket = random_token();
        open.insert(ticket.clone(), (person, now_ms + LIFETIME_MS));
        Some(ticket)
    }

    /// Uses a ticket up.
    pub fn redeem(&self, ticket: &str, now_ms: i64) -> Option<Person> {
        let entry = self
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(ticket);
        entry
            .filter(|(_, expires_at_ms)| *expires_at_ms > now_ms)
            .map(|(person, _)| person)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use greenroom_protocol::id::PersonId;

    #[test]
    fn a_ticket_opens_one_door_once_and_in_time() {
        let person = Person {
            id: PersonId::from_bits(1),
            name: "Ada".into(),
            email: "ada@example.com".into(),
        };
        let tickets = Tickets::default();
        let ticket = tickets.issue(person.clone(), 0).unwrap();
        assert_eq!(tickets.redeem(&ticket, 1), Some(person.clone()));
        assert_eq!(tickets.redeem(&ticket, 1), None, "used twice");
        let late = tickets.issue(person, 0).unwrap();
        assert_eq!(tickets.redeem(&late, LIFETIME_MS), None, "used late");
        assert_eq!(tickets.redeem("made up", 0), None);
    }
}
