//! `glob`: files by pattern.

use super::{Access, Tool, ToolContext, ToolFailure, ToolOutput, unexpected};
use greenroom_protocol::guest::call::{Call, Reply, Scope};
use schemars::JsonSchema;
use serde::Deserialize;

const MAX_PATHS: u32 = 500;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Glob {
    /// Pattern such as `**/*.rs` or `src/**/test_*.py`.
    pattern: String,
    /// Directory to search below; default the workspace.
    #[serde(default)]
    path: Option<String>,
}

impl Tool for Glob {
    const NAME: &'static str = "glob";
    const DESCRIPTION: &'static str =
        "Find files whose path matches a glob pattern. Files ignored by git are left out.";
    const ACCESS: Access = Access::Reads;

    fn summary(&self) -> String {
        self.pattern.clone()
    }

    async fn run(self, ctx: &ToolContext) -> Result<ToolOutput, ToolFailure> {
        let path = self.path.unwrap_or_else(|| ".".to_owned());
        let call = Call::Glob {
            path,
            scope: Scope::Workspace,
            pattern: self.pattern,
            max_entries: MAX_PATHS,
        };
        let (paths, is_truncated) = match ctx.call(call).await? {
            Reply::Paths { paths, is_truncated } => (paths, is_truncated),
            reply => return Err(unexpected(&reply)),
        };
        if paths.is_empty() {
            return Ok(ToolOutput::text("[no file matches]"));
        }
        let mut text = paths.join("\n");
        if is_truncated {
            text.push_str(&format!("\n[only the first {MAX_PATHS}; use a narrower pattern]"));
        }
        Ok(ToolOutput::text(text))
    }
}
