//! Snapshots of sandboxes that run and that do not, and sandboxes that begin with them.

use crate::world::{World, eventually, fresh_id, is_root, open, sh, shell};
use greenroom_host::{HostError, Limits, Sandbox, Snapshot, StartSandbox};
use greenroom_images::{ImageStore, Owner, Programs};
use greenroom_protocol::guest::call::{Exec, LimitKind};
use greenroom_protocol::id::{SandboxId, SnapshotId};
use std::path::PathBuf;

/// What depends on how the root is mounted and programs are stopped.
mod everywhere {
    use super::{one_that_runs_is_copied_and_goes_on, one_that_stopped_goes_on_and_others_begin_with_it};
    crate::scenarios_everywhere!(
        one_that_stopped_goes_on_and_others_begin_with_it,
        one_that_runs_is_copied_and_goes_on,
    );
}

crate::scenarios!(
    what_was_removed_stays_removed,
    layers_pile_up,
    a_copy_is_of_one_moment,
    copies_share_what_did_not_change,
    what_is_mapped_is_copied_as_it_is,
    closed_and_odd_files_are_copied,
    forks_are_independent,
    layers_live_as_long_as_they_are_needed,
    what_lies_in_layers_counts_against_the_limit,
    a_sealing_that_was_killed_did_not_happen,
    unusable_ones_are_forgotten,
    what_a_killed_host_held_goes_on,
    starts_and_snapshots_of_one_sandbox_take_turns,
    wrong_ones_are_refused,
);

/// Everything that a program can see of a tree: kinds, modes, sizes, links, times, contents.
const DESCRIBE: &str = "cd /workspace && find . -printf '%p %y %m %n %l %T@\\n' | sort && \
     find . -type f -readable -exec sha256sum {} + | sort";

/// The same but for what changes in every round of a test.
const DESCRIBE_STEADY: &str = "cd /workspace && find . ! -name 'only-*' ! -name log ! -name hard ! -path . -printf '%p %y %m %l %T@\\n' | sort && \
     find . -type f ! -name 'only-*' ! -name log ! -name hard -exec sha256sum {} + | sort";

impl World {
    async fn started_from(&self, snapshot: &Snapshot) -> Sandbox {
        self.host
            .start(self.from(&fresh_id(), &snapshot.id))
            .await
            .unwrap()
    }

    fn from(&self, id: &SandboxId, snapshot: &SnapshotId) -> StartSandbox {
        StartSandbox {
            from: Some(snapshot.clone()),
            ..self.plain(id)
        }
    }

    async fn stop_and_take(&self, sandbox: &Sandbox) -> Snapshot {
        self.host.stop(sandbox.id()).await.unwrap();
        self.take(sandbox).await
    }

    async fn take(&self, sandbox: &Sandbox) -> Snapshot {
        self.host.snapshot(sandbox.id()).await.unwrap().snapshot
    }

    fn layers(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.state.join("images/layers")).unwrap();
        entries
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_dir())
            .collect()
    }
}

async fn code_of<T: std::fmt::Debug>(result: Result<T, HostError>) -> String {
    result.unwrap_err().problem().code
}

async fn one_that_stopped_goes_on_and_others_begin_with_it(world: &World) {
    // gVisor keeps pipes, and some times, to itself.
    let (describe, pipe) = match world.isolation.has_own_kernel() {
        true => (
            "find . -printf '%p %y %m %l\\n' | sort; cat a/b/file a/hard",
            "true",
        ),
        false => (DESCRIBE, "mkfifo a/pipe"),
    };
    let first = world.start().await;
    let script = "mkdir -p a/b && echo one > a/b/file && chmod 640 a/b/file && ln -s b/file a/link && ln a/b/file a/hard && \
         touch -d @1000000000 a/b/file && echo note > ~/note && chmod 700 ~";
    sh(&first, &format!("{script} && {pipe}")).await.ok();
    let before = sh(&first, describe).await.ok();
    let taken = world.stop_and_take(&first).await;
    assert_eq!(taken.layers.len(), 1);

    let other = world.started_from(&taken).await;
    assert_eq!(sh(&other, describe).await.ok(), before);
    assert_eq!(sh(&other, "cat ~/note; stat -c %a ~").await.ok(), "note\n700\n");
    let again = world.host.start(world.plain(first.id())).await.unwrap();
    assert_eq!(sh(&again, describe).await.ok(), before);

    sh(&other, "echo two > a/b/file; rm a/link").await.ok();
    assert_eq!(
        sh(&again, "cat a/b/file; readlink a/link").await.ok(),
        "one\nb/file\n"
    );
    // What it had goes before what it is told to begin with.
    world.host.stop(other.id()).await.unwrap();
    let empty = world.stop_and_take(&world.start().await).await;
    let back = world.host.start(world.from(other.id(), &empty.id)).await.unwrap();
    assert_eq!(
        sh(&back, "cat a/b/file; ls a | grep -v pipe").await.ok(),
        "two\nb\nhard\n"
    );
}

