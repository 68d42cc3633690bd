//! Tests of the store through its public API.

mod catalog;
mod crash;
mod data_dir;
mod disk_full;
mod session_store;
