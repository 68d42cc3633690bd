//! The same recorded and broken streams read by us and by rig, an independent client. Where both succeed they must have
//! read the same; both must refuse a broken one.

use crate::client::BufSocket;
use crate::peers;
use crate::talk::{ask, client, prompt};
use greenroom_llm::conversation::{Block, WireFormat};
use greenroom_llm::failure::FailureKind;
use greenroom_llm::provider::{Endpoint, KeySource};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Stdio;

const ANTHROPIC: &str = include_str!("streams/anthropic.sse");
const RESPONSES: &str = include_str!("streams/responses.sse");
const CHAT: &str = include_str!("streams/chat.sse");

/// Answers every request with the same stream.
async fn replay(stream: String) -> (String, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let mut socket = BufSocket::new(socket);
            socket.read_request().await;
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
            socket.write(&format!("{head}{stream}")).await;
        }
    });
    (url, task)
}

async fn ours(format: WireFormat, url: &str) -> Result<Value, FailureKind> {
    let client = client(Endpoint::new(format, url, KeySource::none()));
    let heard = ask(&client, prompt("hello"))
        .await
        .map_err(|failure| failure.kind)?;
    let calls: Vec<Value> = heard
        .calls()
        .into_iter()
        .map(|call| {
            let invalid = call.arguments().is_err().then_some(&call.arguments_json);
            let arguments = call.arguments().unwrap_or_default();
            json!({"id": call.id, "name": call.name, "arguments": arguments, "invalid_arguments": invalid})
        })
        .collect();
    let reasoning: String = heard
        .blocks
        .iter()
        .filter_map(|block| match block {
            Block::Reasoning { text, .. } => Some(text.as_str()),
            _ => None,
        })
        .collect();
    Ok(json!({"text": heard.text(), "reasoning": reasoning, "calls": calls}))
}

async fn rigs(program: &Path, format: WireFormat, url: &str) -> Value {
    let format = serde_json::to_value(format).unwrap();
    let output = tokio::process::Command::new(program)
        .args([format.as_str().unwrap(), url])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(&shown)
        .unwrap_or_else(|_| panic!("{shown} {}", String::from_utf8_lossy(&output.stderr)))
}

/// The first `count` frames.
fn cut(stream: &str, count: usize) -> String {
    stream.split_inclusive("\n\n").take(count).collect()
}

#[tokio::test]
async fn whole_streams_are_read_alike() {
    let Some(program) = peers::find("rig-peer") else {
        return;
    };
    for (format, stream) in [
        (WireFormat::AnthropicMessages, ANTHROPIC),
        (WireFormat::OpenaiResponses, RESPONSES),
        (WireFormat::OpenaiChat, CHAT),
    ] {
        let (url, serving) = replay(stream.to_owned()).await;
        let (ours, rigs) = (
            ours(format, &url).await.unwrap(),
            rigs(&program, format, &url).await,
        );
        serving.abort();
        assert_eq!(ours, rigs, "{format:?}");
        assert_eq!(
            ours["calls"].as_array().map(Vec::len),
            Some(2),
            "the recording holds two calls"
        );
    }
}

#[tokio::test]
async fn broken_streams_are_refused_by_both() {
    let Some(program) = peers::find("rig-peer") else {
        return;
    };
    // How many of the last frames tell why the answer ends: rig takes the first of them for the end, we wait for the
    // terminal event, because usage may be in between.
    for (format, stream, ending) in [
        (WireFormat::AnthropicMessages, ANTHROPIC, 2),
        (WireFormat::OpenaiResponses, RESPONSES, 1),
        (WireFormat::OpenaiChat, CHAT, 3),
    ] {
        let frames = stream.matches("\n\n").count();
        for (broken, expected) in [
            (String::from(": nothing\n\n"), FailureKind::Truncated),
            (cut(stream, frames / 2), FailureKind::Truncated),
            (cut(stream, frames - ending), FailureKind::Truncated),
            (
                cut(stream, frames / 2) + "data: {\"type\": \"half\n\n",
                FailureKind::Malformed,
            ),
        ] {
            let (url, serving) = replay(broken.clone()).await;
            let (ours, rigs) = (ours(format, &url).await, rigs(&program, format, &url).await);
            serving.abort();
            assert_eq!(ours.unwrap_err(), expected, "{format:?}\n{broken}");
            assert!(rigs["error"].is_string(), "{format:?} {rigs}\n{broken}");
        }
        for count in frames - ending + 1..frames {
            let (url, serving) = replay(cut(stream, count)).await;
            assert_eq!(
                ours(format, &url).await.unwrap_err(),
                FailureKind::Truncated,
                "{format:?}"
            );
            serving.abort();
        }
    }
}
