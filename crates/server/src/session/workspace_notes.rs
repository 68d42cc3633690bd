//! What the agent read while its workspace was brought to the newest commit, and what it must hear of that. Pure.

use greenroom_protocol::guest::WORKSPACE_PATH;
use greenroom_protocol::guest::call::Call;
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Files that one note names.
const MAX_NAMED: usize = 10;

/// Reads of one start of a sandbox.
#[derive(Debug, Default)]
pub struct WorkspaceNotes(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Relative to the workspace.
    files: BTreeSet<String>,
    /// Whether many were looked at at once: a list, a search.
    has_searched: bool,
    notes: Vec<String>,
}

impl WorkspaceNotes {
    /// A file was read.
    pub fn file(&self, path: &str) {
        self.lock().files.insert(relative(path));
    }

    /// Something else was asked.
    pub fn call(&self, call: &Call) {
        match call {
            Call::Stat { path, .. } => self.file(path),
            Call::ListDirectory { .. } | Call::Glob { .. } | Call::Grep(_) | Call::Walk(_) => {
                self.lock().has_searched = true;
            }
            _ => {}
        }
    }

    /// The workspace has the newest commit now; these files differ from what could be read before.
    pub fn settled(&self, changed: &[String]) {
        let mut state = self.lock();
        let stale: Vec<_> = changed
            .iter()
            .filter(|path| state.files.contains(*path))
            .cloned()
            .collect();
        if !stale.is_empty() {
            let named = stale
                .iter()
                .take(MAX_NAMED)
                .cloned()
                .collect::<Vec<_>>()
                .join(", ");
            let more = match stale.len().saturating_sub(MAX_NAMED) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            state.notes.push(format!(
                "while you read, the workspace was brought to the newest commit, and what you saw of these files is out of date; \
                 read them again: {named}{more}"
            ));
        }
        if state.has_searched && !changed.is_empty() {
            state.notes.push(format!(
                "while you searched, the workspace was brought to the newest commit, which changed {} files; lists and searches \
                 from before may be out of date",
                changed.len()
            ));
        }
        state.files.clear();
        state.has_searched = false;
    }

    /// Something else that the model is to hear with its next result.
    pub fn note(&self, note: String) {
        self.lock().notes.push(note);
    }

    /// What is to be told, once.
    pub fn take_notes(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().notes)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn relative(path: &str) -> String {
    let inside = path
        .strip_prefix(WORKSPACE_PATH)
        .map(|rest| rest.trim_start_matches('/'));
    inside.unwrap_or(path).trim_start_matches("./").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use greenroom_protocol::guest::call::Scope;

    #[test]
    fn only_what_was_read_and_changed_is_told_and_once() {
        let reads = WorkspaceNotes::default();
        reads.settled(&["a".to_owned()]);
        assert!(reads.take_notes().is_empty(), "nothing was read");
        for path in ["a", "./b/c", "/workspace/d", "e"] {
            reads.file(path);
        }
        reads.settled(&["b/c", "d", "x"].map(str::to_owned));
        let notes = reads.take_notes();
        assert!(notes.len() == 1 && notes[0].ends_with(": b/c, d"), "{notes:?}");
        assert!(reads.take_notes().is_empty());
        reads.settled(&["a".to_owned()]);
        assert!(reads.take_notes().is_empty(), "the next start begins anew");

        reads.call(&Call::ListDirectory {
            path: String::new(),
            scope: Scope::Workspace,
            max_entries: 10,
        });
        reads.settled(&[]);
        assert!(reads.take_notes().is_empty(), "nothing changed");
        reads.call(&Call::ListDirectory {
            path: String::new(),
            scope: Scope::Workspace,
            max_entries: 10,
        });
        reads.settled(&["x".to_owned()]);
        assert!(reads.take_notes()[0].contains("changed 1 files"));
    }
}
