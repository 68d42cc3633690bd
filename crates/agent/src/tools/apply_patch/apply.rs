//! Puts hunks into a text: finds the one place each belongs to, or says why there is none or more than one. No I/O.

use super::patch::{Hunk, LineKind};
use crate::tools::text_file;
use thiserror::Error;

/// Lines of the file or the hunk that an error shows.
const MAX_SHOWN_LINES: usize = 40;
/// Line comparisons spent on finding what looks like a hunk that was not found.
const MAX_COMPARISONS: usize = 4_000_000;

/// Why hunks do not fit a text. `hunk` counts from 1.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum ApplyError {
    #[error("hunk {hunk} (patch line {patch_line}) does not match the file. It wants:\n{wanted}{nearest}")]
    NotFound {
        hunk: usize,
        patch_line: usize,
        wanted: String,
        nearest: String,
    },
    #[error(
        "hunk {hunk} (patch line {patch_line}) fits in several places, from lines {lines}; add context lines or an `@@` line that stands above the right one. It wants:\n{wanted}"
    )]
    Ambiguous {
        hunk: usize,
        patch_line: usize,
        lines: String,
        wanted: String,
    },
    #[error(
        "hunk {hunk} (patch line {patch_line}) fits only in front of or inside the hunk before it; hunks must come in the order of the file"
    )]
    Order { hunk: usize, patch_line: usize },
    #[error("hunk {hunk} (patch line {patch_line}): no line `{header}` is in the file as its `@@` line says")]
    NoHeader {
        hunk: usize,
        patch_line: usize,
        header: String,
    },
    #[error(
        "hunk {hunk} (patch line {patch_line}) has no context; add lines around the new ones, or `*** End of File` to append them"
    )]
    NoContext { hunk: usize, patch_line: usize },
    #[error("the patch changes nothing in it (line endings stay as they are)")]
    NoChange,
}

/// The text with all hunks in it. Lines the hunks do not remove keep every byte; new lines get the file's line ending, and
/// whether the file ends in a newline stays unless a hunk says otherwise.
pub(super) fn apply(text: &str, hunks: &[Hunk]) -> Result<String, ApplyError> {
    let (mark, body) = match text.strip_prefix('\u{feff}') {
        Some(body) => (&text[..text.len() - body.len()], body),
        None => ("", text),
    };
    let lines: Vec<&str> = body.split_inclusive('\n').collect();
    let places = place(&lines, hunks)?;
    let ending = text_file::line_ending(body);
    let mut new: Vec<(&str, &str)> = Vec::new();
    let mut at = 0;
    for (hunk, start) in hunks.iter().zip(places) {
        // Context may overlap with the hunk before; what that one changed is behind `at` already.
        let mut old = start;
        for line in &hunk.lines {
            match line.kind {
                LineKind::Keep => old += 1,
                LineKind::Remove => {
                    new.extend(lines[at..old].iter().map(|line| split(line)));
                    old += 1;
                    at = old;
                }
                LineKind::Insert => {
                    if at < old {
                        new.extend(lines[at..old].iter().map(|line| split(line)));
                        at = old;
                    }
                    new.push((&line.text, ending));
                }
            }
        }
    }
    new.extend(lines[at..].iter().map(|line| split(line)));
    let had_newline = lines.last().is_none_or(|line| line.ends_with('\n'));
    let ends_in_newline = hunks
        .iter()
        .rev()
        .find_map(|hunk| hunk.ends_in_newline)
        .unwrap_or(had_newline);
    let count = new.len();
    let mut result = mark.to_owned();
    for (index, (line, own_ending)) in new.into_iter().enumerate() {
        result.push_str(line);
        if index + 1 == count && !ends_in_newline {
            break;
        }
        result.push_str(if own_ending.is_empty() { ending } else { own_ending });
    }
    if result == text {
        return Err(ApplyError::NoChange);
    }
    Ok(result)
}

/// A line and its ending.
fn split(line: &str) -> (&str, &str) {
    let bare = bare(line);
    (bare, &line[bare.len()..])
}

fn bare(line: &str) -> &str {
    let line = line.strip_suffix('\n').unwrap_or(line);
    line.strip_suffix('\r').unwrap_or(line)
}

/// Index of the first old line of each hunk. There must be exactly one way to place all of them in order.
fn place(lines: &[&str], hunks: &[Hunk]) -> Result<Vec<usize>, ApplyError> {
    let mut candidates = Vec::new();
    for (index, hunk) in hunks.iter().enumerate() {
        candidates.push(candidates_of(lines, index + 1, hunk)?);
    }
    let mut first: Vec<usize> = Vec::new();
    for (index, hunk) in hunks.iter().enumerate() {
        let fits = |at: usize| index == 0 || is_behind(&hunks[index - 1], first[index - 1], hunk, at);
        let Some(at) = candidates[index].iter().copied().find(|at| fits(*at)) else {
            return Err(ApplyError::Order {
                hunk: index + 1,
                patch_line: hunk.patch_line,
            });
        };
        first.push(at);
    }
    // The last way to place them: if it is the first way too, there is no other.
    let mut after: Option<usize> = None;
    for (index, hunk) in hunks.iter().enumerate().rev() {
        let fits = |at: usize| after.is_none_or(|next_at| is_behind(hunk, at, &hunks[index + 1], next_at));
        let last = candidates[index].iter().rev().copied().find(|at| fits(*at));
        if last != Some(first[index]) {
            let mut shown: Vec<String> = candidates[index]
                .iter()
                .take(10)
                .map(|at| (at + 1).to_string())
                .collect();
            if candidates[index].len() > 10 {
                shown.push("…".to_owned());
            }
            return Err(ApplyError::Ambiguous {
                hunk: index + 1,
                patch_line: hunk.patch_line,
                lines: shown.join(", "),
                wanted: wanted(hunk),
            });
        }
        after = last;
    }
    Ok(first)
}

