//! Listing whole trees, and watching them.

use crate::world::{PATIENCE, World, assert_code, eventually, sh, shell};
use greenroom_host::{Changes, Sandbox};
use greenroom_protocol::guest::call::{
    Call, CallErrorCode, ChangeKind, Entry, EntryKind, Exec, Reply, Scope, Walk,
};
use std::collections::{BTreeMap, BTreeSet};
use tokio::time::timeout;

crate::scenarios_on_each_kernel!(
    a_walk_lists_everything_in_order,
    a_walk_goes_on_where_a_page_ended,
    a_walk_gets_past_what_vanishes,
    changes_are_reported_once,
    new_directories_are_watched,
    noise_is_left_out,
    a_flood_of_changes_is_bounded,
    the_end_of_a_directory_ends_its_watching,
);

fn everything(after: Option<String>, max_entries: u32) -> Walk {
    Walk {
        path: String::new(),
        scope: Scope::Workspace,
        respects_ignore_files: true,
        after,
        max_entries,
    }
}

async fn walk(sandbox: &Sandbox, walk: Walk) -> (Vec<Entry>, bool) {
    match sandbox.call(Call::Walk(walk)).await.unwrap() {
        Reply::Entries {
            entries,
            is_truncated,
        } => (entries, is_truncated),
        other => panic!("{other:?}"),
    }
}

fn names(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.name.as_str()).collect()
}

async fn a_walk_lists_everything_in_order(world: &World) {
    let sandbox = world.start().await;
    sh(
        &sandbox,
        "mkdir -p a/b target .git; echo 12345 > a/b/c; touch a.txt a/z .hidden target/out .git/HEAD; echo target > .gitignore; \
         ln -s a/b link; mkfifo pipe; chmod +x a/z; mkdir closed; touch closed/secret; chmod 0 closed",
    )
    .await
    .ok();
    let (entries, is_truncated) = walk(&sandbox, everything(None, 100)).await;
    assert!(!is_truncated);
    assert_eq!(
        names(&entries),
        [
            ".gitignore",
            ".hidden",
            "a",
            "a/b",
            "a/b/c",
            "a/z",
            "a.txt",
            "closed",
            "link",
            "pipe"
        ]
    );
    let kinds: Vec<_> = entries
        .iter()
        .map(|entry| (entry.kind, entry.is_executable))
        .collect();
    assert_eq!(kinds[4], (EntryKind::File, false));
    assert_eq!(entries[4].size_bytes, 6);
    assert_eq!(kinds[5], (EntryKind::File, true));
    assert_eq!(kinds[8], (EntryKind::Symlink, false));
    assert_eq!(entries[8].link_target.as_deref(), Some("a/b"));
    assert_eq!(kinds[9], (EntryKind::Other, false));
    let (entries, _) = walk(
        &sandbox,
        Walk {
            respects_ignore_files: false,
            ..everything(None, 100)
        },
    )
    .await;
    assert!(names(&entries).contains(&"target/out") && names(&entries).contains(&".git/HEAD"));
    for (path, expected) in [
        ("a.txt", CallErrorCode::NotDirectory),
        ("missing", CallErrorCode::NotFound),
        ("..", CallErrorCode::OutsideWorkspace),
    ] {
        let asked = Walk {
            path: path.to_owned(),
            ..everything(None, 10)
        };
        assert_code(sandbox.call(Call::Walk(asked)).await, expected);
    }
    sh(&sandbox, "chmod 755 closed").await.ok();
}

async fn a_walk_goes_on_where_a_page_ended(world: &World) {
    let sandbox = world.start().await;
    // Names around the slash in order, names that are not UTF-8, and enough for several frames.
    sh(
        &sandbox,
        "python3 - <<'EOF'\nimport os\nfor d in [b'a',b'a-',b'a!',b'a.b',b'\\xff',b'\\xc3\\xa9']:\n os.makedirs(d+b'/'+b'n'*200)\n\
         \x20for i in range(300): open(d+b'/'+b'n'*200+b'/'+str(i).encode(),'w')\nEOF",
    )
    .await
    .ok();
    let mut all = Vec::new();
    let mut pages = 0;
    loop {
        let after = all.last().map(|entry: &Entry| entry.name.clone());
        let (entries, is_truncated) = walk(&sandbox, everything(after, 10_000)).await;
        assert!(!entries.is_empty() || !is_truncated);
        all.extend(entries);
        pages += 1;
        if !is_truncated {
            break;
        }
    }
    assert!(pages > 1, "one frame does not hold it all");
    let mut found = names(&all);
    assert_eq!(found.len(), 6 * 302);
    found.sort_unstable();
    found.dedup();
    assert_eq!(found.len(), 6 * 302, "nothing twice");
}

