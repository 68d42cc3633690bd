//! What the host tells the launcher, and what the launcher answers. Data only.

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Uid and gid of every process inside a sandbox, unless they are to be root's.
pub const AGENT_ID: u32 = 1000;

/// Uid and gid of root, inside.
pub const ROOT_ID: u32 = 0;

/// Owner of the agent's files on disk, wherever root starts sandboxes: of every layer, whichever sandbox wrote it. Above all
/// ids that are in use anywhere, and of no process where mounts can be mapped.
pub const LAYER_ID: u32 = 0x7f00_0000;

/// File descriptor on which the guest finds its listening socket.
pub const GUEST_SOCKET_FD: i32 = 3;

/// What the host writes to a launcher: which kind of sandbox to build and supervise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum LaunchOrders {
    /// Namespaces on the host's kernel.
    Namespace(LaunchSpec),
    /// By an OCI runtime.
    Oci(OciSpec),
    /// A virtual machine.
    Machine(MachineSpec),
}

impl LaunchOrders {
    /// The sandbox's directory.
    pub fn directory(&self) -> &Path {
        match self {
            Self::Namespace(spec) => &spec.directory,
            Self::Oci(spec) => &spec.sandbox.directory,
            Self::Machine(spec) => &spec.directory,
        }
    }
}

/// Everything a launcher needs to build one sandbox with an OCI runtime.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OciSpec {
    pub sandbox: LaunchSpec,
    /// The runtime's program, absolute.
    pub program: PathBuf,
    pub runtime: OciRuntime,
}

/// Which runtime it is, as far as they differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OciRuntime {
    Crun,
    Runc,
    /// gVisor.
    Runsc,
    /// One that is taken to behave as the specification says, such as youki.
    Other,
}

/// Beginning of a [`LaunchFailure::step`] that says why an OCI runtime did not start the guest: its own last words follow.
pub const RUNTIME_REFUSED: &str = "runtime refused: ";
/// Name of the file with the beginning of what an OCI runtime said on standard error.
pub const RUNTIME_LOG_NAME: &str = "runtime.log";

/// Everything a launcher needs to hold one Firecracker process. Who configures and starts the machine is the host, over
/// [`MACHINE_API_NAME`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineSpec {
    /// The sandbox's directory, absolute. Holds [`SOCKET_NAME`], [`LOCK_NAME`], [`EXIT_NAME`] and [`MACHINE_NAME`].
    pub directory: PathBuf,
    /// Firecracker's program, absolute.
    pub program: PathBuf,
    /// Uid and gid of the process, if root starts it.
    pub host_id: Option<u32>,
    /// Port of the machine's virtual socket on which its guest listens.
    pub guest_port: u32,
    pub limits: Limits,
    /// Directories of this sandbox in each cgroup hierarchy, not yet made; may be empty.
    pub cgroups: Vec<crate::cgroup::Placement>,
}

/// Name of the directory in which the machine's process works: its disks and sockets. It belongs to the process.
pub const MACHINE_NAME: &str = "machine";
/// Name of the API's socket there.
pub const MACHINE_API_NAME: &str = "api.sock";
/// Name of the socket that leads to the machine's virtual socket there.
pub const MACHINE_VSOCK_NAME: &str = "vsock.sock";

/// Everything a launcher needs to build one sandbox of namespaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchSpec {
    /// The sandbox's directory, absolute. Holds [`SOCKET_NAME`], [`LOCK_NAME`], [`EXIT_NAME`] and [`HITS_NAME`]; in the
    /// sandbox's own mount namespace its root is mounted over it.
    pub directory: PathBuf,
    pub root: Root,
    pub privilege: Privilege,
    /// Host paths shown read-only at the same place inside, with what is mounted below them.
    pub read_only: Vec<PathBuf>,
    /// Whether programs may change everything in the root that is theirs, not only the agent's own places.
    #[serde(default)]
    pub is_root_open: bool,
    /// Uid and gid of every process inside: [`AGENT_ID`], or [`ROOT_ID`] for programs that insist on being root. That root has no
    /// rights but over its own files; what it would need others for is answered as if it had worked (`seccomp::PRETENDED`).
    #[serde(default = "agent_id")]
    pub user_id: u32,
    /// The guest's program, absolute.
    pub guest: PathBuf,
    pub hostname: String,
    /// The guest's whole environment.
    pub env: Vec<(String, String)>,
    pub limits: Limits,
    /// Directories of this sandbox in each cgroup hierarchy, not yet made; may be empty.
    pub cgroups: Vec<crate::cgroup::Placement>,
}

fn agent_id() -> u32 {
    AGENT_ID
}

