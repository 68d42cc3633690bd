//! Two clients on one session: both see the same, whenever they come.

use crate::script::{FIX, has_running_command, start_with_answer};
use greenroom_system_tests::api::{is_event, of_type, pretty};
use greenroom_system_tests::product::Product;
use reqwest::Method;
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

#[tokio::test]
async fn what_waits_can_be_rewritten_and_put_in_another_order() {
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
    let mut ids = Vec::new();
    for name in ["one", "two", "three"] {
        let (status, receipt) = api.prompt(&session, name, &format!("hello {name}")).await;
        assert_eq!(status, 202, "{receipt}");
        ids.push(receipt["prompt_id"].as_str().unwrap().to_owned());
    }
    let change = async |id: &str, body: Value| {
        let path = format!("/v1/sessions/{session}/prompts/{id}");
        let (status, answer) = api.send(api.request(Method::PATCH, &path).json(&body)).await;
        (status, answer["code"].as_str().unwrap_or_default().to_owned())
    };
    let done = (204, String::new());
    assert_eq!(change(&ids[2], json!({"position": 0})).await, done);
    assert_eq!(
        change(&ids[0], json!({"position": 99, "text": "hello again"})).await,
        done
    );
    // What is so already is no event.
    let before = api.events(&session).await.len();
    assert_eq!(
        change(&ids[0], json!({"position": 2, "text": "hello again"})).await,
        done
    );
    assert_eq!(api.events(&session).await.len(), before);
    for (id, body, expected) in [
        (&ids[0], json!({}), (422, "prompt_unchanged")),
        (&ids[0], json!({"text": "  "}), (422, "prompt_empty")),
        (
            &ids[0],
            json!({"text": "x".repeat(1 << 20)}),
            (413, "prompt_too_large"),
        ),
        (&ids[0], json!({"position": -1}), (422, "body_invalid")),
        (&ids[0], json!({"model": "other"}), (422, "body_invalid")),
        (
            &"prm_x".to_owned(),
            json!({"position": 0}),
            (409, "prompt_not_queued"),
        ),
    ] {
        let (status, code) = change(id, body.clone()).await;
        assert_eq!(
            (status, code.as_str()),
            expected,
            "{}",
            body.to_string().chars().take(80).collect::<String>()
        );
    }
    // On disk like everything else.
    api.wait_for(&session, "a running command", has_running_command)
        .await;
    product.kill();
    let api = product.start().await;
    let running = of_type(&api.events(&session).await, "turn.started")[0]["prompt_id"].clone();
    let path = format!("/v1/sessions/{session}/prompts/{}", running.as_str().unwrap());
    let edit = api
        .request(Method::PATCH, &path)
        .json(&json!({"text": "too late"}));
    assert_eq!(api.send(edit).await.1["code"], "prompt_not_queued");
    api.must_post(&format!("/v1/sessions/{session}/stop"), json!({}))
        .await;
    let events = api.wait_for_turns(&session, 4).await;
    let ran: Vec<_> = of_type(&events, "turn.started")[1..]
        .iter()
        .map(|event| event["prompt_id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        ran,
        [ids[2].clone(), ids[1].clone(), ids[0].clone()],
        "{}",
        pretty(&events)
    );
    product.stop();
}

/// Reads server-sent events: the id, if there is one, and the frame.
struct ServerSent {
    response: reqwest::Response,
    text: String,
}

impl ServerSent {
    async fn open(request: reqwest::RequestBuilder) -> Self {
        let response = request
            .header("accept", "text/event-stream")
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            response,
            text: String::new(),
        }
    }

    /// `None`: the server ended it.
    async fn next(&mut self) -> Option<(Option<u64>, Value)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
                let id = field("id: ").map(|id| id.parse().unwrap());
                let frame = field("data: ").map(|data| serde_json::from_str(data).unwrap());
                self.text = rest.to_owned();
                match frame {
                    Some(frame) => return Some((id, frame)),
                    None => continue,
                }
            }
            let chunk = tokio::time::timeout(std::time::Duration::from_secs(40), self.response.chunk());
            let chunk = chunk.await.expect("nothing comes").unwrap()?;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    async fn until(&mut self, kind: &str) -> Vec<Value> {
        let mut frames = Vec::new();
        while let Some((id, frame)) = self.next().await {
            assert_eq!(id, frame["event"]["seq"].as_u64(), "{frame}");
            let is_last = is_event(&frame, kind);
            frames.push(frame);
            if is_last {
                return events_of(&frames);
            }
        }
        panic!("it ended before {kind}");
    }
}

