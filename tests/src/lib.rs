//! Runs the product as its users do: the real binary, real sandboxes, real git, real HTTP. No knowledge of the inside.
//!
//! * [`product`]: a server process with its own data directory, started, killed and started again.
//! * [`api`]: plain HTTP and WebSocket, so that also wrong requests can be sent.
//! * [`repo`]: repositories made with git.
//! * [`random`]: moments that a failed run can be repeated with.

// Test code fails by panicking; that is what its expectations are.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::print_stderr)]

pub mod api;
pub mod product;
pub mod random;
pub mod repo;
