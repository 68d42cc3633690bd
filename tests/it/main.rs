//! The product as real processes. One file per promise.

// Test code fails by panicking; that is what its expectations are.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::print_stderr)]

mod aftermath;
mod bad_input;
mod bases;
mod clock;
mod crash;
mod disk;
mod effects;
mod egress;
mod entry;
mod environment;
mod forks;
mod gate;
mod hostile_git;
mod idle;
mod images;
mod insert;
mod journey;
mod kills;
mod limits;
mod links;
mod ordinary_user;
mod people;
mod people_leaving;
mod pool;
mod receipts;
mod repositories;
mod script;
mod search;
mod services;
mod shells;
mod sleep;
mod snapshots;
mod together;
mod wire_formats;
