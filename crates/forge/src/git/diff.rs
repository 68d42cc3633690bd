//! The difference of two trees as files with patches, bounded in files and bytes. The parsers are pure.

use super::{Call, Git, GitError, read_stderr};
use greenroom_protocol::client::pull_request::{Diff, FileDiff, FileStatus};
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, BufReader};

/// Most files listed.
pub const MAX_DIFF_FILES: usize = 300;
/// Most bytes of one file's patch; a longer one is left out.
pub const MAX_FILE_PATCH_BYTES: usize = 1024 * 1024;
/// Most bytes of all patches together.
pub const MAX_DIFF_BYTES: usize = 5 * 1024 * 1024;
/// Time for the patch text; past it the rest is left out.
const PATCH_LIMIT: Duration = Duration::from_secs(60);

/// Arguments of git that say what changes from one tree to another: whole trees, renames found, nothing external run; blobs past 16 MiB
/// count as binary.
pub const DIFF_TREE: [&str; 9] = [
    "-c",
    "core.bigFileThreshold=16m",
    "diff-tree",
    "-r",
    "-M",
    "-l400",
    "--no-ext-diff",
    "--no-textconv",
    "--no-color",
];

/// A file of the difference before its patch is known, in git's order.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    file: FileDiff,
    /// Sections of the patch output that belong to it: two if its type changes (file to symlink).
    sections: usize,
}

/// Reads what [`DIFF_TREE`] printed elsewhere for the same two trees: `entries` with `--raw --numstat -z`, `patches` with `-p` and git's
/// usual prefixes. `None`: this is not what git prints.
pub fn read_diff(entries: &[u8], patches: &[u8]) -> Option<Diff> {
    let mut read = Patches::new(parse_entries(entries)?);
    for line in patches.split_inclusive(|byte| *byte == b'\n') {
        read.take(line, LinePiece::First);
    }
    Some(read.into_diff())
}

impl Git {
    /// What changes from one tree (or commit) to the other.
    pub(crate) async fn diff(&self, dir: &Path, old: &str, new: &str) -> Result<Diff, GitError> {
        let ends = ["--raw", "--numstat", "-z", old, new];
        let args = DIFF_TREE.iter().chain(&ends);
        let printed = self.run(Call::new(args).within(dir)).await?.success()?;
        let entries = parse_entries(&printed).ok_or_else(|| GitError::Unexpected {
            what: "diff-tree".to_owned(),
        })?;
        let mut patches = Patches::new(entries);
        if patches.wants_more() {
            let read =
                tokio::time::timeout(PATCH_LIMIT, self.read_patches(dir, old, new, &mut patches)).await;
            match read {
                Ok(result) => result?,
                Err(_) => patches.is_truncated = true,
            }
        }
        Ok(patches.into_diff())
    }

    async fn read_patches(
        &self,
        dir: &Path,
        old: &str,
        new: &str,
        patches: &mut Patches,
    ) -> Result<(), GitError> {
        let mut command = self.command(Some(dir));
        command
            .args(DIFF_TREE)
            .args(["-p", "-U3", "--src-prefix=a/", "--dst-prefix=b/", old, new]);
        let mut running = self.start(&mut command)?;
        let (stdin, stdout, stderr) = running.pipes();
        drop(stdin);
        let pipe = |source| GitError::Pipe {
            what: "diff-tree".to_owned(),
            source,
        };
        let read = async {
            let mut lines = BufReader::with_capacity(64 * 1024, stdout);
            // Pieces of lines: a line longer than the buffer comes in several, only the first starts one.
            let mut is_line_start = true;
            loop {
                let available = lines.fill_buf().await?;
                if available.is_empty() {
                    return Ok::<bool, std::io::Error>(true);
                }
                let length = available
                    .iter()
                    .position(|byte| *byte == b'\n')
                    .map_or(available.len(), |end| end + 1);
                let ends_line = available[length - 1] == b'\n';
                // A header must be seen whole to be recognised.
                if is_line_start && !ends_line && length < 11 {
                    let mut short = Vec::new();
                    lines.read_until(b'\n', &mut short).await?;
                    patches.take(&short, LinePiece::First);
                    continue;
                }
                let piece = if is_line_start {
                    LinePiece::First
                } else {
                    LinePiece::Rest
                };
                patches.take(&available[..length], piece);
                is_line_start = ends_line;
                lines.consume(length);
                if !patches.wants_more() {
                    return Ok(false);
                }
            }
        };
        let stderr_text = read_stderr(stderr);
        tokio::pin!(stderr_text);
        // Standard error is only worth its text if git fails; it prints little, so reading it afterwards cannot block.
        let is_whole = read.await.map_err(pipe)?;
        if is_whole {
            let status = running.wait().await.map_err(pipe)?;
            if !status.success() {
                return Err(GitError::Failed {
                    what: "diff-tree".to_owned(),
                    code: status.code(),
                    stderr: stderr_text.await,
                });
            }
        }
        Ok(())
    }
}

