//! A model server on loopback that plays a script in all three wire formats, with the faults real ones have. It checks
//! what it is sent: a body it cannot read is answered 400, an unknown path 404, a wrong key 401.

mod anthropic;
mod chat;
mod responses;
mod speech;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::StreamExt;
use greenroom_llm::client::Options;
use greenroom_llm::conversation::{ModelRequest, WireFormat};
use greenroom_llm::provider::{Endpoint, KeySource};
use greenroom_llm::scripted::player::{Answer, Player};
use greenroom_llm::scripted::script::{Fault, Script};
use greenroom_stdx::secret::Secret;
use serde_json::{Value, json};
use speech::Speech;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A running server; dropping it cuts every answer and closes the port.
#[derive(Debug)]
pub struct ModelServer {
    url: String,
    key: Option<String>,
    state: Arc<Shared>,
    task: JoinHandle<()>,
    _stop: DropGuard,
}

/// How the server behaves beside its script.
#[derive(Debug, Clone, Default)]
pub struct Behaviour {
    pub chunking: Chunking,
    /// Requests without this key are answered 401.
    pub required_key: Option<String>,
}

/// How an answer is cut into HTTP chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Chunking {
    /// One event each.
    #[default]
    Events,
    /// One byte each.
    Bytes,
    /// Everything at once.
    Whole,
}

/// One request as it came in, in order of arrival; also those that were refused.
#[derive(Debug, Clone)]
pub struct RecordedRequest {
    pub path: String,
    pub headers: HeaderMap,
    /// `Null` if it was not JSON.
    pub body: Value,
}

/// The server could not start.
#[derive(Debug, Error)]
#[error("no port on loopback can be listened on")]
pub struct StartError(#[from] std::io::Error);

#[derive(Debug)]
struct Shared {
    player: Player,
    behaviour: Behaviour,
    requests: Mutex<Vec<RecordedRequest>>,
    stop: CancellationToken,
}

impl ModelServer {
    /// Starts on a free port of 127.0.0.1 with the plainest behaviour.
    pub async fn start(script: Script) -> Result<Self, StartError> {
        Self::start_with(script, Behaviour::default()).await
    }

    /// Starts on a free port of 127.0.0.1.
    pub async fn start_with(script: Script, behaviour: Behaviour) -> Result<Self, StartError> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let stop = CancellationToken::new();
        let key = behaviour.required_key.clone();
        let state = Arc::new(Shared {
            player: Player::new(Arc::new(script), Options::default()),
            behaviour,
            requests: Mutex::default(),
            stop: stop.clone(),
        });
        let router = Router::new()
            .route("/v1/messages", post(messages))
            .route("/v1/responses", post(responses))
            .route("/v1/chat/completions", post(chat_completions))
            .route("/v1/models", get(models))
            .fallback(unknown_path)
            .with_state(Arc::clone(&state));
        let task = tokio::spawn(async move {
            // Accepting never fails for good; the task ends with the server.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self {
            url,
            key,
            state,
            task,
            _stop: stop.drop_guard(),
        })
    }

    /// `http://127.0.0.1:PORT`, a base URL for every format.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// How to ask this server in a format, with its key if it wants one.
    pub fn endpoint(&self, format: WireFormat) -> Endpoint {
        let key = match self.key.clone() {
            Some(key) => KeySource::from_fn("the test", move || Some(Secret::new(key.clone()))),
            None => KeySource::none(),
        };
        Endpoint::new(format, &self.url, key)
    }

    /// What came in so far, oldest first.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.state
            .requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for ModelServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Every event of an answer as a format writes it (event name, data), for checks against the provider's own schema. The
/// chat format's closing `[DONE]` is not JSON and left out.
pub fn spoken(format: WireFormat, answer: &Answer, model: &str) -> Vec<(Option<String>, Value)> {
    speech(format).events(answer, model)
}

/// Reads a request body back into what was asked. The error says what is wrong with it.
pub fn heard(format: WireFormat, body: &Value) -> Result<ModelRequest, String> {
    speech(format).request(body)
}

fn speech(format: WireFormat) -> &'static dyn Speech {
    match format {
        WireFormat::AnthropicMessages => &anthropic::Anthropic,
        WireFormat::OpenaiResponses => &responses::Responses,
        WireFormat::OpenaiChat => &chat::Chat,
    }
}

