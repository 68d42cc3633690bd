//! `bash_kill`: ends a background process.

use super::{Access, Tool, ToolContext, ToolFailure, ToolOutput, unexpected};
use greenroom_protocol::guest::call::{Call, Reply};
use schemars::JsonSchema;
use serde::Deserialize;

/// SIGKILL, see signal(7): the whole group goes, whatever it ignores.
const KILL: i32 = 9;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BashKill {
    /// Number that bash gave when it started the process in the background.
    process_id: u32,
}

impl Tool for BashKill {
    const NAME: &'static str = "bash_kill";
    const DESCRIPTION: &'static str =
        "Kill a background process and everything it started in its process group.";
    const ACCESS: Access = Access::Changes;

    fn summary(&self) -> String {
        format!("process {}", self.process_id)
    }

    async fn run(self, ctx: &ToolContext) -> Result<ToolOutput, ToolFailure> {
        match ctx
            .call(Call::SignalProcess {
                process_id: self.process_id,
                signal: KILL,
            })
            .await?
        {
            Reply::Done => Ok(ToolOutput::text(format!("killed process {}", self.process_id))),
            reply => Err(unexpected(&reply)),
        }
    }
}
