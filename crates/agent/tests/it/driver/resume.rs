//! A turn cut anywhere goes on from its journal: nothing runs twice, nothing is lost, nothing is shown twice.

use super::watched::WatchedWorkspace;
use super::*;
use greenroom_agent::fake::Ran;
use greenroom_agent::world::Record;
use greenroom_protocol::client::event::{Item, ToolCallStatus};
use std::collections::HashMap;

/// Each call of the scripted turn and what it does to the world.
const EFFECTS: [(&str, &str); 5] = [
    ("c1", "read a.txt"),
    ("c2", "read b.txt"),
    ("c3", "write new.txt"),
    ("c4", "exec cargo test"),
    ("c5", "pull request"),
];

fn script() -> Vec<Answer> {
    let mut look = text_block(0, "I look first.");
    for (index, (id, path)) in [(1, ("c1", "a.txt")), (2, ("c2", "b.txt"))] {
        look.extend([
            StreamEvent::BlockStarted {
                index,
                kind: BlockKind::ToolCall {
                    id: id.into(),
                    name: "read".into(),
                },
            },
            StreamEvent::BlockCompleted {
                index,
                block: Block::ToolCall(ToolCall {
                    id: id.into(),
                    name: "read".into(),
                    arguments_json: format!(r#"{{"path":"{path}"}}"#),
                }),
            },
        ]);
    }
    look.push(finished(StopReason::ToolCalls));
    vec![
        Answer::of(look),
        Answer::calls(&[
            ("c3", "write", r#"{"path":"new.txt","content":"new\n"}"#),
            ("c4", "bash", r#"{"command":"cargo test"}"#),
        ]),
        Answer::calls(&[("c5", "open_pr", r#"{"title":"New","body":"It is new."}"#)]),
        text_ending("Done.", StopReason::EndTurn),
    ]
}

fn world(recorder: RecordingRecorder) -> World {
    let workspace = WatchedWorkspace::default()
        .with_file("a.txt", "A\n")
        .with_file("b.txt", "B\n")
        .with_file("AGENTS.md", "Be kind.\n");
    World {
        recorder: Arc::new(recorder),
        ..World::new(workspace)
    }
}

/// The answers that a model has not given yet.
fn rest_of_script(journal: &[JournalEntry]) -> Arc<ListedModel> {
    let given = conversation(journal)
        .iter()
        .filter(|message| message.role == Role::Assistant)
        .count();
    model(script().into_iter().skip(given))
}

/// What ran in this world, named as in [`EFFECTS`], sorted.
fn effects(world: &World) -> Vec<String> {
    let mut effects: Vec<String> = world.workspace.began();
    // `write` looks at the old file first, and a cut command is looked for.
    effects.retain(|what| what != "read new.txt" && what != "call");
    effects.extend(
        world
            .platform
            .requests()
            .iter()
            .map(|_| "pull request".to_owned()),
    );
    effects.sort();
    effects
}

/// Calls that began in this journal, with the items they are shown as.
fn started(journal: &[JournalEntry]) -> HashMap<String, ItemId> {
    let entries = journal.iter();
    entries
        .filter_map(|entry| match entry {
            JournalEntry::ToolCallStarted { call_id, item_id } => Some((call_id.clone(), item_id.clone())),
            _ => None,
        })
        .collect()
}

/// Calls that have a result in this journal, and whether it says that they were cut.
fn ended(journal: &[JournalEntry]) -> HashMap<String, bool> {
    let entries = journal.iter();
    entries
        .filter_map(|entry| match entry {
            JournalEntry::ToolCallEnded { call_id, result } => {
                let text = texts(std::slice::from_ref(result)).join("\n");
                Some((call_id.clone(), text.starts_with("interrupted")))
            }
            _ => None,
        })
        .collect()
}

/// Goes on from `prefix` in a world of its own, to the end, and checks everything that must hold of the rest.
async fn goes_on(prefix: &[JournalEntry]) -> World {
    let world = world(RecordingRecorder::default());
    let model = rest_of_script(prefix);
    let end = world.resume(&model, prefix.to_vec()).await;
    assert_eq!(end.result, TurnResult::Completed);
    assert_eq!(
        model.answers_left(),
        0,
        "the model was asked for all that was missing"
    );
    for request in model.requests() {
        assert_valid(&request.messages);
    }
    let (began, finished) = (started(prefix), ended(prefix));
    let mut expected: Vec<&str> = EFFECTS
        .iter()
        .filter(|(id, _)| !began.contains_key(*id))
        .map(|(_, effect)| *effect)
        .collect();
    expected.sort_unstable();
    assert_eq!(effects(&world), expected, "what began before does not run again");

    let mut whole = prefix.to_vec();
    whole.extend(world.recorder.journal());
    let next = next_request(&whole).await;
    for (id, _) in EFFECTS {
        let (text, is_error) = result_of(&next.messages, id);
        let is_cut = began.contains_key(id) && finished.get(id).copied().unwrap_or(true);
        assert_eq!(text.starts_with("interrupted"), is_cut, "{id}: {text}");
        assert_eq!(is_error, is_cut, "{id}: {text}");
    }
    let all: Vec<&str> = next
        .messages
        .iter()
        .flat_map(|message| texts(&message.blocks))
        .collect();
    let count = |wanted: &str| all.iter().filter(|text| text.contains(wanted)).count();
    assert_eq!(count("<repository_instructions>"), 1, "{all:#?}");
    assert_eq!(count("I look first."), 1);
    assert_eq!(count("Done."), 1);
    let mut interrupted: Vec<ItemId> = interrupted_items(&world.recorder.completed());
    let mut cut: Vec<ItemId> = began
        .iter()
        .filter(|(id, _)| !finished.contains_key(*id))
        .map(|(_, item_id)| item_id.clone())
        .collect();
    interrupted.sort();
    cut.sort();
    assert_eq!(interrupted, cut, "each cut call is shown as interrupted, once");
    world
}

fn interrupted_items(items: &[Item]) -> Vec<ItemId> {
    let items = items.iter();
    items
        .filter_map(|item| match &item.body {
            ItemBody::ToolCall(call) if call.status == ToolCallStatus::Interrupted => Some(item.id.clone()),
            _ => None,
        })
        .collect()
}

/// All that a session holds of a turn that ran in several pieces.
#[track_caller]
fn assert_shown_once(records: &[Record]) {
    let mut completed = HashSet::new();
    let mut said = Vec::new();
    for item in records.iter().flat_map(|record| &record.completed) {
        assert!(completed.insert(item.id.clone()), "{item:?} is completed twice");
        if let ItemBody::Message { text } = &item.body {
            said.push(text.clone());
        }
    }
    assert_eq!(said, ["I look first.", "Done."]);
    let mut begun = HashSet::new();
    for item in records.iter().flat_map(|record| &record.started) {
        assert!(begun.insert(item.id.clone()), "{item:?} began twice");
        assert!(completed.contains(&item.id), "{item:?} never ends");
    }
    assert_eq!(begun.len(), EFFECTS.len(), "every call is shown");
}

async fn undisturbed() -> World {
    let world = world(RecordingRecorder::default());
    let end = world.run(&model(script())).await;
    assert_eq!(end.result, TurnResult::Completed);
    assert_eq!(end.usage.input_tokens, 40);
    assert_shown_once(&world.recorder.records());
    world
}

#[tokio::test]
async fn a_journal_cut_behind_any_entry_goes_on() {
    let journal = undisturbed().await.recorder.journal();
    assert!(journal.len() > 20, "{journal:#?}");
    for cut in 1..=journal.len() {
        let world = goes_on(&journal[..cut]).await;
        let mut whole = journal[..cut].to_vec();
        whole.extend(world.recorder.journal());
        let prompts = conversation(&whole)
            .iter()
            .filter(|message| message.role == Role::User && result_ids(message).is_empty())
            .count();
        assert_eq!(prompts, 1, "the prompt is not said again");
    }
}

#[tokio::test]
async fn records_cut_anywhere_show_every_item_once() {
    let records = undisturbed().await.recorder.records();
    for cut in 1..=records.len() {
        let journal: Vec<JournalEntry> = records[..cut]
            .iter()
            .flat_map(|record| record.journal.clone())
            .collect();
        let world = goes_on(&journal).await;
        let mut whole = records[..cut].to_vec();
        whole.extend(world.recorder.records());
        assert_shown_once(&whole);
    }
}

#[tokio::test]
async fn a_turn_that_is_cut_twice_goes_on() {
    let count = undisturbed().await.recorder.records().len();
    for first in 1..count {
        for second in 0..count {
            let mut records = Vec::new();
            let mut journal = Vec::new();
            for room in [first, second] {
                let world = world(RecordingRecorder::failing_after(room));
                world.resume(&rest_of_script(&journal), journal.clone()).await;
                records.extend(world.recorder.records());
                journal.extend(world.recorder.journal());
            }
            let world = goes_on(&journal).await;
            records.extend(world.recorder.records());
            assert_shown_once(&records);
        }
    }
}

#[tokio::test]
async fn usage_of_a_resumed_turn_counts_every_answer_once() {
    let journal = undisturbed().await.recorder.journal();
    for cut in 1..=journal.len() {
        let (prefix, last) = (&journal[..cut], &journal[cut - 1]);
        let world = world(RecordingRecorder::default());
        let end = world.resume(&rest_of_script(prefix), prefix.to_vec()).await;
        // The answer itself is lost between its usage and its message, so it is paid for twice.
        let is_lost = matches!(last, JournalEntry::ModelUsed { .. });
        assert_eq!(end.usage.input_tokens, if is_lost { 50 } else { 40 }, "cut {cut}");
    }
}

#[tokio::test]
async fn a_turn_that_is_cut_again_and_again_does_not_continue_for_ever() {
    let endless = || (0..10).map(|_| text_ending("and", StopReason::MaxOutputTokens));
    let first = World::new(WatchedWorkspace::default());
    first.run(&model(endless().take(2))).await;
    let journal = first.recorder.journal();
    let again = World::new(WatchedWorkspace::default());
    let model = model(endless());
    let end = again.resume(&model, journal).await;
    assert_eq!(failure(&end), "model_output_limit");
    assert_eq!(
        model.requests().len(),
        2,
        "one answer, three continuations; two were asked for before"
    );
}

/// The scripted turn, cut while its command runs, and the key of what it runs.
async fn cut_in_its_command() -> (Vec<JournalEntry>, String) {
    let journal = undisturbed().await.recorder.journal();
    let is_start = |entry: &JournalEntry| match entry {
        JournalEntry::ToolCallStarted { call_id, .. } => call_id == "c4",
        _ => false,
    };
    let at = journal.iter().position(is_start).expect("the command began");
    let prefix = journal[..=at].to_vec();
    let key = started(&prefix)["c4"].to_string();
    (prefix, key)
}

#[tokio::test]
async fn a_command_that_went_on_alone_gives_its_real_result() {
    for (ran, expected, status) in [
        (
            Ran::exited(0, "all passed\n"),
            "all passed\n[exit code 0]",
            ToolCallStatus::Succeeded,
        ),
        (
            Ran::exited(1, "one failed\n"),
            "one failed\n[exit code 1]",
            ToolCallStatus::Failed,
        ),
    ] {
        let (prefix, key) = cut_in_its_command().await;
        let world = world(RecordingRecorder::default());
        let argv = vec!["bash".to_owned()];
        world.workspace.memory.keep(argv, Some(key.clone()), ran);
        let model = rest_of_script(&prefix);
        let end = world.resume(&model, prefix.clone()).await;
        assert_eq!(end.result, TurnResult::Completed);
        assert_eq!(
            effects(&world),
            ["attach 1", "pull request"],
            "it did not run again"
        );
        let results = &model.requests()[0].messages;
        assert_eq!(
            result_of(results, "c4"),
            (expected.to_owned(), status == ToolCallStatus::Failed)
        );
        let shown: Vec<_> = world
            .recorder
            .completed()
            .into_iter()
            .filter(|item| item.id.to_string() == key)
            .collect();
        let [item] = shown.as_slice() else {
            panic!("shown once: {shown:?}")
        };
        match &item.body {
            ItemBody::ToolCall(call) => assert_eq!((call.status, call.output.as_str()), (status, expected)),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_command_that_went_on_alone_is_ended_with_its_stopped_turn() {
    let (prefix, key) = cut_in_its_command().await;
    let world = world(RecordingRecorder::default());
    let argv = vec!["bash".to_owned()];
    world
        .workspace
        .memory
        .keep(argv, Some(key), Ran::runs_on("half\n"));
    world.stop.cancel();
    let end = world.resume(&model([]), prefix.clone()).await;
    assert_eq!(end.result, TurnResult::Stopped);
    let mut whole = prefix;
    whole.extend(world.recorder.journal());
    let next = next_request(&whole).await;
    let (text, is_error) = result_of(&next.messages, "c4");
    assert!(is_error);
    assert_eq!(text, "half\n[killed because the turn was stopped]");
}

#[tokio::test]
async fn a_command_of_another_call_is_not_taken_for_it() {
    let (prefix, _) = cut_in_its_command().await;
    let world = world(RecordingRecorder::default());
    for key in [None, Some("itm_other".to_owned())] {
        let argv = vec!["bash".to_owned()];
        world
            .workspace
            .memory
            .keep(argv, key, Ran::exited(0, "something else\n"));
    }
    let model = rest_of_script(&prefix);
    world.resume(&model, prefix).await;
    let (text, is_error) = result_of(&model.requests()[0].messages, "c4");
    assert!(is_error && text.starts_with("interrupted"), "{text}");
}
