//! The product as real processes. One file per promise.

// Test code fails by panicking; that is what its expectations are.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::print_stderr)]

mod aftermath;
mod archive;
mod attachments;
mod backup;
mod bad_input;
mod bases;
mod clock;
mod crash;
mod disk;
mod effects;
mod egress;
mod entry;
mod environment;
mod faults;
mod forks;
mod gate;
mod hostile_git;
mod hostile_session;
mod idle;
mod images;
mod insert;
mod invariants;
mod journey;
mod kills;
mod limits;
mod links;
mod live_sync;
mod long_sessions;
mod ordinary_user;
mod overload;
mod people;
mod people_leaving;
mod pool;
mod pool_failures;
mod receipts;
mod repositories;
mod script;
mod search;
mod services;
mod shells;
mod sleep;
mod snapshots;
mod stillness;
mod together;
mod wire_formats;
