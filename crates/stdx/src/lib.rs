//! Small things every layer needs and no product decision lives in.

pub mod backoff;
pub mod chain;
pub mod clock;
pub mod id;
pub mod memory;
pub mod secret;
pub mod step;
