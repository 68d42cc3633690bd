//! Tests that files of every released version open with everything in them. What was released is never changed: each migration is known
//! here by its digest, and a new one is added to the list with it.

#![allow(clippy::unwrap_used)]

use crate::catalog::{Catalog, SCHEMA as CATALOG, SessionQuery};
use crate::database::{Missing, Schema, open};
use crate::session_log::{Batch, Blob, IntentAttempt, SessionStore as _, View};
use crate::sqlite_session_store::{SCHEMA as SESSION, SqliteSessionStore, StoreOptions};
use greenroom_protocol::client::event::EventBody;
use greenroom_protocol::id::{PersonId, SandboxId, SessionId};
use rusqlite::Connection;
use std::path::Path;
use std::time::Duration;

/// First bytes of the SHA-256 of each migration of the catalog.
const CATALOG_RELEASED: &[&str] = &[
    "a3aea2c1", "45f8976e", "db16650e", "1f8db2c9", "a2f445bd", "9a743145", "646c7f49", "3ec45ca6",
    "d926d0a1", "8ee0b0af", "d3009c8b",
];
/// The same of sessions' files.
const SESSION_RELEASED: &[&str] = &["fe9feefc", "5be57146", "ec569cb8"];

/// What a catalog of the first version held.
const OLD_CATALOG: &str = "
INSERT INTO people VALUES ('usr_00000000000000000000000001', 'Ada', 'ada@example.com', 1, 1);
INSERT INTO api_tokens VALUES ('tok_00000000000000000000000001', x'01', 'usr_00000000000000000000000001', 'laptop', 2);
INSERT INTO repositories VALUES ('shop', NULL, 3, 'usr_00000000000000000000000001');
INSERT INTO sessions VALUES ('ses_00000000000000000000000001', 'shop', 'running', 5, 4, '{\"id\":\"ses_00000000000000000000000001\",
  \"title\":\"Old\",\"state\":\"running\",\"repository\":\"shop\",\"base_branch\":\"main\",\"branch\":\"greenroom/old\",\"model\":\"m\",
  \"is_scripted\":false,\"created_by\":{\"id\":\"usr_00000000000000000000000001\",\"name\":\"Ada\",\"email\":\"ada@example.com\"},
  \"created_at_ms\":4,\"updated_at_ms\":5,\"last_seq\":4,\"pull_requests\":[]}');
INSERT INTO sandboxes VALUES ('ses_00000000000000000000000001', 'sbx_00000000000000000000000001');
";

/// What a session's file of the first version held.
const OLD_SESSION: &str = "
INSERT INTO lease VALUES (1, 'ses_00000000000000000000000001', 7, NULL, 0);
INSERT INTO events VALUES (1, 10, '{\"type\":\"session.titled\",\"title\":\"Old\"}');
INSERT INTO events VALUES (2, 11, '{\"type\":\"session.told_long_ago\",\"what\":1}');
INSERT INTO journal VALUES (1, 12, 'trn_00000000000000000000000001', '{\"step\":1}');
INSERT INTO receipts VALUES ('usr_00000000000000000000000001', 'key', 13, 'digest', '{\"seq\":1}');
INSERT INTO outbox VALUES (1, 'open', 'pull_request', 'digest', '{}', 14, 2, 15, NULL, 0);
";

fn digests(schema: &Schema) -> Vec<String> {
    let digest = |text: &&str| {
        let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
        digest.as_ref()[..4]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    };
    schema.migrations.iter().map(digest).collect()
}

/// A file as a server of this version left it.
fn file_of_version(path: &Path, schema: &'static Schema, version: usize, contents: &str) {
    let first = Schema {
        application_id: schema.application_id,
        migrations: &schema.migrations[..1],
    };
    let db = open(path, &first, Missing::Create).unwrap();
    db.execute_batch(contents).unwrap();
    drop(db);
    let then = Schema {
        application_id: schema.application_id,
        migrations: &schema.migrations[..version],
    };
    drop(open(path, &then, Missing::Refuse).unwrap());
}

/// Names and definitions of all there is in a file.
fn shape(path: &Path) -> Vec<(String, Option<String>)> {
    let db = Connection::open(path).unwrap();
    let verdict: String = db
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(verdict, "ok");
    let mut query = db
        .prepare("SELECT name, sql FROM sqlite_schema ORDER BY name")
        .unwrap();
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

#[test]
fn migrations_that_were_released_are_never_changed() {
    assert_eq!(digests(&CATALOG), CATALOG_RELEASED, "the catalog's");
    assert_eq!(digests(&SESSION), SESSION_RELEASED, "those of sessions' files");
}

#[tokio::test]
async fn a_catalog_of_every_version_opens_with_what_it_held() {
    let dir = tempfile::tempdir().unwrap();
    let fresh = dir.path().join("fresh.db");
    drop(Catalog::open(&fresh, &dir.path().join("key")).await.unwrap());
    for version in 1..=CATALOG.migrations.len() {
        let path = dir.path().join(format!("{version}.db"));
        file_of_version(&path, &CATALOG, version, OLD_CATALOG);
        let catalog = Catalog::open(&path, &dir.path().join("key")).await.unwrap();
        let (ada, old) = (PersonId::from_bits(1), SessionId::from_bits(1));
        let accounts = catalog.accounts().await.unwrap();
        assert_eq!(accounts.len(), 1, "version {version}");
        assert!(accounts[0].is_owner && accounts[0].person.id == ada);
        assert_eq!(catalog.tokens(&ada).await.unwrap()[0].label, "laptop");
        assert_eq!(catalog.repositories().await.unwrap()[0].name, "shop");
        let session = catalog.session(&old).await.unwrap().unwrap();
        assert_eq!((session.title.as_str(), session.owner().id.clone()), ("Old", ada));
        let listed = catalog.sessions(SessionQuery::default()).await.unwrap();
        assert_eq!(
            listed.sessions,
            std::slice::from_ref(&session),
            "version {version}"
        );
        assert_eq!(
            catalog.unfinished_sessions().await.unwrap(),
            std::slice::from_ref(&old)
        );
        let sandbox = catalog.sandbox(&old).await.unwrap();
        assert_eq!(sandbox, Some(SandboxId::from_bits(1)));
        catalog.put_session(&session).await.unwrap();
        drop(catalog);
        assert_eq!(shape(&path), shape(&fresh), "version {version}");
    }
}

#[tokio::test]
async fn a_session_of_every_version_opens_with_what_it_held() {
    let id = SessionId::from_bits(1);
    for version in 1..=SESSION.migrations.len() {
        let dir = tempfile::tempdir().unwrap();
        let text = id.as_str();
        let place = dir.path().join(&text[text.len() - 2..]).join(text);
        std::fs::create_dir_all(&place).unwrap();
        file_of_version(&place.join("session.db"), &SESSION, version, OLD_SESSION);
        let store = SqliteSessionStore::open(dir.path(), StoreOptions::default()).unwrap();
        let events = store.read(&id, 0, 10).await.unwrap();
        assert_eq!(events.len(), 2, "version {version}");
        assert!(matches!(&events[0].body, EventBody::SessionTitled { title, .. } if title == "Old"));
        assert!(matches!(&events[1].body, EventBody::Unknown(_)), "it is kept");
        assert_eq!(store.journal(&id, 0).await.unwrap()[0].entry["step"], 1);
        let receipt = store.receipt(&id, &PersonId::from_bits(1), "key").await.unwrap();
        assert_eq!(receipt.unwrap().body["seq"], 1);
        let pending = store.outbox_pending(&id).await.unwrap();
        assert_eq!((pending[0].key.as_str(), pending[0].attempts), ("open", 2));
        assert_eq!(store.view(&id, 1, u64::MAX).await.unwrap(), None);
        let lease = store.acquire(&id, "test", Duration::from_secs(9)).await.unwrap();
        assert_eq!(lease.epoch, 8, "epochs go on");
        let batch = Batch {
            events: vec![EventBody::SessionTitled {
                title: "New".into(),
                by: None,
            }],
            attempts: vec![IntentAttempt {
                key: "open".into(),
                next_attempt_at_ms: 99,
            }],
            ..Batch::default()
        };
        assert_eq!(store.append(&id, lease.epoch, 2, batch).await.unwrap(), 3);
        let view = View {
            seq: 3,
            version: 1,
            body: String::new(),
        };
        let blob = Blob {
            media_type: "image/png".to_owned(),
            bytes: b"abc".to_vec(),
        };
        let names = store.put_blobs(&id, vec![blob.clone()], 3).await.unwrap();
        assert_eq!(store.blob(&id, &names[0]).await.unwrap(), Some(blob));
        store.put_view(&id, view.clone()).await.unwrap();
        assert_eq!(store.view(&id, 1, 3).await.unwrap(), Some(view));
        store.verify(&id).await.unwrap();
    }
}
