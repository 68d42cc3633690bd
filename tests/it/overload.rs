//! More clients than there is room for: clear answers, and nothing lost.

use crate::invariants;
use crate::script::{add, commands, last_outcome, outputs};
use greenroom_system_tests::api::{Api, assert_gapless, of_type};
use greenroom_system_tests::product::Product;
use greenroom_system_tests::repo;
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(40);

async fn start(product: &mut Product) -> Api {
    let source = repo::with_files(product.root(), "shop", &[("README.md", "A shop.\n")]);
    let api = product.start().await;
    add(&api, "shop", &source).await;
    api
}

fn product() -> Product {
    let hello =
        "\n[[script]]\nname = \"hello\"\nprompt_contains = \"hello\"\n[[script.step]]\nsay = \"Hello.\"\n";
    Product::with_script(&(commands(&[("work", "echo worked")]) + hello))
}

/// This process holds the other end of each connection.
fn raise_open_files() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: a valid limit to be written, and to be read.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit), 0);
        limit.rlim_cur = limit.rlim_max;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
    }
}

#[tokio::test]
async fn a_thousand_clients_that_come_back_at_once_see_the_same() {
    raise_open_files();
    let mut product = product();
    let api = start(&mut product).await;
    let session = api.start_session("shop", "work").await;
    let events = api.wait_for_turns(&session, 1).await;
    let last = events.last().unwrap()["seq"].as_u64().unwrap();
    let clients = (0..1_000).map(|number| {
        let (api, session) = (&api, &session);
        async move {
            let after = number % last;
            let mut stream = api.stream(session, after).await;
            let frames = stream.until(|frame| frame["frame"] == "caught_up").await;
            let seqs = frames.iter().filter(|frame| frame["frame"] == "event");
            let seqs: Vec<_> = seqs
                .map(|frame| frame["event"]["seq"].as_u64().unwrap())
                .collect();
            assert!(seqs.iter().copied().eq(after + 1..=last), "{after}: {seqs:?}");
            stream
        }
    });
    let mut streams = futures_util::future::join_all(clients).await;
    // All of them hear of what comes then, once.
    assert_eq!(api.prompt(&session, "again", "work").await.0, 202);
    let hear = streams.iter_mut().map(|stream| async move {
        let frames = stream
            .until(|frame| frame["event"]["type"] == "turn.completed")
            .await;
        let seqs = frames.iter().filter(|frame| frame["frame"] == "event");
        let seqs: Vec<_> = seqs
            .map(|frame| frame["event"]["seq"].as_u64().unwrap())
            .collect();
        assert!(
            seqs.iter().copied().eq(last + 1..=last + seqs.len() as u64),
            "{seqs:?}"
        );
    });
    futures_util::future::join_all(hear).await;
    product.stop();
}

