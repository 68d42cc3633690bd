//! What a patch says, whichever notation it came in. Data and path rules only: reads no file.

use greenroom_protocol::guest::WORKSPACE_PATH;
use std::collections::HashSet;
use thiserror::Error;

/// What happens to one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FilePatch {
    /// Relative to the workspace, without `.` and `..`.
    pub path: String,
    pub action: Action,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Makes a file that must not exist.
    Add { content: String, is_executable: bool },
    /// Removes a file; what the hunks say of it must be true and leave nothing. No hunks: whatever is in it.
    Delete { hunks: Vec<Hunk> },
    /// Changes a file, and gives it another name if `move_to` is there. Either has an effect.
    Update {
        move_to: Option<String>,
        hunks: Vec<Hunk>,
    },
}

/// Neighbouring lines: some stay, some go, some come.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Hunk {
    /// Line of the patch where it begins, from 1.
    pub patch_line: usize,
    /// Lines that stand somewhere above it, outermost first.
    pub headers: Vec<String>,
    /// Line of the file where it should begin, from 1.
    pub old_start: Option<usize>,
    pub lines: Vec<Line>,
    /// Whether its last old line is the last of the file.
    pub is_at_end: bool,
    /// Whether the file ends in a newline afterwards; `None`: as before.
    pub ends_in_newline: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub kind: LineKind,
    /// Without line ending.
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LineKind {
    Keep,
    Remove,
    Insert,
}

impl Line {
    /// A hunk's line by its first character. Editors strip the one space of an empty context line, so an empty line is one.
    pub fn parse(line: &str) -> Option<Self> {
        let (kind, text) = match line.chars().next() {
            None => (LineKind::Keep, ""),
            Some(' ') => (LineKind::Keep, &line[1..]),
            Some('-') => (LineKind::Remove, &line[1..]),
            Some('+') => (LineKind::Insert, &line[1..]),
            Some(_) => return None,
        };
        Some(Self {
            kind,
            text: text.to_owned(),
        })
    }
}

impl Hunk {
    /// Lines the file must have.
    pub fn old_lines(&self) -> impl Iterator<Item = &str> {
        self.lines
            .iter()
            .filter(|line| line.kind != LineKind::Insert)
            .map(|line| line.text.as_str())
    }

    pub fn old_len(&self) -> usize {
        self.old_lines().count()
    }

    /// How many lines stay before the first change.
    pub fn lead(&self) -> usize {
        self.lines
            .iter()
            .take_while(|line| line.kind == LineKind::Keep)
            .count()
    }

    /// How many lines stay after the last change.
    pub fn trail(&self) -> usize {
        let kept = self
            .lines
            .iter()
            .rev()
            .take_while(|line| line.kind == LineKind::Keep)
            .count();
        // Of a hunk that changes nothing, all lines are in front of the change.
        if kept == self.lines.len() { 0 } else { kept }
    }
}

/// Why a text is no patch that can be tried.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum ParseError {
    #[error("the patch is empty")]
    Empty,
    #[error(
        "this is no patch: give `*** Begin Patch` … `*** End Patch`, or a unified diff with `---`, `+++` and `@@` lines"
    )]
    NoPatch,
    #[error("patch line {line}: {message}")]
    Line { line: usize, message: String },
    #[error("{path}: {reason}")]
    Path { path: String, reason: &'static str },
    #[error("{path} is named twice in the patch; put all its hunks under one header, or use two calls")]
    Twice { path: String },
}

impl ParseError {
    pub fn at(line: usize, message: impl Into<String>) -> Self {
        Self::Line {
            line,
            message: message.into(),
        }
    }
}

/// A path as the patch names it, relative to the workspace. The sandbox has the last word on links.
pub(super) fn workspace_path(path: &str) -> Result<String, ParseError> {
    let refuse = |reason| ParseError::Path {
        path: path.to_owned(),
        reason,
    };
    let inside = match path.strip_prefix(WORKSPACE_PATH) {
        Some(rest) if rest.starts_with('/') => rest,
        _ if path.starts_with('/') => return Err(refuse("is outside the workspace")),
        _ => path,
    };
    if inside.contains('\0') {
        return Err(refuse("has a NUL in it"));
    }
    let parts: Vec<&str> = inside
        .split('/')
        .filter(|part| !matches!(*part, "" | "."))
        .collect();
    if parts.contains(&"..") {
        return Err(refuse("a path in a patch may not have `..` in it"));
    }
    if parts.is_empty() || inside.ends_with('/') {
        return Err(refuse("names no file"));
    }
    Ok(parts.join("/"))
}

/// No file may be named twice: which of two changes comes first would be a guess.
pub(super) fn refuse_twice(files: &[FilePatch]) -> Result<(), ParseError> {
    let mut seen = HashSet::new();
    for file in files {
        let target = match &file.action {
            Action::Update { move_to, .. } => move_to.as_deref(),
            Action::Add { .. } | Action::Delete { .. } => None,
        };
        for path in [Some(file.path.as_str()), target].into_iter().flatten() {
            if !seen.insert(path) {
                return Err(ParseError::Twice {
                    path: path.to_owned(),
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_in_the_workspace() {
        for (path, expected) in [
            ("a.txt", Ok("a.txt")),
            ("./a//b.txt", Ok("a/b.txt")),
            ("/workspace/a.txt", Ok("a.txt")),
            ("..a/b", Ok("..a/b")),
            ("/etc/passwd", Err("outside the workspace")),
            ("/workspaces/a", Err("outside the workspace")),
            ("../a", Err("`..`")),
            ("a/../../b", Err("`..`")),
            ("/workspace/../etc/passwd", Err("`..`")),
            ("", Err("names no file")),
            (".", Err("names no file")),
            ("/workspace/", Err("names no file")),
            ("a/", Err("names no file")),
            ("a\0b", Err("NUL")),
        ] {
            match (workspace_path(path), expected) {
                (Ok(path), Ok(expected)) => assert_eq!(path, expected),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (result, expected) => panic!("{path:?}: {result:?} instead of {expected:?}"),
            }
        }
    }
}
