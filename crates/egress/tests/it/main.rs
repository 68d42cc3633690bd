//! The proxies as a sandbox sees them: real servers on loopback (allowed explicitly), real clients, and hostile ones that
//! write bytes of their own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test fails by panicking and tells why on standard error"
)]

mod clients;
mod hostile;
mod http;
mod intercept;
mod origin;
mod rebinding;
mod socks;
mod world;
