//! Tells of files that change in the workspace, without flooding the log.

use super::command::SessionHandle;
use crate::sandbox::{Sandbox, SandboxError};
use greenroom_protocol::client::event::EventBody;
use greenroom_protocol::guest::WORKSPACE_PATH;
use greenroom_protocol::guest::call::{Change, ChangeBatch, ChangeKind, Scope};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Files named in one event.
const MAX_FILES: usize = 100;
/// Bytes of their paths; one path may have 4,096.
const MAX_PATH_BYTES: usize = 16 * 1024;
/// Between two events, at first and at last.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// After so many events the pause is as much longer again: a program that writes all night fills no log.
const EVENTS_PER_PAUSE: u32 = 50;

/// Follows the workspace until the sandbox or the session is gone.
pub async fn follow(sandbox: Arc<dyn Sandbox>, handle: SessionHandle) {
    let mut changes = match sandbox.watch(WORKSPACE_PATH, Scope::Workspace).await {
        Ok(changes) => changes,
        // Stopped before the watch began; whoever holds the sandbox says so.
        Err(SandboxError::Lost(_)) => return,
        Err(SandboxError::Call(error)) => {
            tracing::warn!(session = %handle.id, "changes of files are not told: {}", error.message);
            return;
        }
    };
    let mut told = 0;
    let mut not_before = Instant::now();
    loop {
        let batch = tokio::select! {
            batch = changes.next() => batch,
            () = handle.closed() => return,
        };
        let Ok(Some(batch)) = batch else { return };
        let mut gathered = Gathered::default();
        gathered.take(batch);
        let is_over = loop {
            let next = tokio::select! {
                next = timeout_at(not_before, changes.next()) => next,
                () = handle.closed() => return,
            };
            match next {
                Ok(Ok(Some(batch))) => gathered.take(batch),
                Ok(_) => break true,
                Err(_) => break false,
            }
        };
        if let Some(event) = gathered.event() {
            handle.tell(vec![event], "changes of files").await;
            told += 1;
            not_before = Instant::now() + pause(told);
        }
        if is_over {
            return;
        }
    }
}

fn pause(told: u32) -> Duration {
    (SHORTEST_PAUSE * (1 + told / EVENTS_PER_PAUSE)).min(LONGEST_PAUSE)
}

/// Changes that wait to be told, each path once.
#[derive(Debug, Default)]
struct Gathered {
    files: BTreeMap<String, ChangeKind>,
    path_bytes: usize,
    is_incomplete: bool,
}

impl Gathered {
    fn take(&mut self, batch: ChangeBatch) {
        self.is_incomplete |= batch.is_incomplete;
        for Change { path, kind } in batch.changes {
            if let Some(before) = self.files.get_mut(&path) {
                match before.then(kind) {
                    Some(kind) => *before = kind,
                    None => {
                        self.path_bytes -= path.len();
                        self.files.remove(&path);
                    }
                }
            } else if self.files.len() >= MAX_FILES || self.path_bytes + path.len() > MAX_PATH_BYTES {
                self.is_incomplete = true;
            } else {
                self.path_bytes += path.len();
                self.files.insert(path, kind);
            }
        }
    }

    /// `None`: all that came is gone again.
    fn event(self) -> Option<EventBody> {
        if self.files.is_empty() && !self.is_incomplete {
            return None;
        }
        let files = self.files.into_iter();
        Some(EventBody::WorkspaceChanged {
            files: files.map(|(path, kind)| Change { path, kind }).collect(),
            is_incomplete: self.is_incomplete,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ChangeKind::{Created, Modified, Removed};

    fn batch(changes: &[(&str, ChangeKind)]) -> ChangeBatch {
        ChangeBatch {
            changes: changes
                .iter()
                .map(|(path, kind)| Change {
                    path: (*path).to_owned(),
                    kind: *kind,
                })
                .collect(),
            is_incomplete: false,
        }
    }

    fn told(batches: Vec<ChangeBatch>) -> Option<(Vec<(String, ChangeKind)>, bool)> {
        let mut gathered = Gathered::default();
        batches.into_iter().for_each(|batch| gathered.take(batch));
        match gathered.event()? {
            EventBody::WorkspaceChanged { files, is_incomplete } => {
                let files = files.into_iter().map(|Change { path, kind }| (path, kind));
                Some((files.collect(), is_incomplete))
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn batches_become_one_event_in_which_each_path_stands_once() {
        let batches = vec![
            batch(&[("b", Created), ("a", Modified), ("gone", Created)]),
            batch(&[
                ("b", Modified),
                ("a", Removed),
                ("gone", Removed),
                ("back", Removed),
            ]),
            batch(&[("back", Created)]),
        ];
        let files = [("a", Removed), ("b", Created), ("back", Modified)];
        let files = files.map(|(path, kind)| (path.to_owned(), kind)).to_vec();
        assert_eq!(told(batches), Some((files, false)));
        assert_eq!(
            told(vec![batch(&[("x", Created)]), batch(&[("x", Removed)])]),
            None
        );
    }

    #[test]
    fn what_does_not_fit_is_said_to_be_missing() {
        let names: Vec<_> = (0..MAX_FILES + 1).map(|number| format!("{number:04}")).collect();
        let many: Vec<_> = names.iter().map(|name| (name.as_str(), Created)).collect();
        let (files, is_incomplete) = told(vec![batch(&many)]).unwrap();
        assert_eq!((files.len(), is_incomplete), (MAX_FILES, true));
        let long: Vec<_> = ["a", "b", "c", "d", "e"]
            .map(|letter| letter.repeat(4_000))
            .to_vec();
        let long: Vec<_> = long.iter().map(|name| (name.as_str(), Created)).collect();
        let (files, is_incomplete) = told(vec![batch(&long)]).unwrap();
        assert_eq!((files.len(), is_incomplete), (4, true));
        let lost = ChangeBatch {
            changes: Vec::new(),
            is_incomplete: true,
        };
        assert_eq!(told(vec![lost]), Some((Vec::new(), true)));
    }

    #[test]
    fn the_more_was_told_the_less_often_more_is() {
        for (told, seconds) in [(0, 1), (49, 1), (50, 2), (500, 11), (10_000, 60), (u32::MAX, 60)] {
            assert_eq!(pause(told), Duration::from_secs(seconds), "{told}");
        }
    }
}
