//! Both session stores keep the promises of the trait; the SQLite one also those about its files.

use greenroom_protocol::client::event::EventBody;
use greenroom_protocol::id::SessionId;
use greenroom_protocol::reference::Digest;
use greenroom_stdx::clock::Clock;
use greenroom_stdx::id::fresh_bits;
use greenroom_store::conformance::{self, fresh_session, titled};
use greenroom_store::failure::StorageFailure;
use greenroom_store::fake::MemorySessionStore;
use greenroom_store::session_log::{AppendError, Batch, Blob, ReadError, SessionStore};
use greenroom_store::sqlite_session_store::{SqliteSessionStore, StoreOptions};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[tokio::test]
async fn the_memory_store_conforms() {
    let clock = Clock::fixed(1_000_000);
    conformance::check(&MemorySessionStore::new(clock.clone()), &clock).await;
}

#[tokio::test]
async fn the_sqlite_store_conforms() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::fixed(1_000_000);
    let options = StoreOptions {
        clock: clock.clone(),
        ..StoreOptions::default()
    };
    let store = SqliteSessionStore::open(dir.path(), options).unwrap();
    conformance::check(&store, &clock).await;
}

/// With one open file and one place in the queue every call closes, opens and waits; nothing else may change.
#[tokio::test]
async fn the_smallest_sqlite_store_conforms() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::fixed(1_000_000);
    let options = StoreOptions {
        writer_threads: 1,
        queue: 1,
        max_open: 1,
        clock: clock.clone(),
        ..StoreOptions::default()
    };
    let store = SqliteSessionStore::open(dir.path(), options).unwrap();
    conformance::check(&store, &clock).await;
}

pub fn file_of(dir: &Path, session: &SessionId) -> PathBuf {
    let id = session.as_str();
    dir.join(&id[id.len() - 2..]).join(id).join("session.db")
}

fn open(dir: &Path) -> SqliteSessionStore {
    SqliteSessionStore::open(dir, StoreOptions::default()).unwrap()
}

#[tokio::test]
async fn a_reopened_store_has_everything_and_larger_epochs() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (session, epoch) = fresh_session(&store).await;
    store.append(&session, epoch, 0, titled("a")).await.unwrap();
    drop(store);
    assert!(
        !file_of(dir.path(), &session)
            .with_file_name("session.db-wal")
            .exists(),
        "an orderly end leaves no log behind"
    );
    let store = open(dir.path());
    assert_eq!(store.last_seq(&session).await.unwrap(), 1);
    let lease = store
        .acquire(&session, "suite", std::time::Duration::from_secs(1))
        .await
        .unwrap();
    assert!(lease.epoch > epoch);
    assert!(matches!(
        store.append(&session, epoch, 1, titled("b")).await,
        Err(AppendError::Fenced)
    ));
    assert_eq!(
        store.append(&session, lease.epoch, 0, titled("a")).await.unwrap(),
        1,
        "idempotency survives"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_sessions_append_at_once_with_few_open_files() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions {
        max_open: 4,
        ..StoreOptions::default()
    };
    let store = Arc::new(SqliteSessionStore::open(dir.path(), options).unwrap());
    let mut writers = Vec::new();
    for _ in 0..24 {
        let store = Arc::clone(&store);
        writers.push(tokio::spawn(async move {
            let (session, epoch) = fresh_session(&*store).await;
            for seq in 0..20 {
                let title = format!("{session} {seq}");
                assert_eq!(
                    store.append(&session, epoch, seq, titled(&title)).await.unwrap(),
                    seq + 1
                );
            }
            session
        }));
    }
    for writer in writers {
        let session = writer.await.unwrap();
        let titles: Vec<EventBody> = (0..20)
            .map(|seq| EventBody::SessionTitled {
                title: format!("{session} {seq}"),
                by: None,
            })
            .collect();
        let events = store.read(&session, 0, 100).await.unwrap();
        assert_eq!(
            events.into_iter().map(|event| event.body).collect::<Vec<_>>(),
            titles
        );
    }
    let open = fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|fd| fs::read_link(fd.ok()?.path()).ok())
        .filter(|target| target.starts_with(dir.path()) && target.ends_with("session.db"))
        .count();
    // One more may be open per thread that is at work.
    assert!(open <= 4 + 4, "{open} session files are open");
}

