//! The system call filter, as data: what a sandbox's processes may not call. A denylist, because builds and tests of any
//! language must run unchanged; what is listed is kernel surface they do not need. Applied on top of "no capabilities".

use crate::syscall::last_errno;
use libc::sock_filter;
use program::{Answer, Condition, Verdict};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// Answered with EPERM, whatever the arguments.
pub const DENIED: &[(&str, i64)] = &[
    // Other processes' memory and descriptors; also keeps the guest's socket out of reach. The price is that debuggers and
    // strace do not work inside: ptrace(2) has had too many holes, and would let one program speak as another.
    ("ptrace", libc::SYS_ptrace),
    ("process_vm_readv", libc::SYS_process_vm_readv),
    ("process_vm_writev", libc::SYS_process_vm_writev),
    ("pidfd_getfd", libc::SYS_pidfd_getfd),
    ("process_madvise", libc::SYS_process_madvise),
    ("kcmp", libc::SYS_kcmp),
    // Namespaces and mounts.
    ("unshare", libc::SYS_unshare),
    ("setns", libc::SYS_setns),
    ("mount", libc::SYS_mount),
    ("umount2", libc::SYS_umount2),
    ("pivot_root", libc::SYS_pivot_root),
    ("chroot", libc::SYS_chroot),
    ("fsopen", libc::SYS_fsopen),
    ("fsconfig", libc::SYS_fsconfig),
    ("fsmount", libc::SYS_fsmount),
    ("fspick", libc::SYS_fspick),
    ("open_tree", libc::SYS_open_tree),
    // Linux 6.15; the C library's bindings do not know it yet. The same number on every architecture.
    ("open_tree_attr", 467),
    ("move_mount", libc::SYS_move_mount),
    ("mount_setattr", libc::SYS_mount_setattr),
    ("quotactl", libc::SYS_quotactl),
    ("quotactl_fd", libc::SYS_quotactl_fd),
    // Handles that reach around path permissions.
    ("open_by_handle_at", libc::SYS_open_by_handle_at),
    ("name_to_handle_at", libc::SYS_name_to_handle_at),
    // Kernel facilities with a history of holes.
    ("bpf", libc::SYS_bpf),
    ("perf_event_open", libc::SYS_perf_event_open),
    ("userfaultfd", libc::SYS_userfaultfd),
    ("keyctl", libc::SYS_keyctl),
    ("add_key", libc::SYS_add_key),
    ("request_key", libc::SYS_request_key),
    ("vmsplice", libc::SYS_vmsplice),
    ("fanotify_init", libc::SYS_fanotify_init),
    ("lookup_dcookie", libc::SYS_lookup_dcookie),
    // The machine itself.
    ("syslog", libc::SYS_syslog),
    ("kexec_load", libc::SYS_kexec_load),
    ("kexec_file_load", libc::SYS_kexec_file_load),
    ("init_module", libc::SYS_init_module),
    ("finit_module", libc::SYS_finit_module),
    ("delete_module", libc::SYS_delete_module),
    ("reboot", libc::SYS_reboot),
    ("swapon", libc::SYS_swapon),
    ("swapoff", libc::SYS_swapoff),
    ("acct", libc::SYS_acct),
    ("settimeofday", libc::SYS_settimeofday),
    ("clock_settime", libc::SYS_clock_settime),
    ("clock_adjtime", libc::SYS_clock_adjtime),
    ("adjtimex", libc::SYS_adjtimex),
    ("sethostname", libc::SYS_sethostname),
    ("setdomainname", libc::SYS_setdomainname),
    ("vhangup", libc::SYS_vhangup),
    ("nfsservctl", libc::SYS_nfsservctl),
    // NUMA placement belongs to the host.
    ("move_pages", libc::SYS_move_pages),
    ("migrate_pages", libc::SYS_migrate_pages),
    #[cfg(target_arch = "x86_64")]
    ("iopl", libc::SYS_iopl),
    #[cfg(target_arch = "x86_64")]
    ("ioperm", libc::SYS_ioperm),
    #[cfg(target_arch = "x86_64")]
    ("modify_ldt", libc::SYS_modify_ldt),
    #[cfg(target_arch = "x86_64")]
    ("uselib", libc::SYS_uselib),
    #[cfg(target_arch = "x86_64")]
    ("ustat", libc::SYS_ustat),
    #[cfg(target_arch = "x86_64")]
    ("sysfs", libc::SYS_sysfs),
    #[cfg(target_arch = "x86_64")]
    ("_sysctl", libc::SYS__sysctl),
];

