//! A workspace in memory that logs what reaches it and can hold single calls back.

use async_trait::async_trait;
use greenroom_agent::fake::{MemoryWorkspace, Ran};
use greenroom_agent::world::{Workspace, WorkspaceError};
use greenroom_protocol::guest::call::{Call, Exec, Exit, FileBytes, OutputChunk, Reply, Scope};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::sync::{Barrier, mpsc};
use tokio_util::sync::CancellationToken;

/// What happens to a call before it is done.
#[derive(Clone)]
pub enum Hold {
    /// It never is.
    Forever,
    /// It waits for the others at the barrier.
    Barrier(Arc<Barrier>),
}

/// Calls are named by what they do: `read a.txt`, `write b.txt`, `exec ls`, `call`.
pub struct WatchedWorkspace {
    pub memory: MemoryWorkspace,
    holds: HashMap<String, Hold>,
    is_ready: bool,
    began: Mutex<Vec<String>>,
    log: Mutex<Vec<String>>,
}

impl Default for WatchedWorkspace {
    fn default() -> Self {
        Self::of(MemoryWorkspace::new(|_, _| Ran::exited(0, "fine\n")))
    }
}

impl WatchedWorkspace {
    pub fn of(memory: MemoryWorkspace) -> Self {
        Self {
            memory,
            holds: HashMap::new(),
            is_ready: true,
            began: Mutex::default(),
            log: Mutex::default(),
        }
    }

    pub fn with_file(self, path: &str, text: &str) -> Self {
        self.memory.set(path, text);
        self
    }

    pub fn holding(mut self, what: &str, hold: Hold) -> Self {
        self.holds.insert(what.to_owned(), hold);
        self
    }

    /// One whose sandbox never comes: every call waits for ever.
    pub fn never_ready() -> Self {
        Self {
            is_ready: false,
            ..Self::default()
        }
    }

    /// Every call that began, in order, without looks for instructions.
    pub fn began(&self) -> Vec<String> {
        let began = self.began.lock().unwrap().clone().into_iter();
        began
            .filter(|what| !matches!(what.as_str(), "read AGENTS.md" | "read CLAUDE.md"))
            .collect()
    }

    /// Every call that began, looks for instructions too.
    pub fn all_began(&self) -> Vec<String> {
        self.began.lock().unwrap().clone()
    }

    /// Begins (`+`) and ends (`-`) in order.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    async fn enter(&self, what: String) -> Inside<'_> {
        self.began.lock().unwrap().push(what.clone());
        self.log.lock().unwrap().push(format!("+ {what}"));
        if !self.is_ready {
            std::future::pending::<()>().await;
        }
        match self.holds.get(&what).cloned() {
            Some(Hold::Forever) => std::future::pending().await,
            Some(Hold::Barrier(barrier)) => {
                barrier.wait().await;
            }
            // Others get their chance to run beside this one.
            None => tokio::task::yield_now().await,
        }
        Inside { log: &self.log, what }
    }
}

/// A call that runs.
struct Inside<'a> {
    log: &'a Mutex<Vec<String>>,
    what: String,
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        if let Ok(mut log) = self.log.lock() {
            log.push(format!("- {}", self.what));
        }
    }
}

#[async_trait]
impl Workspace for WatchedWorkspace {
    async fn call(&self, call: Call) -> Result<Reply, WorkspaceError> {
        let _inside = self.enter("call".to_owned()).await;
        self.memory.call(call).await
    }

    async fn read_file(
        &self,
        path: &str,
        scope: Scope,
        offset: u64,
        max_bytes: u64,
    ) -> Result<FileBytes, WorkspaceError> {
        let _inside = self.enter(format!("read {path}")).await;
        self.memory.read_file(path, scope, offset, max_bytes).await
    }

    async fn write_file(&self, path: &str, scope: Scope, bytes: Vec<u8>) -> Result<(), WorkspaceError> {
        let _inside = self.enter(format!("write {path}")).await;
        self.memory.write_file(path, scope, bytes).await
    }

    async fn exec(
        &self,
        exec: Exec,
        output: mpsc::Sender<OutputChunk>,
        cancel: CancellationToken,
    ) -> Result<Exit, WorkspaceError> {
        let command = exec.argv.last().cloned().unwrap_or_default();
        let _inside = self.enter(format!("exec {command}")).await;
        self.memory.exec(exec, output, cancel).await
    }

    async fn attach(
        &self,
        process_id: u32,
        output: mpsc::Sender<OutputChunk>,
        cancel: CancellationToken,
    ) -> Result<Exit, WorkspaceError> {
        let _inside = self.enter(format!("attach {process_id}")).await;
        self.memory.attach(process_id, output, cancel).await
    }

    async fn spawn(&self, exec: Exec) -> Result<u32, WorkspaceError> {
        let command = exec.argv.last().cloned().unwrap_or_default();
        let _inside = self.enter(format!("spawn {command}")).await;
        self.memory.spawn(exec).await
    }
}
