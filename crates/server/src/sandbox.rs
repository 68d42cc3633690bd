//! Where sandboxes come from, as the control plane sees it. The binary puts a host behind these traits; tests put the
//! fake there. Nothing here knows how a sandbox is made.

use async_trait::async_trait;
use greenroom_protocol::client::event::SandboxUsage;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::environment::{Backend, Base};
use greenroom_protocol::guest::Route;
use greenroom_protocol::guest::call::{
    Call, CallError, ChangeBatch, Exec, Exit, FileBytes, OutputChunk, Reply, Scope, TerminalSize,
};
use greenroom_protocol::id::{LayerId, SandboxId, SnapshotId};
use greenroom_protocol::reference::Reference;
use greenroom_stdx::secret::Secret;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use thiserror::Error;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Called for each connection a process in the sandbox makes to a routed port. The route is the sandbox's only way out,
/// and the handler knows whose sandbox it is: no credential is needed inside.
pub type RouteHandler = Arc<dyn Fn(Route, DuplexStream) + Send + Sync>;

/// What one sandbox may use; all of it is always set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SandboxResources {
    /// With swap.
    pub memory_bytes: u64,
    /// Thousandths of a processor.
    pub cpu_millis: u32,
    /// Processes and threads.
    pub max_processes: u32,
    /// Of the sandbox's own files.
    pub disk_bytes: u64,
    /// Per process.
    pub max_open_files: u64,
    /// Of one start.
    pub wall_time: Duration,
    /// Output of one command.
    pub max_output_bytes: u64,
}

/// A sandbox to be started.
#[derive(Clone)]
pub struct StartRequest {
    pub id: SandboxId,
    pub routes: RouteHandler,
    /// Who programs are: a user of the base; `None`: the agent.
    pub user: Option<String>,
    /// Whether programs have root's number, whoever the user is. So it is for the user `root` in any case.
    pub is_root: bool,
    pub backend: Backend,
    /// Program of an OCI runtime; only with that backend. `None`: the first that is found.
    pub runtime: Option<String>,
    pub resources: SandboxResources,
    /// Environment variables of everything in the sandbox; no secrets.
    pub variables: Vec<(String, String)>,
    /// Files below `/etc/greenroom`, by their last name; no secrets.
    pub files: Vec<(String, Vec<u8>)>,
    /// What lies below everything in it, if it was never started and begins with no snapshot.
    pub base: Base,
    /// Added to the variables of the base, for this sandbox and all that begin with its snapshots; `${NAME}` stands for what a variable
    /// of the base was. Of account only where a sandbox begins with a base.
    pub root_variables: Vec<(String, String)>,
    /// What it begins with if it was never started; `None`: an empty workspace.
    pub from: Option<SnapshotId>,
}

/// Hears of the steps of something that takes long, a line each.
pub type StepObserver = Arc<dyn Fn(String) + Send + Sync>;

/// A sandbox that stands still; it goes on when this is dropped.
pub type Frozen = Box<dyn std::any::Any + Send + Sync>;

/// A snapshot that is on disk for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    pub id: SnapshotId,
    /// Topmost first.
    pub layers: Vec<LayerId>,
    /// Of all its layers.
    pub size_bytes: u64,
}

/// Something in a registry that is one archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// A tar archive, perhaps compressed with gzip.
    pub archive: Vec<u8>,
    /// The file that was asked for, if there is one.
    pub file: Option<Vec<u8>>,
}

/// A snapshot that came from a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    pub id: SnapshotId,
    /// Topmost first.
    pub layers: Vec<LayerId>,
    /// Of all its layers.
    pub size_bytes: u64,
    /// As they were pushed with it.
    pub annotations: BTreeMap<String, String>,
}

/// Whether a sandbox was there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It runs with what it was started with, which may differ from what was asked for now.
    Found,
    Started,
}

/// Starts, finds and removes sandboxes.
#[async_trait]
pub trait SandboxProvider: Send + Sync {
    /// Starts a sandbox, or finds it running, or starts it again over the files it had. Idempotent by `id`.
    async fn start(&self, request: StartRequest) -> Result<(Arc<dyn Sandbox>, Origin), Problem>;

    /// The sandbox if it runs; whoever held it before loses it.
    async fn find(&self, id: &SandboxId, routes: RouteHandler) -> Result<Option<Arc<dyn Sandbox>>, Problem>;

    /// Whether it runs; disturbs nobody.
    async fn is_running(&self, id: &SandboxId) -> Result<bool, Problem>;

    /// Ends a sandbox's processes, whatever they are; its files stay for the next start. One that does not run is fine.
    async fn stop(&self, id: &SandboxId) -> Result<(), Problem>;

    /// Ends a sandbox and removes its files. One that does not exist is fine.
    async fn remove(&self, id: &SandboxId) -> Result<(), Problem>;

    /// Ends a sandbox and makes what it wrote a snapshot. Returns when that is on disk for good.
    async fn seal(&self, id: &SandboxId) -> Result<Sealed, Problem>;

    /// Takes a snapshot of a sandbox, whether it runs or not; on disk for good a while later.
    async fn snapshot(&self, id: &SandboxId) -> Result<Sealed, Problem>;

    /// Another snapshot of the same files, which is removed by itself; on disk for good a while later.
    async fn copy_snapshot(&self, id: &SnapshotId) -> Result<SnapshotId, Problem>;

