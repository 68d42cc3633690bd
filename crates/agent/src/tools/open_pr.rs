//! `open_pr`: asks the platform for a pull request.

use super::{Access, Tool, ToolContext, ToolFailure, ToolOutput};
use crate::world::PullRequestRequest;
use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OpenPr {
    /// One line that says what changes.
    title: String,
    /// Markdown: what changed, why, and how it was checked.
    body: String,
    /// The name of another repository in the workspace, whose changes are proposed; unset: the session's own.
    #[serde(default)]
    repository: Option<String>,
}

impl Tool for OpenPr {
    const NAME: &'static str = "open_pr";
    const DESCRIPTION: &'static str = "Commit and push everything that changed and open this session's pull request, or \
        update it if it is open. Do it once the work is done and checked.";
    const ACCESS: Access = Access::Changes;

    fn summary(&self) -> String {
        self.title.clone()
    }

    async fn run(self, ctx: &ToolContext) -> Result<ToolOutput, ToolFailure> {
        if self.title.trim().is_empty() || self.title.contains('\n') {
            return Err(ToolFailure::Answer("title must be one line of text".to_owned()));
        }
        let request = PullRequestRequest {
            title: self.title,
            body: self.body,
            repository: self.repository,
        };
        match ctx.platform.open_pull_request(request).await {
            Ok(opened) => {
                let verb = if opened.is_new { "opened" } else { "updated" };
                Ok(ToolOutput::text(format!(
                    "{verb} pull request #{} ({})",
                    opened.number, opened.path
                )))
            }
            Err(problem) => {
                let hint = problem.hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
                Err(ToolFailure::Answer(format!(
                    "no pull request: {}{hint}",
                    problem.message
                )))
            }
        }
    }
}
