//! A process that dies at any moment loses nothing it acknowledged. The test runs itself as a child that appends and reports
//! each acknowledged event, and kills it.

use greenroom_protocol::client::event::EventBody;
use greenroom_protocol::id::{PersonId, SessionId};
use greenroom_stdx::id::fresh_bits;
use greenroom_store::conformance::titled;
use greenroom_store::session_log::{Batch, NewReceipt, SessionStore};
use greenroom_store::sqlite_session_store::{SqliteSessionStore, StoreOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const CHILD: &str = "GREENROOM_STORE_CRASH_CHILD";
const SESSION: &str = "GREENROOM_STORE_CRASH_SESSION";
const ROUNDS: u64 = 12;

fn person() -> PersonId {
    PersonId::from_bits(1)
}

fn batch(seq: u64) -> Batch {
    Batch {
        receipts: vec![NewReceipt {
            person: person(),
            key: seq.to_string(),
            digest: "d".into(),
            body: serde_json::json!(seq),
        }],
        ..titled(&format!("{seq} {}", "x".repeat(500)))
    }
}

/// Does nothing unless it is started by the test below.
#[tokio::test]
async fn crash_child() {
    let (Ok(dir), Ok(session)) = (std::env::var(CHILD), std::env::var(SESSION)) else {
        return;
    };
    let session: SessionId = session.parse().unwrap();
    let store = SqliteSessionStore::open(dir, StoreOptions::default()).unwrap();
    let lease = store
        .acquire(&session, "node", Duration::from_secs(60))
        .await
        .unwrap();
    let mut seq = store.last_seq(&session).await.unwrap();
    let mut out = std::io::stdout();
    loop {
        seq = store
            .append(&session, lease.epoch, seq, batch(seq))
            .await
            .unwrap();
        // A newline first: the test harness leaves its own line open.
        write!(out, "\nacknowledged {seq}\n").unwrap();
        out.flush().unwrap();
    }
}

#[tokio::test]
async fn killed_processes_lose_no_acknowledged_event() {
    let dir = tempfile::tempdir().unwrap();
    let session = SessionId::from_bits(fresh_bits());
    open(dir.path()).create(&session).await.unwrap();
    let mut acknowledged = 0;
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::crash_child", "--nocapture", "--test-threads=1"])
            .env(CHILD, dir.path())
            .env(SESSION, session.as_str())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let wanted = acknowledged + 5 + 7 * round;
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut last = None;
        for line in lines.by_ref() {
            if let Some(seq) = line.unwrap().strip_prefix("acknowledged ") {
                last = Some(seq.parse().unwrap());
            }
            if last >= Some(wanted) {
                break;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said before it died counts, too.
        for line in lines.map_while(Result::ok) {
            if let Some(seq) = line
                .strip_prefix("acknowledged ")
                .and_then(|seq| seq.parse().ok())
            {
                last = Some(seq);
            }
        }
        acknowledged = last.expect("the child acknowledged something");
        assert!(acknowledged >= wanted, "the child died by itself");

        let store = open(dir.path());
        store.verify(&session).await.unwrap();
        let last_seq = store.last_seq(&session).await.unwrap();
        assert!(
            last_seq == acknowledged || last_seq == acknowledged + 1,
            "round {round}: {acknowledged} acknowledged, {last_seq} stored"
        );
        let events = store.read(&session, 0, u32::MAX).await.unwrap();
        assert_eq!(events.len() as u64, last_seq);
        for (seq, event) in (0..).zip(&events) {
            assert_eq!(
                event.body,
                EventBody::SessionTitled {
                    title: format!("{seq} {}", "x".repeat(500)),
                    by: None
                }
            );
            let receipt = store
                .receipt(&session, &person(), &seq.to_string())
                .await
                .unwrap();
            assert_eq!(
                receipt.expect("written with its event").body,
                serde_json::json!(seq)
            );
        }
        acknowledged = last_seq;
    }
}

fn open(dir: &Path) -> SqliteSessionStore {
    SqliteSessionStore::open(dir, StoreOptions::default()).unwrap()
}
