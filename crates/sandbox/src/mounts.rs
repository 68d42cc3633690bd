//! What a sandbox sees as its files: builds the root, /proc and /dev in the current mount namespace and moves into it.
//! Uses the mount API of file descriptors, so that nothing is resolved twice.

use crate::agent::Agent;
use crate::failure::Step;
use crate::spec::{LaunchFailure, LaunchSpec, Root};
use crate::syscall::{ATTR_NODEV, ATTR_NOEXEC, ATTR_NOSUID, ATTR_RDONLY, Reach, set_mount_attributes};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount_change,
    move_mount, open_tree, unmount,
};
use std::path::{Path, PathBuf};

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
pub(crate) const PROC_READ_ONLY: &[&str] = &["sys", "sysrq-trigger", "irq", "bus", "fs"];

/// Files of /proc that show the machine's memory, keys or logs, covered with /dev/null.
pub(crate) const PROC_HIDDEN: &[&str] = &[
    "kcore",
    "kmsg",
    "keys",
    "timer_list",
    "sched_debug",
    "kpagecount",
    "kpageflags",
];

/// Largest /dev/shm in bytes, if the sandbox has at least twice as much memory. What lies there and in /run counts as the
/// sandbox's memory and is gone when it stops; everything else, /tmp too, is in the overlay and stays.
pub(crate) const SHARED_MEMORY_BYTES: u64 = 256 << 20;

/// Size of /run, for sockets and process numbers of services.
pub(crate) const RUN_BYTES: u64 = 16 << 20;

/// Files that fit into /dev/shm and /run each; they would take memory beside the size.
pub(crate) const MEMORY_FILES: &str = "16384";

/// Builds everything and makes it `/`. Afterwards no host path is reachable.
pub(crate) fn enter_root(spec: &LaunchSpec, agent: Option<&Agent>) -> Result<(), LaunchFailure> {
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

    let root = root_mount(spec, agent)?;
    // Nothing else is done below the sandbox's directory from here on, so that it can serve as the place.
    let place = &spec.directory;
    attach(&root, CWD, place).step("attach root")?;
    // The mount itself, not the directory under it.
    let root = rustix::fs::open(
        place,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .step("open root")?;
    for (path, mount) in spec.read_only.iter().zip(&shared) {
        let inside = path.strip_prefix("/").unwrap_or(path);
        attach_inside(mount, &root, inside).step("attach read-only mount")?;
    }
    attach_inside(&proc, &root, "proc").step("attach /proc")?;
    devices_in(&root, &devices, spec)?;
    attach_inside(&run(agent, spec.user_id)?, &root, "run").step("attach /run")?;
    restrict_proc(&root)?;

    rustix::process::fchdir(&root).step("enter root")?;
    rustix::process::pivot_root(".", ".").step("pivot root")?;
    // Both roots are now stacked on `/`; the old one is on top (pivot_root(2), notes).
    unmount(".", UnmountFlags::DETACH).step("detach the host's files")?;
    rustix::process::chdir("/").step("enter root")
}

pub(crate) fn root_mount(spec: &LaunchSpec, agent: Option<&Agent>) -> Result<OwnedFd, LaunchFailure> {
    match &spec.root {
        Root::Overlay { lower, upper, work } => overlay(lower, upper, work, agent),
        Root::Directory { path } => {
            let tree = match agent {
                Some(agent) => agent.layer(path),
                None => open_tree(
                    CWD,
                    path,
                    OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
                ),
            }
            .step("copy root")?;
            set_mount_attributes(tree.as_fd(), ATTR_NOSUID | ATTR_NODEV, Reach::This).step("copy root")?;
            Ok(tree)
        }
    }
}

/// Layers are opened first and named by their descriptors: any path is fine, however long and with whatever in it, and the
/// sandbox's own list of mounts shows none. (`FSCONFIG_SET_FD` would do the same, but only from Linux 6.13 on, and it shows
/// the paths.)
fn overlay(
    lower: &[PathBuf],
    upper: &Path,
    work: &Path,
    agent: Option<&Agent>,
) -> Result<OwnedFd, LaunchFailure> {
    let place = match (upper.parent(), upper.file_name(), work.file_name()) {
        (Some(place), Some(_), Some(_)) if work.parent() == Some(place) => place,
        _ => return Err(rustix::io::Errno::XDEV).step("open upper layer"),
    };
    let shared = agent.and_then(|agent| Shared::mapped(lower, place, agent));
    let open = |path: &Path| match (&shared, agent) {
        (Some(shared), _) => shared.open(path),
        (None, Some(agent)) => agent.layer(path),
        (None, None) => rustix::fs::open(path, DIRECTORY, Mode::empty()),
    };
    let open_lower = |path: &PathBuf| match open(path) {
        // Packed into a file.
        Err(rustix::io::Errno::NOTDIR) => {
            let mount = packed_layer(path)?;
            agent.map_or(Ok(()), |agent| agent.own(&mount))?;
            Ok(mount)
        }
        opened => opened,
    };
    let layers: Vec<OwnedFd> = lower
        .iter()
        .map(open_lower)
        .collect::<Result<_, _>>()
        .step("open lower layer")?;
    // Both through one mount, as the kernel wants them.
    let place = open(place).step("open upper layer")?;
    let below = |path: &Path| Path::new(&by_descriptor(&place)).join(path.file_name().unwrap_or_default());
    let mounted = || {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        set_lower_layers(&context, &layers)?;
        fsconfig_set_string(&context, "upperdir", below(upper))?;
        fsconfig_set_string(&context, "workdir", below(work))?;
        match agent {
            // Lets directories of lower layers be renamed.
            Some(_) => {
                fsconfig_set_string(&context, "redirect_dir", "on")?;
                // Otherwise, where a kernel has it on, files whose mode changed would come without their content.
                fsconfig_set_string(&context, "metacopy", "off")?;
            }
            None => fsconfig_set_flag(&context, "userxattr")?,
        }
        // A sandbox that survives a power cut is not promised; not syncing at every unmount is worth much.
        fsconfig_set_flag(&context, "volatile")?;
        fsconfig_create(&context)?;
        detached(&context, ATTR_NOSUID | ATTR_NODEV)
    };
    mounted().step("mount overlay")
}

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// One mapped mount through which all directories of an overlay are opened. The kernel waits for all processors when a mount goes, and
/// each of these goes as soon as the overlay is made; one for each layer would cost a start more than everything else about layers.
struct Shared<'a> {
    tree: OwnedFd,
    /// What it shows.
    top: &'a Path,
}

