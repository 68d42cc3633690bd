//! What every session store must do, as one suite: call [`check`] with a way to make stores. A failed promise panics with its
//! name; nothing here is for use outside tests.

#![allow(clippy::expect_used, clippy::unwrap_used)]

use crate::session_log::{
    AcquireError, AppendError, Batch, Blob, IntentAttempt, IntentResult, JournalRow, LeaseError,
    MAX_READ_BYTES, NewIntent, NewReceipt, PutBlobError, REMEMBERED_EVENTS, ReadError, Receipt, SessionStore,
    StoreError, View, digest_of,
};
use greenroom_protocol::client::event::EventBody;
use greenroom_protocol::id::{PersonId, SessionId, TurnId};
use greenroom_protocol::reference::Digest;
use greenroom_stdx::clock::Clock;
use greenroom_stdx::id::fresh_bits;
use serde_json::json;
use std::time::Duration;

const TTL: Duration = Duration::from_secs(30);

/// Runs the whole suite against one store whose leases are measured by `clock`, a fixed one. Uses only sessions it makes.
pub async fn check(store: &dyn SessionStore, clock: &Clock) {
    unknown_sessions_are_told_apart(store).await;
    creating_twice_keeps_what_is_there(store).await;
    leases_exclude_others_until_they_end(store, clock).await;
    only_the_newest_epoch_appends(store).await;
    events_are_numbered_without_gaps(store).await;
    appends_are_idempotent(store).await;
    old_appends_are_forgotten(store).await;
    pages_are_bounded(store).await;
    receipts_are_given_once(store).await;
    the_outbox_does_each_intent_once(store).await;
    views_are_kept_by_version_and_event(store).await;
    files_are_kept_by_what_is_in_them(store).await;
    a_refused_batch_leaves_no_trace(store).await;
    concurrent_appends_agree_on_one_order(store).await;
    removing_forgets_everything(store).await;
}

/// A new session and its epoch.
pub async fn fresh_session(store: &dyn SessionStore) -> (SessionId, u64) {
    let session = SessionId::from_bits(fresh_bits());
    store.create(&session).await.expect("create");
    let lease = store.acquire(&session, "suite", TTL).await.expect("acquire");
    (session, lease.epoch)
}

/// A batch of one small event.
pub fn titled(title: &str) -> Batch {
    Batch {
        at_ms: 7,
        events: vec![EventBody::SessionTitled {
            title: title.to_owned(),
            by: None,
        }],
        ..Batch::default()
    }
}

async fn unknown_sessions_are_told_apart(store: &dyn SessionStore) {
    let session = SessionId::from_bits(fresh_bits());
    let person = PersonId::from_bits(fresh_bits());
    assert!(matches!(
        store.acquire(&session, "suite", TTL).await,
        Err(AcquireError::Unknown)
    ));
    assert!(matches!(
        store.renew(&session, 1, TTL).await,
        Err(LeaseError::Unknown)
    ));
    assert!(matches!(
        store.release(&session, 1).await,
        Err(StoreError::Unknown)
    ));
    assert!(matches!(
        store.append(&session, 1, 0, titled("x")).await,
        Err(AppendError::Unknown)
    ));
    assert!(matches!(
        store.read(&session, 0, 1).await,
        Err(ReadError::Unknown)
    ));
    assert!(matches!(store.last_seq(&session).await, Err(ReadError::Unknown)));
    assert!(matches!(
        store.journal(&session, 0).await,
        Err(ReadError::Unknown)
    ));
    assert!(matches!(
        store.receipt(&session, &person, "k").await,
        Err(ReadError::Unknown)
    ));
    assert!(matches!(
        store.outbox_pending(&session).await,
        Err(ReadError::Unknown)
    ));
    assert!(matches!(
        store.intent(&session, "k").await,
        Err(ReadError::Unknown)
    ));
}

async fn creating_twice_keeps_what_is_there(store: &dyn SessionStore) {
    let (session, epoch) = fresh_session(store).await;
    assert_eq!(store.last_seq(&session).await.unwrap(), 0);
    assert_eq!(store.read(&session, 0, 10).await.unwrap(), []);
    store.append(&session, epoch, 0, titled("kept")).await.unwrap();
    store.create(&session).await.unwrap();
    assert_eq!(store.last_seq(&session).await.unwrap(), 1);
}

