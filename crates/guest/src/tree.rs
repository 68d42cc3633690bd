//! What lies below a directory, less what ignore files (.gitignore, .ignore, .git/info/exclude) leave out.
//!
//! The agent's programs write those files, so nothing about them is believed: only regular files are read, without waiting,
//! and only so much of them as the guest can hold. What is not read leaves nothing out. Git's configuration for the whole
//! account is not asked.

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use std::cmp::Ordering;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use walkdir::{DirEntry, WalkDir};

/// Bytes of one ignore file that count.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// Bytes of ignore files that count for one path: those of its directory and all above it. The worst patterns take 400 times
/// as much memory when compiled (25 MB and a tenth of a second for a file of the largest size).
const MAX_HELD_BYTES: usize = 128 << 10;

/// A longer line matches no path, which has at most `PATH_MAX` bytes.
const MAX_LINE_BYTES: usize = 4096;

/// What is left out of a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftOut {
    Nothing,
    /// What ignore files name, and `.git`.
    Ignored,
}

/// `root` and what is below it, each directory before what it holds, by shown name; links are not followed, and what cannot
/// be read is passed over. Where `is_wanted` says no, neither that entry nor anything below it follows.
pub fn walk(
    root: &Path,
    left_out: LeftOut,
    mut is_wanted: impl FnMut(&DirEntry) -> bool,
) -> impl Iterator<Item = DirEntry> {
    let mut rules = match left_out {
        LeftOut::Nothing => None,
        LeftOut::Ignored => Some(Rules::above(root)),
    };
    WalkDir::new(root)
        .sort_by(|one, other| by_shown_name(one.file_name(), other.file_name()))
        .into_iter()
        .filter_entry(move |entry| {
            is_wanted(entry) && rules.as_mut().is_none_or(|rules| rules.let_pass(entry))
        })
        .filter_map(Result::ok)
}

/// Whether ignore files leave out what lies in one directory, as they are now; for whoever asks about many there.
pub struct LeftOutThere(Rules);

impl LeftOutThere {
    pub fn of(directory: &Path) -> Self {
        // What holds at anything in it.
        Self(Rules::above(&directory.join("anything")))
    }

    pub fn has(&self, path: &Path, is_directory: bool) -> bool {
        self.0.is_ignored(path, is_directory)
    }
}

/// By what is shown, so that the last path of a page says where the next begins; names that only look alike keep an order.
fn by_shown_name(one: &OsStr, other: &OsStr) -> Ordering {
    one.to_string_lossy()
        .cmp(&other.to_string_lossy())
        .then_with(|| one.cmp(other))
}

/// The rules of the directories from the top of the file system to where a walk is.
struct Rules {
    levels: Vec<Level>,
    /// How many of the levels are above the walk's root.
    above: usize,
}

/// The rules of one directory, by the kind of file they stand in, the strongest kind first.
struct Level {
    kinds: [Gitignore; 3],
    held_bytes: usize,
    /// Whether a repository begins here. What git reads above it is another repository's.
    is_repository: bool,
}

/// The kind that is not git's.
const IGNORE_FILE: usize = 0;

impl Rules {
    /// Those that hold at `root` already.
    fn above(root: &Path) -> Self {
        let mut rules = Self {
            levels: Vec::new(),
            above: 0,
        };
        let mut parents: Vec<_> = root.ancestors().skip(1).collect();
        parents.reverse();
        for parent in parents {
            rules.enter(parent);
        }
        rules.above = rules.levels.len();
        rules
    }

    /// Whether an entry of the walk is to be seen. Each directory is asked about before what it holds.
    fn let_pass(&mut self, entry: &DirEntry) -> bool {
        let is_directory = entry.file_type().is_dir();
        self.levels.truncate(self.above + entry.depth());
        // Who asks for an ignored directory itself gets it.
        if entry.depth() > 0 && (entry.file_name() == ".git" || self.is_ignored(entry.path(), is_directory)) {
            return false;
        }
        if is_directory {
            self.enter(entry.path());
        }
        true
    }