/// Answered with ENOSYS, so that programs fall back to an older way. Numbers that the C library's bindings do not know are the
/// same on every architecture (from 424 on, include/uapi/asm-generic/unistd.h).
pub const ABSENT: &[(&str, i64)] = &[
    // Own attack surface, and it would carry out calls that this filter never sees.
    ("io_uring_setup", libc::SYS_io_uring_setup),
    ("io_uring_enter", libc::SYS_io_uring_enter),
    ("io_uring_register", libc::SYS_io_uring_register),
    // Its flags lie in memory, where a filter cannot read them; C libraries then use clone.
    ("clone3", libc::SYS_clone3),
    // Tells which files of the shared layers other sandboxes use (Linux 6.5).
    ("cachestat", 451),
    // Mounts and namespaces, also of others by number (Linux 6.8, 6.19); libmount reads /proc/self/mountinfo then.
    ("statmount", 457),
    ("listmount", 458),
    ("listns", 470),
    // Labels of the host's security modules (Linux 6.8); only service managers ask.
    ("lsm_get_self_attr", 459),
    ("lsm_set_self_attr", 460),
    ("lsm_list_modules", 461),
];

/// Answered with 0, without doing anything, to a sandbox's root: installers insist on these, and there is one user, whose all files
/// are anyway.
pub const PRETENDED: &[(&str, i64)] = &[
    ("fchown", libc::SYS_fchown),
    ("fchownat", libc::SYS_fchownat),
    ("setuid", libc::SYS_setuid),
    ("setgid", libc::SYS_setgid),
    ("setreuid", libc::SYS_setreuid),
    ("setregid", libc::SYS_setregid),
    ("setresuid", libc::SYS_setresuid),
    ("setresgid", libc::SYS_setresgid),
    ("setfsuid", libc::SYS_setfsuid),
    ("setfsgid", libc::SYS_setfsgid),
    ("setgroups", libc::SYS_setgroups),
    ("capset", libc::SYS_capset),
    #[cfg(target_arch = "x86_64")]
    ("chown", libc::SYS_chown),
    #[cfg(target_arch = "x86_64")]
    ("lchown", libc::SYS_lchown),
];

/// Newer calls that are allowed, so that nobody has to wonder whether they were forgotten: what they do older calls do too, or
/// it concerns the caller alone.
#[cfg(test)]
const ALLOWED: &[(&str, i64)] = &[
    // A process of one's own, by descriptor; what reaches into another (pidfd_getfd, process_madvise) is denied.
    ("pidfd_send_signal", 424),
    ("pidfd_open", 434),
    ("process_mrelease", 448),
    // Only ever takes rights away.
    ("landlock_create_ruleset", 444),
    ("landlock_add_rule", 445),
    ("landlock_restrict_self", 446),
    // As open, access, epoll_wait, close, chmod.
    ("close_range", 436),
    ("openat2", 437),
    ("faccessat2", 439),
    ("epoll_pwait2", 441),
    ("fchmodat2", 452),
    // Memory of one's own; memfd_secret counts as locked memory and is bounded with it.
    ("memfd_secret", 447),
    ("set_mempolicy_home_node", 450),
    ("map_shadow_stack", 453),
    ("mseal", 462),
    // As futex.
    ("futex_waitv", 449),
    ("futex_wake", 454),
    ("futex_wait", 455),
    ("futex_requeue", 456),
    // As setxattr and its like, and as the ioctls behind chattr(1): the kernel asks for the same rights.
    ("setxattrat", 463),
    ("getxattrat", 464),
    ("listxattrat", 465),
    ("removexattrat", 466),
    ("file_getattr", 468),
    ("file_setattr", 469),
];

/// Socket families a program may open; everything else (raw packets, vsock, kernel crypto, ...) is denied. vsock and
/// some others are not held by a network namespace.
pub const SOCKET_FAMILIES: &[i32] = &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// The only family of socketpair(2): another that has pairs (TIPC) would come in around [`SOCKET_FAMILIES`].
pub const PAIR_FAMILY: i32 = libc::AF_UNIX;

/// Protocols of netlink(7) that a program may speak: what tells of interfaces and addresses (getifaddrs, ip), and of the
/// sandbox's own sockets (ss). The others are kernel surface with a history of holes (netfilter, xfrm, generic, crypto), or the
/// host's business (audit, device events).
pub const NETLINK_PROTOCOLS: &[i32] = &[libc::NETLINK_ROUTE, libc::NETLINK_SOCK_DIAG];

/// Flags of clone(2) that make a namespace.
pub(crate) const NAMESPACE_FLAGS: &[i32] = &[
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];

/// Terminal requests that put input into somebody else's terminal (`TIOCSTI`, `TIOCLINUX`).
pub(crate) const TERMINAL_INJECTION: &[u64] = &[0x5412, 0x541c];

