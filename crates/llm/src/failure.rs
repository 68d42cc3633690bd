//! Why a model did not answer, in the one shape callers decide on.

use std::time::Duration;
use thiserror::Error;

/// A model call that failed.
#[derive(Debug, Clone, Error)]
#[error("{message}")]
pub struct ModelFailure {
    pub kind: FailureKind,
    /// One sentence for a person, without credentials; may quote the provider's own message.
    pub message: String,
    /// What the provider asked us to wait.
    pub retry_after: Option<Duration>,
}

impl ModelFailure {
    /// A failure without a wait. `message` must hold no credential.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            retry_after: None,
        }
    }
}

/// What kind of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// No key, or the provider refuses it (401, 403).
    Unauthorized,
    /// 429, or the account has no credit left.
    RateLimited,
    /// 5xx, 529.
    Overloaded,
    /// The provider refuses the request (other 4xx); the same request fails again.
    InvalidRequest,
    /// The conversation is longer than the model takes.
    ContextTooLong,
    /// No connection, or it broke before the first byte of the answer.
    Unreachable,
    /// Nothing arrived for the idle time.
    TimedOut,
    /// The answer ended without its terminal event.
    Truncated,
    /// The answer is not what the wire format says.
    Malformed,
    /// The scripted model's script has no step for this conversation.
    ScriptExhausted,
}

impl FailureKind {
    /// Stable code for problems shown to people.
    pub fn code(self) -> &'static str {
        match self {
            Self::Unauthorized => "model_unauthorized",
            Self::RateLimited => "model_rate_limited",
            Self::Overloaded => "model_overloaded",
            Self::InvalidRequest => "model_refused_request",
            Self::ContextTooLong => "model_context_too_long",
            Self::Unreachable => "model_unreachable",
            Self::TimedOut => "model_timed_out",
            Self::Truncated => "model_stream_truncated",
            Self::Malformed => "model_stream_malformed",
            Self::ScriptExhausted => "script_exhausted",
        }
    }

    /// Whether the same request may succeed later.
    pub fn is_retryable(self) -> bool {
        match self {
            Self::RateLimited | Self::Overloaded | Self::Unreachable | Self::TimedOut | Self::Truncated => {
                true
            }
            Self::Unauthorized
            | Self::InvalidRequest
            | Self::ContextTooLong
            | Self::Malformed
            | Self::ScriptExhausted => false,
        }
    }

    /// What a person can do about it.
    pub fn hint(self) -> &'static str {
        match self {
            Self::Unauthorized => {
                "check the provider's API key: its environment variable, or `greenroom secret set`"
            }
            Self::RateLimited => "wait, raise the limit at the provider, or choose another model",
            Self::Overloaded => "the provider has trouble; try again, or choose another model",
            Self::InvalidRequest => {
                "check the model's name and the provider's `base_url` and `kind` in greenroom.toml"
            }
            Self::ContextTooLong => "start a new session, or choose a model with a larger context",
            Self::Unreachable => "check `base_url` and the network between this server and the provider",
            Self::TimedOut | Self::Truncated => "send the prompt again; the workspace kept what was done",
            Self::Malformed => "check that `kind` in greenroom.toml matches what `base_url` speaks",
            Self::ScriptExhausted => {
                "the scripted demo model only plays its script; set ANTHROPIC_API_KEY or OPENAI_API_KEY"
            }
        }
    }
}