async fn leases_exclude_others_until_they_end(store: &dyn SessionStore, clock: &Clock) {
    let session = SessionId::from_bits(fresh_bits());
    store.create(&session).await.unwrap();
    let first = store.acquire(&session, "a", TTL).await.unwrap().epoch;
    assert!(first >= 1);
    match store.acquire(&session, "b", TTL).await {
        Err(AcquireError::Held { node, remaining_ms }) => {
            assert_eq!((node.as_str(), remaining_ms), ("a", 30_000));
        }
        other => panic!("another node must wait, got {other:?}"),
    }
    let second = store.acquire(&session, "a", TTL).await.unwrap().epoch;
    assert!(second > first, "the same node gets a larger epoch at once");
    assert!(matches!(
        store.renew(&session, first, TTL).await,
        Err(LeaseError::Fenced)
    ));

    clock.advance_ms(20_000);
    store.renew(&session, second, TTL).await.unwrap();
    clock.advance_ms(20_000);
    assert!(
        matches!(
            store.acquire(&session, "b", TTL).await,
            Err(AcquireError::Held {
                remaining_ms: 10_000,
                ..
            })
        ),
        "a renewed lease lasts"
    );
    clock.advance_ms(10_000);
    store
        .append(&session, second, 0, titled("late"))
        .await
        .expect("nobody took it yet");
    let third = store.acquire(&session, "b", TTL).await.unwrap().epoch;
    assert!(third > second);
    assert!(matches!(
        store.renew(&session, second, TTL).await,
        Err(LeaseError::Fenced)
    ));

    store
        .release(&session, second)
        .await
        .expect("an old owner's release is harmless");
    assert!(matches!(
        store.acquire(&session, "a", TTL).await,
        Err(AcquireError::Held { .. })
    ));
    store.release(&session, third).await.unwrap();
    assert!(matches!(
        store.renew(&session, third, TTL).await,
        Err(LeaseError::Fenced)
    ));
    assert!(store.acquire(&session, "a", TTL).await.unwrap().epoch > third);
}

async fn only_the_newest_epoch_appends(store: &dyn SessionStore) {
    let (session, old) = fresh_session(store).await;
    let new = store.acquire(&session, "suite", TTL).await.unwrap().epoch;
    for epoch in [0, old, new + 1, u64::MAX] {
        assert!(
            matches!(
                store.append(&session, epoch, 0, titled("x")).await,
                Err(AppendError::Fenced)
            ),
            "epoch {epoch}"
        );
    }
    assert_eq!(store.append(&session, new, 0, titled("x")).await.unwrap(), 1);
    store.release(&session, new).await.unwrap();
    assert!(matches!(
        store.append(&session, new, 1, titled("y")).await,
        Err(AppendError::Fenced)
    ));
}

async fn events_are_numbered_without_gaps(store: &dyn SessionStore) {
    let (session, epoch) = fresh_session(store).await;
    let unknown: EventBody =
        serde_json::from_value(json!({ "type": "from.the.future", "x": [1, null, "ü"] })).unwrap();
    let batch = Batch {
        at_ms: -5,
        events: vec![
            EventBody::SessionTitled {
                title: "one\0 ⅱ".into(),
                by: None,
            },
            unknown.clone(),
        ],
        ..Batch::default()
    };
    assert_eq!(store.append(&session, epoch, 0, batch).await.unwrap(), 2);
    assert_eq!(
        store.append(&session, epoch, 2, Batch::default()).await.unwrap(),
        2
    );
    assert_eq!(
        store.append(&session, epoch, 2, titled("three")).await.unwrap(),
        3
    );
    for expected_seq in [0, 2, 4, u64::MAX] {
        assert!(
            matches!(
                store.append(&session, epoch, expected_seq, titled("no")).await,
                Err(AppendError::Conflict { last_seq: 3 })
            ),
            "expected {expected_seq}"
        );
    }
    let events = store.read(&session, 0, 10).await.unwrap();
    assert_eq!(
        events.iter().map(|event| event.seq).collect::<Vec<_>>(),
        [1, 2, 3]
    );
    assert_eq!(
        events.iter().map(|event| event.at_ms).collect::<Vec<_>>(),
        [-5, -5, 7]
    );
    assert_eq!(
        events[0].body,
        EventBody::SessionTitled {
            title: "one\0 ⅱ".into(),
            by: None
        }
    );
    assert_eq!(events[1].body, unknown, "kinds nobody knows are kept");
    assert_eq!(store.read(&session, 1, 1).await.unwrap(), events[1..2]);
    assert_eq!(store.read(&session, 0, 0).await.unwrap(), []);
    assert_eq!(store.read(&session, 3, 10).await.unwrap(), []);
    assert_eq!(store.read(&session, u64::MAX, 10).await.unwrap(), []);
}

