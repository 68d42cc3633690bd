//! What a fork takes over of the log it began as a copy of: prompts, turns and what they showed, the newest first if it is too much.
//! What belongs to the other's own branch and sandbox stays behind. Pure.

use greenroom_protocol::client::event::{Event, EventBody, TurnOutcome};
use greenroom_protocol::client::model::Usage;
use greenroom_protocol::client::prompt::Prompt;
use greenroom_protocol::id::{PersonId, PromptId, TurnId};
use std::collections::{HashMap, VecDeque};

/// Bounds of what one fork takes over. What the model remembers is not cut by them.
const MAX_ITEMS: usize = 5_000;
const MAX_BYTES: usize = 32 * 1024 * 1024;

/// An event and when it happened.
pub type Timed = (i64, EventBody);

/// One turn that is taken over.
struct Turn {
    id: TurnId,
    prompt: Prompt,
    queued_at_ms: i64,
    started: Timed,
    /// Each with its size in bytes.
    items: VecDeque<(Timed, usize)>,
    ended: Option<Timed>,
    bytes: usize,
}

/// The part of a log that a fork takes over; fed with the log's events in order.
pub struct Inherited {
    /// The last event that is looked at.
    until_seq: u64,
    /// When it happened, Unix milliseconds.
    until_ms: i64,
    max_items: usize,
    max_bytes: usize,
    waiting: HashMap<PromptId, (i64, Prompt)>,
    turns: VecDeque<Turn>,
    items: usize,
    bytes: usize,
}

impl Inherited {
    /// `None`: of all that there is.
    pub fn new(until_seq: Option<u64>) -> Self {
        Self {
            until_seq: until_seq.unwrap_or(u64::MAX),
            until_ms: i64::MIN,
            max_items: MAX_ITEMS,
            max_bytes: MAX_BYTES,
            waiting: HashMap::new(),
            turns: VecDeque::new(),
            items: 0,
            bytes: 0,
        }
    }

    /// Takes the next event of the log.
    pub fn push(&mut self, event: Event) {
        if event.seq > self.until_seq {
            return;
        }
        self.until_ms = self.until_ms.max(event.at_ms);
        let bytes = serde_json::to_vec(&event.body).map_or(0, |text| text.len());
        match event.body {
            EventBody::PromptQueued { prompt, .. } => {
                self.waiting.insert(prompt.id.clone(), (event.at_ms, prompt));
            }
            EventBody::PromptCancelled { prompt_id, .. } => {
                self.waiting.remove(&prompt_id);
            }
            EventBody::PromptEdited { prompt_id, text, .. } => {
                if let Some((_, prompt)) = self.waiting.get_mut(&prompt_id) {
                    prompt.text = text;
                }
            }
            EventBody::TurnStarted {
                ref turn_id,
                ref prompt_id,
                ..
            } => {
                let Some((queued_at_ms, prompt)) = self.waiting.remove(prompt_id) else {
                    return;
                };
                let bytes = serde_json::to_vec(&prompt).map_or(0, |text| text.len());
                self.bytes += bytes;
                self.turns.push_back(Turn {
                    id: turn_id.clone(),
                    prompt,
                    queued_at_ms,
                    started: (event.at_ms, event.body),
                    items: VecDeque::new(),
                    ended: None,
                    bytes,
                });
            }
            EventBody::PromptInserted {
                ref turn_id,
                ref prompt_id,
            } => {
                let Some((_, prompt)) = self.waiting.remove(prompt_id) else {
                    return;
                };
                let Some(turn) = self.turns.iter_mut().rev().find(|turn| turn.id == *turn_id) else {
                    return;
                };
                // It is told from the moment on in which the turn heard of it.
                let queued = EventBody::PromptQueued { prompt, key: None };
                let queued_bytes = serde_json::to_vec(&queued).map_or(0, |text| text.len());
                turn.items.push_back(((event.at_ms, queued), queued_bytes));
                turn.items.push_back(((event.at_ms, event.body), bytes));
                turn.bytes += queued_bytes + bytes;
                self.bytes += queued_bytes + bytes;
                self.items += 2;
            }
            EventBody::ItemCompleted { ref turn_id, .. } => {
                let Some(turn) = self.turns.iter_mut().rev().find(|turn| turn.id == *turn_id) else {
                    return;
                };
                turn.bytes += bytes;
                turn.items.push_back(((event.at_ms, event.body), bytes));
                self.bytes += bytes;
                self.items += 1;
            }
            EventBody::TurnCompleted { ref turn_id, .. } => {
                if let Some(turn) = self.turns.iter_mut().rev().find(|turn| turn.id == *turn_id) {
                    turn.ended = Some((event.at_ms, event.body));
                }
            }
            _ => return,
        }
        self.cut();
    }

