//! `bash`: a command in the sandbox, its output shown as it comes.

use super::bounds::{HeadTail, Utf8Chunks};
use super::{Access, Tool, ToolContext, ToolFailure, ToolOutput};
use crate::world::WorkspaceError;
use greenroom_protocol::guest::call::{Call, Exec, Exit, KillReason, LimitKind, OutputChunk, Reply};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::mpsc;

const DEFAULT_TIMEOUT_SECONDS: u64 = 120;
const MAX_TIMEOUT_SECONDS: u64 = 1800;
const MAX_OUTPUT_BYTES: usize = 48 * 1024;
/// What people see live of one command; the rest is only in the bounded result.
const MAX_SHOWN_BYTES: usize = 1024 * 1024;
/// Chunks on their way from the guest; a full channel slows the command down.
const OUTPUT_CHANNEL_CHUNKS: usize = 64;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Bash {
    /// Command line for bash.
    command: String,
    /// Seconds after which it is killed, 1 to 1800; default 120. Not used in the background.
    #[serde(default)]
    timeout_seconds: Option<u64>,
    /// Start it and answer at once with a process id for bash_output and bash_kill; for servers and watchers.
    #[serde(default)]
    background: bool,
    /// Directory to run in, relative to the workspace; default the workspace.
    #[serde(default)]
    cwd: Option<String>,
}

impl Tool for Bash {
    const NAME: &'static str = "bash";
    const DESCRIPTION: &'static str = "Run a bash command in the sandbox's workspace, without terminal or input. Output and \
        errors come together; of long output you get the first and the last 24 KiB. Each call is a new shell.";
    const ACCESS: Access = Access::Changes;

    fn summary(&self) -> String {
        self.command.clone()
    }

    async fn run(self, ctx: &ToolContext) -> Result<ToolOutput, ToolFailure> {
        let seconds = self.timeout_seconds.unwrap_or(DEFAULT_TIMEOUT_SECONDS);
        if !(1..=MAX_TIMEOUT_SECONDS).contains(&seconds) {
            return Err(ToolFailure::Answer(format!(
                "timeout_seconds must be 1 to {MAX_TIMEOUT_SECONDS}"
            )));
        }
        if self.command.trim().is_empty() {
            return Err(ToolFailure::Answer("command is empty".to_owned()));
        }
        let exec = Exec {
            argv: vec!["bash".to_owned(), "-c".to_owned(), self.command],
            cwd: self.cwd.unwrap_or_default(),
            is_merged: true,
            timeout_ms: (!self.background).then_some(seconds * 1000),
            is_background: self.background,
            key: (!self.background).then(|| ctx.key.clone()),
            ..Exec::default()
        };
        if self.background {
            let process_id = ctx.workspace.spawn(exec).await?;
            return Ok(ToolOutput::text(format!(
                "started in the background as process {process_id}; read its output with bash_output, end it with bash_kill"
            )));
        }
        let (sender, receiver) = mpsc::channel(OUTPUT_CHANNEL_CHUNKS);
        let run = ctx.workspace.exec(exec, sender, ctx.cancel.clone());
        let (exit, output) = tokio::join!(run, collect(receiver, ctx));
        let exit = exit?;
        Ok(ToolOutput {
            is_error: exit.code != Some(0),
            ..ToolOutput::text(describe(&output, &exit, seconds))
        })
    }
}

impl Bash {
    /// The command of this call that an earlier server started, followed to its end. `None` if the sandbox does not know it.
    pub(super) async fn find_again(self, ctx: &ToolContext) -> Option<Result<ToolOutput, ToolFailure>> {
        let Ok(Reply::Processes { processes, .. }) = ctx.workspace.call(Call::ListProcesses).await else {
            return None;
        };
        let found = processes
            .into_iter()
            .find(|process| process.key.as_deref() == Some(&ctx.key))?;
        // Its first output may have fallen out of the buffer while nobody read it.
        let oldest = Call::ReadProcess {
            process_id: found.process_id,
            after_offset: 0,
            max_bytes: 1,
        };
        let lost_bytes = match ctx.workspace.call(oldest).await {
            Ok(Reply::ProcessOutput { start_offset, .. }) => start_offset,
            _ => 0,
        };
        let (sender, receiver) = mpsc::channel(OUTPUT_CHANNEL_CHUNKS);
        let follow = ctx.workspace.attach(found.process_id, sender, ctx.cancel.clone());
        let (exit, output) = tokio::join!(follow, collect(receiver, ctx));
        let seconds = self.timeout_seconds.unwrap_or(DEFAULT_TIMEOUT_SECONDS);
        let output = match lost_bytes {
            0 => output,
            lost_bytes => format!("[{lost_bytes} older bytes are gone]\n{output}"),
        };
        match exit {
            Ok(exit) => Some(Ok(ToolOutput {
                is_error: exit.code != Some(0),
                ..ToolOutput::text(describe(&output, &exit, seconds))
            })),
            // It was forgotten, or lost with its sandbox, in this moment.
            Err(WorkspaceError::Call(_) | WorkspaceError::Lost(_)) => None,
        }
    }
}

