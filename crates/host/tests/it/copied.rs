//! Sandboxes on a filesystem that cannot be an overlay's upper layer, as inside most containers: the root is copied. Real,
//! by an overlay over /tmp in a mount namespace of the test's own.

use crate::world::{Isolation, World, as_user, fresh_id, is_root, open, run_with, sh};
use greenroom_host::{Limits, MachineConfig, Verdict};
use std::os::fd::AsRawFd as _;

/// Tells a test that /tmp is its own.
const INSIDE: &str = "GREENROOM_TEST_OWN_MOUNTS";

macro_rules! copied {
    ($($module:ident, $who:ident, $isolation:expr;)+) => {$(
        mod $module {
            use crate::world::Isolation;

            #[test]
            fn the_root_is_copied_where_there_can_be_no_overlay() {
                super::$who(stringify!($module), $isolation);
            }
        }
    )+};
}

copied! {
    as_root, by_root, Isolation::Namespace;
    as_user, by_user, Isolation::Namespace;
    crun_as_root, by_root, Isolation::Oci("crun");
    crun_as_user, by_user, Isolation::Oci("crun");
    runc_as_root, by_root, Isolation::Oci("runc");
    runsc_as_root, by_root, Isolation::Oci("runsc");
}

fn by_root(module: &str, isolation: Isolation) {
    if std::env::var_os(INSIDE).is_some() {
        return inside(isolation);
    }
    match (isolation.is_possible(), is_root()) {
        (false, _) => {}
        (true, true) => with_own_mounts(module, &["--mount"], ""),
        (true, false) => eprintln!("SKIPPED-FEATURE: root is needed for sandboxes started by root"),
    }
}

fn by_user(module: &str, isolation: Isolation) {
    if std::env::var_os(INSIDE).is_some() {
        return inside(isolation);
    }
    match (isolation.is_possible(), is_root()) {
        (false, _) => {}
        (true, true) => {
            let name = format!("it::{}", test_of(module));
            as_user(&name, isolation, |_| Box::pin(async {}));
        }
        (true, false) => with_own_mounts(module, &["--user", "--map-root-user", "--mount"], ",userxattr"),
    }
}

fn test_of(module: &str) -> String {
    format!("copied::{module}::the_root_is_copied_where_there_can_be_no_overlay")
}

/// Runs this test once more with an overlay over /tmp.
fn with_own_mounts(module: &str, flags: &[&str], options: &str) {
    let layers = tempfile::Builder::new()
        .prefix("gr-layers-")
        .tempdir_in("/var/tmp")
        .unwrap();
    for name in ["lower", "upper", "work"] {
        std::fs::create_dir(layers.path().join(name)).unwrap();
    }
    // Through a descriptor: its path may be closed to this user, or be below /tmp.
    let program = std::fs::File::open("/proc/self/exe").unwrap();
    rustix::io::fcntl_setfd(&program, rustix::io::FdFlags::empty()).unwrap();
    let script = format!(
        "mount -t overlay -o lowerdir={0}/lower,upperdir={0}/upper,workdir={0}/work{options} none /tmp && \
         exec /proc/self/fd/{1} {2} --exact --nocapture",
        layers.path().display(),
        program.as_raw_fd(),
        test_of(module),
    );
    let output = std::process::Command::new("unshare")
        .args(flags)
        .args(["/bin/sh", "-c", &script])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    // What the kernel made in the work directory belongs to root of the namespace and is closed.
    let _ = std::process::Command::new("chmod")
        .args(["-R", "u+rwx"])
        .arg(layers.path())
        .status();
    assert!(
        output.status.success() && text.contains("1 passed"),
        "with an overlay over /tmp:\n{text}"
    );
    layers.close().unwrap();
}

fn inside(isolation: Isolation) {
    run_with(isolation, |world| Box::pin(a_copied_root(world)));
}

async fn a_copied_root(world: &World) {
    let mut start = world.plain(&fresh_id());
    start.limits = Limits {
        max_file_bytes: 1 << 20,
        ..Limits::default()
    };
    let sandbox = world.host.start(start.clone()).await.unwrap();
    let directory = world.state.join("sb").join(sandbox.id().as_str());
    assert!(directory.join("copy").is_dir(), "the root is a copy");
    assert!(!directory.join("upper").exists());
    sh(
        &sandbox,
        "mkdir -p a/b && echo kept > a/b/file && mv a c && echo mine > ~/note && git init -q repo",
    )
    .await
    .ok();
    let too_large = sh(&sandbox, "head -c 2000000 /dev/zero > large").await;
    assert_ne!(too_large.exit.code, Some(0), "the limits hold: {too_large:?}");
    for script in [
        "cat /etc/shadow",
        "touch /usr/x",
        "ls /proc/1/root/",
        "unshare -U true",
    ] {
        let ran = sh(&sandbox, script).await;
        assert_ne!(ran.exit.code, Some(0), "{script} must fail: {ran:?}");
    }
    world.host.stop(sandbox.id()).await.unwrap();

    // Nor can this filesystem map ids; and the doctor says both.
    let findings =
        greenroom_host::probe(&world.state.with_file_name("doctor"), &MachineConfig::default()).await;
    let is_privileged = greenroom_sandbox::identity::is_privileged();
    for (name, is_reduced, words) in [
        ("sandbox", true, "copied root"),
        ("privilege", is_privileged, "one uid"),
    ] {
        let finding = findings.iter().find(|finding| finding.name == name).unwrap();
        assert_eq!(finding.verdict == Verdict::Reduced, is_reduced, "{finding:?}");
        assert_eq!(finding.detail.contains(words), is_reduced, "{finding:?}");
    }

    let second = open(&world.state).await;
    let again = second.start(start).await.unwrap();
    assert_eq!(sh(&again, "cat c/b/file ~/note").await.ok(), "kept\nmine\n");
    let removed = second.reap(&[]).await.unwrap();
    assert_eq!(removed, [again.id().clone()]);
    assert!(!directory.exists());
}
