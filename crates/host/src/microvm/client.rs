//! Sends [`super::request`]s to a Firecracker process over its Unix socket. One connection for one machine; each answer is
//! waited for within bounds.

use super::request::{Method, Request};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use std::io;
use std::path::Path;
use std::time::Duration;
use thiserror::Error;
use tokio::net::UnixStream;

/// How long one call may take. Starting a machine loads the kernel into its memory.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// From its socket's appearance until the process listens.
const LISTEN_PATIENCE: Duration = Duration::from_secs(2);
const LISTEN_PAUSE: Duration = Duration::from_millis(1);

/// Largest answer that is read, in bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Why a machine was not built.
#[derive(Debug, Error)]
pub enum ApiError {
    #[error("connect to Firecracker")]
    Connect(#[source] io::Error),
    #[error("talk to Firecracker")]
    Talk(#[source] hyper::Error),
    #[error("Firecracker did not answer {path} in time")]
    Silent { path: String },
    /// Firecracker said no; the text is its own.
    #[error("Firecracker refused {path}: {fault}")]
    Refused { path: String, fault: String },
}

/// A connection to one process.
pub struct Client {
    sender: http1::SendRequest<Full<bytes::Bytes>>,
}

/// Body of a refusal.
#[derive(Deserialize)]
struct Fault {
    fault_message: String,
}

impl Client {
    /// Connects; the process's socket must be there.
    pub async fn connect(socket: &Path) -> Result<Self, ApiError> {
        let deadline = tokio::time::Instant::now() + LISTEN_PATIENCE;
        let stream = loop {
            match UnixStream::connect(socket).await {
                Ok(stream) => break stream,
                // Its socket is there a moment before it listens.
                Err(error)
                    if error.kind() == io::ErrorKind::ConnectionRefused
                        && tokio::time::Instant::now() < deadline =>
                {
                    tokio::time::sleep(LISTEN_PAUSE).await;
                }
                Err(error) => return Err(ApiError::Connect(error)),
            }
        };
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(ApiError::Talk)?;
        // Ends with the sender or with the process.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection to Firecracker ended");
            }
        });
        Ok(Self { sender })
    }

    /// Sends all requests in order; the first refusal ends it.
    pub async fn send_all(&mut self, requests: &[Request]) -> Result<(), ApiError> {
        for request in requests {
            self.send(request).await?;
        }
        Ok(())
    }

    /// Sends one request; returns the answer's body.
    pub async fn send(&mut self, request: &Request) -> Result<String, ApiError> {
        let path = request.path.clone();
        tokio::time::timeout(CALL_TIMEOUT, self.exchange(request))
            .await
            .map_err(|_| ApiError::Silent { path })?
    }

    async fn exchange(&mut self, request: &Request) -> Result<String, ApiError> {
        let path = request.path.clone();
        let message = hyper::Request::builder()
            .method(match request.method {
                Method::Get => hyper::Method::GET,
                Method::Put => hyper::Method::PUT,
            })
            .uri(&path)
            .header(hyper::header::HOST, "localhost")
            .header(hyper::header::ACCEPT, "application/json")
            .header(hyper::header::CONTENT_TYPE, "application/json")
            .body(Full::from(request.body.clone()))
            .map_err(|error| ApiError::Refused {
                path: path.clone(),
                fault: error.to_string(),
            })?;
        self.sender.ready().await.map_err(ApiError::Talk)?;
        let response = self.sender.send_request(message).await.map_err(ApiError::Talk)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
            .collect()
            .await
            .map_err(|error| ApiError::Refused {
                path: path.clone(),
                fault: error.to_string(),
            })?
            .to_bytes();
        let text = String::from_utf8_lossy(&body).into_owned();
        if status.is_success() {
            return Ok(text);
        }
        let fault = serde_json::from_str::<Fault>(&text).map_or(text, |fault| fault.fault_message);
        Err(ApiError::Refused { path, fault })
    }
}
