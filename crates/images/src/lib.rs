//! What sandboxes begin with and leave behind: layers (directories, or files that hold one, that never change again) and snapshots (lists of layers).
//! Knows nothing of processes, sessions or mounts; blocking throughout, but for what registries are asked (`oci`).
//!
//! A sandbox's `/` is an overlay: layers below, one writable directory on top. Sealing renames that directory, so it costs the
//! same whatever it holds; copying takes what a running sandbox wrote, and shares with the copy before whatever did not change.

mod backup;
mod chain;
mod copy;
mod failure;
mod flatten;
mod manifest;
mod marks;
pub mod oci;
mod packed;
mod record;
pub mod search;
mod store;
pub mod tree;
mod view;

pub use backup::copy_snapshot;
pub use chain::{CHAIN_NAME, Chain};
pub use failure::ImageError;
pub use packed::Packer;
pub use record::{OwnRoot, Snapshot};
pub use store::{Collected, Held, ImageStore, Owner, Programs, UPPER_NAME};
