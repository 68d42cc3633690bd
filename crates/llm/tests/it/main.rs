//! The crate from outside: its clients against real sockets, the vendors' own schemas, and other people's programs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "tests fail by panicking"
)]

mod aimock;
mod client;
mod demo;
mod peers;
mod rig;
mod schemas;
mod talk;
