//! Streams whose server cuts, repeats, skips and closes: each event must come exactly once and in order.

use crate::server::client_of;
use axum::Router;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use greenroom_sdk::protocol::client::stream::StreamFrame;
use greenroom_sdk::protocol::id::SessionId;
use greenroom_sdk::{ClientError, SessionStream, StreamPatience};
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the server does with one connection.
enum Act {
    /// Sends these frames, then drops the connection without a goodbye.
    Send(Vec<Value>),
    /// Says nothing and keeps the connection.
    Silent,
    /// Refuses the upgrade.
    Refuse(StatusCode, &'static str),
}

#[derive(Clone)]
struct Script {
    acts: Arc<Mutex<VecDeque<Act>>>,
    /// `after` of each connection.
    cursors: Arc<Mutex<Vec<u64>>>,
}

async fn play(
    State(script): State<Script>,
    Query(query): Query<HashMap<String, String>>,
    upgrade: WebSocketUpgrade,
) -> Response {
    script
        .cursors
        .lock()
        .unwrap()
        .push(query["after"].parse().unwrap());
    let act = script.acts.lock().unwrap().pop_front();
    match act {
        Some(Act::Refuse(status, body)) => (status, body).into_response(),
        Some(Act::Send(frames)) => upgrade.on_upgrade(move |socket| send(socket, frames)),
        Some(Act::Silent) => upgrade.on_upgrade(|mut socket| async move {
            // Reads, so that the connection is held, and swallows even pings by never writing.
            std::future::pending::<()>().await;
            drop(socket.recv().await);
        }),
        None => (
            StatusCode::GONE,
            r#"{"code":"script_over","message":"The script is over."}"#,
        )
            .into_response(),
    }
}

async fn send(mut socket: WebSocket, frames: Vec<Value>) {
    for frame in frames {
        let _ = socket.send(Message::text(frame.to_string())).await;
    }
}

fn hello() -> Value {
    json!({"frame": "hello", "generation": 1, "session_id": SessionId::from_bits(1).as_str(), "last_seq": 0})
}

fn event(seq: u64) -> Value {
    json!({"frame": "event", "event": {"seq": seq, "at_ms": 0, "type": "session.titled", "title": "t"}})
}

fn closing(retryable: bool) -> Value {
    let problem =
        json!({"code": "reader_slow", "message": "Too slow.", "retryable": retryable, "retry_after_ms": 1});
    json!({"frame": "closing", "problem": problem, "last_seq": 0})
}

async fn stream_of(acts: Vec<Act>) -> (SessionStream, Arc<Mutex<Vec<u64>>>) {
    let cursors = Arc::new(Mutex::new(Vec::new()));
    let script = Script {
        acts: Arc::new(Mutex::new(acts.into())),
        cursors: cursors.clone(),
    };
    let routes = Router::new()
        .route("/v1/sessions/{id}/stream", get(play))
        .with_state(script);
    let patience = StreamPatience {
        first_delay: Duration::from_millis(1),
        longest_delay: Duration::from_millis(5),
        give_up_after: Duration::from_secs(30),
        probe_after: Duration::from_millis(200),
    };
    let client = client_of(routes).await;
    (
        client.stream(&SessionId::from_bits(1), 0).with_patience(patience),
        cursors,
    )
}

/// Plays the script to its end: numbers of the events that came, cursors that were asked for, and how it ended.
async fn play_out(acts: Vec<Act>) -> (Vec<u64>, Vec<u64>, Result<(), ClientError>) {
    let (mut stream, cursors) = stream_of(acts).await;
    let mut seen = Vec::new();
    let end = loop {
        let next = tokio::time::timeout(Duration::from_secs(30), stream.next())
            .await
            .expect("the stream hangs");
        match next {
            Some(Ok(StreamFrame::Event { event })) => seen.push(event.seq),
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                assert!(stream.next().await.is_none(), "an error ends the stream");
                break Err(error);
            }
            None => break Ok(()),
        }
    };
    let cursors = cursors.lock().unwrap().clone();
    (seen, cursors, end)
}

