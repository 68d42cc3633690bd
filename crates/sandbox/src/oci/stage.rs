//! What an OCI runtime finds: a bundle with the sandbox's root, in a mount namespace that ends with the runtime, so that
//! nothing of it appears on the host or is ever left there. And the runtime itself, which the child becomes.

use crate::agent::Agent;
use crate::cgroup::{self, Version};
use crate::enter::end_if_alone;
use crate::failure::Step;
use crate::mounts::{MEMORY_FILES, RUN_BYTES, attach, attach_inside, filesystem, read_only_copy, root_mount};
use crate::oci::bundle;
use crate::spec::{LaunchFailure, OciRuntime, OciSpec, Privilege, ROOT_ID};
use crate::syscall::{ATTR_NODEV, ATTR_NOEXEC, ATTR_NOSUID, ATTR_RDONLY, Reach, set_mount_attributes};
use crate::{identity, syscall};
use rustix::fd::{AsFd as _, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MountPropagationFlags, mount_change};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Empty directories of every system, open to all, on one of which the stage is mounted.
const PLACES: &[&str] = &["/mnt", "/media", "/srv", "/opt"];

/// The runtime's ends of its standard streams.
pub(super) struct Streams {
    pub input: OwnedFd,
    pub output: OwnedFd,
    pub errors: OwnedFd,
}

/// Becomes the runtime, or says why not. Runs in new mount and pid namespaces.
pub(super) fn become_runtime(
    spec: &OciSpec,
    agent: Option<&Agent>,
    supervisor: &OwnedFd,
    streams: &Streams,
    ids: (u32, u32),
) -> Result<std::convert::Infallible, LaunchFailure> {
    // While the hierarchies are in sight. The one of v2 was entered by being born in it.
    for placement in &spec.sandbox.cgroups {
        if placement.version == Version::V1 {
            cgroup::join(placement).step("enter resource group")?;
        }
    }
    if spec.sandbox.privilege == Privilege::User {
        identity::map_to(ROOT_ID, ids.0, ids.1)?;
    }
    rustix::process::umask(Mode::from_raw_mode(0o022));
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .step("make mounts private")?;
    let stage = build(spec, agent)?;
    // Of the new pid namespace; the runtime would look its children up under other numbers.
    let proc = filesystem("proc", &[], ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC).step("mount /proc")?;
    attach(&proc, CWD, "/proc").step("attach /proc")?;
    hide_cgroups(spec.runtime)?;
    let (program, argv, env) = command(spec, stage)?;
    rustix::process::chdir(stage).step("enter stage")?;
    identity::die_with_parent()?;
    end_if_alone(supervisor);
    take_streams(streams)?;
    Err(syscall::execute_path(&program, &argv, &env)).step("execute runtime")
}

