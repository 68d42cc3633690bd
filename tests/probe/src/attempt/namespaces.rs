//! New namespaces, and other processes' namespaces: each kind by each call.

use super::{Attempt, Finding, answer, first_success, last_error, proven};
use std::fs;
use std::os::fd::AsRawFd as _;

pub const ATTEMPTS: &[Attempt] = &[
    proven("unshare_user", |_| unshare(libc::CLONE_NEWUSER)),
    proven("unshare_mount", |_| unshare(libc::CLONE_NEWNS)),
    proven("unshare_pid", |_| unshare(libc::CLONE_NEWPID)),
    proven("unshare_net", |_| unshare(libc::CLONE_NEWNET)),
    proven("unshare_ipc", |_| unshare(libc::CLONE_NEWIPC)),
    proven("unshare_uts", |_| unshare(libc::CLONE_NEWUTS)),
    proven("unshare_cgroup", |_| unshare(libc::CLONE_NEWCGROUP)),
    proven("unshare_time", |_| unshare(CLONE_NEWTIME)),
    proven("clone_user", |_| clone(libc::CLONE_NEWUSER)),
    proven("clone_user_with_others", |_| {
        clone(libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWPID)
    }),
    proven("clone_mounts", |_| clone(libc::CLONE_NEWNS)),
    proven("clone_pid", |_| clone(libc::CLONE_NEWPID)),
    proven("clone_net", |_| clone(libc::CLONE_NEWNET)),
    proven("clone_ipc", |_| clone(libc::CLONE_NEWIPC)),
    proven("clone_uts", |_| clone(libc::CLONE_NEWUTS)),
    proven("clone_cgroup", |_| clone(libc::CLONE_NEWCGROUP)),
    proven("clone3_user", |_| clone3(libc::CLONE_NEWUSER)),
    proven("clone3_mount", |_| clone3(libc::CLONE_NEWNS)),
    proven("clone3_net", |_| clone3(libc::CLONE_NEWNET)),
    proven("clone3_time", |_| clone3(CLONE_NEWTIME)),
    proven("join_namespaces_of_others", |target| {
        let names = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time"];
        first_success(target.prey.iter().flat_map(|pid| {
            names.map(|name| {
                let path = format!("/proc/{pid}/ns/{name}");
                let finding = join(&path);
                (path, finding)
            })
        }))
    }),
    proven("join_own_mount_namespace", |_| join("/proc/self/ns/mnt")),
    proven("join_by_process_descriptor", |target| {
        first_success(target.prey.iter().map(|pid| {
            // SAFETY: integers only; the descriptor ends with this process.
            let finding = unsafe {
                let process = libc::syscall(libc::SYS_pidfd_open, *pid, 0);
                answer(libc::syscall(
                    libc::SYS_setns,
                    process,
                    libc::CLONE_NEWNS | libc::CLONE_NEWNET,
                ))
            };
            (format!("process {pid}"), finding)
        }))
    }),
    proven("write_id_map", |_| {
        // A process in a new user namespace would write its own.
        if unshare_quietly(libc::CLONE_NEWUSER) != 0 {
            return Finding::Refused(last_error().to_string());
        }
        super::result_of(fs::write("/proc/self/uid_map", "0 0 1"))
    }),
];

/// sched.h; not a flag of clone(2), whose lowest byte is the exit signal.
const CLONE_NEWTIME: i32 = 0x80;

fn unshare_quietly(flag: i32) -> i32 {
    // SAFETY: this process has one thread.
    unsafe { libc::unshare(flag) }
}

fn unshare(flag: i32) -> Finding {
    unavailable_if_invalid(unshare_quietly(flag).into())
}

/// A kernel without that kind of namespace says EINVAL.
fn unavailable_if_invalid(result: libc::c_long) -> Finding {
    if result == -1 && super::last_errno() == libc::EINVAL {
        return Finding::Unavailable(last_error().to_string());
    }
    answer(result)
}

fn clone(flags: i32) -> Finding {
    // SAFETY: without a stack the child goes on with a copy of this one, as in fork; it ends at once.
    unsafe {
        let flags = (flags | libc::SIGCHLD) as libc::c_long;
        let child = libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0);
        if child == 0 {
            libc::_exit(0);
        }
        unavailable_if_invalid(child)
    }
}

fn clone3(flags: i32) -> Finding {
    // struct clone_args of clone3(2), first version: flags, pidfd, two tids, exit signal, stack and its size, tls.
    let arguments: [u64; 8] = [flags as u64, 0, 0, 0, libc::SIGCHLD as u64, 0, 0, 0];
    // SAFETY: as above; a clone_args of the given size.
    unsafe {
        let child = libc::syscall(libc::SYS_clone3, arguments.as_ptr(), size_of_val(&arguments));
        if child == 0 {
            libc::_exit(0);
        }
        unavailable_if_invalid(child)
    }
}

fn join(path: &str) -> Finding {
    match fs::File::open(path) {
        // SAFETY: an open descriptor.
        Ok(file) => answer(unsafe { libc::setns(file.as_raw_fd(), 0) }.into()),
        Err(error) => Finding::Refused(error.to_string()),
    }
}
