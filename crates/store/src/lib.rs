//! What the server keeps on disk. Nothing here knows about HTTP, actors or agents, and nothing outside knows about SQLite.
//!
//! * [`session_log`]: one session's events, journal, receipts and outbox behind one trait.
//! * [`sqlite_session_store`]: that trait on one SQLite file per session.
//! * [`fake`]: that trait in memory.
//! * [`catalog`]: people, sign-in, lists, receipts of creation, secrets at rest.
//! * [`backup`]: copies of the databases while they are written to.
//! * [`data_dir`]: where all of it lies, and the lock that keeps a second server out.
//! * [`failure`]: what can be wrong with the storage below all of them.

pub mod backup;
pub mod catalog;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod data_dir;
mod database;
pub mod failure;
pub mod fake;
#[cfg(test)]
mod released;
pub mod session_log;
pub mod sqlite_session_store;
