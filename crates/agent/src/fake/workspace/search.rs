//! Searches in the workspace in memory.

use super::calls::bounded;
use super::state::{State, failed, locate};
use greenroom_protocol::guest::call::{CallError, CallErrorCode, Grep, GrepLine, Reply};

impl State {
    pub(super) fn glob(&self, path: &str, pattern: &str, max_entries: u32) -> Result<Reply, CallError> {
        let matcher = matcher_of(pattern)?;
        let found: Vec<String> = self
            .below(path)?
            .into_iter()
            .filter(|(_, relative)| is_match(&matcher, relative))
            .map(|(path, _)| path)
            .collect();
        let (paths, is_truncated) = bounded(found, max_entries);
        Ok(Reply::Paths { paths, is_truncated })
    }

    /// Files at or below a path, each also relative to it, sorted.
    fn below(&self, path: &str) -> Result<Vec<(String, String)>, CallError> {
        let at = locate(path)?;
        if let Some(name) = self
            .files
            .contains_key(&at)
            .then(|| at.rsplit('/').next())
            .flatten()
        {
            return Ok(vec![(at.clone(), name.to_owned())]);
        }
        if !self.is_directory(&at) {
            return Err(failed(CallErrorCode::NotFound, path, "does not exist"));
        }
        let prefix = if at.is_empty() { at } else { format!("{at}/") };
        let relative = |file: &String| {
            file.strip_prefix(&prefix)
                .map(|rest| (file.clone(), rest.to_owned()))
        };
        Ok(self.files.keys().filter_map(relative).collect())
    }

    pub(super) fn grep(&self, search: &Grep) -> Result<Reply, CallError> {
        let regex = regex_lite::RegexBuilder::new(&search.pattern)
            .case_insensitive(search.is_case_insensitive)
            .build()
            .map_err(|error| failed(CallErrorCode::Invalid, "regular expression", &error.to_string()))?;
        let matcher = search.glob.as_deref().map(matcher_of).transpose()?;
        let mut lines = Vec::new();
        for (path, relative) in self.below(&search.path)? {
            if matcher
                .as_ref()
                .is_some_and(|matcher| !is_match(matcher, &relative))
            {
                continue;
            }
            let bytes = self.files.get(&path).map_or(&[][..], |file| &file.bytes);
            let text = String::from_utf8_lossy(bytes);
            if text.contains('\0') {
                continue;
            }
            let all: Vec<&str> = text.lines().collect();
            let hits: Vec<usize> = (0..all.len()).filter(|at| regex.is_match(all[*at])).collect();
            let context = search.context_lines as usize;
            for (at, line) in all.iter().enumerate() {
                if hits.iter().any(|hit| hit.abs_diff(at) <= context) {
                    lines.push(GrepLine {
                        path: path.clone(),
                        line: at as u64 + 1,
                        text: line.chars().take(500).collect(),
                        is_match: hits.contains(&at),
                    });
                }
            }
        }
        let max = search.max_matches as usize;
        let past = lines
            .iter()
            .enumerate()
            .filter(|(_, line)| line.is_match)
            .nth(max);
        let is_truncated = past.is_some();
        if let Some(at) = past.map(|(at, _)| at) {
            lines.truncate(at);
        }
        Ok(Reply::Matches { lines, is_truncated })
    }
}

fn matcher_of(pattern: &str) -> Result<globset::GlobMatcher, CallError> {
    globset::GlobBuilder::new(pattern)
        .literal_separator(true)
        .build()
        .map(|glob| glob.compile_matcher())
        .map_err(|error| failed(CallErrorCode::Invalid, "glob", &error.to_string()))
}

/// A pattern without a slash looks at names only.
fn is_match(matcher: &globset::GlobMatcher, relative: &str) -> bool {
    if matcher.glob().glob().contains('/') {
        matcher.is_match(relative)
    } else {
        matcher.is_match(relative.rsplit('/').next().unwrap_or_default())
    }
}
