//! What runs beside what, and what the model is told in which request.

use super::watched::{Hold, WatchedWorkspace};
use super::*;
use tokio::sync::Barrier;

#[tokio::test]
async fn reads_run_beside_each_other() {
    let barrier = Arc::new(Barrier::new(2));
    let workspace = WatchedWorkspace::default()
        .with_file("left", "L\n")
        .with_file("right", "R\n")
        .holding("read left", Hold::Barrier(barrier.clone()))
        .holding("read right", Hold::Barrier(barrier));
    let world = World::new(workspace);
    let model = model([
        Answer::calls(&[
            ("l", "read", r#"{"path":"left"}"#),
            ("r", "read", r#"{"path":"right"}"#),
        ]),
        Answer::text("Both."),
    ]);
    assert_eq!(world.run(&model).await.result, TurnResult::Completed);
    let request = model.requests().remove(1);
    assert_valid(&request.messages);
    assert!(result_of(&request.messages, "l").0.contains('L'));
    assert!(result_of(&request.messages, "r").0.contains('R'));
}

#[tokio::test]
async fn changes_run_alone_and_in_order() {
    let workspace = WatchedWorkspace::default()
        .with_file("a", "A\n")
        .with_file("b", "B\n");
    let world = World::new(workspace);
    let model = model([
        Answer::calls(&[
            ("1", "read", r#"{"path":"a"}"#),
            ("2", "bash", r#"{"command":"one"}"#),
            ("3", "bash", r#"{"command":"two"}"#),
            ("4", "read", r#"{"path":"a"}"#),
            ("5", "read", r#"{"path":"b"}"#),
            ("6", "bash", r#"{"command":"three"}"#),
        ]),
        Answer::text("Done."),
    ]);
    assert_eq!(world.run(&model).await.result, TurnResult::Completed);
    let log = world.workspace.log();
    let looks = |what: &&String| !what.ends_with(".md");
    let mut log: Vec<&str> = log.iter().filter(looks).map(String::as_str).collect();
    // Reads that run beside each other may end in any order.
    log[8..10].sort_unstable();
    assert_eq!(
        log,
        [
            "+ read a",
            "- read a",
            "+ exec one",
            "- exec one",
            "+ exec two",
            "- exec two",
            "+ read a",
            "+ read b",
            "- read a",
            "- read b",
            "+ exec three",
            "- exec three",
        ]
    );
    let results = conversation(&world.recorder.journal());
    assert_eq!(result_ids(&results[2]), ["1", "2", "3", "4", "5", "6"]);
}

#[tokio::test]
async fn instructions_stand_once_in_the_last_result_of_the_first_step() {
    let workspace = WatchedWorkspace::default()
        .with_file("AGENTS.md", "Be kind.\n")
        .with_file("CLAUDE.md", "Be brief.\n");
    let world = World::new(workspace);
    let step = |id| {
        Answer::calls(&[
            (id, "bash", r#"{"command":"ls"}"#),
            ("", "bash", r#"{"command":"ls"}"#),
        ])
    };
    let model = model([step("a"), step("b"), step("c"), Answer::text("Done.")]);
    assert_eq!(world.run(&model).await.result, TurnResult::Completed);
    let requests = model.requests();
    assert_eq!(requests.len(), 4);
    assert!(!format!("{:?}", requests[0].messages).contains("repository_instructions"));
    for request in &requests[1..] {
        let all = format!("{:?}", request.messages);
        assert_eq!(all.matches("<repository_instructions>").count(), 1);
        let Some(Block::ToolResult { content, .. }) = request.messages[2].blocks.last() else {
            panic!("{:#?}", request.messages)
        };
        let last = texts(content).pop().unwrap();
        assert!(last.starts_with("<repository_instructions>"), "{last}");
        assert!(last.contains("Be kind.") && last.contains("Be brief."), "{last}");
    }
    // The next turn of the session has them in its history.
    let next = World::new(WatchedWorkspace::default().with_file("AGENTS.md", "Be kind.\n"));
    let later = super::model([step("d"), Answer::text("Done.")]);
    let history = conversation(&world.recorder.journal());
    let end = within_deadline(BuiltInDriver.run_turn(next.input(later.clone(), history, Vec::new()))).await;
    assert_eq!(end.result, TurnResult::Completed);
    let all = format!("{:?}", later.requests()[1].messages);
    assert_eq!(all.matches("<repository_instructions>").count(), 1);
}

#[tokio::test]
async fn a_read_that_finds_nothing_brings_the_instructions_too() {
    let world = World::new(WatchedWorkspace::default().with_file("CLAUDE.md", "Be brief.\n"));
    let model = model([
        Answer::calls(&[("x", "nonsense", "{}")]),
        Answer::calls(&[("r", "read", r#"{"path":"missing"}"#)]),
        Answer::text("Done."),
    ]);
    assert_eq!(world.run(&model).await.result, TurnResult::Completed);
    let request = model.requests().remove(2);
    assert!(!result_of(&request.messages, "x").0.contains("Be brief."));
    assert!(result_of(&request.messages, "r").0.contains("Be brief."));
}

#[tokio::test]
async fn requests_of_a_turn_share_their_beginning_to_the_byte() {
    let workspace = WatchedWorkspace::default().with_file("AGENTS.md", "Be kind.\n");
    let world = World::new(workspace);
    let mut answers: Vec<Answer> = (0..5)
        .map(|_| Answer::calls(&[("c", "bash", r#"{"command":"ls"}"#)]))
        .collect();
    answers.insert(2, Answer::calls(&[("x", "nonsense", "{")]));
    answers.push(Answer::text("Done."));
    let model = model(answers);
    assert_eq!(world.run(&model).await.result, TurnResult::Completed);
    let requests = model.requests();
    assert_eq!(requests.len(), 7);
    let bytes = |request: &ModelRequest| serde_json::to_string(&(&request.system, &request.tools)).unwrap();
    for pair in requests.windows(2) {
        assert_eq!(bytes(&pair[0]), bytes(&pair[1]));
        let before = &pair[0].messages;
        assert_eq!(
            before[..],
            pair[1].messages[..before.len()],
            "what was sent stays as it was"
        );
    }
}
