//! Commands under idempotency keys: answered once, and the same again to whoever repeats them, also after a restart.

use crate::script::{commands, start_with_answer};
use greenroom_system_tests::api::Api;
use greenroom_system_tests::product::Product;
use reqwest::Method;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

struct Answer {
    status: u16,
    body: Value,
    is_replayed: bool,
}

impl Answer {
    fn code(&self) -> (u16, &str) {
        (self.status, self.body["code"].as_str().unwrap_or_default())
    }
}

async fn send(api: &Api, method: Method, path: &str, key: &str, body: Value) -> Answer {
    let request = api.request(method, path).header("idempotency-key", key);
    let response = request.json(&body).send().await.unwrap();
    Answer {
        status: response.status().as_u16(),
        is_replayed: response.headers().contains_key("idempotency-replayed"),
        body: serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or(Value::Null),
    }
}

async fn add(api: &Api, key: &str, name: &str) -> Answer {
    send(
        api,
        Method::POST,
        "/v1/repositories",
        key,
        json!({ "name": name }),
    )
    .await
}

#[tokio::test]
async fn a_command_that_is_repeated_is_answered_again_and_not_done_again() {
    let mut product = Product::with_script(&commands(&[("nothing", "true")]));
    let api = start_with_answer(&mut product).await;
    let first = add(&api, "one", "first").await;
    assert_eq!((first.status, first.is_replayed), (201, false), "{}", first.body);
    let again = add(&api, "one", "first").await;
    assert_eq!((again.status, again.is_replayed), (201, true), "{}", again.body);
    assert_eq!(again.body, first.body);
    assert_eq!(
        add(&api, "one", "second").await.code(),
        (409, "idempotency_key_reused")
    );
    assert_eq!(
        api.get("/v1/repositories/second").await.0,
        404,
        "nothing was done"
    );
    // Under another key it is another command.
    assert_eq!(
        add(&api, "two", "first").await.code(),
        (409, "repository_name_taken")
    );
    // What was refused left nothing, so its key is free.
    assert_eq!(add(&api, "two", "third").await.status, 201);
    assert_eq!(
        add(&api, "bad key", "x").await.code(),
        (422, "idempotency_key_invalid")
    );

    // Without a body, and to which nothing is answered.
    let session = api.create_session("answer").await;
    let path = format!("/v1/sessions/{session}");
    let title = json!({"title": "Named"});
    assert_eq!(
        send(&api, Method::PATCH, &path, "three", title.clone())
            .await
            .status,
        200
    );
    let set = |key: &'static str| {
        send(
            &api,
            Method::PUT,
            "/v1/repositories/answer/environment",
            key,
            json!({}),
        )
    };
    assert_eq!(set("four").await.status, 200);
    let unset = send(
        &api,
        Method::DELETE,
        "/v1/repositories/answer/environment",
        "five",
        json!({}),
    )
    .await;
    assert_eq!(unset.status, 204);

    product.kill();
    let api = product.start().await;
    let again = add(&api, "one", "first").await;
    assert_eq!(
        (again.status, again.is_replayed, &again.body),
        (201, true, &first.body)
    );
    let again = send(
        &api,
        Method::DELETE,
        "/v1/repositories/answer/environment",
        "five",
        json!({}),
    )
    .await;
    assert_eq!((again.status, again.is_replayed), (204, true));
    // An answer with a secret in it is kept nowhere.
    let token = || send(&api, Method::POST, "/v1/tokens", "six", json!({"label": "x"}));
    let (one, two) = (token().await, token().await);
    assert_eq!((one.status, two.status), (201, 201));
    assert_ne!(one.body["secret"], two.body["secret"]);
    product.stop();
}

async fn set(api: &Api, session: &str, key: &str, body: Value) -> Answer {
    send(api, Method::PATCH, &format!("/v1/sessions/{session}"), key, body).await
}

/// What was answered to [`set`] and to a stop is answered again, and nothing is done again.
async fn repeated(api: &Api, session: &str, first: &Value, events: usize) {
    for key in ["one", "two"] {
        let again = set(api, session, key, json!({ "delivery": "insert" })).await;
        assert_eq!((again.status, again.is_replayed), (200, true), "{}", again.body);
        assert_eq!(again.body["delivery"], "insert", "as it was then");
    }
    let again = set(api, session, "one", json!({ "delivery": "insert" })).await;
    assert_eq!(again.body, *first);
    let path = format!("/v1/sessions/{session}");
    assert_eq!(api.must_get(&path).await["delivery"], "queue", "not done again");
    let again = send(api, Method::POST, &format!("{path}/stop"), "stop", json!({})).await;
    assert_eq!((again.status, again.is_replayed), (202, true), "{}", again.body);
    // Other content, and the key of a prompt.
    for key in ["one", "wait"] {
        let other = set(api, session, key, json!({ "delivery": "queue" })).await;
        assert_eq!(other.code(), (409, "idempotency_key_reused"));
    }
    assert_eq!(api.events(session).await.len(), events);
}

