//! A disk that is full or read-only gives clear errors, loses nothing, and all goes on when it is well again. Needs a small
//! disk: the test runs itself as a child in a user and mount namespace of its own, where it may mount one.

use greenroom_protocol::client::event::EventBody;
use greenroom_protocol::id::SessionId;
use greenroom_stdx::id::fresh_bits;
use greenroom_stdx::secret::Secret;
use greenroom_store::catalog::Catalog;
use greenroom_store::conformance::{fresh_session, titled};
use greenroom_store::data_dir::{DataDir, DataDirError};
use greenroom_store::session_log::{AppendError, Batch, SessionStore};
use greenroom_store::sqlite_session_store::{SqliteSessionStore, StoreOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

const DISK: &str = "GREENROOM_STORE_SMALL_DISK";

/// Starts `child` (a test of this file) with a 4 MiB disk mounted where [`DISK`] says.
fn run_on_small_disk(child: &str) {
    let dir = tempfile::tempdir().unwrap();
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "--"]);
        command
    };
    let mount = "mount -t tmpfs -o size=4m tmpfs \"$0\"";
    let probe = unshare().args(["sh", "-c", mount]).arg(dir.path()).output();
    if !matches!(&probe, Ok(output) if output.status.success()) {
        eprintln!("SKIPPED-FEATURE: full disk: this machine gives no user and mount namespace ({probe:?})");
        return;
    }
    let status = unshare()
        .args(["sh", "-c", &format!("{mount} && exec \"$@\"")])
        .arg(dir.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", child, "--nocapture", "--test-threads=1"])
        .env(DISK, dir.path())
        .status()
        .unwrap();
    assert!(status.success(), "{child} failed, see above");
}

fn small_disk() -> Option<PathBuf> {
    std::env::var_os(DISK).map(PathBuf::from)
}

/// Writes until nothing fits any more.
fn fill(path: &Path) {
    let mut file = std::fs::File::create(path).unwrap();
    while file.write_all(&[7; 4096]).is_ok() {}
}

#[test]
fn a_full_disk_is_survived() {
    run_on_small_disk("disk_full::full_disk_child");
}

#[test]
fn a_read_only_disk_is_survived() {
    run_on_small_disk("disk_full::read_only_disk_child");
}

/// Does nothing unless it is started by a test above.
#[tokio::test]
async fn full_disk_child() {
    let Some(disk) = small_disk() else { return };
    let filler = disk.join("filler");
    let store = SqliteSessionStore::open(disk.join("sessions"), StoreOptions::default()).unwrap();
    let catalog = Catalog::open(&disk.join("catalog.db"), &disk.join("secret.key"))
        .await
        .unwrap();
    catalog.set_secret("before", &Secret::new("v")).await.unwrap();
    let (session, epoch) = fresh_session(&store).await;
    store.append(&session, epoch, 0, titled("before")).await.unwrap();

    for round in 1..=3_u64 {
        fill(&filler);
        let large = |n: u64| Batch {
            events: vec![EventBody::SessionTitled {
                title: format!("{n} {}", "x".repeat(64 * 1024)),
                by: None,
            }],
            ..Batch::default()
        };
        let before = store.last_seq(&session).await.unwrap();
        let (one, two) = tokio::join!(
            store.append(&session, epoch, before, large(1)),
            store.append(&session, epoch, before + 1, large(2)),
        );
        assert!(matches!(one, Err(AppendError::Full)), "{one:?}");
        // The second either shares the failure or finds the first missing.
        assert!(
            matches!(two, Err(AppendError::Full | AppendError::Conflict { .. })),
            "{two:?}"
        );
        assert_eq!(one.unwrap_err().problem().code, "disk_full");
        assert_eq!(store.last_seq(&session).await.unwrap(), before);
        let secret = catalog
            .set_secret("large", &Secret::new("y".repeat(64 * 1024)))
            .await;
        assert_eq!(secret.unwrap_err().problem().code, "disk_full");
        let other = store.create(&SessionId::from_bits(fresh_bits())).await;
        assert_eq!(other.unwrap_err().problem().code, "disk_full");
        assert!(matches!(DataDir::open(&disk), Err(DataDirError::DiskFull { .. })));

        std::fs::remove_file(&filler).unwrap();
        assert_eq!(
            store.append(&session, epoch, before, large(1)).await.unwrap(),
            before + 1,
            "round {round}: it goes on when there is space"
        );
        catalog.set_secret("after", &Secret::new("v")).await.unwrap();
        assert!(catalog.secret("before").await.unwrap().is_some());
        assert!(catalog.secret("large").await.unwrap().is_none());
    }
    store.verify(&session).await.unwrap();
    let events = store.read(&session, 0, 10).await.unwrap();
    assert_eq!(events.len(), 4);
}

/// Does nothing unless it is started by a test above.
#[tokio::test]
async fn read_only_disk_child() {
    let Some(disk) = small_disk() else { return };
    let open = || SqliteSessionStore::open(disk.join("sessions"), StoreOptions::default());
    let remount = |how: &str| {
        let status = Command::new("mount")
            .args(["-o", &format!("remount,bind,{how}")])
            .arg(&disk)
            .status()
            .unwrap();
        assert!(status.success());
    };
    let store = open().unwrap();
    let (session, epoch) = fresh_session(&store).await;
    store.append(&session, epoch, 0, titled("before")).await.unwrap();
    drop(store);

    remount("ro");
    let store = open().unwrap();
    let error = store
        .append(&session, epoch, 1, titled("no"))
        .await
        .expect_err("the disk is read-only");
    assert_eq!(error.problem().code, "disk_read_only", "{error:?}");
    assert!(error.problem().retryable);
    assert!(matches!(
        DataDir::open(&disk),
        Err(DataDirError::NotWritable { .. })
    ));
    remount("rw");
    assert_eq!(store.append(&session, epoch, 1, titled("yes")).await.unwrap(), 2);
}
