//! Kernel interfaces that builds and tests do not need: the machine itself, and those with a history of holes. Calls that
//! would do harm are made with arguments that are refused only after the caller was found entitled.

use super::{Attempt, Finding, answer, answer_or, last_error, proven, proven_with, spared};

pub const ATTEMPTS: &[Attempt] = &[
    proven("kernel_log", |_| {
        let mut buffer = [0_u8; 4096];
        // SYSLOG_ACTION_READ_ALL (syslog(2)).
        // SAFETY: a buffer of the given length.
        answer(unsafe { libc::syscall(libc::SYS_syslog, 3, buffer.as_mut_ptr(), buffer.len()) })
    }),
    proven("bpf_map", |_| {
        // union bpf_attr of BPF_MAP_CREATE: an array of one 4-byte value.
        let attributes: [u32; 32] = {
            let mut attributes = [0; 32];
            attributes[..4].copy_from_slice(&[2, 4, 4, 1]);
            attributes
        };
        // SAFETY: attributes of the given size.
        answer(unsafe { libc::syscall(libc::SYS_bpf, 0, attributes.as_ptr(), size_of_val(&attributes)) })
    }),
    proven("bpf_program", |_| {
        // r0 = 0; exit.
        let code: [u64; 2] = [0xb7, 0x95];
        let licence = c"GPL";
        let mut attributes = [0_u64; 16];
        // BPF_PROG_TYPE_SOCKET_FILTER, two instructions.
        attributes[0] = 1 | (2 << 32);
        attributes[1] = code.as_ptr() as u64;
        attributes[2] = licence.as_ptr() as u64;
        // SAFETY: attributes of the given size that point to valid memory.
        answer(unsafe { libc::syscall(libc::SYS_bpf, 5, attributes.as_ptr(), size_of_val(&attributes)) })
    }),
    proven("performance_counter", |_| {
        // perf_event_attr: software event (type 1), its size, the CPU clock, user space only.
        let mut attributes = [0_u64; 16];
        attributes[0] = 1 | (128 << 32);
        attributes[5] = (1 << 5) | (1 << 6);
        // SAFETY: attributes with their size inside.
        answer(unsafe { libc::syscall(libc::SYS_perf_event_open, attributes.as_ptr(), 0, -1, -1, 0) })
    }),
    proven("io_uring", |_| {
        let mut parameters = [0_u8; 120];
        // SAFETY: room for io_uring_params.
        answer(unsafe { libc::syscall(libc::SYS_io_uring_setup, 4, parameters.as_mut_ptr()) })
    }),
    proven("user_fault_descriptor", |_| {
        // O_CLOEXEC | UFFD_USER_MODE_ONLY.
        // SAFETY: integers only.
        answer(unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | 1) })
    }),
    proven("add_key", |_| {
        // Into the process keyring, gone with this process.
        // SAFETY: NUL-terminated texts and a payload of the given length.
        answer(unsafe {
            libc::syscall(
                libc::SYS_add_key,
                c"user".as_ptr(),
                c"greenroom-probe".as_ptr(),
                c"x".as_ptr(),
                1,
                -2,
            )
        })
    }),
    proven("read_keyring", |_| {
        // KEYCTL_GET_KEYRING_ID of the user's keyring, made if needed.
        // SAFETY: integers only.
        answer(unsafe { libc::syscall(libc::SYS_keyctl, 0, -4, 1, 0, 0) })
    }),
    proven("request_key", |_| {
        // SAFETY: NUL-terminated texts; without callout information nobody is asked.
        let result = unsafe {
            libc::syscall(
                libc::SYS_request_key,
                c"user".as_ptr(),
                c"greenroom-probe-none".as_ptr(),
                std::ptr::null::<u8>(),
                0,
            )
        };
        // There is no such key, which the kernel tells only after it has looked.
        answer_or(result, &[libc::ENOKEY])
    }),
    proven_with(CAP_SYS_MODULE, "load_module", |_| {
        let image = [0_u8; 64];
        // SAFETY: an image of the given length and NUL-terminated parameters.
        let result =
            unsafe { libc::syscall(libc::SYS_init_module, image.as_ptr(), image.len(), c"".as_ptr()) };
        answer_or(result, &[libc::ENOEXEC])
    }),
    proven_with(CAP_SYS_MODULE, "load_module_file", |_| {
        // SAFETY: a NUL-terminated path; the descriptor ends with this process.
        let result = unsafe {
            let file = libc::open(c"/proc/self/exe".as_ptr(), libc::O_RDONLY);
            libc::syscall(libc::SYS_finit_module, file, c"".as_ptr(), 0)
        };
        // A program is no module.
        answer_or(result, &[libc::ENOEXEC])
    }),
    proven_with(CAP_SYS_MODULE, "unload_module", |_| {
        // SAFETY: a NUL-terminated name.
        let result = unsafe {
            libc::syscall(
                libc::SYS_delete_module,
                c"greenroom_no_such".as_ptr(),
                libc::O_NONBLOCK,
            )
        };
        answer_or(result, &[libc::ENOENT])
    }),
    spared("load_kernel", "would unload a crash kernel", |_| {
        // No segments.
        // SAFETY: nothing is read.
        answer(unsafe { libc::syscall(libc::SYS_kexec_load, 0, 0, std::ptr::null::<u8>(), 0) })
    }),
    proven_with(CAP_SYS_BOOT, "load_kernel_file", |_| {
        // SAFETY: descriptors that do not exist.
        let result = unsafe { libc::syscall(libc::SYS_kexec_file_load, -1, -1, 1, c"".as_ptr(), 0) };
        answer_or(result, &[libc::EBADF, libc::ENOEXEC])
    }),
    proven_with(CAP_SYS_BOOT, "reboot", |_| {
        // The right magic numbers and a command that does not exist (reboot(2)).
        // SAFETY: integers only.
        let result = unsafe { libc::syscall(libc::SYS_reboot, 0xfee1_dead_u32, 0x2812_1969, 0x1234, 0) };
        answer_or(result, &[libc::EINVAL])
    }),
    proven_with(CAP_SYS_ADMIN, "swap_on", |_| {
        // SAFETY: a NUL-terminated path.
        let result = unsafe { libc::swapon(c"/greenroom-no-such-file".as_ptr(), 0) };
        answer_or(result.into(), &[libc::ENOENT])
    }),
    proven_with(CAP_SYS_ADMIN, "swap_off", |_| {
        // SAFETY: a NUL-terminated path.
        let result = unsafe { libc::swapoff(c"/greenroom-no-such-file".as_ptr()) };
        answer_or(result.into(), &[libc::ENOENT])
    }),
    proven_with(CAP_SYS_PACCT, "process_accounting", |_| {
        // SAFETY: a NUL-terminated path.
        let result = unsafe { libc::acct(c"/greenroom-no-such-file".as_ptr()) };
        answer_or(result.into(), &[libc::ENOENT])
    }),
    proven("quota", |_| {
        // Q_SYNC of all filesystems (quotactl(2)).
        // SAFETY: no device and no data.
        answer(unsafe {
            libc::syscall(
                libc::SYS_quotactl,
                0x0080_0001 << 8,
                std::ptr::null::<u8>(),
                0,
                std::ptr::null::<u8>(),
            )
        })
    }),
    proven_with(CAP_SYS_TIME, "set_time_of_day", |_| {
        // Neither a time nor a zone: only the check of rights is left.
        // SAFETY: no memory is passed.
        answer(unsafe {
            libc::syscall(
                libc::SYS_settimeofday,
                std::ptr::null::<u8>(),
                std::ptr::null::<u8>(),
            )
        })
    }),
    spared("set_clock", "would set the clock", |_| {
        let mut now = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: a valid timespec.
        answer(
            unsafe {
                libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut now);
                libc::clock_settime(libc::CLOCK_REALTIME, &raw const now)
            }
            .into(),
        )
    }),
    proven_with(CAP_SYS_TIME, "adjust_clock", |_| {
        adjust(|time| {
            // SAFETY: a valid timex.
            unsafe { libc::syscall(libc::SYS_adjtimex, time) }
        })
    }),
    proven_with(CAP_SYS_TIME, "adjust_clock_by_number", |_| {
        adjust(|time| {
            // SAFETY: a valid timex.
            unsafe { libc::syscall(libc::SYS_clock_adjtime, libc::CLOCK_REALTIME, time) }
        })
    }),
    proven_with(CAP_SYS_ADMIN, "set_host_name", |_| {
        let mut name = [0_u8; 65];
        // The name it has already.
        // SAFETY: a buffer of the given length.
        answer(
            unsafe {
                libc::gethostname(name.as_mut_ptr().cast(), 64);
                libc::sethostname(name.as_ptr().cast(), libc::strlen(name.as_ptr().cast()))
            }
            .into(),
        )
    }),
    proven_with(CAP_SYS_TTY_CONFIG, "hang_up_terminal", |_| {
        // Of a session without a terminal, so that nobody's is hung up.
        // SAFETY: no arguments.
        answer(unsafe {
            let child = libc::fork();
            if child == 0 {
                libc::setsid();
                let result = libc::vhangup();
                libc::_exit(if result == 0 { 0 } else { super::last_errno() });
            }
            let mut status = 0;
            libc::waitpid(child, &raw mut status, 0);
            match libc::WEXITSTATUS(status) {
                0 => 0,
                errno => {
                    *libc::__errno_location() = errno;
                    -1
                }
            }
        })
    }),
    proven("watch_all_files", |_| {
        // FAN_CLASS_NOTIF | FAN_REPORT_FID, which needs no capability.
        // SAFETY: integers only.
        answer(unsafe { libc::syscall(libc::SYS_fanotify_init, 0x200, libc::O_RDONLY) })
    }),
    proven("splice_user_memory", |_| {
        let mut pipe = [0; 2];
        let mut page = [0_u8; 64];
        let part = libc::iovec {
            iov_base: page.as_mut_ptr().cast(),
            iov_len: page.len(),
        };
        // SAFETY: a pipe and memory that live until the call returns, and the process ends before the page is read.
        unsafe {
            if libc::pipe(pipe.as_mut_ptr()) != 0 {
                return Finding::Refused(last_error().to_string());
            }
            answer(libc::syscall(libc::SYS_vmsplice, pipe[1], &raw const part, 1, 0))
        }
    }),
    proven("directory_cookie", |_| {
        let mut name = [0_u8; 64];
        // SAFETY: a buffer of the given length.
        answer(unsafe { libc::syscall(libc::SYS_lookup_dcookie, 0_u64, name.as_mut_ptr(), name.len()) })
    }),
    proven("nfs_server", |_| {
        // SAFETY: no memory is passed.
        answer(unsafe { libc::syscall(libc::SYS_nfsservctl, 0, 0, 0) })
    }),
];

/// capabilities(7).
const CAP_SYS_MODULE: u32 = 16;
const CAP_SYS_PACCT: u32 = 20;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_SYS_BOOT: u32 = 22;
const CAP_SYS_TIME: u32 = 25;
const CAP_SYS_TTY_CONFIG: u32 = 26;

/// Sets the clock's status to what it is.
fn adjust(call: impl Fn(*mut libc::timex) -> libc::c_long) -> Finding {
    // SAFETY: all zero is a timex that only asks.
    let mut time: libc::timex = unsafe { std::mem::zeroed() };
    if call(&raw mut time) == -1 {
        return Finding::Refused(last_error().to_string());
    }
    time.modes = libc::ADJ_STATUS;
    answer(call(&raw mut time))
}
