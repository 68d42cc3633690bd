//! The supervisor's watch over a sandbox that runs: ends it when asked or when its time is over, holds it to its disk limit,
//! and says in the end how it was. Single-threaded; starts no process but short-lived copies of itself.

use crate::disk_watch::{Action, DiskWatch};
use crate::processes;
use crate::spec::{ExitRecord, HITS_NAME, LaunchSpec, LimitHits};
use crate::supervise::{exit_record, kill, signal_set, wait};
use crate::usage::Counters;
use std::path::Path;
use std::time::{Duration, Instant};

/// Before the first look at the disk, so that it does not compete with the start.
const FIRST_LOOK: Duration = Duration::from_millis(100);

/// Waits until the first process of the sandbox, a child of this one, ends or somebody asks this supervisor to end it.
/// The signals of [`signal_set`] are blocked.
pub(crate) fn run(spec: &LaunchSpec, first: i32) -> ExitRecord {
    let began = Instant::now();
    let end_at = spec.limits.wall_time.and_then(|life| began.checked_add(life));
    let mut watch = DiskWatch::new(
        &spec.directory,
        spec.limits.disk_bytes,
        spec.privilege,
        Counters::open(&spec.cgroups),
    )
    .ok();
    let mut look_at = watch.as_ref().map(|_| began + FIRST_LOOK);
    let mut hits = LimitHits::default();
    let mut was_stopped = false;
    loop {
        if let Some(status) = wait(first, libc::WNOHANG) {
            let counters = Counters::open(&spec.cgroups);
            return ExitRecord {
                was_out_of_time: hits.is_out_of_time,
                cpu_us: counters.cpu_us(),
                peak_memory_bytes: counters.peak_memory_bytes(),
                ..exit_record(status, was_stopped)
            };
        }
        let now = Instant::now();
        if end_at.is_some_and(|at| now >= at) && !hits.is_out_of_time {
            hits.is_out_of_time = true;
            record(&spec.directory, &hits);
            kill(first);
        }
        if let (Some(watch), Some(at)) = (&mut watch, look_at)
            && now >= at
        {
            let (action, next) = watch.look(first, now);
            if action == Action::KillPrograms {
                hits.disk += 1;
            }
            if action == Action::KillPrograms || hits.is_disk_full != watch.is_over() {
                hits.is_disk_full = watch.is_over();
                record(&spec.directory, &hits);
            }
            if action == Action::KillPrograms {
                // Fails only for a sandbox that is ending, or once in a while when a program was faster; the next look
                // shows whether it grows.
                let _ = processes::kill_all_but(first, spec.privilege);
            }
            look_at = Some(Instant::now() + next);
        }
        let life = end_at.filter(|_| !hits.is_out_of_time);
        if await_signal([life, look_at].into_iter().flatten().min()) {
            was_stopped = true;
            kill(first);
        }
    }
}

/// Best effort: without it a limit is still held, but nobody hears of it.
pub(crate) fn record(directory: &Path, hits: &LimitHits) {
    let draft = directory.join(".limits-hit");
    let Ok(text) = serde_json::to_vec(hits) else {
        return;
    };
    let _ = std::fs::write(&draft, text).and_then(|()| std::fs::rename(&draft, directory.join(HITS_NAME)));
}

/// Waits for a signal, at most until `deadline`. Whether it asks for the end.
fn await_signal(deadline: Option<Instant>) -> bool {
    let set = signal_set();
    let signal = match deadline {
        None => {
            let mut signal = 0;
            // SAFETY: `set` is an initialised signal set whose signals are blocked.
            unsafe { libc::sigwait(&raw const set, &raw mut signal) };
            signal
        }
        Some(deadline) => {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = libc::timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()),
            };
            // SAFETY: as above; no information is wanted; `left` is a valid time. -1 when it passed.
            unsafe { libc::sigtimedwait(&raw const set, std::ptr::null_mut(), &raw const left) }
        }
    };
    matches!(signal, libc::SIGTERM | libc::SIGINT)
}
