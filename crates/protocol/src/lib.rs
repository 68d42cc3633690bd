//! Every type that crosses a process boundary, as data only: no I/O, no clock, no randomness, no dependency but serde.
//!
//! * [`client`]: what people and their programs exchange with a server (HTTP, WebSocket, events).
//! * [`guest`]: what a host and the first process of a sandbox exchange.
//! * [`id`]: the identifiers both use.

pub mod client;
pub mod guest;
pub mod id;

/// Generation of the client API; part of every URL (`/v1`) and of the stream's `hello` frame.
pub const CLIENT_GENERATION: u32 = 1;

/// Generation of the guest protocol; exchanged in the first frame of a link.
pub const GUEST_GENERATION: u32 = 1;
