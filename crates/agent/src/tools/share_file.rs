//! `share_file`: gives people a file of the workspace, which stays with the session.

use super::{Access, Tool, ToolContext, ToolFailure, ToolOutput, shown_path};
use crate::picture::image_type;
use greenroom_protocol::client::event::{ArtifactItem, ItemBody};
use greenroom_protocol::guest::call::Scope;
use schemars::JsonSchema;
use serde::Deserialize;

/// Size of a file that is shared.
const MAX_FILE_BYTES: u64 = 20 * 1024 * 1024;
const MAX_TITLE_CHARS: usize = 200;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ShareFile {
    /// File, relative to the workspace or absolute below /workspace; at most 20 MiB.
    path: String,
    /// One line that says what people see in it.
    #[serde(default)]
    title: String,
}

impl Tool for ShareFile {
    const NAME: &'static str = "share_file";
    const DESCRIPTION: &'static str = "Show a file to the people of this session: a screenshot, a report, a log, a build's \
        result. It is kept as it is now and stays when the workspace is gone. Not for source code, which belongs into a pull \
        request.";
    // People see files in the order in which they are meant.
    const ACCESS: Access = Access::Changes;

    fn summary(&self) -> String {
        shown_path(&self.path).to_owned()
    }

    async fn run(self, ctx: &ToolContext) -> Result<ToolOutput, ToolFailure> {
        let title = self.title.trim();
        if title.contains('\n') || title.chars().count() > MAX_TITLE_CHARS {
            let message = format!("title must be one line of at most {MAX_TITLE_CHARS} characters");
            return Err(ToolFailure::Answer(message));
        }
        let file = ctx
            .workspace
            .read_file(&self.path, Scope::Workspace, 0, MAX_FILE_BYTES)
            .await?;
        let path = shown_path(&self.path);
        if file.size_bytes > MAX_FILE_BYTES {
            return Err(ToolFailure::Answer(format!(
                "{path} has {} bytes; at most {MAX_FILE_BYTES} are taken",
                file.size_bytes
            )));
        }
        if file.bytes.is_empty() {
            return Err(ToolFailure::Answer(format!("{path} is empty")));
        }
        let media_type = media_type(&file.bytes);
        let size_bytes = file.bytes.len() as u64;
        let kept = ctx.platform.keep_file(media_type, file.bytes).await;
        let digest = kept.map_err(|problem| {
            let hint = problem.hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
            ToolFailure::Answer(format!("not shared: {}{hint}", problem.message))
        })?;
        let name = path.rsplit('/').next().unwrap_or(path).to_owned();
        Ok(ToolOutput {
            items: vec![ItemBody::Artifact(ArtifactItem {
                name,
                title: title.to_owned(),
                media_type: media_type.to_owned(),
                digest,
                size_bytes,
            })],
            ..ToolOutput::text(format!("shared {path} ({size_bytes} bytes)"))
        })
    }
}

/// What a browser may do with a file: show pictures and text, and only store the rest.
fn media_type(bytes: &[u8]) -> &'static str {
    let is_text = || std::str::from_utf8(bytes).is_ok_and(|text| !text.contains('\0'));
    match image_type(bytes) {
        Some(image) => image,
        None if bytes.starts_with(b"%PDF-") => "application/pdf",
        None if is_text() => "text/plain; charset=utf-8",
        None => "application/octet-stream",
    }
}
