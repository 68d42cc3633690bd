//! The processes of a sandbox, seen from outside: which there are, what they used, and how all but the first are ended.

use crate::spec::Privilege;
use crate::syscall::last_errno;
use rustix::fd::{AsRawFd as _, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::collections::HashSet;
use std::fs;
use std::time::{Duration, Instant};

/// Processes looked at in one go; more than any sandbox may have.
const MAX_PROCESSES: usize = 200_000;

/// After which a helper process is ended.
const HELPER_SECONDS: u32 = 2;

/// How often all processes are looked for until no new one is found.
const STOP_ROUNDS: usize = 50;

/// How long one may take to stop.
const STOP_PATIENCE: Duration = Duration::from_millis(100);

/// `first` and all that descend from it, parents first. Everything in a sandbox descends from its first process: orphans are
/// given to it (pid_namespaces(7)). What starts or ends meanwhile may be missing.
pub fn tree(first: i32) -> Vec<i32> {
    let mut found = vec![first];
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        next += 1;
        for task in fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            found.extend(
                children
                    .split_whitespace()
                    .filter_map(|pid| pid.parse::<i32>().ok()),
            );
        }
        if found.len() > MAX_PROCESSES {
            break;
        }
    }
    found
}

/// Processes that stand still until this is dropped.
pub struct Stopped {
    /// Parents first. Without those that somebody else had stopped.
    pids: Vec<i32>,
}

impl Stopped {
    /// Whether all stand still, and nobody came: a program can have itself continued by a timer.
    pub(crate) fn holds(&self, first: i32) -> bool {
        tree(first).into_iter().all(has_stopped)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // Children first, as they were stopped last: so nobody learns that a child of his had stopped, and shells do not
        // speak of it.
        for pid in self.pids.iter().rev() {
            signal(*pid, libc::SIGCONT);
        }
    }
}

/// Stops `first` and all that descend from it for a moment. In the end all stand still, unless they fork faster than they are
/// found, wait for a disk, or do not want to ([`Stopped::holds`]).
pub(crate) fn stop(first: i32) -> Stopped {
    stop_each(|| tree(first))
}

/// Like [`stop`], but leaves `supervisor` itself at work.
pub fn stop_below(supervisor: i32) -> Stopped {
    stop_each(|| tree(supervisor).split_off(1))
}

/// Lets everything below `supervisor` go on, whoever stopped it.
pub fn continue_below(supervisor: i32) {
    for pid in tree(supervisor).split_off(1).into_iter().rev() {
        signal(pid, libc::SIGCONT);
    }
}

fn stop_each(find: impl Fn() -> Vec<i32>) -> Stopped {
    let mut stopped = Stopped { pids: Vec::new() };
    let mut seen = HashSet::new();
    for _ in 0..STOP_ROUNDS {
        let before = seen.len();
        for pid in find() {
            if seen.insert(pid) && !has_stopped(pid) {
                signal(pid, libc::SIGSTOP);
                stopped.pids.push(pid);
            }
        }
        if seen.len() == before {
            break;
        }
    }
    let deadline = Instant::now() + STOP_PATIENCE;
    for pid in &stopped.pids {
        while !has_stopped(*pid) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
    stopped
}

/// Inodes of files that processes below `supervisor` have mapped shared and writable, as far as they can be looked into.
pub fn shared_mappings_below(supervisor: i32) -> HashSet<u64> {
    let mut inodes = HashSet::new();
    for pid in tree(supervisor).split_off(1) {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        for line in maps.lines() {
            // proc_pid_maps(5): range, rights, offset, device, inode, path.
            let mut fields = line.split_ascii_whitespace().skip(1);
            let is_shared = fields
                .next()
                .is_some_and(|rights| rights.ends_with('s') && rights.contains('w'));
            let inode = fields.nth(2).and_then(|inode| inode.parse::<u64>().ok());
            inodes.extend(inode.filter(|inode| is_shared && *inode != 0));
        }
    }
    inodes
}

fn signal(pid: i32, signal: i32) {
    // SAFETY: kill with integers.
    unsafe { libc::kill(pid, signal) };
}

/// Whether no thread of a process runs; also once it ended.
fn has_stopped(pid: i32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task"));
    threads.into_iter().flatten().flatten().all(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // Field 3 of proc_pid_stat(5): stopped, traced, or ended. The name before it may hold anything.
        stat.rsplit_once(") ")
            .is_none_or(|(_, rest)| rest.starts_with(['T', 't', 'Z', 'X']))
    })
}

