//! Sessions: one actor each, the only writer of the session's log.
//!
//! `state` folds events into what a session is; `actor` decides, if whoever asks has the `right`, appends and publishes; `turn` runs the agent, which `conversation` tells what was said before; `workspace`,
//! `checkout` and `service_watch` bring a sandbox, `file_watch` tells what changes in it and `diff` shows how, `running` and `sandbox_slot` put it to rest; `snapshots` and `fork` keep and copy it; `changes`, `platform` and `outbox` bring the work to the forge; `hub` and `presence` tell those who watch; `listing`
//! keeps what lists show and what sessions are found by.

mod actor;
mod changes;
mod checkout;
pub mod command;
mod conversation;
pub mod diff;
pub mod ending;
mod file_watch;
pub mod files;
mod first_request;
pub mod fork;
pub mod hub;
mod inherited;
pub mod listing;
mod outbox;
mod platform;
mod presence;
pub mod registry;
pub mod right;
mod run;
pub mod running;
mod sandbox_slot;
mod service_watch;
pub mod services;
pub mod snapshots;
pub mod state;
mod stillness;
mod turn;
pub mod views;
mod way_out;
mod workspace;
mod workspace_notes;

pub(crate) use changes::{ChangeAuthor, git_identity};
pub(crate) use checkout::{is_usable, look, place};
pub(crate) use file_watch::follow as follow_files;
pub use outbox::digest_of;
pub(crate) use run::Runner;
pub use sandbox_slot::Leave;
pub(crate) use service_watch::{start_and_await as start_and_await_services, statuses as service_statuses};
pub use stillness::InUse;
pub(crate) use workspace::make_room;
