//! What a sandbox sees as its files: builds the root, /proc and /dev in the current mount namespace and moves into it.
//! Uses the mount API of file descriptors, so that nothing is resolved twice.

use crate::failure::Step;
use crate::spec::{LaunchFailure, LaunchSpec, Privilege, ROOT_NAME, Root};
use crate::syscall::{ATTR_NODEV, ATTR_NOEXEC, ATTR_NOSUID, ATTR_RDONLY, Reach, set_mount_attributes};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount_change,
    move_mount, open_tree, unmount,
};
use std::path::Path;

/// Device nodes of the host that a sandbox shares; none of them reveals or changes anything.
const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom", "tty"];

/// Symbolic links in /dev that programs expect.
const DEVICE_LINKS: &[(&str, &str)] = &[
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
];

/// Parts of /proc that concern the machine and are made read-only.
const PROC_READ_ONLY: &[&str] = &["sys", "sysrq-trigger", "irq", "bus", "fs"];

/// Files of /proc that show the machine's memory, keys or logs, covered with /dev/null.
const PROC_HIDDEN: &[&str] = &[
    "kcore",
    "kmsg",
    "keys",
    "timer_list",
    "sched_debug",
    "kpagecount",
    "kpageflags",
];

/// Size of /dev/shm in bytes at most; it counts as the sandbox's memory.
const SHARED_MEMORY_BYTES: u64 = 256 << 20;

/// The part of a sandbox's memory that files in /dev/shm may take. No process is to blame for them, so that the kernel would
/// kill one after the other and the guest in the end.
const SHARED_MEMORY_PART: u64 = 4;

/// Builds everything and makes it `/`. Afterwards no host path is reachable.
pub(crate) fn enter_root(spec: &LaunchSpec) -> Result<(), LaunchFailure> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .step("make mounts private")?;
    // Before the host's /proc is out of sight: a user namespace gets one only where another is visible.
    let proc = filesystem("proc", &[], ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC).step("mount /proc")?;
    let shared: Vec<OwnedFd> = spec
        .read_only
        .iter()
        .map(|path| read_only_copy(path))
        .collect::<Result<_, _>>()
        .step("copy read-only mounts")?;
    let devices: Vec<OwnedFd> = DEVICES
        .iter()
        .map(|name| {
            open_tree(
                CWD,
                Path::new("/dev").join(name),
                OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
            )
        })
        .collect::<Result<_, _>>()
        .step("copy devices")?;

    let place = spec.directory.join(ROOT_NAME);
    let root = root_mount(spec)?;
    attach(&root, CWD, &place).step("attach root")?;
    // The mount itself, not the directory under it.
    let root = rustix::fs::open(
        &place,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .step("open root")?;
    for (path, mount) in spec.read_only.iter().zip(&shared) {
        let inside = path.strip_prefix("/").unwrap_or(path);
        attach(mount, &root, inside).step("attach read-only mount")?;
    }
    attach(&proc, &root, "proc").step("attach /proc")?;
    let shared_bytes = SHARED_MEMORY_BYTES.min(spec.limits.memory_bytes / SHARED_MEMORY_PART);
    devices_in(&root, &devices, shared_bytes)?;
    restrict_proc(&root)?;

    rustix::process::fchdir(&root).step("enter root")?;
    rustix::process::pivot_root(".", ".").step("pivot root")?;
    // Both roots are now stacked on `/`; the old one is on top (pivot_root(2), notes).
    unmount(".", UnmountFlags::DETACH).step("detach the host's files")?;
    rustix::process::chdir("/").step("enter root")
}

fn root_mount(spec: &LaunchSpec) -> Result<OwnedFd, LaunchFailure> {
    match &spec.root {
        Root::Overlay { lower, upper, work } => {
            let lower = lower
                .iter()
                .map(|path| escape(path))
                .collect::<Vec<_>>()
                .join(":");
            let (upper, work) = (
                upper.to_string_lossy().into_owned(),
                work.to_string_lossy().into_owned(),
            );
            let mut options = vec![
                ("lowerdir", lower.as_str()),
                ("upperdir", &upper),
                ("workdir", &work),
            ];
            match spec.privilege {
                // Lets directories of lower layers be renamed.
                Privilege::Root { .. } => options.push(("redirect_dir", "on")),
                Privilege::User => options.push(("userxattr", "")),
            }
            // A sandbox that survives a power cut is not promised; not syncing at every unmount is worth much.
            options.push(("volatile", ""));
            filesystem("overlay", &options, ATTR_NOSUID | ATTR_NODEV).step("mount overlay")
        }
        Root::Directory { path } => {
            let tree = open_tree(
                CWD,
                path,
                OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
            )
            .step("copy root")?;
            set_mount_attributes(tree.as_fd(), ATTR_NOSUID | ATTR_NODEV, Reach::This).step("copy root")?;
            Ok(tree)
        }
    }
}

