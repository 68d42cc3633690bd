//! Sandboxes through the host's public API, with real processes: each scenario as root (where the tests run as root) and as
//! an ordinary user.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test fails by panicking and tells why on standard error"
)]

mod bait;
mod copied;
mod doctor;
mod egress;
mod files;
mod filesystems;
mod generations;
mod hidden;
mod hogs;
mod hostile;
mod ignore_files;
mod impostor;
mod isolation;
mod launcher;
mod liars;
mod lifecycle;
mod limits;
mod oci_images;
mod ports;
mod probe;
mod processes;
mod programs;
mod routes;
mod runtimes;
mod services;
mod slow;
mod snapshots;
mod survival;
mod swapped;
mod terminals;
mod tree;
mod walls;
mod world;
