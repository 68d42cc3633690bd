//! Merges trees and replays commits without a working tree. Writes objects only; moves no ref.

use super::commits::{CommitRecord, MAX_COMMITS, NewCommit, Signature};
use super::{Call, Git, GitError, is_object_id};
use std::path::Path;

/// How a merge of two commits comes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TreeMerge {
    /// The id of the merged tree.
    Clean(String),
    /// Paths that conflict, sorted, at least one.
    Conflicts(Vec<String>),
    /// The two have no common ancestor.
    Unrelated,
}

/// How replaying a branch comes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Replay {
    /// The id of the last new commit; that of the base if every commit was there already.
    Tip(String),
    /// Paths that conflict at the first commit that does not apply, sorted.
    Conflicts(Vec<String>),
}

impl Git {
    /// Merges two commits by their merge base.
    pub(crate) async fn merge_trees(
        &self,
        dir: &Path,
        ours: &str,
        theirs: &str,
    ) -> Result<TreeMerge, GitError> {
        let args = [
            "merge-tree",
            "--write-tree",
            "-z",
            "--name-only",
            "--no-messages",
            ours,
            theirs,
        ];
        let finished = self.run(Call::new(args).within(dir)).await?;
        match finished.code {
            Some(0 | 1) if !finished.stdout.is_empty() => {
                parse_merge_tree(&finished.stdout).ok_or_else(|| GitError::Unexpected {
                    what: "merge-tree".to_owned(),
                })
            }
            _ if finished.stderr.contains("unrelated histories") => Ok(TreeMerge::Unrelated),
            _ => Err(finished.failure()),
        }
    }

    /// Replays the commits of `base..head` on `base`, authors and messages kept, `committer` as committer. Merge
    /// commits are left out, and so are commits whose change the base has already.
    pub(crate) async fn replay(
        &self,
        dir: &Path,
        base: &str,
        head: &str,
        committer: &Signature,
    ) -> Result<Replay, GitError> {
        let commits = self.log(dir, Some(base), head, MAX_COMMITS).await?;
        let mut tip = base.to_owned();
        let mut tip_tree = self.tree_of(dir, base).await?;
        for commit in commits.iter().filter(|commit| commit.parents.len() < 2) {
            let parent_tree = match commit.parents.first() {
                Some(parent) => self.tree_of(dir, parent).await?,
                None => self.write_object(dir, "tree", Vec::new()).await?,
            };
            let tree = match self
                .apply(dir, &parent_tree, &tip_tree, commit, committer)
                .await?
            {
                TreeMerge::Clean(tree) => tree,
                TreeMerge::Conflicts(paths) => return Ok(Replay::Conflicts(paths)),
                // The two synthetic commits share their parent.
                TreeMerge::Unrelated => {
                    return Err(GitError::Unexpected {
                        what: "merge-tree".to_owned(),
                    });
                }
            };
            let was_empty = commit.tree == parent_tree;
            if tree == tip_tree && !was_empty {
                continue;
            }
            let parents = [tip.as_str()];
            let new = NewCommit {
                tree: &tree,
                parents: &parents,
                author: &commit.author,
                committer,
                message: &commit.message,
            };
            tip = self.write_commit(dir, &new).await?;
            tip_tree = tree;
        }
        Ok(Replay::Tip(tip))
    }

    /// The tree of `commit`'s change made to `ours`. git 2.39 has no `merge-tree --merge-base`, so two commits
    /// with the wanted merge base are made up; nothing ever refers to them.
    async fn apply(
        &self,
        dir: &Path,
        parent_tree: &str,
        ours: &str,
        commit: &CommitRecord,
        committer: &Signature,
    ) -> Result<TreeMerge, GitError> {
        if parent_tree == ours {
            return Ok(TreeMerge::Clean(commit.tree.clone()));
        }
        let made_up = |tree| (tree, committer);
        let base = self.make_up(dir, made_up(parent_tree), &[]).await?;
        let ours = self.make_up(dir, made_up(ours), &[&base]).await?;
        let theirs = self.make_up(dir, made_up(&commit.tree), &[&base]).await?;
        self.merge_trees(dir, &ours, &theirs).await
    }

    async fn make_up(
        &self,
        dir: &Path,
        (tree, by): (&str, &Signature),
        parents: &[&str],
    ) -> Result<String, GitError> {
        let commit = NewCommit {
            tree,
            parents,
            author: by,
            committer: by,
            message: "made up for a replay",
        };
        self.write_commit(dir, &commit).await
    }
}

/// Output of `git merge-tree --write-tree -z --name-only --no-messages`: a tree id, then the conflicting paths.
fn parse_merge_tree(printed: &[u8]) -> Option<TreeMerge> {
    let mut fields = printed
        .split(|byte| *byte == 0)
        .map(|field| String::from_utf8_lossy(field).into_owned());
    let tree = fields.next()?;
    if !is_object_id(&tree) {
        return None;
    }
    let mut paths: Vec<String> = fields.filter(|path| !path.is_empty()).collect();
    if paths.is_empty() {
        return Some(TreeMerge::Clean(tree));
    }
    paths.sort();
    paths.dedup();
    Some(TreeMerge::Conflicts(paths))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merge_results_are_read() {
        let tree = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";
        let conflicts =
            |paths: &[&str]| TreeMerge::Conflicts(paths.iter().map(|p| (*p).to_owned()).collect());
        for (printed, expected) in [
            (format!("{tree}\0"), Some(TreeMerge::Clean(tree.to_owned()))),
            (format!("{tree}\0z\0a b\0z\0"), Some(conflicts(&["a b", "z"]))),
            ("nonsense\0".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(parse_merge_tree(printed.as_bytes()), expected, "{printed:?}");
        }
    }
}