/// Colons separate lower directories (Documentation/filesystems/overlayfs.rst).
fn escape(path: &Path) -> String {
    path.to_string_lossy().replace('\\', "\\\\").replace(':', "\\:")
}

fn devices_in(root: &OwnedFd, devices: &[OwnedFd], shared_bytes: u64) -> Result<(), LaunchFailure> {
    let dev = filesystem(
        "tmpfs",
        &[("size", "65536"), ("mode", "0755")],
        ATTR_NOSUID | ATTR_NOEXEC,
    )
    .step("mount /dev")?;
    attach(&dev, root, "dev").step("attach /dev")?;
    let at = rustix::fs::openat(
        root,
        "dev",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .step("open /dev")?;
    for (name, device) in DEVICES.iter().zip(devices) {
        rustix::fs::openat(
            &at,
            *name,
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC,
            Mode::from_raw_mode(0o666),
        )
        .step("make device")?;
        attach(device, &at, *name).step("attach device")?;
    }
    for (target, name) in DEVICE_LINKS {
        rustix::fs::symlinkat(*target, &at, *name).step("link in /dev")?;
    }
    for name in ["pts", "shm"] {
        rustix::fs::mkdirat(&at, name, Mode::from_raw_mode(0o755)).step("make directory in /dev")?;
    }
    let pts = filesystem(
        "devpts",
        &[("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620")],
        ATTR_NOSUID | ATTR_NOEXEC,
    )
    .step("mount /dev/pts")?;
    attach(&pts, &at, "pts").step("attach /dev/pts")?;
    let shm = filesystem(
        "tmpfs",
        &[("size", &shared_bytes.to_string()), ("mode", "1777")],
        ATTR_NOSUID | ATTR_NODEV,
    )
    .step("mount /dev/shm")?;
    attach(&shm, &at, "shm").step("attach /dev/shm")?;
    set_mount_attributes(dev.as_fd(), ATTR_RDONLY, Reach::This).step("make /dev read-only")
}

fn restrict_proc(root: &OwnedFd) -> Result<(), LaunchFailure> {
    let proc = rustix::fs::openat(
        root,
        "proc",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .step("open /proc")?;
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    for name in PROC_READ_ONLY {
        let part = match open_tree(&proc, *name, clone) {
            Ok(part) => part,
            // Not every kernel has every part.
            Err(rustix::io::Errno::NOENT) => continue,
            Err(error) => return Err(error).step("restrict /proc"),
        };
        let attributes = ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC;
        set_mount_attributes(part.as_fd(), attributes, Reach::This).step("restrict /proc")?;
        attach(&part, &proc, *name).step("restrict /proc")?;
    }
    let null = open_tree(root, "dev/null", clone).step("hide parts of /proc")?;
    for name in PROC_HIDDEN {
        let cover = open_tree(&null, "", clone | OpenTreeFlags::AT_EMPTY_PATH).step("hide parts of /proc")?;
        match attach(&cover, &proc, *name) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error).step("hide parts of /proc"),
        }
    }
    Ok(())
}

/// A new, detached mount of a filesystem. An option with an empty value is a flag.
fn filesystem(kind: &str, options: &[(&str, &str)], attributes: u64) -> rustix::io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        if value.is_empty() {
            fsconfig_set_flag(&context, *key)?;
        } else {
            fsconfig_set_string(&context, *key, *value)?;
        }
    }
    fsconfig_create(&context)?;
    fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::from_bits_retain(attributes as u32),
    )
}

/// A detached copy of a host path and all that is mounted below it, read-only.
fn read_only_copy(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(CWD, path, flags)?;
    set_mount_attributes(
        tree.as_fd(),
        ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV,
        Reach::WithSubmounts,
    )?;
    Ok(tree)
}

fn attach(mount: &OwnedFd, at: impl AsFd, path: impl rustix::path::Arg) -> rustix::io::Result<()> {
    move_mount(mount, "", at, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}
