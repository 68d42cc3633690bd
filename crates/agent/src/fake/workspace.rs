//! A sandbox in memory: files and directories below the workspace, programs played by a closure. Paths outside the
//! workspace do not exist, links and .gitignore are not known; error texts are the guest's.

use crate::world::{Workspace, WorkspaceError};
use async_trait::async_trait;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::guest::WORKSPACE_PATH;
use greenroom_protocol::guest::call::{
    BackgroundProcess, Call, CallError, CallErrorCode, Entry, EntryKind, Exec, Exit, FileBytes, Grep,
    GrepLine, KillReason, OutputChunk, Reply, Scope,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// What a program did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// Output, in order.
    pub chunks: Vec<OutputChunk>,
    pub exit: Exit,
    /// Whether it writes its output and then runs until it is killed; then `exit` is not used.
    pub runs_on: bool,
}

impl Ran {
    /// One that wrote `output` (if any) to its standard output and exited.
    pub fn exited(code: i32, output: &str) -> Self {
        let chunk = OutputChunk {
            is_error_output: false,
            bytes: output.as_bytes().to_vec(),
        };
        Self {
            chunks: if output.is_empty() {
                Vec::new()
            } else {
                vec![chunk]
            },
            exit: Exit {
                code: Some(code),
                signal: None,
                killed: None,
                duration_ms: 1,
                ..Exit::default()
            },
            runs_on: false,
        }
    }

    /// One that wrote `output` and runs until it is killed.
    pub fn runs_on(output: &str) -> Self {
        Self {
            runs_on: true,
            ..Self::exited(0, output)
        }
    }
}

type Program = Box<dyn Fn(&MemoryWorkspace, &Exec) -> Ran + Send + Sync>;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Content {
    bytes: Vec<u8>,
    is_executable: bool,
}

#[derive(Debug)]
struct Process {
    argv: Vec<String>,
    output: String,
    exit: Option<Exit>,
    key: Option<String>,
}

#[derive(Debug, Default)]
struct State {
    /// By path relative to the workspace.
    files: BTreeMap<String, Content>,
    /// Directories made, empty or not; those of files need not be here.
    directories: BTreeSet<String>,
    /// Process `n` is at `n - 1`.
    processes: Vec<Process>,
    execs: Vec<Exec>,
    /// Failures of changes, by path.
    failures: HashMap<String, CallError>,
    lost: Option<Problem>,
}

/// The workspace.
pub struct MemoryWorkspace {
    state: Mutex<State>,
    program: Program,
}

impl Default for MemoryWorkspace {
    fn default() -> Self {
        Self::new(|_, exec| {
            let name = exec.argv.first().cloned().unwrap_or_default();
            Ran::exited(127, &format!("{name}: command not found\n"))
        })
    }
}

fn failed(code: CallErrorCode, path: &str, message: &str) -> CallError {
    CallError {
        code,
        message: format!("{path}: {message}"),
    }
}

