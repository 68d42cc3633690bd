//! `read`: text with line numbers, or an image.

use super::{Access, Tool, ToolContext, ToolFailure, ToolOutput, bounds};
use crate::picture::{image_type, is_whole_image};
use crate::world::WorkspaceError;
use base64::Engine as _;
use greenroom_llm::conversation::Block;
use greenroom_protocol::guest::call::{CallErrorCode, Scope};
use schemars::JsonSchema;
use serde::Deserialize;

const DEFAULT_LINES: u64 = 2000;
const MAX_TEXT_BYTES: usize = 60 * 1024;
const MAX_LINE_BYTES: usize = 2000;
const MAX_IMAGE_BYTES: u64 = 5 * 1024 * 1024;
/// Larger text files are searched with grep or read with bash.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Read {
    /// File, relative to the workspace or absolute below /workspace.
    path: String,
    /// First line to show, counted from 1; default 1.
    #[serde(default)]
    offset: Option<u64>,
    /// Lines to show; default and maximum 2000.
    #[serde(default)]
    limit: Option<u64>,
}

impl Tool for Read {
    const NAME: &'static str = "read";
    const DESCRIPTION: &'static str = "Read a file. Text comes with line numbers, at most 2000 lines or 60 KiB at a time: \
        use offset to go on. PNG, JPEG, GIF and WebP images up to 5 MiB are shown. Use list for directories.";
    const ACCESS: Access = Access::Reads;

    fn summary(&self) -> String {
        super::shown_path(&self.path).to_owned()
    }

    async fn run(self, ctx: &ToolContext) -> Result<ToolOutput, ToolFailure> {
        let read = ctx
            .workspace
            .read_file(&self.path, Scope::Workspace, 0, MAX_FILE_BYTES)
            .await;
        let file = match read {
            Err(WorkspaceError::Call(error)) if error.code == CallErrorCode::IsDirectory => {
                return Err(ToolFailure::Answer(format!(
                    "{} is a directory; use list",
                    self.path
                )));
            }
            read => read?,
        };
        if let Some(media_type) = image_type(&file.bytes) {
            if file.size_bytes > MAX_IMAGE_BYTES {
                return Err(ToolFailure::Answer(format!(
                    "{} is an image of {} bytes; only images up to 5 MiB can be shown",
                    self.path, file.size_bytes
                )));
            }
            if !is_whole_image(&file.bytes) {
                return Err(ToolFailure::Answer(format!(
                    "{} begins as {media_type} and is not whole, so it cannot be shown; use bash with file or xxd",
                    self.path
                )));
            }
            let note = format!("{}: {media_type}, {} bytes", self.path, file.size_bytes);
            let data_base64 = base64::engine::general_purpose::STANDARD.encode(&file.bytes);
            return Ok(ToolOutput {
                content: vec![
                    Block::Text { text: note },
                    Block::Image {
                        media_type: media_type.to_owned(),
                        data_base64,
                    },
                ],
                ..ToolOutput::default()
            });
        }
        let is_whole = file.bytes.len() as u64 == file.size_bytes;
        let text = match std::str::from_utf8(&file.bytes) {
            Ok(text) if !text.contains('\0') => text,
            // A file cut at the limit may end inside a character.
            Err(error) if !is_whole && error.error_len().is_none() => {
                std::str::from_utf8(&file.bytes[..error.valid_up_to()]).unwrap_or_default()
            }
            _ => {
                return Err(ToolFailure::Answer(format!(
                    "{} is a binary file of {} bytes and was not read; use bash with file, xxd or strings",
                    self.path, file.size_bytes
                )));
            }
        };
        let limit = self.limit.unwrap_or(DEFAULT_LINES).clamp(1, DEFAULT_LINES);
        let mut shown =
            number_lines(text, self.offset.unwrap_or(1).max(1), limit).map_err(ToolFailure::Answer)?;
        if !is_whole {
            shown.push_str(&format!(
                "[only the first {MAX_FILE_BYTES} of {} bytes were looked at]\n",
                file.size_bytes
            ));
        }
        Ok(ToolOutput::text(shown))
    }
}

fn number_lines(text: &str, offset: u64, limit: u64) -> Result<String, String> {
    let total = text.lines().count() as u64;
    if total == 0 {
        return Ok("[the file is empty]".to_owned());
    }
    if offset > total {
        return Err(format!(
            "offset {offset} is behind the end: the file has {total} lines"
        ));
    }
    let mut shown = String::new();
    let mut next = offset;
    let first = usize::try_from(offset - 1).unwrap_or(usize::MAX);
    let count = usize::try_from(limit).unwrap_or(usize::MAX);
    for line in text.lines().skip(first).take(count) {
        let kept = bounds::floor(line, MAX_LINE_BYTES);
        let mut numbered = format!("{next:>6}\t{}", &line[..kept]);
        if kept < line.len() {
            numbered.push_str(&format!(" [line cut: {} bytes]", line.len()));
        }
        if shown.len() + numbered.len() > MAX_TEXT_BYTES {
            break;
        }
        shown.push_str(&numbered);
        shown.push('\n');
        next += 1;
    }
    if next <= total {
        shown.push_str(&format!(
            "[lines {offset} to {} of {total}; read on with offset {next}]\n",
            next - 1
        ));
    }
    Ok(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_numbered_and_bounded() {
        for (text, offset, limit, expected) in [
            ("", 1, 10, Ok("[the file is empty]")),
            ("a\nb", 1, 10, Ok("     1\ta\n     2\tb\n")),
            ("a\r\nb\r\n", 2, 10, Ok("     2\tb\n")),
            (
                "a\nb\nc\n",
                1,
                2,
                Ok("     1\ta\n     2\tb\n[lines 1 to 2 of 3; read on with offset 3]\n"),
            ),
            (
                "a\n",
                2,
                10,
                Err("offset 2 is behind the end: the file has 1 lines"),
            ),
        ] {
            assert_eq!(
                number_lines(text, offset, limit).as_deref(),
                expected.map_err(str::to_owned).as_deref()
            );
        }
        let long = number_lines(&"é".repeat(5000), 1, 1).unwrap();
        assert!(long.ends_with("[line cut: 10000 bytes]\n") && long.len() < 2100);
        let many = number_lines(&"x".repeat(99).add_newlines(2000), 1, 2000).unwrap();
        assert!(many.len() < 64 * 1024 && many.contains("read on with offset"));
    }

    trait AddNewlines {
        fn add_newlines(&self, count: usize) -> String;
    }
    impl AddNewlines for String {
        fn add_newlines(&self, count: usize) -> String {
            format!("{self}\n").repeat(count)
        }
    }
}