/// A caller that sends several appends without waiting for each gets them stored in its order.
#[tokio::test]
async fn pipelined_appends_keep_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (session, epoch) = fresh_session(&store).await;
    let (first, second, third) = tokio::join!(
        store.append(&session, epoch, 0, titled("1")),
        store.append(&session, epoch, 1, titled("2")),
        store.append(&session, epoch, 2, titled("3")),
    );
    assert_eq!((first.unwrap(), second.unwrap(), third.unwrap()), (1, 2, 3));
}

/// Damages a session with `damage` while no store is open, then checks that this is reported and kept apart.
async fn check_damage(what: &str, damage: impl FnOnce(&Path)) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (hurt, hurt_epoch) = fresh_session(&store).await;
    let (well, well_epoch) = fresh_session(&store).await;
    for (session, epoch) in [(&hurt, hurt_epoch), (&well, well_epoch)] {
        let batch = Batch {
            events: (0..200)
                .map(|n| EventBody::SessionTitled {
                    title: format!("{n} {}", "x".repeat(200)),
                    by: None,
                })
                .collect(),
            ..Batch::default()
        };
        store.append(session, epoch, 0, batch).await.unwrap();
    }
    drop(store);
    damage(&file_of(dir.path(), &hurt));

    let store = open(dir.path());
    let error = store.read(&hurt, 0, 1000).await.expect_err(what);
    assert!(
        matches!(error, ReadError::Io(StorageFailure::Corrupt { .. })),
        "{what}: {error:?}"
    );
    assert_eq!(error.problem().code, "session_corrupt", "{what}");
    match store.append(&hurt, hurt_epoch, 200, titled("x")).await {
        Err(AppendError::Io(StorageFailure::Corrupt {
            moved_to: Some(moved_to),
        })) => {
            assert!(moved_to.exists(), "{what}: the damaged file is kept");
            assert!(!file_of(dir.path(), &hurt).exists(), "{what}: and out of the way");
        }
        other => panic!("{what}: {other:?}"),
    }
    assert!(
        store.create(&hurt).await.is_err(),
        "{what}: a damaged session is not silently begun anew"
    );
    assert_eq!(
        store
            .append(&well, well_epoch, 200, titled("fine"))
            .await
            .unwrap(),
        201,
        "{what}: others go on"
    );
    store.remove(&hurt).await.unwrap();
    store
        .create(&hurt)
        .await
        .expect("after removal the id is free again");
}

#[tokio::test]
async fn a_damaged_attachment_is_lost_alone_and_found_by_verify() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (session, epoch) = fresh_session(&store).await;
    let blob = |byte: u8| Blob {
        media_type: "image/png".to_owned(),
        bytes: vec![byte; 50_000],
    };
    let put = store.put_blobs(&session, vec![blob(1), blob(2)], u64::MAX).await;
    let [hurt, well] = put.unwrap().try_into().unwrap();
    drop(store);
    let damage = |name: &Digest| {
        let file = rusqlite::Connection::open(file_of(dir.path(), &session)).unwrap();
        let zeros = "UPDATE blobs SET bytes = zeroblob(50000) WHERE digest = ?1";
        assert_eq!(file.execute(zeros, [name.as_str()]).unwrap(), 1);
    };
    damage(&hurt);
    let store = open(dir.path());
    assert_eq!(store.blob(&session, &hurt).await.unwrap(), None);
    assert_eq!(store.blob(&session, &well).await.unwrap(), Some(blob(2)));
    assert_eq!(store.append(&session, epoch, 0, titled("fine")).await.unwrap(), 1);
    // Whoever has it brings it back, in its own room.
    let mended = store.put_blobs(&session, vec![blob(1)], 100_000).await.unwrap();
    assert_eq!(mended, std::slice::from_ref(&hurt));
    assert_eq!(store.blob(&session, &hurt).await.unwrap(), Some(blob(1)));
    drop(store);
    damage(&hurt);
    let store = open(dir.path());
    let error = store.verify(&session).await.unwrap_err();
    assert!(
        matches!(error, ReadError::Io(StorageFailure::Corrupt { .. })),
        "{error:?}"
    );
}