impl MemoryWorkspace {
    /// An empty one whose programs are all played by `program`, which may change files.
    pub fn new(program: impl Fn(&Self, &Exec) -> Ran + Send + Sync + 'static) -> Self {
        Self {
            state: Mutex::default(),
            program: Box::new(program),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a file there, with its directories. `path` is relative to the workspace.
    pub fn set(&self, path: &str, bytes: impl AsRef<[u8]>) {
        let mut state = self.state();
        let is_executable = state.files.get(path).is_some_and(|file| file.is_executable);
        let content = Content {
            bytes: bytes.as_ref().to_vec(),
            is_executable,
        };
        state.put(path, content);
    }

    /// Sets or clears a file's executable bits; nothing if there is no such file.
    pub fn set_executable(&self, path: &str, is_executable: bool) {
        if let Some(file) = self.state().files.get_mut(path) {
            file.is_executable = is_executable;
        }
    }

    /// A file's bytes, if it is there.
    pub fn get(&self, path: &str) -> Option<Vec<u8>> {
        self.state().files.get(path).map(|file| file.bytes.clone())
    }

    /// Whether a file is there and executable.
    pub fn is_executable(&self, path: &str) -> bool {
        self.state()
            .files
            .get(path)
            .is_some_and(|file| file.is_executable)
    }

    /// Whether a directory is there.
    pub fn has_directory(&self, path: &str) -> bool {
        self.state().is_directory(path)
    }

    /// Every file, by path.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.state();
        let files = state.files.iter();
        files
            .map(|(path, file)| (path.clone(), file.bytes.clone()))
            .collect()
    }

    /// Every program that was run or started, in order.
    pub fn execs(&self) -> Vec<Exec> {
        self.state().execs.clone()
    }

    /// From now on writing, renaming (from it or to it) and removing `path` fail with this.
    pub fn fail_changes_of(&self, path: &str, code: CallErrorCode, message: &str) {
        let error = failed(code, path, message);
        self.state().failures.insert(path.to_owned(), error);
    }

    /// Puts a process there that goes on without its call; returns its number.
    pub fn keep(&self, argv: Vec<String>, key: Option<String>, ran: Ran) -> u32 {
        let mut state = self.state();
        let output = ran.chunks.iter().flat_map(|chunk| chunk.bytes.clone());
        let output: Vec<u8> = output.collect();
        state.processes.push(Process {
            argv,
            output: String::from_utf8_lossy(&output).into_owned(),
            exit: (!ran.runs_on).then_some(ran.exit),
            key,
        });
        u32::try_from(state.processes.len()).unwrap_or(u32::MAX)
    }

    fn by_key(&self, key: &str) -> Option<u32> {
        let state = self.state();
        let mut numbered = (1..).zip(&state.processes);
        numbered
            .find(|(_, process)| process.key.as_deref() == Some(key))
            .map(|(process_id, _)| process_id)
    }

    /// From now on everything fails with [`WorkspaceError::Lost`].
    pub fn lose(&self, problem: Problem) {
        self.state().lost = Some(problem);
    }

    /// The state, unless the sandbox is gone.
    fn alive(&self) -> Result<MutexGuard<'_, State>, WorkspaceError> {
        let state = self.state();
        match &state.lost {
            Some(problem) => Err(WorkspaceError::Lost(problem.clone())),
            None => Ok(state),
        }
    }
}

impl State {
    fn is_directory(&self, path: &str) -> bool {
        let prefix = format!("{path}/");
        path.is_empty()
            || self.directories.contains(path)
            || self.files.keys().any(|file| file.starts_with(&prefix))
    }

    fn put(&mut self, path: &str, content: Content) {
        let mut rest = path;
        while let Some((parent, _)) = rest.rsplit_once('/') {
            self.directories.insert(parent.to_owned());
            rest = parent;
        }
        self.files.insert(path.to_owned(), content);
    }

    /// Whether `at` may be written: it is no directory, and nothing above it is a file.
    fn may_write(&self, at: &str, shown: &str) -> Result<(), CallError> {
        if let Some(error) = self.failures.get(at) {
            return Err(error.clone());
        }
        if at.is_empty() || self.is_directory(at) {
            return Err(failed(CallErrorCode::IsDirectory, shown, "is a directory"));
        }
        let above = at.match_indices('/').map(|(end, _)| &at[..end]);
        for directory in above {
            if self.files.contains_key(directory) {
                return Err(failed(
                    CallErrorCode::NotDirectory,
                    shown,
                    "is not in a directory",
                ));
            }
        }
        Ok(())
    }

    fn entry(&self, path: &str) -> Option<Entry> {
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        let (kind, size_bytes, is_executable) = match self.files.get(path) {
            Some(file) => (EntryKind::File, file.bytes.len() as u64, file.is_executable),
            None if self.is_directory(path) => (EntryKind::Directory, 0, false),
            None => return None,
        };
        Some(Entry {
            name,
            kind,
            size_bytes,
            is_executable,
            modified_at_ms: 0,
            link_target: None,
        })
    }

    fn names_in(&self, directory: &str) -> BTreeSet<String> {
        let prefix = if directory.is_empty() {
            String::new()
        } else {
            format!("{directory}/")
        };
        self.files
            .keys()
            .chain(&self.directories)
            .filter_map(|path| path.strip_prefix(&prefix))
            .filter_map(|rest| rest.split('/').next())
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect()
    }