impl<'a> Shared<'a> {
    /// `None` if they are not all on the mount of the directory that holds all of them.
    fn mapped(lower: &'a [PathBuf], place: &'a Path, agent: &Agent) -> Option<Self> {
        let top = lower.iter().try_fold(place, |top, path| {
            top.ancestors().find(|ancestor| path.starts_with(ancestor))
        })?;
        let mount = mount_number(top)?;
        let is_one = |path: &Path| mount_number(path) == Some(mount);
        (is_one(place) && lower.iter().all(|path| is_one(path)))
            .then(|| agent.layer(top).ok())
            .flatten()
            .map(|tree| Self { tree, top })
    }

    fn open(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        let below = path.strip_prefix(self.top).map_err(|_| rustix::io::Errno::XDEV)?;
        let below = if below.as_os_str().is_empty() {
            Path::new(".")
        } else {
            below
        };
        rustix::fs::openat(&self.tree, below, DIRECTORY, Mode::empty())
    }
}

/// Which mount a path is on; `None` also where the kernel does not tell.
fn mount_number(path: &Path) -> Option<u64> {
    let found = rustix::fs::statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID).ok()?;
    (found.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(found.stx_mnt_id)
}

/// A layer that is one file (EROFS), mounted by its descriptor: the kernel takes only 255 bytes of a name.
fn packed_layer(path: &Path) -> rustix::io::Result<OwnedFd> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let options = [("source", by_descriptor(&file)), ("ro", String::new())];
    let options = options.each_ref().map(|(key, value)| (*key, value.as_str()));
    filesystem("erofs", &options, ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV)
}

