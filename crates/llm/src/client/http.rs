//! One provider over HTTP. Each request is bounded in silence and in the size of an error; keys go into headers only.

use super::retry::{retry_after, with_retries};
use super::{ModelStream, Options, RetryObserver, STREAM_CAPACITY};
use crate::conversation::{ModelRequest, StreamEvent, WireFormat};
use crate::failure::{FailureKind, ModelFailure};
use crate::provider::{Endpoint, EndpointError};
use crate::wire::{self, malformed};
use crate::{refusal, sse};
use bytes::Bytes;
use greenroom_stdx::chain::Chain;
use greenroom_stdx::secret::Secret;
use http::{HeaderMap, HeaderValue, header};
use reqwest::Response;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use url::{Host, Url};

/// Bytes of an error's body that are read.
const MAX_ERROR_BYTES: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct HttpClient {
    endpoint: Endpoint,
    url: Url,
    headers: HeaderMap,
    options: Options,
    http: reqwest::Client,
}

impl HttpClient {
    pub(super) fn new(endpoint: Endpoint, options: Options) -> Result<Self, EndpointError> {
        let url = endpoint.url()?;
        let headers = endpoint.header_map()?;
        install_tls_provider();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("greenroom/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(options.connect_timeout)
            .tcp_keepalive(Duration::from_secs(30))
            // A redirect would carry the key to an address nobody configured.
            .redirect(reqwest::redirect::Policy::none());
        if is_loopback(&url) {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(EndpointError::Client)?;
        Ok(Self {
            endpoint,
            url,
            headers,
            options,
            http,
        })
    }

    pub(super) async fn stream(
        self: &Arc<Self>,
        request: &ModelRequest,
        on_retry: &RetryObserver,
    ) -> Result<ModelStream, ModelFailure> {
        let body = Bytes::from(wire::encode(self.endpoint.format, request).to_string());
        let begun = with_retries(&self.options, on_retry, || {
            self.attempt(body.clone(), &request.model)
        });
        let (response, first, key) = begun.await?;
        let (tx, rx) = mpsc::channel(STREAM_CAPACITY);
        let client = Arc::clone(self);
        // Ends with the response, the idle timeout, or the receiver; nothing waits for it.
        tokio::spawn(async move {
            tokio::select! {
                () = tx.closed() => {}
                () = client.pump(response, first, key.as_ref(), &tx) => {}
            }
        });
        Ok(rx)
    }

    /// One request, until the first byte of its answer.
    async fn attempt(
        &self,
        body: Bytes,
        model: &str,
    ) -> Result<(Response, Bytes, Option<Secret>), ModelFailure> {
        let key = self
            .endpoint
            .key
            .look_up()
            .map_err(|missing| ModelFailure::new(FailureKind::Unauthorized, missing.to_string()))?;
        let headers = self.headers_with(key.as_ref())?;
        let sending = self
            .http
            .post(self.url.clone())
            .headers(headers)
            .body(body)
            .send();
        let response = self
            .in_time(sending)
            .await?
            .map_err(|error| unreachable(error, &self.url))?;
        let status = response.status();
        if !status.is_success() {
            let wait = retry_after(response.headers(), &self.options.clock);
            let text = self.error_body(response).await;
            let mut failure = refusal::from_status(status.as_u16(), &text, model);
            failure.message = self.redact(failure.message, key.as_ref());
            failure.retry_after = wait;
            return Err(failure);
        }
        refuse_other_content(&response)?;
        let mut response = response;
        loop {
            let chunk = self.in_time(response.chunk()).await?;
            match chunk.map_err(|error| unreachable(error, &self.url))? {
                Some(chunk) if chunk.is_empty() => {}
                Some(chunk) => return Ok((response, chunk, key)),
                None => {
                    return Err(ModelFailure::new(
                        FailureKind::Unreachable,
                        "the provider sent an empty answer",
                    ));
                }
            }
        }
    }

    /// Decodes the answer to its end.
    async fn pump(
        &self,
        mut response: Response,
        first: Bytes,
        key: Option<&Secret>,
        tx: &mpsc::Sender<Result<StreamEvent, ModelFailure>>,
    ) {
        let mut events = sse::Decoder::default();
        let mut decoder = wire::Decoder::new(self.endpoint.format);
        let mut chunk = first;
        let failure = loop {
            match decode(&mut events, &mut decoder, &chunk) {
                (ready, None) => {
                    for event in ready {
                        if tx.send(Ok(event)).await.is_err() {
                            return;
                        }
                    }
                }
                (ready, Some(failure)) => {
                    for event in ready {
                        if tx.send(Ok(event)).await.is_err() {
                            return;
                        }
                    }
                    break failure;
                }
            }
            if decoder.is_finished() {
                return;
            }
            chunk = match self.in_time(response.chunk()).await {
                Ok(Ok(Some(next))) => next,
                Ok(Ok(None)) => match decoder.finish() {
                    Ok(()) => return,
                    Err(failure) => break failure,
                },
                Ok(Err(error)) => {
                    let error = error.without_url();
                    tracing::debug!(error = %Chain(&error), "the model's answer broke off");
                    break ModelFailure::new(
                        FailureKind::Truncated,
                        "the connection broke in the middle of the model's answer",
                    );
                }
                Err(failure) => break failure,
            };
        };
        let message = self.redact(failure.message, key);
        // A receiver that is gone wants no failure either.
        let _ = tx.send(Err(ModelFailure { message, ..failure })).await;
    }

    fn headers_with(&self, key: Option<&Secret>) -> Result<HeaderMap, ModelFailure> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
        let (name, prefix) = match self.endpoint.format {
            WireFormat::AnthropicMessages => {
                headers.insert("anthropic-version", HeaderValue::from_static("2023-06-01"));
                (http::HeaderName::from_static("x-api-key"), "")
            }
            WireFormat::OpenaiResponses | WireFormat::OpenaiChat => (header::AUTHORIZATION, "Bearer "),
        };
        if let Some(key) = key {
            let value = HeaderValue::try_from(format!("{prefix}{}", key.expose()));
            let mut value = value.map_err(|_| {
                ModelFailure::new(
                    FailureKind::Unauthorized,
                    "the API key holds characters that HTTP does not allow",
                )
            })?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        headers.extend(self.headers.clone());
        Ok(headers)
    }

    async fn in_time<T>(&self, waiting: impl Future<Output = T>) -> Result<T, ModelFailure> {
        let limit = self.options.idle_timeout;
        tokio::time::timeout(limit, waiting).await.map_err(|_| {
            let message = format!("the provider said nothing for {} s", limit.as_secs_f32());
            ModelFailure::new(FailureKind::TimedOut, message)
        })
    }

    /// What arrives of the body, at most [`MAX_ERROR_BYTES`]; a body that breaks off still tells something.
    async fn error_body(&self, mut response: Response) -> String {
        let mut body = Vec::new();
        while let Ok(Ok(Some(chunk))) = self.in_time(response.chunk()).await {
            let room = MAX_ERROR_BYTES - body.len();
            body.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if body.len() == MAX_ERROR_BYTES {
                break;
            }
        }
        String::from_utf8_lossy(&body).into_owned()
    }

    /// Providers quote what they were sent; a key among it must not reach a person or a log.
    fn redact(&self, message: String, key: Option<&Secret>) -> String {
        let extra = self.endpoint.headers.iter().map(|(_, value)| value);
        key.into_iter().chain(extra).fold(message, |message, secret| {
            // Shorter values are words that a message holds by itself.
            if secret.expose().len() < 6 {
                message
            } else {
                message.replace(secret.expose(), "…")
            }
        })
    }
}

/// Events up to the failure, if there is one.
fn decode(
    events: &mut sse::Decoder,
    decoder: &mut wire::Decoder,
    chunk: &[u8],
) -> (Vec<StreamEvent>, Option<ModelFailure>) {
    let decoded = match events.push(chunk) {
        Ok(decoded) => decoded,
        Err(error) => return (Vec::new(), Some(malformed(&error.to_string()))),
    };
    let mut ready = Vec::new();
    for event in decoded {
        match decoder.push(&event) {
            Ok(mut more) => ready.append(&mut more),
            Err(failure) => return (ready, Some(failure)),
        }
    }
    (ready, None)
}

fn refuse_other_content(response: &Response) -> Result<(), ModelFailure> {
    let content_type = response
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    match content_type.map(|text| {
        text.split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase()
    }) {
        Some(other) if matches!(other.as_str(), "application/json" | "text/html") => Err(malformed(
            &format!("it came as {other} instead of a stream of events"),
        )),
        _ => Ok(()),
    }
}

fn unreachable(error: reqwest::Error, url: &Url) -> ModelFailure {
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let error = error.without_url();
    ModelFailure::new(
        FailureKind::Unreachable,
        format!(
            "the provider at {host}{port} cannot be reached: {}",
            Chain(&error)
        ),
    )
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}

fn install_tls_provider() {
    // An error only means that another part of the program installed one before.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
