//! `grep`: lines by regular expression.

use super::{Access, Tool, ToolContext, ToolFailure, ToolOutput, unexpected};
use greenroom_protocol::guest::call::{self, Call, Reply, Scope};
use schemars::JsonSchema;
use serde::Deserialize;

const MAX_MATCHES: u32 = 200;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Grep {
    /// Regular expression in the syntax of Rust's regex crate.
    pattern: String,
    /// File or directory to search; default the workspace.
    #[serde(default)]
    path: Option<String>,
    /// Only files whose path matches this glob, such as `*.ts`.
    #[serde(default)]
    glob: Option<String>,
    /// Ignore case; default false.
    #[serde(default)]
    case_insensitive: bool,
}

impl Tool for Grep {
    const NAME: &'static str = "grep";
    const DESCRIPTION: &'static str = "Search file contents with a regular expression. Answers path:line:text, at most 200 \
        matches. Files ignored by git are left out.";
    const ACCESS: Access = Access::Reads;

    fn summary(&self) -> String {
        self.pattern.clone()
    }

    async fn run(self, ctx: &ToolContext) -> Result<ToolOutput, ToolFailure> {
        let search = call::Grep {
            path: self.path.unwrap_or_else(|| ".".to_owned()),
            scope: Scope::Workspace,
            pattern: self.pattern,
            is_case_insensitive: self.case_insensitive,
            glob: self.glob,
            context_lines: 0,
            max_matches: MAX_MATCHES,
        };
        let (lines, is_truncated) = match ctx.call(Call::Grep(search)).await? {
            Reply::Matches { lines, is_truncated } => (lines, is_truncated),
            reply => return Err(unexpected(&reply)),
        };
        if lines.is_empty() {
            return Ok(ToolOutput::text("[no line matches]"));
        }
        let mut text = String::new();
        for line in &lines {
            text.push_str(&format!("{}:{}:{}\n", line.path, line.line, line.text));
        }
        if is_truncated {
            text.push_str(&format!(
                "[only the first {MAX_MATCHES} matches; use a narrower pattern, path or glob]\n"
            ));
        }
        Ok(ToolOutput::text(text))
    }
}
