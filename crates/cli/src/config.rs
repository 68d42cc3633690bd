//! What the server is told: typed, complete and valid. Read from one file and the environment; every option is described
//! once, in [`options`]. Nothing here opens anything but the file, and no key is ever held.

mod build;
mod builtin;
mod locate;
mod options;
mod read;
mod reference;
mod scripts;
mod suggest;

use greenroom_egress::AddressException;
use greenroom_protocol::client::member::SessionAccess;
use greenroom_protocol::environment::Backend;
use greenroom_server::environment::RepositoryEgress;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use build::load;
pub use locate::data_dir_of_clients;
pub use read::ConfigError;
pub use read::Environment;
pub use reference::{as_markdown, as_text};
pub use scripts::load_with_scripts;

/// The whole configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The file it came from; `None`: defaults and environment only.
    pub source: Option<PathBuf>,
    pub server: ServerConfig,
    pub models: ModelsConfig,
    pub sandbox: SandboxConfig,
    pub image: ImageConfig,
    pub snapshot: SnapshotConfig,
    /// Sandboxes of one repository that may wait.
    pub max_pool: u32,
    pub egress: EgressConfig,
    pub agent: AgentConfig,
    pub log: LogConfig,
    /// Every option with its value and where that came from, in the order of the reference. Holds no secret.
    pub shown: Vec<ShownOption>,
}

/// One line of `config show`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ShownOption {
    /// `section.option`.
    pub option: String,
    /// As text; empty if unset.
    pub value: String,
    /// `default`, the name of an environment variable, or `FILE:LINE`.
    pub origin: String,
}

/// Where it listens and what it keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    pub listen: SocketAddr,
    /// Absolute.
    pub data_dir: PathBuf,
    /// Without trailing slash; `None`: the address it listens on.
    pub public_url: Option<String>,
    /// Origins besides the server's own that may send commands with a cookie; may be empty.
    pub allowed_origins: Vec<String>,
    /// What people may do in new sessions of which they are no members.
    pub session_access: SessionAccess,
    pub session_idle: Duration,
    pub audit_days: u64,
    /// `None`: never.
    pub archive_after: Option<Duration>,
    /// `None`: never.
    pub delete_after: Option<Duration>,
}

/// Which models there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelsConfig {
    /// `provider/name`; always names a provider of `providers`.
    pub default: String,
    /// Ids are unique; never empty, because the scripted demo model is always there.
    pub providers: Vec<ProviderConfig>,
}

/// One provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderConfig {
    /// First part of its models' ids.
    pub id: String,
    pub kind: ProviderKind,
    /// `None`: the address of the format's inventor, or nothing for the scripted model.
    pub base_url: Option<String>,
    pub key: KeyOrigin,
    /// Names to list, as the provider has them; may be empty for a provider over HTTP.
    pub models: Vec<String>,
    /// Longest silence in a model's stream.
    pub idle_timeout: Duration,
    /// At least 1.
    pub max_attempts: u32,
    /// Script of a scripted provider; `None`: the built-in demo.
    pub script: Option<PathBuf>,
}

/// How a provider is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProviderKind {
    AnthropicMessages,
    OpenaiResponses,
    OpenaiChat,
    Scripted,
}

/// Where a provider's key is looked up at the moment of use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyOrigin {
    /// This environment variable of the server.
    Environment(String),
    /// This name in the secret store.
    Secret(String),
    /// It wants none.
    None,
}

/// What sandboxes are made of, and the most that one may use.
#[derive(Debug, Clone, PartialEq)]
pub struct SandboxConfig {
    /// Where sandboxes keep their files; `None`: inside the data directory.
    pub state_dir: Option<PathBuf>,
    pub memory_mb: u64,
    pub cpus: f64,
    pub max_processes: u64,
    pub disk_mb: u64,
    pub max_open_files: u64,
    pub wall_time_minutes: u64,
    pub max_output_mb: u64,
    /// Allowed ones, the default first; never empty.
    pub backends: Vec<Backend>,
    /// Names of programs; may be empty.
    pub runtimes: Vec<String>,
    /// Kernel of virtual machines; `None`: there are none.
    pub microvm_kernel: Option<PathBuf>,
    /// Firecracker's program; `None`: from `PATH`.
    pub firecracker: Option<PathBuf>,
    /// After this long without a turn a sandbox is stopped.
    pub idle_minutes: f64,
    /// After this long without anybody who uses it a sandbox stands still; 0: it never does.
    pub still_seconds: f64,
    /// Sandboxes that may run at once.
    pub max_running: usize,
    /// How long a call that changes something waits for the workspace to be synced.
    pub sync_timeout_seconds: u64,
}

impl SandboxConfig {
    /// What the operator provides for virtual machines.
    pub fn machines(&self) -> greenroom_host::MachineConfig {
        greenroom_host::MachineConfig {
            firecracker: self.firecracker.clone(),
            kernel: self.microvm_kernel.clone(),
        }
    }
}

/// How images are built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageConfig {
    /// Whether they are built by themselves.
    pub is_scheduled: bool,
    /// At once.
    pub max_builds: usize,
    /// Whether their layers are packed.
    pub packs_layers: bool,
    pub disk_mb: u64,
    /// Whose images a repository's own environment may name.
    pub registries: Vec<String>,
}

/// Snapshots of sessions.
#[derive(Debug, Clone, PartialEq)]
pub struct SnapshotConfig {
    /// Of each session.
    pub kept: usize,
    pub max_age_days: u64,
    /// Of all.
    pub disk_mb: u64,
    /// A sandbox that wrote more is not copied by itself.
    pub max_sandbox_mb: u64,
}

/// Where sandboxes may connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressConfig {
    /// What a repository's own file may ask for.
    pub repositories: RepositoryEgress,
    /// Not refused for being private.
    pub allow_addresses: Vec<AddressException>,
    /// PEM file of certificates to trust besides the machine's.
    pub ca_file: Option<PathBuf>,
}

/// Limits of a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentConfig {
    /// Model requests in one turn.
    pub max_steps: u32,
    /// Of one model answer.
    pub max_output_tokens: u32,
}

/// What the server writes to stderr.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// A level, or a filter such as `info,greenroom_agent=debug`.
    pub level: String,
    pub format: LogFormat,
}

/// Form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}
