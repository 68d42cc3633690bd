//! The supervisor of a sandbox that an OCI runtime isolates: sets the stage for the runtime, starts it in mount and pid
//! namespaces of its own, and carries hosts' connections to the guest, which has only the runtime's standard streams.
//!
//! The runtime is the first process of that pid namespace and dies with this supervisor; whatever it started dies with it.
//! Its state, its mounts and its bundle live in the mount namespace. So no runtime is ever asked to stop or delete anything.

mod bundle;
mod stage;

use crate::agent::Agent;
use crate::failure::Step;
use crate::guard::{Gone, Held, Started, Terms, hold, pause};
use crate::launch::Ahead;
use crate::oci::stage::Streams;
use crate::processes::Inside;
use crate::relay::Relay;
use crate::spec::{LaunchFailure, Limits, OciRuntime, OciSpec, Privilege, RUNTIME_LOG_NAME, RUNTIME_REFUSED};
use crate::supervise::{
    Post, await_execution, begin, clone_child, end, kill, listen, make_groups, wait_for_end,
    wait_without_reaping,
};
use crate::{cgroup, syscall};
use rustix::event::{PollFd, PollFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use std::io::Write as _;
use std::time::{Duration, Instant};

/// How long a runtime may take until its guest serves.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// Processes and threads that a runtime may have itself.
const RUNTIME_TASKS: u32 = 128;

/// Processes and threads that a kernel of its own may have for one of a program's.
const TASKS_PER_PROGRAM: u32 = 4;

/// Bytes of the runtime's standard error that are kept on disk.
const MAX_LOG_BYTES: usize = 64 * 1024;

/// Longest last line that is told.
const MAX_LINE_BYTES: usize = 400;

/// Starts the runtime and stays until its end. Returns the exit code of the launcher.
pub fn run(spec: &OciSpec, ahead: Ahead) -> i32 {
    hold(&Terms::of(&spec.sandbox), start(spec, ahead.agent.as_ref()))
}

/// A runtime that runs.
struct Runtime {
    child: i32,
    relay: Relay,
    errors: ErrorLog,
    /// Once the guest serves, where it runs on this kernel.
    inside: Option<Inside>,
}

impl Held for Runtime {
    fn child(&self) -> i32 {
        self.child
    }

    fn wait_for<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        if let Some(pipe) = &self.errors.pipe {
            fds.push(PollFd::new(pipe, PollFlags::IN));
        }
        self.relay.wait_for(fds);
    }

    fn serve(&mut self) -> Result<(), Gone> {
        self.errors.read();
        self.relay.serve()
    }

    fn inside(&self) -> Option<&Inside> {
        self.inside.as_ref()
    }

    fn kill_programs(&mut self) {
        match &self.inside {
            // Fails only for a sandbox that is ending, or once in a while when a program was faster.
            Some(inside) => {
                let _ = inside.kill_programs();
            }
            // Its processes are none of this kernel's.
            None => self.relay.ask_to_kill_programs(),
        }
    }
}

fn start(spec: &OciSpec, agent: Option<&Agent>) -> Result<Started<Runtime>, LaunchFailure> {
    let sandbox = &spec.sandbox;
    let post = begin(&sandbox.directory)?;
    let listener = listen(&sandbox.directory)?;
    let warnings = make_groups(&sandbox.cgroups, &limits_of_group(spec))?;
    let pipe = || pipe_with(PipeFlags::CLOEXEC).step("make pipes");
    let ((input, to_guest), (from_guest, output), (from_errors, errors)) = (pipe()?, pipe()?, pipe()?);
    for fd in [&listener, &to_guest, &from_guest, &from_errors] {
        rustix::io::ioctl_fionbio(fd, true).step("make pipes")?;
    }
    let streams = Streams {
        input,
        output,
        errors,
    };
    let (ours, theirs) = syscall::message_pair().step("make channel to child")?;
    let mut namespaces = libc::CLONE_NEWNS | libc::CLONE_NEWPID;
    if sandbox.privilege == Privilege::User {
        namespaces |= libc::CLONE_NEWUSER;
    }
    let ids = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    let child = clone_child(namespaces, &sandbox.cgroups, (&ours, &theirs), || {
        stage::become_runtime(spec, agent, &theirs, &streams, ids)
    })?;
    drop((theirs, streams));
    let mut held = Runtime {
        child,
        relay: Relay::new(listener, to_guest, from_guest),
        errors: ErrorLog::new(from_errors, sandbox),
        inside: None,
    };
    match await_execution(&ours).and_then(|()| held.await_guest(&post)) {
        Ok(()) => {
            if is_on_this_kernel(spec.runtime) {
                held.inside = Inside::below(child, sandbox.privilege);
                // From now on only its own threads are beside the guest and the programs. Where that cannot be set, more
                // may run than should.
                let most = sandbox.limits.max_processes.saturating_add(threads(child));
                let _ = cgroup::allow_processes(&sandbox.cgroups, most);
            }
            Ok(Started { held, post, warnings })
        }
        Err(failure) => {
            end(child);
            Err(failure)
        }
    }
}

