//! The probe makes its attempts in a sandbox, where all fail, and on the host itself, where they succeed; so a sandbox that
//! lets one through shows, and an attempt that could never succeed shows too.

use crate::bait::Bait;
use crate::world::{World, fresh_id, is_root, run_exec, shell};
use greenroom_host::{Sandbox, SandboxUser, StartSandbox};
use greenroom_probe::{Outcome, PROGRAM, Proof, Report};
use greenroom_protocol::guest::call::{Exec, Scope};

crate::scenarios_everywhere!(every_attempt_fails);

mod root {
    use super::every_attempt_of_a_root_fails;
    crate::scenarios!(every_attempt_of_a_root_fails);
}

/// Fewer reports mean that the probe itself was stopped.
const LEAST_ATTEMPTS: usize = 150;

/// An attempt that may succeed, and why that is no harm.
struct Difference {
    name: &'static str,
    /// Only for sandboxes started by this kind of user; `None`: any.
    is_root: Option<bool>,
    /// Only where the sandbox has a kernel of its own.
    has_own_kernel: bool,
    reason: &'static str,
}

/// What gVisor lets through, to its own kernel.
const fn gvisor(name: &'static str, reason: &'static str) -> Difference {
    Difference {
        name,
        is_root: None,
        has_own_kernel: true,
        reason,
    }
}

const DIFFERENCES: &[Difference] = &[
    gvisor("open_host_devices", "its /dev/fuse is its own kernel's"),
    gvisor(
        "read_process_map",
        "of the same user's process, in the same sandbox",
    ),
    gvisor(
        "read_process_environment",
        "of the same user's process, in the same sandbox",
    ),
    gvisor(
        "open_process_descriptors",
        "the guest's own, by which a program can break only its own sandbox's link",
    ),
    gvisor("highest_priority", "its scheduler knows no priorities"),
    gvisor(
        "clone3_user",
        "a namespace of its own kernel; its filter cannot answer that the call is absent",
    ),
    gvisor("clone3_mount", "as above"),
    gvisor("set_user_id_file_is_honoured", "of a user without any right"),
    gvisor("hide_from_memory_killer", "the killer of its own kernel"),
];

/// What a sandbox's root does to a root that is its own, and what it is told that it did, and did not.
const PRETENDED: &[&str] = &[
    // Its own.
    "write_usr",
    "change_usr",
    "write_program_of_usr",
    "link_program_of_usr",
    // Over files of its one id only.
    "hold_capabilities",
    // Answered without reaching the kernel.
    "become_root",
    "become_root_group",
    "join_groups",
    "give_file_to_root",
    "raise_capabilities",
];

async fn every_attempt_fails(world: &World) {
    let sandbox = world.start().await;
    every_attempt_of(world, &sandbox, &[]).await;
}

/// In a root that is the agent's own, with the number 0.
async fn every_attempt_of_a_root_fails(world: &World) {
    if let Err(program) = greenroom_testkit::oci::is_possible() {
        eprintln!("SKIPPED-FEATURE: {program} is not installed; the attempts of a root are not made");
        return;
    }
    let path = world.state.with_file_name("root.tar");
    std::fs::write(&path, greenroom_testkit::oci::busybox_root().unwrap().finish()).unwrap();
    let root = world.host.import(&path, 64 << 20).await.unwrap();
    let start = StartSandbox {
        from: Some(root.id),
        user: SandboxUser {
            is_root: true,
            name: None,
        },
        ..world.plain(&fresh_id())
    };
    let sandbox = world.host.start(start).await.unwrap();
    every_attempt_of(world, &sandbox, PRETENDED).await;
}

/// `harmless`: those that may succeed besides.
async fn every_attempt_of(world: &World, sandbox: &Sandbox, harmless: &[&str]) {
    let bait = Bait::new(&world.state, &[1]);
    let neighbour = world.start().await;
    let secret = &bait.target.secret;
    put_probe(&neighbour).await;
    let plant = format!(
        "echo {secret} > /dev/shm/{} && echo {secret} > /workspace/secret",
        bait.target.shared_memory_name
    );
    crate::world::sh(&neighbour, &plant).await.ok();
    let hold = Exec {
        argv: vec!["/workspace/probe".to_owned(), "wait".to_owned(), secret.clone()],
        is_background: true,
        ..shell("")
    };
    neighbour.spawn(hold).await.unwrap();

    let reports = attempt(sandbox, &bait).await;
    let broken: Vec<&Report> = reports
        .iter()
        .filter(|report| match report.outcome {
            Outcome::Refused | Outcome::Unavailable => false,
            Outcome::Succeeded => !is_allowed(world, report) && !harmless.contains(&report.name.as_str()),
            Outcome::Broken => !is_killed_by_filter(world, report),
        })
        .collect();
    assert!(broken.is_empty(), "{}", listed(&broken));
    assert!(reports.len() >= LEAST_ATTEMPTS, "only {} attempts", reports.len());
    for difference in DIFFERENCES {
        assert!(
            reports.iter().any(|report| report.name == difference.name),
            "{} is no attempt any more: {}",
            difference.name,
            difference.reason
        );
    }
    // Nobody was harmed.
    for living in [sandbox, &neighbour] {
        assert_eq!(crate::world::sh(living, "echo alive").await.ok(), "alive\n");
    }
}

