//! Cases of the choice of steps.

use super::*;

const SCRIPT: &str = r#"
[[script]]
name = "greet"
prompt_matches = '(?i)greet (?<who>\w+)'
[[script.step]]
think = "Who is {{who}}?"
say = "Hello {{ 1 }}."
call = [{ tool = "read", arguments = { path = "{{who}}.md", lines = [1, "{{who}}"] } }, { tool = "bash", arguments_text = "{broken" }]
[[script.step]]
result_is_error = true
say = "It failed: {{result}}"
[[script.step]]
answer = 1
expect_result_contains = ["{{who}}", "known"]
say = "Done."

[[script]]
name = "flaky"
prompt_contains = "flaky"
[[script.step]]
fail = 429
times = 2
retry_after_ms = 7
say = "There."
"#;

fn text(text: &str) -> Block {
    Block::Text {
        text: text.to_owned(),
    }
}

fn user(blocks: Vec<Block>) -> Message {
    Message {
        role: Role::User,
        blocks,
    }
}

fn result(words: &str, is_error: bool) -> Message {
    user(vec![Block::ToolResult {
        call_id: "x".to_owned(),
        content: vec![text(words)],
        is_error,
    }])
}

fn player() -> Player {
    Player::new(Arc::new(Script::parse(SCRIPT).unwrap()), Options::default())
}

fn answer(messages: Vec<Message>) -> Result<Answer, ModelFailure> {
    player().answer(&ModelRequest {
        messages,
        ..ModelRequest::default()
    })
}

fn said(messages: Vec<Message>) -> String {
    texts(&answer(messages).unwrap().blocks)
}

#[test]
fn steps_follow_the_conversation_and_fill_placeholders() {
    let prompt = user(vec![text("please greet Ada")]);
    let first = answer(vec![prompt.clone()]).unwrap();
    let calls: Vec<_> = first
        .blocks
        .iter()
        .filter_map(|block| match block {
            Block::ToolCall(call) => Some((call.id.as_str(), call.arguments_json.as_str())),
            _ => None,
        })
        .collect();
    assert_eq!(texts(&first.blocks), "Hello Ada.");
    let [("scripted_0_0", filled), ("scripted_0_1", "{broken")] = calls.as_slice() else {
        panic!("{calls:?}")
    };
    // In which order the members come depends on features that other crates turn on.
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(filled).unwrap(),
        serde_json::json!({"path": "Ada.md", "lines": [1, "Ada"]})
    );
    let spoken = Message {
        role: Role::Assistant,
        blocks: first.blocks,
    };
    let turn = |words, is_error| vec![prompt.clone(), spoken.clone(), result(words, is_error)];
    assert_eq!(said(turn("Ada is known", false)), "Done.");
    assert_eq!(said(turn("no {{who}}", true)), "It failed: no {{who}}");
    // A second prompt begins again, with other ids.
    let mut again = turn("Ada is known", false);
    again.push(spoken);
    again.push(user(vec![text("greet Bob")]));
    let second = answer(again).unwrap();
    assert_eq!(texts(&second.blocks), "Hello Bob.");
    assert!(
        second
            .blocks
            .iter()
            .any(|block| matches!(block, Block::ToolCall(call) if call.id == "scripted_2_0"))
    );
}

#[test]
fn what_does_not_fit_is_said() {
    let spoken = Message {
        role: Role::Assistant,
        blocks: vec![text("x")],
    };
    let prompt = user(vec![text("greet Ada")]);
    for (messages, expected) in [
        (vec![], "holds no prompt"),
        (vec![user(vec![text("sing")])], "no script fits the prompt “sing”"),
        (
            vec![prompt.clone(), spoken.clone(), spoken.clone()],
            "`greet` has no step for answer 2",
        ),
        (
            vec![prompt, spoken, result("Eve is known", false)],
            "expected a tool result with “Ada” and got “Eve is known”",
        ),
    ] {
        let failure = answer(messages).unwrap_err();
        assert_eq!(failure.kind, FailureKind::ScriptExhausted);
        assert!(failure.message.contains(expected), "{}", failure.message);
    }
}

#[test]
fn failures_play_as_often_as_they_should_for_each_conversation() {
    let player = player();
    let request = |session: &str| ModelRequest {
        messages: vec![user(vec![text("flaky")])],
        cache_key: Some(session.to_owned()),
        ..ModelRequest::default()
    };
    for session in ["a", "b"] {
        let faults: Vec<_> = (0..4)
            .map(|_| player.answer(&request(session)).unwrap().fault)
            .collect();
        assert_eq!(
            faults,
            [Some(Fault::Status(429)), Some(Fault::Status(429)), None, None]
        );
    }
}
