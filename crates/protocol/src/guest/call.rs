//! Calls of a host to a guest and their replies. File paths are absolute inside the sandbox or relative to the workspace;
//! with [`Scope::Workspace`] they may not leave it, not by `..` and not by symbolic link.

use super::service::{Service, ServiceStatus};
use serde::{Deserialize, Serialize};

/// What the host wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "snake_case")]
pub enum Call {
    /// Runs a program. Data: `Input` is its standard input if asked for; output comes as `Output`/`ErrorOutput`,
    /// the [`Reply::Exited`] last, after all output. With `background` the reply is [`Reply::Started`] at once and alone.
    /// With a key or on a terminal the first reply is [`Reply::Started`]; a key that the guest knows already attaches to that
    /// run, from the first output it still has, instead of running anything again.
    Exec(Exec),
    /// Follows a process that runs, or ended and is still remembered. Reply: [`Reply::Started`], its output from
    /// `after_offset` on (standard error apart if it was started so), then [`Reply::Exited`]. `Input` frames go to its
    /// standard input if it has one. While it is followed a slow reader slows it down. `Cancel` ends the process, `Reset`
    /// only the following. Since generation 2.
    Attach { process_id: u32, after_offset: u64 },
    /// Tells a process on a terminal of its new size. Reply: [`Reply::Done`]. Since generation 2.
    ResizeTerminal { process_id: u32, size: TerminalSize },
    /// Processes with a key, on a terminal or in the background that this guest still remembers, oldest first. Reply:
    /// [`Reply::Processes`].
    ListProcesses,
    /// Output of a remembered process from a cursor, merged. Reply: [`Reply::ProcessOutput`].
    ReadProcess {
        process_id: u32,
        after_offset: u64,
        max_bytes: u64,
    },
    /// Signals a remembered process's group. Reply: [`Reply::Done`].
    SignalProcess { process_id: u32, signal: i32 },
    /// Reads bytes of a file. Reply: [`Reply::File`], then its bytes as `Output`, then `End`.
    ReadFile {
        path: String,
        scope: Scope,
        offset: u64,
        max_bytes: u64,
    },
    /// Replaces a file at once and completely (temporary file, then rename), creating parents. The content comes as
    /// `Input` frames and `End`. Keeps the mode of an existing file. Reply: [`Reply::Done`].
    WriteFile {
        path: String,
        scope: Scope,
        is_executable: bool,
    },
    /// Reply: [`Reply::Stat`]; a missing path is an error. Does not follow a final symbolic link.
    Stat { path: String, scope: Scope },
    /// Names directly in a directory, sorted. Reply: [`Reply::Entries`].
    ListDirectory {
        path: String,
        scope: Scope,
        max_entries: u32,
    },
    /// Files below `path` that match a glob such as `**/*.rs`, .gitignore respected, sorted. Reply: [`Reply::Paths`].
    Glob {
        path: String,
        scope: Scope,
        pattern: String,
        max_entries: u32,
    },
    /// Lines that match a regular expression, .gitignore respected, sorted by path and line. Reply: [`Reply::Matches`].
    Grep(Grep),
    /// Everything below `path`, sorted by path, depth first. Reply: [`Reply::Entries`] with each name relative to `path`.
    /// Since generation 2.
    Walk(Walk),
    /// Renames inside the scope, replacing a file. Reply: [`Reply::Done`].
    Rename { from: String, to: String, scope: Scope },
    /// Removes a file, link or empty directory. Reply: [`Reply::Done`].
    Remove { path: String, scope: Scope },
    /// Reports changes of files below the directory `path` until `Cancel` or `Reset`. `.git`, and what .gitignore names when it
    /// changes, are left out. Reply: [`Reply::Done`] once watching; then `Output`, one JSON [`ChangeBatch`]
    /// on each line; `End` when the directory itself is gone. Since generation 2.
    Watch { path: String, scope: Scope },
    /// Connects to a port that a process of the sandbox listens on (127.0.0.1, then ::1), but to none of
    /// [`super::Route::PORTS`]. Reply: [`Reply::Done`] once connected, then bytes both ways; `End` closes one direction.
    /// Since generation 2.
    Forward { port: u16 },
    /// Starts a service, or does nothing if one of that name runs with the same definition; another definition replaces
    /// it. Reply: [`Reply::Done`] at once; see [`Call::ListServices`] for its way to ready. Since generation 2.
    StartService(Service),
    /// Reply: [`Reply::Services`]. Since generation 2.
    ListServices,
    /// Ends a service and does not start it again. Reply: [`Reply::Done`]. Since generation 2.
    StopService { name: String },
    /// Output of a service over all its starts. Reply: [`Reply::ProcessOutput`]. Since generation 2.
    ReadServiceLog {
        name: String,
        after_offset: u64,
        max_bytes: u64,
    },
    /// What all processes of the sandbox used. Reply: [`Reply::ProcessUsage`]. Since generation 2.
    MeasureProcesses,
    /// Reply: [`Reply::Done`], once the guest serves calls.
    Ping,
}

