//! How a pull request is stored: `pull.json` in the commits of `refs/greenroom/pulls/<n>`. Decides nothing.

use super::error::PullRequestError;
use crate::forge::Forge;
use crate::git::GitError;
use crate::git::commits::{NewCommit, Signature};
use crate::git::refs::Refs;
use greenroom_protocol::client::person::Person;
use greenroom_protocol::client::pull_request::{Comment, MergeRecord, PullRequestState, Review};
use greenroom_protocol::id::SessionId;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Folder of the refs that hold pull requests, hidden from git clients.
pub(crate) const PULLS: &str = "refs/greenroom/pulls";
/// Folder of the refs that announce a merge about to happen.
pub(crate) const MERGING: &str = "refs/greenroom/merging";
/// The only file of a record's tree.
const FILE: &str = "pull.json";
/// Records kept in memory; past it the cache starts anew.
const MAX_CACHED: usize = 4096;

/// A pull request as stored. What follows from refs (head, mergeability) is not in it while it is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PullRecord {
    pub(crate) generation: u32,
    pub(crate) number: u64,
    pub(crate) title: String,
    pub(crate) body: String,
    pub(crate) state: PullRequestState,
    pub(crate) author: Person,
    pub(crate) session: Option<SessionId>,
    pub(crate) prompted_by: Vec<Person>,
    pub(crate) head_branch: String,
    pub(crate) base_branch: String,
    /// Where the branches were when it was opened, merged or closed, whichever came last.
    pub(crate) head_commit: String,
    pub(crate) base_commit: String,
    pub(crate) comments: Vec<Comment>,
    pub(crate) reviews: Vec<Review>,
    pub(crate) merge: Option<MergeRecord>,
    pub(crate) idempotency_key: Option<String>,
    pub(crate) created_at_ms: i64,
    pub(crate) updated_at_ms: i64,
}

/// Generation of [`PullRecord`] that this version writes.
pub(crate) const GENERATION: u32 = 1;

impl PullRecord {
    /// The head now: of an open one the branch, or where it last was; else as recorded.
    pub(crate) fn head_now(&self, refs: &Refs) -> String {
        let live = match self.state {
            PullRequestState::Open => refs
                .branch(&self.head_branch)
                .or_else(|| refs.get(&mirror_ref(self.number))),
            PullRequestState::Merged | PullRequestState::Closed => None,
        };
        live.unwrap_or(&self.head_commit).to_owned()
    }

    /// The base now, by the same rule.
    pub(crate) fn base_now(&self, refs: &Refs) -> String {
        let live = match self.state {
            PullRequestState::Open => refs.branch(&self.base_branch),
            PullRequestState::Merged | PullRequestState::Closed => None,
        };
        live.unwrap_or(&self.base_commit).to_owned()
    }
}

/// A record and the commit that holds it.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) record: Arc<PullRecord>,
    pub(crate) commit: String,
}

/// Records by the commit that holds them; such a pair never changes.
#[derive(Debug, Default)]
pub(crate) struct RecordCache(Mutex<HashMap<String, Arc<PullRecord>>>);

impl RecordCache {
    fn get(&self, commit: &str) -> Option<Arc<PullRecord>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(commit)
            .cloned()
    }

    fn put(&self, commit: &str, record: Arc<PullRecord>) {
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if cached.len() >= MAX_CACHED {
            cached.clear();
        }
        cached.insert(commit.to_owned(), record);
    }
}

/// The ref that holds a pull request.
pub(crate) fn pull_ref(number: u64) -> String {
    format!("{PULLS}/{number}")
}

/// The ref under which git clients find a pull request's head.
pub(crate) fn mirror_ref(number: u64) -> String {
    format!("refs/pull/{number}/head")
}

/// The ref that announces a merge.
pub(crate) fn merging_ref(number: u64) -> String {
    format!("{MERGING}/{number}")
}