async fn one_that_runs_is_copied_and_goes_on(world: &World) {
    let first = world.start().await;
    sh(&first, "mkdir d && echo one > d/file && echo note > ~/note")
        .await
        .ok();
    let ticking = first
        .spawn(shell("while :; do echo x >> ticks; sleep 0.01; done"))
        .await
        .unwrap();
    let before = sh(&first, "cat d/file ~/note; stat -c '%Y %a' d/file").await.ok();
    let taken = world.take(&first).await;
    sh(&first, "echo two > d/file").await.ok();
    let other = world.started_from(&taken).await;
    assert_eq!(
        sh(&other, "cat d/file ~/note; stat -c '%Y %a' d/file").await.ok(),
        before
    );
    assert_eq!(sh(&first, "cat d/file").await.ok(), "two\n");
    let size = async || sh(&first, "wc -c < ticks").await.ok();
    let then = size().await;
    eventually("it ticks on", async || (size().await != then).then_some(())).await;
    let _ = ticking;
}

async fn what_was_removed_stays_removed(world: &World) {
    let first = world.start().await;
    sh(
        &first,
        "mkdir -p gone/deep replaced kept && touch gone/deep/x replaced/old kept/a kept/b file",
    )
    .await
    .ok();
    let taken = world.stop_and_take(&first).await;
    let second = world.started_from(&taken).await;
    sh(
        &second,
        "rm -r gone && rm -r replaced && mkdir replaced && touch replaced/new && rm kept/a && rm file && mkdir file",
    )
    .await
    .ok();
    let before = sh(&second, DESCRIBE).await.ok();
    for is_running in [true, false] {
        if !is_running {
            world.host.stop(second.id()).await.unwrap();
        }
        let taken = world.take(&second).await;
        assert_eq!(taken.layers.len(), 2);
        let third = world.started_from(&taken).await;
        assert_eq!(sh(&third, DESCRIBE).await.ok(), before, "running: {is_running}");
    }
}

async fn layers_pile_up(world: &World) {
    let id = fresh_id();
    let mut described = String::new();
    let given = {
        let sandbox = world.start().await;
        sh(
            &sandbox,
            "mkdir -p base/a/b given/x; echo g > given/x/y; echo b > base/a/b/c; touch removed",
        )
        .await
        .ok();
        world.stop_and_take(&sandbox).await
    };
    for round in 0..45 {
        let sandbox = world.host.start(world.from(&id, &given.id)).await.unwrap();
        sh(
            &sandbox,
            &format!(
                "echo {round} >> log; touch only-{round}; rm -f only-{}",
                round - 3
            ),
        )
        .await
        .ok();
        // What one layer is made of, every kind, in different rounds.
        let change = match round {
            3 => "rm removed; ln log hard; mkfifo pipe; mkdir -m 700 closed",
            5 if is_root() && !world.isolation.has_own_kernel() => "mv base/a lifted; mv given given-2",
            7 => "rm -r base; mkdir base; echo new > base/new; touch -d @1600000000 old",
            9 if is_root() && !world.isolation.has_own_kernel() => {
                "echo more > lifted/b/more; mv lifted/b lifted/c"
            }
            11 => "rm pipe; mkdir pipe; rmdir closed; echo file > closed",
            _ => "true",
        };
        sh(&sandbox, change).await.ok();
        if round == 38 {
            described = sh(&sandbox, DESCRIBE_STEADY).await.ok();
        }
        if round > 38 {
            assert_eq!(sh(&sandbox, DESCRIBE_STEADY).await.ok(), described, "{round}");
        }
        let taken = world.stop_and_take(&sandbox).await;
        assert!(taken.layers.len() <= 41, "{}", taken.layers.len());
        assert_eq!(taken.layers.last(), given.layers.last());
    }
    let taken = world.host.snapshot(&id).await.unwrap().snapshot;
    let wanted = [given.id.clone(), taken.id.clone()];
    world.host.retain_snapshots(&wanted).await.unwrap();
    assert!(world.layers().len() <= 12, "{:?}", world.layers());
    let other = world.started_from(&taken).await;
    let lines: String = (0..45).map(|round| format!("{round}\n")).collect();
    assert_eq!(sh(&other, "cat log").await.ok(), lines);
    let expected = match is_root() {
        true => "base\nclosed\ngiven-2\nhard\nlifted\nlog\nold\nonly-42\nonly-43\nonly-44\npipe\n",
        false => "base\nclosed\ngiven\nhard\nlog\nold\nonly-42\nonly-43\nonly-44\npipe\n",
    };
    assert_eq!(sh(&other, "ls").await.ok(), expected);
    if is_root() {
        // Directories of lower layers can be renamed.
        sh(&other, "mkdir d && touch d/x").await.ok();
        let taken = world.stop_and_take(&other).await;
        let third = world.started_from(&taken).await;
        sh(&third, "python3 -c 'import os; os.rename(\"d\", \"e\")'")
            .await
            .ok();
        let taken = world.take(&third).await;
        let fourth = world.started_from(&taken).await;
        assert_eq!(
            sh(&fourth, "ls -d d e e/x; true").await.output.lines().last(),
            Some("e/x")
        );
    }
}

