//! kill -9 under load: several sessions at work, each with somebody who sends commands, twice, at once and out of order, until each is
//! answered, and with somebody who watches and comes back. At the end all databases, and a client that was not there, agree on what was accepted.

use crate::invariants;
use crate::script::start_with_answer;
use greenroom_system_tests::api::{Api, assert_gapless, of_type, pretty};
use greenroom_system_tests::product::Product;
use greenroom_system_tests::random::{Random, cycles};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::watch;

const SCRIPT: &str = r#"
[[script]]
name = "run"
prompt_contains = "run"
[[script.step]]
[[script.step.call]]
tool = "bash"
arguments = { command = "echo ran" }
[[script.step]]
say = "Ran."

[[script]]
name = "say"
prompt_contains = "say"
[[script.step]]
say = "Said."
"#;

const SESSIONS: usize = 5;

/// The server that runs now, if one does; its sender goes when nothing more is to be sent.
type Server = watch::Receiver<Option<Api>>;

/// The next server that is up.
async fn up(server: &mut Server) -> Api {
    loop {
        let found = server.borrow_and_update().clone();
        match found {
            Some(api) => return api,
            None => server.changed().await.expect("a server comes"),
        }
    }
}

/// Asks under the key until there is an answer that stays.
async fn ask(server: &mut Server, method: Method, path: &str, key: &str, body: &Value) -> (u16, Value) {
    loop {
        let api = up(server).await;
        let request = api.request(method.clone(), path).header("idempotency-key", key);
        let (status, answer) = api.send(request.json(body)).await;
        match status {
            // Cut off, perhaps behind the answer's head; or there is no room now.
            0 | 429 | 503 => tokio::time::sleep(Duration::from_millis(10)).await,
            200..=202 if answer.is_string() => {}
            409 if answer["code"] == "command_running" => {}
            _ => return (status, answer),
        }
    }
}

/// What one person was told.
#[derive(Default)]
struct Told {
    /// Number of the event of each prompt, by its key.
    queued: BTreeMap<String, u64>,
    /// Prompts that were taken back.
    cancelled: Vec<String>,
    title: Option<String>,
}

/// Sends commands to one session until `is_over`.
async fn send(
    mut server: Server,
    session: String,
    mut random: Random,
    is_over: watch::Receiver<bool>,
) -> Told {
    let mut told = Told::default();
    let prompts = format!("/v1/sessions/{session}/prompts");
    for number in 0.. {
        if *is_over.borrow() {
            break;
        }
        let text = match number % 8 {
            0 => format!("run {number}"),
            _ => format!("say {number}"),
        };
        let (key, body) = (format!("prompt-{number}"), json!({ "text": text }));
        match random.below(6) {
            0 => {
                let (title, key) = (format!("Title {number}"), format!("title-{number}"));
                let path = format!("/v1/sessions/{session}");
                let (status, answer) = ask(
                    &mut server,
                    Method::PATCH,
                    &path,
                    &key,
                    &json!({ "title": title }),
                )
                .await;
                assert_eq!(status, 200, "{answer}");
                told.title = Some(title);
                continue;
            }
            // The same twice at once, and one that overtakes it.
            1 => {
                let (mut second, mut third) = (server.clone(), server.clone());
                let (other_key, other) = (
                    format!("other-{number}"),
                    json!({ "text": format!("say other {number}") }),
                );
                let answers = tokio::join!(
                    ask(&mut server, Method::POST, &prompts, &key, &body),
                    ask(&mut second, Method::POST, &prompts, &key, &body),
                    ask(&mut third, Method::POST, &prompts, &other_key, &other)
                );
                assert_eq!(answers.0, answers.1);
                note(&mut told, key, &answers.0);
                note(&mut told, other_key, &answers.2);
            }
            // One that is taken back, unless it runs already.
            2 => {
                let answer = ask(&mut server, Method::POST, &prompts, &key, &body).await;
                let id = answer.1["prompt_id"].as_str().expect("an id").to_owned();
                note(&mut told, key, &answer);
                let (path, key) = (format!("{prompts}/{id}"), format!("cancel-{number}"));
                let (status, answer) = ask(&mut server, Method::DELETE, &path, &key, &json!({})).await;
                match status {
                    200..=299 => told.cancelled.push(id),
                    _ => assert_eq!(status, 409, "{answer}"),
                }
            }
            _ => {
                let answer = ask(&mut server, Method::POST, &prompts, &key, &body).await;
                note(&mut told, key, &answer);
            }
        }
        tokio::time::sleep(Duration::from_millis(random.below(40))).await;
    }
    told
}

fn note(told: &mut Told, key: String, (status, answer): &(u16, Value)) {
    assert_eq!(*status, 202, "{key}: {answer}");
    told.queued.insert(key, answer["seq"].as_u64().expect("a number"));
}

