//! A sandbox in memory: files and directories below the workspace, programs played by a closure. Paths outside the
//! workspace do not exist, links and .gitignore are not known; error texts are the guest's.

mod calls;
mod program;
mod search;
mod state;

use self::program::{Program, cancelled};
use self::state::{Content, Process, State, failed, locate};
use crate::world::{Workspace, WorkspaceError};
use async_trait::async_trait;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::guest::call::{
    Call, CallErrorCode, Exec, Exit, FileBytes, OutputChunk, Reply, Scope,
};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use self::program::Ran;

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
