//! Streaming model clients. Wire formats are decoded by sans-IO state machines; HTTP, retries and time stand around them.
//! This crate knows nothing of sessions, tools or sandboxes.

pub mod conversation;
pub mod failure;
