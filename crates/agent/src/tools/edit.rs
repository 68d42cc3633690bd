//! `edit`: replaces one exact text by another.

use super::{Access, Tool, ToolContext, ToolFailure, ToolOutput, file_change, text_file};
use greenroom_protocol::guest::call::Scope;
use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Edit {
    /// File, relative to the workspace or absolute below /workspace.
    path: String,
    /// Exact text to replace, without line numbers; must occur once. Empty only to create a file that is missing or empty.
    old_text: String,
    /// Text to put there.
    new_text: String,
    /// Replace every occurrence; default false.
    #[serde(default)]
    replace_all: bool,
}

impl Tool for Edit {
    const NAME: &'static str = "edit";
    const DESCRIPTION: &'static str = "Replace an exact text in a file. old_text must match the file exactly, indentation \
        included, and only once: add lines around it to make it unique, or set replace_all.";
    const ACCESS: Access = Access::Changes;

    fn summary(&self) -> String {
        super::shown_path(&self.path).to_owned()
    }

    async fn run(self, ctx: &ToolContext) -> Result<ToolOutput, ToolFailure> {
        let old = text_file::load(&*ctx.workspace, &self.path).await?;
        let how_many = if self.replace_all {
            Occurrences::All
        } else {
            Occurrences::One
        };
        let (new, count) = match &old {
            None if self.old_text.is_empty() => (self.new_text.clone(), 1),
            None => {
                return Err(ToolFailure::Answer(format!(
                    "{} does not exist; leave old_text empty to create it",
                    self.path
                )));
            }
            Some(old) => replace(old, &self.old_text, &self.new_text, how_many)
                .map_err(|error| ToolFailure::Answer(format!("{}: {error}", self.path)))?,
        };
        ctx.workspace
            .write_file(&self.path, Scope::Workspace, new.clone().into_bytes())
            .await?;
        let shown = super::shown_path(&self.path);
        let text = match (&old, count) {
            (None, _) => format!("created {shown}"),
            (Some(_), 1) => format!("changed {shown}"),
            (Some(_), count) => format!("changed {shown} in {count} places"),
        };
        Ok(ToolOutput {
            items: vec![file_change::item(&self.path, old.as_deref(), Some(&new))],
            ..ToolOutput::text(text)
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Occurrences {
    One,
    All,
}

/// The changed text and how many places changed. Models write `\n`; a file with `\r\n` keeps its endings.
fn replace(text: &str, old: &str, new: &str, how_many: Occurrences) -> Result<(String, usize), String> {
    if old.is_empty() {
        let bare = text.trim_start_matches('\u{feff}');
        return if bare.is_empty() {
            Ok((format!("{text}{new}"), 1))
        } else {
            Err("old_text is empty but the file is not; give the text to replace".to_owned())
        };
    }
    if old == new {
        return Err("old_text and new_text are the same; nothing to change".to_owned());
    }
    let ending = text_file::line_ending(text);
    let new = if ending == "\r\n" {
        text_file::with_line_ending(new, ending)
    } else {
        new.to_owned()
    };
    let adapted = text_file::with_line_ending(old, ending);
    let old = if text.contains(old) { old } else { adapted.as_str() };
    let places: Vec<usize> = text.match_indices(old).map(|(at, _)| at).collect();
    match (places.len(), how_many) {
        (0, _) => Err(not_found(text, old)),
        (1, _) | (_, Occurrences::All) => Ok((text.replace(old, &new), places.len())),
        (count, Occurrences::One) => {
            let lines: Vec<String> = places
                .iter()
                .take(20)
                .map(|at| (text[..*at].matches('\n').count() + 1).to_string())
                .collect();
            Err(format!(
                "old_text occurs {count} times, on lines {}{}; add lines around it so that it is unique, or set replace_all",
                lines.join(", "),
                if count > 20 { ", …" } else { "" }
            ))
        }
    }
}

/// Says what looks like the text that was not found.
fn not_found(text: &str, old: &str) -> String {
    let wanted = old
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty())
        .unwrap_or_default();
    let similar: Vec<String> = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !wanted.is_empty() && line.trim() == wanted)
        .take(5)
        .map(|(index, _)| (index + 1).to_string())
        .collect();
    if similar.is_empty() {
        "old_text does not occur in the file; read it again and copy the text exactly".to_owned()
    } else {
        format!(
            "old_text does not occur in the file, but its first line does, on lines {}: whitespace or a later line differs",
            similar.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, old: &str, new: &str, how_many: Occurrences, expected: Result<(&str, usize), &str>) {
        match (replace(text, old, new, how_many), expected) {
            (Ok((text, count)), Ok(expected)) => assert_eq!((text.as_str(), count), expected),
            (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
            (result, expected) => panic!("{result:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn replacements() {
        use Occurrences::{All, One};
        check("a b c", "b", "x", One, Ok(("a x c", 1)));
        check("a b b", "b", "x", All, Ok(("a x x", 2)));
        check("a b\nb", "b", "x", One, Err("occurs 2 times, on lines 1, 2"));
        check("a", "z", "x", One, Err("does not occur"));
        check(
            "  if x:\n    y",
            "if x:\n  y",
            "x",
            One,
            Err("on lines 1: whitespace"),
        );
        check("a", "a", "a", One, Err("the same"));
        check("a", "", "x", One, Err("old_text is empty"));
        check("", "", "x", One, Ok(("x", 1)));
        check("a\nb", "b", "b2", One, Ok(("a\nb2", 1)));
        check("$1", "$1", "$0", One, Ok(("$0", 1)));
    }

    #[test]
    fn endings_and_marks_stay() {
        use Occurrences::One;
        check("a\r\nb\r\nc", "a\nb", "x\ny\nz", One, Ok(("x\r\ny\r\nz\r\nc", 1)));
        check("a\r\nb\r\n", "b", "1\n2", One, Ok(("a\r\n1\r\n2\r\n", 1)));
        check("a\r\nb\r\n", "a\r\nb", "a\r\nc", One, Ok(("a\r\nc\r\n", 1)));
        check("\u{feff}a\nb", "a", "c", One, Ok(("\u{feff}c\nb", 1)));
        check("\u{feff}", "", "c", One, Ok(("\u{feff}c", 1)));
        check("a\nb", "a\r\nb", "c", One, Ok(("c", 1)));
    }
}
