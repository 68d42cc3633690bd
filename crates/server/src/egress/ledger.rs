//! Keeps decisions from flooding a session's log: the first of a kind in a turn is told at once, the rest is counted and
//! told when the turn ends. A sandbox that asks for ever new hosts is told of up to a bound, beyond it counted.

use greenroom_protocol::client::event::{EgressProtocol, EgressVerdict, EventBody};
use greenroom_protocol::id::TurnId;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Kinds told of in one turn, and between two turns.
const MAX_KINDS: usize = 200;

/// A decision as it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    pub host: String,
    pub port: u16,
    pub protocol: EgressProtocol,
    pub verdict: EgressVerdict,
    /// Stable word for the reason.
    pub code: &'static str,
    pub reason: String,
    pub hint: Option<String>,
}

/// What counts as the same.
type Kind = (String, u16, EgressProtocol, EgressVerdict);

/// Decisions of one session's sandbox.
#[derive(Debug, Default)]
pub struct EgressLedger {
    window: Mutex<Window>,
    wake: Notify,
}

/// Since the turn began, or since the last one ended.
#[derive(Debug, Default)]
struct Window {
    turn_id: Option<TurnId>,
    counted: HashMap<Kind, (Decided, u64)>,
    /// In the order of their first.
    order: Vec<Kind>,
    /// Decisions of kinds beyond the bound.
    beyond: u64,
    /// Not taken yet; one for each kind at most.
    pending: Vec<EventBody>,
}

/// What a turn leaves.
#[derive(Debug, Default, PartialEq)]
pub struct Closed {
    pub events: Vec<EventBody>,
    /// Decisions that no event tells of.
    pub beyond: u64,
}

impl EgressLedger {
    /// Takes a decision; never waits.
    pub fn decided(&self, decided: Decided) {
        let mut window = self.lock();
        let kind = (
            decided.host.clone(),
            decided.port,
            decided.protocol,
            decided.verdict,
        );
        if let Some((_, count)) = window.counted.get_mut(&kind) {
            *count += 1;
            return;
        }
        if window.counted.len() >= MAX_KINDS {
            window.beyond += 1;
            return;
        }
        let event = event(window.turn_id.clone(), &decided, 1);
        window.pending.push(event);
        window.order.push(kind.clone());
        window.counted.insert(kind, (decided, 1));
        drop(window);
        self.wake.notify_one();
    }

    /// Waits for first decisions and takes them. For one caller at a time.
    pub async fn next(&self) -> Vec<EventBody> {
        loop {
            let events = std::mem::take(&mut self.lock().pending);
            if !events.is_empty() {
                return events;
            }
            self.wake.notified().await;
        }
    }

    /// Counts for this turn from now on; returns what is left to tell of the time before.
    pub fn begin_turn(&self, turn_id: &TurnId) -> Closed {
        self.close(Some(turn_id.clone()))
    }

    /// The turn is over; returns what is left to tell of it.
    pub fn end_turn(&self) -> Closed {
        self.close(None)
    }

    fn close(&self, next: Option<TurnId>) -> Closed {
        let mut window = self.lock();
        let closed = std::mem::replace(
            &mut *window,
            Window {
                turn_id: next,
                ..Window::default()
            },
        );
        drop(window);
        let totals = closed.order.iter().filter_map(|kind| {
            let (decided, count) = closed.counted.get(kind)?;
            (*count > 1).then(|| event(closed.turn_id.clone(), decided, *count))
        });
        let totals: Vec<_> = totals.collect();
        Closed {
            events: closed.pending.into_iter().chain(totals).collect(),
            beyond: closed.beyond,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Window> {
        // Counts stay usable whatever a panicking caller left.
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn event(turn_id: Option<TurnId>, decided: &Decided, count: u64) -> EventBody {
    EventBody::EgressDecided {
        turn_id,
        host: decided.host.clone(),
        port: decided.port,
        protocol: decided.protocol,
        verdict: decided.verdict,
        code: decided.code.to_owned(),
        reason: decided.reason.clone(),
        hint: decided.hint.clone(),
        count,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(host: &str, verdict: EgressVerdict) -> Decided {
        Decided {
            host: host.to_owned(),
            port: 443,
            protocol: EgressProtocol::Connect,
            verdict,
            code: "rule",
            reason: String::new(),
            hint: None,
        }
    }

    fn told(events: &[EventBody]) -> Vec<(String, u64, bool)> {
        events
            .iter()
            .map(|event| match event {
                EventBody::EgressDecided {
                    host, count, turn_id, ..
                } => (host.clone(), *count, turn_id.is_some()),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[tokio::test]
    async fn the_first_is_told_at_once_and_the_count_at_the_end() {
        use EgressVerdict::{Allowed, Refused};
        let ledger = EgressLedger::default();
        ledger.begin_turn(&TurnId::from_bits(1));
        for _ in 0..5 {
            ledger.decided(decided("a", Refused));
        }
        ledger.decided(decided("a", Allowed));
        ledger.decided(decided("b", Allowed));
        let first = ledger.next().await;
        assert_eq!(
            told(&first),
            [
                ("a".into(), 1, true),
                ("a".into(), 1, true),
                ("b".into(), 1, true)
            ]
        );
        ledger.decided(decided("c", Refused));
        let end = ledger.end_turn();
        assert_eq!(told(&end.events), [("c".into(), 1, true), ("a".into(), 5, true)]);
        // Each turn counts by itself, and so does the time between.
        ledger.decided(decided("a", Refused));
        ledger.decided(decided("a", Refused));
        assert_eq!(told(&ledger.next().await), [("a".into(), 1, false)]);
        let between = ledger.begin_turn(&TurnId::from_bits(2));
        assert_eq!(told(&between.events), [("a".into(), 2, false)]);
        assert_eq!(ledger.end_turn(), Closed::default());
    }

    #[test]
    fn new_hosts_without_end_are_counted_beyond_a_bound() {
        let ledger = EgressLedger::default();
        for index in 0..MAX_KINDS + 50 {
            ledger.decided(decided(&format!("h{index}.example"), EgressVerdict::Refused));
        }
        let closed = ledger.end_turn();
        assert_eq!((closed.events.len(), closed.beyond), (MAX_KINDS, 50));
    }
}
