//! What the workspace in memory holds, and where paths lead in it.

use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::guest::WORKSPACE_PATH;
use greenroom_protocol::guest::call::{CallError, CallErrorCode, Entry, EntryKind, Exec, Exit};
use std::collections::{BTreeMap, BTreeSet, HashMap};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) bytes: Vec<u8>,
    pub(super) is_executable: bool,
}

#[derive(Debug)]
pub(super) struct Process {
    pub(super) argv: Vec<String>,
    pub(super) output: String,
    pub(super) exit: Option<Exit>,
    pub(super) key: Option<String>,
}

/// All that the workspace holds.
#[derive(Debug, Default)]
pub(super) struct State {
    /// By path relative to the workspace.
    pub(super) files: BTreeMap<String, Content>,
    /// Directories made, empty or not; those of files need not be here.
    pub(super) directories: BTreeSet<String>,
    /// Process `n` is at `n - 1`.
    pub(super) processes: Vec<Process>,
    pub(super) execs: Vec<Exec>,
    /// Failures of changes, by path.
    pub(super) failures: HashMap<String, CallError>,
    pub(super) lost: Option<Problem>,
}

impl State {
    pub(super) fn is_directory(&self, path: &str) -> bool {
        let prefix = format!("{path}/");
        path.is_empty()
            || self.directories.contains(path)
            || self.files.keys().any(|file| file.starts_with(&prefix))
    }

    pub(super) fn put(&mut self, path: &str, content: Content) {
        let mut rest = path;
        while let Some((parent, _)) = rest.rsplit_once('/') {
            self.directories.insert(parent.to_owned());
            rest = parent;
        }
        self.files.insert(path.to_owned(), content);
    }

    /// Whether `at` may be written: it is no directory, and nothing above it is a file.
    pub(super) fn may_write(&self, at: &str, shown: &str) -> Result<(), CallError> {
        if let Some(error) = self.failures.get(at) {
            return Err(error.clone());
        }
        if at.is_empty() || self.is_directory(at) {
            return Err(failed(CallErrorCode::IsDirectory, shown, "is a directory"));
        }
        let above = at.match_indices('/').map(|(end, _)| &at[..end]);
        for directory in above {
            if self.files.contains_key(directory) {
                return Err(failed(
                    CallErrorCode::NotDirectory,
                    shown,
                    "is not in a directory",
                ));
            }
        }
        Ok(())
    }

    pub(super) fn entry(&self, path: &str) -> Option<Entry> {
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        let (kind, size_bytes, is_executable) = match self.files.get(path) {
            Some(file) => (EntryKind::File, file.bytes.len() as u64, file.is_executable),
            None if self.is_directory(path) => (EntryKind::Directory, 0, false),
            None => return None,
        };
        Some(Entry {
            name,
            kind,
            size_bytes,
            is_executable,
            modified_at_ms: 0,
            link_target: None,
        })
    }

    pub(super) fn names_in(&self, directory: &str) -> BTreeSet<String> {
        let prefix = if directory.is_empty() {
            String::new()
        } else {
            format!("{directory}/")
        };
        self.files
            .keys()
            .chain(&self.directories)
            .filter_map(|path| path.strip_prefix(&prefix))
            .filter_map(|rest| rest.split('/').next())
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect()
    }

    pub(super) fn process(&mut self, process_id: u32) -> Result<&mut Process, CallError> {
        let index = (process_id as usize).checked_sub(1);
        index
            .and_then(|index| self.processes.get_mut(index))
            .ok_or_else(|| CallError {
                code: CallErrorCode::NotFound,
                message: format!("there is no background process {process_id}"),
            })
    }
}

/// A path relative to the workspace; empty: the workspace itself.
pub(super) fn locate(path: &str) -> Result<String, CallError> {
    let outside = || failed(CallErrorCode::OutsideWorkspace, path, "is outside the workspace");
    let inside = match path.strip_prefix(WORKSPACE_PATH) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => rest,
        _ if path.starts_with('/') => return Err(outside()),
        _ => path,
    };
    let mut parts = Vec::new();
    for part in inside.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop().ok_or_else(outside)?;
            }
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

pub(super) fn failed(code: CallErrorCode, path: &str, message: &str) -> CallError {
    CallError {
        code,
        message: format!("{path}: {message}"),
    }
}
