//! A session of which nothing is asked leaves memory. Whoever watches stays connected, and it wakes when something is asked.

use crate::script::{FIX, start_with_answer};
use greenroom_system_tests::api::{Api, is_event, of_type, pretty};
use greenroom_system_tests::product::Product;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const HELLO: &str = r#"
[[script]]
name = "hello"
prompt_contains = "hello"
[[script.step]]
say = "Hello."
"#;

/// A server whose sessions sleep after a second, and of whose sandboxes only one runs at a time.
fn sleepy(script: &str) -> Product {
    let mut product = Product::with_config(script, "[sandbox]\nmax_running = 1\n");
    product.set_env("GREENROOM_SESSION_IDLE_SECONDS", "1");
    product
}

async fn awake(api: &Api) -> usize {
    let text = api.text("/metrics").await;
    let count = text
        .lines()
        .find_map(|line| line.strip_prefix("greenroom_sessions_awake "));
    count.expect("the metric").parse().expect("a number")
}

async fn wait_until_awake(api: &Api, expected: usize) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while awake(api).await != expected {
        assert!(Instant::now() < deadline, "not {expected}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn who_watches_a_session_that_sleeps_hears_of_what_wakes_it() {
    // Its sandbox may have started before the turn was over, and then rests first.
    let config = "[sandbox]\nmax_running = 1\nidle_minutes = 0.02\n";
    let mut product = Product::with_config(HELLO, config);
    product.set_env("GREENROOM_SESSION_IDLE_SECONDS", "1");
    let api = start_with_answer(&mut product).await;
    let (ada, ada_id) = api.add_person("Ada").await;
    let session = api.create_session("answer").await;
    let mut stream = api.stream(&session, 0).await;
    stream.until(|frame| frame["frame"] == "caught_up").await;
    wait_until_awake(&api, 0).await;

    // Who watches, and who else comes to watch, is told without waking it; what was there is replayed from disk.
    stream.say(json!({ "frame": "presence", "is_away": true })).await;
    stream
        .until(|frame| frame["presence"]["watching"][0]["is_away"] == true)
        .await;
    assert_eq!(awake(&api).await, 0, "who watches how wakes nobody");

    // Each of these wakes it, and all who watch hear of it.
    let path = format!("/v1/sessions/{session}");
    assert_eq!(api.patch(&path, json!({ "title": "Awake" })).await.0, 200);
    stream.until(|frame| is_event(frame, "session.titled")).await;
    wait_until_awake(&api, 0).await;
    assert_eq!(api.prompt(&session, "one", "hello").await.0, 202);
    let frames = stream.until(|frame| is_event(frame, "turn.completed")).await;
    assert!(
        frames.iter().all(|frame| frame["frame"] != "closing"),
        "{}",
        pretty(&frames)
    );

    // Rights are looked at while it sleeps, too: by the row as it was last told.
    let other = api.create_session("answer").await;
    let watching = ada.stream(&other, 0).await;
    let mut watching = watching;
    watching.until(|frame| frame["frame"] == "caught_up").await;
    wait_until_awake(&api, 0).await;
    assert_eq!(api.delete(&format!("/v1/people/{ada_id}")).await.0, 204);
    let frames = watching.until(|frame| frame["frame"] == "closing").await;
    assert_eq!(frames.last().unwrap()["problem"]["code"], "sign_in_required");
    assert_eq!(awake(&api).await, 0, "nor does who may watch");
    product.stop();
}

#[tokio::test]
async fn a_session_goes_on_after_sleep_with_its_files_and_its_conversation() {
    let script = r#"
[[script]]
name = "note"
prompt_contains = "note"
[[script.step]]
[[script.step.call]]
tool = "bash"
arguments = { command = "echo kept > note.txt; echo home > /home/agent/note" }
[[script.step]]
say = "Noted."

[[script]]
name = "recall"
prompt_contains = "recall"
[[script.step]]
[[script.step.call]]
tool = "bash"
arguments = { command = "cat note.txt /home/agent/note" }
[[script.step]]
expect_result_contains = "home"
say = "Still there."

[[script]]
name = "hello"
prompt_contains = "hello"
[[script.step]]
[[script.step.call]]
tool = "bash"
arguments = { command = "echo hello" }
[[script.step]]
say = "Hello."
"#;
    let mut product = sleepy(script);
    let api = start_with_answer(&mut product).await;
    let session = api.start_session("answer", "Please note this.").await;
    api.wait_for_turns(&session, 1).await;
    // While its sandbox runs it stays; another session takes the only place.
    let other = api.start_session("answer", "hello").await;
    api.wait_for_turns(&other, 1).await;
    wait_until_awake(&api, 1).await;
    let before = api.must_get("/v1/sessions?words=note").await;
    assert_eq!(before["sessions"][0]["state"], "idle", "{before}");

    assert_eq!(api.prompt(&session, "two", "Please recall it.").await.0, 202);
    let events = api.wait_for_turns(&session, 2).await;
    let ends = of_type(&events, "turn.completed");
    assert_eq!(ends[1]["outcome"]["result"], "completed", "{}", pretty(&events));
    let said = of_type(&events, "item.completed");
    assert!(
        said.iter().any(|event| event["item"]["text"] == "Still there."),
        "{}",
        pretty(&events)
    );
    let pushed = of_type(&events, "change.pushed");
    assert_eq!(pushed.len(), 1, "nothing is pushed twice: {}", pretty(&events));
    product.stop();
}

#[tokio::test]
async fn nothing_is_lost_that_comes_while_a_session_falls_asleep() {
    let mut product = sleepy(FIX);
    let api = start_with_answer(&mut product).await;
    let sessions: Vec<String> = {
        let mut sessions = Vec::new();
        for _ in 0..20 {
            sessions.push(api.create_session("answer").await);
        }
        sessions
    };
    // Asked again and again around the moment in which they fall asleep.
    let began = Instant::now();
    let mut asking = Vec::new();
    for (number, session) in sessions.iter().cloned().enumerate() {
        let api = api.clone();
        asking.push(tokio::spawn(async move {
            let mut titles = 0;
            for round in 0..8_u64 {
                let at = Duration::from_millis(1_000 * (round + 1) + number as u64 * 2);
                tokio::time::sleep(at.saturating_sub(began.elapsed())).await;
                let body = json!({ "title": format!("Round {round}") });
                let (status, answer) = api.patch(&format!("/v1/sessions/{session}"), body).await;
                assert_eq!(status, 200, "{answer}");
                titles += 1;
            }
            titles
        }));
    }
    for (asked, session) in asking.into_iter().zip(&sessions) {
        let titles = asked.await.unwrap();
        let events: Vec<Value> = api.events(session).await;
        assert_eq!(
            of_type(&events, "session.titled").len(),
            titles,
            "{}",
            pretty(&events)
        );
    }
    wait_until_awake(&api, 0).await;
    product.kill();
    let api = product.start().await;
    for session in &sessions {
        let shown = api.must_get(&format!("/v1/sessions/{session}")).await;
        assert_eq!(shown["title"], "Round 7");
    }
    product.stop();
}
