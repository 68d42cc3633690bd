//! Text files as the editing tools need them: loaded whole, refused if binary, line endings known. Knows no tool.

use super::ToolFailure;
use crate::world::{Workspace, WorkspaceError};
use greenroom_protocol::guest::call::{CallErrorCode, Scope};

/// Largest file that may be edited, in bytes.
const MAX_EDITED_BYTES: u64 = 8 * 1024 * 1024;

/// The file's text, byte-order mark and line endings included; `None` if there is no such file.
pub(super) async fn load(workspace: &dyn Workspace, path: &str) -> Result<Option<String>, ToolFailure> {
    let file = match workspace
        .read_file(path, Scope::Workspace, 0, MAX_EDITED_BYTES + 1)
        .await
    {
        Ok(file) => file,
        Err(WorkspaceError::Call(error)) if error.code == CallErrorCode::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if file.size_bytes > MAX_EDITED_BYTES || file.bytes.len() as u64 > MAX_EDITED_BYTES {
        return Err(ToolFailure::Answer(format!(
            "{path} has {} bytes; files above {MAX_EDITED_BYTES} bytes cannot be edited with this tool, use bash",
            file.size_bytes
        )));
    }
    match String::from_utf8(file.bytes) {
        Ok(text) => Ok(Some(text)),
        Err(_) => Err(ToolFailure::Answer(format!(
            "{path} is not UTF-8 text ({} bytes); it was left as it is",
            file.size_bytes
        ))),
    }
}

/// The line ending most lines of `text` use.
pub(super) fn line_ending(text: &str) -> &'static str {
    let crlf = text.matches("\r\n").count();
    let all = text.matches('\n').count();
    if crlf * 2 > all { "\r\n" } else { "\n" }
}

/// `text` with every line ending replaced by `ending`.
pub(super) fn with_line_ending(text: &str, ending: &str) -> String {
    let unix = text.replace("\r\n", "\n");
    if ending == "\n" {
        unix
    } else {
        unix.replace('\n', ending)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_common_ending_wins() {
        for (text, expected) in [
            ("", "\n"),
            ("a", "\n"),
            ("a\nb\n", "\n"),
            ("a\r\nb\r\n", "\r\n"),
            ("a\r\nb\r\nc\n", "\r\n"),
        ] {
            assert_eq!(line_ending(text), expected, "{text:?}");
        }
        assert_eq!(with_line_ending("a\nb\r\nc", "\r\n"), "a\r\nb\r\nc");
    }
}
