//! How a call can fail. Only data: what to do about it is the caller's.

use greenroom_protocol::client::problem::Problem;
use thiserror::Error;

/// Why a call to a server gave no answer of the expected kind.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The address is not one a token may be sent to: `https`, or `http` to a loopback address.
    #[error("the server address {address:?} cannot be used: {reason}")]
    Address { address: String, reason: &'static str },
    /// The server understood and refused; `problem` says why. `status` is the HTTP status.
    #[error("{}", problem.message)]
    Problem { status: u16, problem: Problem },
    /// No answer: nothing listens, the name does not resolve, or the connection broke.
    #[error("no answer from {server}")]
    Unreachable {
        server: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An answer that is not what this generation of the API sends.
    #[error("{server} gave an answer this client does not understand ({context})")]
    Malformed { server: String, context: String },
    /// An answer larger than this client reads.
    #[error("{server} gave an answer of more than {limit_bytes} bytes")]
    TooLarge { server: String, limit_bytes: u64 },
    /// The server speaks another generation of the API.
    #[error("the server speaks API generation {server_generation}, this client {client_generation}")]
    Generation {
        server_generation: u32,
        client_generation: u32,
    },
}

impl ClientError {
    /// Whether the same call may succeed later, unchanged.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Problem { problem, .. } => problem.retryable,
            Self::Unreachable { .. } => true,
            Self::Address { .. }
            | Self::Malformed { .. }
            | Self::TooLarge { .. }
            | Self::Generation { .. } => false,
        }
    }

    /// The stable code of the server's refusal, if it was one.
    pub fn problem_code(&self) -> Option<&str> {
        match self {
            Self::Problem { problem, .. } => Some(&problem.code),
            Self::Address { .. }
            | Self::Unreachable { .. }
            | Self::Malformed { .. }
            | Self::TooLarge { .. }
            | Self::Generation { .. } => None,
        }
    }
}
