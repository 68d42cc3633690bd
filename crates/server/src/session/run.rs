//! Runs one program of the platform's own (git) in a sandbox and keeps a bounded amount of its output.

use crate::sandbox::{Sandbox, SandboxError};
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::guest::WORKSPACE_PATH;
use greenroom_protocol::guest::call::{Exec, LimitKind, OutputChunk};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Output kept of a program of ours, in bytes.
const MAX_OUTPUT_BYTES: usize = 64 * 1024;
/// Wall time given to a program of ours.
const TIMEOUT_MS: u64 = 10 * 60 * 1000;

/// What a person can do about it.
const HINT: &str = "the work is still in the sandbox; ask the agent to look at the repository's state, the next turn tries again";
const DISK_HINT: &str = "the sandbox is over its disk limit: ask the agent to remove what is not needed, the next turn tries again; an environment's resources.disk_mb sets the limit";

/// What a program left behind.
pub struct Finished {
    pub is_success: bool,
    /// Standard output and error, in order, trimmed.
    pub output: String,
    /// Limits of the sandbox that it ran into.
    pub limits_hit: Vec<LimitKind>,
}

/// Runs programs of ours in one directory of a sandbox.
#[derive(Clone, Copy)]
pub struct Runner<'a> {
    pub sandbox: &'a Arc<dyn Sandbox>,
    /// Absolute. Git looks for its repository here and nowhere above.
    pub directory: &'a str,
    /// Kills what runs.
    pub cancel: &'a CancellationToken,
}

impl Runner<'_> {
    /// Runs `argv`. Only a lost sandbox is an error; a failing program is a [`Finished`].
    pub async fn run(&self, argv: &[&str], mut env: Vec<(String, String)>) -> Result<Finished, Problem> {
        let above = self.directory.rsplit_once('/').map_or("", |(above, _)| above);
        if !above.is_empty() {
            env.push(("GIT_CEILING_DIRECTORIES".to_owned(), above.to_owned()));
        }
        let exec = Exec {
            argv: argv.iter().map(|&word| word.to_owned()).collect(),
            cwd: self.directory.to_owned(),
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
        let (exit, bytes) = tokio::join!(self.sandbox.exec(exec, sender, self.cancel.clone()), collect);
        let output = String::from_utf8_lossy(&bytes).trim().to_owned();
        match exit {
            Ok(exit) => Ok(Finished {
                is_success: exit.code == Some(0),
                output,
                limits_hit: exit.limits_hit,
            }),
            Err(SandboxError::Call(error)) => Ok(Finished {
                is_success: false,
                output: error.message,
                limits_hit: Vec::new(),
            }),
            Err(SandboxError::Lost(problem)) => Err(problem),
        }
    }

    /// Like [`Runner::run`], but a failing program is a problem with `code`, and what it said of the cause is told.
    pub async fn checked(
        &self,
        argv: &[&str],
        env: Vec<(String, String)>,
        code: &str,
    ) -> Result<String, Problem> {
        self.named(&name(argv), argv, env, code).await
    }

    /// Like [`Runner::checked`], for a script whose last command is told as `what`.
    pub async fn named(
        &self,
        what: &str,
        argv: &[&str],
        env: Vec<(String, String)>,
        code: &str,
    ) -> Result<String, Problem> {
        let finished = self.run(argv, env).await?;
        if finished.is_success {
            return Ok(finished.output);
        }
        let place = match self.directory {
            WORKSPACE_PATH => String::new(),
            other => format!(" in {other}"),
        };
        let problem = Problem::permanent(
            code,
            format!(
                "`{what}` failed in the sandbox{place}: {}",
                cause(&finished.output)
            ),
        );
        Err(match code {
            _ if finished.limits_hit.contains(&LimitKind::Disk) => problem.with_hint(DISK_HINT),
            "commit_failed" | "push_failed" => problem.with_hint(HINT),
            _ => problem,
        })
    }
}

/// A program of ours was ended because the sandbox takes more disk than it may.
pub fn disk_full(code: &str) -> Problem {
    Problem::permanent(
        code,
        "The sandbox is over its disk limit, so nothing can be written in it.",
    )
    .with_hint(DISK_HINT)
}

/// A program and its command, without options before it and their values.
fn name(argv: &[&str]) -> String {
    let mut words = argv.iter().copied();
    let program = words.next().unwrap_or_default();
    while let Some(word) = words.next() {
        match word {
            "-C" | "-c" => drop(words.next()),
            option if option.starts_with('-') => {}
            command => return format!("{program} {command}"),
        }
    }
    program.to_owned()
}

/// The line that names the cause: git says it first and gives advice after it.
pub fn cause(output: &str) -> &str {
    let is_cause = |line: &&str| line.starts_with("fatal:") || line.starts_with("error:");
    let mut lines = output.lines();
    lines
        .clone()
        .find(is_cause)
        .or_else(|| lines.next_back())
        .unwrap_or("it said nothing")
}

#[cfg(test)]
mod tests {
    use super::{cause, name};

    #[test]
    fn the_command_and_its_cause_are_told() {
        let argv = ["git", "-C", "/workspace", "-c", "a=b", "--no-pager", "add", "-A"];
        assert_eq!(name(&argv), "git add");
        assert_eq!(name(&["git"]), "git");
        for (output, expected) in [
            ("", "it said nothing"),
            ("one\ntwo", "two"),
            (
                "fatal: Unable to create index.lock\n\nremove the file manually to continue.",
                "fatal: Unable to create index.lock",
            ),
        ] {
            assert_eq!(cause(output), expected);
        }
    }
}
