//! A session of any length opens at its end: an overview, what came after it, and what came before in parts when somebody asks.

use crate::script::add;
use futures_util::StreamExt as _;
use greenroom_system_tests::api::{Api, assert_gapless, is_event};
use greenroom_system_tests::product::Product;
use greenroom_system_tests::repo;
use reqwest::header::ACCEPT;
use serde_json::{Value, json};

/// Reads in one step, and steps in one turn.
const READS: usize = 40;
const STEPS: usize = 12;
const TURNS: usize = 3;

fn script() -> String {
    let call = "[[script.step.call]]\ntool = \"read\"\narguments = { path = \"README.md\" }\n";
    let step = format!("[[script.step]]\nsay = \"Reading.\"\n{}", call.repeat(READS));
    format!(
        "[[script]]\nname = \"long\"\nprompt_contains = \"read\"\n{}[[script.step]]\nsay = \"Read.\"\n",
        step.repeat(STEPS)
    )
}

async fn long_session(product: &mut Product) -> (Api, String) {
    let source = repo::with_files(product.root(), "shop", &[("README.md", "A shop.\n")]);
    let api = product.start().await;
    add(&api, "shop", &source).await;
    let session = api.start_session("shop", "read it all").await;
    let mut stream = api.stream(&session, 0).await;
    for turn in 1..=TURNS {
        stream.until(|frame| is_event(frame, "turn.completed")).await;
        if turn < TURNS {
            let key = format!("again-{turn}");
            assert_eq!(api.prompt(&session, &key, "read it again").await.0, 202);
        }
    }
    (api, session)
}

/// The session as somebody opens it: the overview, if one came, and the events behind it.
async fn opened(api: &Api, session: &str) -> (Option<Value>, Vec<Value>) {
    let mut stream = api.stream_with(session, "recent=true").await;
    let frames = stream.until(|frame| frame["frame"] == "caught_up").await;
    assert_eq!(frames[0]["frame"], "hello");
    let overview = frames
        .iter()
        .position(|frame| frame["frame"] == "overview")
        .map(|at| {
            assert_eq!(at, 1, "before every event");
            frames[at]["overview"].clone()
        });
    let events = frames.iter().filter(|frame| frame["frame"] == "event");
    (overview, events.map(|frame| frame["event"].clone()).collect())
}

/// Everything there is, read backwards from where it was opened; how many parts it took.
async fn read_back(api: &Api, session: &str) -> (Vec<Value>, usize) {
    let (overview, mut events) = opened(api, session).await;
    let mut before = overview.map_or(0, |overview| overview["seq"].as_u64().unwrap());
    let mut parts = 0;
    while before > 0 {
        assert_eq!(events[0]["seq"], before + 1);
        let part = api
            .must_get(&format!("/v1/sessions/{session}/history?before={before}"))
            .await;
        let mut earlier = part["events"].as_array().unwrap().clone();
        assert_eq!(earlier.last().unwrap()["seq"], before);
        before = part["overview"]["seq"].as_u64().unwrap_or(0);
        earlier.append(&mut events);
        events = earlier;
        parts += 1;
    }
    (events, parts)
}