async fn appends_are_idempotent(store: &dyn SessionStore) {
    let (session, epoch) = fresh_session(store).await;
    assert_eq!(store.append(&session, epoch, 0, titled("a")).await.unwrap(), 1);
    assert_eq!(store.append(&session, epoch, 1, titled("b")).await.unwrap(), 2);
    assert_eq!(
        store.append(&session, epoch, 0, titled("a")).await.unwrap(),
        1,
        "a repetition gets the first answer"
    );
    assert!(matches!(
        store.append(&session, epoch, 0, titled("other")).await,
        Err(AppendError::Conflict { last_seq: 2 })
    ));
    let newer = store.acquire(&session, "suite", TTL).await.unwrap().epoch;
    assert_eq!(
        store.append(&session, newer, 1, titled("b")).await.unwrap(),
        2,
        "also under the owner's next epoch"
    );

    let turn_id = TurnId::from_bits(fresh_bits());
    let step = |step: u32| Batch {
        journal: vec![JournalRow {
            at_ms: 0,
            turn_id: turn_id.clone(),
            entry: json!({ "step": step }),
        }],
        ..Batch::default()
    };
    for batch in [step(1), step(1), step(2)] {
        assert_eq!(store.append(&session, newer, 2, batch).await.unwrap(), 2);
    }
    let journal = store.journal(&session, 0).await.unwrap();
    assert_eq!(
        journal.iter().map(|row| &row.entry["step"]).collect::<Vec<_>>(),
        [1, 2]
    );
    assert_eq!(journal[0].turn_id, turn_id);
    for known in 0..=journal.len() {
        let rest = store.journal(&session, known as u64).await.unwrap();
        assert_eq!(rest, journal[known..], "behind the first {known}");
    }
    assert_eq!(store.journal(&session, u64::MAX).await.unwrap(), []);
    assert_eq!(store.last_seq(&session).await.unwrap(), 2);
}

async fn old_appends_are_forgotten(store: &dyn SessionStore) {
    let (session, epoch) = fresh_session(store).await;
    store.append(&session, epoch, 0, titled("first")).await.unwrap();
    let many = |count: u64| Batch {
        events: (0..count)
            .map(|n| EventBody::SessionTitled {
                title: n.to_string(),
                by: None,
            })
            .collect(),
        ..Batch::default()
    };
    let last_seq = store
        .append(&session, epoch, 1, many(REMEMBERED_EVENTS - 1))
        .await
        .unwrap();
    assert_eq!(
        store.append(&session, epoch, 0, titled("first")).await.unwrap(),
        1
    );
    store
        .append(&session, epoch, last_seq, titled("one more"))
        .await
        .unwrap();
    assert!(matches!(
        store.append(&session, epoch, 0, titled("first")).await,
        Err(AppendError::Conflict { .. })
    ));
}

async fn pages_are_bounded(store: &dyn SessionStore) {
    let (session, epoch) = fresh_session(store).await;
    let large = "x".repeat(MAX_READ_BYTES / 2);
    let batch = Batch {
        events: (0..5)
            .map(|_| EventBody::SessionTitled {
                title: large.clone(),
                by: None,
            })
            .collect(),
        ..Batch::default()
    };
    store.append(&session, epoch, 0, batch).await.unwrap();
    let mut after = 0;
    let mut pages = Vec::new();
    while after < 5 {
        let page = store.read(&session, after, 100).await.unwrap();
        after = page.last().expect("a page holds at least one event").seq;
        pages.push(page.len());
    }
    assert_eq!(pages, [2, 2, 1]);
}

