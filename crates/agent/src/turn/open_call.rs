//! The calls of the last answer: which may run, and in which form they are sent again. Pure.

use crate::tools::{self, Access};
use greenroom_llm::conversation::{Block, ToolCall};
use greenroom_protocol::id::ItemId;
use std::collections::{HashSet, VecDeque};

/// Largest arguments of a call, in bytes; they are replayed with every later request.
const MAX_ARGUMENTS_BYTES: usize = 1024 * 1024;

/// A call of the last answer.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenCall {
    pub call: ToolCall,
    /// The item it is shown as.
    pub item_id: ItemId,
    pub(super) access: Access,
    /// An answer that stands before the call ran: too many calls, arguments too large.
    pub refusal: Option<String>,
    pub(super) result: Option<Block>,
    pub(super) is_started: bool,
}

impl OpenCall {
    /// Whether nothing is lost when it is left in the middle.
    pub fn is_read(&self) -> bool {
        self.access == Access::Reads
    }
}

/// The calls of an answer; those that will not run have a refusal.
pub(super) fn opened(calls: Vec<(ItemId, ToolCall)>, max_calls: u32) -> VecDeque<OpenCall> {
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

pub(super) fn is_too_large(call: &ToolCall) -> bool {
    call.arguments_json.len() > MAX_ARGUMENTS_BYTES
}

/// The same call with an id and a name that every provider takes back.
pub(super) fn replayable(call: ToolCall, step: u32, position: usize, used: &mut HashSet<String>) -> ToolCall {
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
