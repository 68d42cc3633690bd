//! System calls that neither `rustix` nor the C library wrap.

use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::ptr;

/// `struct clone_args` of clone3(2), first version with `cgroup`.
#[repr(C, align(8))]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Where the C library keeps the calling thread's number. What it says must be true in a child that will have threads; fork(3)
/// sees to that, but cannot make namespaces. `None` where the kernel does not tell (`CONFIG_CHECKPOINT_RESTORE`): then the
/// number is the parent's, which only locks that one thread takes twice would notice.
fn tid_address() -> Option<u64> {
    const PR_GET_TID_ADDRESS: libc::c_int = 40;
    let mut address: u64 = 0;
    // SAFETY: prctl writes one pointer to `address`.
    let result = unsafe { libc::prctl(PR_GET_TID_ADDRESS, &raw mut address) };
    (result == 0 && address != 0).then_some(address)
}

/// Forks into new namespaces and, if given, a cgroup v2. Returns `None` in the child, its pid in the parent.
///
/// # Safety
/// The process has only one thread, so that the child's copy of every lock is in a consistent state.
pub(crate) unsafe fn clone_into(
    namespaces: i32,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<Option<i32>, Errno> {
    let tid = tid_address();
    let mut args = CloneArgs {
        flags: namespaces as u64 | tid.map_or(0, |_| libc::CLONE_CHILD_SETTID as u64),
        child_tid: tid.unwrap_or(0),
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: `args` is a valid clone_args; no stack is given, so the child goes on with a copy of this one, as in fork.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) };
    match result {
        0 => Ok(None),
        pid if pid > 0 => Ok(Some(pid as i32)),
        _ => Err(last_errno()),
    }
}

/// `struct mount_attr` of mount_setattr(2).
#[repr(C)]
#[derive(Default)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

pub(crate) const ATTR_RDONLY: u64 = 0x1;
pub(crate) const ATTR_NOSUID: u64 = 0x2;
pub(crate) const ATTR_NODEV: u64 = 0x4;
pub(crate) const ATTR_NOEXEC: u64 = 0x8;
const ATTR_IDMAP: u64 = 0x0010_0000;

/// Which mounts [`set_mount_attributes`] changes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    This,
    WithSubmounts,
}

/// Adds attributes to the detached or attached mount `mount`.
pub(crate) fn set_mount_attributes(
    mount: BorrowedFd<'_>,
    attributes: u64,
    reach: Reach,
) -> Result<(), Errno> {
    let attr = MountAttr {
        attr_set: attributes,
        ..MountAttr::default()
    };
    set_attributes(mount, &attr, reach)
}

fn set_attributes(mount: BorrowedFd<'_>, attr: &MountAttr, reach: Reach) -> Result<(), Errno> {
    let recursive = match reach {
        Reach::This => 0,
        Reach::WithSubmounts => libc::AT_RECURSIVE,
    };
    // SAFETY: path is a NUL-terminated empty string, `attr` a valid mount_attr of the given size.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Has the detached mount `mount` show ids as the user namespace `users` maps them.
pub(crate) fn set_id_map(mount: BorrowedFd<'_>, users: BorrowedFd<'_>) -> Result<(), Errno> {
    let attr = MountAttr {
        attr_set: ATTR_IDMAP,
        // Never negative.
        userns_fd: users.as_raw_fd() as u64,
        ..MountAttr::default()
    };
    set_attributes(mount, &attr, Reach::This)
}

/// Executes the program behind `program`, which is no script: its interpreter could not open it. Returns only on failure. Wants
/// the calling thread alone in its process.
pub(crate) fn execute(program: BorrowedFd<'_>, argv: &[CString], env: &[CString]) -> Errno {
    execute_at(program.as_raw_fd(), c"", libc::AT_EMPTY_PATH, argv, env)
}

/// The same by path, relative to the current directory; also a script.
pub(crate) fn execute_path(program: &CStr, argv: &[CString], env: &[CString]) -> Errno {
    execute_at(libc::AT_FDCWD, program, 0, argv, env)
}

fn execute_at(
    from: libc::c_int,
    path: &CStr,
    flags: libc::c_int,
    argv: &[CString],
    env: &[CString],
) -> Errno {
    let pointers = |texts: &[CString]| -> Vec<*const libc::c_char> {
        texts
            .iter()
            .map(|text| text.as_ptr())
            .chain([std::ptr::null()])
            .collect()
    };
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: the path ends with NUL; both arrays are NULL-terminated and point to strings that outlive the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            from,
            path.as_ptr(),
            argv.as_ptr(),
            env.as_ptr(),
            flags,
        );
    }
    last_errno()
}

/// A connected pair of sockets that keep message boundaries, closed on exec.
pub(crate) fn message_pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    let mut fds = [0; 2];
    // SAFETY: `fds` holds two ints, as socketpair wants.
    let result = unsafe {
        libc::socketpair(
            libc::AF_UNIX,
            libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC,
            0,
            fds.as_mut_ptr(),
        )
    };
    if result != 0 {
        return Err(last_errno());
    }
    // SAFETY: the kernel just handed these out, nobody else owns them.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

pub(crate) fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
