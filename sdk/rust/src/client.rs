//! One server and one token: builds requests, bounds answers, turns refusals into errors. What the endpoints are is in
//! the modules below; this file knows no endpoint.

mod account;
mod member;
pub(crate) mod people;
mod pull_request;
mod repository;
pub(crate) mod session;

use crate::address;
use crate::failure::ClientError;
use crate::idempotency::IdempotencyKey;
use greenroom_protocol::client::IDEMPOTENCY_KEY_HEADER;
use greenroom_protocol::client::problem::Problem;
use greenroom_stdx::backoff::Backoff;
use greenroom_stdx::secret::Secret;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;
use url::Url;

/// Largest answer that is read, in bytes; the server cuts diffs and pages far below.
const MAX_ANSWER_BYTES: u64 = 64 * 1024 * 1024;
/// How long an ordinary call may take from start to the end of the answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a call that is safe to repeat is sent in all.
const MAX_ATTEMPTS: u32 = 4;
const BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(200),
    max: Duration::from_secs(5),
};

/// A handle to a server; cheap to clone. All methods are cancelled by dropping their future; a command that was already
/// sent may still be carried out.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    token: Secret,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("base", &self.base.as_str())
            .finish_non_exhaustive()
    }
}

/// Whether a call may be sent again after it got no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repeat {
    /// It changes nothing, or carries an idempotency key.
    Safe,
    Never,
}

