//! First process of a virtual machine: puts the disks together as the sandbox's root, gives up every right but the agent's,
//! and listens on the machine's channel. Everything that a launcher does for a sandbox of namespaces happens here, because
//! here the kernel is the sandbox's own. Used only when the kernel's command line names the disks.

use rustix::fd::{FromRawFd as _, OwnedFd};
use rustix::fs::Mode;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_move, unmount};
use rustix::process::{Gid, Uid};
use serde::Deserialize;
use std::ffi::CStr;
use std::io::{self, Read as _};
use std::path::Path;

/// Kernel argument, and so variable of the first process: `NAME=DEVICE` separated by commas, such as
/// `usr=/dev/vdb,upper=/dev/vdc,orders=/dev/vdd`. `upper` is the writable disk, `orders` holds the host's [`Orders`]; every
/// other is shown read-only as the directory of its name.
pub const DISKS_VARIABLE: &str = "GREENROOM_DISKS";

/// Port of the virtual socket on which the host finds the guest.
pub const VSOCK_PORT: u32 = 1024;

/// Uid and gid of everything that runs in a sandbox.
const AGENT_ID: u32 = 1000;

/// Where the new root is put together; directories of the base image.
const UPPER: &str = "/mnt/upper";
const ROOT: &str = "/mnt/root";

/// Largest text on the disk `orders`, in bytes.
const MAX_ORDERS_BYTES: u64 = 4 << 20;

/// What the host tells a machine's guest: JSON at the beginning of a disk without a filesystem, zeroes behind it.
#[derive(Debug, Deserialize)]
struct Orders {
    /// The guest's whole environment.
    env: Vec<(String, String)>,
    /// Files of /etc/greenroom.
    files: Vec<OrderedFile>,
    max_open_files: u64,
    max_file_bytes: u64,
    max_processes: u64,
}

#[derive(Debug, Deserialize)]
struct OrderedFile {
    /// Without a slash.
    name: String,
    bytes: Vec<u8>,
}

/// What could not be done.
#[derive(Debug)]
pub struct MachineError {
    step: &'static str,
    source: io::Error,
}

impl std::fmt::Display for MachineError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.step, self.source)
    }
}

trait Step<T> {
    fn step(self, step: &'static str) -> Result<T, MachineError>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, step: &'static str) -> Result<T, MachineError> {
        self.map_err(|error| MachineError {
            step,
            source: error.into(),
        })
    }
}

/// Builds the root, becomes the agent, and returns the listening socket. Call before any thread exists.
pub fn enter(disks: &str) -> Result<OwnedFd, MachineError> {
    let none: Option<&CStr> = None;
    let plain = MountFlags::NOSUID | MountFlags::NODEV;
    // A kernel may have mounted it already.
    match mount("devtmpfs", "/dev", "devtmpfs", MountFlags::NOSUID, none) {
        Ok(()) | Err(rustix::io::Errno::BUSY) => {}
        Err(error) => return Err(error).step("mount /dev"),
    }
    // The base is read-only; places to mount on come from memory.
    mount("tmpfs", "/mnt", "tmpfs", plain, none).step("mount a place to work in")?;
    for directory in [UPPER, ROOT] {
        rustix::fs::mkdir(directory, Mode::from_raw_mode(0o755)).step("make a place to mount on")?;
    }
    let (mut read_only, mut orders) = (Vec::new(), None);
    for disk in disks.split(',') {
        let (name, device) = disk
            .split_once('=')
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
            .step("read the list of disks")?;
        match name {
            "upper" => mount(device, UPPER, "ext4", plain | MountFlags::NOATIME, none)
                .step("mount the writable disk")?,
            "orders" => orders = Some(read_orders(device)?),
            _ => read_only.push((name, device)),
        }
    }
    let orders = orders
        .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
        .step("find the disk with orders")?;
    for directory in ["/mnt/upper/upper", "/mnt/upper/work"] {
        match rustix::fs::mkdir(directory, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error).step("make the writable layer"),
        }
    }
    make_homes(Path::new("/mnt/upper/upper"))?;
    put_files(Path::new("/mnt/upper/upper"), &orders.files)?;
    mount(
        "overlay",
        ROOT,
        "overlay",
        plain,
        Some(c"lowerdir=/,upperdir=/mnt/upper/upper,workdir=/mnt/upper/work"),
    )
    .step("mount overlay")?;
    for (name, device) in read_only {
        let place = Path::new(ROOT).join(name);
        mount(device, &place, "ext4", plain | MountFlags::RDONLY, none).step("mount a read-only disk")?;
    }
    mount_move("/dev", "/mnt/root/dev").step("move /dev")?;
    mount("proc", "/mnt/root/proc", "proc", plain | MountFlags::NOEXEC, none).step("mount /proc")?;
    for (directory, kind, options) in [
        ("/mnt/root/dev/pts", "devpts", c"mode=0620,ptmxmode=0666"),
        ("/mnt/root/dev/shm", "tmpfs", c"mode=1777,size=25%"),
    ] {
        match rustix::fs::mkdir(directory, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error).step("make a directory in /dev"),
        }
        mount(
            kind,
            directory,
            kind,
            MountFlags::NOSUID | MountFlags::NOEXEC,
            Some(options),
        )
        .step("mount in /dev")?;
    }
    change_root()?;
    rustix::system::sethostname(b"sandbox").step("set the host name")?;
    bring_loopback_up().step("bring loopback up")?;
    let socket = listen().step("listen on the machine's channel")?;
    become_agent()?;
    limit(&orders)?;
    replace_environment(&orders.env);
    Ok(socket)
}