/// Watches a session, from where it was after each break, until `is_over`.
async fn watch_all(mut server: Server, session: String, mut is_over: watch::Receiver<bool>) -> Vec<Value> {
    let mut seen: Vec<Value> = Vec::new();
    loop {
        let api = up(&mut server).await;
        let after = format!("after={}", seen.len());
        let Some(mut stream) = api.try_stream(&session, &after).await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        loop {
            let frame = tokio::select! {
                frame = stream.next() => frame,
                _ = is_over.wait_for(|is_over| *is_over) => return seen,
            };
            let Some(frame) = frame else { break };
            if frame["frame"] == "event" {
                let event = frame["event"].clone();
                assert_eq!(event["seq"].as_u64(), Some(seen.len() as u64 + 1), "{event}");
                seen.push(event);
            }
        }
    }
}

/// Every prompt ended in exactly one way.
fn is_settled(events: &[Value]) -> bool {
    let ends = of_type(events, "turn.completed").len() + of_type(events, "prompt.cancelled").len();
    ends == of_type(events, "prompt.queued").len()
}

fn check(told: &Told, events: &[Value], kills: usize) {
    assert_gapless(events);
    let mut keys = BTreeMap::new();
    for queued in of_type(events, "prompt.queued") {
        let (key, seq) = (queued["key"].as_str().expect("a key"), queued["seq"].as_u64());
        assert_eq!(
            keys.insert(key.to_owned(), seq.expect("a number")),
            None,
            "{key} came twice"
        );
    }
    assert_eq!(keys, told.queued, "what was accepted, and nothing else");
    let mut ends: BTreeMap<&str, &str> = BTreeMap::new();
    for kind in ["turn.completed", "prompt.cancelled"] {
        for end in of_type(events, kind) {
            let id = end["prompt_id"].as_str().expect("an id");
            assert_eq!(ends.insert(id, kind), None, "{id} ended twice");
        }
    }
    for id in &told.cancelled {
        assert_eq!(ends[id.as_str()], "prompt.cancelled", "{id}");
    }
    for end in of_type(events, "turn.completed") {
        assert_eq!(
            end["outcome"]["result"],
            "completed",
            "after {kills} kills: {}",
            pretty(events)
        );
    }
}

#[tokio::test]
async fn nothing_accepted_is_lost_or_doubled_by_kills_under_load() {
    let kills = cycles(12);
    let mut random = Random::new();
    let mut product = Product::with_script(SCRIPT);
    let api = start_with_answer(&mut product).await;
    let mut sessions = Vec::new();
    for _ in 0..SESSIONS {
        sessions.push(api.create_session("answer").await);
    }
    let (publish, server) = watch::channel(Some(api));
    let (end_sending, sending_is_over) = watch::channel(false);
    let (end_watching, watching_is_over) = watch::channel(false);
    let mut senders = Vec::new();
    let mut watchers = Vec::new();
    for session in &sessions {
        senders.push(tokio::spawn(send(
            server.clone(),
            session.clone(),
            random.branch(),
            sending_is_over.clone(),
        )));
        watchers.push(tokio::spawn(watch_all(
            server.clone(),
            session.clone(),
            watching_is_over.clone(),
        )));
    }
    for _ in 0..kills {
        let longest = [20, 100, 500, 1_500][random.below(4) as usize];
        tokio::time::sleep(Duration::from_millis(random.below(longest))).await;
        publish.send_replace(None);
        product.kill();
        publish.send_replace(Some(product.start().await));
    }
    end_sending.send_replace(true);
    let mut told = Vec::new();
    for sender in senders {
        told.push(sender.await.expect("the sender"));
    }
    let api = server.borrow().clone().expect("it runs");
    let mut accepted = 0;
    let mut all = Vec::new();
    for (session, told) in sessions.iter().zip(&told) {
        let events = api.wait_for(session, "end of all prompts", is_settled).await;
        check(told, &events, kills);
        let row = api.must_get(&format!("/v1/sessions/{session}")).await;
        if let Some(title) = &told.title {
            assert_eq!(row["title"], title.as_str());
        }
        accepted += told.queued.len();
        all.push(events);
    }
    assert!(accepted > kills, "next to nothing was accepted: {accepted}");
    // Who watched all the time, and who comes now, see the same.
    let stranger = Api::new(&api.url, &api.token);
    for (session, known) in sessions.iter().zip(&mut all) {
        let mut stream = stranger.stream(session, 0).await;
        let frames = stream.until(|frame| frame["frame"] == "caught_up").await;
        let events = frames.into_iter().filter(|frame| frame["frame"] == "event");
        let events: Vec<_> = events.map(|mut frame| frame["event"].take()).collect();
        assert_eq!(events[..known.len()], known[..]);
        *known = events;
    }
    end_watching.send_replace(true);
    for (watcher, events) in watchers.into_iter().zip(&all) {
        let seen = watcher.await.expect("the watcher");
        assert_eq!(seen[..], events[..seen.len()], "what was shown stays");
        assert!(
            seen.len() + 3 > events.len(),
            "{} of {}",
            seen.len(),
            events.len()
        );
    }
    eprintln!("{kills} kills, {accepted} prompts accepted");
    product.stop();
    invariants::hold(&product.data_dir());
}
