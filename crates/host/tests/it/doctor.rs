//! What `greenroom doctor` says of sandboxes on this machine.

use crate::world::{World, has_group};
use greenroom_host::{Verdict, probe};

crate::scenarios!(the_doctor_says_what_holds_each_limit);

async fn the_doctor_says_what_holds_each_limit(world: &World) {
    let directory = world.state.with_file_name("doctor");
    let findings = probe(&directory, &greenroom_host::MachineConfig::default()).await;
    let find = |name: &str| findings.iter().find(|finding| finding.name == name).expect(name);
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
    assert!(find("privilege").detail.contains(if crate::world::is_root() {
        "root"
    } else {
        "ordinary user"
    }));
    if !findings
        .iter()
        .any(|finding| finding.detail.contains("cgroup v2"))
    {
        eprintln!(
            "SKIPPED-FEATURE: no cgroup v2 with controllers here; its files are only imitated by unit tests"
        );
    }
    // Nothing of it is left.
    let left: Vec<_> = std::fs::read_dir(directory.join("sb")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}
