//! The launcher's own life: detach, take the lock, build the sandbox in a child, report, then supervise it to its end.
//! Single-threaded throughout; the only user is the `greenroom-launcher` binary.

use crate::agent::Agent;
use crate::failure::Step;
use crate::guard::{Held, Started, Terms, hold};
use crate::processes::Inside;
use crate::spec::{LaunchFailure, LaunchSpec, Privilege};
use crate::supervise::{await_execution, begin, clone_child, end, listen, make_groups, wait_without_reaping};
use crate::{enter, identity, landlock, network, seccomp, syscall};
use rustix::fd::OwnedFd;

/// The whole life of a sandbox's first process; returns its exit code. Its listening socket is at
/// [`GUEST_SOCKET_FD`](crate::spec::GUEST_SOCKET_FD), its environment the process's.
pub type Guest = fn() -> std::process::ExitCode;

/// What needs no orders and so is made before they come.
pub struct Ahead {
    network: Option<OwnedFd>,
    /// As root.
    pub(crate) agent: Option<Agent>,
}

impl Ahead {
    /// Compiles the system call filter, makes a network namespace (where this process may not, a start does), and as root
    /// chooses who the agent will be.
    pub fn prepare() -> Self {
        seccomp::prepare();
        Self {
            network: network::make_ahead(),
            agent: identity::is_privileged().then(Agent::choose),
        }
    }
}

/// Builds the sandbox, in which a child of this process becomes `guest`, and stays until its end. Returns the exit code of
/// the launcher.
pub fn run(spec: &LaunchSpec, ahead: Ahead, guest: Guest) -> i32 {
    hold(&Terms::of(spec), start(spec, ahead, guest))
}

/// The guest is the child, and hosts come to it by themselves.
struct Namespaces {
    child: i32,
    /// `None` if its namespaces cannot be opened; then it is only ended as a whole.
    inside: Option<Inside>,
}

impl Held for Namespaces {
    fn child(&self) -> i32 {
        self.child
    }

    fn inside(&self) -> Option<&Inside> {
        self.inside.as_ref()
    }

    fn kill_programs(&mut self) {
        // Fails only for a sandbox that is ending, or once in a while when a program was faster.
        let _ = self.inside.as_ref().map(Inside::kill_programs);
    }
}

fn start(spec: &LaunchSpec, ahead: Ahead, guest: Guest) -> Result<Started<Namespaces>, LaunchFailure> {
    let post = begin(&spec.directory)?;
    let listener = listen(&spec.directory)?;
    let mut warnings: Vec<String> = landlock::shortcoming(landlock::version()).into_iter().collect();
    warnings.extend(make_groups(&spec.cgroups, &spec.limits)?);
    let (ours, theirs) = syscall::message_pair().step("make channel to child")?;
    let mut namespaces = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    if spec.privilege == Privilege::User {
        namespaces |= libc::CLONE_NEWUSER;
    }
    let handover = enter::Handover {
        supervisor: &theirs,
        listener: &listener,
        agent: ahead.agent.as_ref(),
        network: ahead.network.as_ref(),
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
    };
    let child = clone_child(namespaces, &spec.cgroups, (&ours, &theirs), || {
        enter::prepare(spec, &handover)?;
        // Of this process's memory there is a copy here; nothing else of it is left.
        enter::exit(guest())
    })?;
    drop((theirs, listener, ahead));
    // Before the guest closes itself to those who share its uid; it waits for that.
    let inside = Inside::of(child, spec.privilege).ok();
    // One that ended already tells why below.
    let _ = rustix::io::write(&ours, enter::GO);
    match await_execution(&ours).and_then(|()| check_alive(child)) {
        Ok(()) => Ok(Started {
            held: Namespaces { child, inside },
            post,
            warnings,
        }),
        Err(failure) => {
            end(child);
            Err(failure)
        }
    }
}

fn check_alive(child: i32) -> Result<(), LaunchFailure> {
    match wait_without_reaping(child) {
        false => Ok(()),
        true => Err(LaunchFailure {
            step: "guest died at its start".to_owned(),
            errno: 0,
        }),
    }
}