async fn a_walk_gets_past_what_vanishes(world: &World) {
    let sandbox = world.start().await;
    sh(&sandbox, "mkdir -p a z; touch a/kept z/kept").await.ok();
    let churn = Exec {
        is_background: true,
        ..shell("while :; do mkdir -p m/n/o m/p; touch m/n/file m/n/o/file m/p/file; rm -r m; done")
    };
    sandbox.spawn(churn).await.unwrap();
    let mut sizes = BTreeSet::new();
    // Until something was half there, which says that there was a race.
    eventually("a tree is seen on its way", async || {
        for respects_ignore_files in [true, false] {
            let asked = Walk {
                respects_ignore_files,
                ..everything(None, 100)
            };
            let (entries, is_truncated) = walk(&sandbox, asked).await;
            let names = names(&entries);
            assert!(!is_truncated);
            for kept in ["a", "a/kept", "z", "z/kept"] {
                assert!(names.contains(&kept), "{kept} of {names:?}");
            }
            sizes.insert(names.len());
        }
        (sizes.len() > 3).then_some(())
    })
    .await;
}

/// Gathers changes until `is_enough`.
async fn gather(
    changes: &mut Changes,
    is_enough: impl Fn(&BTreeMap<String, Vec<ChangeKind>>) -> bool,
) -> BTreeMap<String, Vec<ChangeKind>> {
    let mut seen: BTreeMap<String, Vec<ChangeKind>> = BTreeMap::new();
    while !is_enough(&seen) {
        let batch = timeout(PATIENCE, changes.next())
            .await
            .unwrap_or_else(|_| panic!("no more changes after {seen:?}"))
            .unwrap()
            .expect("goes on");
        assert!(!batch.is_incomplete);
        for change in batch.changes {
            seen.entry(change.path).or_default().push(change.kind);
        }
    }
    seen
}

async fn changes_are_reported_once(world: &World) {
    use ChangeKind::{Created, Modified, Removed};
    let sandbox = world.start().await;
    sh(
        &sandbox,
        "mkdir -p src; echo a > src/kept; echo b > src/gone; echo c > moved",
    )
    .await
    .ok();
    let mut changes = sandbox.watch("", Scope::Workspace).await.unwrap();
    sh(
        &sandbox,
        "echo more >> src/kept; rm src/gone; mv moved there; echo x > brief; rm brief; echo y > new; echo z >> new; chmod +x src/kept; touch last",
    )
    .await
    .ok();
    let seen = gather(&mut changes, |seen| seen.contains_key("last")).await;
    let last: Vec<_> = seen
        .iter()
        .map(|(path, kinds)| (path.as_str(), *kinds.last().unwrap()))
        .filter(|(path, _)| *path != "brief")
        .collect();
    assert_eq!(
        last,
        [
            ("last", Created),
            ("moved", Removed),
            ("new", *seen["new"].last().unwrap()),
            ("src/gone", Removed),
            ("src/kept", Modified),
            ("there", Created)
        ]
    );
    // Made and removed between two batches, or told as both.
    assert!(seen.get("brief").is_none_or(|kinds| kinds.ends_with(&[Removed])));
    // A file that the host replaces shows without its draft.
    sandbox
        .write_file("src/kept", Scope::Workspace, b"whole".to_vec())
        .await
        .unwrap();
    let mut seen = gather(&mut changes, |seen| seen.contains_key("src/kept")).await;
    // `touch` closes the file after it made it, which may be told in a batch of its own.
    seen.remove("last");
    assert_eq!(seen.into_keys().collect::<Vec<_>>(), ["src/kept"]);
    // Watchers are ended by dropping them, and many may come and go.
    drop(changes);
    for _ in 0..300 {
        drop(sandbox.watch("", Scope::Workspace).await);
    }
    eventually("a watcher may come again", async || {
        sandbox.watch("", Scope::Workspace).await.ok()
    })
    .await;
    for (path, expected) in [
        ("new", CallErrorCode::NotDirectory),
        ("missing", CallErrorCode::NotFound),
        ("..", CallErrorCode::OutsideWorkspace),
    ] {
        assert_code(sandbox.watch(path, Scope::Workspace).await.map(drop), expected);
    }
}