/// One by one, topmost first; before Linux 6.5 only all at once, for which there is room for about ten.
fn set_lower_layers(context: &OwnedFd, layers: &[OwnedFd]) -> rustix::io::Result<()> {
    for (number, layer) in layers.iter().enumerate() {
        match fsconfig_set_string(context, "lowerdir+", by_descriptor(layer)) {
            Err(rustix::io::Errno::INVAL) if number == 0 => {
                let all: Vec<String> = layers.iter().map(by_descriptor).collect();
                return fsconfig_set_string(context, "lowerdir", all.join(":"));
            }
            done => done?,
        }
    }
    Ok(())
}

fn by_descriptor(opened: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", opened.as_raw_fd())
}

fn devices_in(root: &OwnedFd, devices: &[OwnedFd], spec: &LaunchSpec) -> Result<(), LaunchFailure> {
    let dev = filesystem(
        "tmpfs",
        &[("size", "65536"), ("mode", "0755")],
        ATTR_NOSUID | ATTR_NOEXEC,
    )
    .step("mount /dev")?;
    attach_inside(&dev, root, "dev").step("attach /dev")?;
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
    let size = SHARED_MEMORY_BYTES.min(spec.limits.memory_bytes / 2).to_string();
    let shm = filesystem(
        "tmpfs",
        &[("size", &size), ("nr_inodes", MEMORY_FILES), ("mode", "1777")],
        ATTR_NOSUID | ATTR_NODEV,
    )
    .step("mount /dev/shm")?;
    attach(&shm, &at, "shm").step("attach /dev/shm")?;
    set_mount_attributes(dev.as_fd(), ATTR_RDONLY, Reach::This).step("make /dev read-only")
}

/// The user's own, because services that run as it keep their sockets there.
fn run(agent: Option<&Agent>, user_id: u32) -> Result<OwnedFd, LaunchFailure> {
    let owner = agent.map_or(user_id, |agent| agent.host_id).to_string();
    let size = RUN_BYTES.to_string();
    filesystem(
        "tmpfs",
        &[
            ("size", &size),
            ("nr_inodes", MEMORY_FILES),
            ("mode", "0755"),
            ("uid", &owner),
            ("gid", &owner),
        ],
        ATTR_NOSUID | ATTR_NODEV,
    )
    .step("mount /run")
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
    for name in PROC_HIDDEN {
        // Asked first: a mount that is made and thrown away makes the kernel wait for all processors.
        match rustix::fs::statat(&proc, *name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => {}
            // Not every kernel has every file.
            Err(rustix::io::Errno::NOENT) => continue,
            Err(error) => return Err(error).step("hide parts of /proc"),
        }
        let cover = open_tree(root, "dev/null", clone).step("hide parts of /proc")?;
        attach(&cover, &proc, *name).step("hide parts of /proc")?;
    }
    Ok(())
}

/// A new, detached mount of a filesystem. An option with an empty value is a flag.
pub(crate) fn filesystem(
    kind: &str,
    options: &[(&str, &str)],
    attributes: u64,
) -> rustix::io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        if value.is_empty() {
            fsconfig_set_flag(&context, *key)?;
        } else {
            fsconfig_set_string(&context, *key, *value)?;
        }
    }
    fsconfig_create(&context)?;
    detached(&context, attributes)
}

/// The mount that a context was made for.
fn detached(context: &OwnedFd, attributes: u64) -> rustix::io::Result<OwnedFd> {
    fsmount(
        context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::from_bits_retain(attributes as u32),
    )
}

/// A detached copy of a host path and all that is mounted below it, read-only.
pub(crate) fn read_only_copy(path: &Path) -> rustix::io::Result<OwnedFd> {
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

/// Attaches a mount in the sandbox's root, which may be an image of anybody: a link there leads nowhere.
pub(crate) fn attach_inside(
    mount: &OwnedFd,
    root: &OwnedFd,
    path: impl rustix::path::Arg,
) -> rustix::io::Result<()> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let place = rustix::fs::openat2(root, path, flags, Mode::empty(), within)?;
    let to_descriptors = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", &place, "", to_descriptors)
}

pub(crate) fn attach(mount: &OwnedFd, at: impl AsFd, path: impl rustix::path::Arg) -> rustix::io::Result<()> {
    move_mount(mount, "", at, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}