/// Name of the guest's socket in the sandbox's directory.
pub const SOCKET_NAME: &str = "guest.sock";
/// Name of the file whose lock the supervisor holds as long as it lives.
pub const LOCK_NAME: &str = "lock";
/// Name of the file with the [`ExitRecord`].
pub const EXIT_NAME: &str = "exit.json";
/// Name of the file with the [`LimitHits`].
pub const HITS_NAME: &str = "limits-hit.json";

/// What `/` is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "root", rename_all = "snake_case")]
pub enum Root {
    /// Read-only directories, topmost first, under a writable one. `upper` and `work` are on one filesystem that is not
    /// itself an overlay. `work` is empty.
    Overlay {
        lower: Vec<PathBuf>,
        upper: PathBuf,
        work: PathBuf,
    },
    /// A plain directory, written directly; for where the kernel refuses an overlay.
    Directory { path: PathBuf },
}

/// With which rights the launcher works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "privilege", rename_all = "snake_case")]
pub enum Privilege {
    /// As root; processes of the sandbox are a uid and gid outside that nobody else has. Never 0.
    Root,
    /// As an ordinary user; processes of the sandbox are this user outside.
    User,
}

/// What one sandbox may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory with swap, in bytes. Held by a cgroup only. A quarter of it may be files in /dev/shm.
    pub memory_bytes: u64,
    /// Processes and threads of programs; the guest's own few are not among them. Held by a cgroup or by `RLIMIT_NPROC`.
    pub max_processes: u32,
    /// Thousandths of a processor. Held by a cgroup only.
    pub cpu_millis: u32,
    /// Largest single file, in bytes (`RLIMIT_FSIZE`); never above `disk_bytes`.
    pub max_file_bytes: u64,
    /// Open files per process (`RLIMIT_NOFILE`), at most the host's own hard limit.
    pub max_open_files: u64,
    /// What the sandbox's own files may take on disk, in bytes; the image below them does not count. How closely it is
    /// held depends on the machine.
    pub disk_bytes: u64,
    /// How long one start lives; then the supervisor ends the sandbox, whose files stay. `None`: without end.
    pub wall_time: Option<Duration>,
    /// Output of one foreground program, in bytes; more ends the program.
    pub max_output_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 4 << 30,
            max_processes: 2048,
            cpu_millis: 4000,
            max_file_bytes: 16 << 30,
            max_open_files: 65_536,
            disk_bytes: 10 << 30,
            wall_time: Some(Duration::from_secs(24 * 60 * 60)),
            max_output_bytes: 64 << 20,
        }
    }
}

/// The launcher's one line on standard output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "snake_case")]
pub enum LaunchReport {
    /// The guest runs; its socket accepts connections.
    Started {
        /// Limits that could not be set, one sentence each.
        warnings: Vec<String>,
    },
    Failed(LaunchFailure),
}

/// Why there is no sandbox. Everything made for it is gone again, but for files in its directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchFailure {
    /// What was being done, such as `mount overlay`.
    pub step: String,
    /// Operating system error number; 0 if there is none.
    pub errno: i32,
}

impl std::fmt::Display for LaunchFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.errno {
            0 => write!(f, "{}", self.step),
            errno => write!(f, "{}: {}", self.step, std::io::Error::from_raw_os_error(errno)),
        }
    }
}

impl std::error::Error for LaunchFailure {}

/// How the guest ended, written by the supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    /// Whether the supervisor was told to end the sandbox.
    pub was_stopped: bool,
    /// Whether its life time was over ([`Limits::wall_time`]).
    #[serde(default)]
    pub was_out_of_time: bool,
    /// Processor time of all its processes, in microseconds, where a group counted it.
    #[serde(default)]
    pub cpu_us: Option<u64>,
    /// Most memory in use at once, in bytes, where a group counted it.
    #[serde(default)]
    pub peak_memory_bytes: Option<u64>,
}

/// Limits that the supervisor itself enforced in one start, kept in [`HITS_NAME`]. Written before it kills; no file: none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitHits {
    /// How often programs were killed because the sandbox took more disk than it may.
    pub disk: u64,
    /// Whether it does so now.
    pub is_disk_full: bool,
    /// The limit that ended the sandbox.
    #[serde(default)]
    pub ended_by: Option<EndingLimit>,
}

/// A limit that the whole sandbox ended for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndingLimit {
    /// Its life time is over.
    WallTime,
    /// It took far more disk than it may and went on, whatever was killed.
    Disk,
    /// The kernel killed for memory, and the sandbox was gone: its own kernel or its guest was hit.
    Memory,
    /// The kernel refused a process, and the sandbox was gone: its own kernel bears that no better.
    Processes,
}
