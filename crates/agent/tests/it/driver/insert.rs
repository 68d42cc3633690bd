//! What people say to a turn while it runs.

use super::watched::WatchedWorkspace;
use super::*;

fn says(number: u128, text: &str) -> Prompt {
    Prompt {
        id: PromptId::from_bits(number),
        author: Person {
            id: PersonId::from_bits(2),
            name: "Grace".into(),
            email: "grace@example.com".into(),
        },
        text: text.into(),
        images: Vec::new(),
        model: None,
        delivery: Delivery::Insert,
        queued_at_ms: 0,
    }
}

fn script() -> Vec<Answer> {
    vec![
        Answer::calls(&[("c1", "read", r#"{"path":"a.txt"}"#)]),
        Answer::calls(&[("c2", "read", r#"{"path":"a.txt"}"#)]),
        Answer::text("Done."),
    ]
}

fn world() -> World {
    World::new(WatchedWorkspace::default().with_file("a.txt", "A\n"))
}

/// What each message of a request holds, results as their call.
fn said(request: &ModelRequest) -> Vec<String> {
    let block = |block: &Block| match block {
        Block::Text { text } => text.clone(),
        Block::ToolCall(call) => call.id.clone(),
        Block::ToolResult { call_id, .. } => format!("result of {call_id}"),
        _ => "?".to_owned(),
    };
    let message = |message: &Message| message.blocks.iter().map(block).collect::<Vec<_>>().join(", ");
    request.messages.iter().map(message).collect()
}

/// What was said, wherever.
fn parts(said: &[String]) -> Vec<String> {
    let mut parts: Vec<_> = said
        .iter()
        .flat_map(|message| message.split(", "))
        .map(str::to_owned)
        .collect();
    parts.sort();
    parts
}

#[tokio::test]
async fn it_is_heard_behind_the_results_of_the_step_and_stays() {
    let world = world();
    world.recorder.insert(says(2, "Leave the tests alone."));
    world.recorder.insert(says(3, "And be quick."));
    let model = model(script());
    let end = world.run(&model).await;
    assert_eq!(end.result, TurnResult::Completed);
    let requests = model.requests();
    assert_eq!(
        said(&requests[0]),
        ["Do it."],
        "the first request waits for nobody"
    );
    let heard = [
        "Do it.",
        "c1",
        "result of c1",
        "Leave the tests alone., And be quick.",
    ];
    assert_eq!(said(&requests[1]), heard);
    assert_eq!(
        said(&requests[2]),
        [&heard[..], &["c2", "result of c2"]].concat(),
        "what was said before does not change"
    );
}

#[tokio::test]
async fn a_turn_that_is_cut_after_any_record_has_heard_it_once() {
    let whole = world();
    whole.recorder.insert(says(2, "Leave the tests alone."));
    let model_of_whole = model(script());
    whole.run(&model_of_whole).await;
    let expected = said(&model_of_whole.requests()[2]);
    let records = whole.recorder.records();
    let hears = |journal: &[JournalEntry]| {
        journal.iter().any(|entry| matches!(entry, JournalEntry::Message { message } if texts(&message.blocks).join("") == "Leave the tests alone."))
    };
    let mut heard_before = 0;
    for cut in 1..records.len() {
        let journal: Vec<_> = records[..cut]
            .iter()
            .flat_map(|record| record.journal.clone())
            .collect();
        let world = world();
        // The server gives it again only if it was not on disk.
        match hears(&journal) {
            true => heard_before += 1,
            false => world.recorder.insert(says(2, "Leave the tests alone.")),
        }
        let given = conversation(&journal)
            .iter()
            .filter(|message| message.role == Role::Assistant)
            .count();
        let model = model(script().into_iter().skip(given));
        let end = world.resume(&model, journal).await;
        assert_eq!(end.result, TurnResult::Completed, "cut behind record {cut}");
        let Some(last) = model.requests().last().map(said) else {
            // The last answer was there.
            continue;
        };
        let times = last
            .iter()
            .filter(|text| text.contains("Leave the tests"))
            .count();
        assert_eq!(times, 1, "cut behind record {cut}: {last:?}");
        // If the first request was cut, it stands behind the prompt, before the results.
        assert_eq!(parts(&last), parts(&expected), "cut behind record {cut}");
    }
    assert!(heard_before > 0);
}