/// `AUDIT_ARCH_*` of this machine (linux/audit.h).
#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: u32 = 0xc000_00b7;

/// Numbers of the x32 system call table start here on x86-64; a filter on 64-bit numbers would not see them.
#[cfg(target_arch = "x86_64")]
const X32_BIT: u32 = 0x4000_0000;

const DENY: Verdict = Verdict::Errno(libc::EPERM as u16);
const LACK: Verdict = Verdict::Errno(libc::ENOSYS as u16);
/// As kernels without them answer to socket families and protocols: programs such as groupadd(8) then go on without an audit.
const UNKNOWN: Verdict = Verdict::Errno(libc::EAFNOSUPPORT as u16);
const PRETEND: Verdict = Verdict::Errno(0);

/// The filter, of a sandbox whose user is root or is not. Each compiled once.
pub fn program(is_root: bool) -> &'static [sock_filter] {
    static USER: LazyLock<Vec<sock_filter>> = LazyLock::new(|| program::compile(AUDIT_ARCH, &ranges(&[])));
    static ROOT: LazyLock<Vec<sock_filter>> =
        LazyLock::new(|| program::compile(AUDIT_ARCH, &ranges(PRETENDED)));
    match is_root {
        true => &ROOT,
        false => &USER,
    }
}

/// Compiles the filter of most sandboxes now, so that [`program`] has it at hand.
pub fn prepare() {
    program(false);
}

/// What is answered, by where in the numbers it begins. What no list names is allowed.
fn ranges(pretended: &[(&str, i64)]) -> BTreeMap<u32, Answer> {
    let always = |list: &[(&str, i64)], verdict: Verdict| -> Vec<(i64, Answer)> {
        list.iter()
            .map(|(_, number)| (*number, Answer::always(verdict)))
            .collect()
    };
    let decided: BTreeMap<i64, Answer> = [
        always(DENIED, DENY),
        always(ABSENT, LACK),
        always(pretended, PRETEND),
        by_arguments(),
    ]
    .into_iter()
    .flatten()
    .collect();
    let allowed = Answer::always(Verdict::Allow);
    let mut ranges = BTreeMap::from([(0, allowed.clone())]);
    for (number, answer) in decided {
        // Every number of the kernel's tables fits.
        let number = number as u32;
        ranges.insert(number, answer);
        ranges.insert(number + 1, allowed.clone());
    }
    #[cfg(target_arch = "x86_64")]
    ranges.insert(X32_BIT, Answer::always(LACK));
    ranges
}

/// Calls that are refused for some arguments. The kernel looks at the lower half of these.
fn by_arguments() -> Vec<(i64, Answer)> {
    let refuse_if = |rules: Vec<Vec<Condition>>, if_any| Answer {
        rules,
        if_any,
        otherwise: Verdict::Allow,
    };
    let differs_from_all = |argument, values: &[i32]| -> Vec<Condition> {
        values
            .iter()
            .map(|value| Condition::differs(argument, *value as u32))
            .collect()
    };
    let namespaces = NAMESPACE_FLAGS
        .iter()
        .map(|flag| vec![Condition::has_bits(0, *flag as u32)]);
    let mut other_protocol = vec![Condition::equals(0, libc::AF_NETLINK as u32)];
    other_protocol.extend(differs_from_all(2, NETLINK_PROTOCOLS));
    let injections = TERMINAL_INJECTION
        .iter()
        .map(|request| vec![Condition::equals(1, *request as u32)]);
    vec![
        (libc::SYS_clone, refuse_if(namespaces.collect(), DENY)),
        (
            libc::SYS_socket,
            refuse_if(
                vec![differs_from_all(0, SOCKET_FAMILIES), other_protocol],
                UNKNOWN,
            ),
        ),
        (
            libc::SYS_socketpair,
            refuse_if(vec![differs_from_all(0, &[PAIR_FAMILY])], DENY),
        ),
        (libc::SYS_ioctl, refuse_if(injections.collect(), DENY)),
    ]
}

/// Puts the calling thread, and all it starts, under the filter. There is no way back. Sets no_new_privs.
pub fn install(program: &[sock_filter]) -> Result<(), Errno> {
    let len = u16::try_from(program.len()).map_err(|_| Errno::TOOBIG)?;
    let program = libc::sock_fprog {
        len,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: integers; then a program that the kernel copies and does not write to.
    let results = unsafe {
        [
            i64::from(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)),
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                0,
                &raw const program,
            ),
        ]
    };
    match results {
        [0, 0] => Ok(()),
        _ => Err(last_errno()),
    }
}

mod program;
#[cfg(test)]
mod tests;