async fn receipts_are_given_once(store: &dyn SessionStore) {
    let (session, epoch) = fresh_session(store).await;
    let [alice, bob] = [0; 2].map(|_| PersonId::from_bits(fresh_bits()));
    let receipt = |person: &PersonId, digest: &str| NewReceipt {
        person: person.clone(),
        key: "key".into(),
        digest: digest.into(),
        body: json!({ "for": digest }),
    };
    let batch = |title: &str, receipts| Batch {
        receipts,
        ..titled(title)
    };
    store
        .append(
            &session,
            epoch,
            0,
            batch("a", vec![receipt(&alice, "1"), receipt(&bob, "2")]),
        )
        .await
        .expect("two people may choose the same key");
    for digest in ["1", "3"] {
        match store
            .append(&session, epoch, 1, batch("b", vec![receipt(&alice, digest)]))
            .await
        {
            Err(AppendError::ReceiptExists { key }) => assert_eq!(key, "key"),
            other => panic!("a command is accepted once, got {other:?}"),
        }
    }
    assert_eq!(
        store.receipt(&session, &alice, "key").await.unwrap(),
        Some(Receipt {
            digest: "1".into(),
            body: json!({ "for": "1" }),
        })
    );
    assert_eq!(
        store
            .receipt(&session, &bob, "key")
            .await
            .unwrap()
            .unwrap()
            .digest,
        "2"
    );
    assert_eq!(store.receipt(&session, &bob, "other").await.unwrap(), None);
    assert_eq!(store.last_seq(&session).await.unwrap(), 1);
}

fn intent(key: &str, digest: &str) -> NewIntent {
    NewIntent {
        key: key.into(),
        kind: "push".into(),
        digest: digest.into(),
        payload: json!({ "branch": "b" }),
    }
}

async fn the_outbox_does_each_intent_once(store: &dyn SessionStore) {
    let (session, epoch) = fresh_session(store).await;
    let send = |at_ms: i64, batch: Batch| {
        let session = session.clone();
        async move { store.append(&session, epoch, 0, Batch { at_ms, ..batch }).await }
    };
    let begin = |key: &str| Batch {
        attempts: vec![IntentAttempt {
            key: key.into(),
            next_attempt_at_ms: 90,
        }],
        ..Batch::default()
    };
    let end = |key: &str, outcome: &str, is_final: bool| Batch {
        results: vec![IntentResult {
            key: key.into(),
            outcome: json!(outcome),
            is_final,
        }],
        ..Batch::default()
    };
    let plan = |intents| Batch {
        intents,
        ..Batch::default()
    };
    send(1, plan(vec![intent("b", "1"), intent("a", "1")]))
        .await
        .unwrap();
    send(2, plan(vec![intent("b", "1")]))
        .await
        .expect("the same intent again changes nothing");
    assert!(matches!(
        send(3, plan(vec![intent("new", "1"), intent("a", "2")])).await,
        Err(AppendError::IntentConflict { key }) if key == "a"
    ));
    let pending = store.outbox_pending(&session).await.unwrap();
    assert_eq!(
        pending
            .iter()
            .map(|intent| intent.key.as_str())
            .collect::<Vec<_>>(),
        ["b", "a"],
        "oldest first, and nothing of the refused batch"
    );
    assert_eq!(pending[0].created_at_ms, 1);
    assert_eq!(pending[0].payload, json!({ "branch": "b" }));

    send(4, begin("b")).await.unwrap();
    send(5, end("b", "busy", false)).await.unwrap();
    send(6, begin("b")).await.unwrap();
    let tried = store.intent(&session, "b").await.unwrap().unwrap();
    assert_eq!((tried.attempts, tried.next_attempt_at_ms), (2, 90));
    assert_eq!((tried.outcome, tried.is_final), (Some(json!("busy")), false));

    send(7, end("b", "done", true)).await.unwrap();
    send(8, end("b", "done", true))
        .await
        .expect("the same result again changes nothing");
    for (at_ms, batch) in [
        (9, end("b", "other", true)),
        (10, end("b", "done", false)),
        (11, begin("b")),
    ] {
        assert!(
            matches!(send(at_ms, batch).await, Err(AppendError::IntentConflict { key }) if key == "b"),
            "an intent ends once"
        );
    }
    for (at_ms, batch) in [(12, begin("none")), (13, end("none", "x", true))] {
        assert!(matches!(send(at_ms, batch).await, Err(AppendError::IntentUnknown { key }) if key == "none"));
    }
    let over = store.intent(&session, "b").await.unwrap().unwrap();
    assert_eq!((over.outcome, over.is_final), (Some(json!("done")), true));
    assert_eq!(store.outbox_pending(&session).await.unwrap().len(), 1);
    assert_eq!(store.intent(&session, "none").await.unwrap(), None);
}