/// Whether bytes begin a line or continue one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LinePiece {
    First,
    Rest,
}

/// Deals patch text out to the files it belongs to.
#[derive(Debug)]
struct Patches {
    entries: Vec<Entry>,
    texts: Vec<Vec<u8>>,
    /// Which files, by position, are shown.
    is_shown: Vec<bool>,
    /// The file whose section is read; `None` before the first.
    current: Option<usize>,
    sections_left: usize,
    is_in_patch: bool,
    total: usize,
    shown_left: usize,
    is_truncated: bool,
}

impl Patches {
    fn new(entries: Vec<Entry>) -> Self {
        let mut by_path: Vec<usize> = (0..entries.len()).collect();
        by_path.sort_by(|a, b| entries[*a].file.path.cmp(&entries[*b].file.path));
        let mut is_shown = vec![false; entries.len()];
        for position in by_path.iter().take(MAX_DIFF_FILES) {
            is_shown[*position] = true;
        }
        Self {
            is_truncated: entries.len() > MAX_DIFF_FILES,
            shown_left: entries.len().min(MAX_DIFF_FILES),
            texts: vec![Vec::new(); entries.len()],
            entries,
            is_shown,
            current: None,
            sections_left: 0,
            is_in_patch: false,
            total: 0,
        }
    }

    /// Whether text still to come can belong to a file that is shown.
    fn wants_more(&self) -> bool {
        let is_current_shown = self.current.is_some_and(|current| self.is_shown[current]);
        self.total <= MAX_DIFF_BYTES && (self.shown_left > 0 || is_current_shown)
    }

    fn take(&mut self, bytes: &[u8], piece: LinePiece) {
        // Only a section's header starts so: every line of content has a mark before it.
        if piece == LinePiece::First && bytes.starts_with(b"diff --git ") {
            self.next_section();
            return;
        }
        if piece == LinePiece::First && !self.is_in_patch {
            self.is_in_patch = bytes.starts_with(b"--- ");
        }
        let Some(current) = self.current.filter(|_| self.is_in_patch) else {
            return;
        };
        if !self.is_shown[current] {
            return;
        }
        let text = &mut self.texts[current];
        if text.len() + bytes.len() > MAX_FILE_PATCH_BYTES || self.total + bytes.len() > MAX_DIFF_BYTES {
            self.total -= text.len();
            *text = Vec::new();
            self.is_shown[current] = false;
            self.is_truncated = true;
            return;
        }
        text.extend_from_slice(bytes);
        self.total += bytes.len();
    }

    fn next_section(&mut self) {
        self.is_in_patch = false;
        if self.sections_left > 0 {
            self.sections_left -= 1;
            return;
        }
        let next = self.current.map_or(0, |current| current + 1);
        // More sections than files would be a defect of ours; extra ones stay with the last file, marked as cut.
        if next >= self.entries.len() {
            self.is_truncated = true;
            return;
        }
        self.current = Some(next);
        self.sections_left = self.entries[next].sections - 1;
        if self.is_shown[next] {
            self.shown_left -= 1;
        }
    }

