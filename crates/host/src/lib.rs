//! Sandboxes on one machine: starts them, finds them again after a restart, ends them, and speaks to their guests.
//! Knows nothing of sessions, people or repositories. Nothing a guest says is trusted.

mod ahead;
mod backend;
mod base;
mod blank;
mod embedded;
mod expose;
mod failure;
mod fittings;
mod host;
mod launcher;
mod link;
mod microvm;
mod probe;
mod registry;
mod route;
mod sandbox;
mod snapshot;
mod splice;
mod supervisor;
mod usage;

pub use backend::{MachineConfig, MachineError};
pub use expose::{ExposeError, Exposed};
pub use failure::{HostError, SandboxError};
pub use greenroom_images::oci::Login;
pub use greenroom_images::tree::file_clock;
pub use greenroom_images::tree::remove as remove_tree;
pub use greenroom_images::{Snapshot, copy_snapshot};
pub use greenroom_sandbox::spec::Limits;
pub use host::{Host, HostConfig, SandboxFile, SandboxUser, StartSandbox};
pub use probe::{Finding, Verdict, probe};
pub use route::{RouteHandler, RouteStream, refuse_routes};
pub use sandbox::{Changes, ForwardStream, MAX_READ_BYTES, Program, Sandbox};
pub use snapshot::{Frozen, Taken};
pub use usage::{Measure, SandboxUsage};
