//! Reads commits and writes new ones as objects. Moves no ref.

use super::{Call, Git, GitError, is_object_id};
use std::path::Path;

/// Most commits that are ever listed or replayed at once.
pub(crate) const MAX_COMMITS: usize = 10_000;

/// What `git log` prints of one commit, each field ended by NUL (git-log(1), "PRETTY FORMATS").
const FORMAT: &str = "--format=tformat:%H%x00%T%x00%P%x00%an%x00%ae%x00%ad%x00%cn%x00%ce%x00%ct%x00%B";
const FIELDS: usize = 10;

/// A commit as git shows it, in UTF-8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommitRecord {
    pub(crate) id: String,
    pub(crate) tree: String,
    pub(crate) parents: Vec<String>,
    pub(crate) author: Signature,
    pub(crate) committer_name: String,
    pub(crate) committer_email: String,
    pub(crate) committed_at_s: i64,
    pub(crate) message: String,
}

/// Who and when, as a commit holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signature {
    pub(crate) name: String,
    pub(crate) email: String,
    /// Seconds since 1970 and the offset: `1700000000 +0100`.
    pub(crate) time: String,
}

impl Signature {
    /// At a moment given in Unix milliseconds, shown in UTC.
    pub(crate) fn at(name: &str, email: &str, at_ms: i64) -> Self {
        Self {
            name: name.to_owned(),
            email: email.to_owned(),
            time: format!("{} +0000", at_ms.max(0) / 1000),
        }
    }

    /// `Name <address> seconds offset`, without what git forbids in it.
    fn line(&self) -> String {
        let email = clean(&self.email);
        let name = match clean(&self.name) {
            name if name.is_empty() && email.is_empty() => "unknown".to_owned(),
            name if name.is_empty() => email.clone(),
            name => name,
        };
        format!("{name} <{email}> {}", clean_time(&self.time))
    }
}

/// A text that may stand in a signature: one line, no angle brackets, none of the edge characters git strips.
pub(crate) fn clean(text: &str) -> String {
    let kept: String = text
        .chars()
        .filter(|c| !c.is_control() && !matches!(c, '<' | '>'))
        .collect();
    kept.trim_matches(|c: char| c.is_whitespace() || matches!(c, '.' | ',' | ':' | ';' | '"' | '\\' | '\''))
        .to_owned()
}

fn clean_time(time: &str) -> String {
    let (seconds, offset) = time.split_once(' ').unwrap_or((time, "+0000"));
    let seconds: i64 = seconds.parse().unwrap_or(0);
    let is_offset = offset.len() == 5
        && offset.starts_with(['+', '-'])
        && offset.bytes().skip(1).all(|byte| byte.is_ascii_digit());
    format!("{} {}", seconds.max(0), if is_offset { offset } else { "+0000" })
}

/// A commit to be written.
#[derive(Debug)]
pub(crate) struct NewCommit<'a> {
    pub(crate) tree: &'a str,
    pub(crate) parents: &'a [&'a str],
    pub(crate) author: &'a Signature,
    pub(crate) committer: &'a Signature,
    pub(crate) message: &'a str,
}

impl NewCommit<'_> {
    /// The object's content (gitformat: `tree`, `parent`s, `author`, `committer`, empty line, message).
    fn content(&self) -> String {
        let parents: String = self.parents.iter().map(|id| format!("parent {id}\n")).collect();
        let message: String = self.message.chars().filter(|c| *c != '\0').collect();
        format!(
            "tree {}\n{parents}author {}\ncommitter {}\n\n{}\n",
            self.tree,
            self.author.line(),
            self.committer.line(),
            message.trim_end()
        )
    }
}

