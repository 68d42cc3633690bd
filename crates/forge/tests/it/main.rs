//! Tests of the forge through its public API, with real git clients over real HTTP.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that meets the unexpected panics"
)]

mod bench;
mod http;
mod merging;
mod pull_requests;
mod repositories;
