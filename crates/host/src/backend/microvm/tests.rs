//! The backend with real programs: Firecracker up to the point where it needs a kernel and KVM, and the disks and guest in a
//! machine that QEMU emulates, which needs neither KVM nor rights. QEMU's virtual socket comes from `vhost-device-vsock`,
//! which speaks Firecracker's `CONNECT PORT` to the host.

use super::*;
use crate::base::{Base, host_base};
use crate::embedded::{Programs, install};
use crate::link::Link;
use crate::microvm::peers::peer;
use crate::route::refuse_routes;
use crate::sandbox::Sandbox;
use greenroom_protocol::guest::call::{Exec, OutputChunk, Scope};
use greenroom_protocol::id::SandboxId;
use greenroom_sandbox::identity;
use greenroom_sandbox::spec::{Limits, Root};
use std::process::{Child, Command, Stdio};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

struct World {
    _temp: tempfile::TempDir,
    id: SandboxId,
    programs: Programs,
    base: Base,
    directory: PathBuf,
    shared: PathBuf,
}

impl World {
    /// With `read_only` instead of the whole of /usr, of which an image would take long.
    fn new(read_only: Vec<PathBuf>) -> Self {
        let temp = tempfile::Builder::new()
            .prefix("gr-vm-")
            .tempdir_in("/tmp")
            .unwrap();
        let state = temp.path().to_owned();
        let id = SandboxId::from_bits(greenroom_stdx::id::fresh_bits());
        let directory = state.join(id.as_str());
        make_private(&directory).unwrap();
        Self {
            programs: install(&state.join("bin")).unwrap(),
            base: Base {
                read_only,
                ..host_base(&state.join("base")).unwrap()
            },
            shared: state.join("machines"),
            directory,
            id,
            _temp: temp,
        }
    }

    fn launch<'a>(&'a self, files: &'a [SandboxFile]) -> Launch<'a> {
        let privilege = match identity::is_privileged() {
            true => Privilege::Root,
            false => Privilege::User,
        };
        Launch {
            spec: LaunchSpec {
                directory: self.directory.clone(),
                root: Root::Directory {
                    path: self.directory.clone(),
                },
                privilege,
                read_only: self.base.read_only.clone(),
                is_root_open: false,
                user_id: greenroom_sandbox::spec::AGENT_ID,
                guest: self.programs.guest.clone(),
                hostname: "sandbox".to_owned(),
                env: vec![
                    ("PATH".to_owned(), "/tools".to_owned()),
                    ("TOLD".to_owned(), "yes".to_owned()),
                ],
                limits: Limits {
                    memory_bytes: 256 << 20,
                    cpu_millis: 1000,
                    disk_bytes: 48 << 20,
                    ..Limits::default()
                },
                cgroups: Vec::new(),
            },
            id: &self.id,
            programs: &self.programs,
            base: &self.base,
            files,
        }
    }

    fn backend(&self, firecracker: PathBuf, kernel: PathBuf) -> Microvm {
        let config = MachineConfig {
            firecracker: Some(firecracker),
            kernel: Some(kernel),
        };
        Microvm::new(&config, self.shared.clone()).unwrap()
    }
}

#[test]
fn what_is_not_configured_is_said() {
    let problem = |config: &MachineConfig| {
        Microvm::new(config, PathBuf::from("/nowhere"))
            .unwrap_err()
            .problem()
    };
    let none = problem(&MachineConfig::default());
    assert_eq!(none.code, "microvm_unavailable");
    assert!(none.hint.unwrap().contains("microvm_kernel"));
    let lost = problem(&MachineConfig {
        firecracker: Some("/nowhere/firecracker".into()),
        kernel: Some("/nowhere/vmlinux".into()),
    });
    assert!(lost.hint.unwrap().contains("Install Firecracker"));
}

#[test]
fn a_kernel_that_is_none_fails_with_firecrackers_words_and_leaves_no_process() {
    let Some(firecracker) = peer("firecracker") else {
        return;
    };
    let world = World::new(Vec::new());
    let kernel = world.directory.join("no-kernel");
    fs::write(&kernel, "this is no kernel").unwrap();
    let backend = world.backend(firecracker, kernel);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // On a thread that is no worker, as the host does it, so that the runtime drives the connection meanwhile.
    let entered = runtime.enter();
    let error = backend.launch(world.launch(&[])).unwrap_err();
    drop(entered);
    let problem = error.problem();
    assert_eq!(problem.code, "microvm_unavailable", "{error:?}");
    assert!(
        problem.message.contains("Firecracker refused /actions"),
        "{}",
        problem.message
    );
    assert!(!supervisor::is_alive(&world.directory).unwrap());
    let running = Command::new("pgrep")
        .args(["-f", world.id.as_str()])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&running.stdout), "");
}