/// Processor time of `processes` and of their children that ended, in milliseconds.
pub fn cpu_ms(processes: &[i32]) -> u64 {
    // SAFETY: sysconf with a number it knows.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    let ticks: u64 = processes.iter().filter_map(|pid| cpu_ticks(*pid)).sum();
    ticks * 1000 / u64::try_from(per_second).unwrap_or(100).max(1)
}

/// Bytes that a tree of processes ever caused to be written to disks, with their children that were waited for: at least and at
/// most. They differ by what moves from a child that ends to its parent while one looks. [`Written::UNKNOWN`] if the kernel does
/// not count (`CONFIG_TASK_IO_ACCOUNTING`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Written {
    pub least: u64,
    pub most: u64,
}

impl Written {
    /// Since nobody knows, anything may have been written.
    pub(crate) const UNKNOWN: Self = Self {
        least: u64::MAX,
        most: 0,
    };

    /// Of `first` and all that descend from it.
    pub(crate) fn by(first: i32) -> Self {
        if !fs::exists("/proc/self/io").unwrap_or(false) {
            return Self::UNKNOWN;
        }
        let pids = tree(first);
        let sum = |pids: &mut dyn Iterator<Item = &i32>| pids.filter_map(|pid| written_by(*pid)).sum();
        Self {
            // Of a parent before its children, and the other way round.
            least: sum(&mut pids.iter()),
            most: sum(&mut pids.iter().rev()),
        }
    }
}

fn written_by(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    let field = |name| -> Option<u64> {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.parse().ok())
    };
    // What was removed before it reached a disk took no place there.
    Some(field("write_bytes: ")?.saturating_sub(field("cancelled_write_bytes: ").unwrap_or(0)))
}

/// Fields 14 to 17 of proc_pid_stat(5).
fn cpu_ticks(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may hold anything.
    let rest = text.rsplit_once(") ")?.1;
    let fields = rest.split(' ').skip(11).take(4);
    fields.map(|field| field.parse::<u64>().ok()).sum()
}

/// The namespaces of a sandbox's first process. Kept open: by its number somebody else could be found later.
pub(crate) struct Inside {
    pids: OwnedFd,
    /// Root has every right as it is; an ordinary user only in the user namespace that owns the other.
    users: Option<OwnedFd>,
}

impl Inside {
    /// Of `first`, a child of this process that nobody waited for.
    pub(crate) fn of(first: i32, privilege: Privilege) -> Result<Self, Errno> {
        Self::open(&open_process(first)?, privilege)
    }

    /// Of the first process in a pid namespace of its own below `runtime`, if there is one.
    pub(crate) fn below(runtime: i32, privilege: Privilege) -> Option<Self> {
        let depth = pids_inside(&open_process(runtime).ok()?)?.len();
        tree(runtime).into_iter().skip(1).find_map(|pid| {
            // Through its directory, which is nobody else's when the number is.
            let process = open_process(pid).ok()?;
            let pids = pids_inside(&process)?;
            let is_first = pids.len() > depth && pids.last() == Some(&1);
            is_first.then(|| Self::open(&process, privilege).ok()).flatten()
        })
    }

    fn open(process: &OwnedFd, privilege: Privilege) -> Result<Self, Errno> {
        let open = |name| rustix::fs::openat(process, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        Ok(Self {
            pids: open("ns/pid")?,
            users: match privilege {
                Privilege::Root => None,
                Privilege::User => Some(open("ns/user")?),
            },
        })
    }

    /// Kills every process of the pid namespace but the first, at once, so that no fork escapes. Called by a process with one
    /// thread. Returns when they were signalled; they end a moment later.
    pub(crate) fn kill_programs(&self) -> Result<(), Errno> {
        as_child(|| {
            // What is inside sees the process that kills; it must not be able to stop it.
            // SAFETY: prctl with integers.
            unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
            if let Some(users) = &self.users {
                enter_namespace(users, libc::CLONE_NEWUSER)?;
            }
            enter_namespace(&self.pids, libc::CLONE_NEWPID)?;
            // Only a child is in the new pid namespace; there -1 means everyone but the first process and itself.
            as_child(|| {
                // SAFETY: kill with integers.
                match unsafe { libc::kill(-1, libc::SIGKILL) } {
                    0 => Ok(()),
                    _ => match last_errno() {
                        Errno::SRCH => Ok(()),
                        error => Err(error),
                    },
                }
            })
        })
    }

    /// Computes numbers in a child process that has every right over files and processes of the user namespace; `None` for
    /// root, which has them anyway. Called by a process with one thread.
    pub(crate) fn with_rights<const N: usize>(
        &self,
        compute: impl FnOnce() -> [u64; N],
    ) -> Option<Result<[u64; N], Errno>> {
        let users = self.users.as_ref()?;
        let computed = || {
            let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
            as_child(|| {
                enter_namespace(users, libc::CLONE_NEWUSER)?;
                let numbers: Vec<u8> = compute().into_iter().flat_map(u64::to_ne_bytes).collect();
                // They fit into the pipe, so that nobody needs to read yet.
                rustix::io::write(&write, &numbers).map(|_| ())
            })?;
            let mut numbers = [0; N];
            for number in &mut numbers {
                let mut bytes = [0; 8];
                match rustix::io::read(&read, &mut bytes)? {
                    8 => *number = u64::from_ne_bytes(bytes),
                    _ => return Err(Errno::IO),
                }
            }
            Ok(numbers)
        };
        Some(computed())
    }
}

/// A process's directory in /proc, which stays that of this process.
fn open_process(pid: i32) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(format!("/proc/{pid}"), flags, Mode::empty())
}

