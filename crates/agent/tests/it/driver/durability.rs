//! Nothing happens before it is on disk, and nothing happens behind a journal that cannot be written.

use super::watched::WatchedWorkspace;
use super::*;

fn script() -> Vec<Answer> {
    vec![
        Answer::calls(&[
            ("c1", "read", r#"{"path":"a.txt"}"#),
            ("c2", "read", r#"{"path":"b.txt"}"#),
            ("c3", "bash", r#"{"command":"one"}"#),
        ]),
        Answer::calls(&[("c4", "open_pr", r#"{"title":"New","body":"It is new."}"#)]),
        Answer::text("Done."),
    ]
}

fn world(recorder: RecordingRecorder) -> World {
    let workspace = WatchedWorkspace::default()
        .with_file("a.txt", "A\n")
        .with_file("b.txt", "B\n");
    World {
        recorder: Arc::new(recorder),
        ..World::new(workspace)
    }
}

#[tokio::test]
async fn nothing_runs_behind_a_record_that_failed() {
    let whole = world(RecordingRecorder::default());
    assert_eq!(whole.run(&model(script())).await.result, TurnResult::Completed);
    let count = whole.recorder.records().len();
    assert!(count > 8, "{count}");
    for room in 0..count {
        let world = world(RecordingRecorder::failing_after(room));
        let model = model(script());
        let end = world.run(&model).await;
        assert_eq!(failure(&end), "journal_unwritable");
        assert_eq!(world.recorder.records().len(), room);
        let journal = world.recorder.journal();
        let asked = journal
            .iter()
            .filter(|entry| matches!(entry, JournalEntry::ModelRequested { .. }))
            .count();
        assert_eq!(
            model.requests().len(),
            asked,
            "room {room}: no request before its record"
        );
        let started: HashSet<&str> = journal
            .iter()
            .filter_map(|entry| match entry {
                JournalEntry::ToolCallStarted { call_id, .. } => Some(call_id.as_str()),
                _ => None,
            })
            .collect();
        let effects = world.workspace.began();
        for (id, effect) in [("c1", "read a.txt"), ("c2", "read b.txt"), ("c3", "exec one")] {
            let ran = effects.iter().any(|what| what == effect);
            assert_eq!(
                ran,
                started.contains(id),
                "room {room}: {id} runs behind its record"
            );
        }
        let opened = world.platform.requests().len();
        assert_eq!(opened == 1, started.contains("c4"), "room {room}");
    }
}

#[tokio::test]
async fn an_answer_is_on_disk_before_its_calls_begin() {
    let world = world(RecordingRecorder::default());
    world.run(&model(script())).await;
    let mut known = HashSet::new();
    for record in world.recorder.records() {
        for entry in &record.journal {
            if let JournalEntry::ToolCallStarted { call_id, .. } = entry {
                assert!(
                    known.contains(call_id),
                    "{call_id} begins in the record of its answer"
                );
            }
        }
        let messages = conversation(&record.journal);
        known.extend(messages.iter().flat_map(calls_of).map(|call| call.id.clone()));
    }
    assert_eq!(known.len(), 4);
}

#[tokio::test]
async fn the_model_is_asked_although_the_sandbox_never_comes() {
    let world = World::new(WatchedWorkspace::never_ready());
    let model = model([Answer::text("Nothing to do.")]);
    assert_eq!(world.run(&model).await.result, TurnResult::Completed);
    assert_eq!(model.requests().len(), 1);
    assert_eq!(world.workspace.all_began(), Vec::<String>::new());
}

#[tokio::test]
async fn calls_that_reach_no_sandbox_wait_for_none() {
    let world = World::new(WatchedWorkspace::never_ready());
    let model = model([
        Answer::calls(&[("c1", "nonsense", "{}"), ("c2", "read", "{")]),
        Answer::text("Sorry."),
    ]);
    assert_eq!(world.run(&model).await.result, TurnResult::Completed);
    assert_eq!(world.workspace.all_began(), Vec::<String>::new());
}

#[tokio::test]
async fn a_lost_sandbox_ends_the_turn_with_its_problem() {
    use greenroom_agent::fake::{MemoryWorkspace, Ran};
    use greenroom_protocol::client::problem::Problem;

    let lost = || Problem::transient("sandbox_lost", "The sandbox is gone.");
    let world = World::new(WatchedWorkspace::of(MemoryWorkspace::new(move |memory, _| {
        memory.lose(lost());
        Ran::exited(0, "")
    })));
    let model = model([Answer::calls(&[
        ("c1", "bash", r#"{"command":"one"}"#),
        ("c2", "read", r#"{"path":"a.txt"}"#),
        ("c3", "read", r#"{"path":"b.txt"}"#),
        ("c4", "bash", r#"{"command":"two"}"#),
    ])]);
    assert_eq!(failure(&world.run(&model).await), "sandbox_lost");
    let next = next_request(&world.recorder.journal()).await;
    for id in ["c2", "c3", "c4"] {
        let (text, is_error) = result_of(&next.messages, id);
        assert!(is_error && text.contains("the sandbox is gone"), "{id}: {text}");
    }
    assert_eq!(world.workspace.began(), ["exec one", "read a.txt", "read b.txt"]);
}
