//! What a turn does next, decided from what it has done. Pure: the driver does the asking, running and recording, and tells
//! this what came of it. A turn cut by a crash is rebuilt from its journal by the same functions.

mod open_call;
mod replay;

use self::open_call::{is_too_large, opened, replayable};
use crate::answer::Finished;
use crate::history;
use crate::tools::Access;
use crate::world::{JournalEntry, TurnLimits, TurnResult};
use greenroom_llm::conversation::{Block, Message, Role, StopReason, TokenUsage, ToolCall};
use greenroom_protocol::client::problem::Problem;
use std::collections::{HashSet, VecDeque};

pub use self::open_call::OpenCall;

/// How often a model that ran into its output limit is asked to go on.
const MAX_CONTINUATIONS: u32 = 3;
const GO_ON: &str = "You reached the limit of one answer. Go on exactly where you stopped.";

/// What the driver must do.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// Ask the model.
    Ask,
    /// Run these calls beside each other; at least one.
    Run(Vec<OpenCall>),
    /// All calls have results: close the step with [`Turn::results_message`].
    CloseStep,
    End(TurnResult),
}

/// A turn's state.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    limits: TurnLimits,
    messages: Vec<Message>,
    step: u32,
    calls: VecDeque<OpenCall>,
    continuations: u32,
    end: Option<TurnResult>,
    usage: TokenUsage,
}

impl Turn {
    /// A fresh turn: the conversation so far, and the prompt.
    pub fn fresh(history: Vec<Message>, prompt: Message, limits: TurnLimits) -> Self {
        let mut messages = history;
        messages.push(prompt);
        Self {
            limits,
            messages,
            step: 0,
            calls: VecDeque::new(),
            continuations: 0,
            end: None,
            usage: TokenUsage::default(),
        }
    }

    /// What to do now.
    pub fn next(&self) -> Next {
        if let Some(end) = &self.end {
            return Next::End(end.clone());
        }
        if self.calls.is_empty() {
            if self.step >= self.limits.max_steps {
                let message = format!("The turn was ended after {} steps.", self.limits.max_steps);
                let problem = Problem::permanent("step_limit", message)
                    .with_hint("Send another prompt to go on, or raise `agent.max_steps`.");
                return Next::End(TurnResult::Failed(problem));
            }
            return Next::Ask;
        }
        let waiting = || self.calls.iter().filter(|call| call.result.is_none());
        let Some(first) = waiting().next() else {
            return Next::CloseStep;
        };
        match first.access {
            Access::Changes => Next::Run(vec![first.clone()]),
            // Reads run beside each other, up to the next call that may change what they see.
            Access::Reads => Next::Run(
                waiting()
                    .take_while(|call| call.access == Access::Reads)
                    .cloned()
                    .collect(),
            ),
        }
    }

    /// The conversation to send, valid for every provider.
    pub fn conversation(&self) -> Vec<Message> {
        history::valid(&self.messages)
    }

    /// Number of the step that is about to be asked for; call once per request.
    pub fn begin_step(&mut self) -> u32 {
        self.step += 1;
        self.step
    }

    /// Whether the model was asked already.
    pub fn has_begun(&self) -> bool {
        self.step > 0
    }

    /// People said something between two steps; their messages are in the journal.
    pub fn inserted(&mut self, messages: impl Iterator<Item = Message>) {
        self.messages.extend(messages);
    }

    /// Takes a whole answer. Returns the journal entries, and whether it was empty.
    pub fn answered(&mut self, finished: Finished) -> (Vec<JournalEntry>, Emptiness) {
        let Finished {
            blocks,
            stop_reason,
            usage,
        } = finished;
        self.add_usage(&usage);
        let mut journal = vec![JournalEntry::ModelUsed {
            step: self.step,
            usage,
        }];
        let mut used: HashSet<String> = self.call_ids();
        let mut calls = Vec::new();
        let blocks: Vec<Block> = blocks
            .into_iter()
            .map(|(item_id, block)| match block {
                Block::ToolCall(call) => {
                    let call = replayable(call, self.step, calls.len(), &mut used);
                    calls.push((item_id, call.clone()));
                    // What is too large to run is not replayed either.
                    let arguments_json = if is_too_large(&call) {
                        "{}".to_owned()
                    } else {
                        call.arguments_json
                    };
                    Block::ToolCall(ToolCall {
                        arguments_json,
                        ..call
                    })
                }
                other => other,
            })
            .collect();
        let says_something = blocks.iter().any(|block| match block {
            Block::Text { text } => !text.trim().is_empty(),
            Block::ToolCall(_) => true,
            _ => false,
        });
        if stop_reason == StopReason::Refusal && calls.is_empty() {
            let problem = Problem::permanent("model_refused", "The model declined to answer.")
                .with_hint("Say it differently, or choose another model.");
            self.end = Some(TurnResult::Failed(problem));
            return (journal, Emptiness::SaysSomething);
        }
        if says_something {
            let message = Message {
                role: Role::Assistant,
                blocks,
            };
            journal.push(JournalEntry::Message {
                message: message.clone(),
            });
            self.messages.push(message);
        }
        self.calls = opened(calls, self.limits.max_calls_per_step);
        if !self.calls.is_empty() {
            return (journal, Emptiness::SaysSomething);
        }
        if stop_reason == StopReason::MaxOutputTokens {
            journal.extend(self.go_on());
        } else {
            self.end = Some(TurnResult::Completed);
        }
        (
            journal,
            if says_something {
                Emptiness::SaysSomething
            } else {
                Emptiness::Empty
            },
        )
    }