    fn call(&mut self, call: Call) -> Result<Reply, CallError> {
        match call {
            Call::Stat { path, .. } => {
                let entry = self.entry(&locate(&path)?);
                let entry = entry.ok_or_else(|| failed(CallErrorCode::NotFound, &path, "does not exist"))?;
                Ok(Reply::Stat { entry })
            }
            Call::ListDirectory {
                path, max_entries, ..
            } => self.list(&path, max_entries),
            Call::Glob {
                path,
                pattern,
                max_entries,
                ..
            } => {
                let matcher = glob(&pattern)?;
                let found: Vec<String> = self
                    .below(&path)?
                    .into_iter()
                    .filter(|(_, relative)| is_match(&matcher, relative))
                    .map(|(path, _)| path)
                    .collect();
                let (paths, is_truncated) = bounded(found, max_entries);
                Ok(Reply::Paths { paths, is_truncated })
            }
            Call::Grep(search) => self.grep(&search),
            Call::Rename { from, to, .. } => self.rename(&from, &to),
            Call::Remove { path, .. } => self.remove(&path),
            Call::ReadProcess {
                process_id,
                after_offset,
                max_bytes,
            } => {
                let process = self.process(process_id)?;
                let length = process.output.len();
                let start = usize::try_from(after_offset).unwrap_or(length).min(length);
                let end = start
                    .saturating_add(usize::try_from(max_bytes).unwrap_or(length))
                    .min(length);
                let (start, end) = (
                    process.output.floor_char_boundary(start),
                    process.output.floor_char_boundary(end),
                );
                Ok(Reply::ProcessOutput {
                    start_offset: start as u64,
                    end_offset: end as u64,
                    output: process.output[start..end].to_owned(),
                    exit: process.exit.clone(),
                })
            }
            Call::SignalProcess { process_id, signal } => {
                let process = self.process(process_id)?;
                process.exit.get_or_insert(Exit {
                    code: None,
                    signal: Some(signal),
                    killed: None,
                    duration_ms: 1,
                    ..Exit::default()
                });
                Ok(Reply::Done)
            }
            Call::ListProcesses => Ok(Reply::Processes {
                processes: (1..)
                    .zip(&self.processes)
                    .map(|(process_id, process)| BackgroundProcess {
                        process_id,
                        argv: process.argv.clone(),
                        started_ms_ago: 0,
                        exit: process.exit.clone(),
                        key: process.key.clone(),
                        has_terminal: false,
                    })
                    .collect(),
            }),
            Call::Ping => Ok(Reply::Done),
            Call::Attach { .. }
            | Call::ResizeTerminal { .. }
            | Call::Walk(_)
            | Call::Watch { .. }
            | Call::Forward { .. }
            | Call::StartService(_)
            | Call::ListServices
            | Call::StopService { .. }
            | Call::ReadServiceLog { .. }
            | Call::MeasureProcesses => Err(CallError {
                code: CallErrorCode::Unsupported,
                message: "the fake has nothing that this call could reach".to_owned(),
            }),
            Call::Exec(_) | Call::ReadFile { .. } | Call::WriteFile { .. } => Err(CallError {
                code: CallErrorCode::Invalid,
                message: "this call carries data and has a method of its own".to_owned(),
            }),
        }
    }

    fn list(&self, path: &str, max_entries: u32) -> Result<Reply, CallError> {
        let at = locate(path)?;
        if self.files.contains_key(&at) {
            return Err(failed(CallErrorCode::NotDirectory, path, "is not in a directory"));
        }
        if !self.is_directory(&at) {
            return Err(failed(CallErrorCode::NotFound, path, "does not exist"));
        }
        let entries = self
            .names_in(&at)
            .into_iter()
            .filter_map(|name| {
                let path = if at.is_empty() {
                    name
                } else {
                    format!("{at}/{name}")
                };
                self.entry(&path)
            })
            .collect();
        let (entries, is_truncated) = bounded(entries, max_entries);
        Ok(Reply::Entries {
            entries,
            is_truncated,
        })
    }

    /// Files at or below a path, each also relative to it, sorted.
    fn below(&self, path: &str) -> Result<Vec<(String, String)>, CallError> {
        let at = locate(path)?;
        if let Some(name) = self
            .files
            .contains_key(&at)
            .then(|| at.rsplit('/').next())
            .flatten()
        {
            return Ok(vec![(at.clone(), name.to_owned())]);
        }
        if !self.is_directory(&at) {
            return Err(failed(CallErrorCode::NotFound, path, "does not exist"));
        }
        let prefix = if at.is_empty() { at } else { format!("{at}/") };
        let relative = |file: &String| {
            file.strip_prefix(&prefix)
                .map(|rest| (file.clone(), rest.to_owned()))
        };
        Ok(self.files.keys().filter_map(relative).collect())
    }