/// Mounts the stage and everything on it. Returns its path.
fn build(spec: &OciSpec, agent: Option<&Agent>) -> Result<&'static str, LaunchFailure> {
    let sandbox = &spec.sandbox;
    let is_used = |place: &&&str| {
        [&sandbox.directory, &sandbox.guest, &spec.program]
            .into_iter()
            .chain(&sandbox.read_only)
            .any(|path| path.starts_with(place))
    };
    let stage = PLACES
        .iter()
        .filter(|place| Path::new(place).is_dir())
        .find(|place| !is_used(place))
        .ok_or_else(|| LaunchFailure {
            step: "find a place for the bundle".to_owned(),
            errno: libc::ENOENT,
        })?;
    let root = root_mount(sandbox, agent)?;
    let shared: Vec<OwnedFd> = sandbox
        .read_only
        .iter()
        .map(|path| read_only_copy(path))
        .collect::<Result<_, _>>()
        .step("copy read-only mounts")?;
    let floor = filesystem(
        "tmpfs",
        &[("size", "16777216"), ("mode", "0755")],
        ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC,
    )
    .step("mount stage")?;
    attach(&floor, CWD, *stage).step("attach stage")?;
    let stage_path = Path::new(stage);
    std::fs::create_dir(stage_path.join("root")).step("make stage")?;
    std::fs::create_dir(stage_path.join("state")).step("make stage")?;
    let place = stage_path.join("root");
    attach(&root, CWD, &place).step("attach root")?;
    // The mount itself, not the directory under it.
    let root = rustix::fs::open(
        &place,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .step("open root")?;
    for (path, mount) in sandbox.read_only.iter().zip(&shared) {
        let inside = path.strip_prefix("/").unwrap_or(path);
        attach_inside(mount, &root, inside).step("attach read-only mount")?;
    }
    put_guest(&root, &sandbox.guest, agent)?;
    let has_plain_tmp = rustix::fs::openat(
        &root,
        "tmp",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .is_ok();
    let config = serde_json::to_vec_pretty(&bundle::config(
        sandbox,
        agent.map(|agent| agent.host_id),
        spec.runtime,
        has_plain_tmp,
    ))
    .map_err(std::io::Error::from)
    .step("write bundle")?;
    std::fs::write(stage_path.join("config.json"), &config).step("write bundle")?;
    // For people who look; nothing reads it.
    let _ = std::fs::write(sandbox.directory.join("config.json"), &config);
    Ok(stage)
}

/// Puts the guest's program on the sandbox's /run, which is the agent's own: each start has a fresh one. A copy, because a
/// mount would show inside where it lies on the host.
fn put_guest(root: &OwnedFd, guest: &Path, agent: Option<&Agent>) -> Result<(), LaunchFailure> {
    // Without root this user's one id, in the namespace around the runtime.
    let owner = agent.map_or(0, |agent| agent.host_id).to_string();
    let len = std::fs::metadata(guest).step("open guest")?.len();
    let size = (RUN_BYTES + len).to_string();
    let run = filesystem(
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
    .step("mount /run")?;
    attach_inside(&run, root, "run").step("attach /run")?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let place = rustix::fs::openat(root, bundle::GUEST_PLACE, flags, Mode::from_raw_mode(0o755))
        .step("place guest")?;
    let mut program = std::fs::File::open(guest).step("open guest")?;
    std::io::copy(&mut program, &mut std::fs::File::from(place)).step("place guest")?;
    Ok(())
}

/// The sandbox is in its groups already, and the runtime inherits them. Keeps it from making others.
fn hide_cgroups(kind: OciRuntime) -> Result<(), LaunchFailure> {
    const CGROUPS: &str = "/sys/fs/cgroup";
    if !Path::new(CGROUPS).is_dir() {
        return Ok(());
    }
    match kind {
        // It refuses hybrid hierarchies, even when it is told to leave them alone.
        OciRuntime::Crun => {
            let empty = filesystem("tmpfs", &[("size", "4096"), ("mode", "0555")], ATTR_RDONLY)
                .step("hide resource groups")?;
            attach(&empty, CWD, CGROUPS).step("hide resource groups")
        }
        // It insists on finding them, and without root bears that it cannot write.
        OciRuntime::Runc => {
            let groups = rustix::fs::open(
                CGROUPS,
                OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .step("hide resource groups")?;
            set_mount_attributes(groups.as_fd(), ATTR_RDONLY, Reach::WithSubmounts)
                .step("hide resource groups")
        }
        OciRuntime::Runsc | OciRuntime::Other => Ok(()),
    }
}

/// The runtime's program, arguments and environment.
fn command(spec: &OciSpec, stage: &str) -> Result<(CString, Vec<CString>, Vec<CString>), LaunchFailure> {
    let state = format!("{stage}/state");
    let own: &[&str] = match spec.runtime {
        OciRuntime::Crun => &["--cgroup-manager=disabled"],
        OciRuntime::Runc => &["--rootless=true"],
        OciRuntime::Runsc => &[
            "--platform=systrap",
            "--network=none",
            "--host-uds=none",
            "--overlay2=none",
            "--oci-seccomp",
            "--ignore-cgroups",
        ],
        OciRuntime::Other => &[],
    };
    // Unique on the machine, where runtimes make names of it that others may see.
    let name = spec.sandbox.directory.file_name().unwrap_or_default();
    let text = |bytes: &[u8]| {
        CString::new(bytes).map_err(|_| LaunchFailure {
            step: "NUL in path".to_owned(),
            errno: libc::EINVAL,
        })
    };
    let program = text(spec.program.as_os_str().as_bytes())?;
    let mut argv = vec![program.clone(), text(b"--root")?, text(state.as_bytes())?];
    for argument in own.iter().map(|argument| argument.as_bytes()).chain([
        b"run".as_slice(),
        b"--bundle",
        stage.as_bytes(),
        name.as_bytes(),
    ]) {
        argv.push(text(argument)?);
    }
    let env = vec![
        text(b"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")?,
        text(b"HOME=/")?,
        text(format!("XDG_RUNTIME_DIR={state}").as_bytes())?,
    ];
    Ok((program, argv, env))
}

fn take_streams(streams: &Streams) -> Result<(), LaunchFailure> {
    rustix::stdio::dup2_stdin(&streams.input).step("pass streams")?;
    rustix::stdio::dup2_stdout(&streams.output).step("pass streams")?;
    rustix::stdio::dup2_stderr(&streams.errors).step("pass streams")?;
    // SAFETY: only sets flags; descriptors stay open until exec. And the default answer to a broken pipe, which this
    // program's own start changed and a program inherits.
    let result = unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
    };
    match result {
        0 => Ok(()),
        _ => Err(syscall::last_errno()).step("close descriptors"),
    }
}
