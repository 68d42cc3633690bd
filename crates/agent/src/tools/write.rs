//! `write`: replaces a file or makes a new one.

use super::{Access, Tool, ToolContext, ToolFailure, ToolOutput, file_change, text_file};
use greenroom_protocol::guest::call::Scope;
use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Write {
    /// File, relative to the workspace or absolute below /workspace; missing directories are made.
    path: String,
    /// The whole new content.
    content: String,
}

impl Tool for Write {
    const NAME: &'static str = "write";
    const DESCRIPTION: &'static str = "Write a whole text file, replacing what was there. Prefer edit for \
        changes of an existing file.";
    const ACCESS: Access = Access::Changes;

    fn summary(&self) -> String {
        super::shown_path(&self.path).to_owned()
    }

    async fn run(self, ctx: &ToolContext) -> Result<ToolOutput, ToolFailure> {
        let old = text_file::load(&*ctx.workspace, &self.path).await?;
        let size = self.content.len();
        ctx.workspace
            .write_file(&self.path, Scope::Workspace, self.content.clone().into_bytes())
            .await?;
        let verb = if old.is_some() { "replaced" } else { "created" };
        Ok(ToolOutput {
            items: vec![file_change::item(&self.path, old.as_deref(), Some(&self.content))],
            ..ToolOutput::text(format!("{verb} {} ({size} bytes)", super::shown_path(&self.path)))
        })
    }
}