async fn messages(state: State<Arc<Shared>>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    answer(WireFormat::AnthropicMessages, &state, &uri, headers, &body)
}

async fn responses(state: State<Arc<Shared>>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    answer(WireFormat::OpenaiResponses, &state, &uri, headers, &body)
}

async fn chat_completions(state: State<Arc<Shared>>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    answer(WireFormat::OpenaiChat, &state, &uri, headers, &body)
}

async fn models() -> Response {
    let model = json!({"id": "demo", "object": "model", "created": 0, "owned_by": "script"});
    axum::Json(json!({"object": "list", "data": [model]})).into_response()
}

async fn unknown_path(
    State(state): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    state.record(&uri, headers, &body);
    let message = format!("there is no `{}` here", uri.path());
    let error = json!({"error": {"type": "not_found_error", "message": message}});
    (StatusCode::NOT_FOUND, axum::Json(error)).into_response()
}

fn answer(format: WireFormat, state: &Arc<Shared>, uri: &Uri, headers: HeaderMap, body: &Bytes) -> Response {
    let speech = speech(format);
    let is_welcome = state
        .behaviour
        .required_key
        .as_deref()
        .is_none_or(|key| speech.key(&headers) == Some(key));
    let body = state.record(uri, headers, body);
    if !is_welcome {
        return refuse(speech, 401, "the key is wrong", None);
    }
    let request = match speech.request(&body) {
        Ok(request) => request,
        Err(message) => return refuse(speech, 400, &message, None),
    };
    let answer = match state.player.answer(&request) {
        Ok(answer) => answer,
        Err(failure) => return refuse(speech, 400, &failure.message, None),
    };
    if let Some(Fault::Status(status)) = answer.fault {
        return refuse(speech, status, "played by the script", answer.retry_after);
    }
    let events = written(speech, &answer, &request.model);
    stream(state, &answer, events)
}

impl Shared {
    fn record(&self, uri: &Uri, headers: HeaderMap, body: &Bytes) -> Value {
        let body: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        self.requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(RecordedRequest {
                path: uri.path().to_owned(),
                headers,
                body: body.clone(),
            });
        body
    }
}

fn refuse(speech: &dyn Speech, status: u16, message: &str, retry_after: Option<Duration>) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, axum::Json(speech.error(status.as_u16(), message))).into_response();
    if let Some(wait) = retry_after {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        response.headers_mut().insert("retry-after-ms", wait_ms.into());
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, wait.as_secs().into());
    }
    response
}

/// The events as text, with the fault in the middle.
fn written(speech: &dyn Speech, answer: &Answer, model: &str) -> Vec<String> {
    let mut events: Vec<String> = speech.events(answer, model).iter().map(frame).collect();
    events.extend(speech.closing().map(|data| format!("data: {data}\n\n")));
    if let Some(fault) = answer.fault {
        events.truncate(events.len() / 2);
        match fault {
            Fault::Malformed => events.push("data: {\"type\": \"half an ev\n\n".to_owned()),
            Fault::ErrorEvent => events.push(frame(&speech.error_event("played by the script"))),
            Fault::Truncate | Fault::Stall | Fault::Status(_) => {}
        }
    }
    events
}

fn frame((name, data): &(Option<String>, Value)) -> String {
    match name {
        Some(name) => format!("event: {name}\ndata: {data}\n\n"),
        None => format!("data: {data}\n\n"),
    }
}

fn stream(state: &Shared, answer: &Answer, events: Vec<String>) -> Response {
    let chunks: Vec<Bytes> = match state.behaviour.chunking {
        Chunking::Events => events.into_iter().map(Bytes::from).collect(),
        Chunking::Bytes => events
            .concat()
            .bytes()
            .map(|byte| Bytes::copy_from_slice(&[byte]))
            .collect(),
        Chunking::Whole => vec![Bytes::from(events.concat())],
    };
    let delay = answer.delay;
    let stalls = answer.fault == Some(Fault::Stall);
    let chunks = futures_util::stream::iter(chunks).then(move |chunk| async move {
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        Ok::<_, std::convert::Infallible>(chunk)
    });
    let silence = futures_util::stream::iter(stalls.then_some(())).then(|()| std::future::pending());
    let body = Body::from_stream(
        chunks
            .chain(silence)
            .take_until(state.stop.clone().cancelled_owned()),
    );
    ([(header::CONTENT_TYPE, "text/event-stream; charset=utf-8")], body).into_response()
}
