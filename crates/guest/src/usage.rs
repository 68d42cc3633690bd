//! What the processes of the sandbox use, from /proc and from what the kernel says of those that ended.

use crate::failure::CallResult;
use greenroom_protocol::guest::call::Reply;
use std::sync::atomic::{AtomicU64, Ordering};

/// Largest memory seen, in bytes.
static PEAK_BYTES: AtomicU64 = AtomicU64::new(0);

/// One line of /proc, see proc_pid_stat(5).
pub struct ProcessStat {
    pub pid: i32,
    pub session: i32,
    /// Whether it only waits to be collected.
    pub is_ended: bool,
    threads: u32,
    /// Its own processor time and that of its collected children, in clock ticks.
    ticks: u64,
    /// Memory that is resident and not shared with others, in pages; 0 if it cannot be read.
    private_pages: u64,
}

/// All processes but the guest. What ends meanwhile may be missing.
pub fn processes() -> impl Iterator<Item = ProcessStat> {
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| *pid != 1)
        .filter_map(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let memory = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
            parse(pid, &stat, &memory)
        })
}

fn parse(pid: i32, stat: &str, memory: &str) -> Option<ProcessStat> {
    // The name in parentheses may hold anything; fields are numbered from the one behind it, which is the third.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3);
    let ticks = (14..=17)
        .map(|number| field(number)?.parse::<u64>().ok())
        .sum::<Option<u64>>()?;
    let mut pages = memory
        .split_whitespace()
        .skip(1)
        .map(|text| text.parse::<u64>().unwrap_or(0));
    let (resident, shared) = (pages.next().unwrap_or(0), pages.next().unwrap_or(0));
    Some(ProcessStat {
        pid,
        session: field(6)?.parse().ok()?,
        is_ended: matches!(field(3), Some(&"Z" | &"X")),
        threads: field(20)?.parse().ok()?,
        ticks,
        private_pages: resident.saturating_sub(shared),
    })
}

/// Takes note of a process that was collected.
pub fn saw_end(used: &libc::rusage) {
    // In kibibytes, see getrusage(2).
    saw_memory(u64::try_from(used.ru_maxrss).unwrap_or(0) * 1024);
}

fn saw_memory(bytes: u64) {
    PEAK_BYTES.fetch_max(bytes, Ordering::Relaxed);
}

/// Answers [`Call::MeasureProcesses`](greenroom_protocol::guest::call::Call::MeasureProcesses).
pub fn measure() -> CallResult {
    let (mut ticks, mut pages, mut count) = (0_u64, 0_u64, 0_u32);
    for process in processes() {
        ticks += process.ticks;
        pages += process.private_pages;
        count += process.threads;
    }
    // SAFETY: sysconf with constants.
    let (ticks_per_second, page_bytes) = unsafe {
        (
            libc::sysconf(libc::_SC_CLK_TCK),
            libc::sysconf(libc::_SC_PAGESIZE),
        )
    };
    let positive = |number: i64, usual: u64| {
        u64::try_from(number)
            .ok()
            .filter(|number| *number > 0)
            .unwrap_or(usual)
    };
    saw_memory(pages * positive(page_bytes, 4096));
    Ok(Reply::ProcessUsage {
        cpu_ms: ticks * 1000 / positive(ticks_per_second, 100) + ended_ms(),
        peak_memory_bytes: PEAK_BYTES.load(Ordering::Relaxed),
        processes: count,
    })
}

/// Processor time of all collected processes, in milliseconds.
fn ended_ms() -> u64 {
    // SAFETY: an all-zero rusage is valid and is overwritten.
    let mut used: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `used` is valid for writing.
    unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut used) };
    [used.ru_utime, used.ru_stime]
        .iter()
        .map(|time| u64::try_from(time.tv_sec * 1000 + time.tv_usec / 1000).unwrap_or(0))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_are_no_fields() {
        let stat = "7 (a) b (c) S 1 6 5 34816 7 4194304 100 0 0 0 11 12 13 14 20 0 3 0 100 1000 50";
        let parsed = parse(7, stat, "900 50 20 1 0 1 0").expect("it is whole");
        assert_eq!(
            (parsed.session, parsed.threads, parsed.ticks, parsed.private_pages),
            (5, 3, 50, 30)
        );
        assert!(parse(7, "7 (a", "").is_none());
        assert!(parse(7, "7 (a) S 1", "").is_none());
    }
}
