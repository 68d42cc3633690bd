//! Whether two commits merge, remembered by their ids. Changes nothing.

use super::record::PullRecord;
use crate::forge::Forge;
use crate::git::GitError;
use crate::git::merge::TreeMerge;
use crate::git::refs::Refs;
use greenroom_protocol::client::pull_request::{Mergeability, PullRequestState};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Results kept in memory; past it the cache starts anew.
const MAX_CACHED: usize = 4096;

/// Results by base and head commit; such a triple never changes.
#[derive(Debug, Default)]
pub(crate) struct MergeabilityCache(Mutex<HashMap<(String, String), Mergeability>>);

impl MergeabilityCache {
    fn get(&self, key: &(String, String)) -> Option<Mergeability> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .cloned()
    }

    fn put(&self, key: (String, String), value: Mergeability) {
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if cached.len() >= MAX_CACHED {
            cached.clear();
        }
        cached.insert(key, value);
    }
}

impl Forge {
    /// Whether a pull request would merge now.
    pub(crate) async fn mergeability(
        &self,
        dir: &Path,
        refs: &Refs,
        record: &PullRecord,
    ) -> Result<Mergeability, GitError> {
        let branches = (refs.branch(&record.base_branch), refs.branch(&record.head_branch));
        match (record.state, branches) {
            (PullRequestState::Open, (Some(base), Some(head))) => self.merges(dir, base, head).await,
            _ => Ok(Mergeability::NotApplicable),
        }
    }

    /// Whether `head` merges into `base`; unrelated histories are `NotApplicable`.
    pub(crate) async fn merges(&self, dir: &Path, base: &str, head: &str) -> Result<Mergeability, GitError> {
        let key = (base.to_owned(), head.to_owned());
        if let Some(known) = self.inner.mergeabilities.get(&key) {
            return Ok(known);
        }
        let found = match self.git().merge_trees(dir, base, head).await? {
            TreeMerge::Conflicts(paths) => Mergeability::Conflicting { paths },
            TreeMerge::Unrelated => Mergeability::NotApplicable,
            TreeMerge::Clean(tree) if tree == self.git().tree_of(dir, base).await? => {
                Mergeability::NothingToMerge
            }
            TreeMerge::Clean(_) => Mergeability::Clean,
        };
        self.inner.mergeabilities.put(key, found.clone());
        Ok(found)
    }
}
