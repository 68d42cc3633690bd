//! A person stops the turn wherever it is: what was said stays, every call has a result, and the next turn can go on.

use super::watched::{Hold, WatchedWorkspace};
use super::*;
use async_trait::async_trait;
use greenroom_agent::fake::{MemoryWorkspace, Ran};
use greenroom_agent::world::{ModelStream, RetryObserver};
use greenroom_llm::failure::{FailureKind, ModelFailure};
use greenroom_protocol::client::event::ToolCallStatus;
use greenroom_protocol::client::stream::DeltaChannel;
use tokio::sync::Notify;

/// Stops the running turn and checks what holds of every stopped turn; gives the next turn's request.
async fn stop(world: &World, turn: JoinHandle<TurnEnd>) -> ModelRequest {
    world.stop.cancel();
    let end = within_deadline(turn).await.unwrap();
    assert_eq!(end.result, TurnResult::Stopped);
    let mut completed = HashSet::new();
    for item in world.recorder.completed() {
        assert!(completed.insert(item.id.clone()), "{item:?} is completed twice");
    }
    for id in started_ids(&world.recorder) {
        assert!(completed.contains(&id), "{id:?} never ends");
    }
    stays_stopped(world).await;
    next_request(&world.recorder.journal()).await
}

/// A server that dies before it could say that the turn was stopped goes on with the stop, not with the turn.
async fn stays_stopped(world: &World) {
    let records = world.recorder.records();
    for cut in 1..=records.len() {
        let before = &records[..cut];
        let mut journal: Vec<JournalEntry> =
            before.iter().flat_map(|record| record.journal.clone()).collect();
        let again = World::new(WatchedWorkspace::default());
        again.stop.cancel();
        let model = model([Answer::text("never")]);
        let end = again.resume(&model, journal.clone()).await;
        assert_eq!(end.result, TurnResult::Stopped, "behind {cut} records");
        assert_eq!(model.requests().len(), 0);
        // A command that was cut is looked for, so that it does not go on alone; nothing else is done.
        let mut began = again.workspace.all_began();
        began.retain(|what| what != "call");
        assert_eq!(began, Vec::<String>::new());
        journal.extend(again.recorder.journal());
        next_request(&journal).await;

        let completed: Vec<ItemId> = before
            .iter()
            .chain(&again.recorder.records())
            .flat_map(|record| &record.completed)
            .map(|item| item.id.clone())
            .collect();
        let distinct: HashSet<&ItemId> = completed.iter().collect();
        assert_eq!(distinct.len(), completed.len(), "an item is completed twice");
        for item in before.iter().flat_map(|record| &record.started) {
            assert!(distinct.contains(&item.id), "{item:?} never ends");
        }
    }
}

/// A model that does not even take the request.
#[derive(Default)]
struct SilentModel {
    was_asked: Notify,
}

#[async_trait]
impl ModelClient for SilentModel {
    async fn stream(&self, _: ModelRequest, _: RetryObserver) -> Result<ModelStream, ModelFailure> {
        self.was_asked.notify_one();
        std::future::pending().await
    }
}

#[tokio::test]
async fn before_the_turn_asks_anything() {
    let world = World::new(WatchedWorkspace::default());
    world.stop.cancel();
    let model = model([Answer::text("never")]);
    let turn = world.start(model.clone());
    let next = stop(&world, turn).await;
    assert_eq!(model.requests().len(), 0);
    assert_eq!(texts(&next.messages[0].blocks), ["Do it.", "Do it."]);
}

#[tokio::test]
async fn while_the_model_is_not_reached() {
    let world = World::new(WatchedWorkspace::default());
    let model = Arc::new(SilentModel::default());
    let turn = world.start(model.clone());
    within_deadline(model.was_asked.notified()).await;
    stop(&world, turn).await;
}

#[tokio::test]
async fn before_the_first_byte() {
    let world = World::new(WatchedWorkspace::default());
    let model = model([Answer::Hang(Vec::new())]);
    let turn = world.start(model.clone());
    until("the request", || model.requests().len() == 1).await;
    stop(&world, turn).await;
    assert_eq!(world.shown_messages(), Vec::<String>::new());
}

#[tokio::test]
async fn in_the_middle_of_a_text() {
    let world = World::new(WatchedWorkspace::default());
    let mut events = text_block(0, "First I look.");
    events.extend(half_text(1, "Then I wr"));
    events.push(StreamEvent::BlockStarted {
        index: 2,
        kind: BlockKind::ToolCall {
            id: "half".into(),
            name: "write".into(),
        },
    });
    events.push(StreamEvent::ArgumentsDelta {
        index: 2,
        json: r#"{"path":"#.into(),
    });
    let turn = world.start(model([Answer::Hang(events)]));
    until("the arguments", || {
        let deltas = world.recorder.deltas();
        deltas.iter().any(|delta| delta.channel == DeltaChannel::Input)
    })
    .await;
    let next = stop(&world, turn).await;
    assert_eq!(world.shown_messages(), ["First I look.", "Then I wr"]);
    assert_eq!(texts(&next.messages[1].blocks), ["First I look.", "Then I wr"]);
    assert_eq!(calls_of(&next.messages[1]).len(), 0, "half a call is no call");
    let shown: HashSet<ItemId> = world
        .recorder
        .completed()
        .into_iter()
        .map(|item| item.id)
        .collect();
    let said = world.recorder.deltas().into_iter();
    let said: HashSet<ItemId> = said
        .filter(|delta| delta.channel == DeltaChannel::Message)
        .map(|delta| delta.item_id)
        .collect();
    assert_eq!(shown, said, "the text that was shown is the text that stays");
}

