//! Models and providers that do what they should not: the turn ends in good order, and what it leaves can be sent again.

use super::watched::WatchedWorkspace;
use super::*;
use greenroom_llm::failure::{FailureKind, ModelFailure};
use greenroom_protocol::client::event::ToolCallStatus;

fn world() -> World {
    World::new(WatchedWorkspace::default().with_file("a.txt", "A\n"))
}

fn failing(kind: FailureKind) -> ModelFailure {
    ModelFailure::new(kind, "so it is")
}

#[tokio::test]
async fn a_model_that_never_ends_meets_the_step_limit() {
    let mut world = world();
    world.limits.max_steps = 5;
    let model = model((0..100).map(|_| Answer::calls(&[("c", "list", "{}")])));
    let end = world.run(&model).await;
    assert_eq!(failure(&end), "step_limit");
    assert_eq!(model.requests().len(), 5);
    assert_eq!(end.usage.output_tokens, 25);
    next_request(&world.recorder.journal()).await;
}

#[tokio::test]
async fn of_a_thousand_calls_only_the_first_run() {
    let world = world();
    let ids: Vec<String> = (0..1000).map(|number| format!("c{number}")).collect();
    let calls: Vec<_> = ids
        .iter()
        .map(|id| (id.as_str(), "read", r#"{"path":"a.txt"}"#))
        .collect();
    let model = model([Answer::calls(&calls), Answer::text("Sorry.")]);
    assert_eq!(world.run(&model).await.result, TurnResult::Completed);
    let limit = TurnLimits::default().max_calls_per_step as usize;
    assert_eq!(world.workspace.began().len(), limit);
    let request = model.requests().remove(1);
    assert_valid(&request.messages);
    for (position, id) in ids.iter().enumerate() {
        let (text, is_error) = result_of(&request.messages, id);
        assert_eq!(is_error, position >= limit, "{id}: {text}");
        assert_eq!(
            text.contains("call again in the next one"),
            is_error,
            "{id}: {text}"
        );
    }
}

#[tokio::test]
async fn arguments_of_ten_megabytes_do_not_run_and_are_not_kept() {
    let world = world();
    let arguments = format!(r#"{{"path":"big.txt","content":"{}"}}"#, "é".repeat(5_000_000));
    let model = model([
        Answer::calls(&[
            ("big", "write", &arguments),
            ("small", "read", r#"{"path":"a.txt"}"#),
        ]),
        Answer::text("Smaller, then."),
    ]);
    assert_eq!(world.run(&model).await.result, TurnResult::Completed);
    assert_eq!(world.workspace.began(), ["read a.txt"]);
    let request = model.requests().remove(1);
    assert_valid(&request.messages);
    let (text, is_error) = result_of(&request.messages, "big");
    assert!(is_error && text.contains("larger than"), "{text}");
    let kept: usize = serde_json::to_vec(&world.recorder.journal()).unwrap().len();
    assert!(kept < 100_000, "the journal has {kept} bytes");
    let shown = serde_json::to_vec(&world.recorder.completed()).unwrap().len();
    assert!(shown < 200_000, "the items have {shown} bytes");
}

#[tokio::test]
async fn names_that_no_tool_has_are_answered_and_can_be_sent_again() {
    let world = world();
    let long = "a".repeat(1000);
    let names = [
        "",
        "läs",
        "rm -rf /",
        "read\n",
        "re\u{301}ad",
        "\0",
        "🦀",
        &long,
        "READ",
    ];
    let ids: Vec<String> = (0..names.len()).map(|number| format!("c{number}")).collect();
    let calls: Vec<_> = ids
        .iter()
        .zip(names)
        .map(|(id, name)| (id.as_str(), name, r#"{"path":"a.txt"}"#))
        .collect();
    let model = model([Answer::calls(&calls), Answer::text("Sorry.")]);
    assert_eq!(world.run(&model).await.result, TurnResult::Completed);
    assert_eq!(world.workspace.began(), Vec::<String>::new());
    let request = model.requests().remove(1);
    assert_valid(&request.messages);
    for call in calls_of(&request.messages[1]) {
        let is_plain = |character: char| character.is_ascii_alphanumeric() || "_-".contains(character);
        assert!(
            (1..=64).contains(&call.name.len()) && call.name.chars().all(is_plain),
            "{call:?}"
        );
        let (text, is_error) = result_of(&request.messages, &call.id);
        assert!(is_error && text.contains("there is no tool"), "{text}");
    }
    assert_eq!(world.shown_calls().len(), names.len());
}

#[tokio::test]
async fn ids_that_are_empty_or_used_again_are_told_apart() {
    let world = world();
    let read = r#"{"path":"a.txt"}"#;
    let model = model([
        Answer::calls(&[
            ("a", "read", read),
            ("a", "read", read),
            ("", "read", read),
            ("", "bash", r#"{"command":"ls"}"#),
            ("call_1_1", "read", read),
        ]),
        Answer::calls(&[("a", "read", read), ("", "read", read)]),
        Answer::text("Done."),
    ]);
    assert_eq!(world.run(&model).await.result, TurnResult::Completed);
    for request in model.requests() {
        assert_valid(&request.messages);
    }
    assert_eq!(world.workspace.began().len(), 7, "every call ran");
    let shown: Vec<_> = world.shown_calls().into_iter().map(|call| call.status).collect();
    assert_eq!(shown, [ToolCallStatus::Succeeded; 7]);
    next_request(&world.recorder.journal()).await;
}

#[tokio::test]
async fn arguments_that_are_not_json_are_answered() {
    let world = world();
    for (number, arguments) in [r#"{"path":"#, "[]", "null", "path=a.txt", "{\"path\":\"\u{0}\"}"]
        .iter()
        .enumerate()
    {
        let model = model([Answer::calls(&[("c", "read", arguments)]), Answer::text("Sorry.")]);
        assert_eq!(world.run(&model).await.result, TurnResult::Completed);
        let request = model.requests().remove(1);
        assert_valid(&request.messages);
        let (text, is_error) = result_of(&request.messages, "c");
        assert!(is_error && text.contains("JSON"), "{arguments}: {text}");
        let shown = world.shown_calls();
        assert_eq!(shown.len(), number + 1);
        assert_eq!(shown[number].status, ToolCallStatus::Failed);
        assert_eq!(shown[number].input, serde_json::Value::from(*arguments));
    }
}

#[tokio::test]
async fn an_empty_answer_ends_the_turn_and_says_so() {
    for answer in [
        Answer::of(vec![finished(StopReason::EndTurn)]),
        text_ending(" \n", StopReason::EndTurn),
        Answer::of(vec![finished(StopReason::ToolCalls)]),
    ] {
        let world = world();
        let model = model([answer]);
        assert_eq!(world.run(&model).await.result, TurnResult::Completed);
        assert_eq!(world.shown_notices(), ["model_said_nothing"]);
        assert_eq!(world.shown_messages(), Vec::<String>::new());
        next_request(&world.recorder.journal()).await;
    }
}

#[tokio::test]
async fn an_answer_at_its_limit_is_continued() {
    let world = world();
    let model = model([
        text_ending("One,", StopReason::MaxOutputTokens),
        text_ending("two,", StopReason::MaxOutputTokens),
        text_ending("three.", StopReason::EndTurn),
    ]);
    assert_eq!(world.run(&model).await.result, TurnResult::Completed);
    assert_eq!(world.shown_messages(), ["One,", "two,", "three."]);
    for request in model.requests() {
        assert_valid(&request.messages);
    }
}

#[tokio::test]
async fn an_answer_is_not_continued_for_ever() {
    for text in ["and", ""] {
        let world = world();
        let model = model((0..10).map(|_| text_ending(text, StopReason::MaxOutputTokens)));
        assert_eq!(failure(&world.run(&model).await), "model_output_limit");
        assert_eq!(model.requests().len(), 4);
        for request in model.requests() {
            assert_valid(&request.messages);
        }
        next_request(&world.recorder.journal()).await;
    }
}

#[tokio::test]
async fn a_refusal_fails_the_turn() {
    let world = world();
    let end = world
        .run(&model([text_ending("I will not.", StopReason::Refusal)]))
        .await;
    assert_eq!(failure(&end), "model_refused");
    assert_eq!(world.shown_messages(), ["I will not."]);
    next_request(&world.recorder.journal()).await;
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_asked_for_again_and_then_given_up() {
    let world = world();
    let broken = || Answer::of(half_text(0, "So it"));
    let model = model([broken(), broken(), broken(), Answer::text("never")]);
    assert_eq!(failure(&world.run(&model).await), "model_stream_truncated");
    assert_eq!(model.requests().len(), 3);
    let attempts: Vec<u32> = world
        .recorder
        .retries()
        .iter()
        .map(|retry| retry.attempt)
        .collect();
    assert_eq!(attempts, [1, 2]);
    assert_eq!(world.shown_messages(), Vec::<String>::new());
    next_request(&world.recorder.journal()).await;
}

#[tokio::test]
async fn a_stream_that_breaks_off_once_leaves_no_trace_in_the_answer() {
    let world = world();
    let mut events: Vec<_> = half_text(0, "Fa").into_iter().map(Ok).collect();
    events.push(Err(failing(FailureKind::TimedOut)));
    let model = model([Answer::Stream(events), text_ending("Right.", StopReason::EndTurn)]);
    assert_eq!(world.run(&model).await.result, TurnResult::Completed);
    assert_eq!(world.shown_messages(), ["Right."]);
    let requests = model.requests();
    assert_eq!(requests[0], requests[1], "the same question again");
}

#[tokio::test]
async fn what_failed_before_the_first_byte_is_not_tried_again() {
    let world = world();
    let failures = vec![failing(FailureKind::Overloaded), failing(FailureKind::Overloaded)];
    let model = model([
        Answer::Retry(failures, Box::new(Answer::Fail(failing(FailureKind::Overloaded)))),
        Answer::text("never"),
    ]);
    assert_eq!(failure(&world.run(&model).await), "model_overloaded");
    assert_eq!(model.requests().len(), 1);
    assert_eq!(world.recorder.retries().len(), 2, "those of the client alone");
}

#[tokio::test]
async fn what_will_not_get_better_fails_at_once() {
    for (kind, code) in [
        (FailureKind::Unauthorized, "model_unauthorized"),
        (FailureKind::InvalidRequest, "model_refused_request"),
        (FailureKind::Malformed, "model_stream_malformed"),
    ] {
        for answer in [
            Answer::Fail(failing(kind)),
            Answer::Stream(vec![Err(failing(kind))]),
        ] {
            let world = world();
            let model = model([answer, Answer::text("never")]);
            let end = world.run(&model).await;
            assert_eq!(failure(&end), code);
            let TurnResult::Failed(problem) = end.result else {
                panic!("failed")
            };
            assert!(problem.hint.is_some() && !problem.retryable, "{problem:?}");
            assert_eq!(model.requests().len(), 1);
            assert_eq!(world.recorder.retries(), []);
        }
    }
}

#[tokio::test]
async fn token_counts_that_cannot_be_do_not_break_the_turn() {
    let world = world();
    let greedy = |mut events: Vec<StreamEvent>| {
        events.push(StreamEvent::Finished {
            stop_reason: StopReason::MaxOutputTokens,
            usage: TokenUsage {
                input_tokens: u64::MAX,
                output_tokens: u64::MAX,
                cache_read_tokens: u64::MAX,
                cache_write_tokens: u64::MAX,
            },
        });
        Answer::of(events)
    };
    let model = model([greedy(text_block(0, "a")), text_ending("b", StopReason::EndTurn)]);
    let end = world.run(&model).await;
    assert_eq!(end.result, TurnResult::Completed);
    assert_eq!(end.usage.output_tokens, u64::MAX);
}

#[tokio::test]
async fn events_that_fit_no_block_are_passed_over() {
    let world = world();
    let mut events = vec![
        StreamEvent::TextDelta {
            index: 7,
            text: "nowhere".into(),
        },
        StreamEvent::BlockCompleted {
            index: 8,
            block: Block::Text {
                text: "nor here".into(),
            },
        },
    ];
    events.extend(half_text(1, "half"));
    events.extend(text_block(0, "Right."));
    events.push(finished(StopReason::EndTurn));
    let model = model([Answer::of(events)]);
    assert_eq!(world.run(&model).await.result, TurnResult::Completed);
    assert_eq!(world.shown_messages(), ["Right."]);
}

/// A conversation with an image, and what the model's provider was sent of it.
async fn with_an_image(answers: Vec<Answer>) -> (World, TurnEnd, Vec<bool>) {
    let world = world();
    world.recorder.keep("sha256:1", b"picture");
    let model = model(answers);
    let image = Block::KeptImage {
        media_type: "image/png".into(),
        digest: "sha256:1".into(),
    };
    let history = vec![
        Message {
            role: Role::User,
            blocks: vec![image],
        },
        Message {
            role: Role::Assistant,
            blocks: vec![Block::Text { text: "Seen.".into() }],
        },
    ];
    let input = world.input(model.clone(), history, Vec::new());
    let end = within_deadline(BuiltInDriver.run_turn(input)).await;
    let shown = model.requests().into_iter().map(|request| {
        let mut blocks = request.messages.into_iter().flat_map(|message| message.blocks);
        blocks.any(|block| matches!(block, Block::Image { .. }))
    });
    (world, end, shown.collect())
}

#[tokio::test]
async fn a_provider_that_takes_no_image_is_asked_without() {
    let refused = || Answer::Fail(failing(FailureKind::InvalidRequest));
    let list = || Answer::calls(&[("c", "list", "{}")]);
    let (world, end, shown) = with_an_image(vec![list(), refused(), list(), Answer::text("Done.")]).await;
    assert_eq!(end.result, TurnResult::Completed);
    // Once refused, it is not tried again in this turn.
    assert_eq!(shown, [true, true, false, false]);
    assert_eq!(world.shown_notices(), ["model_images_refused"]);
    // A request that is refused either way fails as it failed first.
    let (world, end, shown) = with_an_image(vec![refused(), refused()]).await;
    assert_eq!(failure(&end), "model_refused_request");
    assert_eq!(shown, [true, false]);
    assert_eq!(world.shown_notices(), Vec::<String>::new());
    // Whatever else goes wrong has nothing to do with images.
    let (_, end, shown) = with_an_image(vec![Answer::Fail(failing(FailureKind::Unauthorized))]).await;
    assert_eq!(failure(&end), "model_unauthorized");
    assert_eq!(shown, [true]);
}
