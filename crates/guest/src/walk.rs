//! Lists a whole tree, page by page, in an order that stays the same while names do.

use crate::call::{BoundedList, without_nul};
use crate::failure::{CallResult, failed};
use crate::file::{entry, is_symlink};
use crate::path::Root;
use crate::stream::Stream;
use crate::tree::{self, LeftOut};
use greenroom_protocol::guest::call::{CallErrorCode, Reply, Walk};
use rustix::fs::OFlags;
use std::cmp::Ordering;
use std::path::{Component, Path, PathBuf};

/// Everything below a directory.
pub fn walk(stream: &Stream, walk: &Walk) -> CallResult {
    let place = Root::open(&walk.path, walk.scope, OFlags::DIRECTORY)?;
    let root = &place.path;
    let after = match &walk.after {
        None => None,
        Some(after) => Some(PathBuf::from(without_nul(after)?)),
    };
    let mut list = BoundedList::new(walk.max_entries);
    let left_out = match walk.respects_ignore_files {
        true => LeftOut::Ignored,
        false => LeftOut::Nothing,
    };
    let is_wanted = |entry: &walkdir::DirEntry| {
        let relative = entry.path().strip_prefix(root).unwrap_or(entry.path());
        !stream.is_cancelled() && leads_behind(relative, after.as_deref())
    };
    for found in tree::walk(root, left_out, is_wanted) {
        let relative = found.path().strip_prefix(root).unwrap_or(found.path());
        if found.depth() == 0 || !is_behind(relative, after.as_deref()) {
            continue;
        }
        // Gone since it was listed, or never inside.
        let Some(file) = place.reopen(found.path(), OFlags::PATH) else {
            continue;
        };
        let Ok(stat) = rustix::fs::fstat(&file) else {
            continue;
        };
        let target = is_symlink(&stat)
            .then(|| rustix::fs::readlinkat(&file, "", Vec::new()).ok())
            .flatten();
        if !list.push(entry(relative.to_string_lossy().into_owned(), &stat, target)) {
            break;
        }
    }
    if stream.is_cancelled() {
        return Err(failed(CallErrorCode::Os, "the listing was cancelled"));
    }
    Ok(Reply::Entries {
        entries: list.items,
        is_truncated: list.is_truncated,
    })
}

fn shown_order(one: &Path, other: &Path) -> Ordering {
    let names = |path: &Path| -> Vec<String> {
        path.components()
            .filter(|part| matches!(part, Component::Normal(_)))
            .map(|part| part.as_os_str().to_string_lossy().into_owned())
            .collect()
    };
    names(one).cmp(&names(other))
}

/// Whether a path belongs to the page after `after`.
fn is_behind(path: &Path, after: Option<&Path>) -> bool {
    after.is_none_or(|after| shown_order(path, after) == Ordering::Greater)
}

/// Whether a path, or anything below it, may belong to the page after `after`.
fn leads_behind(path: &Path, after: Option<&Path>) -> bool {
    is_behind(path, after) || after.is_some_and(|after| after.starts_with(path.to_string_lossy().as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_begin_behind_the_last_path() {
        for (path, after, expected, leads) in [
            ("a", None, true, true),
            ("a", Some("a"), false, true),
            ("a/b", Some("a"), true, true),
            // Below a directory comes before its neighbours, whatever sorts before a slash.
            ("a.txt", Some("a/z"), true, true),
            ("a/b", Some("a.txt"), false, false),
            ("a", Some("a/b/c"), false, true),
            ("a/b", Some("a/b/c"), false, true),
            ("a/a", Some("a/b/c"), false, false),
            ("b", Some("a/b/c"), true, true),
        ] {
            let after = after.map(Path::new);
            assert_eq!(is_behind(Path::new(path), after), expected, "{path} {after:?}");
            assert_eq!(leads_behind(Path::new(path), after), leads, "{path} {after:?}");
        }
    }
}
