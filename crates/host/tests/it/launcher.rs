//! The launcher by itself: odd roots that it must build, and impossible ones of which it must leave nothing.

use crate::world::{World, fresh_id, is_root, sh};
use greenroom_host::refuse_routes;
use greenroom_protocol::id::SandboxId;
use greenroom_sandbox::cgroup::{self, Placement};
use greenroom_sandbox::spec::{LOCK_NAME, LaunchOrders, LaunchReport, LaunchSpec, Limits, Privilege, Root};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

crate::scenarios!(
    many_layers_of_any_name_make_a_root,
    what_cannot_be_built_leaves_nothing,
    a_launcher_that_died_waiting_is_replaced,
);

/// As many as the kernel takes.
const LAYERS: usize = 499;

fn program(world: &World, name: &str) -> PathBuf {
    let mut found = fs::read_dir(world.state.join("bin")).unwrap().flatten();
    found
        .find(|entry| entry.file_name().to_string_lossy().starts_with(name))
        .unwrap()
        .path()
}

fn base(world: &World) -> PathBuf {
    let mut found = fs::read_dir(world.state.join("base")).unwrap().flatten();
    found.next().unwrap().path()
}

fn spec(world: &World, id: &SandboxId, cgroups: Vec<Placement>) -> LaunchSpec {
    let directory = world.state.join("sb").join(id.as_str());
    let (upper, work) = (directory.join("upper"), directory.join("work"));
    for path in [&upper, &work] {
        fs::create_dir_all(path).unwrap();
    }
    LaunchSpec {
        root: Root::Overlay {
            lower: vec![base(world)],
            upper,
            work,
        },
        directory,
        privilege: match is_root() {
            true => Privilege::Root,
            false => Privilege::User,
        },
        read_only: vec!["/usr".into()],
        is_root_open: false,
        user_id: greenroom_sandbox::spec::AGENT_ID,
        guest: program(world, "greenroom-guest"),
        hostname: "sandbox".to_owned(),
        env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
        limits: Limits::default(),
        cgroups,
    }
}

fn launch(world: &World, spec: &LaunchSpec) -> LaunchReport {
    let mut child = Command::new(program(world, "greenroom-launcher"))
        .env("OF_THE_HOST", "not for sandboxes")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let orders = serde_json::to_vec(&LaunchOrders::Namespace(spec.clone())).unwrap();
    child.stdin.take().unwrap().write_all(&orders).unwrap();
    let output = child.wait_with_output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

async fn many_layers_of_any_name_make_a_root(world: &World) {
    let id = fresh_id();
    let mut spec = spec(world, &id, Vec::new());
    // Too long together for any one string that the kernel takes, and with all that separates things in such a string.
    let place = world
        .state
        .join("l")
        .join("with: colon, comma\\ and more ".repeat(8));
    let mut layers: Vec<PathBuf> = (0..LAYERS).map(|number| place.join(number.to_string())).collect();
    for (number, layer) in layers.iter().enumerate() {
        fs::create_dir_all(layer.join("layers")).unwrap();
        fs::write(layer.join(format!("layers/{number}")), "x").unwrap();
        fs::write(layer.join("layers/top"), number.to_string()).unwrap();
    }
    layers.push(base(world));
    if let Root::Overlay { lower, .. } = &mut spec.root {
        *lower = layers;
    }
    let report = launch(world, &spec);
    assert!(matches!(report, LaunchReport::Started { .. }), "{report:?}");
    let sandbox = world.host.find(&id, refuse_routes()).await.unwrap().unwrap();
    let seen = sh(&sandbox, "ls /layers | wc -l; cat /layers/top").await.ok();
    assert_eq!(seen, format!("{}\n0", LAYERS + 1));
    let variables = sh(&sandbox, "env").await.ok();
    assert!(!variables.contains("OF_THE_HOST"), "{variables}");
    let mounts = sh(&sandbox, "cat /proc/self/mountinfo").await.ok();
    assert!(!mounts.contains(&world.state.display().to_string()), "{mounts}");
}

async fn what_cannot_be_built_leaves_nothing(world: &World) {
    let name = format!("greenroom-test-{}", std::process::id());
    let groups = cgroup::prepare(&name);
    type Spoil = fn(&mut LaunchSpec, &Path);
    let cases: [(&str, Spoil); 5] = [
        ("open lower layer", |spec, missing| {
            if let Root::Overlay { lower, .. } = &mut spec.root {
                lower.insert(0, missing.to_owned());
            }
        }),
        ("open upper layer", |spec, _| {
            if let Root::Overlay { upper, .. } = &mut spec.root {
                *upper = "/etc/hostname".into();
            }
        }),
        // The kernel wants two directories.
        ("mount overlay", |spec, _| {
            if let Root::Overlay { upper, work, .. } = &mut spec.root {
                work.clone_from(upper);
            }
        }),
        ("set environment", |spec, _| {
            spec.env.push(("A=B".to_owned(), String::new()));
        }),
        ("copy read-only mounts", |spec, missing| {
            spec.read_only.push(missing.to_owned());
        }),
    ];
    for (step, spoil) in cases {
        let id = fresh_id();
        let placements: Vec<Placement> = groups
            .iter()
            .map(|group| cgroup::below(group, id.as_str()))
            .collect();
        let mut spec = spec(world, &id, placements.clone());
        spoil(&mut spec, &world.state.join("missing"));
        match launch(world, &spec) {
            LaunchReport::Failed(failure) => assert_eq!(failure.step, step, "{failure:?}"),
            report => panic!("{step}: {report:?}"),
        }
        crate::world::eventually("nobody holds its lock", async || {
            greenroom_sandbox::lock::holder(&spec.directory.join(LOCK_NAME))
                .unwrap()
                .is_none()
                .then_some(())
        })
        .await;
        for placement in &placements {
            assert!(!placement.directory.exists(), "{step}: {placement:?} is left");
        }
        assert!(world.host.find(&id, refuse_routes()).await.unwrap().is_none());
    }
    for group in groups {
        fs::remove_dir(&group.directory).unwrap();
    }
}

async fn a_launcher_that_died_waiting_is_replaced(world: &World) {
    let launcher = program(world, "greenroom-launcher");
    let waiting = crate::world::eventually("a launcher waits", async || {
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let pids =
            entries.filter(|entry| fs::read_link(entry.path().join("exe")).is_ok_and(|exe| exe == launcher));
        let numbers: Vec<i32> = pids
            .filter_map(|entry| entry.file_name().to_string_lossy().parse().ok())
            .collect();
        (!numbers.is_empty()).then_some(numbers)
    })
    .await;
    for pid in waiting {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
    let sandbox = world.start().await;
    assert_eq!(sh(&sandbox, "echo alive").await.ok(), "alive\n");
}