#[tokio::test]
async fn server_sent_events_tell_the_same_and_go_on_where_the_client_was() {
    let mut product = Product::with_script(FIX);
    let api = start_with_answer(&mut product).await;
    let session = api.create_session("answer").await;
    let path = format!("/v1/sessions/{session}/stream");
    let request = |path: &str| api.request(Method::GET, path);
    let mut early = ServerSent::open(request(&path)).await;
    let mut leaving = ServerSent::open(request(&path)).await;
    api.prompt(&session, "one", "Please fix the answer.").await;
    let first_part = leaving.until("item.completed").await;
    drop(leaving);
    let whole = early.until("turn.completed").await;
    let cursor = first_part.last().unwrap()["seq"].as_u64().unwrap();
    let again = request(&format!("{path}?after=0")).header("last-event-id", cursor);
    let rest = ServerSent::open(again).await.until("turn.completed").await;
    assert_eq!([first_part, rest].concat(), whole);
    let stored = api.events(&session).await;
    assert_eq!(whole[..], stored[..whole.len()]);

    let wrong = request(&path)
        .header("accept", "text/event-stream")
        .header("last-event-id", "x");
    let (status, problem) = api.send(wrong).await;
    assert_eq!((status, problem["code"].as_str()), (422, Some("cursor_invalid")));
    let ahead = request(&format!("{path}?after=100000")).header("accept", "text/event-stream");
    let (status, problem) = api.send(ahead).await;
    assert_eq!((status, problem["code"].as_str()), (422, Some("cursor_ahead")));
    let (status, problem) = api.get(&path).await;
    assert_eq!(
        (status, problem["code"].as_str()),
        (426, Some("upgrade_required"))
    );
    product.stop();
}

/// Who watches, as a frame tells it: names, and whether they are away and write.
fn watching(frame: &Value) -> Vec<(String, bool, bool)> {
    let watching = frame["presence"]["watching"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    watching
        .iter()
        .map(|watcher| {
            let name = watcher["person"]["name"].as_str().unwrap().to_owned();
            (name, watcher["is_away"] == true, !watcher["draft"].is_null())
        })
        .collect()
}

#[tokio::test]
async fn people_see_who_watches_and_who_writes() {
    let mut product = Product::with_script(FIX);
    let api = start_with_answer(&mut product).await;
    let (ada, _) = api.add_person("Ada").await;
    let (grace, _) = api.add_person("Grace").await;
    let session = ada.create_session("answer").await;
    let link = ada
        .must_post(
            &format!("/v1/sessions/{session}/links"),
            json!({ "kind": "share" }),
        )
        .await;
    let guest = api.with_token(link["url"].as_str().unwrap().split_once("#token=").unwrap().1);
    let is = |name: &str, is_away, writes| (name.to_owned(), is_away, writes);

    let mut adas = ada.stream(&session, 0).await;
    adas.until(|frame| watching(frame) == [is("Ada", false, false)])
        .await;
    let mut graces = grace.stream(&session, 0).await;
    adas.until(|frame| watching(frame) == [is("Ada", false, false), is("Grace", false, false)])
        .await;
    let guests = guest.stream(&session, 0).await;
    adas.until(|frame| frame["presence"]["guests"] == 1).await;

    // Another window of the same person is no news to others, but knows as much as they do.
    let mut window = grace.stream(&session, 0).await;
    window
        .until(|frame| watching(frame) == [is("Ada", false, false), is("Grace", false, false)])
        .await;
    drop(window);

    // Who may only watch writes nothing that others hear of; what makes no sense is no reason to end.
    let draft = json!({ "frame": "presence", "draft": { "length": 5, "cursor": 99 } });
    for nonsense in [
        json!({ "frame": "dance" }),
        json!([]),
        json!({ "frame": "presence", "draft": { "length": -1 } }),
    ] {
        graces.say(nonsense).await;
    }
    graces.say(draft.clone()).await;
    graces
        .say(json!({ "frame": "presence", "is_away": true, "draft": { "length": 5, "cursor": 5 } }))
        .await;
    adas.until(|frame| watching(frame) == [is("Ada", false, false), is("Grace", true, false)])
        .await;
    adas.say(draft).await;
    let frames = graces
        .until(|frame| watching(frame).first() == Some(&is("Ada", false, true)))
        .await;
    let told = &frames.last().unwrap()["presence"]["watching"][0]["draft"];
    assert_eq!(
        *told,
        json!({ "length": 5, "cursor": 5 }),
        "a cursor is in its text"
    );
    // A burst is told at most every 100 ms, and its end always.
    for length in 0..200 {
        adas.say(json!({ "frame": "presence", "draft": { "length": length, "cursor": 0 } }))
            .await;
    }
    let frames = graces
        .until(|frame| frame["presence"]["watching"][0]["draft"]["length"] == 199)
        .await;
    assert!(frames.len() < 60, "{} frames", frames.len());
    // Nobody writes for ever.
    graces
        .until(|frame| watching(frame).first() == Some(&is("Ada", false, false)))
        .await;

    drop(graces);
    drop(guests);
    adas.until(|frame| watching(frame) == [is("Ada", false, false)] && frame["presence"]["guests"] == 0)
        .await;
    // Nothing of it is kept.
    let events = ada.events(&session).await;
    assert_eq!(events.len(), 1, "{}", pretty(&events));
    product.stop();
}
