//! Diffs on a terminal, or for another program.

use crate::failure::Failure;
use crate::terminal::{Span, Style, Terminal};
use greenroom_protocol::client::pull_request::Diff;

/// Prints a diff as git would; what is not in it is said beside it.
pub fn print(diff: &Diff, terminal: Terminal) -> Result<(), Failure> {
    if !terminal.is_coloured() {
        // For another program, byte for byte.
        for file in &diff.files {
            let end = if file.patch.is_empty() || file.patch.ends_with('\n') {
                ""
            } else {
                "\n"
            };
            terminal.raw(&format!("{}{end}", file.patch))?;
        }
    } else {
        for line in diff.files.iter().flat_map(|file| file.patch.lines()) {
            let style = match line.as_bytes() {
                [b'+', b'+', b'+', ..] | [b'-', b'-', b'-', ..] => Style::Bold,
                [b'+', ..] => Style::Green,
                [b'-', ..] => Style::Red,
                [b'@', ..] => Style::Cyan,
                _ => Style::Plain,
            };
            terminal.line(&[Span::new(style, line)])?;
        }
    }
    for file in diff.files.iter().filter(|file| file.is_binary) {
        terminal.note(&[Span::new(
            Style::Dim,
            format!("binary file not shown: {}", file.path),
        )]);
    }
    if diff.is_truncated {
        terminal.note(&[Span::new(Style::Yellow, "the diff is cut for its size")]);
    }
    Ok(())
}
