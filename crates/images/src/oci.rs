//! Images of registries: pulled to be what sandboxes begin with, pushed so that others can use them.

mod archive;
mod document;
mod failure;
mod pack;
mod pull;
mod push;
mod reference;
mod registry;
mod token;
mod unpack;

pub use failure::OciError;
pub(crate) use pull::Incoming;
pub use pull::{Fittings, Pull, RootFiles, pin};
pub use push::Push;
pub use reference::{Digest, Reference};
pub use registry::{Login, Registry};
