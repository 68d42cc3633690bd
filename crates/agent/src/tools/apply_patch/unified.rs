//! Parses unified diffs as `git diff` and `diff -u` write them
//! (<https://www.gnu.org/software/diffutils/manual/html_node/Detailed-Unified.html>). Says what is meant, looks at no file.

use super::patch::{Action, FilePatch, Hunk, Line, LineKind, ParseError, workspace_path};

/// Numbers of a hunk's first line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    /// From 1; 0 of a file that has no lines.
    pub old_start: usize,
    old_len: usize,
    new_len: usize,
}

/// `@@ -1,2 +3,4 @@ anything`.
pub(super) fn range(line: &str) -> Option<Range> {
    let rest = line.strip_prefix("@@ -")?;
    let (ranges, _) = rest.split_once(" @@")?;
    let (old, new) = ranges.split_once(" +")?;
    let numbers = |text: &str| -> Option<(usize, usize)> {
        match text.split_once(',') {
            Some((start, len)) => Some((start.parse().ok()?, len.parse().ok()?)),
            None => Some((text.parse().ok()?, 1)),
        }
    };
    let (old_start, old_len) = numbers(old)?;
    let (_, new_len) = numbers(new)?;
    Some(Range {
        old_start,
        old_len,
        new_len,
    })
}

/// The line before was the last of its side and had no newline.
pub(super) fn no_newline(hunk: &mut Hunk) {
    match hunk.lines.last().map(|line| line.kind) {
        // Only what is removed lacks it; an `Insert` behind says whether the new side does.
        Some(LineKind::Remove) => hunk.ends_in_newline = Some(true),
        Some(LineKind::Keep | LineKind::Insert) => hunk.ends_in_newline = Some(false),
        None => return,
    }
    hunk.is_at_end = true;
}

/// Whether a unified diff begins with this line.
pub(super) fn is_start(line: &str) -> bool {
    line.starts_with("diff --git ") || line.starts_with("--- ")
}

/// What stands above the hunks of one file.
#[derive(Debug, Default)]
struct Header {
    line: usize,
    old: Option<String>,
    new: Option<String>,
    rename_from: Option<String>,
    rename_to: Option<String>,
    /// Both names of `diff --git`, which stands alone for empty files.
    git: Option<String>,
    is_new: bool,
    is_deleted: bool,
    is_executable: bool,
}

/// `lines` come without line endings. Text before the first file, such as a commit message, is passed over.
pub(super) fn parse(lines: &[&str]) -> Result<Vec<FilePatch>, ParseError> {
    let mut files = Vec::new();
    let mut at = lines.iter().position(|line| is_start(line)).unwrap_or(0);
    while at < lines.len() {
        if lines[at].trim().is_empty() {
            at += 1;
            continue;
        }
        let header;
        (header, at) = parse_header(lines, at)?;
        let mut hunks = Vec::new();
        while at < lines.len() && lines[at].starts_with("@@") {
            let hunk;
            (hunk, at) = parse_hunk(lines, at)?;
            hunks.push(hunk);
        }
        files.push(file(header, hunks)?);
        // `git format-patch` ends a mail with its version.
        if lines.get(at).is_some_and(|line| line.trim_end() == "--") {
            break;
        }
    }
    Ok(files)
}