    fn grep(&self, search: &Grep) -> Result<Reply, CallError> {
        let regex = regex_lite::RegexBuilder::new(&search.pattern)
            .case_insensitive(search.is_case_insensitive)
            .build()
            .map_err(|error| failed(CallErrorCode::Invalid, "regular expression", &error.to_string()))?;
        let matcher = search.glob.as_deref().map(glob).transpose()?;
        let mut lines = Vec::new();
        for (path, relative) in self.below(&search.path)? {
            if matcher
                .as_ref()
                .is_some_and(|matcher| !is_match(matcher, &relative))
            {
                continue;
            }
            let bytes = self.files.get(&path).map_or(&[][..], |file| &file.bytes);
            let text = String::from_utf8_lossy(bytes);
            if text.contains('\0') {
                continue;
            }
            let all: Vec<&str> = text.lines().collect();
            let hits: Vec<usize> = (0..all.len()).filter(|at| regex.is_match(all[*at])).collect();
            let context = search.context_lines as usize;
            for (at, line) in all.iter().enumerate() {
                if hits.iter().any(|hit| hit.abs_diff(at) <= context) {
                    lines.push(GrepLine {
                        path: path.clone(),
                        line: at as u64 + 1,
                        text: line.chars().take(500).collect(),
                        is_match: hits.contains(&at),
                    });
                }
            }
        }
        let max = search.max_matches as usize;
        let past = lines
            .iter()
            .enumerate()
            .filter(|(_, line)| line.is_match)
            .nth(max);
        let is_truncated = past.is_some();
        if let Some(at) = past.map(|(at, _)| at) {
            lines.truncate(at);
        }
        Ok(Reply::Matches { lines, is_truncated })
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<Reply, CallError> {
        let (old, new) = (locate(from)?, locate(to)?);
        if let Some(error) = self.failures.get(&old) {
            return Err(error.clone());
        }
        self.may_write(&new, to)?;
        if !self.files.contains_key(&old) && self.is_directory(&old) {
            return Err(failed(
                CallErrorCode::Invalid,
                from,
                "the workspace in memory renames only files",
            ));
        }
        let content = self
            .files
            .remove(&old)
            .ok_or_else(|| failed(CallErrorCode::NotFound, from, "does not exist"))?;
        self.put(&new, content);
        Ok(Reply::Done)
    }

    fn remove(&mut self, path: &str) -> Result<Reply, CallError> {
        let at = locate(path)?;
        if let Some(error) = self.failures.get(&at) {
            return Err(error.clone());
        }
        if self.files.remove(&at).is_some() {
            return Ok(Reply::Done);
        }
        if !self.is_directory(&at) {
            return Err(failed(CallErrorCode::NotFound, path, "does not exist"));
        }
        if !self.names_in(&at).is_empty() {
            return Err(failed(
                CallErrorCode::IsDirectory,
                path,
                "is a directory that is not empty",
            ));
        }
        self.directories.remove(&at);
        Ok(Reply::Done)
    }

    fn process(&mut self, process_id: u32) -> Result<&mut Process, CallError> {
        let index = (process_id as usize).checked_sub(1);
        index
            .and_then(|index| self.processes.get_mut(index))
            .ok_or_else(|| CallError {
                code: CallErrorCode::NotFound,
                message: format!("there is no background process {process_id}"),
            })
    }
}

/// A path relative to the workspace; empty: the workspace itself.
fn locate(path: &str) -> Result<String, CallError> {
    let outside = || failed(CallErrorCode::OutsideWorkspace, path, "is outside the workspace");
    let inside = match path.strip_prefix(WORKSPACE_PATH) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => rest,
        _ if path.starts_with('/') => return Err(outside()),
        _ => path,
    };
    let mut parts = Vec::new();
    for part in inside.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop().ok_or_else(outside)?;
            }
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

fn glob(pattern: &str) -> Result<globset::GlobMatcher, CallError> {
    globset::GlobBuilder::new(pattern)
        .literal_separator(true)
        .build()
        .map(|glob| glob.compile_matcher())
        .map_err(|error| failed(CallErrorCode::Invalid, "glob", &error.to_string()))
}

/// A pattern without a slash looks at names only.
fn is_match(matcher: &globset::GlobMatcher, relative: &str) -> bool {
    if matcher.glob().glob().contains('/') {
        matcher.is_match(relative)
    } else {
        matcher.is_match(relative.rsplit('/').next().unwrap_or_default())
    }
}