impl Forge {
    /// One pull request as `refs` have it.
    pub(crate) async fn load(
        &self,
        dir: &Path,
        refs: &Refs,
        number: u64,
    ) -> Result<Stored, PullRequestError> {
        let commit = refs
            .get(&pull_ref(number))
            .ok_or(PullRequestError::Unknown { number })?;
        self.load_commit(dir, number, commit).await
    }

    /// The pull request that a record commit holds.
    pub(crate) async fn load_commit(
        &self,
        dir: &Path,
        number: u64,
        commit: &str,
    ) -> Result<Stored, PullRequestError> {
        let mut stored = self.load_commits(dir, vec![(number, commit.to_owned())]).await?;
        stored.pop().ok_or(PullRequestError::Unknown { number })
    }

    /// All pull requests as `refs` have them, sorted by number.
    pub(crate) async fn load_all(&self, dir: &Path, refs: &Refs) -> Result<Vec<Stored>, PullRequestError> {
        let prefix = format!("{PULLS}/");
        let mut wanted: Vec<(u64, String)> = refs
            .under(&prefix)
            .filter_map(|(number, commit)| Some((number.parse().ok()?, commit.to_owned())))
            .collect();
        wanted.sort_unstable();
        self.load_commits(dir, wanted).await
    }

    async fn load_commits(
        &self,
        dir: &Path,
        wanted: Vec<(u64, String)>,
    ) -> Result<Vec<Stored>, PullRequestError> {
        let cache = &self.inner.records;
        let missing: Vec<&(u64, String)> = wanted
            .iter()
            .filter(|(_, commit)| cache.get(commit).is_none())
            .collect();
        let specs: Vec<String> = missing
            .iter()
            .map(|(_, commit)| format!("{commit}:{FILE}"))
            .collect();
        let contents = self.git().contents(dir, &specs).await?;
        let mut fresh = HashMap::new();
        for ((number, commit), content) in missing.into_iter().zip(contents) {
            let content = content.unwrap_or_default();
            let number = *number;
            let record: PullRecord = serde_json::from_slice(&content)
                .map_err(|source| PullRequestError::Record { number, source })?;
            let record = Arc::new(record);
            cache.put(commit, Arc::clone(&record));
            fresh.insert(commit.clone(), record);
        }
        let stored = wanted.into_iter().filter_map(|(_, commit)| {
            let record = fresh.get(&commit).cloned().or_else(|| cache.get(&commit))?;
            Some(Stored { record, commit })
        });
        Ok(stored.collect())
    }

    /// Writes a record as a commit on `previous`; `keep` are commits it must keep from being pruned. Moves no ref.
    pub(crate) async fn write_pull(
        &self,
        dir: &Path,
        record: &PullRecord,
        previous: Option<&str>,
        keep: &[&str],
        (by, message): (&Person, &str),
    ) -> Result<String, PullRequestError> {
        let number = record.number;
        let json = serde_json::to_vec_pretty(record)
            .map_err(|source| PullRequestError::Record { number, source })?;
        let blob = self.git().write_object(dir, "blob", json).await?;
        let tree = self.git().write_object(dir, "tree", tree_of(&blob)?).await?;
        let mut parents: Vec<&str> = previous.into_iter().collect();
        for commit in keep {
            if !parents.contains(commit) {
                parents.push(commit);
            }
        }
        let who = Signature::at(&by.name, &by.email, record.updated_at_ms);
        let commit = NewCommit {
            tree: &tree,
            parents: &parents,
            author: &who,
            committer: &who,
            message,
        };
        Ok(self.git().write_commit(dir, &commit).await?)
    }
}

/// A tree object with the record as its only entry: mode, name, NUL, 20 bytes of id (gitformat-tree).
fn tree_of(blob: &str) -> Result<Vec<u8>, GitError> {
    let mut tree = format!("100644 {FILE}\0").into_bytes();
    for position in (0..blob.len()).step_by(2) {
        let byte = blob
            .get(position..position + 2)
            .and_then(|digits| u8::from_str_radix(digits, 16).ok())
            .ok_or_else(|| GitError::Unexpected {
                what: "hash-object".to_owned(),
            })?;
        tree.push(byte);
    }
    Ok(tree)
}
