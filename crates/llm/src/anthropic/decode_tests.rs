//! Cases of `anthropic::decode`, shaped like recorded streams.

use crate::conversation::{Block, Opaque, StopReason, StreamEvent, TokenUsage, ToolCall, WireFormat};
use crate::failure::FailureKind;
use crate::wire::testing::{blocks, check, check_fails};
use serde_json::{Value, json};

const FORMAT: WireFormat = WireFormat::AnthropicMessages;

/// Frames as the API writes them: the event's name repeats its type.
fn stream(events: &[Value]) -> String {
    events
        .iter()
        .map(|data| format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap()))
        .collect()
}

fn start() -> Value {
    json!({"type": "message_start", "message": {"id": "msg_1", "usage": {
        "input_tokens": 10, "cache_read_input_tokens": 200, "cache_creation_input_tokens": 30, "output_tokens": 1}}})
}

fn begin(index: u64, block: Value) -> Value {
    json!({"type": "content_block_start", "index": index, "content_block": block})
}

fn delta(index: u64, delta: Value) -> Value {
    json!({"type": "content_block_delta", "index": index, "delta": delta})
}

fn stop(index: u64) -> Value {
    json!({"type": "content_block_stop", "index": index})
}

fn end(reason: &str) -> [Value; 2] {
    let usage = json!({"output_tokens": 42, "input_tokens": null});
    [
        json!({"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage}),
        json!({"type": "message_stop"}),
    ]
}

fn opaque(json: Value) -> Opaque {
    Opaque { format: FORMAT, json }
}

fn call(id: &str, arguments: &str) -> Block {
    Block::ToolCall(ToolCall {
        id: id.to_owned(),
        name: "read".to_owned(),
        arguments_json: arguments.to_owned(),
    })
}

#[test]
fn reasoning_text_and_parallel_calls() {
    let [delta_end, stop_end] = end("tool_use");
    let text = stream(&[
        start(),
        json!({"type": "ping"}),
        begin(0, json!({"type": "thinking", "thinking": "", "signature": ""})),
        delta(0, json!({"type": "thinking_delta", "thinking": "Hm, "})),
        delta(0, json!({"type": "thinking_delta", "thinking": "ü."})),
        delta(0, json!({"type": "signature_delta", "signature": "ab"})),
        delta(0, json!({"type": "signature_delta", "signature": "c="})),
        stop(0),
        begin(1, json!({"type": "redacted_thinking", "data": "xyz"})),
        stop(1),
        begin(2, json!({"type": "text", "text": ""})),
        delta(2, json!({"type": "text_delta", "text": "I read."})),
        delta(2, json!({"type": "citations_delta", "citation": {}})),
        stop(2),
        begin(
            3,
            json!({"type": "tool_use", "id": "toolu_1", "name": "read", "input": {}}),
        ),
        begin(
            4,
            json!({"type": "tool_use", "id": "toolu_2", "name": "read", "input": {}}),
        ),
        delta(
            3,
            json!({"type": "input_json_delta", "partial_json": "{\"path\":"}),
        ),
        delta(4, json!({"type": "input_json_delta", "partial_json": "{broken"})),
        delta(3, json!({"type": "input_json_delta", "partial_json": " \"a\"}"})),
        stop(3),
        stop(4),
        json!({"type": "something_new", "data": 1}),
        delta_end,
        stop_end,
    ]);
    let events = check(FORMAT, &text);
    assert_eq!(
        blocks(&events),
        [
            Block::Reasoning {
                text: "Hm, ü.".to_owned(),
                opaque: Some(opaque(
                    json!({"type": "thinking", "thinking": "Hm, ü.", "signature": "abc="})
                )),
            },
            Block::Reasoning {
                text: String::new(),
                opaque: Some(opaque(json!({"type": "redacted_thinking", "data": "xyz"}))),
            },
            Block::Text {
                text: "I read.".to_owned()
            },
            call("toolu_1", r#"{"path": "a"}"#),
            call("toolu_2", "{broken"),
        ]
    );
    let usage = TokenUsage {
        input_tokens: 10,
        output_tokens: 42,
        cache_read_tokens: 200,
        cache_write_tokens: 30,
    };
    let stop_reason = StopReason::ToolCalls;
    assert_eq!(events.last(), Some(&StreamEvent::Finished { stop_reason, usage }));
}

#[test]
fn unknown_blocks_are_kept_with_their_input() {
    let [delta_end, stop_end] = end("end_turn");
    let text = stream(&[
        start(),
        begin(
            0,
            json!({"type": "server_tool_use", "id": "srv", "name": "web_search", "input": {}}),
        ),
        delta(
            0,
            json!({"type": "input_json_delta", "partial_json": "{\"query\": 1}"}),
        ),
        stop(0),
        begin(1, json!({"type": "web_search_tool_result", "content": [1]})),
        stop(1),
        begin(
            2,
            json!({"type": "tool_use", "id": "t", "name": "read", "input": {"path": "whole"}}),
        ),
        stop(2),
        delta_end,
        stop_end,
    ]);
    let server_call =
        json!({"type": "server_tool_use", "id": "srv", "name": "web_search", "input": {"query": 1}});
    assert_eq!(
        blocks(&check(FORMAT, &text)),
        [
            Block::Unknown {
                opaque: opaque(server_call)
            },
            Block::Unknown {
                opaque: opaque(json!({"type": "web_search_tool_result", "content": [1]})),
            },
            call("t", r#"{"path":"whole"}"#),
        ]
    );
}

#[test]
fn stop_reasons() {
    for (word, expected) in [
        ("end_turn", StopReason::EndTurn),
        ("stop_sequence", StopReason::EndTurn),
        ("tool_use", StopReason::ToolCalls),
        ("max_tokens", StopReason::MaxOutputTokens),
        ("refusal", StopReason::Refusal),
        ("pause_turn", StopReason::Other("pause_turn".to_owned())),
    ] {
        let [delta_end, stop_end] = end(word);
        let events = check(FORMAT, &stream(&[start(), delta_end, stop_end]));
        assert!(
            matches!(events.last(), Some(StreamEvent::Finished { stop_reason, .. }) if *stop_reason == expected)
        );
    }
}

#[test]
fn broken_streams_fail_by_kind() {
    let text = begin(0, json!({"type": "text", "text": ""}));
    let word = delta(0, json!({"type": "text_delta", "text": "a"}));
    let error = json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}});
    for (events, expected) in [
        (vec![], FailureKind::Truncated),
        (vec![start(), text.clone(), word.clone()], FailureKind::Truncated),
        (vec![start(), end("end_turn")[0].clone()], FailureKind::Truncated),
        (vec![start(), text.clone(), error], FailureKind::Overloaded),
        (vec![start(), word.clone()], FailureKind::Malformed),
        (vec![start(), stop(0)], FailureKind::Malformed),
        (vec![start(), text.clone(), text.clone()], FailureKind::Malformed),
        (
            vec![start(), begin(0, json!({"type": "tool_use", "name": "x"}))],
            FailureKind::Malformed,
        ),
        (
            vec![
                start(),
                text.clone(),
                delta(0, json!({"type": "input_json_delta", "partial_json": ""})),
            ],
            FailureKind::Malformed,
        ),
    ] {
        check_fails(FORMAT, &stream(&events), expected);
    }
    check_fails(
        FORMAT,
        "event: message_start\ndata: {\"type\":\n\n",
        FailureKind::Malformed,
    );
}
