//! What calls left behind that are over: how much it is, and its end when a sandbox is full of processes, so that the next call can
//! start one. What a running call, a background process or a service started and kept in its session is left alone.

use crate::{reaper, usage};
use greenroom_protocol::guest::call::LimitKind;
use std::collections::HashSet;

/// Looks in a row at what is left; something that forks faster than it dies needs several.
const MAX_ROUNDS: usize = 50;

/// Whether so many processes are left that the next program could not do its work: three quarters of what may be.
fn is_crowded() -> bool {
    let most = rustix::process::getrlimit(rustix::process::Resource::Nproc)
        .current
        .unwrap_or(u64::MAX);
    let now = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| {
            entry
                .file_name()
                .as_encoded_bytes()
                .iter()
                .all(u8::is_ascii_digit)
        })
        .count() as u64;
    now.saturating_mul(4) >= most.saturating_mul(3)
}

/// After a program ended: makes room if it left the sandbox full. Returns the limit that it hit then, for its exit.
pub fn after_end() -> Vec<LimitKind> {
    if is_crowded() && make() {
        vec![LimitKind::Processes]
    } else {
        Vec::new()
    }
}

/// How many processes run in sessions that nobody answers for.
pub fn left_behind() -> u32 {
    let count = reaper::with_leaders(|leaders| left(leaders).count());
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn left(leaders: &HashSet<i32>) -> impl Iterator<Item = i32> {
    usage::processes()
        .filter(|process| !leaders.contains(&process.session) && !process.is_ended)
        .map(|process| process.pid)
}

/// Kills every process whose session nobody answers for. Whether there was any.
pub fn make() -> bool {
    let mut has_killed = false;
    for _ in 0..MAX_ROUNDS {
        // Whoever is about to start a process holds this lock until it is known.
        let found = reaper::with_leaders(|leaders| {
            let left: Vec<i32> = left(leaders).collect();
            // SAFETY: getpgid with a number; 0 or less is an error or the guest's own.
            let groups: HashSet<i32> = left.iter().map(|pid| unsafe { libc::getpgid(*pid) }).collect();
            for group in groups.into_iter().filter(|group| *group > 1) {
                // A whole group at once, so that no fork of it escapes.
                // SAFETY: kill with integers; a group lies in one session, which nobody answers for.
                unsafe { libc::kill(-group, libc::SIGKILL) };
            }
            for pid in &left {
                // SAFETY: kill with integers.
                unsafe { libc::kill(*pid, libc::SIGKILL) };
            }
            !left.is_empty()
        });
        if !found {
            break;
        }
        has_killed = true;
        // They end, and the reaper collects them.
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    has_killed
}
