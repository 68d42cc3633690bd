//! Images of registries: pulled to be what sandboxes begin with, pushed so that others can use them.

mod archive;
mod artifact;
mod digest;
mod document;
mod failure;
mod import;
mod pack;
mod pull;
mod push;
mod registry;
mod token;
mod unpack;
mod zstd;

pub use artifact::Artifact;
pub use failure::OciError;
pub use import::Import;
pub(crate) use pull::Incoming;
pub use pull::{Fittings, Pull, RootFiles, pin};
pub use push::Push;
pub use registry::{Login, Registry};
