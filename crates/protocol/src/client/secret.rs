//! Secrets of the server, such as model keys: they go in and are never given back.

use serde::{Deserialize, Serialize};

/// Body of `PUT /v1/secrets/{name}`. No `Debug`: the value must not reach a log.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SetSecret {
    /// 1 byte to 64 KiB.
    pub value: String,
}

/// Answer to `GET /v1/secrets`, sorted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SecretNames {
    pub names: Vec<String>,
}
