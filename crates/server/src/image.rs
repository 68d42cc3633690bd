//! Images: for each environment a filesystem with the repository at a known commit, everything installed, built and run once, so
//! that sessions begin with it. Built in a sandbox like any other; nothing of a build that failed is ever used.
//!
//! [`plan`] decides, [`queue`] takes turns, [`build`] does one build, [`registry`] holds them together, and [`exchange`]
//! brings them to registries and back.

mod build;
mod exchange;
mod features;
mod log;
mod plan;
mod queue;
mod registry;

use crate::environment::BoundedEnvironment;
use greenroom_protocol::client::image::{Image, ImageRepository};
use greenroom_protocol::environment::Base;

pub use build::environment_of;
pub use plan::environment_digest;
pub use registry::{ImageBounds, ImageRegistry, wanted_snapshots};

/// Whether sandboxes of an environment may begin with an image: one over the same base, perhaps in another version, and with no other
/// repositories than the environment names, where it has them. What was built before bases had names is over the host's.
pub fn fits(image: &Image, environment: &BoundedEnvironment) -> bool {
    let base = match image.base.as_str() {
        "" => Ok(Base::Host),
        text => text.parse(),
    };
    let is_named = |held: &ImageRepository| {
        let mut named = environment.repositories.iter();
        named.any(|one| one.name == held.name && one.path() == held.path)
    };
    base.is_ok_and(|base: Base| base.is_like(&environment.base)) && image.repositories.iter().all(is_named)
}

/// Where an image says in its sandboxes of which commit it is; the checkout of a session goes on from there.
pub const IMAGE_MARK: &str = "/home/agent/.greenroom/image";
