//! Calls of a turn's tools. When only the link to the sandbox breaks, the sandbox is attached again in the same call: a command
//! is followed to its real end by its key and never started twice, and what changes nothing is asked again. Other calls say
//! that the sandbox is lost, because nobody can tell what became of them.

use super::SessionWorkspace;
use crate::sandbox::{Sandbox, SandboxError};
use async_trait::async_trait;
use greenroom_agent::world::{Workspace, WorkspaceError};
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::guest::call::{
    Call, CallError, CallErrorCode, Exec, Exit, FileBytes, OutputChunk, Reply, Scope,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// How often a call looks for its sandbox again. A guest that breaks every link keeps nobody here for ever.
const MAX_ATTACHES: u32 = 5;

/// Pieces of output between the sandbox and whoever takes them (channel `counted output`).
const COUNTED_CHUNKS: usize = 8;

/// A command's output, counted as the guest counts it, so that the rest can be asked for over another link.
struct Counted {
    output: mpsc::Sender<OutputChunk>,
    bytes: AtomicU64,
}

impl Counted {
    /// Passes on what comes over one link until it ends.
    async fn pass(&self, mut chunks: mpsc::Receiver<OutputChunk>) {
        while let Some(chunk) = chunks.recv().await {
            self.bytes.fetch_add(chunk.bytes.len() as u64, Ordering::Relaxed);
            // Nobody listens any more: the program goes on, its output is dropped.
            let _ = self.output.send(chunk).await;
        }
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Goes on at `start`, because nothing before it is kept.
    async fn skip_to(&self, start: u64) {
        let gone = start.saturating_sub(self.bytes());
        if gone > 0 {
            self.bytes.store(start, Ordering::Relaxed);
            let bytes = format!("\n[{gone} bytes of output are gone]\n").into_bytes();
            let is_error_output = false;
            let _ = self
                .output
                .send(OutputChunk {
                    bytes,
                    is_error_output,
                })
                .await;
        }
    }
}

/// Whether a call may be asked again when nobody knows whether it was done: it changes nothing.
fn is_repeatable(call: &Call) -> bool {
    match call {
        Call::ListProcesses
        | Call::ReadProcess { .. }
        | Call::ReadFile { .. }
        | Call::Stat { .. }
        | Call::ListDirectory { .. }
        | Call::Glob { .. }
        | Call::Grep(_)
        | Call::Walk(_)
        | Call::ListServices
        | Call::ReadServiceLog { .. }
        | Call::MeasureProcesses
        | Call::Ping => true,
        Call::Exec(_)
        | Call::Attach { .. }
        | Call::ResizeTerminal { .. }
        | Call::SignalProcess { .. }
        | Call::WriteFile { .. }
        | Call::Watch { .. }
        | Call::Forward { .. }
        | Call::Rename { .. }
        | Call::Remove { .. }
        | Call::StartService(_)
        | Call::StopService { .. } => false,
    }
}

fn workspace_error(error: SandboxError) -> WorkspaceError {
    match error {
        SandboxError::Call(error) => WorkspaceError::Call(error),
        SandboxError::Lost(problem) => WorkspaceError::Lost(problem),
    }
}

impl SessionWorkspace {
    async fn used(&self) -> Result<Arc<dyn Sandbox>, WorkspaceError> {
        let sandbox = self.sandbox().await.map_err(WorkspaceError::Lost)?;
        self.slot.has_unpushed.store(true, Ordering::Relaxed);
        self.first_change
            .get_or_init(|| self.services.sandboxes.file_clock());
        Ok(sandbox)
    }

    /// Commits made by whatever runs carry the prompting person's name.
    fn with_author(&self, mut exec: Exec) -> Exec {
        let mut env = self.author.git_environment();
        env.append(&mut exec.env);
        Exec { env, ..exec }
    }

    /// For what changes nothing: also while the workspace is still brought to the newest commit. And whether it is.
    async fn readable(&self) -> Result<(Arc<dyn Sandbox>, bool), WorkspaceError> {
        let mut early = self.slot.early.subscribe();
        let found = tokio::select! {
            biased;
            sandbox = self.used() => return Ok((sandbox?, false)),
            found = early.wait_for(Option::is_some) => found.ok().and_then(|found| found.clone()),
        };
        match found {
            Some(sandbox) => Ok((sandbox, true)),
            None => Ok((self.used().await?, false)),
        }
    }

    /// Does what may be done twice, again over a new link when one broke.
    async fn repeat<T, F>(&self, ask: impl Fn(Arc<dyn Sandbox>) -> F) -> Result<T, WorkspaceError>
    where
        F: Future<Output = Result<T, SandboxError>>,
    {
        let sandbox = self.used().await?;
        self.repeat_with(sandbox, ask).await
    }

    /// Like [`SessionWorkspace::repeat`], for what changes nothing. `note` is called if what is read may change at any moment.
    async fn read<T, F>(
        &self,
        note: impl FnOnce(),
        ask: impl Fn(Arc<dyn Sandbox>) -> F,
    ) -> Result<T, WorkspaceError>
    where
        F: Future<Output = Result<T, SandboxError>>,
    {
        let (sandbox, is_early) = self.readable().await?;
        if is_early {
            note();
        }
        self.repeat_with(sandbox, ask).await
    }

    async fn repeat_with<T, F>(
        &self,
        mut sandbox: Arc<dyn Sandbox>,
        ask: impl Fn(Arc<dyn Sandbox>) -> F,
    ) -> Result<T, WorkspaceError>
    where
        F: Future<Output = Result<T, SandboxError>>,
    {
        for _ in 0..MAX_ATTACHES {
            match ask(sandbox.clone()).await {
                Err(SandboxError::Lost(problem)) => match self.attached_again(&sandbox).await {
                    Some(again) => sandbox = again,
                    None => return Err(WorkspaceError::Lost(problem)),
                },
                answer => return answer.map_err(workspace_error),
            }
        }
        ask(sandbox).await.map_err(workspace_error)
    }

    /// Follows the program with `key` on from where a link to it broke, to its end. `lost` if nobody knows it any more.
    async fn follow_on(
        &self,
        mut sandbox: Arc<dyn Sandbox>,
        key: &str,
        mut lost: Problem,
        output: &Counted,
        cancel: &CancellationToken,
    ) -> Result<Exit, WorkspaceError> {
        for _ in 0..MAX_ATTACHES {
            let Some(again) = self.attached_again(&sandbox).await else {
                return Err(WorkspaceError::Lost(lost));
            };
            sandbox = again;
            match self.follow_over(&sandbox, key, output, cancel).await {
                Ok(Some(exit)) => return Ok(exit),
                // It is another sandbox, or it could not remember.
                Ok(None) => return Err(WorkspaceError::Lost(lost)),
                Err(SandboxError::Lost(problem)) => lost = problem,
                Err(error) => return Err(workspace_error(error)),
            }
        }
        Err(WorkspaceError::Lost(lost))
    }

    /// Over one link; `None` if the sandbox does not know the key.
    async fn follow_over(
        &self,
        sandbox: &Arc<dyn Sandbox>,
        key: &str,
        output: &Counted,
        cancel: &CancellationToken,
    ) -> Result<Option<Exit>, SandboxError> {
        let Reply::Processes { processes, .. } = sandbox.call(Call::ListProcesses).await? else {
            return Ok(None);
        };
        let Some(found) = processes
            .into_iter()
            .find(|process| process.key.as_deref() == Some(key))
        else {
            return Ok(None);
        };
        let next = Call::ReadProcess {
            process_id: found.process_id,
            after_offset: output.bytes(),
            max_bytes: 1,
        };
        if let Reply::ProcessOutput { start_offset, .. } = sandbox.call(next).await? {
            output.skip_to(start_offset).await;
        }
        let (sender, chunks) = mpsc::channel(COUNTED_CHUNKS);
        let attach = sandbox.attach(found.process_id, output.bytes(), sender, cancel.clone());
        let (exit, ()) = tokio::join!(attach, output.pass(chunks));
        exit.map(Some)
    }
}

#[async_trait]
impl Workspace for SessionWorkspace {
    async fn call(&self, call: Call) -> Result<Reply, WorkspaceError> {
        if is_repeatable(&call) {
            let call = &call;
            let note = || self.slot.workspace_notes.call(call);
            return self
                .read(note, |sandbox| async move { sandbox.call(call.clone()).await })
                .await;
        }
        self.used().await?.call(call).await.map_err(workspace_error)
    }

    async fn read_file(
        &self,
        path: &str,
        scope: Scope,
        offset: u64,
        max_bytes: u64,
    ) -> Result<FileBytes, WorkspaceError> {
        let note = || self.slot.workspace_notes.file(path);
        self.read(note, |sandbox| async move {
            sandbox.read_file(path, scope, offset, max_bytes).await
        })
        .await
    }

    async fn write_file(&self, path: &str, scope: Scope, bytes: Vec<u8>) -> Result<(), WorkspaceError> {
        // A write replaces the whole file, so that a second one makes no difference.
        let bytes = &bytes;
        self.repeat(|sandbox| async move { sandbox.write_file(path, scope, bytes.clone()).await })
            .await
    }

    async fn exec(
        &self,
        exec: Exec,
        output: mpsc::Sender<OutputChunk>,
        cancel: CancellationToken,
    ) -> Result<Exit, WorkspaceError> {
        let exec = self.with_author(exec);
        let (key, sandbox) = (exec.key.clone(), self.used().await?);
        let bytes = AtomicU64::new(0);
        let output = Counted { output, bytes };
        let (sender, chunks) = mpsc::channel(COUNTED_CHUNKS);
        let (exit, ()) = tokio::join!(sandbox.exec(exec, sender, cancel.clone()), output.pass(chunks));
        let exit = match (exit, key) {
            (Err(SandboxError::Lost(lost)), Some(key)) => {
                self.follow_on(sandbox, &key, lost, &output, &cancel).await?
            }
            (exit, _) => exit.map_err(workspace_error)?,
        };
        for limit in &exit.limits_hit {
            self.services.metrics.limit_hit(*limit);
        }
        Ok(exit)
    }

    async fn attach(
        &self,
        process_id: u32,
        output: mpsc::Sender<OutputChunk>,
        cancel: CancellationToken,
    ) -> Result<Exit, WorkspaceError> {
        self.used()
            .await?
            .attach(process_id, 0, output, cancel)
            .await
            .map_err(workspace_error)
    }

    async fn spawn(&self, exec: Exec) -> Result<u32, WorkspaceError> {
        self.used()
            .await?
            .spawn(self.with_author(exec))
            .await
            .map_err(workspace_error)
    }

    async fn settled(&self) -> Result<(), WorkspaceError> {
        let patience = self.services.running.sync_timeout();
        match tokio::time::timeout(patience, self.used()).await {
            Ok(used) => used.map(drop),
            Err(_) => Err(WorkspaceError::Call(CallError {
                code: CallErrorCode::Os,
                message: format!(
                    "the workspace is still being brought to the newest commit after {} s, so nothing may be changed yet; \
                     read on, and try again in a while",
                    patience.as_secs()
                ),
            })),
        }
    }

    fn take_notes(&self) -> Vec<String> {
        self.slot.workspace_notes.take_notes()
    }
}
