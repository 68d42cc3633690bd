//! Cases of `chat::decode`, shaped like recorded streams of OpenAI and of servers that differ from it.

use crate::conversation::{Block, Opaque, StopReason, StreamEvent, TokenUsage, ToolCall, WireFormat};
use crate::failure::FailureKind;
use crate::wire::testing::{blocks, check, check_fails};
use serde_json::{Value, json};

const FORMAT: WireFormat = WireFormat::OpenaiChat;

fn stream(chunks: &[Value]) -> String {
    let frames: String = chunks.iter().map(|data| format!("data: {data}\n\n")).collect();
    frames + "data: [DONE]\n\n"
}

fn delta(delta: Value) -> Value {
    json!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}], "usage": null})
}

fn end(reason: &str) -> Value {
    json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
}

fn usage() -> Value {
    json!({"choices": [], "usage": {"prompt_tokens": 50, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 20}}})
}

fn call_delta(call: Value) -> Value {
    delta(json!({"tool_calls": [call]}))
}

fn call(id: &str, arguments: &str) -> Block {
    Block::ToolCall(ToolCall {
        id: id.to_owned(),
        name: "read".to_owned(),
        arguments_json: arguments.to_owned(),
    })
}

fn reasoning(field: &str, text: &str) -> Block {
    Block::Reasoning {
        text: text.to_owned(),
        opaque: Some(Opaque {
            format: FORMAT,
            json: json!({ field: text }),
        }),
    }
}

fn text(text: &str) -> Block {
    Block::Text {
        text: text.to_owned(),
    }
}

#[test]
fn reasoning_text_and_parallel_calls() {
    let stream = stream(&[
        delta(json!({"role": "assistant", "content": ""})),
        delta(json!({"reasoning_content": "Hm, "})),
        delta(json!({"reasoning_content": "ü.", "content": null})),
        delta(json!({"content": "I "})),
        delta(json!({"content": "read."})),
        call_delta(
            json!({"index": 0, "id": "a", "type": "function", "function": {"name": "read", "arguments": ""}}),
        ),
        call_delta(
            json!({"index": 1, "id": "b", "type": "function", "function": {"name": "read", "arguments": "{bro"}}),
        ),
        call_delta(json!({"index": 0, "function": {"arguments": "{\"path\":\"a\"}"}})),
        call_delta(json!({"index": 1, "function": {"arguments": "ken"}})),
        end("tool_calls"),
        usage(),
    ]);
    let events = check(FORMAT, &stream);
    assert_eq!(
        blocks(&events),
        [
            reasoning("reasoning_content", "Hm, ü."),
            text("I read."),
            call("a", "{\"path\":\"a\"}"),
            call("b", "{broken"),
        ]
    );
    let usage = TokenUsage {
        input_tokens: 30,
        output_tokens: 5,
        cache_read_tokens: 20,
        cache_write_tokens: 0,
    };
    let stop_reason = StopReason::ToolCalls;
    assert_eq!(events.last(), Some(&StreamEvent::Finished { stop_reason, usage }));
}

#[test]
fn servers_that_differ_are_understood() {
    // All calls numbered 0, whole at once, and `stop` as the reason.
    let numbered_alike = stream(&[
        call_delta(json!({"index": 0, "id": "a", "function": {"name": "read", "arguments": "{}"}})),
        call_delta(json!({"index": 0, "id": "b", "function": {"name": "read", "arguments": {"path": "x"}}})),
        end("stop"),
    ]);
    let events = check(FORMAT, &numbered_alike);
    assert_eq!(blocks(&events), [call("a", "{}"), call("b", "{\"path\":\"x\"}")]);
    assert!(matches!(
        events.last(),
        Some(StreamEvent::Finished {
            stop_reason: StopReason::ToolCalls,
            ..
        })
    ));
    // Not numbered at all, continued without an id; `reasoning`; content in parts; text behind a call.
    let unnumbered = stream(&[
        delta(json!({"reasoning": "Hm."})),
        delta(json!({"content": [{"type": "text", "text": "I read."}]})),
        call_delta(json!({"id": "a", "function": {"name": "read", "arguments": "{"}})),
        call_delta(json!({"function": {"arguments": "}"}})),
        delta(json!({"content": "After."})),
        end("tool_calls"),
    ]);
    assert_eq!(
        blocks(&check(FORMAT, &unnumbered)),
        [
            reasoning("reasoning", "Hm."),
            text("I read."),
            call("a", "{}"),
            text("After.")
        ]
    );
}

#[test]
fn a_call_without_an_id_gets_one() {
    let chunk = call_delta(json!({"index": 0, "function": {"name": "read", "arguments": "{}"}}));
    let mut decoder = super::Decoder::default();
    let frame = crate::sse::Event {
        name: String::new(),
        data: chunk.to_string(),
    };
    let events = decoder.push(&frame).unwrap();
    let StreamEvent::BlockStarted {
        kind: crate::conversation::BlockKind::ToolCall { id, .. },
        ..
    } = &events[0]
    else {
        panic!("{events:?}");
    };
    assert!(id.starts_with("call_") && id.len() > 20, "{id}");
}

#[test]
fn stop_reasons() {
    for (word, expected) in [
        ("stop", StopReason::EndTurn),
        ("length", StopReason::MaxOutputTokens),
        ("content_filter", StopReason::Refusal),
        ("moon", StopReason::Other("moon".to_owned())),
    ] {
        let events = check(FORMAT, &stream(&[delta(json!({"content": "x"})), end(word)]));
        assert!(
            matches!(events.last(), Some(StreamEvent::Finished { stop_reason, .. }) if *stop_reason == expected)
        );
    }
    let refused = stream(&[delta(json!({"refusal": "No."})), end("stop")]);
    let events = check(FORMAT, &refused);
    assert!(matches!(
        events.last(),
        Some(StreamEvent::Finished {
            stop_reason: StopReason::Refusal,
            ..
        })
    ));
}

#[test]
fn broken_streams_fail_by_kind() {
    for (frames, expected) in [
        (String::new(), FailureKind::Truncated),
        (format!("data: {}\n\n", end("stop")), FailureKind::Truncated),
        ("data: [DONE]\n\n".to_owned(), FailureKind::Malformed),
        (stream(&[delta(json!({"content": "x"}))]), FailureKind::Malformed),
        (
            stream(&[call_delta(json!({"index": 0, "id": "a"}))]),
            FailureKind::Malformed,
        ),
        (
            stream(&[json!({"error": {"message": "x", "code": 503}})]),
            FailureKind::Overloaded,
        ),
        (
            stream(&[json!({"error": "the model crashed"})]),
            FailureKind::Overloaded,
        ),
        ("data: {\"choices\n\n".to_owned(), FailureKind::Malformed),
    ] {
        check_fails(FORMAT, &frames, expected);
    }
}