#[tokio::test]
async fn commands_to_a_session_are_answered_again_by_the_session_itself() {
    let mut product = Product::with_script(&commands(&[("wait", "sleep 600")]));
    let api = start_with_answer(&mut product).await;
    let session = api.create_session("answer").await;
    let first = set(&api, &session, "one", json!({ "delivery": "insert" })).await;
    assert_eq!((first.status, first.is_replayed), (200, false), "{}", first.body);
    // What changes nothing has a receipt, too: repeated after somebody changed it back, it must not do it again.
    let unchanged = set(&api, &session, "two", json!({ "delivery": "insert" })).await;
    assert_eq!((unchanged.status, unchanged.is_replayed), (200, false));
    assert_eq!(
        set(&api, &session, "three", json!({ "delivery": "queue" }))
            .await
            .status,
        200
    );
    // Of many at once one is carried out, and all hear the same.
    let racing = (0..20).map(|_| set(&api, &session, "race", json!({ "title": "Raced" })));
    let answers = futures_util::future::join_all(racing).await;
    let done = answers.iter().filter(|answer| !answer.is_replayed).count();
    assert_eq!(done, 1);
    for answer in &answers {
        assert_eq!((answer.status, &answer.body), (200, &answers[0].body));
    }
    assert_eq!(api.prompt(&session, "wait", "wait").await.0, 202);
    let stop = format!("/v1/sessions/{session}/stop");
    let stopped = send(&api, Method::POST, &stop, "stop", json!({})).await;
    assert_eq!(
        (stopped.status, stopped.is_replayed),
        (202, false),
        "{}",
        stopped.body
    );
    api.wait_for_turns(&session, 1).await;
    let before = api.events(&session).await.len();

    repeated(&api, &session, &first.body, before).await;
    product.kill();
    let api = product.start().await;
    repeated(&api, &session, &first.body, before).await;
    product.stop();
}

#[tokio::test]
async fn of_many_at_once_one_is_done_and_a_crash_in_the_middle_is_said() {
    let mut product = Product::with_script(&commands(&[("nothing", "true")]));
    let kill_file = product.root().join("kill-at");
    product.set_env("GREENROOM_TEST_KILL_FILE", kill_file.to_str().unwrap());
    let api = start_with_answer(&mut product).await;
    let racing = (0..20).map(|_| add(&api, "race", "raced"));
    let answers = futures_util::future::join_all(racing).await;
    let done = answers
        .iter()
        .filter(|answer| answer.status == 201 && !answer.is_replayed)
        .count();
    assert_eq!(done, 1);
    for answer in &answers {
        assert!(
            answer.status == 201 || answer.code() == (409, "command_running"),
            "{}",
            answer.body
        );
    }
    // Whoever goes away does not undo it.
    let left = tokio::time::timeout(Duration::from_millis(1), add(&api, "left", "left")).await;
    drop(left);
    let deadline = Instant::now() + Duration::from_secs(20);
    while api.get("/v1/repositories/left").await.0 != 200 {
        // Perhaps it had not even been sent.
        assert!(Instant::now() < deadline, "it was not carried out");
        tokio::time::sleep(Duration::from_millis(50)).await;
        let again = add(&api, "left", "left").await;
        assert!(
            again.status == 201 || again.code() == (409, "command_running"),
            "{}",
            again.body
        );
    }

    std::fs::write(&kill_file, "command.done").unwrap();
    let request = api
        .request(Method::POST, "/v1/repositories")
        .header("idempotency-key", "cut");
    let cut = request.json(&json!({"name": "cut"})).send().await;
    assert!(cut.is_err(), "the server ends before it answers");
    while !product.has_ended() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    std::fs::remove_file(&kill_file).unwrap();
    let api = product.start().await;
    let again = add(&api, "cut", "cut").await;
    assert_eq!(again.code(), (409, "command_interrupted"));
    assert!(again.body["hint"].is_string());
    assert_eq!(
        api.get("/v1/repositories/cut").await.0,
        200,
        "which it was: done, but not said"
    );
    product.stop();
}
