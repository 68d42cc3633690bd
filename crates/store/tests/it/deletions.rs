//! Sessions that are archived and deleted, as the catalog knows them.

use crate::catalog::{open, session};
use greenroom_protocol::client::session::{Session, SessionSnapshot, SessionState};
use greenroom_protocol::id::{SandboxId, SessionId, SnapshotId};
use greenroom_store::catalog::{SearchText, SessionQuery};

#[tokio::test]
async fn a_deleted_session_stays_deleted_whatever_comes_late() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path()).await;
    let owner = catalog.owner().await.unwrap();
    let gone = session(&catalog, 1, "shop", 5).await;
    let stays = session(&catalog, 2, "shop", 5).await;
    let snapshot = |number, of: &Session| SessionSnapshot {
        id: SnapshotId::from_bits(number),
        session_id: of.id.clone(),
        created_at_ms: 1,
        seq: 1,
        size_bytes: 1,
        is_pinned: false,
    };
    let texts = || {
        vec![SearchText {
            part: "title".to_owned(),
            text: "words".to_owned(),
        }]
    };
    for row in [&gone, &stays] {
        catalog.index_session(&row.id, texts(), 3).await.unwrap();
    }
    let sandbox = SandboxId::from_bits(1);
    catalog.claim_sandbox(&gone.id, &sandbox).await.unwrap();
    catalog.put_snapshot(&snapshot(1, &gone)).await.unwrap();
    for _ in 0..2 {
        catalog.delete_session(&gone.id, Some(&owner.id)).await.unwrap();
    }
    // What is to be removed from the disk is still known.
    assert_eq!(
        catalog.unremoved_sessions().await.unwrap(),
        std::slice::from_ref(&gone.id)
    );
    assert_eq!(catalog.sandbox(&gone.id).await.unwrap(), Some(sandbox.clone()));
    assert_eq!(catalog.snapshots(&gone.id).await.unwrap().len(), 1);
    // Late: a row, words, a snapshot and a sandbox.
    catalog.put_session(&gone).await.unwrap();
    catalog.index_session(&gone.id, texts(), 9).await.unwrap();
    assert!(catalog.put_snapshot(&snapshot(2, &gone)).await.is_err());
    catalog.remove_sandbox(&gone.id).await.unwrap();
    assert!(catalog.claim_sandbox(&gone.id, &sandbox).await.is_err());
    assert_eq!(catalog.session(&gone.id).await.unwrap(), None);
    let found = SessionQuery {
        words: Some("words".to_owned()),
        limit: 5,
        ..SessionQuery::default()
    };
    assert_eq!(
        catalog.sessions(found).await.unwrap().sessions,
        std::slice::from_ref(&stays)
    );
    catalog.session_removed(&gone.id).await.unwrap();
    assert!(catalog.unremoved_sessions().await.unwrap().is_empty());
    assert!(catalog.is_deleted(&gone.id).await.unwrap());
    assert!(!catalog.is_deleted(&stays.id).await.unwrap());
}

#[tokio::test]
async fn lists_hold_archived_sessions_only_if_asked_and_old_ones_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path()).await;
    let states = [SessionState::Idle, SessionState::Archived, SessionState::Running];
    for (number, state) in (1..).zip(states) {
        let row = Session {
            state,
            ..session(&catalog, number, "shop", 5).await
        };
        catalog.put_session(&row).await.unwrap();
    }
    let listed = async |is_archived| {
        let query = SessionQuery {
            is_archived,
            limit: 9,
            ..SessionQuery::default()
        };
        let listed = catalog.sessions(query).await.unwrap().sessions;
        listed.into_iter().map(|row| row.state).collect::<Vec<_>>()
    };
    assert_eq!(listed(Some(true)).await, [SessionState::Archived]);
    assert_eq!(
        listed(Some(false)).await,
        [SessionState::Running, SessionState::Idle]
    );
    assert_eq!(listed(None).await.len(), 3);
    // Nothing happened since they were made.
    let (now, before) = (i64::MAX, 0);
    assert_eq!(
        catalog.quiet_sessions(false, now).await.unwrap(),
        [SessionId::from_bits(1)]
    );
    assert_eq!(
        catalog.quiet_sessions(true, now).await.unwrap(),
        [SessionId::from_bits(2)]
    );
    assert!(catalog.quiet_sessions(true, before).await.unwrap().is_empty());
}
