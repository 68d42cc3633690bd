//! People, how they sign in, and what the server tells them about themselves.

use crate::id::{PersonId, TokenId};
use serde::{Deserialize, Serialize};

/// A person as others see them: author of prompts and commits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Person {
    pub id: PersonId,
    /// Shown beside prompts; author and committer name of commits.
    pub name: String,
    /// Author and committer address of commits.
    pub email: String,
}

/// Answer to `GET /v1/me`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Me {
    #[serde(flatten)]
    pub person: Person,
    /// Whether the caller owns this server.
    #[serde(default)]
    pub is_owner: bool,
}

/// Somebody who may use this server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Account {
    #[serde(flatten)]
    pub person: Person,
    /// Whether they own this server: add and remove people, and see and change everything.
    pub is_owner: bool,
    pub created_at_ms: i64,
}

/// Answer to `GET /v1/people`: in the order in which they came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AccountList {
    pub people: Vec<Account>,
}

/// Body of `POST /v1/people`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AddPerson {
    /// 1 to 100 characters.
    pub name: String,
    /// Nobody else's on this server.
    pub email: String,
    #[serde(default)]
    pub is_owner: bool,
}

/// Body of `PATCH /v1/people/{id}`; at least one of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct UpdatePerson {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Nobody else's on this server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// Whether they own this server. It always has an owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_owner: Option<bool>,
}

/// Answer to `POST /v1/people`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AddedPerson {
    pub person: Account,
    /// Signs them in, once. Another can be had from `POST /v1/people/{id}/sign-in-links`.
    pub sign_in: SignInLink,
}

/// Body of `POST /v1/sign-in`: the secret part of a one-time link.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SignIn {
    /// What stands behind `#token=` in the link; works once, for a limited time.
    pub token: String,
}

/// Body of `PATCH /v1/me`: what a person may change about themselves.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct UpdateMe {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Only of owners of the server: commits are attributed by it. They change it for others too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
}

/// Body of `POST /v1/tokens`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// What the token is for, 1 to 100 characters.
    pub label: String,
}

/// A new API token. `secret` is shown this once; it is also the password of git over HTTP.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CreatedToken {
    pub id: TokenId,
    pub label: String,
    pub secret: String,
}

/// An API token without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Token {
    pub id: TokenId,
    pub label: String,
    pub created_at_ms: i64,
}

/// Answer to `GET /v1/tokens`: the caller's own, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TokenList {
    pub tokens: Vec<Token>,
}

/// A single-use ticket that opens one WebSocket within 30 seconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StreamTicket {
    pub ticket: String,
}

/// Answer to `GET /v1/health`, the only one that needs no sign-in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Health {
    /// `ok`, or the server would not answer.
    pub status: String,
    pub version: String,
    /// See [`crate::CLIENT_GENERATION`].
    pub generation: u32,
}

/// Answer to `POST /v1/sign-in-links`: opens this server signed in as the caller, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SignInLink {
    pub url: String,
    pub expires_at_ms: i64,
}
