//! What the server keeps on disk. Nothing here knows about HTTP, actors or agents, and nothing outside knows about SQLite.
//!
//! * [`session_log`]: one session's events, journal, receipts and outbox behind one trait.
//! * [`data_dir`]: where all of it lies, and the lock that keeps a second server out.
//! * [`failure`]: what can be wrong with the storage below all of them.

pub mod data_dir;
pub mod failure;
pub mod session_log;
