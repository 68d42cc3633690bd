//! Streaming model clients. Wire formats are decoded by sans-IO state machines; HTTP, retries and time stand around them.
//! This crate knows nothing of sessions, tools or sandboxes.

mod anthropic;
pub mod catalog;
mod chat;
pub mod client;
pub mod conversation;
pub mod failure;
mod openai;
pub mod provider;
mod refusal;
mod responses;
pub mod scripted;
pub mod sse;
pub mod wire;