    /// Whether a sandbox has no files yet, or has none any more.
    async fn is_new(&self, id: &SandboxId) -> bool;

    /// The first file that a sandbox, which does not run, wrote since its last snapshot and that holds one of the texts; and which
    /// of them it is, counted from 0.
    async fn find_text(&self, id: &SandboxId, texts: Vec<Secret>)
    -> Result<Option<(String, usize)>, Problem>;

    /// Forgets snapshots. What sandboxes began with stays.
    async fn remove_snapshots(&self, ids: &[SnapshotId]) -> Result<(), Problem>;

    /// Forgets all snapshots but these.
    async fn retain_snapshots(&self, wanted: &[SnapshotId]) -> Result<(), Problem>;

    /// The time that files are marked with now.
    fn file_clock(&self) -> SystemTime;

    /// Whether a sandbox made, changed or removed files at `since` or later, repositories' own and those for a while not counted. True if
    /// that cannot be known.
    async fn has_changed_since(&self, id: &SandboxId, since: SystemTime) -> Result<bool, Problem>;

    /// What the layers of snapshots take together, in bytes; what several have in common counts once.
    async fn snapshot_bytes(&self, ids: &[SnapshotId]) -> Result<u64, Problem>;

    /// What a sandbox's own files take, whether it runs or not, in bytes. Looks at all of them.
    async fn disk_bytes(&self, id: &SandboxId) -> Result<u64, Problem>;

    /// Makes everything in a sandbox stand still until what is returned is dropped.
    async fn freeze(&self, id: &SandboxId) -> Result<Frozen, Problem>;

    /// Gets a base ready that sandboxes are to be started with, which may take minutes. `say` hears of every step.
    async fn prepare_base(&self, base: &Base, say: StepObserver) -> Result<(), Problem>;

    /// What the name of an image in a registry stands for now, with its digest.
    async fn pin_image(&self, reference: &Reference) -> Result<Reference, Problem>;

    /// Something in a registry that is one archive, and a file at the top of it. The reference has a digest.
    async fn pull_artifact(&self, reference: &Reference, file: &str) -> Result<Artifact, Problem>;

    /// Puts a snapshot into a registry; returns the reference with its digest.
    async fn push_snapshot(
        &self,
        id: &SnapshotId,
        reference: &Reference,
        annotations: BTreeMap<String, String>,
        say: StepObserver,
    ) -> Result<Reference, Problem>;

    /// Brings a snapshot from a registry; the reference has a digest. It is kept for a week, longer if somebody retains it.
    async fn pull_snapshot(&self, reference: &Reference, say: StepObserver) -> Result<Pulled, Problem>;

    /// A base, as a digest.
    async fn base_digest(&self, base: &Base) -> Result<String, Problem>;

    /// Removes everything that belongs to no id of `wanted`: processes, mounts, directories.
    async fn reap(&self, wanted: &[SandboxId]) -> Result<(), Problem>;
}

/// What comes from a person's terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TerminalInput {
    Bytes(Vec<u8>),
    Resize(TerminalSize),
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

    /// Runs a program to its end; cancellation kills its group and still returns the exit. One with a key goes on when this
    /// future is dropped or the server dies.
    async fn exec(
        &self,
        exec: Exec,
        output: mpsc::Sender<OutputChunk>,
        cancel: CancellationToken,
    ) -> Result<Exit, SandboxError>;

    /// Follows a process that goes on without us to its end, from the byte of its output at `after_offset`, or from the first
    /// that is kept; otherwise like `exec`.
    async fn attach(
        &self,
        process_id: u32,
        after_offset: u64,
        output: mpsc::Sender<OutputChunk>,
        cancel: CancellationToken,
    ) -> Result<Exit, SandboxError>;

    /// Runs a program on a terminal to its end, as `exec` does. The end of `input` types an end-of-file character; cancellation and
    /// dropping this future hang it up.
    async fn terminal(
        &self,
        exec: Exec,
        input: mpsc::Receiver<TerminalInput>,
        output: mpsc::Sender<OutputChunk>,
        cancel: CancellationToken,
    ) -> Result<Exit, SandboxError>;

    /// Watches everything below a directory but `.git` and what .gitignore names. Changes after this returned are reported.
    async fn watch(&self, path: &str, scope: Scope) -> Result<Box<dyn FileChanges>, SandboxError>;

    /// Starts a background process and returns its number.
    async fn spawn(&self, exec: Exec) -> Result<u32, SandboxError>;

    /// Begins to measure what the sandbox uses, for one turn. One measure at a time.
    async fn begin_measure(&self) -> Result<Arc<dyn Measure>, Problem>;

    /// Whether calls can still succeed.
    fn is_alive(&self) -> bool;
}

/// Changes below a watched directory; dropping it ends the watching.
#[async_trait]
pub trait FileChanges: Send {
    /// The next of them, soon after the first; `None` once the directory itself is gone. Cancel-safe.
    async fn next(&mut self) -> Result<Option<ChangeBatch>, SandboxError>;
}

/// A measure that runs.
#[async_trait]
pub trait Measure: Send + Sync {
    /// What was used since it began; of disk, what is taken now.
    async fn usage(&self) -> Result<SandboxUsage, Problem>;
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