/// Output bounded for the model, shown as it comes.
async fn collect(mut receiver: mpsc::Receiver<OutputChunk>, ctx: &ToolContext) -> String {
    let mut decoder = Utf8Chunks::default();
    let mut output = HeadTail::new(MAX_OUTPUT_BYTES);
    let mut shown_bytes = 0;
    let mut take = |text: &str| {
        if text.is_empty() {
            return;
        }
        output.push(text);
        if shown_bytes < MAX_SHOWN_BYTES {
            shown_bytes += text.len();
            (ctx.show_output)(text);
        }
    };
    while let Some(chunk) = receiver.recv().await {
        take(&decoder.push(&chunk.bytes));
    }
    take(decoder.finish());
    output.finish()
}

/// Output, then how it ended.
fn describe(output: &str, exit: &Exit, timeout_seconds: u64) -> String {
    let end = format!("[{}]", describe_exit(exit, timeout_seconds));
    match output {
        "" => format!("[no output]\n{end}"),
        output if output.ends_with('\n') => format!("{output}{end}"),
        output => format!("{output}\n{end}"),
    }
}

fn describe_exit(exit: &Exit, timeout_seconds: u64) -> String {
    let end = match (exit.killed, exit.code, exit.signal) {
        (Some(KillReason::TimedOut), _, _) => format!(
            "killed after {timeout_seconds} s: raise timeout_seconds, or use background for what runs on"
        ),
        (Some(KillReason::OutputLimit), _, _) => {
            "killed because it wrote more output than a command may; redirect it to a file".to_owned()
        }
        (Some(KillReason::Cancelled), _, _) => "killed because the turn was stopped".to_owned(),
        (None, Some(code), _) => format!("exit code {code}"),
        (None, None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None, None) => "ended without an exit code".to_owned(),
    };
    exit.limits_hit
        .iter()
        .filter_map(|limit| limit_advice(*limit))
        .fold(end, |text, advice| format!("{text}; {advice}"))
}

/// Which limit of the sandbox was hit and what helps; `None` where the end says it already.
fn limit_advice(limit: LimitKind) -> Option<&'static str> {
    match limit {
        LimitKind::Memory => Some(
            "the sandbox's memory limit was hit and a process was killed: use less at once, for example fewer parallel jobs",
        ),
        LimitKind::Processes => Some(
            "the sandbox's limit of processes was hit: run fewer at once and end what you left in the background",
        ),
        LimitKind::Disk => Some(
            "the sandbox's disk limit was hit and its programs were killed: remove files that are not needed, then go on",
        ),
        LimitKind::WallTime => {
            Some("the sandbox's life time was over: it is started again, its files are kept")
        }
        LimitKind::Output => None,
    }
}

/// How a background process ended, for `bash_output`.
pub(super) fn background_state(exit: Option<&Exit>) -> String {
    match exit {
        None => "still running".to_owned(),
        Some(exit) => describe_exit(exit, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_stated() {
        let exit = |code, signal, killed| Exit {
            code,
            signal,
            killed,
            duration_ms: 1,
            limits_hit: Vec::new(),
        };
        for (output, exit, expected) in [
            ("", exit(Some(0), None, None), "[no output]\n[exit code 0]"),
            ("x", exit(Some(3), None, None), "x\n[exit code 3]"),
            ("x\n", exit(None, Some(9), None), "x\n[killed by signal 9]"),
            (
                "",
                exit(None, Some(15), Some(KillReason::TimedOut)),
                "[no output]\n[killed after 5 s: raise timeout_seconds, or use background for what runs on]",
            ),
            (
                "",
                exit(None, Some(15), Some(KillReason::Cancelled)),
                "[no output]\n[killed because the turn was stopped]",
            ),
        ] {
            assert_eq!(describe(output, &exit, 5), expected);
        }
    }

    #[test]
    fn limits_that_were_hit_are_named_with_advice() {
        let hit = |limits: &[LimitKind]| {
            let exit = Exit {
                code: Some(137),
                limits_hit: limits.to_vec(),
                ..Exit::default()
            };
            describe_exit(&exit, 5)
        };
        let memory = hit(&[LimitKind::Memory]);
        assert!(
            memory.starts_with("exit code 137; the sandbox's memory limit was hit"),
            "{memory}"
        );
        let both = hit(&[LimitKind::Processes, LimitKind::Disk]);
        assert!(
            both.contains("limit of processes was hit") && both.contains("disk limit was hit"),
            "{both}"
        );
        // The way it was killed says it.
        assert_eq!(hit(&[LimitKind::Output]), "exit code 137");
    }
}
