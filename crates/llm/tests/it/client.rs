//! The HTTP client against a model server with the faults real ones have.

use crate::talk::{FORMATS, ask, ask_and_watch, assistant, client, prompt, quick, text, user};
use greenroom_llm::client::{Client, Options};
use greenroom_llm::conversation::{Block, StopReason, WireFormat};
use greenroom_llm::failure::FailureKind;
use greenroom_llm::provider::{Endpoint, KeySource};
use greenroom_llm::scripted::script::Script;
use greenroom_stdx::secret::Secret;
use greenroom_testkit::model_server::{Behaviour, Chunking, ModelServer};
use std::sync::Arc;
use std::time::Duration;

const SCRIPT: &str = r#"
[[script]]
name = "work"
prompt_contains = "work"
[[script.step]]
think = "Ünïcödé thoughts."
say = "I do both. 😀"
chunk_chars = 3
call = [
    { tool = "read", arguments = { path = "a", lines = [1, 2] } },
    { tool = "bash", arguments_text = '{"command": "unfinished' },
    { tool = "list" },
]
[[script.step]]
expect_result_contains = "contents of a"
say = "Done."

[[script]]
name = "limited"
prompt_contains = "limited"
[[script.step]]
fail = 429
times = 2
retry_after_ms = 3
say = "At last."

[[script]]
name = "overloaded for ever"
prompt_contains = "overloaded"
[[script.step]]
fail = 529
times = 1000

[[script]]
name = "refused"
prompt_contains = "refused"
[[script.step]]
fail = 400
times = 1000

[[script]]
name = "cut"
prompt_contains = "cut"
[[script.step]]
fail = "truncate"
say = "A text that is long enough to be cut in the middle of it."

[[script]]
name = "broken"
prompt_contains = "broken"
[[script.step]]
fail = "malformed"
say = "A text that is long enough to be cut in the middle of it."

[[script]]
name = "failing"
prompt_contains = "failing"
[[script.step]]
fail = "error_event"
say = "A text that is long enough to be cut in the middle of it."

[[script]]
name = "silent"
prompt_contains = "silent"
[[script.step]]
fail = "stall"
say = "A text that is long enough to be cut in the middle of it."
"#;

fn script() -> Script {
    Script::parse(SCRIPT).unwrap()
}

async fn server(chunking: Chunking) -> ModelServer {
    let behaviour = Behaviour {
        chunking,
        ..Behaviour::default()
    };
    ModelServer::start_with(script(), behaviour).await.unwrap()
}

/// Every client that plays the script: three formats over HTTP, and the one in this process.
fn clients(server: &ModelServer) -> Vec<Client> {
    let mut clients: Vec<Client> = FORMATS
        .iter()
        .map(|format| client(server.endpoint(*format)))
        .collect();
    clients.push(Client::scripted(Arc::new(script()), quick()));
    clients
}

#[tokio::test]
async fn a_tool_loop_runs_alike_in_every_format_however_the_answer_is_cut() {
    for chunking in [Chunking::Events, Chunking::Bytes, Chunking::Whole] {
        let server = server(chunking).await;
        for client in clients(&server) {
            let mut request = prompt("work");
            let first = ask(&client, request.clone()).await.unwrap();
            assert_eq!(first.text(), "I do both. 😀");
            assert_eq!(first.stop_reason, StopReason::ToolCalls);
            assert!(first.usage.input_tokens > 0 && first.usage.output_tokens > 0);
            assert!(matches!(&first.blocks[0], Block::Reasoning { text, .. } if text == "Ünïcödé thoughts."));
            let calls = first.calls();
            assert_eq!(calls.len(), 3);
            // In which order the members come depends on features that other crates turn on.
            let arguments = calls[0].arguments().unwrap();
            assert_eq!(
                serde_json::Value::Object(arguments),
                serde_json::json!({"path": "a", "lines": [1, 2]})
            );
            assert!(calls[1].arguments().is_err());
            assert!(calls[2].arguments().unwrap().is_empty());
            let results = calls.iter().map(|call| Block::ToolResult {
                call_id: call.id.clone(),
                content: vec![text(&format!(
                    "contents of {}",
                    if call.name == "read" { "a" } else { "else" }
                ))],
                is_error: call.name == "bash",
            });
            let results = user(results.collect());
            request
                .messages
                .extend([assistant(first.blocks.clone()), results]);
            let second = ask(&client, request).await.unwrap();
            assert_eq!(
                (second.text().as_str(), second.stop_reason),
                ("Done.", StopReason::EndTurn)
            );
        }
    }
}

