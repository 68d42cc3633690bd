//! What a turn does next, decided from what it has done. Pure: the driver does the asking, running and recording, and tells
//! this what came of it. A turn cut by a crash is rebuilt from its journal by the same functions.

use crate::answer::Finished;
use crate::history;
use crate::tools::{self, Access};
use crate::world::{JournalEntry, TurnLimits, TurnResult};
use greenroom_llm::conversation::{Block, Message, Role, StopReason, TokenUsage, ToolCall};
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::id::ItemId;
use std::collections::{HashSet, VecDeque};

/// How often a model that ran into its output limit is asked to go on.
const MAX_CONTINUATIONS: u32 = 3;
/// Largest arguments of a call, in bytes; they are replayed with every later request.
const MAX_ARGUMENTS_BYTES: usize = 1024 * 1024;
const GO_ON: &str = "You reached the limit of one answer. Go on exactly where you stopped.";

/// A call of the last answer.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenCall {
    pub call: ToolCall,
    /// The item it is shown as.
    pub item_id: ItemId,
    access: Access,
    /// An answer that stands before the call ran: too many calls, arguments too large.
    pub refusal: Option<String>,
    result: Option<Block>,
    is_started: bool,
}

impl OpenCall {
    /// Whether nothing is lost when it is left in the middle.
    pub fn is_read(&self) -> bool {
        self.access == Access::Reads
    }
}

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

fn opened(calls: Vec<(ItemId, ToolCall)>, max_calls: u32) -> VecDeque<OpenCall> {
    calls
        .into_iter()
        .enumerate()
        .map(|(position, (item_id, call))| {
            let refusal = if position >= max_calls as usize {
                Some(format!(
                    "not run: one answer may hold {max_calls} calls; call again in the next one"
                ))
            } else if is_too_large(&call) {
                Some(format!(
                    "not run: the arguments are larger than {MAX_ARGUMENTS_BYTES} bytes"
                ))
            } else {
                None
            };
            let access = if refusal.is_some() {
                Access::Reads
            } else {
                tools::plan(&call).access
            };
            OpenCall {
                call,
                item_id,
                access,
                refusal,
                result: None,
                is_started: false,
            }
        })
        .collect()
}

fn go_on_message() -> Message {
    Message {
        role: Role::User,
        blocks: vec![Block::Text {
            text: GO_ON.to_owned(),
        }],
    }
}

fn is_too_large(call: &ToolCall) -> bool {
    call.arguments_json.len() > MAX_ARGUMENTS_BYTES
}