impl Git {
    /// Commits reachable from `include` but not from `exclude`, oldest first; at most [`MAX_COMMITS`], the newest ones.
    pub(crate) async fn log(
        &self,
        dir: &Path,
        exclude: Option<&str>,
        include: &str,
        count: usize,
    ) -> Result<Vec<CommitRecord>, GitError> {
        let count = format!("--max-count={}", count.min(MAX_COMMITS));
        let mut args = vec![
            "log",
            "-z",
            "--date=raw",
            "--no-show-signature",
            "--no-color",
            "--topo-order",
            FORMAT,
            &count,
            include,
        ];
        let exclude = exclude.map(|id| format!("^{id}"));
        args.extend(exclude.as_deref());
        args.push("--");
        let printed = self.run(Call::new(args).within(dir)).await?.success()?;
        let mut commits = parse_log(&printed).ok_or_else(|| GitError::Unexpected {
            what: "log".to_owned(),
        })?;
        commits.reverse();
        Ok(commits)
    }

    /// Writes a commit object and returns its id.
    pub(crate) async fn write_commit(&self, dir: &Path, commit: &NewCommit<'_>) -> Result<String, GitError> {
        self.write_object(dir, "commit", commit.content().into_bytes())
            .await
    }

    /// Writes an object of the given type and returns its id.
    pub(crate) async fn write_object(
        &self,
        dir: &Path,
        kind: &str,
        content: Vec<u8>,
    ) -> Result<String, GitError> {
        let call = Call::new(["hash-object", "-t", kind, "-w", "--stdin"])
            .within(dir)
            .stdin(content);
        self.object_id(call).await
    }

    /// A best common ancestor, if the two have one.
    pub(crate) async fn merge_base(
        &self,
        dir: &Path,
        one: &str,
        other: &str,
    ) -> Result<Option<String>, GitError> {
        let finished = self
            .run(Call::new(["merge-base", one, other]).within(dir))
            .await?;
        match finished.code {
            Some(1) => Ok(None),
            _ => {
                let text = String::from_utf8_lossy(&finished.success()?).trim().to_owned();
                Ok(Some(text))
            }
        }
    }

    /// Whether `ancestor` is reachable from `descendant` (also when they are the same).
    pub(crate) async fn is_ancestor(
        &self,
        dir: &Path,
        ancestor: &str,
        descendant: &str,
    ) -> Result<bool, GitError> {
        let call = Call::new(["merge-base", "--is-ancestor", ancestor, descendant]).within(dir);
        let finished = self.run(call).await?;
        match finished.code {
            Some(0) => Ok(true),
            Some(1) => Ok(false),
            _ => Err(finished.failure()),
        }
    }

    /// The tree of a commit.
    pub(crate) async fn tree_of(&self, dir: &Path, commit: &str) -> Result<String, GitError> {
        let spec = format!("{commit}^{{tree}}");
        self.object_id(Call::new(["rev-parse", "--verify", &spec]).within(dir))
            .await
    }

    /// Contents of several objects (`<object>` or `<object>:<path>`), in order; `None` for one that does not exist.
    pub(crate) async fn contents(
        &self,
        dir: &Path,
        specs: &[String],
    ) -> Result<Vec<Option<Vec<u8>>>, GitError> {
        if specs.is_empty() {
            return Ok(Vec::new());
        }
        let input: String = specs.iter().map(|spec| format!("{spec}\n")).collect();
        let call = Call::new(["cat-file", "--batch"]).within(dir).stdin(input);
        let printed = self.run(call).await?.success()?;
        match parse_batch(&printed) {
            Some(contents) if contents.len() == specs.len() => Ok(contents),
            _ => Err(GitError::Unexpected {
                what: "cat-file".to_owned(),
            }),
        }
    }
}

/// What `git log -z` with [`FORMAT`] prints.
fn parse_log(printed: &[u8]) -> Option<Vec<CommitRecord>> {
    let text = String::from_utf8_lossy(printed);
    if text.is_empty() {
        return Some(Vec::new());
    }
    let fields: Vec<&str> = text.strip_suffix('\0')?.split('\0').collect();
    if !fields.len().is_multiple_of(FIELDS) {
        return None;
    }
    fields.chunks_exact(FIELDS).map(parse_commit).collect()
}

