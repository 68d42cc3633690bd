//! Runs one program of the platform's own (git) in a sandbox and keeps a bounded amount of its output.

use crate::sandbox::{Sandbox, SandboxError};
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::guest::call::{Exec, OutputChunk};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Output kept of a program of ours, in bytes.
const MAX_OUTPUT_BYTES: usize = 64 * 1024;
/// Wall time given to a program of ours.
const TIMEOUT_MS: u64 = 10 * 60 * 1000;

/// What a program left behind.
pub struct Finished {
    pub is_success: bool,
    /// Standard output and error, in order, trimmed.
    pub output: String,
}

/// Runs `argv` in the workspace; cancelling kills it. Only a lost sandbox is an error; a failing program is a [`Finished`].
pub async fn run(
    sandbox: &Arc<dyn Sandbox>,
    argv: &[&str],
    env: Vec<(String, String)>,
    cancel: &CancellationToken,
) -> Result<Finished, Problem> {
    let exec = Exec {
        argv: argv.iter().map(|&word| word.to_owned()).collect(),
        env,
        is_merged: true,
        timeout_ms: Some(TIMEOUT_MS),
        ..Exec::default()
    };
    let (sender, mut receiver) = mpsc::channel::<OutputChunk>(16);
    let collect = async {
        let mut bytes = Vec::new();
        while let Some(chunk) = receiver.recv().await {
            let room = MAX_OUTPUT_BYTES.saturating_sub(bytes.len());
            bytes.extend_from_slice(&chunk.bytes[..chunk.bytes.len().min(room)]);
        }
        bytes
    };
    let (exit, bytes) = tokio::join!(sandbox.exec(exec, sender, cancel.clone()), collect);
    let output = String::from_utf8_lossy(&bytes).trim().to_owned();
    match exit {
        Ok(exit) => Ok(Finished {
            is_success: exit.code == Some(0),
            output,
        }),
        Err(SandboxError::Call(error)) => Ok(Finished {
            is_success: false,
            output: error.message,
        }),
        Err(SandboxError::Lost(problem)) => Err(problem),
    }
}

/// Like [`run`], but a failing program is a problem with `code`, and its last line is told.
pub async fn run_checked(
    sandbox: &Arc<dyn Sandbox>,
    argv: &[&str],
    env: Vec<(String, String)>,
    code: &str,
    cancel: &CancellationToken,
) -> Result<String, Problem> {
    let finished = run(sandbox, argv, env, cancel).await?;
    if finished.is_success {
        return Ok(finished.output);
    }
    let last_line = finished.output.lines().next_back().unwrap_or("no output");
    let name = argv.iter().take(2).copied().collect::<Vec<_>>().join(" ");
    Err(Problem::permanent(
        code,
        format!("`{name}` failed in the sandbox: {last_line}"),
    ))
}