#[tokio::test]
async fn a_long_session_opens_at_its_end_and_is_read_backwards_to_its_start() {
    let mut product = Product::with_script(&script());
    let (api, session) = long_session(&mut product).await;
    let all = api.events(&session).await;
    assert!(all.len() > 2_500, "{}", all.len());
    assert_gapless(&all);

    let (overview, events) = opened(&api, &session).await;
    let overview = overview.expect("it is long");
    assert!(events.len() < all.len() / 2, "{} of {}", events.len(), all.len());
    assert_eq!(overview["session"]["id"], session.as_str());
    assert_eq!(
        overview["seq"].as_u64().unwrap() + 1,
        events[0]["seq"].as_u64().unwrap()
    );
    // A part begins with a turn, whose prompt is known.
    assert_eq!(events[0]["type"], "turn.started");
    assert_eq!(overview["queued"][0]["text"], "read it again");
    assert_eq!(overview["sandbox"]["state"], "ready", "{overview}");
    let (whole, parts) = read_back(&api, &session).await;
    assert!(
        whole == all && parts >= 2,
        "{parts} parts, {} events",
        whole.len()
    );

    // Whoever was there before goes on where they were, and gets no overview.
    let mut stream = api
        .stream_with(&session, &format!("recent=true&after={}", all.len() - 2))
        .await;
    let frames = stream.until(|frame| frame["frame"] == "caught_up").await;
    let kinds: Vec<_> = frames
        .iter()
        .map(|frame| frame["frame"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["hello", "event", "event", "session", "caught_up"]);

    // The second transport, and guests.
    let link = api
        .must_post(
            &format!("/v1/sessions/{session}/links"),
            json!({ "kind": "share" }),
        )
        .await;
    let token = link["url"]
        .as_str()
        .unwrap()
        .split_once("#token=")
        .unwrap()
        .1
        .to_owned();
    let guest = api.with_token(&token);
    assert_eq!(read_back(&guest, &session).await.0, all);
    let streamed = guest
        .request(
            reqwest::Method::GET,
            &format!("/v1/sessions/{session}/stream?recent=true"),
        )
        .header(ACCEPT, "text/event-stream")
        .send()
        .await
        .unwrap();
    let (mut said, mut chunks) = (String::new(), streamed.bytes_stream());
    while !said.contains("\"frame\":\"overview\"") {
        said += &String::from_utf8_lossy(&chunks.next().await.unwrap().unwrap());
        assert!(!said.contains("\"frame\":\"event\""), "{said}");
    }
    drop(chunks);

    // What cannot be asked for.
    let (stranger, _) = api.add_person("Eve").await;
    api.patch(&format!("/v1/sessions/{session}"), json!({ "access": "members" }))
        .await;
    for (who, query, expected) in [
        (&api, "before=1000000".to_owned(), (422, "cursor_ahead")),
        (&api, "before=x".to_owned(), (422, "query_invalid")),
        (&api, "before=-1".to_owned(), (422, "query_invalid")),
        (&api, String::new(), (422, "query_invalid")),
        (&stranger, "before=1".to_owned(), (404, "session_unknown")),
    ] {
        let (status, problem) = who.get(&format!("/v1/sessions/{session}/history?{query}")).await;
        assert_eq!(
            (status, problem["code"].as_str().unwrap_or_default()),
            expected,
            "{query}"
        );
    }
    let nothing = api
        .must_get(&format!("/v1/sessions/{session}/history?before=0"))
        .await;
    assert_eq!(nothing, json!({ "events": [] }));
    product.stop();
}

#[tokio::test]
async fn views_survive_kills_and_are_made_again_when_they_are_lost() {
    let mut product = Product::with_script(&script());
    let (api, session) = long_session(&mut product).await;
    let all = api.events(&session).await;
    drop(api);
    product.kill();
    let api = product.start().await;
    assert_eq!(read_back(&api, &session).await.0, all);
    product.kill();
    let place = format!("sessions/{}/{session}/session.db", &session[session.len() - 2..]);
    let file = product.data_dir().join(place);
    let before: u64 = {
        let log = rusqlite::Connection::open(&file).unwrap();
        let count = log
            .query_row("SELECT count(*) FROM views", [], |row| row.get(0))
            .unwrap();
        log.execute_batch(
            "DELETE FROM views WHERE seq < (SELECT max(seq) FROM views); UPDATE views SET body = '{'",
        )
        .unwrap();
        count
    };
    assert!(before >= 2, "{before}");
    product.expect_warning("a view cannot be read");
    let api = product.start().await;
    let (events, parts) = read_back(&api, &session).await;
    assert!(events == all && parts >= 2, "{parts}");
    // It is a session as any other.
    assert_eq!(api.prompt(&session, "more", "read more").await.0, 202);
    let events = api.wait_for_turns(&session, TURNS + 1).await;
    assert_gapless(&events);
    product.stop();
}
