//! Reads refs, and changes several of them in one transaction that names every old value. Knows no pull requests.

use super::{Call, Git, GitError, is_object_id};
use std::collections::BTreeMap;
use std::path::Path;

/// Refs at one moment: full name to object id.
#[derive(Debug, Clone, Default)]
pub(crate) struct Refs(BTreeMap<String, String>);

impl Refs {
    /// The commit of a branch.
    pub(crate) fn branch(&self, name: &str) -> Option<&str> {
        self.get(&format!("refs/heads/{name}"))
    }

    /// The object a full ref name points at.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// What stands behind `prefix` in each name that has it, with the object id; sorted by name.
    pub(crate) fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0
            .range(prefix.to_owned()..)
            .map_while(move |(name, id)| Some((name.strip_prefix(prefix)?, id.as_str())))
    }
}

/// One part of a transaction.
#[derive(Debug, Clone)]
pub(crate) enum RefEdit {
    /// Must not exist yet.
    Create { name: String, new: String },
    /// Must be at `old`.
    Update { name: String, new: String, old: String },
    /// Must be at `old`.
    Delete { name: String, old: String },
    /// Must be at `old` and stays there.
    Verify { name: String, old: String },
}

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transaction {
    Done,
    /// A ref was not where it was expected, or another process holds its lock; nothing changed.
    Raced,
}

impl Git {
    /// All refs under the given prefixes (whole path components, such as `refs/heads`).
    pub(crate) async fn refs(&self, dir: &Path, prefixes: &[&str]) -> Result<Refs, GitError> {
        let args = ["for-each-ref", "--format=%(objectname) %(refname)"];
        let call = Call::new(args.iter().chain(prefixes)).within(dir);
        let printed = self.run(call).await?.success()?;
        let mut refs = BTreeMap::new();
        for line in printed
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            // Names that are not UTF-8 cannot cross the API; they stay reachable by git.
            let Ok(line) = std::str::from_utf8(line) else {
                continue;
            };
            let Some((id, name)) = line.split_once(' ') else {
                return Err(GitError::Unexpected {
                    what: "for-each-ref".to_owned(),
                });
            };
            refs.insert(name.to_owned(), id.to_owned());
        }
        Ok(Refs(refs))
    }

    /// The commit a full ref name points at.
    pub(crate) async fn ref_commit(&self, dir: &Path, name: &str) -> Result<Option<String>, GitError> {
        let spec = format!("{name}^{{commit}}");
        let call = Call::new(["rev-parse", "--verify", "--quiet", &spec]).within(dir);
        let finished = self.run(call).await?;
        let text = String::from_utf8_lossy(&finished.stdout).trim().to_owned();
        match finished.code {
            Some(0) if is_object_id(&text) => Ok(Some(text)),
            Some(1) | Some(128) => Ok(None),
            _ => Err(finished.failure()),
        }
    }

    /// All edits or none.
    pub(crate) async fn update_refs(&self, dir: &Path, edits: &[RefEdit]) -> Result<Transaction, GitError> {
        let call = Call::new(["update-ref", "--no-deref", "--stdin", "-z"])
            .within(dir)
            .stdin(script(edits));
        let finished = self.run(call).await?;
        if finished.code == Some(0) {
            return Ok(Transaction::Done);
        }
        match finished.failure() {
            GitError::Failed { stderr, .. } if is_race(&stderr) => Ok(Transaction::Raced),
            failure => Err(failure),
        }
    }
}

/// Input of `git update-ref --stdin -z` (git-update-ref(1)).
fn script(edits: &[RefEdit]) -> String {
    edits
        .iter()
        .map(|edit| match edit {
            RefEdit::Create { name, new } => format!("create {name}\0{new}\0"),
            RefEdit::Update { name, new, old } => format!("update {name}\0{new}\0{old}\0"),
            RefEdit::Delete { name, old } => format!("delete {name}\0{old}\0"),
            RefEdit::Verify { name, old } => format!("verify {name}\0{old}\0"),
        })
        .collect()
}

fn is_race(stderr: &str) -> bool {
    stderr.contains("cannot lock ref") || stderr.contains("Another git process seems to be running")
}
