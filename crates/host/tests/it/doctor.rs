//! What `greenroom doctor` says of sandboxes on this machine.

use crate::world::{Isolation, World, has_group, is_root};
use greenroom_host::{Finding, Verdict, probe};
use std::os::unix::fs::PermissionsExt as _;

crate::scenarios!(
    the_doctor_says_what_holds_each_limit,
    the_doctor_tries_each_runtime,
    the_doctor_tells_why_a_runtime_does_not_work,
);

/// Tells a test that its `PATH` leads to runtimes that fail.
const INSIDE: &str = "GREENROOM_TEST_FAILING_RUNTIMES";

const RUNTIMES: [(&str, &str); 3] = [
    ("runsc", "backend_oci_runsc"),
    ("crun", "backend_oci_crun"),
    ("runc", "backend_oci_runc"),
];

async fn findings(world: &World) -> Vec<Finding> {
    let directory = world.state.with_file_name("doctor");
    let findings = probe(&directory, &greenroom_host::MachineConfig::default()).await;
    let left: Vec<_> = std::fs::read_dir(directory.join("sb")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    findings
}

fn find<'a>(findings: &'a [Finding], name: &str) -> &'a Finding {
    findings.iter().find(|finding| finding.name == name).expect(name)
}

async fn the_doctor_tries_each_runtime(world: &World) {
    let findings = findings(world).await;
    for (runtime, name) in RUNTIMES {
        let finding = find(&findings, name);
        let (verdict, words) = match Isolation::Oci(runtime).is_possible() {
            false => (Verdict::Unused, "is not installed"),
            true if is_root() || runtime == "crun" => (Verdict::Good, "ran a program"),
            true => (Verdict::Unused, "needs a server that runs as root"),
        };
        assert_eq!(finding.verdict, verdict, "{finding:?}");
        assert!(
            finding.detail.contains(runtime) && finding.detail.contains(words),
            "{finding:?}"
        );
        assert_eq!(finding.hint.is_some(), verdict == Verdict::Unused, "{finding:?}");
    }
}

async fn the_doctor_tells_why_a_runtime_does_not_work(world: &World) {
    if std::env::var_os(INSIDE).is_some() {
        let findings = findings(world).await;
        for ((runtime, name), words) in RUNTIMES
            .into_iter()
            .zip(["no guest", "no luck", "without a word"])
        {
            let words = match is_root() || runtime == "crun" {
                true => words,
                false => "needs a server that runs as root",
            };
            let finding = find(&findings, name);
            assert_eq!(finding.verdict, Verdict::Unused, "{finding:?}");
            assert!(
                finding.detail.contains(words) && finding.hint.is_some(),
                "{finding:?}"
            );
        }
        assert_eq!(find(&findings, "sandbox").verdict, Verdict::Good);
        return;
    }
    let directory = world.state.with_file_name("runtimes");
    std::fs::create_dir(&directory).unwrap();
    for (name, text) in [
        ("runsc", "echo no guest >&2; echo nonsense; sleep 600"),
        ("crun", "echo no luck >&2; exit 1"),
        ("runc", "exit 1"),
    ] {
        let path = directory.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    // By a process of its own, because PATH is the whole process's.
    let user = if is_root() { "as_root" } else { "as_user" };
    let test = format!("doctor::{user}::the_doctor_tells_why_a_runtime_does_not_work");
    let path = format!(
        "{}:{}",
        directory.display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let output = std::process::Command::new("/proc/self/exe")
        .args([&test, "--exact", "--nocapture"])
        .env(INSIDE, "1")
        .env("PATH", path)
        .output()
        .unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

async fn the_doctor_says_what_holds_each_limit(world: &World) {
    let findings = findings(world).await;
    let find = |name: &str| find(&findings, name);
    assert_eq!(find("sandbox").verdict, Verdict::Good, "{findings:?}");
    for (name, controller) in [
        ("limit_memory", "memory"),
        ("limit_processes", "pids"),
        ("limit_cpu", "cpu"),
        ("usage_cpu", "cpuacct"),
    ] {
        let finding = find(name);
        let expected = match has_group(world, controller) {
            true => Verdict::Good,
            false => Verdict::Reduced,
        };
        assert_eq!(finding.verdict, expected, "{finding:?}");
        assert_eq!(
            finding.hint.is_some(),
            expected == Verdict::Reduced,
            "{finding:?}"
        );
    }
    for name in ["limit_disk", "limit_wall_time", "limit_output"] {
        assert_eq!(find(name).verdict, Verdict::Good, "{name}");
    }
    for name in ["limit_open_files", "landlock", "privilege"] {
        assert_ne!(find(name).verdict, Verdict::Missing, "{name}");
    }
    assert!(
        find("privilege")
            .detail
            .contains(if is_root() { "root" } else { "ordinary user" })
    );
    if !findings
        .iter()
        .any(|finding| finding.detail.contains("cgroup v2"))
    {
        eprintln!(
            "SKIPPED-FEATURE: no cgroup v2 with controllers here; its files are only imitated by unit tests"
        );
    }
}
