//! Makes a conversation that every provider takes of whatever the journal holds: turns that failed or were stopped leave
//! calls without results and messages of one role beside each other. Pure.

use greenroom_llm::conversation::{Block, Message, Role};
use std::collections::HashSet;

/// What a call is answered with when nobody knows how it went.
pub const INTERRUPTED: &str = "interrupted; it may or may not have run. Check before you do it again.";

/// The same conversation, valid: roles alternate (but for results and what a person says behind them), the user speaks first, and each call has exactly one result, in the
/// message behind it and before other blocks.
pub fn valid(messages: &[Message]) -> Vec<Message> {
    let mut out: Vec<Message> = Vec::new();
    let mut open: Vec<String> = Vec::new();
    for message in messages {
        match message.role {
            Role::Assistant => {
                answer_open_calls(&mut out, &mut open);
                if out.is_empty() || message.blocks.is_empty() {
                    continue;
                }
                open = call_ids(message);
                push(&mut out, message.clone());
            }
            Role::User => {
                let mut own = message.clone();
                let answered: HashSet<String> = result_ids(&own).collect();
                // A result for a call that is not open would be refused.
                own.blocks.retain(|block| match block {
                    Block::ToolResult { call_id, .. } => open.contains(call_id),
                    _ => true,
                });
                let missing = results_of(&mut open, &answered);
                if has_results(&own) {
                    own.blocks.splice(0..0, missing);
                } else {
                    push(
                        &mut out,
                        Message {
                            role: Role::User,
                            blocks: missing,
                        },
                    );
                }
                push(&mut out, own);
            }
        }
    }
    answer_open_calls(&mut out, &mut open);
    out
}

/// Appends a message; one of the same role joins the last. Results stay apart from what a person says: every provider takes
/// that, and a prompt stays recognisable as one.
fn push(out: &mut Vec<Message>, message: Message) {
    if message.blocks.is_empty() {
        return;
    }
    let joins =
        |last: &&mut Message| last.role == message.role && !has_results(last) && !has_results(&message);
    match out.last_mut().filter(joins) {
        Some(last) => last.blocks.extend(message.blocks),
        None => out.push(message),
    }
}

fn answer_open_calls(out: &mut Vec<Message>, open: &mut Vec<String>) {
    let blocks = results_of(open, &HashSet::new());
    push(
        out,
        Message {
            role: Role::User,
            blocks,
        },
    );
}

fn results_of(open: &mut Vec<String>, answered: &HashSet<String>) -> Vec<Block> {
    open.drain(..)
        .filter(|id| !answered.contains(id))
        .map(|id| result(id, INTERRUPTED, true))
        .collect()
}

fn has_results(message: &Message) -> bool {
    message
        .blocks
        .iter()
        .any(|block| matches!(block, Block::ToolResult { .. }))
}

fn call_ids(message: &Message) -> Vec<String> {
    message
        .blocks
        .iter()
        .filter_map(|block| match block {
            Block::ToolCall(call) => Some(call.id.clone()),
            _ => None,
        })
        .collect()
}

fn result_ids(message: &Message) -> impl Iterator<Item = String> {
    message.blocks.iter().filter_map(|block| match block {
        Block::ToolResult { call_id, .. } => Some(call_id.clone()),
        _ => None,
    })
}

/// A result of one text.
pub fn result(call_id: String, text: &str, is_error: bool) -> Block {
    Block::ToolResult {
        call_id,
        content: vec![Block::Text {
            text: text.to_owned(),
        }],
        is_error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use greenroom_llm::conversation::ToolCall;

    fn said(role: Role, text: &str) -> Message {
        Message {
            role,
            blocks: vec![Block::Text { text: text.into() }],
        }
    }

    fn call(id: &str) -> Block {
        Block::ToolCall(ToolCall {
            id: id.into(),
            name: "read".into(),
            arguments_json: "{}".into(),
        })
    }

    /// One word per block: `u:` and `a:` messages, `?x` calls, `!x` results, `~x` results we made up.
    fn shown(messages: &[Message]) -> String {
        let block = |block: &Block| match block {
            Block::Text { text } => text.clone(),
            Block::ToolCall(call) => format!("?{}", call.id),
            Block::ToolResult { call_id, content, .. } => {
                let made_up = matches!(&content[..], [Block::Text { text }] if text == INTERRUPTED);
                format!("{}{call_id}", if made_up { '~' } else { '!' })
            }
            other => format!("{other:?}"),
        };
        messages
            .iter()
            .map(|message| {
                let role = if message.role == Role::User { "u:" } else { "a:" };
                let blocks: Vec<_> = message.blocks.iter().map(block).collect();
                format!("{role}{}", blocks.join(","))
            })
            .collect::<Vec<_>>()
            .join(" ")
    }

    fn check(messages: &[Message], expected: &str) {
        assert_eq!(shown(&valid(messages)), expected);
        assert_eq!(
            shown(&valid(&valid(messages))),
            expected,
            "valid conversations stay as they are"
        );
    }

    #[test]
    fn conversations_are_made_valid() {
        let calls = |ids: &[&str]| Message {
            role: Role::Assistant,
            blocks: ids.iter().map(|id| call(id)).collect(),
        };
        let results = |ids: &[&str]| Message {
            role: Role::User,
            blocks: ids
                .iter()
                .map(|id| result((*id).to_owned(), "fine", false))
                .collect(),
        };
        let user = |text| said(Role::User, text);
        let agent = |text| said(Role::Assistant, text);
        check(&[], "");
        check(&[user("hi"), agent("yo")], "u:hi a:yo");
        check(&[user("one"), user("two"), agent("yo")], "u:one,two a:yo");
        check(
            &[user("hi"), calls(&["1", "2"]), results(&["1", "2"])],
            "u:hi a:?1,?2 u:!1,!2",
        );
        check(
            &[user("hi"), calls(&["1", "2"]), results(&["2"]), user("go on")],
            "u:hi a:?1,?2 u:~1,!2 u:go on",
        );
        check(
            &[user("hi"), calls(&["1"]), user("stop that")],
            "u:hi a:?1 u:~1 u:stop that",
        );
        check(&[user("hi"), calls(&["1"])], "u:hi a:?1 u:~1");
        check(&[user("hi"), results(&["9"]), agent("yo")], "u:hi a:yo");
        check(&[agent("first")], "");
        check(&[user("hi"), agent("a"), agent("b")], "u:hi a:a,b");
    }
}
