//! Plain HTTP and WebSocket against a server: status and JSON, nothing hidden.

use crate::product::DEADLINE;
use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Instant;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// A caller with a token.
#[derive(Clone)]
pub struct Api {
    pub url: String,
    pub token: String,
    client: reqwest::Client,
}

impl Api {
    pub fn new(url: &str, token: &str) -> Self {
        // Fails only if it is installed already. The client needs one even for plain HTTP.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(DEADLINE)
            .build()
            .expect("a client without TLS");
        Self {
            url: url.trim_end_matches('/').to_owned(),
            token: token.to_owned(),
            client,
        }
    }

    /// The same server, without a token.
    pub fn anonymous(&self) -> reqwest::Client {
        self.client.clone()
    }

    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client
            .request(method, format!("{}{path}", self.url))
            .bearer_auth(&self.token)
    }

    pub async fn send(&self, request: reqwest::RequestBuilder) -> (u16, Value) {
        match request.send().await {
            Ok(response) => {
                let status = response.status().as_u16();
                let text = response.text().await.unwrap_or_default();
                (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
            }
            Err(error) => (0, Value::String(error.to_string())),
        }
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        self.send(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.send(self.request(Method::POST, path).json(&body)).await
    }

    pub async fn delete(&self, path: &str) -> (u16, Value) {
        self.send(self.request(Method::DELETE, path)).await
    }

    /// What must work: panics with the answer otherwise.
    pub async fn must_get(&self, path: &str) -> Value {
        let (status, body) = self.get(path).await;
        assert_eq!(status, 200, "GET {path}: {body}");
        body
    }

    pub async fn must_post(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.post(path, body).await;
        assert!((200..300).contains(&status), "POST {path}: {status} {answer}");
        answer
    }

    /// The text of a page that need not be JSON.
    pub async fn text(&self, path: &str) -> String {
        let answer = self.request(Method::GET, path).send().await;
        let answer = answer.unwrap_or_else(|error| panic!("GET {path}: {error}"));
        let text = answer.text().await;
        text.unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    pub async fn put(&self, path: &str, body: Value) -> (u16, Value) {
        self.send(self.request(Method::PUT, path).json(&body)).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> (u16, Value) {
        self.send(self.request(Method::PATCH, path).json(&body)).await
    }

    /// The same server with another token.
    pub fn with_token(&self, token: &str) -> Self {
        Self {
            token: token.to_owned(),
            ..self.clone()
        }
    }

    /// Lets somebody use the server, who signs in by the link and makes a token, as a person would. Answers with their id too.
    pub async fn add_person(&self, name: &str) -> (Self, String) {
        let email = format!("{}@example.com", name.to_lowercase());
        let added = self
            .must_post("/v1/people", json!({ "name": name, "email": email }))
            .await;
        let link = added["sign_in"]["url"].as_str().expect("a link");
        let token = self.token_of_link(link).await;
        let id = added["person"]["id"].as_str().expect("an id");
        (self.with_token(&token), id.to_owned())
    }

    /// Opens a sign-in link in a browser of its own and makes an API token there.
    pub async fn token_of_link(&self, link: &str) -> String {
        let (_, secret) = link.split_once("#token=").expect("a link with a secret");
        let signed_in = self
            .client
            .post(format!("{}/v1/sign-in", self.url))
            .json(&json!({ "token": secret }))
            .send()
            .await
            .expect("sign in");
        assert_eq!(signed_in.status(), 200);
        let cookie = signed_in.headers()["set-cookie"].to_str().expect("a cookie");
        let cookie = cookie.split(';').next().unwrap_or_default().to_owned();
        let made = self
            .client
            .post(format!("{}/v1/tokens", self.url))
            .header("cookie", cookie)
            .header("origin", &self.url)
            .json(&json!({ "label": "test" }));
        let (status, made) = self.send(made).await;
        assert_eq!(status, 201, "{made}");
        made["secret"].as_str().expect("a secret").to_owned()
    }

    /// A session without a prompt; its id.
    pub async fn create_session(&self, repository: &str) -> String {
        self.new_session(json!({ "repository": repository })).await
    }

    /// Sends a prompt under `key`.
    pub async fn prompt(&self, session: &str, key: &str, text: &str) -> (u16, Value) {
        let request = self
            .request(Method::POST, &format!("/v1/sessions/{session}/prompts"))
            .header("idempotency-key", key)
            .json(&json!({ "text": text }));
        self.send(request).await
    }

    /// Creates a session with a first prompt and returns its id.
    pub async fn start_session(&self, repository: &str, prompt: &str) -> String {
        self.new_session(json!({ "repository": repository, "prompt": prompt }))
            .await
    }

    async fn new_session(&self, body: Value) -> String {
        let created = self.must_post("/v1/sessions", body).await;
        created["session"]["id"].as_str().expect("an id").to_owned()
    }

    /// All events of a session, page by page.
    pub async fn events(&self, session: &str) -> Vec<Value> {
        let mut events = Vec::new();
        loop {
            let after = events.len();
            let page = self
                .must_get(&format!("/v1/sessions/{session}/events?after={after}&limit=200"))
                .await;
            let more = page["events"].as_array().expect("events").clone();
            if more.is_empty() {
                return events;
            }
            events.extend(more);
        }
    }

    /// Waits until the session's events satisfy `is_there`, and returns them.
    pub async fn wait_for(
        &self,
        session: &str,
        what: &str,
        is_there: impl Fn(&[Value]) -> bool,
    ) -> Vec<Value> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let events = self.events(session).await;
            if is_there(&events) {
                return events;
            }
            assert!(
                Instant::now() < deadline,
                "no {what} in time; events: {}",
                pretty(&events)
            );
            tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        }
    }

    /// Waits until `turns` turns have ended.
    pub async fn wait_for_turns(&self, session: &str, turns: usize) -> Vec<Value> {
        self.wait_for(session, "turn.completed", |events| {
            of_type(events, "turn.completed").len() >= turns
        })
        .await
    }

    /// Opens the session's stream behind `after`.
    pub async fn stream(&self, session: &str, after: u64) -> Stream {
        self.stream_with(session, &format!("after={after}")).await
    }

    /// Opens the session's stream with this query.
    pub async fn stream_with(&self, session: &str, query: &str) -> Stream {
        self.try_stream(session, query).await.expect("open the stream")
    }

    /// The same, where the server may be down.
    pub async fn try_stream(&self, session: &str, query: &str) -> Option<Stream> {
        let url = format!(
            "{}/v1/sessions/{session}/stream?{query}",
            self.url.replacen("http", "ws", 1)
        );
        let mut request = url.into_client_request().expect("a request");
        let value = format!("Bearer {}", self.token).parse().expect("a header");
        request.headers_mut().insert("authorization", value);
        let (socket, _) = tokio_tungstenite::connect_async(request).await.ok()?;
        Some(Stream { socket })
    }
}

/// A session's WebSocket.
pub struct Stream {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Stream {
    /// The next frame; `None` when the server closed the stream.
    pub async fn next(&mut self) -> Option<Value> {
        // Pings are no frames: who waits for what never comes hears of it.
        let deadline = tokio::time::Instant::now() + DEADLINE;
        loop {
            let message = tokio::time::timeout_at(deadline, self.socket.next())
                .await
                .expect("a frame in time")?;
            match message.ok()? {
                Message::Text(text) => return serde_json::from_str(&text).ok(),
                Message::Close(_) => return None,
                _ => {}
            }
        }
    }

    /// Says something to the server.
    pub async fn say(&mut self, frame: Value) {
        let message = Message::text(frame.to_string());
        self.socket.send(message).await.expect("say it");
    }

    /// Frames up to and with the first that satisfies `is_last`.
    pub async fn until(&mut self, is_last: impl Fn(&Value) -> bool) -> Vec<Value> {
        let mut frames = Vec::new();
        while let Some(frame) = self.next().await {
            let ends = is_last(&frame);
            frames.push(frame);
            if ends {
                return frames;
            }
        }
        panic!("the stream ended early: {}", pretty(&frames));
    }
}

/// Events (or frames' events) of one type.
pub fn of_type<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["type"] == kind).collect()
}

/// Whether a frame is an event of this type.
pub fn is_event(frame: &Value, kind: &str) -> bool {
    frame["frame"] == "event" && frame["event"]["type"] == kind
}

/// Asserts that numbers count from 1 without gaps.
pub fn assert_gapless(events: &[Value]) {
    for (position, event) in events.iter().enumerate() {
        assert_eq!(
            event["seq"].as_u64(),
            Some(position as u64 + 1),
            "events must be numbered without gaps"
        );
    }
}

/// Values, readable.
pub fn pretty(values: &[Value]) -> String {
    values.iter().map(|value| format!("\n  {value}")).collect()
}