async fn a_copy_is_of_one_moment(world: &World) {
    let first = world.start().await;
    // Files that are there to be copied for a while, and two that are always written in this order.
    let script = "mkdir many; for i in $(seq 300); do head -c 20000 /dev/zero > many/$i; done; echo ready; \
         i=0; while :; do i=$((i+1)); echo $i > left; echo $i > right; \
         rm -f many/$((i % 300)).moved; mv many/$((i % 300)) many/$((i % 300)).moved 2>/dev/null; done";
    first.spawn(shell(script)).await.unwrap();
    eventually("it writes", async || {
        (sh(&first, "cat right").await.exit.code == Some(0)).then_some(())
    })
    .await;
    for _ in 0..5 {
        let taken = world.take(&first).await;
        let other = world.started_from(&taken).await;
        let number = async |name: &str| {
            let text = sh(&other, &format!("cat {name}")).await.ok();
            text.trim().parse::<u64>()
        };
        let (left, right) = (number("left").await, number("right").await);
        // A file may just be empty: it is cut before it is written.
        if let (Ok(left), Ok(right)) = (left, right) {
            assert!(left == right || left == right + 1, "{left} and {right}");
        }
        world.host.remove(other.id()).await.unwrap();
    }
}

async fn copies_share_what_did_not_change(world: &World) {
    let first = world.start().await;
    sh(
        &first,
        "for i in $(seq 20); do head -c 100000 /dev/urandom > file$i; done",
    )
    .await
    .ok();
    // The kernel's clock for files is coarse; what is fresh is not shared.
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    world.take(&first).await;
    sh(&first, "echo changed > file1; mv file2 moved; rm file3")
        .await
        .ok();
    let second = world.take(&first).await;
    let place = world.state.join("images/layers").join(second.layers[0].as_str());
    use std::os::unix::fs::MetadataExt as _;
    let links = |name: &str| std::fs::metadata(place.join("workspace").join(name)).map(|file| file.nlink());
    assert_eq!(links("file1").unwrap(), 1);
    assert_eq!(links("moved").unwrap(), 1);
    assert!(links("file3").is_err());
    assert_eq!(links("file4").unwrap(), 2);
    let before = sh(&first, DESCRIBE).await.ok();
    let other = world.started_from(&second).await;
    assert_eq!(
        sh(&other, DESCRIBE).await.ok().replace(" f 644 2 ", " f 644 1 "),
        before
    );
    // Whoever begins with a copy writes into none of them.
    sh(&other, "echo mine >> file4").await.ok();
    let third = world.started_from(&world.take(&first).await).await;
    assert_eq!(
        sh(&third, DESCRIBE)
            .await
            .ok()
            .replace(" f 644 3 ", " f 644 1 ")
            .replace(" f 644 2 ", " f 644 1 "),
        before
    );
}

