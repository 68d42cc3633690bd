//! Sessions: one actor each, the only writer of the session's log.
//!
//! `state` folds events into what a session is; `actor` decides, appends and publishes; `turn` runs the agent; `workspace`
//! and `checkout` bring a sandbox; `changes`, `platform` and `outbox` bring the work to the forge.

mod actor;
mod changes;
mod checkout;
pub mod command;
pub mod hub;
mod outbox;
mod platform;
pub mod registry;
mod run;
pub mod services;
pub mod state;
mod turn;
mod workspace;

pub use outbox::digest_of;
