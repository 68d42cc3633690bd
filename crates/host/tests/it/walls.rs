//! What a sandbox may write and what of it stays: the mounts, and Landlock behind them.

use crate::world::{World, plain, sh};

crate::scenarios!(
    writes_stay_where_they_may,
    devices_take_no_requests,
    directories_are_renamed_everywhere_and_later,
    memory_is_forgotten_and_files_stay,
);

/// Whether the kernel holds all that these tests look at.
fn has_landlock() -> bool {
    let has = greenroom_sandbox::landlock_version().is_some_and(|version| version >= 6);
    if !has {
        eprintln!("SKIPPED-FEATURE: the kernel's Landlock is missing or older than version 6");
    }
    has
}

async fn writes_stay_where_they_may(world: &World) {
    let sandbox = world.start().await;
    for place in [
        "/workspace",
        "/home/agent",
        "/tmp",
        "/var/tmp",
        "/run",
        "/dev/shm",
    ] {
        let script = format!("cd {place} && mkdir -p d/e && echo 1 > d/e/f && mv d g && rm -r g");
        sh(&sandbox, &script).await.ok();
    }
    // A link is refused between directories that are not allowed the same.
    sh(
        &sandbox,
        "echo 1 > /workspace/one && ln /workspace/one ~/two && mv ~/two /tmp/three",
    )
    .await
    .ok();
    sh(
        &sandbox,
        "echo 7 > /proc/self/oom_score_adj; echo 1 > /dev/null; sleep 9 & kill $!",
    )
    .await
    .ok();
    if !has_landlock() {
        return;
    }
    // In an ordinary user's sandbox all of these belong to the agent; only Landlock stands in the way.
    for script in [
        "touch /x",
        "touch /etc/x",
        "echo other > /etc/hostname",
        "rm /etc/hosts",
        "mkdir /opt/x",
        "mv /srv /srv2",
        "ln -s /tmp /var/lib/x",
        "touch /home/x",
    ] {
        let ran = sh(&sandbox, script).await;
        assert_ne!(ran.exit.code, Some(0), "{script} must fail: {ran:?}");
        assert!(ran.output.contains("denied"), "{script}: {ran:?}");
    }
}

async fn devices_take_no_requests(world: &World) {
    if !has_landlock() {
        return;
    }
    let sandbox = world.start().await;
    let asked = async |device: &str| sh(&sandbox, &format!("stty -F {device} 2>&1 || true")).await.ok();
    assert!(asked("/dev/urandom").await.contains("Permission denied"));
    // These may be asked, and know no such request.
    assert!(asked("/dev/null").await.contains("Inappropriate ioctl"));
    sh(&sandbox, "head -c 8 /dev/urandom > /dev/zero").await.ok();
}

async fn directories_are_renamed_everywhere_and_later(world: &World) {
    let sandbox = world.start().await;
    let id = sandbox.id().clone();
    sh(
        &sandbox,
        "mkdir -p /workspace/a/b ~/a/b && echo 1 > /workspace/a/b/f && echo 2 > ~/a/b/f && \
         mv -T /workspace/a /workspace/c && mv -T ~/a ~/c",
    )
    .await
    .ok();
    // The system call itself: `mv` would copy where it is refused.
    let rename = "perl -e 'rename($ARGV[0], $ARGV[1]) or die \"$!\\n\"'";
    sh(
        &sandbox,
        &format!("{rename} /workspace/c /workspace/d && {rename} ~/c /workspace/e"),
    )
    .await
    .ok();
    world.host.stop(&id).await.unwrap();
    let again = world.host.start(plain(&id)).await.unwrap();
    let script = format!(
        "{rename} /workspace/d /workspace/x && {rename} /workspace/e ~/y && {rename} /workspace/x/b ~/y/z && \
         cat ~/y/b/f ~/y/z/f"
    );
    assert_eq!(sh(&again, &script).await.ok(), "2\n1\n");
}

async fn memory_is_forgotten_and_files_stay(world: &World) {
    let sandbox = world.start().await;
    let id = sandbox.id().clone();
    sh(
        &sandbox,
        "for d in /run /dev/shm /tmp /workspace; do echo 1 > $d/kept; done",
    )
    .await
    .ok();
    let ran = sh(&sandbox, "head -c 20000000 /dev/zero > /run/big").await;
    assert!(ran.output.contains("No space"), "/run is small: {ran:?}");
    world.host.stop(&id).await.unwrap();
    let again = world.host.start(plain(&id)).await.unwrap();
    let left = sh(
        &again,
        "ls -d /run/kept /dev/shm/kept /tmp/kept /workspace/kept 2>/dev/null; true",
    )
    .await;
    assert_eq!(left.ok(), "/tmp/kept\n/workspace/kept\n");
}