async fn files_are_kept_by_what_is_in_them(store: &dyn SessionStore) {
    let (session, _) = fresh_session(store).await;
    let (other, _) = fresh_session(store).await;
    let blob = |bytes: &[u8]| Blob {
        media_type: "image/png".to_owned(),
        bytes: bytes.to_vec(),
    };
    // <https://www.di-mgt.com.au/sha_testvectors.html>
    let abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let abc: Digest = abc.parse().unwrap();
    assert_eq!(store.blob(&session, &abc).await.unwrap(), None);
    // The same again takes no room.
    for _ in 0..2 {
        let put = store
            .put_blobs(&session, vec![blob(b"abc"), blob(b"abc")], 3)
            .await;
        assert_eq!(put.unwrap(), [abc.clone(), abc.clone()]);
    }
    assert_eq!(store.blob(&session, &abc).await.unwrap(), Some(blob(b"abc")));
    assert_eq!(
        store.blob(&other, &abc).await.unwrap(),
        None,
        "it is the session's own"
    );
    assert!(matches!(
        store.put_blobs(&session, vec![blob(b"abc"), blob(b"d")], 3).await,
        Err(PutBlobError::TooMuch {
            total_bytes: 3,
            max_total_bytes: 3
        })
    ));
    // All or none: the first of them had found room.
    let two = store.put_blobs(&session, vec![blob(b"e"), blob(b"fg")], 5).await;
    assert!(matches!(two, Err(PutBlobError::TooMuch { .. })), "{two:?}");
    assert_eq!(store.blob(&session, &digest_of(b"e")).await.unwrap(), None);
    let large = vec![7; 300_000];
    let names = store
        .put_blobs(&session, vec![blob(&large)], u64::MAX)
        .await
        .unwrap();
    assert_eq!(store.blob(&session, &names[0]).await.unwrap(), Some(blob(&large)));
    let nothing = store.put_blobs(&session, vec![blob(b"")], 0).await;
    assert!(
        matches!(nothing, Err(PutBlobError::TooMuch { .. })),
        "{nothing:?}"
    );
    store.remove(&session).await.unwrap();
    assert!(matches!(
        store.put_blobs(&session, vec![blob(b"abc")], 3).await,
        Err(PutBlobError::Unknown)
    ));
    assert!(matches!(
        store.blob(&session, &abc).await,
        Err(ReadError::Unknown)
    ));
}

async fn views_are_kept_by_version_and_event(store: &dyn SessionStore) {
    let (session, _) = fresh_session(store).await;
    let view = |version, seq, body: &str| View {
        seq,
        version,
        body: body.to_owned(),
    };
    assert_eq!(store.view(&session, 1, u64::MAX).await.unwrap(), None);
    for kept in [view(1, 5, "five"), view(1, 9, "nine"), view(1, 9, "again")] {
        store.put_view(&session, kept).await.unwrap();
    }
    for (version, up_to, expected) in [
        (1, 4, None),
        (1, 5, Some(view(1, 5, "five"))),
        (1, 8, Some(view(1, 5, "five"))),
        (1, 9, Some(view(1, 9, "again"))),
        (1, u64::MAX, Some(view(1, 9, "again"))),
        (2, 9, None),
    ] {
        assert_eq!(
            store.view(&session, version, up_to).await.unwrap(),
            expected,
            "version {version} up to {up_to}"
        );
    }
    // Nobody understands those of before any more.
    store.put_view(&session, view(2, 7, "other")).await.unwrap();
    assert_eq!(store.view(&session, 1, u64::MAX).await.unwrap(), None);
    assert_eq!(
        store.view(&session, 2, 9).await.unwrap(),
        Some(view(2, 7, "other"))
    );
    store.remove(&session).await.unwrap();
    assert!(matches!(
        store.put_view(&session, view(1, 1, "")).await,
        Err(StoreError::Unknown)
    ));
    assert!(matches!(
        store.view(&session, 1, 1).await,
        Err(ReadError::Unknown)
    ));
}