#[test]
fn doctor_tries_to_boot_and_says_why_it_cannot() {
    let Some(firecracker) = peer("firecracker") else {
        return;
    };
    let temp = tempfile::Builder::new()
        .prefix("gr-vm-")
        .tempdir_in("/tmp")
        .unwrap();
    let kernel = temp.path().join("no-kernel");
    fs::write(&kernel, "this is no kernel").unwrap();
    let state = temp.path().join("state");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let try_it = |config: MachineConfig| runtime.block_on(finding(&state, &config));
    let none = try_it(MachineConfig::default());
    assert_eq!(none.verdict, crate::probe::Verdict::Unused);
    let failed = try_it(MachineConfig {
        firecracker: Some(firecracker),
        kernel: Some(kernel),
    });
    assert_eq!(failed.verdict, crate::probe::Verdict::Reduced);
    assert!(
        failed.detail.contains("Firecracker refused /actions"),
        "{}",
        failed.detail
    );
    assert!(failed.hint.unwrap().contains("/dev/kvm"));
    let left = fs::read_dir(state.join("machine-probe")).unwrap().flatten();
    let left: Vec<_> = left
        .map(|entry| entry.file_name())
        .filter(|name| name != "images")
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the prepared disks in QEMU's emulation, with a small initial memory disk that loads Debian's modules and then
/// does what Firecracker's kernel does: executes the guest from the first disk.
fn emulate(
    world: &World,
    machine: &Machine,
    kernel: &Path,
    initrd: &Path,
    vsock_device: &Path,
) -> [Ended; 2] {
    let directory = world.directory.join(MACHINE_NAME);
    let vhost = directory.join("vhost.sock");
    let device = Command::new(vsock_device)
        .arg("--vm")
        .arg(format!(
            "guest-cid=3,uds-path={},socket={}",
            directory.join(MACHINE_VSOCK_NAME).display(),
            vhost.display()
        ))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let device = Ended(device);
    let deadline = Instant::now() + Duration::from_secs(20);
    while !vhost.exists() {
        assert!(Instant::now() < deadline, "the device does not listen");
        std::thread::sleep(Duration::from_millis(5));
    }
    let boot = machine.preparation().remove(1);
    let boot: serde_json::Value = serde_json::from_str(&boot.body).unwrap();
    let disks = boot["boot_args"]
        .as_str()
        .unwrap()
        .split(' ')
        .next_back()
        .unwrap()
        .to_owned();
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args([
        "-M",
        "q35,memory-backend=mem",
        "-accel",
        "tcg",
        "-m",
        "256",
        "-display",
        "none",
        "-no-reboot",
    ])
    .args(["-object", "memory-backend-memfd,id=mem,size=256M,share=on"])
    .args(["-serial", "file:console.log"])
    .arg("-kernel")
    .arg(kernel)
    .arg("-initrd")
    .arg(initrd)
    .arg("-append")
    .arg(format!("console=ttyS0 panic=1 {disks}"))
    .args([
        "-chardev",
        "socket,id=vsock,path=vhost.sock",
        "-device",
        "vhost-user-vsock-pci,chardev=vsock",
    ])
    .current_dir(&directory)
    .stdin(Stdio::null());
    let shared = [&machine.base_image]
        .into_iter()
        .chain(machine.read_only_images.iter().map(|(_, path)| path));
    for (path, access) in shared
        .map(|path| (path, "on"))
        .chain([(&machine.upper_image, "off"), (&machine.orders, "on")])
    {
        qemu.arg("-drive").arg(format!(
            "file={},if=virtio,format=raw,readonly={access}",
            path.display()
        ));
    }
    [Ended(qemu.spawn().unwrap()), device]
}

/// An emulated kernel boots in seconds, or in minutes where other tests have the processors; what ends is said at once.
async fn connect(directory: &Path, [machine, device]: &mut [Ended; 2]) -> Sandbox {
    let deadline = Instant::now() + Duration::from_secs(600);
    let id = SandboxId::from_bits(greenroom_stdx::id::fresh_bits());
    loop {
        if matches!(knock(directory), Ok(true)) {
            let mut socket = UnixStream::connect(directory.join(MACHINE_VSOCK_NAME)).unwrap();
            socket.write_all(b"CONNECT 1024\n").unwrap();
            let mut byte = [0];
            while byte[0] != b'\n' {
                socket.read_exact(&mut byte).unwrap();
            }
            socket.set_nonblocking(true).unwrap();
            let socket = tokio::net::UnixStream::from_std(socket).unwrap();
            let meter = std::sync::Arc::new(crate::usage::Meter::open(directory.to_owned(), &[]));
            let ports = crate::expose::Registry::default().ports(&id, directory);
            return Sandbox::new(
                id,
                Link::open(socket, refuse_routes()).await.unwrap(),
                meter,
                ports,
            );
        }
        let console = fs::read_to_string(directory.join("console.log")).unwrap_or_default();
        let ended = [machine.0.try_wait().unwrap(), device.0.try_wait().unwrap()];
        assert_eq!(ended, [None, None], "the machine or its socket ended:\n{console}");
        assert!(Instant::now() < deadline, "the guest does not listen:\n{console}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn run(sandbox: &Sandbox, script: &str) -> String {
    let (tx, mut rx) = mpsc::channel::<OutputChunk>(64);
    let exec = Exec {
        argv: ["sh", "-c", script].map(str::to_owned).to_vec(),
        is_merged: true,
        ..Exec::default()
    };
    let collect = async {
        let mut output = Vec::new();
        while let Some(chunk) = rx.recv().await {
            output.extend(chunk.bytes);
        }
        String::from_utf8_lossy(&output).into_owned()
    };
    let (exit, output) = tokio::join!(sandbox.exec(exec, tx, CancellationToken::new()), collect);
    exit.unwrap();
    output
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disks_boot_and_the_guest_is_the_machines_first_process() {
    let (Some(kernel), Some(initrd), Some(device), Some(tools)) = (
        peer("vm/vmlinuz"),
        peer("vm/initrd"),
        peer("vm/vhost-device-vsock"),
        peer("vm/tools"),
    ) else {
        return;
    };
    let world = World::new(vec![tools]);
    let backend = world.backend("/bin/true".into(), kernel.clone());
    let files = [SandboxFile {
        name: "note".to_owned(),
        bytes: b"from the host".to_vec(),
    }];
    let launch = world.launch(&files);
    let machine = backend.prepare(&launch).unwrap();
    let directory = world.directory.join(MACHINE_NAME);
    let mut running = emulate(&world, &machine, &kernel, &initrd, &device);
    let sandbox = connect(&directory, &mut running).await;
    for (script, expected) in [
        ("id -u; id -g", "1000\n1000\n"),
        ("echo $TOLD $PATH", "yes /tools\n"),
        ("cat /etc/greenroom/note", "from the host"),
        (
            "grep -cE '^Cap(Inh|Prm|Eff|Bnd|Amb):.0000000000000000' /proc/self/status",
            "5\n",
        ),
        ("cat /proc/1/comm", "greenroom-guest\n"),
        ("ls -A /mnt; ls -A /root 2>/dev/null | wc -l", "0\n"),
        ("touch /tools/x 2>/dev/null || echo read-only", "read-only\n"),
        ("head -c 1 /dev/vda 2>/dev/null || echo closed", "closed\n"),
        ("tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '", "lo\n"),
    ] {
        assert_eq!(run(&sandbox, script).await, expected, "{script}");
    }
    sandbox
        .write_file("kept", Scope::Workspace, b"work".to_vec())
        .await
        .unwrap();
    // Larger than what the disk may hold: the machine's own filesystem says so, and goes on.
    let full = run(
        &sandbox,
        "head -c 60000000 /dev/zero 2>/dev/null >big; echo $?; rm big; sync",
    )
    .await;
    assert_ne!(full, "0\n");
    drop((sandbox, running));

    // The next start finds the files.
    let machine = backend.prepare(&launch).unwrap();
    let mut running = emulate(&world, &machine, &kernel, &initrd, &device);
    let sandbox = connect(&directory, &mut running).await;
    assert_eq!(run(&sandbox, "cat kept").await, "work");
    drop((sandbox, running));
}