    /// The strongest kind that says something decides, and of that the file nearest to the path.
    fn is_ignored(&self, path: &Path, is_directory: bool) -> bool {
        for kind in 0..3 {
            for level in self.levels.iter().rev() {
                match level.kinds[kind].matched(path, is_directory) {
                    Match::None => {}
                    Match::Ignore(_) => return true,
                    Match::Whitelist(_) => return false,
                }
                if level.is_repository && kind != IGNORE_FILE {
                    break;
                }
            }
        }
        false
    }

    fn enter(&mut self, directory: &Path) {
        let held: usize = self.levels.iter().map(|level| level.held_bytes).sum();
        let git = directory.join(".git");
        let kind = rustix::fs::lstat(&git).map(|stat| FileType::from_raw_mode(stat.st_mode));
        let mut level = Level {
            kinds: std::array::from_fn(|_| Gitignore::empty()),
            held_bytes: 0,
            is_repository: kind.is_ok(),
        };
        let files = [
            Some(directory.join(".ignore")),
            Some(directory.join(".gitignore")),
            kind.ok().and_then(|kind| exclude_file(&git, kind)),
        ];
        for (kind, file) in level.kinds.iter_mut().zip(files) {
            let Some(text) = file.and_then(|file| read(&file, MAX_FILE_BYTES)) else {
                continue;
            };
            if text.is_empty() || held + level.held_bytes + text.len() > MAX_HELD_BYTES {
                continue;
            }
            level.held_bytes += text.len();
            *kind = parse(directory, &text);
        }
        self.levels.push(level);
    }
}

/// The patterns of an ignore file in `directory`; those that are no pattern are passed over. Are they together more than a
/// matcher takes, the first half counts, or of that the first half.
fn parse(directory: &Path, text: &[u8]) -> Gitignore {
    let text = String::from_utf8_lossy(text);
    let mut lines: Vec<_> = text
        .trim_start_matches('\u{feff}')
        .lines()
        .filter(|line| line.len() <= MAX_LINE_BYTES)
        .collect();
    while !lines.is_empty() {
        let mut builder = GitignoreBuilder::new(directory);
        for line in &lines {
            let _ = builder.add_line(None, line);
        }
        if let Ok(built) = builder.build() {
            return built;
        }
        lines.truncate(lines.len() / 2);
    }
    Gitignore::empty()
}

/// Where git keeps excludes of the working tree that has this `.git` (gitrepository-layout(5)).
fn exclude_file(git: &Path, kind: FileType) -> Option<PathBuf> {
    let git = match kind {
        FileType::RegularFile => {
            let git = git.parent()?.join(line_of(git)?.strip_prefix("gitdir: ")?);
            let common = line_of(&git.join("commondir"))?;
            git.join(common)
        }
        _ => git.to_owned(),
    };
    Some(git.join("info/exclude"))
}

fn line_of(file: &Path) -> Option<String> {
    let text = String::from_utf8(read(file, MAX_LINE_BYTES as u64)?).ok()?;
    text.lines().next().map(str::to_owned)
}

