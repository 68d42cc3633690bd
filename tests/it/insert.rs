//! What people say to a turn that runs, and what becomes of what waits when it is stopped.

use crate::script::{has_running_command, start_with_answer};
use greenroom_system_tests::api::{Api, of_type, pretty};
use greenroom_system_tests::product::Product;
use reqwest::Method;
use serde_json::{Value, json};

const SCRIPT: &str = r#"
[[script]]
name = "wait"
prompt_contains = "wait"
[[script.step]]
[[script.step.call]]
tool = "bash"
arguments = { command = "while [ ! -e /tmp/go ]; do sleep 0.05; done; echo gone" }
[[script.step]]
say = "Done waiting."

[[script]]
name = "work"
prompt_contains = "work for a while"
[[script.step]]
[[script.step.call]]
tool = "bash"
arguments = { command = "sleep 1.5; echo worked" }
[[script.step]]
say = "Worked."

[[script]]
name = "instead"
prompt_contains = "instead"
[[script.step]]
say = "Something else."
[[script.step.call]]
tool = "bash"
arguments = { command = "sleep 1.5; echo instead" }
[[script.step]]
say = "Did that instead."

[[script]]
name = "talk"
prompt_contains = "talk"
[[script.step]]
say = "One two three four five six seven eight nine ten."
chunk_chars = 5
delay_ms = 150

[[script]]
name = "hello"
prompt_contains = "hello"
[[script.step]]
say = "Hello."
"#;

async fn send(api: &Api, session: &str, body: Value) -> String {
    let path = format!("/v1/sessions/{session}/prompts");
    let key = body["text"].as_str().unwrap().replace(' ', "-");
    let request = api.request(Method::POST, &path).header("idempotency-key", key);
    let (status, receipt) = api.send(request.json(&body)).await;
    assert_eq!(status, 202, "{receipt}");
    receipt["prompt_id"].as_str().unwrap().to_owned()
}

async fn patch(api: &Api, path: &str, body: Value) -> (u16, Value) {
    api.send(api.request(Method::PATCH, path).json(&body)).await
}

/// Texts of what waits, and of what the turn that runs was told.
async fn open(api: &Api, session: &str) -> (Vec<String>, Vec<String>) {
    let open = api.must_get(&format!("/v1/sessions/{session}/prompts")).await;
    let texts = |list: &Value| {
        list.as_array()
            .into_iter()
            .flatten()
            .map(|prompt| prompt["text"].as_str().unwrap().to_owned())
            .collect()
    };
    (texts(&open["queued"]), texts(&open["inserted"]))
}

