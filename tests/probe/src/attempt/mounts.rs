//! Mounts: making, changing, moving and removing them by the old and the new interface. On the host everything happens in
//! a mount namespace of the attempt's own.

use super::{Attempt, Finding, answer, first_success, last_error, proven};
use std::ffi::CStr;

pub const ATTEMPTS: &[Attempt] = &[
    proven("mount_tmpfs", |_| {
        apart();
        mount(c"none", c"/tmp", c"tmpfs", 0)
    }),
    proven("mount_proc", |_| {
        apart();
        mount(c"none", c"/tmp", c"proc", 0)
    }),
    proven("mount_sysfs", |_| {
        apart();
        mount(c"none", c"/tmp", c"sysfs", 0)
    }),
    proven("mount_cgroup", |_| {
        apart();
        first_success([
            ("v2".to_owned(), mount(c"none", c"/tmp", c"cgroup2", 0)),
            ("v1".to_owned(), mount(c"none", c"/tmp", c"cgroup", 0)),
        ])
    }),
    proven("mount_overlay", |_| {
        apart();
        let options = c"lowerdir=/usr:/etc";
        // SAFETY: NUL-terminated texts.
        answer(
            unsafe {
                libc::mount(
                    c"none".as_ptr(),
                    c"/tmp".as_ptr(),
                    c"overlay".as_ptr(),
                    0,
                    options.as_ptr().cast(),
                )
            }
            .into(),
        )
    }),
    proven("mount_bind", |_| {
        apart();
        first_success([
            ("/usr".to_owned(), mount(c"/usr", c"/tmp", c"", libc::MS_BIND)),
            (
                "/proc".to_owned(),
                mount(c"/proc", c"/tmp", c"", libc::MS_BIND | libc::MS_REC),
            ),
        ])
    }),
    proven("remount_writable", |_| {
        apart();
        first_success([c"/usr", c"/proc", c"/proc/sys", c"/"].map(|place| {
            let changed = mount(c"none", place, c"", libc::MS_REMOUNT | libc::MS_BIND);
            (place.to_string_lossy().into_owned(), changed)
        }))
    }),
    proven("share_mounts", |_| {
        apart();
        mount(c"none", c"/", c"", libc::MS_SHARED | libc::MS_REC)
    }),
    proven("unmount", |_| {
        apart();
        first_success(
            [
                c"/proc/kcore",
                c"/proc/sys",
                c"/dev/pts",
                c"/dev",
                c"/usr",
                c"/proc",
            ]
            .map(|place| {
                // SAFETY: a NUL-terminated path.
                let result = unsafe { libc::umount2(place.as_ptr(), libc::MNT_DETACH) };
                (place.to_string_lossy().into_owned(), answer(result.into()))
            }),
        )
    }),
    proven("new_filesystem", |_| {
        // SAFETY: a NUL-terminated name.
        answer(unsafe { libc::syscall(libc::SYS_fsopen, c"tmpfs".as_ptr(), 0) })
    }),
    proven("new_filesystem_mounted", |_| {
        // SAFETY: NUL-terminated texts; descriptors end with this process.
        unsafe {
            let context = libc::syscall(libc::SYS_fsopen, c"tmpfs".as_ptr(), 0);
            // FSCONFIG_CMD_CREATE (fsconfig(2)).
            let none = std::ptr::null::<u8>();
            let made = libc::syscall(libc::SYS_fsconfig, context, 6, none, none, 0);
            if made != 0 {
                return answer(made);
            }
            answer(libc::syscall(libc::SYS_fsmount, context, 0, 0))
        }
    }),
    proven("pick_filesystem", |_| {
        // SAFETY: a NUL-terminated path.
        answer(unsafe { libc::syscall(libc::SYS_fspick, libc::AT_FDCWD, c"/".as_ptr(), 0) })
    }),
    proven("clone_mount", |_| {
        apart();
        first_success([c"/", c"/usr", c"/proc", c"/tmp"].map(|place| {
            // SAFETY: a NUL-terminated path.
            let tree = unsafe {
                libc::syscall(
                    libc::SYS_open_tree,
                    libc::AT_FDCWD,
                    place.as_ptr(),
                    OPEN_TREE_CLONE,
                )
            };
            (place.to_string_lossy().into_owned(), answer(tree))
        }))
    }),
    proven("move_mount", |_| {
        apart();
        first_success([c"/proc", c"/dev", c"/usr"].map(|place| {
            // SAFETY: NUL-terminated paths.
            let moved = unsafe {
                libc::syscall(
                    libc::SYS_move_mount,
                    libc::AT_FDCWD,
                    place.as_ptr(),
                    libc::AT_FDCWD,
                    c"/tmp".as_ptr(),
                    0,
                )
            };
            (place.to_string_lossy().into_owned(), answer(moved))
        }))
    }),
    proven("change_mount_attributes", |_| {
        apart();
        // struct mount_attr: nothing set, read-only cleared (mount_setattr(2)).
        let attributes: [u64; 4] = [0, 1, 0, 0];
        first_success([c"/usr", c"/proc/sys", c"/proc", c"/"].map(|place| {
            // SAFETY: a NUL-terminated path and a mount_attr of the given size.
            let changed = unsafe {
                libc::syscall(
                    libc::SYS_mount_setattr,
                    libc::AT_FDCWD,
                    place.as_ptr(),
                    0,
                    attributes.as_ptr(),
                    32,
                )
            };
            (place.to_string_lossy().into_owned(), answer(changed))
        }))
    }),
    proven("pivot_root", |_| {
        apart();
        // On the host the new root must be a mount of its own.
        mount(c"/tmp", c"/tmp", c"", libc::MS_BIND);
        // SAFETY: NUL-terminated paths. Old root on top of the new one, as pivot_root(2) describes.
        unsafe {
            libc::chdir(c"/tmp".as_ptr());
            answer(libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()))
        }
    }),
    proven("change_root", |_| {
        // SAFETY: a NUL-terminated path.
        answer(unsafe { libc::chroot(c"/tmp".as_ptr()) }.into())
    }),
];

const OPEN_TREE_CLONE: i32 = 1;

/// Leaves the host's mounts alone where that is possible; inside a sandbox it is not, and not needed.
fn apart() {
    // SAFETY: this process has one thread.
    unsafe {
        if libc::unshare(libc::CLONE_NEWNS) == 0 {
            let none = std::ptr::null();
            libc::mount(
                none,
                c"/".as_ptr(),
                none,
                libc::MS_PRIVATE | libc::MS_REC,
                none.cast(),
            );
        }
    }
}

fn mount(source: &CStr, place: &CStr, kind: &CStr, flags: libc::c_ulong) -> Finding {
    // SAFETY: NUL-terminated texts.
    let result = unsafe {
        libc::mount(
            source.as_ptr(),
            place.as_ptr(),
            kind.as_ptr(),
            flags,
            std::ptr::null(),
        )
    };
    if result != 0 && super::last_errno() == libc::ENODEV {
        return Finding::Unavailable(last_error().to_string());
    }
    answer(result.into())
}