fn bounded<T>(mut found: Vec<T>, max: u32) -> (Vec<T>, bool) {
    let is_truncated = found.len() > max as usize;
    found.truncate(max as usize);
    (found, is_truncated)
}

#[async_trait]
impl Workspace for MemoryWorkspace {
    async fn call(&self, call: Call) -> Result<Reply, WorkspaceError> {
        self.alive()?.call(call).map_err(WorkspaceError::Call)
    }

    async fn read_file(
        &self,
        path: &str,
        _scope: Scope,
        offset: u64,
        max_bytes: u64,
    ) -> Result<FileBytes, WorkspaceError> {
        let state = self.alive()?;
        let at = locate(path).map_err(WorkspaceError::Call)?;
        let Some(file) = state.files.get(&at) else {
            let error = if state.is_directory(&at) {
                failed(CallErrorCode::IsDirectory, path, "is a directory")
            } else {
                failed(CallErrorCode::NotFound, path, "does not exist")
            };
            return Err(WorkspaceError::Call(error));
        };
        let limit = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let bytes = file.bytes.iter().skip(limit(offset)).take(limit(max_bytes));
        Ok(FileBytes {
            bytes: bytes.copied().collect(),
            size_bytes: file.bytes.len() as u64,
        })
    }

    async fn write_file(&self, path: &str, _scope: Scope, bytes: Vec<u8>) -> Result<(), WorkspaceError> {
        let mut state = self.alive()?;
        let at = locate(path).map_err(WorkspaceError::Call)?;
        state.may_write(&at, path).map_err(WorkspaceError::Call)?;
        let is_executable = state.files.get(&at).is_some_and(|file| file.is_executable);
        state.put(&at, Content { bytes, is_executable });
        Ok(())
    }

    async fn exec(
        &self,
        exec: Exec,
        output: mpsc::Sender<OutputChunk>,
        cancel: CancellationToken,
    ) -> Result<Exit, WorkspaceError> {
        if let Some(process_id) = exec.key.as_deref().and_then(|key| self.by_key(key)) {
            return self.attach(process_id, output, cancel).await;
        }
        self.alive()?.execs.push(exec.clone());
        let ran = (self.program)(self, &exec);
        let process_id = exec.key.map(|key| self.keep(exec.argv, Some(key), ran.clone()));
        for chunk in ran.chunks {
            if output.send(chunk).await.is_err() {
                break;
            }
        }
        if !ran.runs_on {
            return Ok(ran.exit);
        }
        let exit = cancelled(&cancel).await;
        if let Some(process_id) = process_id
            && let Ok(process) = self.state().process(process_id)
        {
            process.exit = Some(exit.clone());
        }
        Ok(exit)
    }

    async fn attach(
        &self,
        process_id: u32,
        output: mpsc::Sender<OutputChunk>,
        cancel: CancellationToken,
    ) -> Result<Exit, WorkspaceError> {
        let (bytes, exit) = {
            let mut state = self.alive()?;
            let process = state.process(process_id).map_err(WorkspaceError::Call)?;
            (process.output.clone().into_bytes(), process.exit.clone())
        };
        if !bytes.is_empty() {
            let is_error_output = false;
            // Nobody may listen, which changes nothing.
            let _ = output
                .send(OutputChunk {
                    is_error_output,
                    bytes,
                })
                .await;
        }
        if let Some(exit) = exit {
            return Ok(exit);
        }
        let exit = cancelled(&cancel).await;
        let mut state = self.alive()?;
        let process = state.process(process_id).map_err(WorkspaceError::Call)?;
        Ok(process.exit.get_or_insert(exit).clone())
    }

    async fn spawn(&self, exec: Exec) -> Result<u32, WorkspaceError> {
        self.alive()?.execs.push(exec.clone());
        let ran = (self.program)(self, &exec);
        Ok(self.keep(exec.argv, exec.key, ran))
    }
}

/// Time is not played: a program that runs on ends only when it is cancelled.
async fn cancelled(cancel: &CancellationToken) -> Exit {
    cancel.cancelled().await;
    Exit {
        code: None,
        signal: Some(15),
        killed: Some(KillReason::Cancelled),
        duration_ms: 1,
        ..Exit::default()
    }
}