#[tokio::test]
async fn a_cut_stream_goes_on_where_it_was() {
    let acts = vec![
        Act::Send(vec![hello(), event(1), event(2)]),
        Act::Refuse(
            StatusCode::SERVICE_UNAVAILABLE,
            r#"{"code":"starting","message":"Soon.","retryable":true}"#,
        ),
        Act::Send(vec![hello(), event(3)]),
        Act::Send(vec![]),
        Act::Send(vec![hello(), event(4), closing(false)]),
    ];
    let (seen, cursors, end) = play_out(acts).await;
    assert_eq!(seen, [1, 2, 3, 4]);
    assert_eq!(cursors, [0, 2, 2, 3, 3]);
    assert!(end.is_ok(), "{end:?}");
}

#[tokio::test]
async fn repeated_events_are_dropped_and_a_gap_is_fetched_again() {
    let acts = vec![
        Act::Send(vec![hello(), event(1), event(1), event(2), event(4)]),
        Act::Send(vec![
            hello(),
            event(1),
            event(2),
            event(3),
            event(4),
            closing(false),
        ]),
    ];
    let (seen, cursors, end) = play_out(acts).await;
    assert_eq!(seen, [1, 2, 3, 4]);
    assert_eq!(cursors, [0, 2]);
    assert!(end.is_ok(), "{end:?}");
}

#[tokio::test]
async fn a_reader_that_is_too_slow_comes_back_with_its_cursor() {
    let acts = vec![
        Act::Send(vec![hello(), event(1), closing(true)]),
        Act::Send(vec![hello(), event(2), closing(false)]),
    ];
    let (seen, cursors, end) = play_out(acts).await;
    assert_eq!(seen, [1, 2]);
    assert_eq!(cursors, [0, 1]);
    assert!(end.is_ok(), "{end:?}");
}

#[tokio::test]
async fn a_connection_without_a_sign_of_life_is_replaced() {
    let acts = vec![Act::Silent, Act::Send(vec![hello(), event(1), closing(false)])];
    let (seen, cursors, _) = play_out(acts).await;
    assert_eq!(seen, [1]);
    assert_eq!(cursors, [0, 0]);
}

#[tokio::test]
async fn a_refusal_that_will_not_go_away_ends_the_stream() {
    let unknown = r#"{"code":"session_unknown","message":"No such session.","retryable":false}"#;
    let acts = vec![
        Act::Send(vec![hello(), event(1)]),
        Act::Refuse(StatusCode::NOT_FOUND, unknown),
    ];
    let (seen, _, end) = play_out(acts).await;
    assert_eq!(seen, [1]);
    assert_eq!(end.unwrap_err().problem_code(), Some("session_unknown"));
}

#[tokio::test]
async fn what_is_not_understood_is_an_error_or_kept() {
    let other = json!({"frame": "hello", "generation": 2, "session_id": SessionId::from_bits(1).as_str(), "last_seq": 0});
    let (_, _, end) = play_out(vec![Act::Send(vec![other])]).await;
    assert!(
        matches!(
            end,
            Err(ClientError::Generation {
                server_generation: 2,
                ..
            })
        ),
        "{end:?}"
    );
    let (mut stream, _) = stream_of(vec![Act::Send(vec![json!({"frame": "later", "x": 1})])]).await;
    let frame = stream.next().await.unwrap().unwrap();
    assert_eq!(frame, StreamFrame::Unknown(json!({"frame": "later", "x": 1})));
}

#[tokio::test]
async fn a_dropped_wait_loses_nothing() {
    let frames: Vec<Value> = std::iter::once(hello())
        .chain((1..=200).map(event))
        .chain([closing(false)])
        .collect();
    let (mut stream, _) = stream_of(vec![Act::Send(frames)]).await;
    let mut seen = Vec::new();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        assert!(
            tokio::time::Instant::now() < deadline,
            "only {} events came",
            seen.len()
        );
        // Polled once and dropped, over and over, as in a `select!` with busy neighbours.
        let next = tokio::select! {
            biased;
            next = stream.next() => next,
            () = tokio::task::yield_now() => continue,
        };
        match next {
            Some(Ok(StreamFrame::Event { event })) => seen.push(event.seq),
            Some(Ok(_)) => {}
            Some(Err(error)) => panic!("{error}"),
            None => break,
        }
    }
    assert_eq!(seen, (1..=200).collect::<Vec<_>>());
}
