//! A session of hostile size: a full queue of the longest prompts, large images, endless output, and everybody who looks at it at once. It is
//! served, in bounded memory, and nobody else is kept waiting for it.

use crate::attachments::picture;
use crate::invariants;
use crate::script::start_with_answer;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use greenroom_system_tests::api::{Api, assert_gapless, is_event, of_type};
use greenroom_system_tests::product::Product;
use serde_json::{Value, json};
use std::time::Duration;

const SCRIPT: &str = r#"
[[script]]
name = "hold"
prompt_contains = "hold"
[[script.step]]
[[script.step.call]]
tool = "bash"
arguments = { command = "sleep 600" }

[[script]]
name = "flood"
prompt_contains = "flood"
[[script.step]]
[[script.step.call]]
tool = "bash"
arguments = { command = "yes 0123456789 | head -c 300000000" }
[[script.step]]
say = "Flooded."

[[script]]
name = "say"
prompt_contains = "say"
[[script.step]]
say = "Said."
"#;

const LONGEST_PROMPT: usize = 256 * 1024;
const QUEUED: usize = 100;
const OPENED_AT_ONCE: usize = 20;
/// What the server may take beyond what it had; the queue alone is 26 MB wherever it is held or sent.
const MAX_GROWTH_MB: u64 = 700;

async fn prompt(api: &Api, session: &str, key: &str, body: &Value) -> (u16, Value) {
    let path = format!("/v1/sessions/{session}/prompts");
    let request = api
        .request(reqwest::Method::POST, &path)
        .header("idempotency-key", key);
    api.send(request.json(body)).await
}

/// The most that the server has had so far.
fn peak_mb(product: &Product) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", product.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

#[tokio::test]
async fn a_session_of_hostile_size_is_served_and_harms_nobody() {
    let mut product = Product::with_script(SCRIPT);
    let api = start_with_answer(&mut product).await;
    let hostile = api.start_session("answer", "hold").await;
    let before_mb = peak_mb(&product);
    let mut stream = api.stream(&hostile, 0).await;
    stream.until(|frame| is_event(frame, "item.started")).await;

    // A queue as full as it gets, of prompts that are mostly quotes, which JSON doubles.
    let long = format!("say {}", "\"".repeat(LONGEST_PROMPT - 4));
    for number in 0..QUEUED {
        let (status, answer) = prompt(
            &api,
            &hostile,
            &format!("long-{number}"),
            &json!({ "text": long }),
        )
        .await;
        assert_eq!(status, 202, "{number}: {answer}");
    }
    let (status, answer) = prompt(&api, &hostile, "one-more", &json!({ "text": "say" })).await;
    assert_eq!(
        (status, answer["code"].as_str()),
        (429, Some("queue_full")),
        "{answer}"
    );

    // Everybody opens it, at once, while somebody works in another session.
    let other = api.create_session("answer").await;
    let opening = (0..OPENED_AT_ONCE).map(|number| {
        let (api, hostile) = (api.clone(), hostile.clone());
        tokio::spawn(async move {
            let query = if number % 2 == 0 { "recent=true" } else { "after=0" };
            let mut stream = api.stream_with(&hostile, query).await;
            let frames = stream.until(|frame| frame["frame"] == "caught_up").await;
            frames.last().unwrap()["last_seq"].as_u64().unwrap()
        })
    });
    let opening: Vec<_> = opening.collect();
    for number in 0..5 {
        assert_eq!(
            api.prompt(&other, &format!("beside-{number}"), "say").await.0,
            202
        );
        api.wait_for_turns(&other, number + 1).await;
    }
    let last_seq = api.must_get(&format!("/v1/sessions/{hostile}")).await["last_seq"].as_u64();
    for opened in opening {
        assert_eq!(Some(opened.await.unwrap()), last_seq);
    }
    let waiting = api.must_get(&format!("/v1/sessions/{hostile}/prompts")).await;
    assert_eq!(waiting["queued"].as_array().unwrap().len(), QUEUED);

    // Killed with all of it in hand, it goes on with all of it.
    product.kill();
    let api = product.start().await;
    let waiting = api.must_get(&format!("/v1/sessions/{hostile}/prompts")).await;
    assert_eq!(waiting["queued"].as_array().unwrap().len(), QUEUED);
    let first = waiting["queued"][0]["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/sessions/{hostile}/prompts/{first}");
    for taken in waiting["queued"].as_array().unwrap() {
        let path = format!("/v1/sessions/{hostile}/prompts/{}", taken["id"].as_str().unwrap());
        assert_eq!(api.delete(&path).await.0, 204);
    }
    assert_eq!(api.delete(&path).await.0, 409, "it is gone");
    let (status, _) = api.post(&format!("/v1/sessions/{hostile}/stop"), json!({})).await;
    assert_eq!(status, 202);

    // Images as large as they get, and a program that does not stop writing.
    let picture = picture(&[7; 5 * 1024 * 1024 - 100]);
    let image = json!({ "media_type": "image/png", "data_base64": STANDARD.encode(&picture) });
    let body = json!({ "text": "flood", "images": vec![image; 4] });
    let (status, answer) = prompt(&api, &hostile, "flood", &body).await;
    assert_eq!(status, 202, "{answer}");
    let events = api
        .wait_for(&hostile, "end of both turns", |events| {
            of_type(events, "turn.completed").len() == 2
        })
        .await;
    assert_gapless(&events);
    let end = &of_type(&events, "turn.completed")[1]["outcome"];
    assert_eq!(end["result"], "completed", "{end}");
    let output = of_type(&events, "item.completed")
        .iter()
        .filter_map(|event| event["item"]["output"].as_str())
        .map(str::len)
        .max();
    assert!(output.unwrap() <= 64 * 1024 + 200, "{output:?}");
    let grown = peak_mb(&product).saturating_sub(before_mb);
    eprintln!("the server took {grown} MB more than before");
    assert!(grown < MAX_GROWTH_MB, "{grown} MB");
    tokio::time::sleep(Duration::from_millis(200)).await;
    product.stop();
    invariants::hold(&product.data_dir());
}