fn parse_commit(fields: &[&str]) -> Option<CommitRecord> {
    let [
        id,
        tree,
        parents,
        author,
        author_email,
        author_time,
        committer,
        committer_email,
        seconds,
        message,
    ] = fields
    else {
        return None;
    };
    if !is_object_id(id) || !is_object_id(tree) {
        return None;
    }
    Some(CommitRecord {
        id: (*id).to_owned(),
        tree: (*tree).to_owned(),
        parents: parents.split_whitespace().map(str::to_owned).collect(),
        author: Signature {
            name: (*author).to_owned(),
            email: (*author_email).to_owned(),
            time: (*author_time).to_owned(),
        },
        committer_name: (*committer).to_owned(),
        committer_email: (*committer_email).to_owned(),
        committed_at_s: seconds.parse().unwrap_or(0),
        message: message.trim_end_matches('\n').to_owned(),
    })
}

/// What `git cat-file --batch` prints: `<id> <type> <size>\n<content>\n`, or `<spec> missing\n`.
fn parse_batch(mut printed: &[u8]) -> Option<Vec<Option<Vec<u8>>>> {
    let mut contents = Vec::new();
    while !printed.is_empty() {
        let end = printed.iter().position(|byte| *byte == b'\n')?;
        let header = std::str::from_utf8(&printed[..end]).ok()?;
        printed = &printed[end + 1..];
        if header.ends_with(" missing") {
            contents.push(None);
            continue;
        }
        let size: usize = header.rsplit(' ').next()?.parse().ok()?;
        contents.push(Some(printed.get(..size)?.to_vec()));
        printed = printed.get(size + 1..)?;
    }
    Some(contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";

    fn printed(parents: &str, message: &str) -> String {
        format!(
            "{ID}\0{ID}\0{parents}\0Ann\0ann@x.org\x001700000000 +0100\0Bob\0bob@x.org\x001700000001\0{message}\0"
        )
    }

    #[test]
    fn logs_are_read() {
        assert_eq!(parse_log(b""), Some(Vec::new()));
        let two = printed("", "first\n\nbody\n\nTrailer: x\n") + &printed(&format!("{ID} {ID}"), "");
        let commits = parse_log(two.as_bytes()).unwrap();
        assert_eq!(commits.len(), 2);
        assert_eq!(commits[0].message, "first\n\nbody\n\nTrailer: x");
        assert_eq!(commits[0].parents.len(), 0);
        assert_eq!(commits[0].author.time, "1700000000 +0100");
        assert_eq!(commits[0].committed_at_s, 1_700_000_001);
        assert_eq!(commits[1].parents.len(), 2);
        assert_eq!(commits[1].message, "");
    }

    #[test]
    fn broken_logs_are_refused() {
        let whole = printed("", "m");
        for broken in [&whole[..whole.len() - 1], &whole[3..], "x", "\0"] {
            assert_eq!(parse_log(broken.as_bytes()), None, "{broken:?}");
        }
    }

    #[test]
    fn batches_are_read() {
        let printed = format!("{ID} blob 3\na\nb\nno:such missing\n{ID} blob 0\n\n");
        assert_eq!(
            parse_batch(printed.as_bytes()),
            Some(vec![Some(b"a\nb".to_vec()), None, Some(Vec::new())])
        );
        assert_eq!(parse_batch(format!("{ID} blob 30\na\n").as_bytes()), None);
    }

    #[test]
    fn signatures_cannot_break_out_of_their_line() {
        for (name, email, time, expected) in [
            ("Ann", "a@x", "5 +0000", "Ann <a@x> 5 +0000"),
            (
                "Ann\nparent x <",
                ">a@x\n",
                "5 -0730",
                "Annparent x <a@x> 5 -0730",
            ),
            ("", "a@x", "5", "a@x <a@x> 5 +0000"),
            ("", "", "-5 +0000", "unknown <> 0 +0000"),
            (" J. R. ", "a@x", "x y", "J. R <a@x> 0 +0000"),
        ] {
            let signature = Signature {
                name: name.to_owned(),
                email: email.to_owned(),
                time: time.to_owned(),
            };
            assert_eq!(signature.line(), expected);
        }
    }
}
