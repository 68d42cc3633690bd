//! State directories on a filesystem whose files can share blocks.

use crate::world::{fresh_id, is_root, open, plain, sh};
use std::path::{Path, PathBuf};
use std::process::Command;

const MIB: u64 = 1 << 20;

/// A filesystem in a file, mounted until it is dropped.
struct Mounted {
    place: PathBuf,
    _file: tempfile::TempDir,
}

impl Mounted {
    /// `None`, loudly, if this machine cannot.
    fn new(make: &str, bytes: u64) -> Option<Self> {
        let file = tempfile::Builder::new()
            .prefix("gr-fs-")
            .tempdir_in("/tmp")
            .unwrap();
        let (image, place) = (file.path().join("image"), file.path().join("mount"));
        std::fs::File::create(&image).unwrap().set_len(bytes).unwrap();
        std::fs::create_dir(&place).unwrap();
        let run = |program: &str, arguments: &[&Path]| {
            let output = Command::new(program).args(arguments).output();
            match output {
                Ok(output) if output.status.success() => Ok(()),
                Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
                Err(error) => Err(format!("{program}: {error}")),
            }
        };
        let made = run(make, &[&image]).and_then(|()| run("mount", &[Path::new("-oloop"), &image, &place]));
        match made {
            Ok(()) => Some(Self { place, _file: file }),
            Err(why) => {
                eprintln!(
                    "SKIPPED-FEATURE: no filesystem of {make} can be mounted here, so sharing of blocks is not tested: {why}"
                );
                None
            }
        }
    }

    /// What is taken, when everything is written.
    fn used_bytes(&self) -> u64 {
        let opened = std::fs::File::open(&self.place).unwrap();
        rustix::fs::syncfs(&opened).unwrap();
        let all = rustix::fs::statvfs(&self.place).unwrap();
        (all.f_blocks - all.f_bfree) * all.f_frsize
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: what a failed test left may hold it for a moment.
        let _ = Command::new("umount").arg("-l").arg(&self.place).status();
    }
}

/// A byte changes in a file of 64 MiB before each of four snapshots of a sandbox that runs: where blocks are shared that costs next to
/// nothing, else 64 MiB each.
#[tokio::test]
async fn snapshots_share_blocks_of_files_that_changed() {
    if !is_root() {
        return;
    }
    let Some(mounted) = Mounted::new("mkfs.btrfs", 1024 * MIB) else {
        return;
    };
    let host = open(&mounted.place.join("state")).await;
    let sandbox = host.start(plain(&fresh_id())).await.unwrap();
    sh(&sandbox, "head -c 67108864 /dev/urandom > large; echo 0 > small")
        .await
        .ok();
    let mut taken = vec![host.snapshot(sandbox.id()).await.unwrap().snapshot];
    let before = mounted.used_bytes();
    for round in 1..=4 {
        let change = format!(
            "printf x | dd of=large bs=1 seek=$(({round} * 9999999)) conv=notrunc status=none; echo {round} > small"
        );
        sh(&sandbox, &change).await.ok();
        taken.push(host.snapshot(sandbox.id()).await.unwrap().snapshot);
    }
    let grown = mounted.used_bytes().saturating_sub(before);
    assert!(grown < 16 * MIB, "{} MiB", grown / MIB);
    // Each is of its own moment.
    let sum = "sha256sum < large; cat small";
    let now = sh(&sandbox, sum).await.ok();
    let mut sums = Vec::new();
    for snapshot in &taken {
        let from = greenroom_host::StartSandbox {
            from: Some(snapshot.id.clone()),
            ..plain(&fresh_id())
        };
        let fork = host.start(from).await.unwrap();
        sums.push(sh(&fork, sum).await.ok());
        host.remove(fork.id()).await.unwrap();
    }
    assert_eq!(sums.last(), Some(&now));
    sums.sort();
    sums.dedup();
    assert_eq!(sums.len(), 5);
    host.remove(sandbox.id()).await.unwrap();
    drop(sandbox);
    host.close().await;
}
