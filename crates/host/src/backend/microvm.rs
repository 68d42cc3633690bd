//! A virtual machine for each sandbox: Firecracker, configured over its API and held by a supervisor of its own. The host's
//! kernel is not shared. What it needs from the operator: Firecracker, a guest kernel, and a working /dev/kvm.

mod finding;

use crate::backend::{Backend, Launch, make_private};
use crate::failure::HostError;
use crate::host::SandboxFile;
use crate::microvm::client::{ApiError, Client};
use crate::microvm::image::{self, ImageError};
use crate::microvm::request::Machine;
use crate::supervisor;
use greenroom_images::tree;
use greenroom_sandbox::identity;
use greenroom_sandbox::spec::{
    LaunchOrders, LaunchSpec, MACHINE_API_NAME, MACHINE_NAME, MACHINE_VSOCK_NAME, MachineSpec, Privilege,
};
use serde::Serialize;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use thiserror::Error;

pub(crate) use finding::finding;

/// How long a machine may take from its start until its guest listens.
const BOOT_PATIENCE: Duration = Duration::from_secs(30);

/// Between two tries to reach the guest.
const BOOT_PAUSE: Duration = Duration::from_millis(2);

/// Memory of Firecracker itself beside its machine's.
const OVERHEAD_BYTES: u64 = 64 << 20;

/// Disks are read in sectors.
const SECTOR_BYTES: usize = 512;

/// What the operator provides for machines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MachineConfig {
    /// Firecracker's program, a name or a path; unset: `firecracker` from `PATH`.
    pub firecracker: Option<PathBuf>,
    /// Uncompressed kernel (`vmlinux`) with virtio-mmio, virtio-blk, virtio-vsock, ext4 and overlayfs built in. Unset: there
    /// are no machines.
    pub kernel: Option<PathBuf>,
}

/// Why there is no machine.
#[derive(Debug, Error)]
pub enum MachineError {
    #[error("no guest kernel is configured")]
    NoKernel,
    #[error("Firecracker was not found")]
    NoFirecracker,
    #[error("make the machine's disks")]
    Image(#[source] ImageError),
    #[error("configure the machine")]
    Api(#[source] ApiError),
    #[error("the machine's guest did not come up")]
    NoGuest,
}

impl MachineError {
    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoKernel => "Set sandbox.microvm_kernel to an uncompressed guest kernel (vmlinux).",
            Self::NoFirecracker => "Install Firecracker, or set sandbox.firecracker to its program.",
            Self::Image(ImageError::NoTool) => "Install e2fsprogs, which brings mke2fs.",
            Self::Image(_) => {
                "Check that the data directory is writable and has room for the machine's disks."
            }
            Self::Api(_) => {
                "Check that /dev/kvm works on this machine and that the kernel is an uncompressed vmlinux; `greenroom \
                 doctor` tries both."
            }
            Self::NoGuest => {
                "The kernel needs virtio-mmio, virtio-blk, virtio-vsock, ext4 and overlayfs built in; its console is in \
                 launcher.log of the sandbox's directory."
            }
        }
    }
}

/// What the guest is told by the disk `orders`; see `crates/guest/src/machine.rs`.
#[derive(Serialize)]
struct Orders<'a> {
    env: &'a [(String, String)],
    files: Vec<OrderedFile<'a>>,
    max_open_files: u64,
    max_file_bytes: u64,
    max_processes: u32,
}

#[derive(Serialize)]
struct OrderedFile<'a> {
    name: &'a str,
    bytes: &'a [u8],
}

#[derive(Debug)]
pub(super) struct Microvm {
    firecracker: PathBuf,
    kernel: PathBuf,
    /// Images that all machines share.
    shared: PathBuf,
}

