//! Shows a change of a file as an item with a unified diff. Touches no file.

use super::bounds::bound_text;
use greenroom_protocol::client::event::ItemBody;
use similar::{ChangeTag, TextDiff};
use std::time::Duration;

const MAX_PATCH_BYTES: usize = 64 * 1024;

/// The item for a change from `old` to `new`; `None` stands for no file.
pub(super) fn item(path: &str, old: Option<&str>, new: Option<&str>) -> ItemBody {
    let shown = super::shown_path(path);
    // Two large files without a common line would take minutes; past the deadline the diff is only coarser.
    let diff = TextDiff::configure()
        .timeout(Duration::from_millis(500))
        .diff_lines(old.unwrap_or_default(), new.unwrap_or_default());
    let (mut additions, mut deletions) = (0, 0);
    for change in diff.iter_all_changes() {
        match change.tag() {
            ChangeTag::Insert => additions += 1,
            ChangeTag::Delete => deletions += 1,
            ChangeTag::Equal => {}
        }
    }
    let name = |side: &str, text: Option<&str>| match text {
        Some(_) => format!("{side}/{shown}"),
        None => "/dev/null".to_owned(),
    };
    let patch = diff
        .unified_diff()
        .header(&name("a", old), &name("b", new))
        .to_string();
    ItemBody::FileChange {
        path: shown.to_owned(),
        patch: bound_text(patch, MAX_PATCH_BYTES),
        additions,
        deletions,
        tool_item: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_counted_and_named() {
        let ItemBody::FileChange {
            path,
            patch,
            additions,
            deletions,
            ..
        } = item("/workspace/a/b.txt", Some("1\n2\n"), Some("1\n3\n4\n"))
        else {
            panic!("a file change")
        };
        assert_eq!((path.as_str(), additions, deletions), ("a/b.txt", 2, 1));
        assert_eq!(
            patch,
            "--- a/a/b.txt\n+++ b/a/b.txt\n@@ -1,2 +1,3 @@\n 1\n-2\n+3\n+4\n"
        );
        let ItemBody::FileChange { patch, .. } = item("new", None, Some("x")) else {
            panic!("a file change")
        };
        assert!(patch.starts_with("--- /dev/null\n+++ b/new\n"), "{patch}");
    }
}