async fn closed_and_odd_files_are_copied(world: &World) {
    let first = world.start().await;
    let script = "umask 077; mkdir closed && echo in > closed/file && chmod 000 closed/file && chmod 500 closed && \
         mkdir -p shut/deep && touch shut/deep/x && chmod 000 shut && touch $(printf 'new\\nline\\377') && \
         truncate -s 8G sparse && printf end >> sparse && ln -s /etc/passwd link && mkfifo pipe && \
         python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"socket\")'";
    sh(&first, script).await.ok();
    let taken = world.take(&first).await;
    let other = world.started_from(&taken).await;
    let look = "stat -c '%a %s' closed shut sparse | cut -d' ' -f1 | tr '\\n' ' '; chmod 700 shut closed closed/file; \
         cat closed/file; ls shut/deep; tail -c 3 sparse; du -k sparse | cut -f1; readlink link; test -p pipe && ls | wc -l";
    let expected = sh(&first, &look.replace("wc -l", "grep -vc socket")).await.ok();
    let seen = sh(&other, look).await.ok();
    assert_eq!(seen, expected);
}

async fn forks_are_independent(world: &World) {
    let first = world.start().await;
    sh(&first, "echo base > file; mkdir d; touch d/x").await.ok();
    let taken = world.take(&first).await;
    let starts = (0..8).map(|_| world.host.start(world.from(&fresh_id(), &taken.id)));
    let mut forks = Vec::new();
    for start in starts {
        forks.push(start.await.unwrap());
    }
    for (number, fork) in forks.iter().enumerate() {
        sh(fork, &format!("echo {number} >> file; rm d/x; touch d/{number}"))
            .await
            .ok();
    }
    for (number, fork) in forks.iter().enumerate() {
        let seen = sh(fork, "cat file; ls d").await.ok();
        assert_eq!(seen, format!("base\n{number}\n{number}\n"));
    }
    assert_eq!(sh(&first, "cat file; ls d").await.ok(), "base\nx\n");
}

async fn layers_live_as_long_as_they_are_needed(world: &World) {
    let first = world.start().await;
    sh(&first, "echo one > file").await.ok();
    let taken = world.stop_and_take(&first).await;
    let bytes = world.host.snapshot_bytes(&taken).await.unwrap();
    assert!((4096..1 << 20).contains(&bytes), "{bytes}");
    let other = world.started_from(&taken).await;
    world.host.remove(first.id()).await.unwrap();
    world
        .host
        .remove_snapshots(std::slice::from_ref(&taken.id))
        .await
        .unwrap();
    assert_eq!(world.layers().len(), 1, "a sandbox needs it");
    assert!(world.host.find_snapshot(&taken.id).await.unwrap().is_none());
    assert_eq!(
        code_of(
            world
                .host
                .start(world.from(&fresh_id(), &taken.id))
                .await
                .map(|_| ())
        )
        .await,
        "snapshot_missing"
    );
    assert_eq!(sh(&other, "cat file").await.ok(), "one\n");
    // Another host knows as much.
    let second = open(&world.state).await;
    let wanted = [other.id().clone()];
    second.reap(&wanted).await.unwrap();
    assert_eq!(sh(&other, "cat file").await.ok(), "one\n");
    second.reap(&[]).await.unwrap();
    assert_eq!(world.layers(), Vec::<PathBuf>::new());
}

async fn what_lies_in_layers_counts_against_the_limit(world: &World) {
    let limited = |id: &SandboxId| StartSandbox {
        limits: Limits {
            disk_bytes: 32 << 20,
            ..Limits::default()
        },
        ..world.plain(id)
    };
    let id = fresh_id();
    let sandbox = world.host.start(limited(&id)).await.unwrap();
    sh(&sandbox, "head -c 20000000 /dev/urandom > big").await.ok();
    let taken = world.stop_and_take(&sandbox).await;
    let sandbox = world.host.start(limited(&id)).await.unwrap();
    let used = world.host.usage(&id).await.unwrap().disk_bytes;
    assert!((20_000_000..22_000_000).contains(&used), "{used}");
    // Not twice as much; how soon that is seen depends on who else writes.
    let script = "head -c 20000000 /dev/urandom > more; while :; do head -c 100000 /dev/urandom >> more; sleep 0.01; done";
    let exec = Exec {
        timeout_ms: Some(90_000),
        ..shell(script)
    };
    match crate::world::run_exec(&sandbox, exec).await {
        Ok(ran) => assert!(ran.exit.limits_hit.contains(&LimitKind::Disk), "{ran:?}"),
        // It took far more before it was seen.
        Err(lost) => assert!(lost.to_string().contains("disk"), "{lost}"),
    }
    // Whoever begins with it has as much as anybody else.
    let other = StartSandbox {
        from: Some(taken.id.clone()),
        ..limited(&fresh_id())
    };
    let other = world.host.start(other).await.unwrap();
    sh(&other, "head -c 20000000 /dev/urandom > more; sleep 1")
        .await
        .ok();
}

