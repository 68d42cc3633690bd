//! A running git process and all it started: asked to end when dropped, killed if it does not. Reads no output.

use rustix::process::{Pid, Signal, kill_process_group};
use std::process::ExitStatus;
use std::time::Duration;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

/// How long git may take to remove its locks and temporary files after it was asked to end.
const GRACE: Duration = Duration::from_secs(5);

/// A process group led by git.
#[derive(Debug)]
pub(crate) struct Running {
    /// Absent once it was waited for.
    child: Option<Child>,
    group: Option<Pid>,
}

impl Running {
    /// Starts `command`, which must ask for a process group of its own.
    pub(crate) fn start(command: &mut Command) -> std::io::Result<Self> {
        let child = command.spawn()?;
        let group = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        Ok(Self {
            child: Some(child),
            group,
        })
    }

    /// The three streams; call once, right after the start.
    pub(crate) fn pipes(&mut self) -> (ChildStdin, ChildStdout, ChildStderr) {
        let pipes = self
            .child
            .as_mut()
            .and_then(|child| Some((child.stdin.take()?, child.stdout.take()?, child.stderr.take()?)));
        match pipes {
            Some(pipes) => pipes,
            // `Git::command` pipes all three, and the only callers take them once.
            None => unreachable!("git was started without pipes or they were taken twice"),
        }
    }

    /// Waits for the end.
    pub(crate) async fn wait(&mut self) -> std::io::Result<ExitStatus> {
        let Some(child) = self.child.as_mut() else {
            return Err(std::io::Error::other("already waited for"));
        };
        let status = child.wait().await?;
        self.child = None;
        Ok(status)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let (Some(mut child), Some(group)) = (self.child.take(), self.group) else {
            return;
        };
        // Not reaped yet, so the number still means this group. SIGTERM first: git then removes its lock files.
        let _ = kill_process_group(group, Signal::TERM);
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            let _ = kill_process_group(group, Signal::KILL);
            return;
        };
        // If the runtime ends first, dropping `child` kills it (`kill_on_drop`).
        runtime.spawn(async move {
            if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
                let _ = kill_process_group(group, Signal::KILL);
                let _ = child.wait().await;
            }
        });
    }
}
