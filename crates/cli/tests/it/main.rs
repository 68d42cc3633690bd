//! The built program as people and scripts use it, without a server of ours: help, configuration, errors, outputs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod client;
mod configuration;
mod interface;
mod program;
