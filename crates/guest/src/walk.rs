//! Lists a whole tree, page by page, in an order that stays the same while names do.

use crate::call::{BoundedList, without_nul};
use crate::failure::{CallResult, failed};
use crate::file::{entry, is_symlink};
use crate::path::Root;
use crate::stream::Stream;
use greenroom_protocol::guest::call::{CallErrorCode, Reply, Walk};
use ignore::WalkBuilder;
use rustix::fs::OFlags;
use std::cmp::Ordering;
use std::ffi::OsStr;
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
    let mut builder = WalkBuilder::new(root);
    if walk.respects_ignore_files {
        builder.hidden(false).parents(true).require_git(false);
    } else {
        builder.standard_filters(false);
    }
    let (base, first, is_filtered) = (root.clone(), after.clone(), walk.respects_ignore_files);
    builder
        .follow_links(false)
        .sort_by_file_name(by_shown_name)
        .filter_entry(move |entry| {
            let is_left_out = is_filtered && entry.file_name() == ".git";
            let relative = entry.path().strip_prefix(&base).unwrap_or(entry.path());
            !is_left_out && leads_behind(relative, first.as_deref())
        });
    // What cannot be read is passed over.
    for found in builder.build().filter_map(Result::ok) {
        if stream.is_cancelled() {
            return Err(failed(CallErrorCode::Os, "the listing was cancelled"));
        }
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
    Ok(Reply::Entries {
        entries: list.items,
        is_truncated: list.is_truncated,
    })
}

/// By what is shown, so that the last path of a page says where the next begins; names that only look alike keep an order.
fn by_shown_name(one: &OsStr, other: &OsStr) -> Ordering {
    one.to_string_lossy()
        .cmp(&other.to_string_lossy())
        .then_with(|| one.cmp(other))
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
