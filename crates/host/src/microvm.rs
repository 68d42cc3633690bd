//! Sandboxes in virtual machines: Firecracker with one machine per sandbox. The host's kernel is not shared.

pub mod client;
pub mod image;
pub mod request;

/// Where the guest's program lies in the base image.
pub const GUEST_INSIDE: &str = "/greenroom-guest";

/// Port of a machine's virtual socket on which its guest listens; the guest has the same number.
pub const GUEST_PORT: u32 = 1024;

#[cfg(test)]
pub mod peers;
