//! Other runtimes that start the same program on the same root: the host's base, and /usr bound read-only. Each has its own
//! namespaces, no capabilities and no network, as ours; none of them has a second program inside that answers calls.

use crate::stats::Samples;
use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use std::io::{BufRead as _, BufReader};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// One runtime that works here.
pub(super) struct Peer {
    pub name: &'static str,
    pub samples: Samples,
    /// It takes part in every so many rounds, so that slow ones do not make the run long.
    every: usize,
    command: Box<dyn Fn(usize) -> Command>,
    /// Keeps a mount namespace alive that the command enters.
    _holder: Option<Holder>,
}

impl Peer {
    /// Starts the program and waits for its end.
    pub(super) fn take_turn(&mut self, round: usize, is_counted: bool) -> Result<()> {
        if round.is_multiple_of(self.every) {
            let took = self.run(round)?;
            if is_counted {
                self.samples.push(took);
            }
        }
        Ok(())
    }

    fn run(&self, round: usize) -> Result<Duration> {
        let mut command = (self.command)(round);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let began = Instant::now();
        let status = command.stderr(Stdio::null()).status()?;
        let took = began.elapsed();
        ensure!(status.success(), "{} fails: {status}", self.name);
        Ok(took)
    }
}

/// Those that are installed and work; of the others it says why not. `bases` holds the host's one base.
#[expect(
    clippy::print_stderr,
    reason = "whoever reads the numbers must know which are missing"
)]
pub(super) fn find(bases: &Path, directory: &Path) -> Result<Vec<Peer>> {
    let base = std::fs::read_dir(bases)?
        .next()
        .context("the host made a base")??
        .path();
    let bundle = bundle(&base, directory)?;
    let mut found = Vec::new();
    for (name, program, every) in [
        ("bubblewrap", "/usr/bin/bwrap", 1),
        ("crun", "/usr/bin/crun", 1),
        ("runc", "/usr/sbin/runc", 2),
        ("gVisor", "/usr/bin/runsc", 10),
    ] {
        if !Path::new(program).exists() {
            eprintln!("peer {name}: {program} is not installed");
            continue;
        }
        let holder = match name {
            // It refuses systems that mount both versions of cgroups.
            "crun" if Path::new("/sys/fs/cgroup/unified").exists() => Some(Holder::without_unified()?),
            _ => None,
        };
        let namespace = holder.as_ref().map(Holder::namespace).transpose()?;
        let (base, bundle, state) = (base.clone(), bundle.clone(), directory.join(name));
        let command = move |round: usize| {
            let id = format!("greenroom-bench-{round}");
            let mut command = Command::new(program);
            match name {
                "bubblewrap" => bubblewrap(&mut command, &base),
                "gVisor" => {
                    command.args(["-network=none", "-platform=systrap", "-ignore-cgroups", "-root"]);
                    command.arg(&state).args(["run", "-bundle"]).arg(&bundle).arg(id);
                }
                _ => {
                    command.arg("--root").arg(&state);
                    command.args(["run", "--bundle"]).arg(&bundle).arg(id);
                }
            }
            if let Some(namespace) = &namespace {
                let fd = namespace.as_raw_fd();
                // SAFETY: one system call on a descriptor that lives as long as this closure.
                unsafe {
                    command.pre_exec(move || match libc::setns(fd, libc::CLONE_NEWNS) {
                        0 => Ok(()),
                        _ => Err(std::io::Error::last_os_error()),
                    });
                }
            }
            command
        };
        // Whether it works at all, and its own words if it does not.
        let trial = command(usize::MAX).stdin(Stdio::null()).output()?;
        if !trial.status.success() {
            let words = String::from_utf8_lossy(&trial.stderr);
            let said = words.lines().last().unwrap_or("nothing");
            eprintln!("peer {name} does not work here ({}): {said}", trial.status);
            continue;
        }
        found.push(Peer {
            name,
            samples: Samples::default(),
            every,
            command: Box::new(command),
            _holder: holder,
        });
    }
    Ok(found)
}

fn bubblewrap(command: &mut Command, base: &Path) {
    command.args([
        "--unshare-all",
        "--die-with-parent",
        "--new-session",
        "--cap-drop",
        "ALL",
    ]);
    command.arg("--ro-bind").arg(base).arg("/");
    command.args(["--ro-bind", "/usr", "/usr", "--proc", "/proc", "--dev", "/dev"]);
    command.args([
        "--tmpfs",
        "/tmp",
        "--tmpfs",
        "/run",
        "--tmpfs",
        "/workspace",
        "/bin/true",
    ]);
}

/// An OCI bundle (<https://github.com/opencontainers/runtime-spec>) over the base.
fn bundle(base: &Path, directory: &Path) -> Result<PathBuf> {
    let bundle = directory.join("bundle");
    std::fs::create_dir_all(&bundle)?;
    let copied = Command::new("cp")
        .arg("-a")
        .arg(base)
        .arg(bundle.join("rootfs"))
        .status()?;
    ensure!(copied.success(), "cp fails");
    let namespaces: Vec<_> = ["pid", "network", "ipc", "uts", "mount"]
        .map(|kind| json!({ "type": kind }))
        .into();
    let tmpfs = |place: &str| json!({ "destination": place, "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev"] });
    let config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false, "user": { "uid": 1000, "gid": 1000 }, "args": ["/bin/true"], "cwd": "/",
            "env": ["PATH=/usr/bin:/bin"], "noNewPrivileges": true, "capabilities": {}
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "sandbox",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"] }, tmpfs("/tmp"), tmpfs("/run"), tmpfs("/workspace"),
            { "destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"] }
        ],
        "linux": {
            "namespaces": namespaces,
            "resources": { "memory": { "limit": 4_u64 << 30 }, "pids": { "limit": 2048 } }
        }
    });
    std::fs::write(bundle.join("config.json"), config.to_string())?;
    Ok(bundle)
}

/// A process that does nothing but keep a mount namespace.
struct Holder(Child);

impl Holder {
    /// One in which only the first version of cgroups is mounted.
    fn without_unified() -> Result<Self> {
        let mut child = Command::new("unshare")
            .args([
                "--mount",
                "sh",
                "-c",
                "umount /sys/fs/cgroup/unified; echo ready; exec cat",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut line = String::new();
        let output = child.stdout.take().context("it has an output")?;
        BufReader::new(output).read_line(&mut line)?;
        Ok(Self(child))
    }

    fn namespace(&self) -> Result<std::fs::File> {
        Ok(std::fs::File::open(format!("/proc/{}/ns/mnt", self.0.id()))?)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // It ends at the end of its input; nothing is done about one that does not.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