fn said(events: &[Value]) -> Vec<String> {
    of_type(events, "item.completed")
        .into_iter()
        .filter(|event| event["item"]["kind"] == "message")
        .map(|event| event["item"]["text"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_turn_hears_what_is_inserted_at_its_next_step_and_after_a_crash_too() {
    let mut product = Product::with_script(SCRIPT);
    let api = start_with_answer(&mut product).await;
    let session = api.start_session("answer", "work for a while").await;
    api.wait_for(&session, "a running command", has_running_command)
        .await;
    send(&api, &session, json!({"text": "hello later"})).await;
    let inserted = send(
        &api,
        &session,
        json!({"text": "do it instead", "delivery": "insert"}),
    )
    .await;
    assert_eq!(
        open(&api, &session).await.0,
        ["do it instead", "hello later"],
        "what is told first waits first"
    );
    let is_told = |events: &[Value]| !of_type(events, "prompt.inserted").is_empty();
    let events = api.wait_for(&session, "the insertion", is_told).await;
    let told = of_type(&events, "prompt.inserted")[0];
    assert_eq!(told["prompt_id"], inserted.as_str());
    assert_eq!(told["turn_id"], of_type(&events, "turn.started")[0]["turn_id"]);
    assert_eq!(
        open(&api, &session).await,
        (vec!["hello later".to_owned()], vec!["do it instead".to_owned()])
    );

    product.kill();
    let api = product.start().await;
    let events = api.wait_for_turns(&session, 2).await;
    assert_eq!(
        of_type(&events, "prompt.inserted").len(),
        1,
        "{}",
        pretty(&events)
    );
    assert_eq!(
        of_type(&events, "turn.started").len(),
        2,
        "it had no turn of its own: {}",
        pretty(&events)
    );
    let texts = said(&events);
    assert_eq!(
        texts,
        ["Something else.", "Did that instead.", "Hello."],
        "{}",
        pretty(&events)
    );
    product.stop();
}

#[tokio::test]
async fn what_comes_too_late_is_the_next_turn_and_a_session_has_a_default() {
    let mut product = Product::with_script(SCRIPT);
    let api = start_with_answer(&mut product).await;
    let session = api.start_session("answer", "talk").await;
    send(&api, &session, json!({"text": "hello last"})).await;
    let path = format!("/v1/sessions/{session}");
    let (status, row) = patch(&api, &path, json!({"delivery": "insert"})).await;
    assert_eq!((status, row["delivery"].as_str()), (200, Some("insert")));
    send(&api, &session, json!({"text": "hello first"})).await;
    let third = send(
        &api,
        &session,
        json!({"text": "hello third", "delivery": "queue"}),
    )
    .await;
    assert_eq!(
        open(&api, &session).await.0,
        ["hello first", "hello last", "hello third"]
    );
    // It is told as the second: the first is a turn of its own, in which there is no other step.
    let prompt = format!("{path}/prompts/{third}");
    assert_eq!(patch(&api, &prompt, json!({"delivery": "insert"})).await.0, 204);
    assert_eq!(
        open(&api, &session).await.0,
        ["hello first", "hello third", "hello last"]
    );
    // What is told to the model that works names no other.
    let request = api
        .request(Method::POST, &format!("{path}/prompts"))
        .header("idempotency-key", "model");
    let body = json!({"text": "hello", "delivery": "insert", "model": "test/demo"});
    let (status, refused) = api.send(request.json(&body)).await;
    assert_eq!(
        (status, refused["code"].as_str()),
        (422, Some("insert_with_model"))
    );
    let events = api.wait_for_turns(&session, 4).await;
    assert!(
        of_type(&events, "prompt.inserted").is_empty(),
        "the model had nothing more to say: {}",
        pretty(&events)
    );
    let started = of_type(&events, "turn.started");
    assert_eq!(started[2]["prompt_id"], third.as_str());
    // Nothing runs: it is a turn of its own at once.
    send(&api, &session, json!({"text": "hello again"})).await;
    api.wait_for_turns(&session, 5).await;

    for (body, expected) in [
        (json!({}), (422, "session_unchanged")),
        (json!({"title": " "}), (422, "title_invalid")),
        (json!({"title": "two\nlines"}), (422, "title_invalid")),
        (json!({"title": "x".repeat(81)}), (422, "title_invalid")),
        (json!({"delivery": "later"}), (422, "body_invalid")),
        (json!({"is_queue_paused": true}), (409, "queue_empty")),
    ] {
        let (status, answer) = patch(&api, &path, body.clone()).await;
        assert_eq!(
            (status, answer["code"].as_str().unwrap_or_default()),
            expected,
            "{body}"
        );
    }
    let (status, row) = patch(&api, &path, json!({"title": "Talks"})).await;
    assert_eq!((status, row["title"].as_str()), (200, Some("Talks")));
    product.stop();
}

#[tokio::test]
async fn a_queue_that_is_paused_waits_until_it_goes_on() {
    let mut product = Product::with_script(SCRIPT);
    let api = start_with_answer(&mut product).await;
    let session = api.start_session("answer", "Please wait.").await;
    send(&api, &session, json!({"text": "hello one"})).await;
    send(&api, &session, json!({"text": "hello two"})).await;
    api.wait_for(&session, "a running command", has_running_command)
        .await;
    let path = format!("/v1/sessions/{session}");
    let stop = format!("{path}/stop?pauses_queue=true");
    let row = api.must_post(&stop, json!({})).await;
    assert_eq!(row["is_queue_paused"], true, "{row}");
    let events = api.wait_for_turns(&session, 1).await;
    assert_eq!(
        of_type(&events, "turn.completed")[0]["outcome"]["result"],
        "stopped"
    );
    // Not even what is sent now, nor after a crash.
    send(&api, &session, json!({"text": "hello three"})).await;
    product.kill();
    let api = product.start().await;
    let row = api.must_get(&path).await;
    assert_eq!(
        (&row["state"], &row["is_queue_paused"]),
        (&json!("idle"), &json!(true))
    );
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(
        open(&api, &session).await.0,
        ["hello one", "hello two", "hello three"]
    );

    let (status, row) = patch(&api, &path, json!({"is_queue_paused": false})).await;
    assert_eq!((status, &row["is_queue_paused"]), (200, &json!(false)), "{row}");
    let events = api.wait_for_turns(&session, 4).await;
    assert_eq!(
        said(&events),
        ["Hello.", "Hello.", "Hello."],
        "{}",
        pretty(&events)
    );
    assert_eq!(api.must_get(&path).await["is_queue_paused"], false);
    product.stop();
}
