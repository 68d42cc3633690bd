//! Finds files by glob and lines by regular expression, passing over what .gitignore names. No shell, no other program.

use crate::call::{BoundedList, without_nul};
use crate::failure::{CallResult, failed};
use crate::path::Root;
use crate::stream::Stream;
use crate::tree::{self, LeftOut};
use globset::{GlobBuilder, GlobMatcher};
use greenroom_protocol::guest::WORKSPACE_PATH;
use greenroom_protocol::guest::call::{CallErrorCode, Grep, GrepLine, Reply, Scope};
use grep_regex::{RegexMatcher, RegexMatcherBuilder};
use grep_searcher::{BinaryDetection, Searcher, SearcherBuilder, Sink, SinkContext, SinkMatch};
use rustix::fs::OFlags;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Characters of a line that are shown.
const SHOWN_LINE_CHARS: usize = 500;

/// Lines of context that may be asked for.
const MAX_CONTEXT_LINES: u32 = 50;

/// A line longer than this is not searched for context but cut by memory: the searcher's buffer never grows beyond.
const HEAP_BYTES: usize = 16 << 20;

/// Files whose path matches.
pub fn glob(stream: &Stream, path: &str, scope: Scope, pattern: &str, max_entries: u32) -> CallResult {
    let matcher = glob_matcher(pattern)?;
    let root = Root::open(path, scope, OFlags::empty())?;
    let mut list = BoundedList::new(max_entries);
    for file in files(stream, &root.path) {
        if is_match(&matcher, &root.path, &file)
            && root.reopen(&file, OFlags::PATH).is_some()
            && !list.push(shown(&file))
        {
            break;
        }
    }
    still_wanted(stream)?;
    Ok(Reply::Paths {
        paths: list.items,
        is_truncated: list.is_truncated,
    })
}

/// Lines that match.
pub fn grep(stream: &Stream, grep: &Grep) -> CallResult {
    let regex = RegexMatcherBuilder::new()
        .case_insensitive(grep.is_case_insensitive)
        .line_terminator(Some(b'\n'))
        .build(&grep.pattern)
        .map_err(|error| failed(CallErrorCode::Invalid, format!("regular expression: {error}")))?;
    let matcher = grep.glob.as_deref().map(glob_matcher).transpose()?;
    let root = Root::open(&grep.path, grep.scope, OFlags::empty())?;
    let context = grep.context_lines.min(MAX_CONTEXT_LINES) as usize;
    let mut searcher = SearcherBuilder::new()
        .line_number(true)
        .before_context(context)
        .after_context(context)
        .binary_detection(BinaryDetection::quit(0))
        .heap_limit(Some(HEAP_BYTES))
        .build();
    let mut found = Found {
        list: BoundedList::new(u32::MAX),
        matches_left: grep.max_matches,
        path: String::new(),
    };
    for file in files(stream, &root.path) {
        if matcher
            .as_ref()
            .is_some_and(|matcher| !is_match(matcher, &root.path, &file))
        {
            continue;
        }
        found.path = shown(&file);
        if let Some(file) = root.reopen(&file, OFlags::RDONLY | OFlags::NONBLOCK) {
            search_file(&mut searcher, &regex, &file.into(), &mut found);
        }
        if found.list.is_truncated {
            break;
        }
    }
    still_wanted(stream)?;
    Ok(Reply::Matches {
        lines: found.list.items,
        is_truncated: found.list.is_truncated,
    })
}

fn search_file(searcher: &mut Searcher, regex: &RegexMatcher, file: &File, found: &mut Found) {
    // A file that vanished, may not be read or has an endless line is passed over, as every search tool does.
    let _ = searcher.search_file(regex, file, found);
}

/// Files below (or at) `root`, sorted by path, for as long as the call is wanted.
fn files(stream: &Stream, root: &Path) -> impl Iterator<Item = PathBuf> {
    tree::walk(root, LeftOut::Ignored, |_| !stream.is_cancelled())
        .filter(|entry| entry.file_type().is_file())
        .map(walkdir::DirEntry::into_path)
}

fn still_wanted(stream: &Stream) -> CallResult<()> {
    match stream.is_cancelled() {
        true => Err(failed(CallErrorCode::Os, "the search was cancelled")),
        false => Ok(()),
    }
}

fn glob_matcher(pattern: &str) -> CallResult<GlobMatcher> {
    without_nul(pattern)?;
    GlobBuilder::new(pattern)
        .literal_separator(true)
        .build()
        .map(|glob| glob.compile_matcher())
        .map_err(|error| failed(CallErrorCode::Invalid, format!("glob: {error}")))
}

/// A pattern without a slash looks at names only, as in .gitignore.
fn is_match(matcher: &GlobMatcher, root: &Path, file: &Path) -> bool {
    let relative = file.strip_prefix(root).unwrap_or(file);
    if matcher.glob().glob().contains('/') {
        matcher.is_match(relative)
    } else {
        relative
            .file_name()
            .or(file.file_name())
            .is_some_and(|name| matcher.is_match(name))
    }
}

/// Relative to the workspace when inside it.
fn shown(file: &Path) -> String {
    file.strip_prefix(WORKSPACE_PATH)
        .unwrap_or(file)
        .to_string_lossy()
        .into_owned()
}

struct Found {
    list: BoundedList<GrepLine>,
    matches_left: u32,
    path: String,
}

impl Found {
    fn add(&mut self, line: Option<u64>, bytes: &[u8], is_match: bool) -> bool {
        let text = String::from_utf8_lossy(bytes);
        let text = text
            .trim_end_matches(['\n', '\r'])
            .chars()
            .take(SHOWN_LINE_CHARS)
            .collect();
        self.list.push(GrepLine {
            path: self.path.clone(),
            line: line.unwrap_or(0),
            text,
            is_match,
        })
    }
}

impl Sink for &mut Found {
    type Error = io::Error;

    fn matched(&mut self, _: &Searcher, found: &SinkMatch<'_>) -> io::Result<bool> {
        if self.matches_left == 0 {
            self.list.is_truncated = true;
            return Ok(false);
        }
        self.matches_left -= 1;
        Ok(self.add(found.line_number(), found.bytes(), true))
    }

    fn context(&mut self, _: &Searcher, context: &SinkContext<'_>) -> io::Result<bool> {
        Ok(self.add(context.line_number(), context.bytes(), false))
    }
}