/// Whether programs are processes of this kernel, in a pid namespace below the runtime. What is below others may be the
/// helpers of a kernel of their own.
fn is_on_this_kernel(runtime: OciRuntime) -> bool {
    match runtime {
        OciRuntime::Crun | OciRuntime::Runc => true,
        OciRuntime::Runsc | OciRuntime::Other => false,
    }
}

/// What the group lets the runtime and all below it have. It has processes and threads of its own; a kernel of its own has some
/// for each program, and holds the programs to their number itself (`RLIMIT_NPROC`): it would not survive a refusal.
fn limits_of_group(spec: &OciSpec) -> Limits {
    let limits = spec.sandbox.limits;
    let per_program = match is_on_this_kernel(spec.runtime) {
        true => 1,
        false => TASKS_PER_PROGRAM,
    };
    let programs = limits.max_processes.saturating_mul(per_program);
    Limits {
        max_processes: programs.saturating_add(RUNTIME_TASKS),
        ..limits
    }
}

/// Threads of a process.
fn threads(process: i32) -> u32 {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task"));
    tasks.map_or(0, |tasks| u32::try_from(tasks.count()).unwrap_or(u32::MAX))
}

impl Runtime {
    /// Waits until the guest serves.
    fn await_guest(&mut self, post: &Post) -> Result<(), LaunchFailure> {
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            let served = self.serve();
            let is_over = served.is_err() || wait_without_reaping(self.child);
            if self.relay.is_ready() && !is_over {
                return Ok(());
            }
            let why = match (is_over, Instant::now() > deadline) {
                (true, _) if served == Err(Gone::Nonsense) => "it put something before what the guest says",
                (true, _) => "it ended without a word",
                (false, true) => "it did not start the guest in time",
                (false, false) => {
                    pause(self, post, Some(deadline));
                    continue;
                }
            };
            if is_over {
                // What it said last may still be on its way.
                kill(self.child);
                wait_for_end(self.child);
                self.errors.read();
            }
            let line = self.errors.last_line();
            return Err(LaunchFailure {
                step: format!("{RUNTIME_REFUSED}{}", if line.is_empty() { why } else { &line }),
                errno: 0,
            });
        }
    }
}

/// What the runtime and the guest say on standard error: the beginning on disk, the last of it in memory.
struct ErrorLog {
    /// `None` once nobody holds the other end.
    pipe: Option<OwnedFd>,
    file: Option<std::fs::File>,
    written: usize,
    tail: Vec<u8>,
}

impl ErrorLog {
    fn new(pipe: OwnedFd, sandbox: &crate::spec::LaunchSpec) -> Self {
        Self {
            pipe: Some(pipe),
            // Without it there is one thing less to look at.
            file: std::fs::File::create(sandbox.directory.join(RUNTIME_LOG_NAME)).ok(),
            written: 0,
            tail: Vec::new(),
        }
    }

    /// Takes what is there.
    fn read(&mut self) {
        let mut buffer = [0; 4096];
        while let Some(pipe) = &self.pipe {
            match rustix::io::read(pipe, &mut buffer) {
                Ok(len @ 1..) => {
                    let room = len.min(MAX_LOG_BYTES - self.written);
                    if let Some(file) = &mut self.file {
                        let _ = file.write_all(&buffer[..room]);
                    }
                    self.written += room;
                    self.tail.extend_from_slice(&buffer[..len]);
                    let surplus = self.tail.len().saturating_sub(buffer.len());
                    self.tail.drain(..surplus);
                }
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                Ok(0) | Err(_) => self.pipe = None,
            }
        }
    }

    fn last_line(&self) -> String {
        let text = String::from_utf8_lossy(&self.tail);
        let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty());
        line.unwrap_or_default().chars().take(MAX_LINE_BYTES).collect()
    }
}