#[tokio::test]
async fn damaged_files_are_moved_aside_and_others_go_on() {
    check_damage("no database", |path| {
        fs::write(path, b"this is not a database").unwrap()
    })
    .await;
    check_damage("emptied", |path| fs::write(path, b"").unwrap()).await;
    check_damage("cut", |path| {
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    })
    .await;
    check_damage("overwritten page", |path| {
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        let middle = file.metadata().unwrap().len() / 8192 * 4096;
        file.write_all_at(&[0xff; 4096], middle).unwrap();
    })
    .await;
    check_damage("another kind of database", |path| {
        fs::remove_file(path).unwrap();
        let other = rusqlite::Connection::open(path).unwrap();
        other.execute_batch("CREATE TABLE t (x)").unwrap();
    })
    .await;
    check_damage("a missing event", |path| {
        let file = rusqlite::Connection::open(path).unwrap();
        file.execute("DELETE FROM events WHERE seq = 100", []).unwrap();
    })
    .await;
    check_damage("an event that is no event", |path| {
        let file = rusqlite::Connection::open(path).unwrap();
        file.execute("UPDATE events SET body = '{' WHERE seq = 100", [])
            .unwrap();
    })
    .await;
}

#[tokio::test]
async fn damage_in_a_large_file_is_found_by_verify() {
    let dir = tempfile::tempdir().unwrap();
    let options = || StoreOptions {
        check_on_open_max_bytes: 0,
        ..StoreOptions::default()
    };
    let store = SqliteSessionStore::open(dir.path(), options()).unwrap();
    let (session, epoch) = fresh_session(&store).await;
    let batch = Batch {
        events: (0..100)
            .map(|_| EventBody::SessionTitled {
                title: "x".repeat(1000),
                by: None,
            })
            .collect(),
        ..Batch::default()
    };
    store.append(&session, epoch, 0, batch).await.unwrap();
    store.verify(&session).await.unwrap();
    drop(store);
    let path = file_of(dir.path(), &session);
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let middle = file.metadata().unwrap().len() / 8192 * 4096;
    file.write_all_at(&[0xff; 4096], middle).unwrap();
    let store = SqliteSessionStore::open(dir.path(), options()).unwrap();
    store.read(&session, 0, 1).await.expect("the first page is whole");
    assert!(matches!(
        store.verify(&session).await,
        Err(ReadError::Io(StorageFailure::Corrupt { .. }))
    ));
    assert!(!path.exists());
}

#[tokio::test]
async fn a_file_from_the_future_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (session, epoch) = fresh_session(&store).await;
    store.append(&session, epoch, 0, titled("x")).await.unwrap();
    drop(store);
    let path = file_of(dir.path(), &session);
    let set_version = |version: i64| {
        rusqlite::Connection::open(&path)
            .unwrap()
            .pragma_update(None, "user_version", version)
            .unwrap();
    };
    let known: i64 = rusqlite::Connection::open(&path)
        .unwrap()
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .unwrap();
    set_version(known + 1);
    let store = open(dir.path());
    let error = store.last_seq(&session).await.unwrap_err();
    assert_eq!(error.problem().code, "schema_too_new");
    drop(store);
    set_version(known);
    assert_eq!(open(dir.path()).last_seq(&session).await.unwrap(), 1);
}

#[tokio::test]
async fn a_creation_cut_short_is_begun_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let session = SessionId::from_bits(fresh_bits());
    let path = file_of(dir.path(), &session);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path.with_file_name("new.db"), b"half a file").unwrap();
    assert!(matches!(store.last_seq(&session).await, Err(ReadError::Unknown)));
    store.create(&session).await.unwrap();
    assert_eq!(store.last_seq(&session).await.unwrap(), 0);
}
