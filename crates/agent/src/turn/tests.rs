//! Cases of what a turn does next.

use super::*;
use greenroom_protocol::id::ItemId;

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
    let (turn, cut) = Turn::resumed(Vec::new(), &journal, TurnLimits::default(), fresh_id).expect("a turn");
    assert_eq!(turn.next(), Next::Ask);
    assert_eq!(cut, []);
}
