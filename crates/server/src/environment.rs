//! Environments of repositories, from text to what a sandbox is started with: read with the place of every error, checked
//! once into a type that cannot be wrong, bounded by what the operator allows. Starts nothing.

mod bounds;
mod check;
mod devcontainer;
mod read;
mod source;

pub use bounds::{BoundedEnvironment, Bounds, ImagePlan, RepositoryEgress, backend_name};
pub use check::{CheckedEnvironment, EnvironmentError, Fault, is_secret_name};
pub use devcontainer::{DevContainer, read_devcontainer};
pub use read::read_toml;
pub use source::{EnvironmentFinder, FoundEnvironment};

/// Where a repository keeps its own environment.
pub const ENVIRONMENT_FILE: &str = ".greenroom/environment.toml";

/// Largest such file, in bytes.
pub const MAX_ENVIRONMENT_BYTES: u64 = 64 * 1024;
