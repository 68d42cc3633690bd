//! All processes that outlive their link, running and ended, by number and key. Bounded: the longest ended are forgotten.

use super::{Lifetime, Process};
use crate::failure::{self, CallResult, failed};
use crate::ring;
use crate::room;
use crate::stream::Stream;
use greenroom_protocol::guest::call::{CallError, CallErrorCode, Exec, Reply, TerminalSize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Processes remembered; beyond it the oldest that ended is forgotten, or the new one refused. Each that runs has a thread.
const MAX_PROCESSES: usize = 64;

/// Ended foreground runs remembered: their end was told already, so they are looked for only after a link broke.
const MAX_ENDED_RUNS: usize = 16;

/// Longest key, in bytes.
const MAX_KEY_BYTES: usize = 128;

/// Output in one reply: JSON may write each byte as six.
const READ_BYTES: usize = 40 * 1024;

static TABLE: Mutex<BTreeMap<u32, Arc<Process>>> = Mutex::new(BTreeMap::new());

/// The last number given. Held while a process starts, so that one key never starts two.
static LAST_ID: Mutex<u32> = Mutex::new(0);

fn table() -> MutexGuard<'static, BTreeMap<u32, Arc<Process>>> {
    // The map is whole after every operation, also one that panicked.
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a call's process belongs here.
pub fn is_kept(exec: &Exec) -> bool {
    exec.is_background || exec.key.is_some() || exec.terminal.is_some()
}

/// Runs in the foreground: starts it or finds it by its key, and follows it. `None` if the stream went away first.
pub fn run(stream: &Arc<Stream>, exec: &Exec) -> Option<CallResult> {
    match start(exec) {
        Ok(process) => process.follow(stream, 0).map(Reply::Exited).map(Ok),
        Err(error) => Some(Err(error)),
    }
}

/// Starts it in the background, or finds it by its key, and replies at once.
pub fn spawn(exec: &Exec) -> CallResult {
    let process_id = start(exec)?.id;
    Ok(Reply::Started { process_id })
}

fn start(exec: &Exec) -> CallResult<Arc<Process>> {
    if let Some(key) = &exec.key
        && !(1..=MAX_KEY_BYTES).contains(&key.len())
    {
        return Err(failed(
            CallErrorCode::Invalid,
            format!("a key has 1 to {MAX_KEY_BYTES} bytes"),
        ));
    }
    let mut last_id = LAST_ID.lock().unwrap_or_else(PoisonError::into_inner);
    let known = exec.key.as_ref().and_then(|key| {
        let table = table();
        table
            .values()
            .find(|process| process.key.as_ref() == Some(key))
            .cloned()
    });
    if let Some(process) = known {
        return Ok(process);
    }
    make_room()?;
    let lifetime = match (exec.is_background, &exec.key) {
        (true, _) => Lifetime::Own,
        (false, Some(_)) => Lifetime::OwnInForeground,
        (false, None) => Lifetime::Link,
    };
    let process = Process::start(*last_id + 1, exec, lifetime)?;
    *last_id += 1;
    table().insert(process.id, Arc::clone(&process));
    Ok(process)
}

/// Forgets what ended: runs of the foreground beyond their number or while memory is short, others when the table is full.
fn make_room() -> CallResult<()> {
    let mut table = table();
    let ended = |table: &BTreeMap<u32, Arc<Process>>, is_run: bool| {
        let of_kind = |process: &&Arc<Process>| (process.lifetime != Lifetime::Own) == is_run;
        table
            .values()
            .filter(|process| process.has_ended())
            .filter(of_kind)
            .map(|process| process.id)
            .collect::<Vec<_>>()
    };
    let runs = ended(&table, true);
    for (index, id) in runs.iter().enumerate() {
        let is_excess = runs.len() - index >= MAX_ENDED_RUNS || table.len() >= MAX_PROCESSES;
        if is_excess || ring::is_crowded() {
            table.remove(id);
        }
    }
    for id in ended(&table, false) {
        if table.len() >= MAX_PROCESSES {
            table.remove(&id);
        }
    }
    match table.len() < MAX_PROCESSES {
        true => Ok(()),
        false => Err(failed(
            CallErrorCode::TooManyProcesses,
            format!("{MAX_PROCESSES} processes run already that outlive their call; end one of them first"),
        )),
    }
}

/// All remembered ones, oldest first.
pub fn list() -> Reply {
    let processes = table().values().map(|process| process.description()).collect();
    Reply::Processes {
        processes,
        left_behind: room::left_behind(),
    }
}

/// Follows one from a cursor. `None` if the stream went away first.
pub fn attach(stream: &Arc<Stream>, process_id: u32, after_offset: u64) -> Option<CallResult> {
    match find(process_id) {
        Ok(process) => process.follow(stream, after_offset).map(Reply::Exited).map(Ok),
        Err(error) => Some(Err(error)),
    }
}

/// Output from a cursor.
pub fn read(process_id: u32, after_offset: u64, max_bytes: u64) -> CallResult {
    let max_bytes = usize::try_from(max_bytes).unwrap_or(READ_BYTES).min(READ_BYTES);
    Ok(find(process_id)?.read(after_offset, max_bytes))
}

/// Signals the whole group; one that ended is fine.
pub fn signal(process_id: u32, signal: i32) -> CallResult {
    if !(1..=64).contains(&signal) {
        return Err(failed(CallErrorCode::Invalid, format!("{signal} is no signal")));
    }
    find(process_id)?.signal(signal);
    Ok(Reply::Done)
}

/// Tells a terminal of its new size.
pub fn resize(process_id: u32, size: TerminalSize) -> CallResult {
    let process = find(process_id)?;
    if !process.has_terminal {
        return Err(failed(
            CallErrorCode::Invalid,
            format!("process {process_id} does not run on a terminal"),
        ));
    }
    process
        .resize(size)
        .map_err(|error| failure::of(&error, "terminal"))?;
    Ok(Reply::Done)
}

fn find(process_id: u32) -> Result<Arc<Process>, CallError> {
    table().get(&process_id).cloned().ok_or_else(|| {
        failed(
            CallErrorCode::NotFound,
            format!("there is no process {process_id} to be found"),
        )
    })
}
