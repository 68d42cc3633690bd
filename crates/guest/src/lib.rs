//! First process of every sandbox: serves the host's calls over one link at a time, runs and reaps processes, and carries
//! loopback connections to the host. Trusts nobody with more than this sandbox; must not depend on anything but the protocol.

mod beneath;
mod call;
mod exec;
mod failure;
mod file;
mod forward;
pub mod link;
mod machine;
mod path;
mod process;
mod pump;
mod reaper;
mod ring;
mod room;
mod route;
mod search;
mod service;
mod spawn;
mod stdio;
pub mod stream;
mod terminal;
mod tree;
mod usage;
mod wake;
mod walk;
mod watch;

use rustix::fd::{FromRawFd as _, OwnedFd};
use std::process::ExitCode;
use std::sync::Arc;

/// Where the launcher put the listening socket.
const SOCKET_FD: i32 = 3;

/// The whole life of a process that was executed.
pub fn run() -> ExitCode {
    match hosts() {
        Ok(hosts) => serve(hosts),
        Err(reason) => fail(&reason),
    }
}

/// The same for a process that a launcher made, with the listening socket as its only descriptor beside the standard ones.
/// It has one thread.
pub fn run_on_socket() -> ExitCode {
    match passed_listener() {
        Ok(listener) => serve(Hosts::Listener(listener)),
        Err(reason) => fail(&reason),
    }
}

#[expect(
    clippy::print_stderr,
    reason = "standard error is the sandbox's log, read by operators"
)]
fn fail(reason: &str) -> ExitCode {
    eprintln!("greenroom-guest: {reason}");
    ExitCode::FAILURE
}

fn serve(hosts: Hosts) -> ExitCode {
    if std::process::id() != 1 {
        return fail("is the first process of a sandbox and nothing else");
    }
    spawn::open_score();
    harden();
    // Before any thread exists: all of them inherit the blocked signal, so that only the reaper gets it.
    reaper::block_signal();
    let guest = Arc::new(link::Guest::new(call::serve));
    if let Err(error) = reaper::start().and_then(|()| route::start(&guest)) {
        return fail(&error.to_string());
    }
    match hosts {
        Hosts::Listener(listener) => link::serve(&guest, &listener),
        Hosts::Pipes(trunk) => {
            if let Err(error) = trunk.serve(&guest) {
                return fail(&error.to_string());
            }
        }
    }
    ExitCode::SUCCESS
}

/// Where hosts come from.
enum Hosts {
    /// Each by a connection.
    Listener(OwnedFd),
    /// All through one pair of pipes.
    Pipes(stdio::Trunk),
}

fn hosts() -> Result<Hosts, String> {
    match std::env::args().nth(1).as_deref() {
        Some(stdio::ARGUMENT) => stdio::Trunk::take()
            .map(Hosts::Pipes)
            .map_err(|error| format!("no pipes: {error}")),
        _ => listener().map(Hosts::Listener),
    }
}

/// The socket on which the host is expected: passed by the launcher, or made here in a machine of our own.
fn listener() -> Result<OwnedFd, String> {
    if let Ok(disks) = std::env::var(machine::DISKS_VARIABLE) {
        return machine::enter(&disks).map_err(|error| error.to_string());
    }
    passed_listener()
}

fn passed_listener() -> Result<OwnedFd, String> {
    // SAFETY: the launcher passes the socket at this number and nothing in this process opened it.
    let listener = unsafe { OwnedFd::from_raw_fd(SOCKET_FD) };
    // Programs that the guest starts must not inherit it.
    match rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::CLOEXEC) {
        Ok(()) => Ok(listener),
        Err(error) => Err(format!("no socket: {error}")),
    }
}

/// Keeps the sandbox's other processes, which have the same uid, out of this one's memory and descriptors.
fn harden() {
    // SAFETY: prctl and mallopt with integer arguments, before any thread. Not dumpable: /proc/1 belongs to nobody here.
    // One arena: a thread per call would otherwise keep one each.
    unsafe {
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::umask(0o022);
    }
}
