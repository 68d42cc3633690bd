//! What programs do in the workspace in memory.

use super::MemoryWorkspace;
use greenroom_protocol::guest::call::{Exec, Exit, KillReason, OutputChunk};
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

pub(super) type Program = Box<dyn Fn(&MemoryWorkspace, &Exec) -> Ran + Send + Sync>;

/// Time is not played: a program that runs on ends only when it is cancelled.
pub(super) async fn cancelled(cancel: &CancellationToken) -> Exit {
    cancel.cancelled().await;
    Exit {
        code: None,
        signal: Some(15),
        killed: Some(KillReason::Cancelled),
        duration_ms: 1,
        ..Exit::default()
    }
}