    fn into_diff(self) -> Diff {
        let files = self.entries.iter().map(|entry| &entry.file);
        Diff {
            additions: files.clone().map(|file| file.additions).sum(),
            deletions: files.map(|file| file.deletions).sum(),
            is_truncated: self.is_truncated,
            files: self.files(),
        }
    }

    fn files(self) -> Vec<FileDiff> {
        let mut files: Vec<FileDiff> = self
            .entries
            .into_iter()
            .zip(self.texts)
            .map(|(entry, text)| FileDiff {
                patch: String::from_utf8_lossy(&text).into_owned(),
                ..entry.file
            })
            .collect();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        files.truncate(MAX_DIFF_FILES);
        files
    }
}

/// Output of `git diff-tree -r -M --raw --numstat -z` for two trees: all raw entries, then all counts, same order.
fn parse_entries(printed: &[u8]) -> Option<Vec<Entry>> {
    let text = String::from_utf8_lossy(printed);
    let mut fields = text.strip_suffix('\0').unwrap_or(&text).split('\0').peekable();
    let mut entries = Vec::new();
    while let Some(raw) = fields.next_if(|field| field.starts_with(':')) {
        let letter = raw.rsplit(' ').next()?.chars().next()?;
        let first = fields.next()?.to_owned();
        let (status, old_path, path) = match letter {
            'A' => (FileStatus::Added, None, first),
            'D' => (FileStatus::Deleted, None, first),
            'M' | 'T' => (FileStatus::Modified, None, first),
            'R' => (FileStatus::Renamed, Some(first), fields.next()?.to_owned()),
            'C' => (FileStatus::Added, Some(first), fields.next()?.to_owned()),
            _ => return None,
        };
        entries.push(Entry {
            file: FileDiff {
                path,
                old_path,
                status,
                additions: 0,
                deletions: 0,
                is_binary: false,
                patch: String::new(),
            },
            sections: if letter == 'T' { 2 } else { 1 },
        });
    }
    for entry in &mut entries {
        // `added TAB deleted TAB path`, or with an empty path followed by the old and the new one for a rename.
        let mut counts = fields.next()?.splitn(3, '\t');
        let (added, deleted, path) = (counts.next()?, counts.next()?, counts.next()?);
        if path.is_empty() {
            fields.next()?;
            fields.next()?;
        }
        entry.file.is_binary = added == "-";
        if !entry.file.is_binary {
            entry.file.additions = added.parse().ok()?;
            entry.file.deletions = deleted.parse().ok()?;
        }
    }
    fields.all(str::is_empty).then_some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(letter: &str) -> String {
        format!(":100644 100644 {0} {0} {letter}\0", "1".repeat(40))
    }

    #[test]
    fn entries_are_read() {
        let printed = [
            raw("M"),
            "b\0".to_owned(),
            raw("R087"),
            "old name\0new\tname\0".to_owned(),
            raw("A"),
            "bin\0".to_owned(),
            raw("T"),
            "link\0".to_owned(),
            "1\t2\tb\0".to_owned(),
            "3\t0\t\0old name\0new\tname\0".to_owned(),
            "-\t-\tbin\0".to_owned(),
            "1\t1\tlink\0".to_owned(),
        ]
        .concat();
        let entries = parse_entries(printed.as_bytes()).unwrap();
        let seen: Vec<_> = entries
            .iter()
            .map(|e| {
                (
                    e.file.path.as_str(),
                    e.file.old_path.as_deref(),
                    e.file.status,
                    e.file.additions,
                    e.file.deletions,
                    e.file.is_binary,
                    e.sections,
                )
            })
            .collect();
        assert_eq!(
            seen,
            [
                ("b", None, FileStatus::Modified, 1, 2, false, 1),
                ("new\tname", Some("old name"), FileStatus::Renamed, 3, 0, false, 1),
                ("bin", None, FileStatus::Added, 0, 0, true, 1),
                ("link", None, FileStatus::Modified, 1, 1, false, 2),
            ]
        );
        assert_eq!(parse_entries(b""), Some(Vec::new()));
    }

    #[test]
    fn broken_entries_are_refused() {
        for broken in [
            raw("M"),
            raw("M") + "a\0",
            raw("M") + "a\x001\0",
            raw("X") + "a\x001\t1\ta\0",
            raw("M") + "a\0x\t1\ta\0",
        ] {
            assert_eq!(parse_entries(broken.as_bytes()), None, "{broken:?}");
        }
    }

    fn entry(path: &str, sections: usize) -> Entry {
        Entry {
            file: FileDiff {
                path: path.to_owned(),
                old_path: None,
                status: FileStatus::Modified,
                additions: 1,
                deletions: 1,
                is_binary: false,
                patch: String::new(),
            },
            sections,
        }
    }

    fn feed(patches: &mut Patches, text: &str) {
        for line in text.split_inclusive('\n') {
            patches.take(line.as_bytes(), LinePiece::First);
        }
    }

    #[test]
    fn patches_go_to_their_files_without_git_s_own_header() {
        let mut patches = Patches::new(vec![entry("z", 1), entry("mode", 1), entry("link", 2)]);
        feed(
            &mut patches,
            "diff --git a/z b/z\nindex 1..2 100644\n--- a/z\n+++ b/z\n@@ -1 +1 @@\n--- x\n+diff --git a b\n",
        );
        feed(
            &mut patches,
            "diff --git a/mode b/mode\nold mode 100644\nnew mode 100755\n",
        );
        assert!(patches.wants_more());
        feed(
            &mut patches,
            "diff --git a/link b/link\ndeleted file mode 100644\n--- a/link\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n",
        );
        feed(
            &mut patches,
            "diff --git a/link b/link\nnew file mode 120000\n--- /dev/null\n+++ b/link\n@@ -0,0 +1 @@\n+b\n",
        );
        assert!(!patches.is_truncated);
        let files: Vec<_> = patches.files().into_iter().map(|f| (f.path, f.patch)).collect();
        assert_eq!(files[0].0, "link");
        assert_eq!(
            files[0].1,
            "--- a/link\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n--- /dev/null\n+++ b/link\n@@ -0,0 +1 @@\n+b\n"
        );
        assert_eq!(files[1], ("mode".to_owned(), String::new()));
        assert_eq!(
            files[2].1,
            "--- a/z\n+++ b/z\n@@ -1 +1 @@\n--- x\n+diff --git a b\n"
        );
    }

    #[test]
    fn a_patch_that_is_too_long_is_left_out_whole() {
        let mut patches = Patches::new(vec![entry("a", 1), entry("b", 1)]);
        feed(
            &mut patches,
            "diff --git a/a b/a\n--- a/a\n+++ b/a\n@@ -1 +1 @@\n",
        );
        patches.take(&vec![b'+'; MAX_FILE_PATCH_BYTES], LinePiece::First);
        patches.take(b"more\n", LinePiece::Rest);
        feed(
            &mut patches,
            "diff --git a/b b/b\n--- a/b\n+++ b/b\n@@ -1 +1 @@\n-x\n",
        );
        assert!(patches.is_truncated);
        let files = patches.files();
        assert_eq!(files[0].patch, "");
        assert_eq!(files[1].patch, "--- a/b\n+++ b/b\n@@ -1 +1 @@\n-x\n");
    }

    #[test]
    fn only_the_first_three_hundred_files_are_listed() {
        let entries = (0..MAX_DIFF_FILES + 5)
            .rev()
            .map(|n| entry(&format!("{n:04}"), 1))
            .collect();
        let mut patches = Patches::new(entries);
        for n in (0..MAX_DIFF_FILES + 5).rev() {
            feed(
                &mut patches,
                &format!("diff --git a/{n} b/{n}\n--- a\n+++ b\n@@ -1 +1 @@\n-{n}\n"),
            );
        }
        assert!(patches.is_truncated);
        let files = patches.files();
        assert_eq!(files.len(), MAX_DIFF_FILES);
        assert!(files.iter().all(|file| !file.patch.is_empty()));
        assert_eq!(files[0].path, "0000");
    }
}
