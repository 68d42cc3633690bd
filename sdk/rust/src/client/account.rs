//! Endpoints about the server itself, the signed-in person, models and secrets.

use super::Client;
use crate::failure::ClientError;
use greenroom_protocol::client::model::ModelList;
use greenroom_protocol::client::person::{
    CreateToken, CreatedToken, Health, Me, Person, SignInLink, StreamTicket, UpdateMe,
};
use greenroom_protocol::client::secret::{SecretNames, SetSecret};
use greenroom_stdx::secret::Secret;
use reqwest::Method;

impl Client {
    /// Whether the server answers, and its version. Needs no valid token.
    pub async fn health(&self) -> Result<Health, ClientError> {
        self.get(&["health"]).await
    }

    /// The OpenAPI 3.1 document. Needs no valid token.
    pub async fn openapi(&self) -> Result<serde_json::Value, ClientError> {
        self.get(&["openapi.json"]).await
    }

    /// Whom the token belongs to, and whether they own the server.
    pub async fn me(&self) -> Result<Me, ClientError> {
        self.get(&["me"]).await
    }

    /// Changes the name or address that future prompts and commits carry.
    pub async fn update_me(&self, change: &UpdateMe) -> Result<Person, ClientError> {
        let request = self.change(Method::PATCH, self.url(&["me"])).json(change);
        self.json(request, super::Repeat::Safe).await
    }

    /// A new API token; its secret is shown this once.
    pub async fn create_token(&self, label: &str) -> Result<CreatedToken, ClientError> {
        let body = CreateToken {
            label: label.to_owned(),
        };
        // The server keeps no receipt of what holds a secret.
        let request = self.request(Method::POST, self.url(&["tokens"])).json(&body);
        self.json(request.timeout(super::CALL_TIMEOUT), super::Repeat::Never)
            .await
    }

    /// A ticket that lets a browser open one stream.
    pub async fn create_stream_ticket(&self) -> Result<StreamTicket, ClientError> {
        self.command(Method::POST, &["stream-tickets"]).await
    }

    /// A link that signs a browser in as this person, once.
    pub async fn create_sign_in_link(&self) -> Result<SignInLink, ClientError> {
        self.command(Method::POST, &["sign-in-links"]).await
    }

    /// Models a session may use; the default first.
    pub async fn models(&self) -> Result<ModelList, ClientError> {
        self.get(&["models"]).await
    }

    /// Names of the stored secrets, sorted. Values are never given back.
    pub async fn secret_names(&self) -> Result<SecretNames, ClientError> {
        self.get(&["secrets"]).await
    }

    /// Stores or replaces a secret. Only for owners.
    pub async fn set_secret(&self, name: &str, value: &Secret) -> Result<(), ClientError> {
        let body = SetSecret {
            value: value.expose().to_owned(),
        };
        self.acknowledge(self.change(Method::PUT, self.url(&["secrets", name])).json(&body))
            .await
    }

    /// Forgets a secret. Only for owners.
    pub async fn remove_secret(&self, name: &str) -> Result<(), ClientError> {
        self.acknowledge(self.change(Method::DELETE, self.url(&["secrets", name])))
            .await
    }
}
