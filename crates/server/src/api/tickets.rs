//! Single-use tickets for sockets: a browser cannot send a header with an upgrade, and a cookie alone would let any page
//! open one. In memory only; a restart makes clients ask again.

use greenroom_protocol::id::PersonId;
use greenroom_stdx::id::random_token;
use greenroom_stdx::secret::Secret;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// How long a ticket can be used.
const LIFETIME_MS: i64 = 30_000;
/// Unused tickets kept; more than this at once is nobody's honest use.
const MAX_TICKETS: usize = 4_096;
/// Of those one person, or those who share one link.
const MAX_TICKETS_OF_ONE: usize = 128;

/// Whom a ticket lets in.
#[derive(Debug, Clone)]
pub enum Holder {
    Person(PersonId),
    /// Whoever has this secret of a share link.
    Guest(Secret),
}

impl Holder {
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Person(one), Self::Person(other)) => one == other,
            (Self::Guest(one), Self::Guest(other)) => one.expose() == other.expose(),
            _ => false,
        }
    }
}

/// Tickets that were given out and not used.
#[derive(Default)]
pub struct Tickets {
    open: Mutex<HashMap<String, (Holder, i64)>>,
}

impl Tickets {
    /// A ticket for this holder; `None` while too many are open.
    pub fn issue(&self, holder: Holder, now_ms: i64) -> Option<String> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, (_, expires_at_ms)| *expires_at_ms > now_ms);
        let own = open.values().filter(|(other, _)| other.is_same(&holder)).count();
        if open.len() >= MAX_TICKETS || own >= MAX_TICKETS_OF_ONE {
            return None;
        }
        let ticket = random_token();
        open.insert(ticket.clone(), (holder, now_ms + LIFETIME_MS));
        Some(ticket)
    }

    /// Uses a guest's ticket up; one of a person stays.
    pub fn redeem_guest(&self, ticket: &str, now_ms: i64) -> Option<Secret> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let (Holder::Guest(secret), expires_at_ms) = open.get(ticket)? else {
            return None;
        };
        let secret = (*expires_at_ms > now_ms).then(|| secret.clone());
        open.remove(ticket);
        secret
    }

    /// Uses a ticket up.
    pub fn redeem(&self, ticket: &str, now_ms: i64) -> Option<Holder> {
        let entry = self
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(ticket);
        entry
            .filter(|(_, expires_at_ms)| *expires_at_ms > now_ms)
            .map(|(holder, _)| holder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn a_ticket_opens_one_door_once_and_in_time() {
        let ada = || Holder::Person(PersonId::from_bits(1));
        let tickets = Tickets::default();
        let ticket = tickets.issue(ada(), 0).unwrap();
        let redeemed = tickets.redeem(&ticket, 1);
        assert!(matches!(redeemed, Some(Holder::Person(person)) if person == PersonId::from_bits(1)));
        assert!(tickets.redeem(&ticket, 1).is_none(), "used twice");
        // Whoever asks for many keeps nobody else out.
        while tickets.issue(ada(), 0).is_some() {}
        assert!(tickets.issue(Holder::Person(PersonId::from_bits(2)), 0).is_some());
        let tickets = Tickets::default();
        let late = tickets.issue(ada(), 0).unwrap();
        assert!(tickets.redeem(&late, LIFETIME_MS).is_none(), "used late");
        assert!(tickets.redeem("made up", 0).is_none());
    }
}