/// Whether a hunk at `at` changes only what lies behind the changes of the hunk before. Shared context is fine.
fn is_behind(before: &Hunk, before_at: usize, hunk: &Hunk, at: usize) -> bool {
    at > before_at && at + hunk.lead() >= before_at + before.old_len() - before.trail()
}

/// Every index the hunk may start at, ascending; at least one.
fn candidates_of(lines: &[&str], number: usize, hunk: &Hunk) -> Result<Vec<usize>, ApplyError> {
    let patch_line = hunk.patch_line;
    let old: Vec<&str> = hunk.old_lines().collect();
    if old.is_empty() {
        return if hunk.is_at_end || lines.is_empty() {
            Ok(vec![lines.len()])
        } else {
            Err(ApplyError::NoContext {
                hunk: number,
                patch_line,
            })
        };
    }
    let search = |is_equal: fn(&str, &str) -> bool| -> Vec<usize> {
        let last = lines.len().checked_sub(old.len());
        let first = if hunk.is_at_end { last } else { Some(0) };
        let (Some(first), Some(last)) = (first, last) else {
            return Vec::new();
        };
        (first..=last)
            .filter(|at| {
                old.iter()
                    .zip(&lines[*at..])
                    .all(|(old, line)| is_equal(bare(line), old))
            })
            .collect()
    };
    let mut found = search(|line, old| line == old);
    if found.is_empty() {
        found = search(|line, old| line.trim_end() == old.trim_end());
    }
    if found.is_empty() {
        return Err(ApplyError::NotFound {
            hunk: number,
            patch_line,
            wanted: wanted(hunk),
            nearest: nearest(lines, &old, hunk),
        });
    }
    if let Some(at) = hunk.old_start.and_then(|start| start.checked_sub(1))
        && found.contains(&at)
    {
        return Ok(vec![at]);
    }
    below_headers(lines, hunk, &found).map_err(|header| ApplyError::NoHeader {
        hunk: number,
        patch_line,
        header,
    })
}

/// Of `found`, what comes first below each place where all `@@` lines stand in order; all without such lines.
fn below_headers(lines: &[&str], hunk: &Hunk, found: &[usize]) -> Result<Vec<usize>, String> {
    let mut above: Option<Vec<usize>> = None;
    for header in &hunk.headers {
        let standing: Vec<usize> = (0..lines.len())
            .filter(|at| lines[*at].trim() == header.trim())
            .collect();
        let next = match above {
            None => standing,
            Some(above) => first_from(&standing, above.iter().map(|at| at + 1)),
        };
        if next.is_empty() {
            return Err(header.clone());
        }
        above = Some(next);
    }
    let Some(above) = above else {
        return Ok(found.to_vec());
    };
    let below = first_from(found, above.into_iter());
    if below.is_empty() {
        return Err(hunk.headers.last().cloned().unwrap_or_default());
    }
    Ok(below)
}

/// For each start (ascending) the first of `sorted` at or behind it, each once.
fn first_from(sorted: &[usize], starts: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut found: Vec<usize> = starts
        .filter_map(|start| sorted.get(sorted.partition_point(|at| *at < start)).copied())
        .collect();
    found.dedup();
    found
}

fn wanted(hunk: &Hunk) -> String {
    let mut shown = String::new();
    for line in hunk.lines.iter().take(MAX_SHOWN_LINES) {
        let sign = match line.kind {
            LineKind::Keep => ' ',
            LineKind::Remove => '-',
            LineKind::Insert => '+',
        };
        shown.push_str(&format!("{sign}{}\n", line.text));
    }
    if hunk.lines.len() > MAX_SHOWN_LINES {
        shown.push_str(&format!("[{} lines more]\n", hunk.lines.len() - MAX_SHOWN_LINES));
    }
    shown
}

/// The lines of the file that look most like those that were not found.
fn nearest(lines: &[&str], old: &[&str], hunk: &Hunk) -> String {
    if lines.is_empty() {
        return "The file is empty.".to_owned();
    }
    let is_like = |line: &str, old: &str| line.trim() == old.trim();
    let score = |at: usize| {
        let pairs = old.iter().zip(&lines[at..]);
        pairs
            .filter(|(old, line)| !old.trim().is_empty() && is_like(line, old))
            .count()
    };
    let best = if lines.len().saturating_mul(old.len()) <= MAX_COMPARISONS {
        // The first of the best: `max_by_key` alone would give the last.
        (0..lines.len()).rev().max_by_key(|at| score(*at)).unwrap_or(0)
    } else {
        (0..lines.len())
            .find(|at| old.first().is_some_and(|old| is_like(lines[*at], old)))
            .unwrap_or(0)
    };
    if score(best) == 0 {
        let at_end = if hunk.is_at_end { " at its end" } else { "" };
        return format!("No line of it is in the file{at_end}; read the file again.");
    }
    let shown = old.len().clamp(1, MAX_SHOWN_LINES);
    let mut text = format!("The nearest lines of the file, from line {}:\n", best + 1);
    for (offset, line) in lines[best..].iter().take(shown).enumerate() {
        let differs = old
            .get(offset)
            .is_some_and(|old| bare(line).trim_end() != old.trim_end());
        let note = if differs { "  [differs]" } else { "" };
        text.push_str(&format!("{:>6}\t{}{note}\n", best + 1 + offset, bare(line)));
    }
    if best + old.len() > lines.len() {
        text.push_str("[end of the file]\n");
    } else if hunk.is_at_end && best + old.len() < lines.len() {
        text.push_str("[the file goes on, but the hunk wants its end]\n");
    }
    text
}