/// The whole lines among the first bytes of a regular file; a link to one is none, as for git.
fn read(path: &Path, max_bytes: u64) -> Option<Vec<u8>> {
    // Not blocking: a FIFO without a writer would hold the walk for ever.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(CWD, path, flags, Mode::empty()).ok()?;
    let stat = rustix::fs::fstat(&file).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return None;
    }
    let mut text = Vec::new();
    File::from(file).take(max_bytes).read_to_end(&mut text).ok()?;
    if text.len() as u64 == max_bytes {
        let end = text
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        text.truncate(end);
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::ffi::OsStrExt as _;

    fn names(root: &Path, left_out: LeftOut) -> Vec<String> {
        walk(root, left_out, |_| true)
            .filter(|entry| entry.file_type().is_file() && !entry.file_name().as_bytes().starts_with(b"."))
            .map(|entry| entry.path().strip_prefix(root).unwrap().display().to_string())
            .collect()
    }

    /// Files, which of them hold patterns, where the walk starts, and what is seen.
    #[test]
    fn the_nearest_file_of_the_strongest_kind_decides() {
        for (rules, start, expected) in [
            (vec![], "", vec!["a", "d/a", "d/e/a", "d/e/b"]),
            (vec![(".gitignore", "a")], "", vec!["d/e/b"]),
            (vec![(".gitignore", "/a")], "", vec!["d/a", "d/e/a", "d/e/b"]),
            (vec![(".gitignore", "d/e/")], "", vec!["a", "d/a"]),
            (vec![(".gitignore", "a/")], "", vec!["a", "d/a", "d/e/a", "d/e/b"]),
            (
                vec![(".gitignore", "a"), ("d/e/.gitignore", "!a")],
                "",
                vec!["d/e/a", "d/e/b"],
            ),
            (
                vec![(".gitignore", "# a\n\n!b\n*\n!d\n!e\n!b")],
                "",
                vec!["d/e/b"],
            ),
            (vec![(".gitignore", "\u{feff}a")], "", vec!["d/e/b"]),
            // What is above the start counts too, but not for the start itself.
            (vec![(".gitignore", "a")], "d", vec!["e/b"]),
            (vec![(".gitignore", "d\na")], "d/e", vec!["b"]),
            (
                vec![(".ignore", "!a"), ("d/.gitignore", "a")],
                "",
                vec!["a", "d/a", "d/e/a", "d/e/b"],
            ),
            (
                vec![(".git/info/exclude", "d/a")],
                "",
                vec!["a", "d/e/a", "d/e/b"],
            ),
            // A repository in another goes by its own.
            (
                vec![(".gitignore", "a"), ("d/.git/info/exclude", "b")],
                "",
                vec!["d/a", "d/e/a"],
            ),
            (
                vec![(".git/info/exclude", "/d/"), ("d/.git/HEAD", "")],
                "",
                vec!["a"],
            ),
            (
                vec![(".git/info/exclude", "/d/\na"), ("d/.git/HEAD", "")],
                "d",
                vec!["a", "e/a", "e/b"],
            ),
            (
                vec![
                    (".git", "gitdir: d/.x\n"),
                    ("d/.x/commondir", "../.y\n"),
                    ("d/.y/info/exclude", "b"),
                ],
                "",
                vec!["a", "d/a", "d/e/a"],
            ),
        ] {
            let temp = tempfile::tempdir().unwrap();
            let root = temp.path().canonicalize().unwrap();
            fs::create_dir_all(root.join("d/e")).unwrap();
            for file in ["a", "d/a", "d/e/a", "d/e/b"] {
                fs::write(root.join(file), "").unwrap();
            }
            for (file, text) in &rules {
                fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
                fs::write(root.join(file), text).unwrap();
            }
            let found: Vec<_> = names(&root.join(start), LeftOut::Ignored)
                .into_iter()
                .filter(|name| !name.contains('.'))
                .collect();
            assert_eq!(found, expected, "{rules:?} from {start:?}");
        }
    }

    #[test]
    fn only_so_much_of_ignore_files_counts() {
        let temp = tempfile::tempdir().unwrap();
        let mut directory = temp.path().canonicalize().unwrap();
        let root = directory.clone();
        let filler = "x".repeat(99) + "\n";
        let text = format!(
            "first\n{}last\n",
            filler.repeat(MAX_FILE_BYTES as usize / 100 + 1)
        );
        for _ in 0..6 {
            directory.push("d");
            fs::create_dir(&directory).unwrap();
            // Patterns that hold only in this directory.
            fs::write(directory.join(".gitignore"), text.replace("first", "/first")).unwrap();
            for file in ["first", "last"] {
                fs::write(directory.join(file), "").unwrap();
            }
        }
        let mut expected = Vec::new();
        for depth in 1..=6 {
            let directory = "d/".repeat(depth);
            // Beyond the files that count together nothing is left out.
            if depth > MAX_HELD_BYTES / MAX_FILE_BYTES as usize {
                expected.push(format!("{directory}first"));
            }
            expected.push(format!("{directory}last"));
        }
        let mut found = names(&root, LeftOut::Ignored);
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
        assert_eq!(names(&root, LeftOut::Nothing).len(), 12);
    }
}
