//! `bash_output`: what a background process wrote.

use super::{Access, Tool, ToolContext, ToolFailure, ToolOutput, bash, unexpected};
use greenroom_protocol::guest::call::{Call, Reply};
use schemars::JsonSchema;
use serde::Deserialize;

const MAX_OUTPUT_BYTES: u64 = 48 * 1024;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BashOutput {
    /// Number that bash gave when it started the process in the background.
    process_id: u32,
    /// Only output behind this offset, from an earlier answer; default 0.
    #[serde(default)]
    after_offset: Option<u64>,
}

impl Tool for BashOutput {
    const NAME: &'static str = "bash_output";
    const DESCRIPTION: &'static str = "Read the output of a background process and whether it still runs. Use the answer's \
        next offset to read only what is new.";
    const ACCESS: Access = Access::Reads;

    fn summary(&self) -> String {
        format!("process {}", self.process_id)
    }

    async fn run(self, ctx: &ToolContext) -> Result<ToolOutput, ToolFailure> {
        let asked = self.after_offset.unwrap_or(0);
        let call = Call::ReadProcess {
            process_id: self.process_id,
            after_offset: asked,
            max_bytes: MAX_OUTPUT_BYTES,
        };
        match ctx.call(call).await? {
            Reply::ProcessOutput {
                start_offset,
                end_offset,
                output,
                exit,
            } => {
                let lost = if start_offset > asked {
                    format!("[{} older bytes are gone]\n", start_offset - asked)
                } else {
                    String::new()
                };
                let state = bash::background_state(exit.as_ref());
                let gap = if output.is_empty() || output.ends_with('\n') {
                    ""
                } else {
                    "\n"
                };
                Ok(ToolOutput::text(format!(
                    "{lost}{output}{gap}[{state}; next offset {end_offset}]"
                )))
            }
            reply => Err(unexpected(&reply)),
        }
    }
}