/// The events of a session's only turn, asked for until there is room to look.
async fn turn_of(api: &Api, session: &str) -> Vec<Value> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (status, mut answer) = api
            .get(&format!("/v1/sessions/{session}/events?after=0&limit=200"))
            .await;
        if let Value::Array(events) = answer["events"].take()
            && !of_type(&events, "turn.completed").is_empty()
        {
            return events;
        }
        let is_clear = status == 200 || status == 503 && answer["code"] == "server_busy";
        assert!(is_clear && Instant::now() < deadline, "{status} {answer}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_server_short_of_descriptors_refuses_clearly_and_loses_nothing() {
    const SESSIONS: usize = 100;
    raise_open_files();
    let mut product = product();
    // Its own files and connections, with next to nothing for the databases of so many sessions at once.
    product.limit_open_files(230);
    for part in [
        "connection",
        "descriptor",
        "server_busy",
        "out of date",
        "open files",
        "Too many",
        "cannot",
        "could not",
        "request failed",
        "effect",
    ] {
        product.expect_warning(part);
    }
    let api = start(&mut product).await;
    let mut sessions = Vec::new();
    for _ in 0..SESSIONS {
        sessions.push(api.create_session("shop").await);
    }
    let sent = sessions.iter().map(|session| {
        let api = Api::new(&api.url, &api.token);
        async move {
            let deadline = Instant::now() + PATIENCE;
            loop {
                let (status, answer) = api.prompt(session, "say", "hello").await;
                match status {
                    202 => return,
                    503 | 429 => assert!(answer["code"].is_string(), "{answer}"),
                    // Closed without an answer: there was none to be had.
                    0 => {}
                    _ => panic!("{status} {answer}"),
                }
                assert!(Instant::now() < deadline, "never accepted: {status} {answer}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    });
    futures_util::future::join_all(sent).await;
    for session in &sessions {
        let events = turn_of(&api, session).await;
        assert_gapless(&events);
        assert_eq!(of_type(&events, "prompt.queued").len(), 1);
        // One that could not go on for want of descriptors says so, and may be tried again.
        let outcome = &last_outcome(&events);
        let problem = &outcome["problem"];
        let is_said = problem["code"] == "server_busy" && problem["retryable"] == true;
        assert!(outcome["result"] == "completed" || is_said, "{outcome}");
    }
    product.stop();
    invariants::hold(&product.data_dir());
}

#[tokio::test]
async fn who_finds_no_room_is_told_to_come_back_and_nothing_is_lost() {
    let mut product = product();
    product.limit_open_files(600);
    let api = start(&mut product).await;
    let session = api.create_session("shop").await;
    let mut watching = api.stream(&session, 0).await;
    watching.until(|frame| frame["frame"] == "caught_up").await;
    let address = api.url.strip_prefix("http://").unwrap().to_owned();

    // Heads of requests that never end, until there is no room for more.
    let half = |end: &[u8]| {
        let mut socket = TcpStream::connect(&address).unwrap();
        socket.write_all(b"GET /v1/me HTTP/1.1\r\nhost: ").unwrap();
        socket.write_all(end).unwrap();
        socket
    };
    let mut held: Vec<_> = (0..400).map(|_| half(b"")).collect();
    let stranger = Api::new(&api.url, &api.token);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (status, answer) = stranger.get("/v1/me").await;
        if status == 503 {
            assert_eq!(answer["code"], "server_busy", "{answer}");
            break;
        }
        assert!(Instant::now() < deadline, "{status} {answer}");
    }
    let mut refused = String::new();
    half(b"x\r\n\r\n").read_to_string(&mut refused).unwrap();
    let expected = "HTTP/1.1 503 Service Unavailable\r\n";
    assert!(
        refused.starts_with(expected) && refused.contains("\r\nretry-after: 1\r\n"),
        "{refused}"
    );
    let (status, busy) = stranger.prompt(&session, "work", "work").await;
    assert_eq!(
        (status, busy["code"].as_str()),
        (503, Some("server_busy")),
        "{busy}"
    );

    // When some go, what was refused is done once, and whoever watched all the time saw it.
    held.truncate(100);
    let deadline = Instant::now() + PATIENCE;
    while stranger.prompt(&session, "work", "work").await.0 != 202 {
        assert!(Instant::now() < deadline, "there is no room again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    watching
        .until(|frame| frame["event"]["type"] == "turn.completed")
        .await;
    let events = stranger.events(&session).await;
    assert_gapless(&events);
    assert_eq!(outputs(&events).len(), 1);
    product.stop();
}

/// A WebSocket that was opened and is then left alone: nothing is read from it, no ping is answered.
fn left_alone(api: &Api, session: &str) -> TcpStream {
    let address = api.url.strip_prefix("http://").unwrap();
    let mut socket = TcpStream::connect(address).unwrap();
    let head = format!(
        "GET /v1/sessions/{session}/stream?after=0 HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\n\
         connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        api.token
    );
    socket.write_all(head.as_bytes()).unwrap();
    socket
}

/// Who watches, as the last frame of presence tells it.
fn watching(frame: &Value) -> Option<Vec<String>> {
    if frame["frame"] != "presence" {
        return None;
    }
    let people = frame["presence"]["watching"].as_array()?.iter();
    Some(
        people
            .filter_map(|one| one["person"]["name"].as_str().map(str::to_owned))
            .collect(),
    )
}

#[tokio::test]
async fn whoever_gives_no_sign_is_let_go_and_comes_back_to_all_of_it() {
    let mut product = product();
    let api = start(&mut product).await;
    let (silent, _) = api.add_person("Silent").await;
    let (slow, _) = api.add_person("Slow").await;
    let session = api.create_session("shop").await;
    let mut stream = api.stream(&session, 0).await;
    stream.until(|frame| frame["frame"] == "caught_up").await;
    let _half_open = left_alone(&silent, &session);
    stream
        .until(|frame| watching(frame).is_some_and(|names| names.contains(&"Silent".to_owned())))
        .await;
    let mut never_reads = left_alone(&slow, &session);
    stream
        .until(|frame| watching(frame).is_some_and(|names| names.contains(&"Slow".to_owned())))
        .await;

    // More than any buffer holds. Whoever reads has it at once.
    let words = "x".repeat(200_000);
    let mut last_seq = 0;
    for number in 0..40 {
        let text = format!("hello {number} {words}");
        let (status, answer) = api.prompt(&session, &format!("fill-{number}"), &text).await;
        assert_eq!(status, 202, "{answer}");
        last_seq = answer["seq"].as_u64().unwrap();
    }
    stream
        .until(|frame| frame["event"]["seq"].as_u64() == Some(last_seq))
        .await;

    // Neither is waited for without end, and both are seen to be gone.
    let deadline = Instant::now() + Duration::from_secs(150);
    let mut names = vec![String::new()];
    while names.iter().any(|name| name == "Silent" || name == "Slow") || names == [""] {
        assert!(Instant::now() < deadline, "{names:?} watch");
        if let Ok(Some(frame)) = tokio::time::timeout(Duration::from_secs(5), stream.next()).await
            && let Some(now) = watching(&frame)
        {
            names = now;
        }
    }
    // What the slow one had got is whole, and the rest is there for whoever asks.
    let mut got = Vec::new();
    never_reads
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let _ = never_reads.read_to_end(&mut got);
    assert!(got.len() > 100_000, "{} bytes", got.len());
    let events = slow.wait_for_turns(&session, 40).await;
    assert_gapless(&events);
    product.stop();
    invariants::hold(&product.data_dir());
}