    /// Forgets the oldest: whole turns, and of the last one that is left its first items.
    fn cut(&mut self) {
        while self.items > self.max_items || self.bytes > self.max_bytes {
            if self.turns.len() > 1 {
                if let Some(turn) = self.turns.pop_front() {
                    self.items -= turn.items.len();
                    self.bytes -= turn.bytes;
                }
                continue;
            }
            let Some(turn) = self.turns.front_mut() else {
                return;
            };
            let Some(((_, first), bytes)) = turn.items.pop_front() else {
                return;
            };
            // A prompt, and that the turn heard it: one without the other says nothing.
            let second = match first {
                EventBody::PromptQueued { .. } => turn.items.pop_front().map(|(_, bytes)| bytes),
                _ => None,
            };
            self.items -= 1 + usize::from(second.is_some());
            let bytes = bytes + second.unwrap_or(0);
            self.bytes -= bytes;
            turn.bytes -= bytes;
        }
    }

    /// Whether the model of the fork remembers what was stored then.
    pub fn remembers(&self, at_ms: i64) -> bool {
        self.until_seq == u64::MAX || at_ms <= self.until_ms
    }

    /// The events to begin with. A turn that still runs there ends here and now, stopped by whoever forks.
    pub fn into_events(self, by: &PersonId, now_ms: i64) -> Vec<Timed> {
        let mut events = Vec::new();
        for turn in self.turns {
            let prompt_id = turn.prompt.id.clone();
            events.push((
                turn.queued_at_ms,
                EventBody::PromptQueued {
                    prompt: turn.prompt,
                    key: None,
                },
            ));
            events.push(turn.started);
            events.extend(turn.items.into_iter().map(|(item, _)| item));
            let stopped = || EventBody::TurnCompleted {
                turn_id: turn.id,
                prompt_id,
                outcome: TurnOutcome::Stopped { by: by.clone() },
                usage: Usage::default(),
                sandbox: None,
            };
            events.push(turn.ended.unwrap_or_else(|| (now_ms, stopped())));
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use greenroom_protocol::client::event::{Item, ItemBody};
    use greenroom_protocol::client::person::Person;
    use greenroom_protocol::client::prompt::Delivery;
    use greenroom_protocol::client::session::SessionState;
    use greenroom_protocol::id::{ItemId, SessionId};

    fn queued(number: u128) -> EventBody {
        EventBody::PromptQueued {
            prompt: Prompt {
                id: PromptId::from_bits(number),
                author: Person {
                    id: PersonId::from_bits(1),
                    name: "Ada".into(),
                    email: "ada@localhost".into(),
                },
                text: format!("prompt {number}"),
                images: Vec::new(),
                model: None,
                delivery: Delivery::Queue,
                queued_at_ms: 0,
            },
            key: None,
        }
    }

    fn started(number: u128) -> EventBody {
        EventBody::TurnStarted {
            turn_id: TurnId::from_bits(number),
            prompt_id: PromptId::from_bits(number),
            model: "m".into(),
            is_scripted: false,
        }
    }

    fn item(turn: u128, number: u128) -> EventBody {
        EventBody::ItemCompleted {
            turn_id: TurnId::from_bits(turn),
            item: Item {
                id: ItemId::from_bits(number),
                body: ItemBody::Message {
                    text: format!("item {number}"),
                },
            },
        }
    }

    fn completed(number: u128) -> EventBody {
        EventBody::TurnCompleted {
            turn_id: TurnId::from_bits(number),
            prompt_id: PromptId::from_bits(number),
            outcome: TurnOutcome::Completed,
            usage: Usage::default(),
            sandbox: None,
        }
    }

    /// Words for what is taken over.
    fn told(events: &[Timed]) -> String {
        let words = events.iter().map(|(_, event)| match event {
            EventBody::PromptQueued { prompt, .. } => prompt.text.clone(),
            EventBody::TurnStarted { .. } => "started".to_owned(),
            EventBody::ItemCompleted { item, .. } => match &item.body {
                ItemBody::Message { text } => text.clone(),
                other => format!("{other:?}"),
            },
            EventBody::TurnCompleted { outcome, .. } => match outcome {
                TurnOutcome::Completed => "completed".to_owned(),
                TurnOutcome::Stopped { .. } => "stopped".to_owned(),
                TurnOutcome::Failed { .. } => "failed".to_owned(),
            },
            other => format!("{other:?}"),
        });
        words.collect::<Vec<_>>().join(", ")
    }

    #[track_caller]
    fn check(
        max_items: usize,
        until_seq: Option<u64>,
        log: &[(i64, EventBody)],
        expected: &str,
    ) -> Inherited {
        let feed = || {
            let mut inherited = Inherited {
                max_items,
                ..Inherited::new(until_seq)
            };
            for (seq, (at_ms, body)) in (1..).zip(log) {
                inherited.push(Event {
                    seq,
                    at_ms: *at_ms,
                    body: body.clone(),
                });
            }
            inherited
        };
        let events = feed().into_events(&PersonId::from_bits(2), 99);
        assert_eq!(told(&events), expected);
        feed()
    }

    #[test]
    fn turns_are_taken_over_and_what_waits_or_is_the_others_is_not() {
        let log = [
            (0, queued(1)),
            (1, started(1)),
            (
                2,
                EventBody::SessionStateChanged {
                    state: SessionState::Running,
                },
            ),
            (3, item(1, 1)),
            (3, queued(2)),
            (3, queued(3)),
            (
                4,
                EventBody::ChangePushed {
                    repository: None,
                    branch: "b".into(),
                    commit: "c".into(),
                    additions: 0,
                    deletions: 0,
                    files: Vec::new(),
                },
            ),
            (
                5,
                EventBody::SessionForked {
                    from: SessionId::from_bits(9),
                    snapshot_id: None,
                    by: Person {
                        id: PersonId::from_bits(1),
                        name: "Ada".into(),
                        email: "ada@localhost".into(),
                    },
                },
            ),
            (6, completed(1)),
            (7, started(2)),
            (8, item(2, 2)),
        ];
        let all = "prompt 1, started, item 1, completed, prompt 2, started, item 2, stopped";
        let inherited = check(100, None, &log, all);
        assert!(inherited.remembers(1_000), "all of it");
        let events = inherited.into_events(&PersonId::from_bits(2), 99);
        let times: Vec<_> = events.iter().map(|(at_ms, _)| *at_ms).collect();
        assert_eq!(times, [0, 1, 3, 6, 3, 7, 8, 99], "as they were");
        check(100, None, &[], "");
    }

    #[test]
    fn what_came_after_the_snapshot_is_left_out() {
        let log = [
            (1, queued(1)),
            (1, started(1)),
            (2, item(1, 1)),
            (3, item(1, 2)),
            (4, completed(1)),
            (4, queued(2)),
            (5, started(2)),
            (6, completed(2)),
        ];
        let inherited = check(100, Some(3), &log, "prompt 1, started, item 1, stopped");
        assert!(inherited.remembers(2) && !inherited.remembers(3));
        check(100, Some(6), &log, "prompt 1, started, item 1, item 2, completed");
        check(100, Some(0), &log, "");
    }

    #[test]
    fn the_newest_stays_when_it_is_too_much() {
        let mut log = vec![
            (0, queued(1)),
            (0, started(1)),
            (0, item(1, 1)),
            (0, completed(1)),
        ];
        log.extend([(0, queued(2)), (0, started(2))]);
        log.extend((1..=4).map(|number| (0, item(2, number))));
        check(
            4,
            None,
            &log,
            "prompt 2, started, item 1, item 2, item 3, item 4, stopped",
        );
        check(2, None, &log, "prompt 2, started, item 3, item 4, stopped");
        check(0, None, &log, "prompt 2, started, stopped");
    }
}
