//! Cases of `responses::decode`, shaped like recorded streams.

use crate::conversation::{Block, Opaque, StopReason, StreamEvent, TokenUsage, ToolCall, WireFormat};
use crate::failure::FailureKind;
use crate::wire::testing::{blocks, check, check_fails};
use serde_json::{Value, json};

const FORMAT: WireFormat = WireFormat::OpenaiResponses;

fn stream(events: &[Value]) -> String {
    events
        .iter()
        .map(|data| format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap()))
        .collect()
}

fn created() -> Value {
    json!({"type": "response.created", "response": {"id": "resp_1", "output": []}})
}

fn added(index: u64, item: &Value) -> Value {
    json!({"type": "response.output_item.added", "output_index": index, "item": item})
}

fn done(index: u64, item: &Value) -> Value {
    json!({"type": "response.output_item.done", "output_index": index, "item": item})
}

fn delta(kind: &str, index: u64, delta: &str) -> Value {
    json!({"type": kind, "output_index": index, "delta": delta})
}

fn call_item(id: &str, arguments: &str) -> Value {
    json!({"type": "function_call", "id": format!("fc_{id}"), "call_id": id, "name": "read", "arguments": arguments})
}

fn message_item(text: &str) -> Value {
    json!({"type": "message", "id": "msg_1", "role": "assistant", "content": [{"type": "output_text", "text": text}]})
}

fn completed(output: Value) -> Value {
    json!({"type": "response.completed", "response": {"output": output, "usage": {
        "input_tokens": 100, "input_tokens_details": {"cached_tokens": 60}, "output_tokens": 7}}})
}

fn call(id: &str, arguments: &str) -> Block {
    Block::ToolCall(ToolCall {
        id: id.to_owned(),
        name: "read".to_owned(),
        arguments_json: arguments.to_owned(),
    })
}

fn last_reason(events: &[StreamEvent]) -> StopReason {
    match events.last() {
        Some(StreamEvent::Finished { stop_reason, .. }) => stop_reason.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn reasoning_text_and_parallel_calls() {
    let reasoning = json!({"type": "reasoning", "id": "rs_1", "encrypted_content": "enc", "summary": [
        {"type": "summary_text", "text": "First."}, {"type": "summary_text", "text": "Then."}]});
    let text = stream(&[
        created(),
        json!({"type": "response.in_progress", "response": {}}),
        added(0, &json!({"type": "reasoning", "id": "rs_1", "summary": []})),
        json!({"type": "response.reasoning_summary_part.added", "output_index": 0, "summary_index": 0}),
        delta("response.reasoning_summary_text.delta", 0, "First."),
        json!({"type": "response.reasoning_summary_part.added", "output_index": 0, "summary_index": 1}),
        delta("response.reasoning_summary_text.delta", 0, "Then."),
        done(0, &reasoning),
        added(1, &json!({"type": "message", "id": "msg_1", "content": []})),
        json!({"type": "response.content_part.added", "output_index": 1}),
        delta("response.output_text.delta", 1, "I "),
        delta("response.output_text.delta", 1, "read."),
        json!({"type": "response.output_text.done", "output_index": 1, "text": "I read."}),
        done(1, &message_item("I read.")),
        added(2, &call_item("call_1", "")),
        added(3, &call_item("call_2", "")),
        delta("response.function_call_arguments.delta", 3, "{bro"),
        delta("response.function_call_arguments.delta", 2, "{\"path\":\"a\"}"),
        delta("response.function_call_arguments.delta", 3, "ken"),
        done(2, &call_item("call_1", "{\"path\":\"a\"}")),
        done(3, &call_item("call_2", "{broken")),
        json!({"type": "response.something.new"}),
        completed(json!([])),
    ]);
    let events = check(FORMAT, &text);
    let opaque = Some(Opaque {
        format: FORMAT,
        json: reasoning,
    });
    assert_eq!(
        blocks(&events),
        [
            Block::Reasoning {
                text: "First.\n\nThen.".to_owned(),
                opaque,
            },
            Block::Text {
                text: "I read.".to_owned()
            },
            call("call_1", "{\"path\":\"a\"}"),
            call("call_2", "{broken"),
        ]
    );
    let usage = TokenUsage {
        input_tokens: 40,
        output_tokens: 7,
        cache_read_tokens: 60,
        cache_write_tokens: 0,
    };
    let stop_reason = StopReason::ToolCalls;
    assert_eq!(events.last(), Some(&StreamEvent::Finished { stop_reason, usage }));
}

#[test]
fn servers_that_leave_events_out_still_answer() {
    // Nothing announced, everything in the end; and an item that never was done.
    let unknown = json!({"type": "web_search_call", "id": "ws_1"});
    let whole = stream(&[created(), completed(json!([unknown]))]);
    let events = check(FORMAT, &whole);
    let opaque = Opaque {
        format: FORMAT,
        json: unknown,
    };
    assert_eq!(blocks(&events), [Block::Unknown { opaque }]);
    let open = stream(&[
        created(),
        added(0, &call_item("call_1", "")),
        delta("response.function_call_arguments.delta", 0, "{}"),
        completed(json!([])),
    ]);
    assert_eq!(blocks(&check(FORMAT, &open)), [call("call_1", "{}")]);
}

#[test]
fn stop_reasons() {
    let incomplete = |reason: &str| json!({"type": "response.incomplete", "response": {"incomplete_details": {"reason": reason}}});
    let refusal = json!({"type": "message", "content": [{"type": "refusal", "refusal": "No."}]});
    for (events, expected) in [
        (vec![created(), completed(json!([]))], StopReason::EndTurn),
        (
            vec![created(), incomplete("max_output_tokens")],
            StopReason::MaxOutputTokens,
        ),
        (vec![created(), incomplete("content_filter")], StopReason::Refusal),
        (
            vec![created(), incomplete("moon")],
            StopReason::Other("moon".to_owned()),
        ),
        (
            vec![
                created(),
                added(0, &json!({"type": "message", "content": []})),
                delta("response.refusal.delta", 0, "No."),
                done(0, &refusal),
                completed(json!([])),
            ],
            StopReason::Refusal,
        ),
    ] {
        assert_eq!(last_reason(&check(FORMAT, &stream(&events))), expected);
    }
}

#[test]
fn broken_streams_fail_by_kind() {
    let failed = |code: &str| json!({"type": "response.failed", "response": {"error": {"code": code, "message": "x"}}});
    for (events, expected) in [
        (vec![], FailureKind::Truncated),
        (
            vec![created(), done(0, &message_item("whole"))],
            FailureKind::Truncated,
        ),
        (vec![created(), failed("server_error")], FailureKind::Overloaded),
        (
            vec![created(), failed("rate_limit_exceeded")],
            FailureKind::RateLimited,
        ),
        (
            vec![created(), failed("context_length_exceeded")],
            FailureKind::ContextTooLong,
        ),
        (
            vec![json!({"type": "error", "code": "server_error", "message": "x"})],
            FailureKind::Overloaded,
        ),
        (
            vec![json!({"type": "error", "error": {"type": "invalid_request_error"}})],
            FailureKind::InvalidRequest,
        ),
        (
            vec![created(), delta("response.output_text.delta", 0, "x")],
            FailureKind::Malformed,
        ),
        (vec![added(0, &json!({"id": "x"}))], FailureKind::Malformed),
        (
            vec![added(0, &json!({"type": "function_call", "name": "x"}))],
            FailureKind::Malformed,
        ),
    ] {
        check_fails(FORMAT, &stream(&events), expected);
    }
}