#[tokio::test]
async fn while_the_next_try_waits() {
    let world = World::new(WatchedWorkspace::default());
    let mut events: Vec<_> = half_text(0, "So").into_iter().map(Ok).collect();
    events.push(Err(ModelFailure::new(FailureKind::Overloaded, "too many")));
    let model = model([Answer::Stream(events), Answer::text("never")]);
    let turn = world.start(model.clone());
    until("the retry", || !world.recorder.retries().is_empty()).await;
    stop(&world, turn).await;
    assert_eq!(model.requests().len(), 1);
}

#[tokio::test]
async fn while_a_read_runs() {
    let workspace = WatchedWorkspace::default()
        .with_file("fast.txt", "fast\n")
        .holding("read slow.txt", Hold::Forever);
    let world = World::new(workspace);
    let turn = world.start(model([Answer::calls(&[
        ("slow", "read", r#"{"path":"slow.txt"}"#),
        ("fast", "read", r#"{"path":"fast.txt"}"#),
        ("late", "write", r#"{"path":"late.txt","content":"late"}"#),
    ])]));
    until("the fast read", || !world.shown_calls().is_empty()).await;
    let next = stop(&world, turn).await;
    assert!(result_of(&next.messages, "slow").0.starts_with("interrupted"));
    assert!(result_of(&next.messages, "fast").0.contains("fast"));
    let (late, is_error) = result_of(&next.messages, "late");
    assert!(late.contains("not run") && is_error, "{late}");
    assert_eq!(world.workspace.memory.get("late.txt"), None);
    let shown: Vec<_> = world.shown_calls().into_iter().map(|call| call.status).collect();
    assert_eq!(shown, [ToolCallStatus::Succeeded, ToolCallStatus::Interrupted]);
}

#[tokio::test]
async fn while_the_sandbox_does_not_come() {
    let world = World::new(WatchedWorkspace::never_ready());
    let turn = world.start(model([Answer::calls(&[("c", "read", r#"{"path":"a.txt"}"#)])]));
    until("the read", || !world.workspace.began().is_empty()).await;
    let next = stop(&world, turn).await;
    assert!(result_of(&next.messages, "c").0.starts_with("interrupted"));
}

#[tokio::test]
async fn while_a_command_runs() {
    let world = World::new(WatchedWorkspace::of(MemoryWorkspace::new(|_, _| {
        Ran::runs_on("half\n")
    })));
    let turn = world.start(model([Answer::calls(&[
        ("c1", "bash", r#"{"command":"make"}"#),
        ("c2", "bash", r#"{"command":"make install"}"#),
    ])]));
    until("its output", || {
        let deltas = world.recorder.deltas();
        deltas.iter().any(|delta| delta.channel == DeltaChannel::Output)
    })
    .await;
    let next = stop(&world, turn).await;
    let (result, is_error) = result_of(&next.messages, "c1");
    assert!(
        result.contains("half") && result.contains("the turn was stopped"),
        "{result}"
    );
    assert!(is_error);
    assert!(result_of(&next.messages, "c2").0.contains("not run"));
    assert_eq!(world.workspace.began(), ["exec make"]);
    let [call] = &world.shown_calls()[..] else {
        panic!("{:?}", world.shown_calls())
    };
    assert_eq!(call.status, ToolCallStatus::Interrupted);
    assert!(call.output.contains("half"), "{call:?}");
}

#[tokio::test]
async fn between_two_calls() {
    let stopper = CancellationToken::new();
    let by_program = stopper.clone();
    let workspace = WatchedWorkspace::of(MemoryWorkspace::new(move |_, _| {
        by_program.cancel();
        Ran::exited(0, "the last\n")
    }));
    let world = World {
        stop: stopper,
        ..World::new(workspace)
    };
    let model = model([Answer::calls(&[
        ("c1", "bash", r#"{"command":"one"}"#),
        ("c2", "bash", r#"{"command":"two"}"#),
    ])]);
    let turn = world.start(model.clone());
    until("the program", || world.stop.is_cancelled()).await;
    let next = stop(&world, turn).await;
    assert!(result_of(&next.messages, "c1").0.contains("the last"));
    assert!(result_of(&next.messages, "c2").0.contains("not run"));
    assert_eq!(world.workspace.began(), ["exec one"]);
    assert_eq!(model.requests().len(), 1, "nothing is asked behind a stop");
}

#[tokio::test]
async fn while_the_instructions_are_looked_for() {
    let world = World::new(WatchedWorkspace::default().holding("read AGENTS.md", Hold::Forever));
    let turn = world.start(model([Answer::calls(&[("c", "bash", r#"{"command":"ls"}"#)])]));
    until("the look", || {
        world.workspace.all_began().contains(&"read AGENTS.md".to_owned())
    })
    .await;
    let next = stop(&world, turn).await;
    assert!(result_of(&next.messages, "c").0.contains("fine"));
}