async fn a_sealing_that_was_killed_did_not_happen(world: &World) {
    let sandbox = world.start().await;
    let id = sandbox.id().clone();
    sh(&sandbox, "echo one > file").await.ok();
    world.stop_and_take(&sandbox).await;
    let sandbox = world.host.start(world.plain(&id)).await.unwrap();
    sh(&sandbox, "echo two > file").await.ok();
    world.host.stop(&id).await.unwrap();
    // As it is after the chain was written and before the layer got its place.
    let path = world.state.join("sb").join(id.as_str()).join("layers.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let missing = greenroom_protocol::id::LayerId::from_bits(1);
    std::fs::write(&path, text.replace("[\"", &format!("[\"{missing}\",\""))).unwrap();
    let again = world.host.start(world.plain(&id)).await.unwrap();
    assert_eq!(sh(&again, "cat file").await.ok(), "two\n");
    world.host.stop(&id).await.unwrap();
    let taken = world.host.snapshot(&id).await.unwrap().snapshot;
    assert_eq!(taken.layers.len(), 2);
    // As it is when the layer has its place and nothing tells of a snapshot.
    world.host.remove_snapshots(&[taken.id]).await.unwrap();
    let again = world.host.start(world.plain(&id)).await.unwrap();
    assert_eq!(sh(&again, "cat file").await.ok(), "two\n");
}

async fn unusable_ones_are_forgotten(world: &World) {
    let sandbox = world.start().await;
    sh(&sandbox, "echo one > file").await.ok();
    let kept = world.take(&sandbox).await;
    eventually("it is on disk for good", async || {
        let found = world.host.find_snapshot(&kept.id).await.unwrap();
        found.filter(|found| found.is_durable)
    })
    .await;
    let records = world.state.join("images/snapshots");
    let write = |id: u128, change: &dyn Fn(&mut Snapshot)| {
        let mut record = Snapshot {
            id: SnapshotId::from_bits(id),
            ..kept.clone()
        };
        change(&mut record);
        let path = records.join(format!("{}.json", record.id));
        std::fs::write(path, serde_json::to_vec(&record).unwrap()).unwrap();
    };
    write(1, &|record| record.boot = "before the power cut".to_owned());
    write(2, &|record| {
        record.layers.push(greenroom_protocol::id::LayerId::from_bits(9));
    });
    std::fs::write(records.join(format!("{}.json", SnapshotId::from_bits(3))), "{").unwrap();
    std::fs::write(records.join("snp_half.json.new"), "").unwrap();
    std::fs::create_dir(world.state.join("images/layers/.new-lyr_half")).unwrap();
    let second = open(&world.state).await;
    let found = second.snapshots().await.unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].id, kept.id);
    assert_eq!(std::fs::read_dir(&records).unwrap().count(), 1);
    assert_eq!(world.layers().len(), 1);
    second.close().await;
}

async fn starts_and_snapshots_of_one_sandbox_take_turns(world: &World) {
    let sandbox = world.start().await;
    let id = sandbox.id().clone();
    for round in 0..10 {
        world.host.stop(&id).await.unwrap();
        let (taken, started) = tokio::join!(world.host.snapshot(&id), world.host.start(world.plain(&id)));
        taken.unwrap();
        let started = started.unwrap();
        sh(&started, &format!("echo {round} >> log")).await.ok();
        let lines: String = (0..=round).map(|round| format!("{round}\n")).collect();
        assert_eq!(sh(&started, "cat log").await.ok(), lines);
    }
}