async fn a_refused_batch_leaves_no_trace(store: &dyn SessionStore) {
    let (session, epoch) = fresh_session(store).await;
    let person = PersonId::from_bits(fresh_bits());
    let batch = Batch {
        journal: vec![JournalRow {
            at_ms: 0,
            turn_id: TurnId::from_bits(fresh_bits()),
            entry: json!(1),
        }],
        receipts: vec![NewReceipt {
            person: person.clone(),
            key: "k".into(),
            digest: "d".into(),
            body: json!(null),
        }],
        intents: vec![intent("i", "1"), intent("i", "2")],
        ..titled("x")
    };
    assert!(matches!(
        store.append(&session, epoch, 0, batch.clone()).await,
        Err(AppendError::IntentConflict { .. })
    ));
    assert_eq!(store.last_seq(&session).await.unwrap(), 0);
    assert_eq!(store.journal(&session, 0).await.unwrap(), []);
    assert_eq!(store.receipt(&session, &person, "k").await.unwrap(), None);
    assert_eq!(store.outbox_pending(&session).await.unwrap(), []);
    let whole = Batch {
        intents: vec![intent("i", "1")],
        ..batch
    };
    assert_eq!(store.append(&session, epoch, 0, whole).await.unwrap(), 1);
    assert_eq!(store.journal(&session, 0).await.unwrap().len(), 1);
    assert!(store.receipt(&session, &person, "k").await.unwrap().is_some());
    assert_eq!(store.outbox_pending(&session).await.unwrap().len(), 1);
}

/// 16 writers race for each number; exactly one wins each, and losers learn where the log ends.
async fn concurrent_appends_agree_on_one_order(store: &dyn SessionStore) {
    let (session, epoch) = fresh_session(store).await;
    for round in 0..8_u64 {
        let titles: Vec<String> = (0..16).map(|writer| format!("{round}/{writer}")).collect();
        let results = join_all(
            titles
                .iter()
                .map(|title| store.append(&session, epoch, round, titled(title))),
        )
        .await;
        let winners: Vec<usize> = results
            .iter()
            .enumerate()
            .filter_map(|(writer, result)| match result {
                Ok(seq) => {
                    assert_eq!(*seq, round + 1);
                    Some(writer)
                }
                Err(AppendError::Conflict { last_seq }) => {
                    assert_eq!(*last_seq, round + 1);
                    None
                }
                Err(error) => panic!("unexpected {error:?}"),
            })
            .collect();
        assert_eq!(winners.len(), 1, "round {round}");
        let stored = store.read(&session, round, 10).await.unwrap();
        assert_eq!(stored.len(), 1);
        assert_eq!(
            stored[0].body,
            EventBody::SessionTitled {
                title: titles[winners[0]].clone(),
                by: None
            }
        );
    }
}

async fn removing_forgets_everything(store: &dyn SessionStore) {
    let (session, epoch) = fresh_session(store).await;
    store.append(&session, epoch, 0, titled("x")).await.unwrap();
    store.remove(&session).await.unwrap();
    assert!(matches!(
        store.read(&session, 0, 1).await,
        Err(ReadError::Unknown)
    ));
    store
        .remove(&session)
        .await
        .expect("removing twice changes nothing");
    store.create(&session).await.unwrap();
    assert_eq!(store.last_seq(&session).await.unwrap(), 0);
}

/// Polls all futures together on this task and returns their results in order.
async fn join_all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|cx| {
        let mut is_done = true;
        for (future, output) in &mut running {
            if output.is_none() {
                match future.as_mut().poll(cx) {
                    std::task::Poll::Ready(value) => *output = Some(value),
                    std::task::Poll::Pending => is_done = false,
                }
            }
        }
        if is_done {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    running.into_iter().filter_map(|(_, output)| output).collect()
}
