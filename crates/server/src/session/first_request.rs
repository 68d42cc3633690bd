//! Lets a turn's first model request go out before the work for its sandbox begins: on a small machine both would want the same
//! processors at once, and the model takes far longer to answer than a sandbox to start.

use async_trait::async_trait;
use greenroom_agent::world::{ModelClient, ModelStream, RetryObserver};
use greenroom_llm::conversation::ModelRequest;
use greenroom_llm::failure::ModelFailure;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// From the call of the client until the request has left, with a connection that is open.
const LEAVING: Duration = Duration::from_millis(2);

/// A turn that asks the model late, because it goes on with tools, waits no longer.
const PATIENCE: Duration = Duration::from_millis(50);

/// A model client that says when it is first asked.
pub struct FirstRequest {
    inner: Arc<dyn ModelClient>,
    is_asked: watch::Sender<bool>,
}

impl FirstRequest {
    pub fn new(inner: Arc<dyn ModelClient>) -> Self {
        Self {
            inner,
            is_asked: watch::Sender::new(false),
        }
    }

    /// Ends when the request is on its way, or does not come.
    pub fn left(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut is_asked = self.is_asked.subscribe();
        async move {
            // Also when the turn, and with it the client, is gone.
            let _ = tokio::time::timeout(PATIENCE, is_asked.wait_for(|is_asked| *is_asked)).await;
            tokio::time::sleep(LEAVING).await;
        }
    }
}

#[async_trait]
impl ModelClient for FirstRequest {
    async fn stream(
        &self,
        request: ModelRequest,
        on_retry: RetryObserver,
    ) -> Result<ModelStream, ModelFailure> {
        self.is_asked.send_replace(true);
        self.inner.stream(request, on_retry).await
    }
}
