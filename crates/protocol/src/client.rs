//! The client API: what HTTP bodies and WebSocket frames hold. Paths and status codes are the server's.

pub mod audit;
pub mod environment;
pub mod event;
pub mod image;
pub mod member;
pub mod model;
pub mod overview;
pub mod person;
pub mod problem;
pub mod prompt;
pub mod pull_request;
pub mod repository;
pub mod secret;
pub mod session;
pub mod shell;
pub mod stream;

/// Largest prompt text a server takes, in bytes of UTF-8.
pub const MAX_PROMPT_BYTES: usize = 256 * 1024;

/// Header that carries a command's idempotency key: 1 to 128 visible ASCII characters.
pub const IDEMPOTENCY_KEY_HEADER: &str = "idempotency-key";