impl Microvm {
    /// `shared` is a directory of the host, made when needed.
    pub(super) fn new(config: &MachineConfig, shared: PathBuf) -> Result<Self, HostError> {
        let kernel = config
            .kernel
            .clone()
            .ok_or(HostError::Machine(MachineError::NoKernel))?;
        let wanted = config
            .firecracker
            .clone()
            .unwrap_or_else(|| PathBuf::from("firecracker"));
        let firecracker =
            super::find_program(&wanted).ok_or(HostError::Machine(MachineError::NoFirecracker))?;
        Ok(Self {
            firecracker,
            kernel,
            shared,
        })
    }

    /// Puts the machine's directory in order: its disks, by names without a directory.
    fn prepare(&self, launch: &Launch<'_>) -> Result<Machine, HostError> {
        let spec = &launch.spec;
        let directory = spec.directory.join(MACHINE_NAME);
        let file = |action| HostError::file(action, &directory);
        make_private(&directory).map_err(file("make directory"))?;
        make_private(&self.shared).map_err(HostError::file("make directory", &self.shared))?;
        let key = |path: &Path| {
            path.file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned()
        };
        let base = self
            .shared
            .join(format!("{}-{}.ext4", key(&launch.base.lower), key(&spec.guest)));
        image::base(&base, &launch.base.lower, &spec.guest, &spec.read_only).map_err(broken)?;
        let mut shared = vec![("base.ext4".to_owned(), base)];
        let mut read_only_images = Vec::new();
        for path in &spec.read_only {
            let name = key(path);
            let image = self.shared.join(format!("{name}-{}.ext4", state_of(path)));
            image::directory(&image, path).map_err(broken)?;
            read_only_images.push((name.clone(), PathBuf::from(format!("{name}.ext4"))));
            shared.push((format!("{name}.ext4"), image));
        }
        let kernel = self.shared.join(format!("vmlinux-{}", stamp(&self.kernel)));
        if !kernel.exists() {
            let draft = kernel.with_extension("new");
            fs::copy(&self.kernel, &draft).map_err(HostError::file("copy kernel", &self.kernel))?;
            fs::rename(&draft, &kernel).map_err(HostError::file("copy kernel", &kernel))?;
        }
        shared.push(("vmlinux".to_owned(), kernel));
        for (name, image) in shared {
            // Read by the machine's own user, who may not walk to the shared directory.
            fs::set_permissions(&image, fs::Permissions::from_mode(0o644)).map_err(file("prepare"))?;
            let place = directory.join(name);
            tree::remove_file(&place).map_err(file("prepare"))?;
            fs::hard_link(&image, &place).map_err(HostError::file("link", &place))?;
        }
        let upper = directory.join("upper.ext4");
        image::writable(&upper, spec.limits.disk_bytes).map_err(broken)?;
        let orders = directory.join("orders");
        fs::write(&orders, orders_of(spec, launch.files)).map_err(HostError::file("write", &orders))?;
        if let Some(host_id) = host_id(launch) {
            for path in [&directory, &upper, &orders] {
                chown(path, Some(host_id), Some(host_id)).map_err(HostError::file("give away", path))?;
            }
        }
        Ok(Machine {
            kernel: "vmlinux".into(),
            base_image: "base.ext4".into(),
            upper_image: "upper.ext4".into(),
            read_only_images,
            orders: "orders".into(),
            socket: MACHINE_VSOCK_NAME.into(),
            processors: spec.limits.cpu_millis.div_ceil(1000),
            memory_mib: spec.limits.memory_bytes >> 20,
        })
    }
}

/// Whose a machine's process and its disks are, as root.
fn host_id(launch: &Launch<'_>) -> Option<u32> {
    (launch.spec.privilege == Privilege::Root).then(|| identity::host_id(launch.id.as_str()))
}

