//! Other processes: the sandbox's first one, which holds the way to the host, and processes of the host and of other
//! sandboxes, which must not even be seen.

use super::{
    Attempt, Finding, answer, answer_or, compare, first_success, last_error, proven, proven_with, result_of,
};
use greenroom_probe::Target;
use std::fs;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

pub const ATTEMPTS: &[Attempt] = &[
    proven("attach_as_tracer", |target| {
        each_prey(target, |pid| {
            // SAFETY: no memory is passed. The victim goes on when this process ends.
            answer(unsafe { libc::ptrace(libc::PTRACE_ATTACH, pid, 0, 0) })
        })
    }),
    proven("seize_as_tracer", |target| {
        each_prey(target, |pid| {
            // SAFETY: as above.
            answer(unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0, 0) })
        })
    }),
    proven("read_process_memory", |target| {
        each_prey(target, |pid| transfer(libc::SYS_process_vm_readv, pid))
    }),
    proven("write_process_memory", |target| {
        each_prey(target, |pid| transfer(libc::SYS_process_vm_writev, pid))
    }),
    proven("open_process_memory", |target| {
        each_prey(target, |pid| {
            result_of(
                fs::OpenOptions::new()
                    .read(true)
                    .write(true)
                    .open(format!("/proc/{pid}/mem")),
            )
        })
    }),
    proven("read_process_map", |target| {
        each_prey(target, |pid| {
            match fs::read_to_string(format!("/proc/{pid}/maps")) {
                Ok(text) if !text.is_empty() => Finding::Succeeded("its layout".to_owned()),
                Ok(_) => Finding::Refused("is empty".to_owned()),
                Err(error) => Finding::Refused(error.to_string()),
            }
        })
    }),
    proven("read_process_environment", |target| {
        each_prey(target, |pid| result_of(fs::read(format!("/proc/{pid}/environ"))))
    }),
    proven("open_process_descriptors", |target| {
        each_prey(target, |pid| {
            first_success((0..32).map(|fd| {
                let path = format!("/proc/{pid}/fd/{fd}");
                let opened = fs::File::open(&path);
                (path, result_of(opened))
            }))
        })
    }),
    proven("take_process_descriptors", |target| {
        each_prey(target, |pid| {
            let process = match process_descriptor(pid) {
                Ok(process) => process,
                Err(error) => return Finding::Refused(error.to_string()),
            };
            first_success((0..32).map(|fd| {
                // SAFETY: an open descriptor and two integers.
                let taken = unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), fd, 0) };
                (fd.to_string(), answer(taken))
            }))
        })
    }),
    proven("advise_process_memory", |target| {
        each_prey(target, |pid| {
            let process = match process_descriptor(pid) {
                Ok(process) => process,
                Err(error) => return Finding::Refused(error.to_string()),
            };
            let part = libc::iovec {
                iov_base: 0x1000 as *mut libc::c_void,
                iov_len: 4096,
            };
            // SAFETY: one valid iovec, whose address is only looked up in the other process.
            let result = unsafe {
                libc::syscall(
                    libc::SYS_process_madvise,
                    process.as_raw_fd(),
                    &raw const part,
                    1,
                    libc::MADV_COLD,
                    0,
                )
            };
            // Nothing is mapped there, which is found out after the check of rights.
            answer_or(result, &[libc::ENOMEM])
        })
    }),
    proven("compare_kernel_objects", |target| {
        each_prey(target, |pid| {
            // KCMP_VM.
            // SAFETY: integers only.
            answer(unsafe { libc::syscall(libc::SYS_kcmp, libc::getpid(), pid, 1, 0, 0) })
        })
    }),
    proven("move_process_pages", |target| {
        each_prey(target, |pid| {
            // SAFETY: no pages, so no memory is read.
            let result = unsafe {
                libc::syscall(
                    libc::SYS_move_pages,
                    pid,
                    0,
                    std::ptr::null::<u8>(),
                    std::ptr::null::<u8>(),
                    std::ptr::null::<u8>(),
                    0,
                )
            };
            answer(result)
        })
    }),
    proven("migrate_process_pages", |target| {
        each_prey(target, |pid| {
            let nodes = 1_u64;
            // SAFETY: two node masks of one word.
            let result = unsafe {
                libc::syscall(
                    libc::SYS_migrate_pages,
                    pid,
                    2,
                    &raw const nodes,
                    &raw const nodes,
                )
            };
            answer(result)
        })
    }),
    proven("signal_host_process", |target| {
        // SAFETY: signal 0 only asks.
        let result = unsafe { libc::kill(target.victim, 0) };
        match (answer(result.into()), is_victim(target.victim, target)) {
            (Finding::Succeeded(_), true) => Finding::Succeeded("it can be signalled".to_owned()),
            (Finding::Succeeded(_), false) => Finding::Refused("that number is somebody else".to_owned()),
            (refused, _) => refused,
        }
    }),
    proven("see_foreign_processes", |target| {
        let found = numbers().into_iter().find(|pid| is_victim(*pid, target));
        match found {
            Some(pid) => Finding::Succeeded(format!("process {pid} holds the secret")),
            None => Finding::Refused("none holds the secret".to_owned()),
        }
    }),
    proven("host_shared_memory", |target| {
        // SAFETY: asks for an existing segment and maps it read-only; it lives as long as this process.
        let address = unsafe {
            let segment = libc::shmget(target.shared_memory_key, 0, 0);
            if segment < 0 {
                return Finding::Refused(last_error().to_string());
            }
            libc::shmat(segment, std::ptr::null(), libc::SHM_RDONLY)
        };
        if address as isize == -1 {
            return Finding::Refused(last_error().to_string());
        }
        // SAFETY: the segment holds at least a page.
        let bytes = unsafe { std::slice::from_raw_parts(address.cast::<u8>(), 256) };
        compare("the segment", bytes, target)
    }),
    proven("host_shared_memory_file", |target| {
        match fs::read(format!("/dev/shm/{}", target.shared_memory_name)) {
            Ok(bytes) => compare("the file", &bytes, target),
            Err(error) => Finding::Refused(error.to_string()),
        }
    }),
    proven("host_message_queue", |target| {
        let name = std::ffi::CString::new(target.message_queue.trim_start_matches('/')).unwrap_or_default();
        // SAFETY: a NUL-terminated name without slash, as the system call wants it (mq_open(3), notes).
        answer(unsafe {
            libc::syscall(
                libc::SYS_mq_open,
                name.as_ptr(),
                libc::O_RDONLY | libc::O_NONBLOCK,
                0,
                0,
            )
        })
    }),
    proven_with(CAP_SYS_NICE, "highest_priority", |_| {
        // SAFETY: integers only; this process alone is meant.
        answer(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) }.into())
    }),
    proven_with(CAP_SYS_NICE, "real_time_priority", |_| {
        let parameters = libc::sched_param { sched_priority: 1 };
        // SAFETY: a valid sched_param for this process.
        answer(unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) }.into())
    }),
    proven_with(CAP_SYS_NICE, "real_time_io_priority", |_| {
        // Class 1 (real time), level 0, of this process (ioprio_set(2)).
        // SAFETY: integers only.
        answer(unsafe { libc::syscall(libc::SYS_ioprio_set, 1, 0, 1 << 13) })
    }),
    proven("inject_terminal_input", |_| {
        // SAFETY: a new terminal becomes this process's own; everything is gone with it.
        unsafe {
            let master = libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY);
            if master < 0 || libc::grantpt(master) != 0 || libc::unlockpt(master) != 0 {
                return Finding::Refused(format!("no terminal: {}", last_error()));
            }
            let name = libc::ptsname(master);
            let pid = libc::fork();
            if pid == 0 {
                libc::setsid();
                let slave = libc::open(name, libc::O_RDWR);
                libc::ioctl(slave, libc::TIOCSCTTY, 0);
                let typed = libc::ioctl(slave, libc::TIOCSTI, c"x".as_ptr());
                libc::_exit(if typed == 0 { 0 } else { super::last_errno() });
            }
            let mut status = 0;
            libc::waitpid(pid, &raw mut status, 0);
            match libc::WEXITSTATUS(status) {
                0 => Finding::Succeeded("typed on behalf of another".to_owned()),
                errno => Finding::Refused(std::io::Error::from_raw_os_error(errno).to_string()),
            }
        }
    }),
];