    fn go_on(&mut self) -> Option<JournalEntry> {
        if self.continuations >= MAX_CONTINUATIONS {
            let problem = Problem::permanent(
                "model_output_limit",
                "The model's answer is longer than it may be.",
            )
            .with_hint("Ask for less at once, or raise `agent.max_output_tokens`.");
            self.end = Some(TurnResult::Failed(problem));
            return None;
        }
        self.continuations += 1;
        let message = go_on_message();
        self.messages.push(message.clone());
        Some(JournalEntry::Message { message })
    }

    /// A call is about to run; the entry must be on disk before it does.
    pub fn call_started(&mut self, call_id: &str) -> Option<JournalEntry> {
        let call = self.call_mut(call_id)?;
        call.is_started = true;
        Some(JournalEntry::ToolCallStarted {
            call_id: call_id.to_owned(),
            item_id: call.item_id.clone(),
        })
    }

    /// A call has a result.
    pub fn call_ended(&mut self, call_id: &str, content: Vec<Block>, is_error: bool) -> Option<JournalEntry> {
        let result = Block::ToolResult {
            call_id: call_id.to_owned(),
            content,
            is_error,
        };
        self.call_mut(call_id)?.result = Some(result.clone());
        Some(JournalEntry::ToolCallEnded {
            call_id: call_id.to_owned(),
            result,
        })
    }

    /// Closes a step whose calls all have results. `more` stands behind the last result, such as repository instructions:
    /// inside it, because a message of its own would look as if a person had said it.
    pub fn results_message(&mut self, more: Option<Block>) -> JournalEntry {
        let mut blocks: Vec<Block> = self.calls.drain(..).filter_map(|call| call.result).collect();
        if let Some(Block::ToolResult { content, .. }) = blocks.last_mut() {
            content.extend(more);
        }
        let message = Message {
            role: Role::User,
            blocks,
        };
        self.messages.push(message.clone());
        JournalEntry::Message { message }
    }

    /// Closes the step of a turn that ends in the middle, if one is open: what its calls said stays in the conversation.
    pub fn close_open_step(&mut self) -> Option<JournalEntry> {
        (!self.calls.is_empty()).then(|| self.results_message(None))
    }

    /// Calls that have not run: what a stop or a lost workspace leaves. They get `text` as result.
    pub fn give_up_waiting(&mut self, text: &str) -> Vec<JournalEntry> {
        let waiting: Vec<String> = self
            .calls
            .iter()
            .filter(|call| call.result.is_none())
            .map(|call| call.call.id.clone())
            .collect();
        let content = || {
            vec![Block::Text {
                text: text.to_owned(),
            }]
        };
        waiting
            .iter()
            .filter_map(|id| self.call_ended(id, content(), true))
            .collect()
    }

    /// Keeps what was said before a stop.
    pub fn stopped_saying(&mut self, blocks: Vec<Block>) -> Option<JournalEntry> {
        if blocks.is_empty() {
            return None;
        }
        let message = Message {
            role: Role::Assistant,
            blocks,
        };
        self.messages.push(message.clone());
        Some(JournalEntry::Message { message })
    }

    /// Whether the results hold a text that begins so; for things that are said once per session.
    pub fn has_text(&self, marker: &str) -> bool {
        self.messages
            .iter()
            .flat_map(|message| &message.blocks)
            .any(|block| match block {
                Block::ToolResult { content, .. } => content
                    .iter()
                    .any(|part| matches!(part, Block::Text { text } if text.starts_with(marker))),
                _ => false,
            })
    }

    /// Tokens of all requests of this turn.
    pub fn usage(&self) -> TokenUsage {
        self.usage
    }

    fn add_usage(&mut self, usage: &TokenUsage) {
        let add = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
        add(&mut self.usage.input_tokens, usage.input_tokens);
        add(&mut self.usage.output_tokens, usage.output_tokens);
        add(&mut self.usage.cache_read_tokens, usage.cache_read_tokens);
        add(&mut self.usage.cache_write_tokens, usage.cache_write_tokens);
    }

    fn call_mut(&mut self, call_id: &str) -> Option<&mut OpenCall> {
        self.calls.iter_mut().find(|call| call.call.id == call_id)
    }

    fn call_ids(&self) -> HashSet<String> {
        let blocks = self.messages.iter().flat_map(|message| &message.blocks);
        blocks
            .filter_map(|block| match block {
                Block::ToolCall(call) => Some(call.id.clone()),
                _ => None,
            })
            .collect()
    }
}

/// Whether an answer said anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Emptiness {
    SaysSomething,
    Empty,
}

fn go_on_message() -> Message {
    Message {
        role: Role::User,
        blocks: vec![Block::Text {
            text: GO_ON.to_owned(),
        }],
    }
}

#[cfg(test)]
mod tests;
