//! Answers one call: picks who does it and keeps every reply within one frame.

use crate::failure::{CallResult, failed};
use crate::process::table;
use crate::stream::Stream;
use crate::{exec, file, forward, search, service, usage, walk, watch};
use greenroom_protocol::guest::call::{Call, CallErrorCode, Reply};
use greenroom_protocol::guest::frame::MAX_PAYLOAD_BYTES;
use serde::Serialize;
use std::sync::Arc;

/// Bytes of JSON that a list in a reply may take, leaving room for what is around it.
const LIST_BUDGET_BYTES: usize = MAX_PAYLOAD_BYTES - 16 * 1024;

/// Whether a call is answered at once from memory and /proc, so that it needs no thread of its own.
pub fn is_quick(call: &Call) -> bool {
    matches!(
        call,
        Call::ListProcesses
            | Call::ReadProcess { .. }
            | Call::SignalProcess { .. }
            | Call::ResizeTerminal { .. }
            | Call::ListServices
            | Call::StopService { .. }
            | Call::ReadServiceLog { .. }
            | Call::MeasureProcesses
            | Call::Ping
    )
}

/// Runs on the call's own thread, to its end; a quick one on the link's.
pub fn serve(stream: &Arc<Stream>, call: Call) {
    let result = match call {
        Call::Exec(exec) if exec.is_background => table::spawn(&exec),
        Call::Exec(exec) if table::is_kept(&exec) => match table::run(stream, &exec) {
            Some(result) => result,
            None => return,
        },
        Call::Exec(exec) => exec::run(stream, &exec),
        Call::Attach {
            process_id,
            after_offset,
        } => match table::attach(stream, process_id, after_offset) {
            Some(result) => result,
            None => return,
        },
        Call::ResizeTerminal { process_id, size } => table::resize(process_id, size),
        Call::MeasureProcesses => usage::measure(),
        Call::ListProcesses => Ok(table::list()),
        Call::ReadProcess {
            process_id,
            after_offset,
            max_bytes,
        } => table::read(process_id, after_offset, max_bytes),
        Call::SignalProcess { process_id, signal } => table::signal(process_id, signal),
        Call::ReadFile {
            path,
            scope,
            offset,
            max_bytes,
        } => {
            match file::read(stream, &path, scope, offset, max_bytes) {
                // Its reply went out before the data.
                Ok(()) => return,
                Err(error) => Err(error),
            }
        }
        Call::WriteFile {
            path,
            scope,
            is_executable,
        } => file::write(stream, &path, scope, is_executable),
        Call::Stat { path, scope } => file::stat(&path, scope),
        Call::ListDirectory {
            path,
            scope,
            max_entries,
        } => file::list(&path, scope, max_entries),
        Call::Glob {
            path,
            scope,
            pattern,
            max_entries,
        } => search::glob(stream, &path, scope, &pattern, max_entries),
        Call::Grep(grep) => search::grep(stream, &grep),
        Call::Walk(asked) => walk::walk(stream, &asked),
        Call::Watch { path, scope } => match watch::watch(stream, &path, scope) {
            // Its reply went out before the changes.
            Ok(()) => return,
            Err(error) => Err(error),
        },
        Call::Forward { port } => match forward::forward(stream, port) {
            // Its reply went out before the bytes.
            Ok(()) => return,
            Err(error) => Err(error),
        },
        Call::Rename { from, to, scope } => file::rename(&from, &to, scope),
        Call::Remove { path, scope } => file::remove(&path, scope),
        Call::Ping => Ok(Reply::Done),
        Call::StartService(definition) => service::start(definition),
        Call::ListServices => Ok(service::list()),
        Call::StopService { name } => service::stop(&name),
        Call::ReadServiceLog {
            name,
            after_offset,
            max_bytes,
        } => service::read_log(&name, after_offset, max_bytes),
    };
    stream.reply(&result.unwrap_or_else(Reply::Failed));
}

/// A list that ends where a reply frame would become too large.
pub struct BoundedList<T> {
    pub items: Vec<T>,
    pub is_truncated: bool,
    bytes: usize,
    max_items: usize,
}

impl<T: Serialize> BoundedList<T> {
    pub fn new(max_items: u32) -> Self {
        Self {
            items: Vec::new(),
            is_truncated: false,
            bytes: 0,
            max_items: max_items as usize,
        }
    }

    /// Whether there is room for more; `false` also marks the list as cut off.
    pub fn push(&mut self, item: T) -> bool {
        // Plain data always encodes; if it did not, it would not fit either.
        let len = serde_json::to_vec(&item).map_or(LIST_BUDGET_BYTES, |json| json.len() + 1);
        if self.items.len() >= self.max_items || self.bytes + len > LIST_BUDGET_BYTES {
            self.is_truncated = true;
            return false;
        }
        self.bytes += len;
        self.items.push(item);
        true
    }
}

/// Refuses what no system call takes.
pub fn without_nul(text: &str) -> CallResult<&str> {
    match text.contains('\0') {
        true => Err(failed(
            CallErrorCode::Invalid,
            "a path or argument contains a NUL byte",
        )),
        false => Ok(text),
    }
}