/// capabilities(7).
const CAP_SYS_NICE: u32 = 23;

fn each_prey(target: &Target, attack: impl Fn(i32) -> Finding) -> Finding {
    first_success(
        target
            .prey
            .iter()
            .map(|pid| (format!("process {pid}"), attack(*pid))),
    )
}

/// Moves no bytes of real memory: the address is not mapped, which is found out after the check of rights.
fn transfer(call: libc::c_long, pid: i32) -> Finding {
    let mut buffer = [0_u8; 8];
    let local = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let remote = libc::iovec {
        iov_base: 0x1000 as *mut libc::c_void,
        iov_len: buffer.len(),
    };
    // SAFETY: both iovecs are valid; the remote address is looked up in the other process only.
    let result = unsafe {
        libc::syscall(
            call,
            pid,
            &raw const local,
            1_usize,
            &raw const remote,
            1_usize,
            0_usize,
        )
    };
    answer_or(result, &[libc::EFAULT])
}

fn process_descriptor(pid: i32) -> std::io::Result<OwnedFd> {
    // SAFETY: integers only.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(last_error());
    }
    // SAFETY: the kernel just handed it out.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn numbers() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// Whether a process has the secret as an argument of its own; the probe's processes carry it inside a longer one.
fn is_victim(pid: i32, target: &Target) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
        line.split(|byte| *byte == 0)
            .any(|word| word == target.secret.as_bytes())
    })
}