async fn wrong_ones_are_refused(world: &World) {
    assert_eq!(
        code_of(world.host.snapshot(&fresh_id()).await).await,
        "snapshot_unsupported"
    );
    let missing = SnapshotId::from_bits(7);
    let refused = world.host.start(world.from(&fresh_id(), &missing)).await;
    assert_eq!(code_of(refused.map(|_| ())).await, "snapshot_missing");
    // Its layers are gone: refused before anything is written, so that the sandbox can begin without it.
    let sandbox = world.start().await;
    let taken = world.take(&sandbox).await;
    for layer in world.layers() {
        std::fs::remove_dir_all(layer).unwrap();
    }
    let id = fresh_id();
    let refused = world.host.start(world.from(&id, &taken.id)).await;
    assert_eq!(code_of(refused.map(|_| ())).await, "snapshot_damaged");
    sh(&world.host.start(world.plain(&id)).await.unwrap(), "true")
        .await
        .ok();
    let taken = world.take(&sandbox).await;
    let path = world.state.join(format!("images/snapshots/{}.json", taken.id));
    let other = Snapshot {
        by_root: !taken.by_root,
        ..taken.clone()
    };
    std::fs::write(path, serde_json::to_vec(&other).unwrap()).unwrap();
    let refused = world.host.start(world.from(&fresh_id(), &taken.id)).await;
    assert_eq!(code_of(refused.map(|_| ())).await, "snapshot_other_owner");
}

/// Programs that stand still by themselves when a copy is made.
struct MappedBy(i32);

impl Programs for MappedBy {
    type Held = ();

    fn hold(&self) {}

    fn mapped(&self) -> std::collections::HashSet<u64> {
        greenroom_sandbox::processes::shared_mappings_below(self.0)
    }
}

/// A program that maps files changes them without a change of their time.
async fn what_is_mapped_is_copied_as_it_is(world: &World) {
    let first = world.start().await;
    sh(&first, "head -c 8192 /dev/zero > given").await.ok();
    let given = world.stop_and_take(&first).await;
    let second = world.started_from(&given).await;
    sh(&second, "head -c 8192 /dev/zero > own").await.ok();
    let script = "import mmap, time, os\n\
        maps = [mmap.mmap(os.open(name, os.O_RDWR), 8192) for name in ('given', 'own')]\n\
        number = 0\n\
        while True:\n\
        \x20   number += 1\n\
        \x20   for one in maps: one[0:8] = b'%08d' % number\n\
        \x20   if number == 1: open('ready', 'w').close()\n\
        \x20   while not os.path.exists('go-%d' % number): time.sleep(0.005)\n";
    let exec = Exec {
        argv: ["python3", "-c", script].map(str::to_owned).to_vec(),
        ..Exec::default()
    };
    second.spawn(exec).await.unwrap();
    let mapped = async |number: usize| {
        let look =
            format!("head -c 8 given | grep -q '^0*{number}$' && head -c 8 own | grep -q '^0*{number}$'");
        eventually("it wrote", async || {
            (sh(&second, &look).await.exit.code == Some(0)).then_some(())
        })
        .await;
    };
    let directory = world.state.join("sb").join(second.id().as_str());
    let supervisor = greenroom_sandbox::lock::holder(&directory.join("lock"))
        .unwrap()
        .unwrap();
    let mapped_by = MappedBy(supervisor.as_raw_nonzero().get());
    let store = ImageStore::open(
        &world.state.join("images"),
        &world.state.join("sb"),
        &world.state,
        Owner::current(),
    )
    .unwrap();
    for number in 1..4 {
        mapped(number).await;
        // So that times tell nothing.
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        // Not by the host, which syncs snapshots: after that the kernel notes the time of the next change again.
        let (taken, _) = store.copy(second.id(), &directory, &mapped_by).unwrap();
        sh(&second, &format!("touch go-{number}")).await.ok();
        let copy = world.started_from(&taken).await;
        let seen = sh(&copy, "head -c 8 given; echo; head -c 8 own").await.ok();
        assert_eq!(seen, format!("{number:08}\n{number:08}"));
        world.host.remove(copy.id()).await.unwrap();
    }
}

async fn what_a_killed_host_held_goes_on(world: &World) {
    let sandbox = world.start().await;
    let ticking = "while true; do echo x >> ticks; sleep 0.01; done > /dev/null 2>&1 & echo";
    sh(&sandbox, ticking).await.ok();
    let frozen = world.host.freeze(sandbox.id()).await.unwrap();
    let directory = world.state.join("sb").join(sandbox.id().as_str());
    assert!(directory.join("held").exists());
    // As a kill leaves it: nobody lets go.
    std::mem::forget(frozen);
    let again = open(&world.state).await;
    let found = again
        .find(sandbox.id(), greenroom_host::refuse_routes())
        .await
        .unwrap()
        .unwrap();
    let before = sh(&found, "wc -l < ticks").await.ok();
    eventually("it ticks", async || {
        (sh(&found, "wc -l < ticks").await.ok() != before).then_some(())
    })
    .await;
    assert!(!directory.join("held").exists());
    again.close().await;
}