impl Backend for Microvm {
    fn launch(&self, launch: Launch<'_>) -> Result<(), HostError> {
        let machine = self.prepare(&launch)?;
        let spec = &launch.spec;
        let mut limits = spec.limits;
        limits.memory_bytes += OVERHEAD_BYTES;
        let orders = LaunchOrders::Machine(MachineSpec {
            directory: spec.directory.clone(),
            program: self.firecracker.clone(),
            host_id: host_id(&launch),
            guest_port: crate::microvm::GUEST_PORT,
            limits,
            cgroups: spec.cgroups.clone(),
        });
        launch.programs.launchers.launch(&orders)?;
        let started = start(&spec.directory, &machine).and_then(|()| await_guest(&spec.directory));
        if let Err(error) = started {
            // Its supervisor holds a machine that is of no use.
            supervisor::stop(launch.id, &spec.directory)?;
            return Err(error);
        }
        Ok(())
    }
}

fn broken(error: ImageError) -> HostError {
    HostError::Machine(MachineError::Image(error))
}

fn start(directory: &Path, machine: &Machine) -> Result<(), HostError> {
    let directory = directory.join(MACHINE_NAME);
    // An address holds 108 bytes; the way through the open directory is always short.
    let opened = fs::File::open(&directory).map_err(HostError::file("open", &directory))?;
    let socket = PathBuf::from(format!("/proc/self/fd/{}/{MACHINE_API_NAME}", opened.as_raw_fd()));
    let talk = async {
        let mut client = Client::connect(&socket).await?;
        let instance = client.send(&Machine::describe()).await?;
        tracing::debug!(instance, "Firecracker answers");
        client.send_all(&machine.preparation()).await?;
        client.send(&Machine::start()).await.map(|_| ())
    };
    // Workers of the host are blocking threads of its runtime.
    tokio::runtime::Handle::current()
        .block_on(talk)
        .map_err(|error| HostError::Machine(MachineError::Api(error)))
}

/// Waits until the guest listens: Firecracker then answers `OK` to `CONNECT`.
fn await_guest(directory: &Path) -> Result<(), HostError> {
    let deadline = Instant::now() + BOOT_PATIENCE;
    loop {
        if matches!(knock(&directory.join(MACHINE_NAME)), Ok(true)) {
            return Ok(());
        }
        if Instant::now() > deadline || !supervisor::is_alive(directory)? {
            return Err(HostError::Machine(MachineError::NoGuest));
        }
        std::thread::sleep(BOOT_PAUSE);
    }
}

fn knock(directory: &Path) -> io::Result<bool> {
    let opened = fs::File::open(directory)?;
    let mut socket = UnixStream::connect(format!(
        "/proc/self/fd/{}/{MACHINE_VSOCK_NAME}",
        opened.as_raw_fd()
    ))?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    socket.write_all(format!("CONNECT {}\n", crate::microvm::GUEST_PORT).as_bytes())?;
    let mut answer = [0; 3];
    socket.read_exact(&mut answer)?;
    Ok(answer == *b"OK ")
}

fn orders_of(spec: &LaunchSpec, files: &[SandboxFile]) -> Vec<u8> {
    let orders = Orders {
        env: &spec.env,
        files: files
            .iter()
            .map(|file| OrderedFile {
                name: &file.name,
                bytes: &file.bytes,
            })
            .collect(),
        max_open_files: spec.limits.max_open_files,
        max_file_bytes: spec.limits.max_file_bytes,
        max_processes: spec.limits.max_processes,
    };
    // Plain text and numbers always encode.
    let mut bytes = serde_json::to_vec(&orders).unwrap_or_default();
    bytes.push(0);
    bytes.resize(bytes.len().next_multiple_of(SECTOR_BYTES), 0);
    bytes
}

/// Changes when what the package manager installed in a directory changes.
fn state_of(path: &Path) -> String {
    let database = Path::new("/var/lib/dpkg/status");
    format!("{}-{}", stamp(path), stamp(database))
}

/// Changes when the file was written again; `0` if it is not there.
fn stamp(path: &Path) -> String {
    fs::metadata(path).map_or_else(
        |_| "0".to_owned(),
        |metadata| {
            format!(
                "{:x}-{:x}-{:x}",
                metadata.len(),
                metadata.mtime(),
                metadata.mtime_nsec()
            )
        },
    )
}

#[cfg(test)]
mod tests;