impl Call {
    /// First generation of guests that do what the call asks. An older guest runs a program with a key or an output limit
    /// too, only without them, so that these alone do not count; a terminal does.
    pub fn since_generation(&self) -> u32 {
        match self {
            Self::Exec(exec) if exec.terminal.is_some() => 2,
            Self::Exec(_)
            | Self::ListProcesses
            | Self::ReadProcess { .. }
            | Self::SignalProcess { .. }
            | Self::ReadFile { .. }
            | Self::WriteFile { .. }
            | Self::Stat { .. }
            | Self::ListDirectory { .. }
            | Self::Glob { .. }
            | Self::Grep(_)
            | Self::Rename { .. }
            | Self::Remove { .. }
            | Self::Ping => 1,
            Self::Attach { .. }
            | Self::ResizeTerminal { .. }
            | Self::Walk(_)
            | Self::Watch { .. }
            | Self::Forward { .. }
            | Self::StartService(_)
            | Self::ListServices
            | Self::StopService { .. }
            | Self::ReadServiceLog { .. }
            | Self::MeasureProcesses => 2,
        }
    }
}

/// How far a file path may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Stay below the workspace.
    Workspace,
    /// Anywhere in the sandbox.
    Sandbox,
}

/// A program to run, in its own process group and session.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// Program and arguments; the program is looked up in `PATH`. Never empty.
    pub argv: Vec<String>,
    /// Absolute, or relative to the workspace; empty: the workspace.
    pub cwd: String,
    /// Added to the guest's own small environment, later ones win.
    pub env: Vec<(String, String)>,
    /// Whether `Input` frames are its standard input; otherwise that is empty.
    pub has_input: bool,
    /// Whether standard error comes as `Output`, in order with standard output.
    pub is_merged: bool,
    /// Wall time in milliseconds after which the group gets TERM and, 2 s later, KILL; absent: none.
    pub timeout_ms: Option<u64>,
    /// Whether it goes on after this call and after the link; its output is kept in a bounded buffer.
    pub is_background: bool,
    /// Names this run, at most 128 bytes. A run with a key survives the link: its output is kept in a bounded buffer and a
    /// later [`Call::Exec`] with the same key finds it. Without one a foreground run ends with its link. Since generation 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Runs it on a terminal of this size; output is merged, `has_input` is implied, and the end of input types an
    /// end-of-file character. Without a key, and not in the background, it is hung up with its link. Since generation 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<TerminalSize>,
    /// Output after which its group is killed with [`KillReason::OutputLimit`], in bytes; absent: none. What it writes beyond
    /// is dropped. Not for background
    /// processes, whose output is bounded by their buffer. Since generation 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_output_bytes: Option<u64>,
}

/// Characters that fit on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    pub rows: u16,
    pub columns: u16,
}

/// A listing of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Walk {
    pub path: String,
    pub scope: Scope,
    /// Whether `.git` and what .gitignore names are left out; otherwise everything is listed.
    pub respects_ignore_files: bool,
    /// Only what sorts behind this path, for the next page.
    pub after: Option<String>,
    pub max_entries: u32,
}

/// A search.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grep {
    /// File or directory.
    pub path: String,
    pub scope: Scope,
    /// Syntax of the `regex` crate.
    pub pattern: String,
    pub is_case_insensitive: bool,
    /// Only files whose path matches this glob.
    pub glob: Option<String>,
    /// Lines shown before and after each match.
    pub context_lines: u32,
    pub max_matches: u32,
}

/// What the guest answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    Done,
    Exited(Exit),
    Started {
        process_id: u32,
    },
    Processes {
        processes: Vec<BackgroundProcess>,
        /// Programs that still run although the process that started them ended; those of services not counted.
        left_behind: u32,
    },
    /// `start_offset` may be above what was asked for if older output fell out of the buffer.
    ProcessOutput {
        start_offset: u64,
        end_offset: u64,
        output: String,
        exit: Option<Exit>,
    },
    Services {
        services: Vec<ServiceStatus>,
    },
    ProcessUsage {
        /// Processor time of ended and running processes, in milliseconds.
        cpu_ms: u64,
        /// Largest memory of the processes together that the guest saw, in bytes.
        peak_memory_bytes: u64,
        /// Processes and threads now.
        processes: u32,
    },
    File {
        size_bytes: u64,
        is_executable: bool,
    },
    Stat {
        entry: Entry,
    },
    Entries {
        entries: Vec<Entry>,
        is_truncated: bool,
    },
    Paths {
        paths: Vec<String>,
        is_truncated: bool,
    },
    Matches {
        lines: Vec<GrepLine>,
        is_truncated: bool,
    },
    Failed(CallError),
}