fn read_orders(device: &str) -> Result<Orders, MachineError> {
    let mut text = Vec::new();
    std::fs::File::open(device)
        .and_then(|disk| disk.take(MAX_ORDERS_BYTES).read_to_end(&mut text))
        .step("read orders")?;
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    serde_json::from_slice(&text[..end])
        .map_err(io::Error::from)
        .step("read orders")
}

fn put_files(upper: &Path, files: &[OrderedFile]) -> Result<(), MachineError> {
    let directory = upper.join("etc/greenroom");
    std::fs::create_dir_all(&directory).step("write ordered files")?;
    for file in files {
        // The host checked the name; a slash would still only lead to this machine's own files.
        let path = directory.join(&file.name);
        std::fs::write(&path, &file.bytes).step("write ordered files")?;
        rustix::fs::chmod(&path, Mode::from_raw_mode(0o644)).step("write ordered files")?;
    }
    Ok(())
}

fn limit(orders: &Orders) -> Result<(), MachineError> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    for (resource, wanted) in [
        (Resource::Nofile, orders.max_open_files),
        (Resource::Fsize, orders.max_file_bytes),
        (Resource::Nproc, orders.max_processes),
        (Resource::Core, 0),
    ] {
        let most = getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let value = Some(wanted.min(most));
        let limit = Rlimit {
            current: value,
            maximum: value,
        };
        setrlimit(resource, limit).step("set resource limits")?;
    }
    Ok(())
}

fn replace_environment(env: &[(String, String)]) {
    let old: Vec<_> = std::env::vars_os().map(|(name, _)| name).collect();
    // SAFETY: called before any thread exists, so nobody reads the environment meanwhile.
    unsafe {
        for name in old {
            std::env::remove_var(name);
        }
        for (name, value) in env {
            std::env::set_var(name, value);
        }
    }
}

/// The directories that belong to the agent, once.
fn make_homes(upper: &Path) -> Result<(), MachineError> {
    for (name, mode, owner) in [
        ("home", 0o755, 0),
        ("home/agent", 0o755, AGENT_ID),
        ("workspace", 0o755, AGENT_ID),
        ("tmp", 0o1777, AGENT_ID),
    ] {
        let path = upper.join(name);
        match rustix::fs::mkdir(&path, Mode::from_raw_mode(mode)) {
            Ok(()) => {
                let (uid, gid) = (Uid::from_raw(owner), Gid::from_raw(owner));
                rustix::fs::chmod(&path, Mode::from_raw_mode(mode)).step("make the agent's directories")?;
                rustix::fs::chown(&path, Some(uid), Some(gid)).step("make the agent's directories")?;
            }
            Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error).step("make the agent's directories"),
        }
    }
    Ok(())
}

/// Leaves the base's own root behind; the overlay keeps it as its lower layer.
fn change_root() -> Result<(), MachineError> {
    rustix::process::chdir(ROOT).step("enter the new root")?;
    match rustix::process::pivot_root(".", ".") {
        Ok(()) => unmount(".", UnmountFlags::DETACH).step("detach the old root")?,
        // The first root of a machine without an initial memory disk cannot be pivoted; moved over, it is out of sight too.
        Err(_) => {
            mount_move(".", "/").step("move the new root")?;
            rustix::process::chroot(".").step("change the root")?;
        }
    }
    rustix::process::chdir("/").step("enter the new root")
}

fn become_agent() -> Result<(), MachineError> {
    use rustix::thread::{CapabilitySet, CapabilitySets};
    rustix::thread::set_thread_groups(&[]).step("leave groups")?;
    for capability in CapabilitySet::all().iter() {
        // Kernels know fewer than the library names.
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(error).step("drop capabilities"),
        }
    }
    let (uid, gid) = (Uid::from_raw(AGENT_ID), Gid::from_raw(AGENT_ID));
    rustix::thread::set_thread_res_gid(gid, gid, gid).step("become the agent")?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).step("become the agent")?;
    rustix::thread::set_capabilities(
        None,
        CapabilitySets {
            effective: CapabilitySet::empty(),
            permitted: CapabilitySet::empty(),
            inheritable: CapabilitySet::empty(),
        },
    )
    .step("drop capabilities")?;
    rustix::thread::set_no_new_privs(true).step("give up new privileges")
}

/// A socket of vsock(7) that accepts connections from the host.
fn listen() -> io::Result<OwnedFd> {
    // SAFETY: socket(2) with integers; the result is checked before it is owned.
    let fd = unsafe { libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made, and owned by nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: an all-zero sockaddr_vm is valid.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
    address.svm_port = VSOCK_PORT;
    address.svm_cid = libc::VMADDR_CID_ANY;
    let len = size_of::<libc::sockaddr_vm>() as libc::socklen_t;
    // SAFETY: `address` is a whole sockaddr_vm of the length given.
    if unsafe { libc::bind(fd, (&raw const address).cast(), len) } != 0 {
        return Err(io::Error::last_os_error());
    }
    rustix::net::listen(&socket, 8)?;
    Ok(socket)
}

fn bring_loopback_up() -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    use std::os::fd::AsRawFd as _;
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: an all-zero ifreq is valid; the name fits with its NUL.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS (netdevice(7)) reads an ifreq.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
