//! The launcher's own life: detach, take the lock, build the sandbox in a child, report, then supervise it to its end.
//! Single-threaded throughout; the only user is the `greenroom-launcher` binary.

use crate::failure::Step;
use crate::spec::{LaunchFailure, LaunchReport, LaunchSpec, Privilege};
use crate::supervise::{
    begin, end, finish, listen, release_host, remove_cgroups, report, unblock_signals, wait,
};
use crate::{cgroup, enter, guard, landlock, network, seccomp, syscall};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags};

/// What needs no orders and so is made before they come.
pub struct Ahead {
    network: Option<OwnedFd>,
}

impl Ahead {
    /// Compiles the system call filter and makes a network namespace; where this process may not, a start does.
    pub fn prepare() -> Self {
        seccomp::prepare();
        Self {
            network: network::make_ahead(),
        }
    }
}

/// Builds the sandbox and stays until its end. Returns the exit code of the launcher.
pub fn run(spec: &LaunchSpec, ahead: Ahead) -> i32 {
    let started = match start(spec, ahead) {
        Ok(started) => started,
        Err(failure) => {
            remove_cgroups(&spec.cgroups);
            report(&LaunchReport::Failed(failure));
            return 1;
        }
    };
    report(&LaunchReport::Started {
        warnings: started.warnings.clone(),
    });
    release_host();
    let record = guard::run(spec, started.child);
    finish(&spec.directory, &spec.cgroups, &record);
    drop(started.lock);
    0
}

struct Started {
    child: i32,
    warnings: Vec<String>,
    /// Held for the life of this process.
    lock: OwnedFd,
}

fn start(spec: &LaunchSpec, ahead: Ahead) -> Result<Started, LaunchFailure> {
    let lock = begin(&spec.directory)?;
    let listener = listen(&spec.directory)?;
    let guest =
        rustix::fs::open(&spec.guest, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).step("open guest")?;
    let mut warnings: Vec<String> = landlock::shortcoming(landlock::version()).into_iter().collect();
    for placement in &spec.cgroups {
        warnings.extend(cgroup::create(placement, &spec.limits).step("make resource group")?);
    }
    let (ours, theirs) = syscall::message_pair().step("make channel to child")?;
    let child = clone_child(spec, &theirs, &ours, &listener, &guest, ahead.network.as_ref())?;
    drop((theirs, listener, guest, ahead));
    match await_guest(child, &ours) {
        Ok(()) => Ok(Started {
            child,
            warnings,
            lock,
        }),
        Err(failure) => {
            end(child);
            Err(failure)
        }
    }
}

fn clone_child(
    spec: &LaunchSpec,
    theirs: &OwnedFd,
    ours: &OwnedFd,
    listener: &OwnedFd,
    guest: &OwnedFd,
    network: Option<&OwnedFd>,
) -> Result<i32, LaunchFailure> {
    let mut namespaces = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    if spec.privilege == Privilege::User {
        namespaces |= libc::CLONE_NEWUSER;
    }
    let v2 = spec
        .cgroups
        .iter()
        .find(|placement| placement.version == cgroup::Version::V2);
    let group = v2
        .map(|placement| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::open(&placement.directory, flags, Mode::empty())
        })
        .transpose()
        .step("open resource group")?;
    let handover = enter::Handover {
        supervisor: theirs,
        listener,
        guest,
        network,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
    };
    // SAFETY: this process has never started a thread.
    match unsafe { syscall::clone_into(namespaces, group.as_ref().map(AsFd::as_fd)) }
        .step("make namespaces")?
    {
        Some(child) => Ok(child),
        None => {
            // The child must see the end of the channel when the supervisor dies.
            // SAFETY: closes the child's copy of a descriptor that only the parent uses; `enter::run` never returns, so
            // the owner's destructor never runs here.
            unsafe { libc::close(rustix::fd::AsRawFd::as_raw_fd(ours)) };
            unblock_signals();
            // The host waits for the end of these pipes; the guest must not hold them.
            release_host();
            enter::run(spec, &handover)
        }
    }
}

/// Waits until the child has become the guest.
fn await_guest(child: i32, channel: &OwnedFd) -> Result<(), LaunchFailure> {
    let mut message = [0; 4096];
    match rustix::io::read(channel, &mut message).step("talk to child")? {
        // Closed on exec: the guest runs, unless the child died before it got there.
        0 => check_alive(child),
        len => Err(serde_json::from_slice(&message[..len]).unwrap_or(LaunchFailure {
            step: "build sandbox".to_owned(),
            errno: 0,
        })),
    }
}

fn check_alive(child: i32) -> Result<(), LaunchFailure> {
    match wait(child, libc::WNOHANG) {
        None => Ok(()),
        Some(_) => Err(LaunchFailure {
            step: "guest died at its start".to_owned(),
            errno: 0,
        }),
    }
}