impl Client {
    /// A client of the server at `base_url` (`https://…`, or `http://` to a loopback address) that signs in with an API
    /// token. Sends nothing yet.
    pub fn new(base_url: &str, token: Secret) -> Result<Self, ClientError> {
        let base = address::parse(base_url)?;
        // Fails only if a provider is already installed, which then serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            // A redirect could carry the token to another host.
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("greenroom-sdk/", env!("CARGO_PKG_VERSION")));
        if base.scheme() == "http" {
            // A proxy from the environment would carry the token off this machine in clear text.
            http = http.no_proxy();
        }
        let http = http.build().map_err(|error| ClientError::Unreachable {
            server: origin(&base),
            source: Box::new(error),
        })?;
        Ok(Self { http, base, token })
    }

    /// The server's address without a trailing slash.
    pub fn base_url(&self) -> String {
        origin(&self.base)
    }

    /// A full address for a path the server gave, such as a pull request's page.
    pub fn page_url(&self, path: &str) -> String {
        format!("{}/{}", self.base_url(), path.trim_start_matches('/'))
    }

    /// `segments` are encoded, so that a name can never address another endpoint.
    pub(crate) fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.clear().push("v1").extend(segments);
        }
        url
    }

    pub(crate) fn request(&self, method: Method, url: Url) -> RequestBuilder {
        self.http.request(method, url).bearer_auth(self.token.expose())
    }

    /// A request that changes something, under a key of its own: a repetition is answered like the first.
    fn change(&self, method: Method, url: Url) -> RequestBuilder {
        self.request(method, url)
            .header(IDEMPOTENCY_KEY_HEADER, IdempotencyKey::fresh().as_str())
    }

    pub(crate) fn unreachable(
        &self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> ClientError {
        ClientError::Unreachable {
            server: self.base_url(),
            source: source.into(),
        }
    }

    pub(crate) fn malformed(&self, context: impl Into<String>) -> ClientError {
        ClientError::Malformed {
            server: self.base_url(),
            context: context.into(),
        }
    }

    async fn get<T: DeserializeOwned>(&self, segments: &[&str]) -> Result<T, ClientError> {
        self.get_with(segments, &[]).await
    }

    async fn get_with<T: DeserializeOwned>(
        &self,
        segments: &[&str],
        query: &[(&str, String)],
    ) -> Result<T, ClientError> {
        let mut request = self
            .request(Method::GET, self.url(segments))
            .timeout(CALL_TIMEOUT);
        if !query.is_empty() {
            request = request.query(query);
        }
        self.json(request, Repeat::Safe).await
    }

    async fn bytes(&self, segments: &[&str]) -> Result<Vec<u8>, ClientError> {
        let request = self
            .request(Method::GET, self.url(segments))
            .timeout(CALL_TIMEOUT);
        self.send(request, Repeat::Safe).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        segments: &[&str],
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let request = self
            .change(Method::POST, self.url(segments))
            .timeout(CALL_TIMEOUT)
            .json(body);
        self.json(request, Repeat::Safe).await
    }

    async fn post_keyed<T: DeserializeOwned>(
        &self,
        segments: &[&str],
        body: &impl Serialize,
        key: &IdempotencyKey,
    ) -> Result<T, ClientError> {
        let request = self
            .request(Method::POST, self.url(segments))
            .timeout(CALL_TIMEOUT)
            .header(IDEMPOTENCY_KEY_HEADER, key.as_str())
            .json(body);
        self.json(request, Repeat::Safe).await
    }

    /// A command without a body.
    async fn command<T: DeserializeOwned>(
        &self,
        method: Method,
        segments: &[&str],
    ) -> Result<T, ClientError> {
        let request = self.change(method, self.url(segments)).timeout(CALL_TIMEOUT);
        self.json(request, Repeat::Safe).await
    }

    /// A command whose answer holds nothing.
    async fn acknowledge(&self, request: RequestBuilder) -> Result<(), ClientError> {
        self.send(request.timeout(CALL_TIMEOUT), Repeat::Safe)
            .await
            .map(drop)
    }

    async fn json<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
        repeat: Repeat,
    ) -> Result<T, ClientError> {
        let body = self.send(request, repeat).await?;
        serde_json::from_slice(&body).map_err(|error| self.malformed(error.to_string()))
    }

    async fn send(&self, request: RequestBuilder, repeat: Repeat) -> Result<Vec<u8>, ClientError> {
        let mut request = request;
        for attempt in 1.. {
            let spare = request.try_clone();
            let error = match self.send_once(request).await {
                Ok(body) => return Ok(body),
                Err(error) => error,
            };
            match spare {
                Some(again) if repeat == Repeat::Safe && attempt < MAX_ATTEMPTS => {
                    let Some(delay) = delay_before_repeat(&error, attempt) else {
                        return Err(error);
                    };
                    tracing::debug!(attempt, code = error.problem_code(), "repeat call");
                    tokio::time::sleep(delay).await;
                    request = again;
                }
                _ => return Err(error),
            }
        }
        unreachable!("the loop returns at MAX_ATTEMPTS")
    }

    async fn send_once(&self, request: RequestBuilder) -> Result<Vec<u8>, ClientError> {
        let response = request
            .send()
            .await
            .map_err(|error| self.unreachable(error.without_url()))?;
        let status = response.status();
        let body = self.bounded_body(response).await?;
        if status.is_success() {
            return Ok(body);
        }
        Err(self.refusal(status, &body))
    }

    /// Reads a refusal's body and turns it into an error.
    pub(crate) async fn refused(&self, response: Response) -> ClientError {
        let status = response.status();
        match self.bounded_body(response).await {
            Ok(body) => self.refusal(status, &body),
            Err(error) => error,
        }
    }

    fn refusal(&self, status: StatusCode, body: &[u8]) -> ClientError {
        match serde_json::from_slice::<Problem>(body) {
            Ok(problem) => ClientError::Problem {
                status: status.as_u16(),
                problem,
            },
            Err(_) => self.malformed(format!("status {} without a problem document", status.as_u16())),
        }
    }

    async fn bounded_body(&self, mut response: Response) -> Result<Vec<u8>, ClientError> {
        let mut body = Vec::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| self.unreachable(error.without_url()))?
        {
            if body.len() as u64 + chunk.len() as u64 > MAX_ANSWER_BYTES {
                return Err(ClientError::TooLarge {
                    server: self.base_url(),
                    limit_bytes: MAX_ANSWER_BYTES,
                });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

/// `None`: do not repeat. A server nobody listens for is reported at once: waiting would only hide it.
fn delay_before_repeat(error: &ClientError, attempt: u32) -> Option<Duration> {
    let delay = BACKOFF.delay(attempt, Backoff::random());
    match error {
        ClientError::Problem { problem, .. } if problem.retryable => {
            let asked = problem.retry_after_ms.map_or(delay, Duration::from_millis);
            Some(asked.min(BACKOFF.max))
        }
        ClientError::Unreachable { source, .. } => {
            let is_connecting = source
                .downcast_ref::<reqwest::Error>()
                .is_some_and(|error| error.is_connect() || error.is_timeout());
            (!is_connecting).then_some(delay)
        }
        _ => None,
    }
}

fn origin(base: &Url) -> String {
    base.as_str().trim_end_matches('/').to_owned()
}
