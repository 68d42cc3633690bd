//! The error document of the API (RFC 9457, `application/problem+json`), also used for failures inside a session.

use serde::{Deserialize, Serialize};

/// What went wrong, for a program (`code`, `retryable`) and for a person (`message`, `hint`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Problem {
    /// Stable, lower-case words joined by underscores, such as `repository_unknown`.
    pub code: String,
    /// One sentence for a person, without internals.
    pub message: String,
    /// What the reader can do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Whether the same request may succeed later, unchanged.
    #[serde(default)]
    pub retryable: bool,
    /// When to try again, in milliseconds from now; only with `retryable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl Problem {
    /// A problem that will not go away by trying again.
    pub fn permanent(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
            hint: None,
            retryable: false,
            retry_after_ms: None,
        }
    }

    /// A problem that may go away by itself.
    pub fn transient(code: &str, message: impl Into<String>) -> Self {
        Self {
            retryable: true,
            ..Self::permanent(code, message)
        }
    }

    /// The same problem with advice for the reader.
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }
}
