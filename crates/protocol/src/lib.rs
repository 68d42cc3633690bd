//! Every type that crosses a process boundary, as data only: no I/O, no clock, no randomness, no dependency but serde.
//!
//! * [`client`]: what people and their programs exchange with a server (HTTP, WebSocket, events).
//! * [`environment`]: what a repository's sandboxes are made of and may do.
//! * [`guest`]: what a host and the first process of a sandbox exchange.
//! * [`id`]: the identifiers both use.
//! * [`reference`]: names of images in registries.

pub mod client;
pub mod environment;
pub mod guest;
pub mod id;
pub mod reference;

/// Generation of the client API; part of every URL (`/v1`) and of the stream's `hello` frame.
pub const CLIENT_GENERATION: u32 = 1;

/// Generation of the guest protocol; exchanged in the first frame of a link.
pub const GUEST_GENERATION: u32 = 2;

/// Oldest generation of the other side that is still served: a sandbox outlives the server, so an upgraded server meets
/// guests of the version before.
pub const OLDEST_GUEST_GENERATION: u32 = 1;
