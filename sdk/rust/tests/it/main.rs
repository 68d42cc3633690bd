//! The client against a small server that misbehaves on purpose.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod calls;
mod server;
mod streams;