async fn new_directories_are_watched(world: &World) {
    let sandbox = world.start().await;
    let mut changes = sandbox.watch("", Scope::Workspace).await.unwrap();
    sh(
        &sandbox,
        "for i in 1 2 3 4 5 6 7 8 9; do mkdir -p t$i/a/b/c; echo x > t$i/a/b/c/file; done",
    )
    .await
    .ok();
    let is_all = |seen: &BTreeMap<String, Vec<ChangeKind>>| {
        (1..=9).all(|number| seen.contains_key(&format!("t{number}/a/b/c/file")))
    };
    gather(&mut changes, is_all).await;
    // Also after a move, under the new name and not the old one.
    sh(&sandbox, "mv t1 moved").await.ok();
    gather(&mut changes, |seen| seen.contains_key("moved/a/b/c/file")).await;
    sh(&sandbox, "echo y >> moved/a/b/c/file; touch moved/a/b/c/last")
        .await
        .ok();
    let seen = gather(&mut changes, |seen| seen.contains_key("moved/a/b/c/last")).await;
    assert!(!seen.keys().any(|path| path.starts_with("t1")), "{seen:?}");
}

async fn noise_is_left_out(world: &World) {
    let sandbox = world.start().await;
    sh(&sandbox, "mkdir -p target/deep .git; echo target > .gitignore")
        .await
        .ok();
    let mut changes = sandbox.watch("", Scope::Workspace).await.unwrap();
    sh(
        &sandbox,
        "touch target/deep/out target/out .git/index; mkdir .git/new; git init -q sub; touch sub/.git/x; touch last",
    )
    .await
    .ok();
    let seen = gather(&mut changes, |seen| seen.contains_key("last")).await;
    assert_eq!(
        seen.keys().map(String::as_str).collect::<Vec<_>>(),
        ["last", "sub"]
    );
}

async fn a_flood_of_changes_is_bounded(world: &World) {
    let sandbox = world.start().await;
    sh(&sandbox, "mkdir d; for i in $(seq 50); do mkdir d/$i; done")
        .await
        .ok();
    let mut changes = sandbox.watch("", Scope::Workspace).await.unwrap();
    // Far more than the kernel's queue, the guest's memory and the window hold while nobody reads.
    sh(
        &sandbox,
        "python3 - <<'EOF'\nfor r in range(2):\n for i in range(1,51):\n  for j in range(400):\n   open(f'd/{i}/{r}-{j}-'+'n'*150,'w').write('x')\nEOF",
    )
    .await
    .ok();
    assert_eq!(sh(&sandbox, "echo alive").await.ok(), "alive\n");
    let mut is_incomplete = false;
    let mut told = 0;
    while !is_incomplete {
        let batch = timeout(PATIENCE, changes.next())
            .await
            .expect("in time")
            .unwrap()
            .unwrap();
        is_incomplete = batch.is_incomplete;
        told += batch.changes.len();
    }
    assert!(told < 40_000, "something was lost, and said to be");
    // It goes on watching.
    sh(&sandbox, "touch last").await.ok();
    loop {
        let batch = timeout(PATIENCE, changes.next())
            .await
            .expect("in time")
            .unwrap()
            .unwrap();
        if batch.changes.iter().any(|change| change.path == "last") {
            break;
        }
    }
}

async fn the_end_of_a_directory_ends_its_watching(world: &World) {
    let sandbox = world.start().await;
    for end in ["rm -r watched", "mv watched away"] {
        sh(&sandbox, "mkdir -p watched; touch watched/file").await.ok();
        let mut changes = sandbox.watch("watched", Scope::Workspace).await.unwrap();
        sh(&sandbox, end).await.ok();
        let ended = timeout(PATIENCE, async {
            let mut is_incomplete = false;
            while let Some(batch) = changes.next().await.unwrap() {
                is_incomplete |= batch.is_incomplete;
            }
            is_incomplete
        });
        assert!(ended.await.expect("in time"), "{end}");
        sh(&sandbox, "rm -rf watched away").await.ok();
    }
}