/// Its numbers from this process's pid namespace inwards (`NSpid` of proc_pid_status(5)).
fn pids_inside(process: &OwnedFd) -> Option<Vec<i32>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(process, "status", flags, Mode::empty()).ok()?;
    let text = std::io::read_to_string(fs::File::from(file)).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_whitespace().map(|pid| pid.parse().ok()).collect()
}

fn enter_namespace(namespace: &OwnedFd, kind: i32) -> Result<(), Errno> {
    // SAFETY: setns with a descriptor that is open.
    match unsafe { libc::setns(namespace.as_raw_fd(), kind) } {
        0 => Ok(()),
        _ => Err(last_errno()),
    }
}

/// Does `work` in a child process, for what would change the caller for good.
fn as_child(work: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
    // SAFETY: callers have one thread, so the child's copy of everything is consistent; it ends without destructors.
    match unsafe { libc::fork() } {
        -1 => Err(last_errno()),
        0 => {
            // What it meets is made by programs. By default the signal ends it.
            // SAFETY: an integer.
            unsafe { libc::alarm(HELPER_SECONDS) };
            let code = work().err().map_or(0, |error| error.raw_os_error().clamp(1, 255));
            // SAFETY: ends the child.
            unsafe { libc::_exit(code) }
        }
        child => {
            let mut status = 0;
            // SAFETY: `status` is a valid int.
            while unsafe { libc::waitpid(child, &raw mut status, 0) } < 0 {
                match last_errno() {
                    Errno::INTR => {}
                    error => return Err(error),
                }
            }
            match (libc::WIFEXITED(status), libc::WEXITSTATUS(status)) {
                (true, 0) => Ok(()),
                (true, errno) => Err(Errno::from_raw_os_error(errno)),
                // Somebody inside was faster; whoever did it is gone now or is killed next time.
                (false, _) => Err(Errno::INTR),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_stand_still_for_a_while() {
        // The second one was stopped by somebody else before.
        let script = "while :; do :; done & sh -c 'kill -STOP $$' & while :; do :; done";
        let mut child = std::process::Command::new("sh")
            .args(["-c", script])
            .spawn()
            .unwrap();
        let first = child.id() as i32;
        let states = || -> Vec<bool> { tree(first).into_iter().map(has_stopped).collect() };
        while states() != [false, false, true] {
            std::thread::sleep(Duration::from_millis(1));
        }
        let stopped = stop(first);
        assert_eq!(states(), [true, true, true]);
        let used = cpu_ms(&tree(first));
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(cpu_ms(&tree(first)), used);
        drop(stopped);
        assert_eq!(states(), [false, false, true]);
        for pid in tree(first).into_iter().rev() {
            signal(pid, libc::SIGKILL);
        }
        child.wait().unwrap();
    }

    #[test]
    fn a_tree_has_the_processes_below_and_their_time() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "sleep 600 & echo; wait"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // A line comes once the grandchild was started.
        let mut line = [0];
        std::io::Read::read_exact(&mut child.stdout.take().unwrap(), &mut line).unwrap();
        let found = tree(child.id() as i32);
        assert_eq!(found.len(), 2, "{found:?}");
        let own = std::process::id() as i32;
        assert!(tree(own).contains(&found[1]));
        assert!(cpu_ms(&[own]) < 1_000_000);
        for pid in found.into_iter().rev() {
            // SAFETY: kill with integers; both are children of this test.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        child.wait().unwrap();
    }
}
