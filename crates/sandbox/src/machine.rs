//! The supervisor of a virtual machine: holds one Firecracker process, which the host configures over its API, and carries
//! the host's connections to the guest in it. Firecracker runs as the sandbox's own user, in its resource groups, in a
//! directory of its own; it brings its own system call filter.

use crate::cgroup::{self, Version};
use crate::failure::Step;
use crate::guard::{Gone, Held, Started, Terms, hold};
use crate::processes::Inside;
use crate::spec::{LaunchFailure, MACHINE_API_NAME, MACHINE_NAME, MACHINE_VSOCK_NAME, MachineSpec};
use crate::supervise::{begin, end, listen, make_groups, release_host, unblock_signals, wait};
use crate::vsock::Vsock;
use crate::{identity, syscall};
use rustix::event::PollFd;
use rustix::fd::{AsFd as _, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Gid, Uid};
use std::ffi::CString;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

/// How long Firecracker may take until its API's socket is there.
const API_PATIENCE: Duration = Duration::from_secs(5);

/// Starts Firecracker and stays until its end. Returns the exit code of the launcher.
pub fn run(spec: &MachineSpec) -> i32 {
    let terms = Terms {
        directory: &spec.directory,
        cgroups: &spec.cgroups,
        limits: &spec.limits,
        // Its disks have their size.
        watched_as: None,
    };
    hold(&terms, start(spec))
}

/// A Firecracker that runs.
struct Machine {
    child: i32,
    vsock: Vsock,
}

impl Held for Machine {
    fn child(&self) -> i32 {
        self.child
    }

    fn wait_for<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        self.vsock.wait_for(fds);
    }

    fn serve(&mut self) -> Result<(), Gone> {
        self.vsock.serve();
        Ok(())
    }

    fn inside(&self) -> Option<&Inside> {
        None
    }

    /// Never asked for: nothing is watched.
    fn kill_programs(&mut self) {}
}

fn start(spec: &MachineSpec) -> Result<Started<Machine>, LaunchFailure> {
    let post = begin(&spec.directory)?;
    let listener = listen(&spec.directory)?;
    rustix::io::ioctl_fionbio(&listener, true).step("listen on guest socket")?;
    let warnings = make_groups(&spec.cgroups, &spec.limits)?;
    // Everything of the machine is found from here, by names without a directory: its process could not walk the way.
    rustix::process::chdir(spec.directory.join(MACHINE_NAME)).step("enter machine directory")?;
    for name in [MACHINE_API_NAME, MACHINE_VSOCK_NAME] {
        match rustix::fs::unlink(name) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error).step("remove old sockets"),
        }
    }
    let child = spawn(spec)?;
    let deadline = Instant::now() + API_PATIENCE;
    while !std::path::Path::new(MACHINE_API_NAME).exists() {
        let failure = |step: &str| LaunchFailure {
            step: step.to_owned(),
            errno: 0,
        };
        if wait(child, libc::WNOHANG).is_some() {
            return Err(failure("Firecracker ended at its start; see launcher.log"));
        }
        if Instant::now() > deadline {
            end(child);
            return Err(failure("Firecracker offers no API"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let vsock = Vsock::new(listener, MACHINE_VSOCK_NAME, spec.guest_port);
    Ok(Started {
        held: Machine { child, vsock },
        post,
        warnings,
    })
}

fn spawn(spec: &MachineSpec) -> Result<i32, LaunchFailure> {
    // Opened now: the machine's user may not be able to walk to it.
    let program = rustix::fs::open(&spec.program, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .step("open Firecracker")?;
    let arguments = [
        "firecracker",
        "--api-sock",
        MACHINE_API_NAME,
        "--level",
        "Warning",
    ]
    .map(|argument| CString::new(argument).unwrap_or_default());
    // SAFETY: one thread; the child only makes system calls before it executes.
    match unsafe { libc::fork() } {
        -1 => Err(syscall::last_errno()).step("fork"),
        0 => {
            unblock_signals();
            release_host();
            let Err(failure) = become_firecracker(spec, &program, &arguments);
            // Standard error is the launcher's log.
            let _ = rustix::io::write(rustix::stdio::stderr(), format!("{failure}\n").as_bytes());
            // SAFETY: ends the process without running what belongs to the parent.
            unsafe { libc::_exit(1) }
        }
        child => Ok(child),
    }
}

fn become_firecracker(
    spec: &MachineSpec,
    program: &OwnedFd,
    arguments: &[CString],
) -> Result<std::convert::Infallible, LaunchFailure> {
    identity::die_with_parent()?;
    for placement in &spec.cgroups {
        match placement.version {
            Version::V1 => cgroup::join(placement).step("enter resource group")?,
            Version::V2 => {
                std::fs::write(placement.directory.join("cgroup.procs"), "0").step("enter resource group")?;
            }
        }
    }
    if let Some(host_id) = spec.host_id {
        // Its own user, and the group that may use the kernel's virtual machines.
        let kvm = std::fs::metadata("/dev/kvm").step("look at /dev/kvm")?;
        let (uid, gid) = (Uid::from_raw(host_id), Gid::from_raw(host_id));
        rustix::thread::set_thread_groups(&[Gid::from_raw(kvm.gid())]).step("leave groups")?;
        rustix::thread::set_thread_res_gid(gid, gid, gid).step("become the sandbox's user")?;
        rustix::thread::set_thread_res_uid(uid, uid, uid).step("become the sandbox's user")?;
        // Changing user clears it (prctl(2)).
        identity::die_with_parent()?;
    }
    // The new user has no capability, and can get none any more.
    rustix::thread::set_no_new_privs(true).step("give up new privileges")?;
    Err(syscall::execute(program.as_fd(), arguments, &[])).step("execute Firecracker")
}
