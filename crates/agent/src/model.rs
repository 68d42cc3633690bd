//! Lets the agent use `greenroom-llm`'s client as its model. Adds no behaviour.

use crate::world::{ModelClient, ModelStream, RetryObserver};
use async_trait::async_trait;
use greenroom_llm::client::Client;
use greenroom_llm::conversation::ModelRequest;
use greenroom_llm::failure::ModelFailure;

#[async_trait]
impl ModelClient for Client {
    async fn stream(
        &self,
        request: ModelRequest,
        on_retry: RetryObserver,
    ) -> Result<ModelStream, ModelFailure> {
        Client::stream(self, request, on_retry).await
    }
}
