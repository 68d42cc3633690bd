//! Tests of the forge through its public API, with real git clients over real HTTP.

mod bench;
mod http;
mod merging;
mod pull_requests;
mod repositories;
