//! The calls without data that the workspace in memory answers.

use super::state::{State, failed, locate};
use greenroom_protocol::guest::call::{BackgroundProcess, Call, CallError, CallErrorCode, Exit, Reply};

impl State {
    pub(super) fn call(&mut self, call: Call) -> Result<Reply, CallError> {
        match call {
            Call::Stat { path, .. } => {
                let entry = self.entry(&locate(&path)?);
                let entry = entry.ok_or_else(|| failed(CallErrorCode::NotFound, &path, "does not exist"))?;
                Ok(Reply::Stat { entry })
            }
            Call::ListDirectory {
                path, max_entries, ..
            } => self.list(&path, max_entries),
            Call::Glob {
                path,
                pattern,
                max_entries,
                ..
            } => self.glob(&path, &pattern, max_entries),
            Call::Grep(search) => self.grep(&search),
            Call::Rename { from, to, .. } => self.rename(&from, &to),
            Call::Remove { path, .. } => self.remove(&path),
            Call::ReadProcess {
                process_id,
                after_offset,
                max_bytes,
            } => {
                let process = self.process(process_id)?;
                let length = process.output.len();
                let start = usize::try_from(after_offset).unwrap_or(length).min(length);
                let end = start
                    .saturating_add(usize::try_from(max_bytes).unwrap_or(length))
                    .min(length);
                let (start, end) = (
                    process.output.floor_char_boundary(start),
                    process.output.floor_char_boundary(end),
                );
                Ok(Reply::ProcessOutput {
                    start_offset: start as u64,
                    end_offset: end as u64,
                    output: process.output[start..end].to_owned(),
                    exit: process.exit.clone(),
                })
            }
            Call::SignalProcess { process_id, signal } => {
                let process = self.process(process_id)?;
                process.exit.get_or_insert(Exit {
                    code: None,
                    signal: Some(signal),
                    killed: None,
                    duration_ms: 1,
                    ..Exit::default()
                });
                Ok(Reply::Done)
            }
            Call::ListProcesses => Ok(Reply::Processes {
                left_behind: 0,
                processes: (1..)
                    .zip(&self.processes)
                    .map(|(process_id, process)| BackgroundProcess {
                        process_id,
                        argv: process.argv.clone(),
                        started_ms_ago: 0,
                        exit: process.exit.clone(),
                        key: process.key.clone(),
                        has_terminal: false,
                    })
                    .collect(),
            }),
            Call::Ping => Ok(Reply::Done),
            Call::Attach { .. }
            | Call::ResizeTerminal { .. }
            | Call::Walk(_)
            | Call::Watch { .. }
            | Call::Forward { .. }
            | Call::StartService(_)
            | Call::ListServices
            | Call::StopService { .. }
            | Call::ReadServiceLog { .. }
            | Call::MeasureProcesses => Err(CallError {
                code: CallErrorCode::Unsupported,
                message: "the fake has nothing that this call could reach".to_owned(),
            }),
            Call::Exec(_) | Call::ReadFile { .. } | Call::WriteFile { .. } => Err(CallError {
                code: CallErrorCode::Invalid,
                message: "this call carries data and has a method of its own".to_owned(),
            }),
        }
    }

    fn list(&self, path: &str, max_entries: u32) -> Result<Reply, CallError> {
        let at = locate(path)?;
        if self.files.contains_key(&at) {
            return Err(failed(CallErrorCode::NotDirectory, path, "is not in a directory"));
        }
        if !self.is_directory(&at) {
            return Err(failed(CallErrorCode::NotFound, path, "does not exist"));
        }
        let entries = self
            .names_in(&at)
            .into_iter()
            .filter_map(|name| {
                let path = if at.is_empty() {
                    name
                } else {
                    format!("{at}/{name}")
                };
                self.entry(&path)
            })
            .collect();
        let (entries, is_truncated) = bounded(entries, max_entries);
        Ok(Reply::Entries {
            entries,
            is_truncated,
        })
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<Reply, CallError> {
        let (old, new) = (locate(from)?, locate(to)?);
        if let Some(error) = self.failures.get(&old) {
            return Err(error.clone());
        }
        self.may_write(&new, to)?;
        if !self.files.contains_key(&old) && self.is_directory(&old) {
            return Err(failed(
                CallErrorCode::Invalid,
                from,
                "the workspace in memory renames only files",
            ));
        }
        let content = self
            .files
            .remove(&old)
            .ok_or_else(|| failed(CallErrorCode::NotFound, from, "does not exist"))?;
        self.put(&new, content);
        Ok(Reply::Done)
    }

    fn remove(&mut self, path: &str) -> Result<Reply, CallError> {
        let at = locate(path)?;
        if let Some(error) = self.failures.get(&at) {
            return Err(error.clone());
        }
        if self.files.remove(&at).is_some() {
            return Ok(Reply::Done);
        }
        if !self.is_directory(&at) {
            return Err(failed(CallErrorCode::NotFound, path, "does not exist"));
        }
        if !self.names_in(&at).is_empty() {
            return Err(failed(
                CallErrorCode::IsDirectory,
                path,
                "is a directory that is not empty",
            ));
        }
        self.directories.remove(&at);
        Ok(Reply::Done)
    }
}

/// At most `max` of them, and whether there were more.
pub(super) fn bounded<T>(mut found: Vec<T>, max: u32) -> (Vec<T>, bool) {
    let is_truncated = found.len() > max as usize;
    found.truncate(max as usize);
    (found, is_truncated)
}
