//! Two clients on one session: both see the same, whenever they come.

use crate::script::{FIX, has_running_command, start_with_answer};
use greenroom_system_tests::api::{is_event, pretty};
use greenroom_system_tests::product::Product;
use serde_json::{Value, json};

fn events_of(frames: &[Value]) -> Vec<Value> {
    frames
        .iter()
        .filter(|frame| frame["frame"] == "event")
        .map(|frame| frame["event"].clone())
        .collect()
}

#[tokio::test]
async fn early_late_and_returning_clients_see_the_same() {
    let mut product = Product::with_script(FIX);
    let api = start_with_answer(&mut product).await;
    let session = api.create_session("answer").await;

    let mut early = api.stream(&session, 0).await;
    let mut leaving = api.stream(&session, 0).await;
    let (status, receipt) = api.prompt(&session, "one", "Please fix the answer.").await;
    assert_eq!(status, 202, "{receipt}");
    let first_part = leaving.until(|frame| is_event(frame, "item.completed")).await;
    drop(leaving);
    let early = events_of(&early.until(|frame| is_event(frame, "turn.completed")).await);
    let cursor = events_of(&first_part).last().unwrap()["seq"].as_u64().unwrap();
    let mut returning = api.stream(&session, cursor).await;
    let rest = events_of(&returning.until(|frame| is_event(frame, "turn.completed")).await);
    let mut late = api.stream(&session, 0).await;
    let late = events_of(&late.until(|frame| is_event(frame, "turn.completed")).await);

    let returned = [events_of(&first_part), rest].concat();
    assert_eq!(
        returned,
        early,
        "nothing lost, nothing twice: {}",
        pretty(&returned)
    );
    assert_eq!(late, early);
    let stored = api.events(&session).await;
    assert_eq!(early[..], stored[..early.len()]);
    product.stop();
}

#[tokio::test]
async fn prompts_queue_in_order_and_can_be_taken_back() {
    let script = r#"
[[script]]
name = "wait"
prompt_contains = "wait"
[[script.step]]
[[script.step.call]]
tool = "bash"
arguments = { command = "while [ ! -e go ]; do sleep 0.05; done; echo gone" }
[[script.step]]
say = "Done waiting."

[[script]]
name = "go"
prompt_contains = "hello"
[[script.step]]
say = "Hello."
"#;
    let mut product = Product::with_script(script);
    let api = start_with_answer(&mut product).await;
    let session = api.start_session("answer", "Please wait.").await;
    let (_, second) = api.prompt(&session, "two", "hello two").await;
    let (_, third) = api.prompt(&session, "three", "hello three").await;
    let (status, again) = api.prompt(&session, "three", "hello three").await;
    assert_eq!(
        (status, &again),
        (202, &third),
        "the same key and text: the first receipt"
    );
    let (status, conflict) = api.prompt(&session, "three", "another text").await;
    assert_eq!(
        (status, conflict["code"].as_str()),
        (409, Some("idempotency_key_reused"))
    );

    let second_id = second["prompt_id"].as_str().unwrap();
    assert_eq!(
        api.delete(&format!("/v1/sessions/{session}/prompts/{second_id}"))
            .await
            .0,
        204
    );
    assert_eq!(
        api.delete(&format!("/v1/sessions/{session}/prompts/{second_id}"))
            .await
            .0,
        409
    );

    api.wait_for(&session, "a running command", has_running_command)
        .await;
    let stopped = api
        .must_post(&format!("/v1/sessions/{session}/stop"), json!({}))
        .await;
    assert_eq!(stopped["id"], session.as_str());
    let events = api.wait_for_turns(&session, 2).await;
    let outcomes: Vec<_> = events
        .iter()
        .filter(|event| event["type"] == "turn.completed")
        .map(|event| (event["prompt_id"].clone(), event["outcome"]["result"].clone()))
        .collect();
    assert_eq!(outcomes[0].1, "stopped");
    assert_eq!(outcomes[1], (third["prompt_id"].clone(), json!("completed")));
    let cut = events
        .iter()
        .find(|event| event["type"] == "item.completed" && event["item"]["tool"] == "bash")
        .expect("the stopped command has an end");
    assert_eq!(cut["item"]["status"], "interrupted", "{cut}");
    let (status, nothing) = api.post(&format!("/v1/sessions/{session}/stop"), json!({})).await;
    assert_eq!((status, nothing["code"].as_str()), (409, Some("nothing_to_stop")));
    product.stop();
}
