//! Processes that outlive their call and their link, with the last part of their output.

use crate::exec::{self, Output};
use crate::failure::{CallResult, failed};
use crate::reaper;
use crate::wake::Wake;
use greenroom_protocol::guest::call::{BackgroundProcess, CallError, CallErrorCode, Exec, Exit, Reply};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Output kept per process.
const BUFFER_BYTES: usize = 1 << 20;

/// Output in one reply: JSON may write each byte as six.
const READ_BYTES: usize = 40 * 1024;

/// Processes remembered; beyond it the oldest that ended is forgotten, or the new one refused.
const MAX_PROCESSES: usize = 64;

/// Characters of a command line that are shown.
const SHOWN_ARGUMENT_CHARS: usize = 200;
const SHOWN_ARGUMENTS: usize = 8;

static TABLE: Mutex<Table> = Mutex::new(Table {
    last_id: 0,
    processes: BTreeMap::new(),
});

struct Table {
    last_id: u32,
    processes: BTreeMap<u32, Arc<Process>>,
}

struct Process {
    argv: Vec<String>,
    pid: i32,
    started: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    output: VecDeque<u8>,
    /// Offset of the first kept byte.
    start_offset: u64,
    exit: Option<Exit>,
}

fn table() -> MutexGuard<'static, Table> {
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Process {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn keep(&mut self, bytes: &[u8]) {
        self.output.extend(bytes);
        let excess = self.output.len().saturating_sub(BUFFER_BYTES);
        self.output.drain(..excess);
        self.start_offset += excess as u64;
    }

    /// Kept output from `after_offset`, cut at a character where possible: start, end, text.
    fn read(&self, after_offset: u64, max_bytes: usize) -> (u64, u64, String) {
        let newest = self.start_offset + self.output.len() as u64;
        let start = after_offset.clamp(self.start_offset, newest);
        let skip = (start - self.start_offset) as usize;
        let mut bytes: Vec<u8> = self.output.iter().skip(skip).take(max_bytes).copied().collect();
        let whole = bytes.len() - incomplete_tail(&bytes);
        let is_last = start + bytes.len() as u64 == newest && self.exit.is_some();
        if whole > 0 && !is_last {
            bytes.truncate(whole);
        }
        (
            start,
            start + bytes.len() as u64,
            String::from_utf8_lossy(&bytes).into_owned(),
        )
    }
}

/// Bytes at the end that begin a UTF-8 character and do not finish it.
fn incomplete_tail(bytes: &[u8]) -> usize {
    (1..=3.min(bytes.len()))
        .find(|back| {
            let needed = match bytes[bytes.len() - back] {
                0xc2..=0xdf => 2,
                0xe0..=0xef => 3,
                0xf0..=0xf4 => 4,
                _ => 0,
            };
            needed > *back
        })
        .unwrap_or(0)
}

/// Starts one and replies at once.
pub fn spawn(exec: &Exec) -> CallResult {
    make_room()?;
    let wake = Arc::new(Wake::new().map_err(|error| crate::failure::of(&error, "background process"))?);
    let started = exec::start(exec, true, wake)?;
    let process = Arc::new(Process {
        argv: shown(&exec.argv),
        pid: started.pid,
        started: Instant::now(),
        state: Mutex::default(),
    });
    let mut table = table();
    table.last_id += 1;
    let process_id = table.last_id;
    table.processes.insert(process_id, Arc::clone(&process));
    drop(table);
    let timeout_ms = exec.timeout_ms;
    let pid = started.pid;
    let followed = std::thread::Builder::new()
        .name("background".into())
        .stack_size(256 << 10)
        .spawn(move || {
            let exit = started.follow(
                &Output::Keep(&|bytes| process.state().keep(bytes)),
                timeout_ms,
                || false,
            );
            process.state().exit = Some(exit);
        });
    if let Err(error) = followed {
        reaper::signal_group(pid, libc::SIGKILL);
        self::table().processes.remove(&process_id);
        return Err(crate::failure::of(&error, "background process"));
    }
    Ok(Reply::Started { process_id })
}

fn make_room() -> CallResult<()> {
    let mut table = table();
    if table.processes.len() < MAX_PROCESSES {
        return Ok(());
    }
    let ended = table
        .processes
        .iter()
        .find(|(_, process)| process.state().exit.is_some())
        .map(|(id, _)| *id);
    match ended {
        Some(id) => {
            table.processes.remove(&id);
            Ok(())
        }
        None => Err(failed(
            CallErrorCode::Os,
            format!("{MAX_PROCESSES} background processes run already"),
        )),
    }
}

fn shown(argv: &[String]) -> Vec<String> {
    argv.iter()
        .take(SHOWN_ARGUMENTS)
        .map(|text| text.chars().take(SHOWN_ARGUMENT_CHARS).collect())
        .collect()
}

/// All remembered ones, oldest first.
pub fn list() -> Reply {
    let processes = table()
        .processes
        .iter()
        .map(|(process_id, process)| BackgroundProcess {
            process_id: *process_id,
            argv: process.argv.clone(),
            started_ms_ago: u64::try_from(process.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            exit: process.state().exit.clone(),
            key: None,
            has_terminal: false,
        })
        .collect();
    Reply::Processes { processes }
}

/// Output from a cursor.
pub fn read(process_id: u32, after_offset: u64, max_bytes: u64) -> CallResult {
    let process = find(process_id)?;
    let state = process.state();
    let max_bytes = usize::try_from(max_bytes).unwrap_or(READ_BYTES).min(READ_BYTES);
    let (start_offset, end_offset, output) = state.read(after_offset, max_bytes);
    // The exit belongs after all output.
    let is_all = end_offset == state.start_offset + state.output.len() as u64;
    let exit = state.exit.clone().filter(|_| is_all);
    Ok(Reply::ProcessOutput {
        start_offset,
        end_offset,
        output,
        exit,
    })
}

/// Signals the whole group; one that ended is fine.
pub fn signal(process_id: u32, signal: i32) -> CallResult {
    if !(1..=64).contains(&signal) {
        return Err(failed(CallErrorCode::Invalid, format!("{signal} is no signal")));
    }
    reaper::signal_group(find(process_id)?.pid, signal);
    Ok(Reply::Done)
}

fn find(process_id: u32) -> Result<Arc<Process>, CallError> {
    table().processes.get(&process_id).cloned().ok_or_else(|| {
        failed(
            CallErrorCode::NotFound,
            format!("there is no background process {process_id}"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_output_falls_out_and_cursors_stay_true() {
        let mut state = State::default();
        state.keep(b"abc");
        assert_eq!(state.read(1, 100), (1, 3, "bc".to_owned()));
        state.keep(&vec![b'x'; BUFFER_BYTES]);
        assert_eq!(state.start_offset, 3);
        assert_eq!(state.read(0, 2), (3, 5, "xx".to_owned()));
        assert_eq!(state.read(u64::MAX, 2).0, 3 + BUFFER_BYTES as u64);
    }

    #[test]
    fn characters_are_not_cut_in_two() {
        let mut state = State::default();
        state.keep("aé€😀".as_bytes());
        for (max, expected) in [
            (2, "a"),
            (3, "aé"),
            (5, "aé"),
            (6, "aé€"),
            (9, "aé€"),
            (10, "aé€😀"),
        ] {
            assert_eq!(state.read(0, max).2, expected, "{max} bytes");
        }
        // Never stuck: with no room for a whole character its first byte goes out as it is.
        assert_eq!(state.read(1, 1).1, 2);
    }
}
