//! Collects ended processes: those the guest started, whose owners are told, and orphans, which only need to go.

use crate::spawn::Program;
use crate::{room, usage};
use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

struct Owner {
    tell: Box<dyn FnOnce(i32) + Send>,
    /// Whether the rest of the group dies with its leader.
    is_group_ending: bool,
}

/// Owners by pid. Held while a process is started, so that its end cannot be seen before its owner is known.
static OWNERS: LazyLock<Mutex<HashMap<i32, Owner>>> = LazyLock::new(Mutex::default);

fn owners() -> MutexGuard<'static, HashMap<i32, Owner>> {
    // The map is whole after every operation, also one that panicked.
    OWNERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Blocks SIGCHLD for this thread and those it will start.
pub fn block_signal() {
    let set = signal_set();
    // SAFETY: a valid set; the old mask is not wanted.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
}

fn signal_set() -> libc::sigset_t {
    // SAFETY: sigemptyset initialises the set before it is read.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        set
    }
}

/// Starts collecting.
pub fn start() -> io::Result<()> {
    std::thread::Builder::new()
        .name("reaper".into())
        .stack_size(256 << 10)
        .spawn(|| {
            let set = signal_set();
            loop {
                let mut signal = 0;
                // SAFETY: a valid set whose signal is blocked in every thread.
                unsafe { libc::sigwait(&raw const set, &raw mut signal) };
                while reap_one() {}
            }
        })?;
    Ok(())
}

/// Collects one ended process; `false` if there is none.
fn reap_one() -> bool {
    // SAFETY: an all-zero siginfo_t is valid and is overwritten.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // Only looks: whoever starts a process holds the lock and may collect a failed start itself.
    // SAFETY: `info` is valid for writing.
    let result = unsafe {
        libc::waitid(
            libc::P_ALL,
            0,
            &raw mut info,
            libc::WEXITED | libc::WNOHANG | libc::WNOWAIT,
        )
    };
    // SAFETY: waitid filled the SIGCHLD part, or left zeroes.
    let pid = unsafe { info.si_pid() };
    if result != 0 || pid == 0 {
        return false;
    }
    let mut owners = owners();
    if owners.get(&pid).is_some_and(|owner| owner.is_group_ending) {
        // SAFETY: kill with integers; the leader is not collected yet, so the group is still its own.
        unsafe { libc::kill(-pid, libc::SIGKILL) };
    }
    let mut status = 0;
    // SAFETY: an all-zero rusage is valid.
    let mut used: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `status` and `used` are valid for writing.
    if unsafe { libc::wait4(pid, &raw mut status, libc::WNOHANG, &raw mut used) } == pid {
        usage::saw_end(&used);
        let owner = owners.remove(&pid);
        drop(owners);
        if let Some(owner) = owner {
            (owner.tell)(status);
        }
    }
    true
}

/// Looks at the leaders of all sessions that somebody answers for. No process is started meanwhile.
pub fn with_leaders<T>(look: impl FnOnce(&HashSet<i32>) -> T) -> T {
    let owners = owners();
    look(&owners.keys().copied().collect())
}

/// Starts a process; `tell` gets its wait status once, on the reaper's thread. In a sandbox that is full, what earlier calls
/// left behind makes room for it.
pub fn spawn(program: &Program, tell: impl FnOnce(i32) + Send + 'static) -> io::Result<i32> {
    let mut owners = owners();
    let mut spawned = program.spawn();
    if spawned
        .as_ref()
        .is_err_and(|error| error.raw_os_error() == Some(libc::EAGAIN))
    {
        drop(owners);
        room::make();
        owners = self::owners();
        spawned = program.spawn();
    }
    let pid = spawned?;
    owners.insert(
        pid,
        Owner {
            tell: Box::new(tell),
            is_group_ending: false,
        },
    );
    Ok(pid)
}

/// Signals a whole process group if its leader was not collected yet, so that the number cannot be somebody else's.
pub fn signal_group(leader: i32, signal: i32) -> bool {
    let owners = owners();
    // SAFETY: kill with integers; the leader is unreaped while we hold the lock, so the group is its own.
    owners.contains_key(&leader) && unsafe { libc::kill(-leader, signal) } == 0
}

/// Signals every process of a session whose leader was not collected yet: also the jobs of a shell, which have groups of
/// their own. The leader lives or waits to be collected while the lock is held, so the session is its own.
pub fn signal_session(leader: i32, signal: i32) {
    let owners = owners();
    if owners.contains_key(&leader) {
        signal_members(leader, signal);
    }
}

/// Tells what is left of a session whose leader ended a moment ago that its terminal is gone: a program that was only starting
/// when the others were told may have missed it. No other session has the leader's number while anything is left.
pub fn hang_up_rest(leader: i32) {
    let owners = owners();
    if !owners.contains_key(&leader) {
        signal_members(leader, libc::SIGHUP);
    }
}

/// Signals all of a session. A member that ends between the look and the signal could only be confused with a process that
/// started within that moment.
fn signal_members(leader: i32, signal: i32) {
    for process in usage::processes().filter(|process| process.session == leader) {
        // SAFETY: kill with integers.
        unsafe { libc::kill(process.pid, signal) };
    }
}

/// Kills every process but this one, the first.
pub fn kill_everyone() {
    // SAFETY: kill with integers; without anybody else it fails, which is fine.
    unsafe { libc::kill(-1, libc::SIGKILL) };
}

/// Has what is left of a group killed when its leader ends, however it does.
pub fn end_group_with_leader(leader: i32) {
    if let Some(owner) = owners().get_mut(&leader) {
        owner.is_group_ending = true;
    }
}

/// Asks a whole process group to end; what is left of it when its leader ends is killed.
pub fn end_group(leader: i32) {
    end_group_with_leader(leader);
    signal_group(leader, libc::SIGTERM);
}