pub async fn put_probe(sandbox: &Sandbox) {
    sandbox
        .write_program("/workspace/probe", Scope::Workspace, PROGRAM.to_vec())
        .await
        .unwrap();
}

async fn attempt(sandbox: &Sandbox, bait: &Bait) -> Vec<Report> {
    put_probe(sandbox).await;
    let mut argv = vec!["/workspace/probe".to_owned()];
    argv.extend(bait.arguments());
    let ran = run_exec(sandbox, Exec { argv, ..shell("") }).await.unwrap();
    assert_eq!(ran.exit.code, Some(0), "{ran:?}");
    greenroom_probe::parse(&ran.output).unwrap()
}

/// The filters of OCI runtimes (libseccomp) end who calls through the table of another architecture, with SIGSYS.
fn is_killed_by_filter(world: &World, report: &Report) -> bool {
    world.isolation != crate::world::Isolation::Namespace
        && report.name.ends_with("_by_x32_table")
        && report.detail.ends_with("status 0x1f")
}

fn is_allowed(world: &World, report: &Report) -> bool {
    DIFFERENCES.iter().any(|difference| {
        difference.name == report.name
            && difference.is_root.is_none_or(|wanted| wanted == is_root())
            && (!difference.has_own_kernel || world.isolation.has_own_kernel())
    })
}

fn listed(reports: &[&Report]) -> String {
    reports
        .iter()
        .map(|report| format!("\n  {:?} {}: {}", report.outcome, report.name, report.detail))
        .collect()
}

/// The same program on the host itself, as root: what says that it can be done must do it.
#[test]
fn every_attempt_succeeds_where_nothing_holds_it() {
    if !is_root() {
        eprintln!(
            "SKIPPED-FEATURE: only root can show that the probe's attempts would succeed without a sandbox"
        );
        return;
    }
    let state = tempfile::tempdir_in("/tmp").unwrap();
    let bait = Bait::new(state.path(), &[]);
    // So that a table of sockets has something to show.
    let _listener = std::os::unix::net::UnixListener::bind(state.path().join("guest.sock")).unwrap();
    // A disk that may be read: in a container the real ones may be closed even to root.
    let disk = LoopDevice::attach(&state.path().join("disk"));
    let list = std::process::Command::new(&bait.program)
        .arg("list")
        .output()
        .unwrap();
    let mut names = Vec::new();
    for report in greenroom_probe::parse(&String::from_utf8_lossy(&list.stdout)).unwrap() {
        match &report.proof {
            Proof::Spared { why } => assert!(!why.is_empty(), "{}", report.name),
            Proof::Host | Proof::Capability { .. } => names.push(report.name),
        }
    }
    let output = std::process::Command::new(&bait.program)
        .args(bait.arguments())
        .args(&names)
        .output()
        .unwrap();
    let reports = greenroom_probe::parse(&String::from_utf8_lossy(&output.stdout)).unwrap();
    assert_eq!(reports.len(), names.len());
    let mut failed = Vec::new();
    for report in &reports {
        let is_held_back = match report.proof {
            Proof::Capability { number } => !has_capability(number),
            Proof::Host | Proof::Spared { .. } => false,
        };
        match report.outcome {
            Outcome::Succeeded => {}
            Outcome::Refused if disk.is_none() && report.name.starts_with("read_disk") => {
                eprintln!(
                    "SKIPPED-FEATURE: without a loop device {} proves nothing",
                    report.name
                );
            }
            Outcome::Unavailable => eprintln!(
                "SKIPPED-FEATURE: this machine lacks what the probe's attempt {} is about: {}",
                report.name, report.detail
            ),
            Outcome::Refused if is_held_back => eprintln!(
                "SKIPPED-FEATURE: root lacks a capability to show that {} can succeed: {}",
                report.name, report.detail
            ),
            Outcome::Refused | Outcome::Broken => failed.push(report),
        }
    }
    assert!(failed.is_empty(), "{}", listed(&failed));
}

/// A loop device over a file; gone with this value.
struct LoopDevice(String);

impl LoopDevice {
    fn attach(file: &std::path::Path) -> Option<Self> {
        std::fs::write(file, vec![0x5a; 1 << 20]).unwrap();
        let output = std::process::Command::new("losetup")
            .args(["--find", "--show"])
            .arg(file)
            .output()
            .ok()?;
        let name = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        (output.status.success() && !name.is_empty()).then_some(Self(name))
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = std::process::Command::new("losetup")
            .args(["--detach", &self.0])
            .status();
    }
}

fn has_capability(number: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap() & (1 << number) != 0
}
