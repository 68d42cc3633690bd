//! Asks a model and hands its answer on as it arrives: over HTTP, or from a script. Retries until the first byte of an
//! answer, never after. Keeps no conversation.

mod http;
mod retry;

use crate::conversation::{ModelRequest, StreamEvent};
use crate::failure::ModelFailure;
use crate::provider::{Endpoint, EndpointError};
use crate::scripted::player::Player;
use crate::scripted::script::Script;
use greenroom_stdx::backoff::Backoff;
use greenroom_stdx::clock::Clock;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

pub(crate) use retry::with_retries;

/// Events waiting for a slow reader before the provider's stream is held back.
pub(crate) const STREAM_CAPACITY: usize = 64;

/// Told before each retry: the attempt that failed (from 1), the wait in milliseconds, and why.
pub type RetryObserver = Arc<dyn Fn(u32, u64, &ModelFailure) + Send + Sync>;

/// A model's answer as it arrives; ends with `Finished` or an error.
pub type ModelStream = mpsc::Receiver<Result<StreamEvent, ModelFailure>>;

/// Time and patience.
#[derive(Debug, Clone)]
pub struct Options {
    /// To establish a connection, TLS included.
    pub connect_timeout: Duration,
    /// Longest silence: before the answer begins and between two of its chunks. Local models read a long prompt for
    /// minutes before they say anything.
    pub idle_timeout: Duration,
    /// Attempts in all, at least 1.
    pub max_attempts: u32,
    /// Waits where the provider names none.
    pub backoff: Backoff,
    /// A provider that wants a longer wait is not waited for.
    pub max_retry_after: Duration,
    /// For `retry-after` dates.
    pub clock: Clock,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(300),
            max_attempts: 5,
            backoff: Backoff {
                first: Duration::from_millis(500),
                max: Duration::from_secs(20),
            },
            max_retry_after: Duration::from_secs(60),
            clock: Clock::system(),
        }
    }
}

/// A provider's client. Cheap to clone; clones share connections.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Inner,
}

#[derive(Debug, Clone)]
enum Inner {
    Http(Arc<http::HttpClient>),
    Scripted(Arc<Player>),
}

impl Client {
    /// A client over HTTP. Fails on an unusable base URL or header; sends nothing yet.
    pub fn http(endpoint: Endpoint, options: Options) -> Result<Self, EndpointError> {
        Ok(Self {
            inner: Inner::Http(Arc::new(http::HttpClient::new(endpoint, options)?)),
        })
    }

    /// A client that plays a script in this process.
    pub fn scripted(script: Arc<Script>, options: Options) -> Self {
        Self {
            inner: Inner::Scripted(Arc::new(Player::new(script, options))),
        }
    }

    /// Whether this client plays a script.
    pub fn is_scripted(&self) -> bool {
        matches!(self.inner, Inner::Scripted(_))
    }

    /// Sends the request and returns when the answer begins. Retries failures that may pass, with `on_retry` told before
    /// each wait, only until the first byte of an answer. The receiver yields events in order and ends with
    /// [`StreamEvent::Finished`] or one error. Dropping the future or the receiver cancels the request.
    pub async fn stream(
        &self,
        request: ModelRequest,
        on_retry: RetryObserver,
    ) -> Result<ModelStream, ModelFailure> {
        match &self.inner {
            Inner::Http(client) => client.stream(&request, &on_retry).await,
            Inner::Scripted(player) => player.stream(&request, &on_retry).await,
        }
    }
}
