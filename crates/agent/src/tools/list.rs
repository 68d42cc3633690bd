//! `list`: names in a directory.

use super::{Access, Tool, ToolContext, ToolFailure, ToolOutput, unexpected};
use greenroom_protocol::guest::call::{Call, EntryKind, Reply, Scope};
use schemars::JsonSchema;
use serde::Deserialize;

const MAX_ENTRIES: u32 = 500;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct List {
    /// Directory, relative to the workspace or absolute below /workspace; default the workspace.
    #[serde(default)]
    path: Option<String>,
}

impl Tool for List {
    const NAME: &'static str = "list";
    const DESCRIPTION: &'static str =
        "List the names in one directory, with kind and size. Use glob to find files below it.";
    const ACCESS: Access = Access::Reads;

    fn summary(&self) -> String {
        super::shown_path(self.path.as_deref().unwrap_or(".")).to_owned()
    }

    async fn run(self, ctx: &ToolContext) -> Result<ToolOutput, ToolFailure> {
        let path = self.path.unwrap_or_else(|| ".".to_owned());
        let call = Call::ListDirectory {
            path,
            scope: Scope::Workspace,
            max_entries: MAX_ENTRIES,
        };
        let (entries, is_truncated) = match ctx.call(call).await? {
            Reply::Entries {
                entries,
                is_truncated,
            } => (entries, is_truncated),
            reply => return Err(unexpected(&reply)),
        };
        if entries.is_empty() {
            return Ok(ToolOutput::text("[the directory is empty]"));
        }
        let mut text = String::new();
        for entry in &entries {
            let line = match entry.kind {
                EntryKind::Directory => format!("{}/\n", entry.name),
                EntryKind::File if entry.is_executable => {
                    format!("{}* ({} bytes)\n", entry.name, entry.size_bytes)
                }
                EntryKind::File => format!("{} ({} bytes)\n", entry.name, entry.size_bytes),
                EntryKind::Symlink => {
                    format!(
                        "{} -> {}\n",
                        entry.name,
                        entry.link_target.as_deref().unwrap_or("?")
                    )
                }
                EntryKind::Other => format!("{} (special file)\n", entry.name),
            };
            text.push_str(&line);
        }
        if is_truncated {
            text.push_str(&format!(
                "[only the first {MAX_ENTRIES} names; use glob with a pattern]\n"
            ));
        }
        Ok(ToolOutput::text(text))
    }
}
