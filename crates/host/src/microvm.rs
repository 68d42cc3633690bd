//! Sandboxes in virtual machines: Firecracker with one machine per sandbox. The host's kernel is not shared.

#![cfg_attr(
    not(test),
    allow(dead_code, reason = "the backend that uses it is the next change")
)]

pub mod client;
pub mod image;
pub mod request;

/// Where the guest's program lies in the base image.
pub const GUEST_INSIDE: &str = "/greenroom-guest";

#[cfg(test)]
mod peers;