/// How a process ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code, if it exited by itself.
    pub code: Option<i32>,
    /// Signal number, if one killed it.
    pub signal: Option<i32>,
    /// Why the guest killed it, if it did.
    pub killed: Option<KillReason>,
    pub duration_ms: u64,
    /// Limits of the sandbox that were hit while it ran; filled in by the host, which sees them. A guest names only
    /// [`LimitKind::Processes`], when it had to end what the program left behind.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits_hit: Vec<LimitKind>,
}

/// Why the guest killed a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KillReason {
    TimedOut,
    Cancelled,
    /// It wrote more than [`Exec::max_output_bytes`]. Since generation 2.
    OutputLimit,
}

/// A limit of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum LimitKind {
    Memory,
    Processes,
    Disk,
    /// The sandbox's own life time, not a call's timeout.
    WallTime,
    Output,
}

/// A process that outlives its link, or may be found by its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackgroundProcess {
    /// Counts from 1 in each guest.
    pub process_id: u32,
    pub argv: Vec<String>,
    pub started_ms_ago: u64,
    pub exit: Option<Exit>,
    /// Since generation 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Whether it runs on a terminal. Since generation 2.
    #[serde(default)]
    pub has_terminal: bool,
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Last part of its path.
    pub name: String,
    pub kind: EntryKind,
    pub size_bytes: u64,
    pub is_executable: bool,
    pub modified_at_ms: i64,
    /// Where a symbolic link points, as written in it.
    pub link_target: Option<String>,
}

/// What a directory entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    File,
    Directory,
    Symlink,
    Other,
}

/// One line of a search result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrepLine {
    /// Relative to the workspace when inside it.
    pub path: String,
    /// Counts from 1.
    pub line: u64,
    /// Cut at 500 characters.
    pub text: String,
    /// Whether this line matched, or is context.
    pub is_match: bool,
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallError {
    pub code: CallErrorCode,
    /// One sentence, with the path if there is one.
    pub message: String,
}

/// What kind of failure, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallErrorCode {
    NotFound,
    /// The path leaves the workspace, by `..`, absolute path or symbolic link.
    OutsideWorkspace,
    IsDirectory,
    NotDirectory,
    PermissionDenied,
    NoSpace,
    TooLarge,
    /// Malformed arguments: empty argv, bad regular expression or glob, NUL in a path.
    Invalid,
    /// Nothing listens on the port. Since generation 2.
    Refused,
    /// No process can be started because the sandbox has as many as it may. Since generation 2.
    TooManyProcesses,
    /// The call is of a newer generation than the guest. The host says it without asking a guest that is known to be older.
    /// Since generation 2.
    Unsupported,
    /// Any other operating system error.
    Os,
}

impl CallErrorCode {
    /// The code to send to a peer of an older generation, which cannot read a newer one.
    #[must_use]
    pub fn for_generation(self, generation: u32) -> Self {
        match self {
            Self::Refused | Self::TooManyProcesses if generation < 2 => Self::Os,
            Self::Unsupported if generation < 2 => Self::Invalid,
            Self::Refused
            | Self::TooManyProcesses
            | Self::Unsupported
            | Self::NotFound
            | Self::OutsideWorkspace
            | Self::IsDirectory
            | Self::NotDirectory
            | Self::PermissionDenied
            | Self::NoSpace
            | Self::TooLarge
            | Self::Invalid
            | Self::Os => self,
        }
    }
}

/// Part of a file, put together from a [`Reply::File`] and its data frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileBytes {
    pub bytes: Vec<u8>,
    /// Size of the whole file.
    pub size_bytes: u64,
}

/// Changes of files since the last batch, coalesced: each path once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeBatch {
    /// Relative to the watched path, sorted.
    pub changes: Vec<Change>,
    /// Whether some were lost, so that everything must be looked at again.
    pub is_incomplete: bool,
}

/// What became of one path. A rename is a removal and a creation. A directory that is removed or renamed away stands for all
/// that was in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Change {
    pub path: String,
    pub kind: ChangeKind,
}

/// How a path changed, seen from what was told last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    Created,
    Modified,
    Removed,
}

impl ChangeKind {
    /// Both changes as one; `None`: nobody saw what came and went.
    pub fn then(self, next: Self) -> Option<Self> {
        match (self, next) {
            (Self::Created, Self::Removed) => None,
            (Self::Created, Self::Created | Self::Modified) => Some(Self::Created),
            (Self::Modified | Self::Removed, Self::Created | Self::Modified) => Some(Self::Modified),
            (Self::Modified | Self::Removed, Self::Removed) => Some(Self::Removed),
        }
    }
}

/// Output of a program, made of one data frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputChunk {
    pub is_error_output: bool,
    pub bytes: Vec<u8>,
}