#[tokio::test]
async fn failures_before_the_first_byte_are_retried_and_no_others() {
    let server = server(Chunking::Events).await;
    for client in clients(&server) {
        let (heard, retried) = ask_and_watch(&client, prompt("limited")).await;
        assert_eq!(heard.unwrap().text(), "At last.");
        assert!(!client.is_scripted() || retried.len() == 2);
        assert!(
            retried
                .iter()
                .all(|failure| failure.kind == FailureKind::RateLimited)
        );
        assert!(
            retried
                .iter()
                .all(|failure| failure.retry_after == Some(Duration::from_millis(3)))
        );

        let (heard, retried) = ask_and_watch(&client, prompt("overloaded")).await;
        assert_eq!(heard.unwrap_err().kind, FailureKind::Overloaded);
        assert_eq!(retried.len(), 2, "three attempts in all");

        let (heard, retried) = ask_and_watch(&client, prompt("refused")).await;
        let failure = heard.unwrap_err();
        assert_eq!((failure.kind, retried.len()), (FailureKind::InvalidRequest, 0));
        assert!(
            failure.message.contains("played by the script"),
            "{}",
            failure.message
        );
    }
}

#[tokio::test]
async fn answers_that_break_in_the_middle_fail_by_kind_and_are_not_retried() {
    for (words, expected) in [
        ("cut", FailureKind::Truncated),
        ("broken", FailureKind::Malformed),
        ("failing", FailureKind::Overloaded),
    ] {
        // Each format has its own server: a failure plays once for each conversation.
        for format in FORMATS {
            let server = server(Chunking::Events).await;
            let (heard, retried) = ask_and_watch(&client(server.endpoint(format)), prompt(words)).await;
            assert_eq!(heard.unwrap_err().kind, expected, "{words} {format:?}");
            assert_eq!((retried.len(), server.requests().len()), (0, 1));
        }
        let client = Client::scripted(Arc::new(script()), quick());
        assert_eq!(
            ask(&client, prompt(words)).await.unwrap_err().kind,
            expected,
            "{words}"
        );
    }
}

#[tokio::test]
async fn silence_in_the_middle_times_out() {
    let options = Options {
        idle_timeout: Duration::from_millis(200),
        ..quick()
    };
    for format in FORMATS {
        let server = server(Chunking::Events).await;
        let client = Client::http(server.endpoint(format), options.clone()).unwrap();
        assert_eq!(
            ask(&client, prompt("silent")).await.unwrap_err().kind,
            FailureKind::TimedOut
        );
    }
}

#[tokio::test]
async fn dropping_the_receiver_cancels_the_request() {
    let (listener, url) = raw_listener().await;
    let client = client(Endpoint::new(WireFormat::OpenaiChat, url, KeySource::none()));
    let asking = tokio::spawn(async move { client.stream(prompt("x"), Arc::new(|_, _, _| {})).await });
    let (socket, _) = listener.accept().await.unwrap();
    let mut socket = BufSocket::new(socket);
    socket.read_request().await;
    socket
        .write("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n: hello\n\n")
        .await;
    let stream = asking.await.unwrap().unwrap();
    drop(stream);
    tokio::time::timeout(Duration::from_secs(20), socket.closed())
        .await
        .expect("the connection closes");
}

#[tokio::test]
async fn nobody_there_is_unreachable_and_names_the_place() {
    let (listener, url) = raw_listener().await;
    drop(listener);
    let failure = ask(
        &client(Endpoint::new(WireFormat::OpenaiChat, &url, KeySource::none())),
        prompt("x"),
    )
    .await;
    let failure = failure.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unreachable);
    assert!(
        failure.message.contains(url.trim_start_matches("http://")),
        "{}",
        failure.message
    );
}

#[tokio::test]
async fn answers_that_are_no_stream_are_refused() {
    for (response, expected) in [
        (
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}",
            FailureKind::Malformed,
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\nhi",
            FailureKind::Malformed,
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            FailureKind::Unreachable,
        ),
        (
            "HTTP/1.1 307 Moved\r\nlocation: http://127.0.0.1:9/\r\ncontent-length: 0\r\n\r\n",
            FailureKind::InvalidRequest,
        ),
        (
            "HTTP/1.1 404 Not Found\r\ncontent-length: 5\r\n\r\nnope!",
            FailureKind::InvalidRequest,
        ),
    ] {
        let (listener, url) = raw_listener().await;
        let serving = tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let mut socket = BufSocket::new(socket);
                socket.read_request().await;
                socket.write(response).await;
            }
        });
        let client = client(Endpoint::new(WireFormat::OpenaiChat, url, KeySource::none()));
        assert_eq!(
            ask(&client, prompt("x")).await.unwrap_err().kind,
            expected,
            "{response}"
        );
        serving.abort();
    }
}

