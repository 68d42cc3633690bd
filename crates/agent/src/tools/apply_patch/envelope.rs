//! Parses the `*** Begin Patch` notation that coding models are trained on. Says what is meant, looks at no file.

use super::patch::{Action, FilePatch, Hunk, Line, ParseError, workspace_path};
use super::unified;

pub(super) const BEGIN: &str = "*** Begin Patch";
const END: &str = "*** End Patch";
const END_OF_FILE: &str = "*** End of File";

/// `lines` come without line endings; the first that is not blank is [`BEGIN`].
pub(super) fn parse(lines: &[&str]) -> Result<Vec<FilePatch>, ParseError> {
    let mut reader = Reader { lines, at: 0 };
    reader.skip_blank();
    reader.at += 1;
    let mut files = Vec::new();
    loop {
        reader.skip_blank();
        let Some(line) = reader.peek() else {
            return Err(ParseError::at(reader.number(), format!("`{END}` is missing")));
        };
        if line.trim_end() == END {
            reader.at += 1;
            break;
        }
        files.push(reader.file(line)?);
    }
    reader.skip_blank();
    match reader.peek() {
        None => Ok(files),
        Some(_) => Err(ParseError::at(
            reader.number(),
            format!("nothing may follow `{END}`"),
        )),
    }
}

struct Reader<'a> {
    lines: &'a [&'a str],
    at: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.lines.get(self.at).copied()
    }

    /// Number of the next line, from 1.
    fn number(&self) -> usize {
        self.at + 1
    }

    fn skip_blank(&mut self) {
        while self.peek().is_some_and(|line| line.trim().is_empty()) {
            self.at += 1;
        }
    }

    fn file(&mut self, line: &str) -> Result<FilePatch, ParseError> {
        let number = self.number();
        let named = |prefix: &str| line.strip_prefix(prefix).map(|path| workspace_path(path.trim()));
        if let Some(path) = named("*** Add File:") {
            self.at += 1;
            return Ok(FilePatch {
                path: path?,
                action: self.added()?,
            });
        }
        if let Some(path) = named("*** Delete File:") {
            self.at += 1;
            return Ok(FilePatch {
                path: path?,
                action: Action::Delete { hunks: Vec::new() },
            });
        }
        if let Some(path) = named("*** Update File:") {
            self.at += 1;
            let path = path?;
            let action = self.updated(number)?;
            return Ok(FilePatch { path, action });
        }
        Err(ParseError::at(
            number,
            format!(
                "expected `*** Add File:`, `*** Update File:`, `*** Delete File:` or `{END}`, not `{line}`"
            ),
        ))
    }

    fn added(&mut self) -> Result<Action, ParseError> {
        let mut content = String::new();
        while let Some(line) = self.peek() {
            if line.starts_with("***") {
                break;
            }
            if let Some(text) = line.strip_prefix('+') {
                content.push_str(text);
                content.push('\n');
            } else if line.trim().is_empty() && self.is_blank_to_marker() {
                self.skip_blank();
                break;
            } else {
                return Err(ParseError::at(
                    self.number(),
                    "every line of an added file must start with `+`",
                ));
            }
            self.at += 1;
        }
        Ok(Action::Add {
            content,
            is_executable: false,
        })
    }

    fn is_blank_to_marker(&self) -> bool {
        self.lines[self.at..]
            .iter()
            .find(|line| !line.trim().is_empty())
            .is_none_or(|line| line.starts_with("***"))
    }

    fn updated(&mut self, number: usize) -> Result<Action, ParseError> {
        let move_to = match self.peek().and_then(|line| line.strip_prefix("*** Move to:")) {
            Some(path) => {
                self.at += 1;
                Some(workspace_path(path.trim())?)
            }
            None => None,
        };
        let mut hunks = Vec::new();
        loop {
            self.skip_blank_before_marker();
            match self.peek() {
                None => break,
                Some(line) if line.starts_with("*** ") && line.trim_end() != END_OF_FILE => break,
                Some(_) => hunks.push(self.hunk()?),
            }
        }
        if hunks.is_empty() && move_to.is_none() {
            return Err(ParseError::at(number, "an updated file needs at least one hunk"));
        }
        Ok(Action::Update { move_to, hunks })
    }

    fn skip_blank_before_marker(&mut self) {
        if self.is_blank_to_marker() {
            self.skip_blank();
        }
    }

    fn hunk(&mut self) -> Result<Hunk, ParseError> {
        let mut hunk = Hunk {
            patch_line: self.number(),
            ..Hunk::default()
        };
        while let Some(header) = self.peek().and_then(|line| line.strip_prefix("@@")) {
            let whole = self.peek().unwrap_or_default();
            if let Some(range) = unified::range(whole) {
                hunk.old_start = Some(range.old_start);
            } else {
                let header = header.trim();
                let header = header.strip_suffix("@@").unwrap_or(header).trim();
                if !header.is_empty() {
                    hunk.headers.push(header.to_owned());
                }
            }
            self.at += 1;
        }
        let mut bare_blanks = 0;
        while let Some(line) = self.peek() {
            if line.trim_end() == END_OF_FILE {
                hunk.is_at_end = true;
                self.at += 1;
                break;
            }
            if line.starts_with("@@") || line.starts_with("*** ") {
                break;
            }
            if line == "\\ No newline at end of file" {
                unified::no_newline(&mut hunk);
                self.at += 1;
                continue;
            }
            let Some(parsed) = Line::parse(line) else {
                return Err(ParseError::at(
                    self.number(),
                    format!("a line of a hunk must start with a space, `-` or `+`, not `{line}`"),
                ));
            };
            bare_blanks = if line.is_empty() { bare_blanks + 1 } else { 0 };
            hunk.lines.push(parsed);
            self.at += 1;
        }
        // Blank lines between hunks are layout of the patch; as context they would have had their space.
        hunk.lines.truncate(hunk.lines.len() - bare_blanks);
        if hunk.lines.is_empty() {
            return Err(ParseError::at(hunk.patch_line, "the hunk is empty"));
        }
        Ok(hunk)
    }
}
