//! Changes that wait for the next batch: each path once, seen from the last batch, within bounded memory.

use greenroom_protocol::guest::call::{Change, ChangeBatch, ChangeKind};
use std::collections::BTreeMap;
use std::path::Path;

/// Bytes of paths kept; what comes beyond is not, and the batch says so.
const MAX_PENDING_BYTES: usize = 1 << 20;

/// Bytes of paths in one batch; JSON may write each byte as six.
const BATCH_BYTES: usize = 32 << 10;

#[derive(Debug, Default)]
pub struct Pending {
    changes: BTreeMap<String, ChangeKind>,
    bytes: usize,
    is_incomplete: bool,
}

impl Pending {
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && !self.is_incomplete
    }

    /// Something was lost.
    pub fn mark_incomplete(&mut self) {
        self.is_incomplete = true;
    }

    pub fn note(&mut self, path: &Path, kind: ChangeKind) {
        let path = path.to_string_lossy().into_owned();
        let merged = match self.changes.get(&path) {
            None => Some(kind),
            Some(before) => before.then(kind),
        };
        match merged {
            Some(kind) => {
                if !self.changes.contains_key(&path) {
                    if self.bytes + path.len() > MAX_PENDING_BYTES {
                        self.is_incomplete = true;
                        return;
                    }
                    self.bytes += path.len();
                }
                self.changes.insert(path, kind);
            }
            None => {
                self.bytes -= path.len();
                self.changes.remove(&path);
            }
        }
    }

    /// The next batch: the first changes in order, as many as fit.
    pub fn take(&mut self) -> ChangeBatch {
        let mut batch = ChangeBatch {
            changes: Vec::new(),
            is_incomplete: std::mem::take(&mut self.is_incomplete),
        };
        let mut bytes = 0;
        while let Some(first) = self.changes.first_entry() {
            if bytes > 0 && bytes + first.key().len() > BATCH_BYTES {
                break;
            }
            let (path, kind) = first.remove_entry();
            bytes += path.len();
            self.bytes -= path.len();
            batch.changes.push(Change { path, kind });
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ChangeKind::{Created, Modified, Removed};

    #[test]
    fn a_path_is_told_once_as_seen_from_the_last_batch() {
        for (seen, expected) in [
            (vec![Created], Some(Created)),
            (vec![Created, Modified, Modified], Some(Created)),
            (vec![Created, Modified, Removed], None),
            (vec![Created, Removed, Created], Some(Created)),
            (vec![Modified, Modified], Some(Modified)),
            (vec![Modified, Removed], Some(Removed)),
            (vec![Removed, Created], Some(Modified)),
            (vec![Removed, Created, Removed], Some(Removed)),
        ] {
            let mut pending = Pending::default();
            for kind in &seen {
                pending.note(Path::new("a"), *kind);
            }
            let kinds: Vec<_> = pending
                .take()
                .changes
                .into_iter()
                .map(|change| change.kind)
                .collect();
            assert_eq!(kinds, Vec::from_iter(expected), "{seen:?}");
            assert!(pending.is_empty() && pending.bytes == 0, "{seen:?}");
        }
    }

    #[test]
    fn memory_and_batches_are_bounded() {
        let mut pending = Pending::default();
        for number in 0..20_000 {
            pending.note(Path::new(&format!("{number:0>100}")), Created);
        }
        assert!(pending.bytes <= MAX_PENDING_BYTES);
        let mut last = String::new();
        let mut batches = Vec::new();
        while !pending.is_empty() {
            let batch = pending.take();
            assert!(serde_json::to_vec(&batch).unwrap().len() < 6 * BATCH_BYTES);
            for change in &batch.changes {
                assert!(change.path > last);
                last.clone_from(&change.path);
            }
            batches.push(batch);
        }
        assert!(batches.len() > 10);
        assert!(batches[0].is_incomplete && !batches[1].is_incomplete);
    }
}
