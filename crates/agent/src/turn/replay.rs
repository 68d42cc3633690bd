//! A turn from its journal.

use super::open_call::{OpenCall, opened};
use super::{Turn, go_on_message};
use crate::world::{JournalEntry, TurnLimits, TurnResult};
use greenroom_llm::conversation::{Block, Message, Role};
use greenroom_protocol::id::ItemId;

impl Turn {
    /// A turn as its journal tells it. The second value are calls that began and whose end nobody saw; the caller finds out
    /// what it can and tells [`Turn::call_ended`] of each before it asks what is next. `fresh_id` names items of calls that
    /// never began.
    pub fn resumed(
        history: Vec<Message>,
        journal: &[JournalEntry],
        limits: TurnLimits,
        mut fresh_id: impl FnMut() -> ItemId,
    ) -> Option<(Self, Vec<OpenCall>)> {
        let (first, rest) = journal.split_first()?;
        let JournalEntry::Message { message } = first else {
            return None;
        };
        let mut turn = Self::fresh(history, message.clone(), limits);
        for entry in rest {
            turn.replay(entry, &mut fresh_id);
        }
        let cut = turn
            .calls
            .iter()
            .filter(|call| call.is_started && call.result.is_none())
            .cloned()
            .collect();
        Some((turn, cut))
    }

    fn replay(&mut self, entry: &JournalEntry, fresh_id: &mut impl FnMut() -> ItemId) {
        match entry {
            JournalEntry::Message { message } => {
                self.calls.clear();
                if message.role == Role::Assistant {
                    let calls = message.blocks.iter().filter_map(|block| match block {
                        Block::ToolCall(call) => Some((fresh_id(), call.clone())),
                        _ => None,
                    });
                    self.calls = opened(calls.collect(), self.limits.max_calls_per_step);
                    if self.calls.is_empty() {
                        // The driver wrote the answer and died before it could say that the turn is over.
                        self.end = Some(TurnResult::Completed);
                    }
                } else {
                    // Results, or the request to go on.
                    self.end = None;
                    self.continuations += u32::from(*message == go_on_message());
                }
                self.messages.push(message.clone());
            }
            JournalEntry::ModelRequested { step } => self.step = *step,
            JournalEntry::ModelUsed { usage, .. } => self.add_usage(usage),
            JournalEntry::ToolCallStarted { call_id, item_id } => {
                if let Some(call) = self.call_mut(call_id) {
                    call.is_started = true;
                    call.item_id = item_id.clone();
                }
            }
            JournalEntry::ToolCallEnded { call_id, result } => {
                if let Some(call) = self.call_mut(call_id) {
                    call.result = Some(result.clone());
                }
            }
        }
    }
}
