//! Tests of the store through its public API.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod catalog;
mod crash;
mod data_dir;
mod deletions;
mod disk_full;
mod session_store;