fn parse_header(lines: &[&str], start: usize) -> Result<(Header, usize), ParseError> {
    let mut header = Header {
        line: start + 1,
        ..Header::default()
    };
    let mut at = start;
    while let Some(line) = lines.get(at) {
        let refuse = |message: &str| Err(ParseError::at(at + 1, message));
        if let Some(names) = line.strip_prefix("diff --git ") {
            if at > start {
                break;
            }
            header.git = Some(names.to_owned());
        } else if let Some(name) = line.strip_prefix("--- ") {
            if header.old.is_some() {
                break;
            }
            let Some(new) = lines.get(at + 1).and_then(|next| next.strip_prefix("+++ ")) else {
                return refuse("a `---` line must be followed by a `+++` line");
            };
            header.old = Some(file_name(name));
            header.new = Some(file_name(new));
            return Ok((header, at + 2));
        } else if let Some(mode) = line.strip_prefix("new file mode ") {
            header.is_new = true;
            header.is_executable = mode.trim() == "100755";
            if mode.trim() == "120000" {
                return refuse("symbolic links cannot be made with a patch; use bash with ln -s");
            }
        } else if line.starts_with("deleted file mode ") {
            header.is_deleted = true;
        } else if let Some(name) = line.strip_prefix("rename from ") {
            header.rename_from = Some(unquoted(name));
        } else if let Some(name) = line.strip_prefix("rename to ") {
            header.rename_to = Some(unquoted(name));
        } else if line.starts_with("old mode ") || line.starts_with("new mode ") {
            return refuse("modes cannot be changed with a patch; use bash with chmod");
        } else if line.starts_with("copy from ") || line.starts_with("copy to ") {
            return refuse("files cannot be copied with a patch; use bash with cp");
        } else if line.starts_with("Binary files ") || line.starts_with("GIT binary patch") {
            return refuse("binary files cannot be patched");
        } else if line.trim_end() == "--" && at > start {
            break;
        } else if !(line.starts_with("index ")
            || line.starts_with("similarity index ")
            || line.starts_with("dissimilarity index ")
            || line.trim().is_empty())
        {
            return refuse(&format!(
                "expected `---`, `+++` and `@@` lines of a diff, not `{line}`"
            ));
        }
        at += 1;
    }
    Ok((header, at))
}

/// A name as `---` and `+++` give it: perhaps quoted, perhaps with a time behind a tab.
fn file_name(text: &str) -> String {
    if text.starts_with('"') {
        return unquoted(text);
    }
    text.split('\t').next().unwrap_or_default().trim_end().to_owned()
}

