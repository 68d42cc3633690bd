//! Sandboxes in virtual machines: Firecracker with one machine per sandbox. The host's kernel is not shared.

pub mod client;
pub mod image;
pub mod request;

/// Where the guest's program lies in the base image.
pub const GUEST_INSIDE: &str = "/greenroom-guest";

#[cfg(test)]
mod peers;