#[tokio::test]
async fn keys_are_sent_and_never_shown() {
    let behaviour = Behaviour {
        required_key: Some("sk-right-key".to_owned()),
        ..Behaviour::default()
    };
    let server = ModelServer::start_with(script(), behaviour).await.unwrap();
    for format in FORMATS {
        assert!(
            ask(&client(server.endpoint(format)), prompt("work"))
                .await
                .is_ok(),
            "{format:?}"
        );
        let wrong = KeySource::from_fn("the test", || Some(Secret::new("sk-wrong-key")));
        let failure = ask(
            &client(Endpoint::new(format, server.url(), wrong)),
            prompt("work"),
        )
        .await
        .unwrap_err();
        assert_eq!(failure.kind, FailureKind::Unauthorized);
        let before = server.requests().len();
        let missing = KeySource::from_fn("the test", || None);
        let failure = ask(
            &client(Endpoint::new(format, server.url(), missing)),
            prompt("work"),
        )
        .await
        .unwrap_err();
        assert_eq!(failure.kind, FailureKind::Unauthorized);
        assert_eq!(failure.message, "no API key: the test holds none");
        assert_eq!(server.requests().len(), before, "nothing is sent without a key");
    }
    // A provider that quotes the key it was sent.
    let (listener, url) = raw_listener().await;
    let serving = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let mut socket = BufSocket::new(socket);
        socket.read_request().await;
        let body = r#"{"error":{"message":"Incorrect API key provided: sk-wrong-key."}}"#;
        let head = format!(
            "HTTP/1.1 401 Unauthorized\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        socket.write(&(head + body)).await;
    });
    let wrong = KeySource::from_fn("the test", || Some(Secret::new("sk-wrong-key")));
    let client = client(Endpoint::new(WireFormat::OpenaiChat, url, wrong));
    let failure = ask(&client, prompt("x")).await.unwrap_err();
    serving.await.unwrap();
    assert!(
        failure.message.ends_with("Incorrect API key provided: …."),
        "{}",
        failure.message
    );
    assert!(!format!("{failure:?} {client:?}").contains("sk-wrong-key"));
}

#[tokio::test]
async fn unknown_paths_and_unreadable_bodies_are_refused_by_the_test_server() {
    let server = server(Chunking::Events).await;
    let path = format!("{}/elsewhere/messages", server.url());
    let lost = client(Endpoint::new(
        WireFormat::AnthropicMessages,
        path,
        KeySource::none(),
    ));
    let failure = ask(&lost, prompt("work")).await.unwrap_err();
    assert!(
        failure.message.contains("there is no `/elsewhere/messages` here"),
        "{}",
        failure.message
    );
    assert_eq!(server.requests()[0].path, "/elsewhere/messages");
}

async fn raw_listener() -> (tokio::net::TcpListener, String) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}

/// A socket that speaks just enough HTTP to answer one request with given bytes.
pub struct BufSocket {
    socket: tokio::net::TcpStream,
}

impl BufSocket {
    pub fn new(socket: tokio::net::TcpStream) -> Self {
        Self { socket }
    }

    /// Reads head and body.
    pub async fn read_request(&mut self) {
        use tokio::io::AsyncReadExt;
        let mut bytes = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
                let length = length.map_or(0, |text| text.trim().parse::<usize>().unwrap());
                if body.len() >= length {
                    return;
                }
            }
            assert!(
                self.socket.read_buf(&mut bytes).await.unwrap() > 0,
                "the request breaks off"
            );
        }
    }

    pub async fn write(&mut self, text: &str) {
        use tokio::io::AsyncWriteExt;
        self.socket.write_all(text.as_bytes()).await.unwrap();
        self.socket.flush().await.unwrap();
    }

    /// Returns when the other side closes.
    async fn closed(&mut self) {
        use tokio::io::AsyncReadExt;
        let mut byte = [0];
        while let Ok(1..) = self.socket.read(&mut byte).await {}
    }
}