/// Undoes git's quoting of unusual names (`core.quotePath`): C escapes, bytes in octal.
fn unquoted(text: &str) -> String {
    let Some(inner) = text
        .trim_end()
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
    else {
        return text.trim_end().to_owned();
    };
    let mut bytes = Vec::new();
    let mut rest = inner.bytes().peekable();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match rest.next() {
            Some(digit @ b'0'..=b'7') => {
                let mut value = u32::from(digit - b'0');
                for _ in 0..2 {
                    if let Some(next) = rest.next_if(|byte| matches!(byte, b'0'..=b'7')) {
                        value = value * 8 + u32::from(next - b'0');
                    }
                }
                bytes.push(value as u8);
            }
            Some(b'n') => bytes.push(b'\n'),
            Some(b't') => bytes.push(b'\t'),
            Some(b'r') => bytes.push(b'\r'),
            Some(other) => bytes.push(other),
            None => bytes.push(b'\\'),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn parse_hunk(lines: &[&str], start: usize) -> Result<(Hunk, usize), ParseError> {
    let Some(range) = range(lines[start]) else {
        return Err(ParseError::at(
            start + 1,
            format!("`{}` is no hunk header; write `@@ -1,2 +1,2 @@`", lines[start]),
        ));
    };
    let mut hunk = Hunk {
        patch_line: start + 1,
        old_start: Some(range.old_start),
        ..Hunk::default()
    };
    // Models miscount, so the numbers only decide where lines could be taken for something else.
    let (mut old_left, mut new_left) = (range.old_len, range.new_len);
    let mut bare_blanks = 0;
    let mut at = start + 1;
    while let Some(line) = lines.get(at) {
        let is_full = old_left == 0 && new_left == 0;
        if line.starts_with("\\ ") {
            no_newline(&mut hunk);
            at += 1;
            continue;
        }
        if is_file_header(lines, at, is_full) || (is_full && line.trim_end() == "--") {
            break;
        }
        let Some(parsed) = Line::parse(line) else { break };
        bare_blanks = if line.is_empty() && is_full {
            bare_blanks + 1
        } else {
            0
        };
        if parsed.kind != LineKind::Insert {
            old_left = old_left.saturating_sub(1);
        }
        if parsed.kind != LineKind::Remove {
            new_left = new_left.saturating_sub(1);
        }
        hunk.lines.push(parsed);
        at += 1;
    }
    hunk.lines.truncate(hunk.lines.len() - bare_blanks);
    // Blank lines at the very end are layout even if the numbers ask for more.
    if lines[at..].iter().all(|line| line.is_empty()) && (old_left > 0 || new_left > 0) {
        while at > start + 1 && lines[at - 1].is_empty() && !hunk.lines.is_empty() {
            hunk.lines.pop();
            at -= 1;
        }
        at = lines.len();
    }
    if hunk.lines.is_empty() {
        return Err(ParseError::at(start + 1, "the hunk is empty"));
    }
    Ok((hunk, at))
}

/// Whether the next file begins here, rather than a removed line that starts with `--`.
fn is_file_header(lines: &[&str], at: usize, is_full: bool) -> bool {
    if lines[at].starts_with("diff --git ") {
        return true;
    }
    let old = lines[at].strip_prefix("--- ");
    let new = lines.get(at + 1).and_then(|line| line.strip_prefix("+++ "));
    let is_named = |name: &str, prefix: &str| name.starts_with(prefix) || name.starts_with("/dev/null");
    match (old, new) {
        (Some(old), Some(new)) => is_full || (is_named(old, "a/") && is_named(new, "b/")),
        _ => false,
    }
}

fn file(header: Header, hunks: Vec<Hunk>) -> Result<FilePatch, ParseError> {
    let line = header.line;
    if let (Some(from), Some(to)) = (&header.rename_from, &header.rename_to) {
        return Ok(FilePatch {
            path: workspace_path(from)?,
            action: Action::Update {
                move_to: Some(workspace_path(to)?),
                hunks,
            },
        });
    }
    let (old, new) = match (header.old, header.new, &header.git) {
        (Some(old), Some(new), _) => unprefixed(old, new),
        (_, _, Some(names)) if header.is_new || header.is_deleted => {
            // The same name twice, with different first letters.
            let name = names
                .split_once(" b/")
                .and_then(|(old, _)| old.strip_prefix("a/"))
                .map(str::to_owned)
                .ok_or_else(|| {
                    ParseError::at(line, "cannot tell the file's name; add `---` and `+++` lines")
                })?;
            let none = "/dev/null".to_owned();
            if header.is_new { (none, name) } else { (name, none) }
        }
        _ => {
            return Err(ParseError::at(
                line,
                "this file has no `---`, `+++` and `@@` lines",
            ));
        }
    };
    match (old.as_str(), new.as_str()) {
        ("/dev/null", "/dev/null") => Err(ParseError::at(line, "both sides are /dev/null")),
        ("/dev/null", path) => Ok(FilePatch {
            path: workspace_path(path)?,
            action: Action::Add {
                content: added(&hunks)?,
                is_executable: header.is_executable,
            },
        }),
        (path, "/dev/null") => Ok(FilePatch {
            path: workspace_path(path)?,
            action: Action::Delete { hunks },
        }),
        (old, new) if old != new => Err(ParseError::at(
            line,
            format!("`{old}` and `{new}` differ; to move a file add `rename from` and `rename to` lines"),
        )),
        _ if hunks.is_empty() => Err(ParseError::at(line, "the file has no `@@` hunk")),
        (path, _) => Ok(FilePatch {
            path: workspace_path(path)?,
            action: Action::Update { move_to: None, hunks },
        }),
    }
}

/// Both names without git's `a/` and `b/`, if both have them.
fn unprefixed(old: String, new: String) -> (String, String) {
    let strip = |name: &str, prefix: &str| match name {
        "/dev/null" => Some(name.to_owned()),
        name => name.strip_prefix(prefix).map(str::to_owned),
    };
    match (strip(&old, "a/"), strip(&new, "b/")) {
        (Some(old), Some(new)) => (old, new),
        _ => (old, new),
    }
}

fn added(hunks: &[Hunk]) -> Result<String, ParseError> {
    let mut content = String::new();
    for hunk in hunks {
        for line in &hunk.lines {
            if line.kind != LineKind::Insert {
                return Err(ParseError::at(
                    hunk.patch_line,
                    "every line of an added file must start with `+`",
                ));
            }
            content.push_str(&line.text);
            content.push('\n');
        }
    }
    if hunks.last().and_then(|hunk| hunk.ends_in_newline) == Some(false) {
        content.pop();
    }
    Ok(content)
}
