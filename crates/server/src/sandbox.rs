//! Where sandboxes come from, as the control plane sees it. The binary puts a host behind these traits; tests put the
//! fake there. Nothing here knows how a sandbox is made.

use async_trait::async_trait;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::guest::Route;
use greenroom_protocol::guest::call::{Call, CallError, Exec, Exit, FileBytes, OutputChunk, Reply, Scope};
use greenroom_protocol::id::SandboxId;
use std::sync::Arc;
use thiserror::Error;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Called for each connection a process in the sandbox makes to a routed port. The route is the sandbox's only way out,
/// and the handler knows whose sandbox it is: no credential is needed inside.
pub type RouteHandler = Arc<dyn Fn(Route, DuplexStream) + Send + Sync>;

/// Starts, finds and removes sandboxes.
#[async_trait]
pub trait SandboxProvider: Send + Sync {
    /// Starts a sandbox, or finds it running, or starts it again over the files it had. Idempotent by `id`.
    async fn start(&self, id: &SandboxId, routes: RouteHandler) -> Result<Arc<dyn Sandbox>, Problem>;

    /// Ends a sandbox's processes, whatever they are; its files stay for the next start. One that does not run is fine.
    async fn stop(&self, id: &SandboxId) -> Result<(), Problem>;

    /// Removes everything that belongs to no id of `wanted`: processes, mounts, directories.
    async fn reap(&self, wanted: &[SandboxId]) -> Result<(), Problem>;
}

/// A running sandbox.
#[async_trait]
pub trait Sandbox: Send + Sync {
    /// Any call without data streams.
    async fn call(&self, call: Call) -> Result<Reply, SandboxError>;

    /// Part of a file.
    async fn read_file(
        &self,
        path: &str,
        scope: Scope,
        offset: u64,
        max_bytes: u64,
    ) -> Result<FileBytes, SandboxError>;

    /// Replaces a file at once and completely.
    async fn write_file(&self, path: &str, scope: Scope, bytes: Vec<u8>) -> Result<(), SandboxError>;

    /// Runs a program to its end; cancellation kills its group and still returns the exit.
    async fn exec(
        &self,
        exec: Exec,
        output: mpsc::Sender<OutputChunk>,
        cancel: CancellationToken,
    ) -> Result<Exit, SandboxError>;

    /// Starts a background process and returns its number.
    async fn spawn(&self, exec: Exec) -> Result<u32, SandboxError>;

    /// Whether calls can still succeed.
    fn is_alive(&self) -> bool;
}

/// Why a sandbox did not do it.
#[derive(Debug, Clone, Error)]
pub enum SandboxError {
    /// The guest answered with an error.
    #[error("{}", .0.message)]
    Call(CallError),
    /// The sandbox is gone.
    #[error("{}", .0.message)]
    Lost(Problem),
}
