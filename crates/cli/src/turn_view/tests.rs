//! Frames in, text out.

use super::*;
use greenroom_protocol::client::event::{EgressProtocol, Event};
use greenroom_protocol::id::{PersonId, PromptId, TurnId};
use serde_json::json;

fn event(body: EventBody) -> StreamFrame {
    StreamFrame::Event {
        event: Event {
            seq: 1,
            at_ms: 0,
            body,
        },
    }
}

fn item(number: u128, body: ItemBody) -> StreamFrame {
    let item = Item {
        id: ItemId::from_bits(number),
        body,
    };
    event(EventBody::ItemCompleted {
        turn_id: TurnId::from_bits(1),
        item,
    })
}

fn message(number: u128, text: &str) -> StreamFrame {
    item(
        number,
        ItemBody::Message {
            text: text.to_owned(),
        },
    )
}

fn delta(number: u128, offset: u64, text: &str) -> StreamFrame {
    StreamFrame::Delta {
        item_id: ItemId::from_bits(number),
        channel: DeltaChannel::Message,
        offset,
        text: text.to_owned(),
    }
}

fn call(status: ToolCallStatus, output: &str) -> StreamFrame {
    item(
        9,
        ItemBody::ToolCall(ToolCallItem {
            tool: "bash".to_owned(),
            summary: "make test".to_owned(),
            input: json!({}),
            status,
            output: output.to_owned(),
            duration_ms: Some(1_234),
        }),
    )
}

fn completed(outcome: TurnOutcome) -> StreamFrame {
    event(EventBody::TurnCompleted {
        turn_id: TurnId::from_bits(1),
        prompt_id: PromptId::from_bits(1),
        outcome,
        usage: greenroom_protocol::client::model::Usage::default(),
        sandbox: None,
    })
}

fn egress(verdict: EgressVerdict, count: u64, hint: Option<&str>) -> StreamFrame {
    event(EventBody::EgressDecided {
        turn_id: None,
        host: "example.com".to_owned(),
        port: 443,
        protocol: EgressProtocol::Connect,
        verdict,
        code: "not_allowed".to_owned(),
        reason: "is not allowed by this environment".to_owned(),
        hint: hint.map(ToOwned::to_owned),
        count,
    })
}

fn service(state: ServiceState, reason: &str) -> StreamFrame {
    event(EventBody::ServiceStateChanged {
        name: "db".to_owned(),
        state,
        reason: reason.to_owned(),
    })
}

#[test]
fn connections_and_services_are_quiet_lines() {
    check(
        &[
            egress(EgressVerdict::Allowed, 1, None),
            egress(EgressVerdict::Allowed, 9, None),
            egress(EgressVerdict::Refused, 1, Some("allow = [\"example.com\"]")),
            egress(EgressVerdict::Refused, 14, None),
        ],
        "\u{20} → example.com:443\n\
         \u{20} ⊘ example.com:443 is not allowed by this environment (allow = [\"example.com\"])\n\
         \u{20} ⊘ example.com:443 was refused 14 times\n",
    );
    check(
        &[
            service(ServiceState::Starting, "it has not answered yet"),
            service(ServiceState::Ready, ""),
            service(ServiceState::Failed, "it exited with 1"),
        ],
        "\u{20} ◦ service db is ready\n  ◦ service db failed: it exited with 1\n",
    );
}

#[test]
fn a_turn_tells_what_its_sandbox_used() {
    let frame = event(EventBody::TurnCompleted {
        turn_id: TurnId::from_bits(1),
        prompt_id: PromptId::from_bits(1),
        outcome: TurnOutcome::Completed,
        usage: greenroom_protocol::client::model::Usage::default(),
        sandbox: Some(SandboxUsage {
            cpu_ms: 12_345,
            peak_memory_bytes: 210 << 20,
            disk_bytes: 1,
        }),
    });
    check(
        &[frame],
        "✓ turn completed  0 tokens in, 0 out  12.3 s CPU, 210 MiB memory at most, 1 MiB on disk\n",
    );
}

#[track_caller]
fn check(frames: &[StreamFrame], expected: &str) {
    let mut view = TurnView::default();
    let text: String = frames
        .iter()
        .flat_map(|frame| view.apply(frame))
        .map(|span| span.text)
        .collect();
    assert_eq!(text, expected);
}

#[test]
fn a_message_is_shown_once_whether_it_streams_or_not() {
    check(&[message(1, "Hello.\n")], "Hello.\n");
    check(
        &[delta(1, 0, "Hel"), delta(1, 3, "lo."), message(1, "Hello.")],
        "Hello.\n",
    );
    check(&[delta(1, 0, "Hel"), message(1, "Hello.")], "Hello.\n");
    check(&[delta(1, 0, "Hello.\n"), message(1, "Hello.\n")], "Hello.\n");
    // After a reconnect the text so far comes again, from the start.
    check(
        &[delta(1, 0, "Hel"), delta(1, 0, "Hello"), message(1, "Hello.")],
        "Hello.\n",
    );
    // A gap: nothing out of order is shown, the complete item repairs it.
    check(
        &[delta(1, 0, "Hel"), delta(1, 9, "xx"), message(1, "Hello wo.xx")],
        "Hello wo.xx\n",
    );
    // An offset inside a character is passed over.
    check(&[delta(1, 0, "a"), delta(1, 0, "ü"), message(1, "ab")], "ab\n");
    check(&[message(1, "")], "");
}

#[test]
fn other_items_never_break_into_a_line() {
    check(
        &[
            delta(1, 0, "Looking"),
            call(ToolCallStatus::Succeeded, "fine"),
            message(1, "Looking around"),
        ],
        "Looking\n✓ bash make test  1.2 s\n  fine\n around\n",
    );
    check(
        &[
            delta(1, 0, "One"),
            delta(2, 0, "Two"),
            message(1, "One."),
            message(2, "Two."),
        ],
        "One.\nTwo.\n",
    );
}

#[test]
fn tool_output_is_bounded_and_keeps_both_ends() {
    let output: Vec<String> = (1..=30).map(|line| format!("line {line}")).collect();
    let expected = "✗ bash make test  1.2 s\n  line 1\n  line 2\n  line 3\n  … 20 lines …\n  line 24\n  line 25\n  line 26\n  \
                    line 27\n  line 28\n  line 29\n  line 30\n";
    check(&[call(ToolCallStatus::Failed, &output.join("\n"))], expected);
    let long = "ä".repeat(1000);
    let expected = format!("■ bash make test  1.2 s\n  {}…\n", "ä".repeat(LINE_CHARACTERS));
    check(&[call(ToolCallStatus::Interrupted, &long)], &expected);
}

#[test]
fn a_turn_says_how_it_ended() {
    check(
        &[completed(TurnOutcome::Completed)],
        "✓ turn completed  0 tokens in, 0 out\n",
    );
    check(
        &[completed(TurnOutcome::Stopped {
            by: PersonId::from_bits(1),
        })],
        "■ turn stopped  0 tokens in, 0 out\n",
    );
    let problem =
        Problem::permanent("model_refused", "The model refused the key.").with_hint("Check the key.");
    check(
        &[completed(TurnOutcome::Failed { problem })],
        "✗ turn failed  0 tokens in, 0 out\n! model_refused: The model refused the key. (Check the key.)\n",
    );
}

#[test]
fn kinds_of_a_later_version_are_passed_over() {
    check(
        &[
            StreamFrame::Unknown(json!({"frame": "new"})),
            event(EventBody::Unknown(json!({"type": "new"}))),
        ],
        "",
    );
}