/// The same call with an id and a name that every provider takes back.
fn replayable(call: ToolCall, step: u32, position: usize, used: &mut HashSet<String>) -> ToolCall {
    let mut id = call.id;
    if id.is_empty() || used.contains(&id) {
        id = format!("call_{step}_{position}");
        while used.contains(&id) {
            id.push('x');
        }
    }
    used.insert(id.clone());
    let is_plain = |character: &char| character.is_ascii_alphanumeric() || matches!(character, '_' | '-');
    let mut name: String = call
        .name
        .chars()
        .take(64)
        .map(|character| if is_plain(&character) { character } else { '_' })
        .collect();
    if name.is_empty() {
        name.push('_');
    }
    ToolCall {
        id,
        name,
        arguments_json: call.arguments_json,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(role: Role, text: &str) -> Message {
        Message {
            role,
            blocks: vec![Block::Text { text: text.into() }],
        }
    }

    fn call(id: &str, name: &str, arguments_json: &str) -> ToolCall {
        ToolCall {
            id: id.into(),
            name: name.into(),
            arguments_json: arguments_json.into(),
        }
    }

    fn turn(limits: TurnLimits) -> Turn {
        Turn::fresh(Vec::new(), text(Role::User, "Do it."), limits)
    }

    /// A turn whose model just called these tools, each with arguments that fit it; calls are numbered from 0.
    fn calling(names: &str, limits: TurnLimits) -> Turn {
        let mut turn = turn(limits);
        turn.begin_step();
        let blocks = names.split_whitespace().enumerate().map(|(number, name)| {
            let arguments = match name {
                "read" => r#"{"path":"a"}"#,
                "bash" => r#"{"command":"ls"}"#,
                _ => "{}",
            };
            let call = call(&number.to_string(), name, arguments);
            (ItemId::from_bits(number as u128), Block::ToolCall(call))
        });
        turn.answered(Finished {
            blocks: blocks.collect(),
            stop_reason: StopReason::ToolCalls,
            usage: TokenUsage::default(),
        });
        turn
    }

    #[test]
    fn calls_run_in_batches_that_end_before_and_behind_each_change() {
        let check = |names: &str, expected: &str| {
            let mut turn = calling(names, TurnLimits::default());
            let mut batches = Vec::new();
            loop {
                match turn.next() {
                    Next::Run(calls) => {
                        let ids: Vec<_> = calls.iter().map(|call| call.call.id.clone()).collect();
                        for id in &ids {
                            assert!(turn.call_started(id).is_some());
                            assert!(turn.call_ended(id, Vec::new(), false).is_some());
                        }
                        batches.push(ids.join("+"));
                    }
                    Next::CloseStep => break,
                    other => panic!("{other:?}"),
                }
            }
            turn.results_message(None);
            assert_eq!(turn.next(), Next::Ask);
            assert_eq!(batches.join(" "), expected, "{names}");
        };
        check("read", "0");
        check("read read read", "0+1+2");
        check("bash bash", "0 1");
        check("read bash read read bash read", "0 1 2+3 4 5");
        // What is answered without running changes nothing.
        check("nonsense read bash nonsense", "0+1 2 3");
    }

    #[test]
    fn calls_above_the_limit_are_refused() {
        let limits = TurnLimits {
            max_calls_per_step: 2,
            ..TurnLimits::default()
        };
        let turn = calling("bash bash bash bash", limits);
        let refused: Vec<bool> = turn.calls.iter().map(|call| call.refusal.is_some()).collect();
        assert_eq!(refused, [false, false, true, true]);
    }

    #[test]
    fn the_step_limit_ends_the_turn_before_a_request() {
        let mut turn = turn(TurnLimits {
            max_steps: 2,
            ..TurnLimits::default()
        });
        for step in 1..=2 {
            assert_eq!(turn.next(), Next::Ask);
            assert_eq!(turn.begin_step(), step);
        }
        let Next::End(TurnResult::Failed(problem)) = turn.next() else {
            panic!("{:?}", turn.next())
        };
        assert_eq!(problem.code, "step_limit");
    }

    #[test]
    fn calls_get_ids_and_names_that_can_be_sent_again() {
        let mut used = HashSet::from(["old".to_owned(), "call_3_7".to_owned()]);
        let mut check = |id: &str, name: &str, position, expected: (&str, &str)| {
            let call = replayable(call(id, name, "{}"), 3, position, &mut used);
            assert_eq!((call.id.as_str(), call.name.as_str()), expected);
        };
        check("new", "read", 0, ("new", "read"));
        check("new", "read", 1, ("call_3_1", "read"));
        check("old", "read", 2, ("call_3_2", "read"));
        check("", "", 3, ("call_3_3", "_"));
        check("call_3_3", "läs mig", 4, ("call_3_4", "l_s_mig"));
        check("", "mcp__a-b", 7, ("call_3_7x", "mcp__a-b"));
        check("x", &"é".repeat(100), 8, ("x", &"_".repeat(64)));
    }

    #[test]
    fn a_journal_without_a_prompt_is_no_turn() {
        let resumed = |journal: &[JournalEntry]| {
            let fresh_id = || ItemId::from_bits(0);
            Turn::resumed(Vec::new(), journal, TurnLimits::default(), fresh_id).is_some()
        };
        assert!(!resumed(&[]));
        assert!(!resumed(&[JournalEntry::ModelRequested { step: 1 }]));
        assert!(resumed(&[JournalEntry::Message {
            message: text(Role::User, "Do it.")
        }]));
    }

    #[test]
    fn entries_of_unknown_calls_are_passed_over() {
        let journal = [
            JournalEntry::Message {
                message: text(Role::User, "Do it."),
            },
            JournalEntry::ToolCallStarted {
                call_id: "nowhere".into(),
                item_id: ItemId::from_bits(1),
            },
            JournalEntry::ToolCallEnded {
                call_id: "nowhere".into(),
                result: history::result("nowhere".into(), "fine", false),
            },
        ];
        let fresh_id = || ItemId::from_bits(0);
        let (turn, cut) =
            Turn::resumed(Vec::new(), &journal, TurnLimits::default(), fresh_id).expect("a turn");
        assert_eq!(turn.next(), Next::Ask);
        assert_eq!(cut, []);
    }
}
