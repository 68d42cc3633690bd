//! The end of a session: archived it is kept for reading, from there it comes back or is deleted for good, also through kills.

use crate::kills::steps_in_sources;
use crate::links::link;
use crate::script::{add, commands, outputs};
use greenroom_system_tests::api::{Api, is_event, of_type, pretty};
use greenroom_system_tests::product::Product;
use greenroom_system_tests::repo;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(40);

fn product() -> Product {
    let script = commands(&[
        ("work", "echo kept > note; (sleep 600 & echo $!)"),
        ("wait", "sleep 600"),
        ("show", "cat note"),
    ]);
    Product::with_config(&script, "[snapshot]\nkeep = 2\n")
}

async fn start(product: &mut Product) -> Api {
    let source = repo::with_files(product.root(), "shop", &[("README.md", "A shop.\n")]);
    let api = product.start().await;
    add(&api, "shop", &source).await;
    api
}

/// A session of Ada's that has done something.
async fn worked(ada: &Api) -> String {
    let session = ada.start_session("shop", "work").await;
    ada.wait_for_turns(&session, 1).await;
    session
}

/// With a key, as the SDKs send it.
async fn archive(api: &Api, session: &str, is_archived: bool) -> (u16, Value) {
    static KEYS: AtomicUsize = AtomicUsize::new(0);
    let key = format!("archive-{}", KEYS.fetch_add(1, Ordering::Relaxed));
    let request = api.request(reqwest::Method::PATCH, &format!("/v1/sessions/{session}"));
    let request = request
        .header("idempotency-key", key)
        .json(&json!({ "is_archived": is_archived }));
    api.send(request).await
}

async fn listed(api: &Api, query: &str) -> Vec<String> {
    let found = api.must_get(&format!("/v1/sessions{query}")).await;
    let rows = found["sessions"].as_array().unwrap().iter();
    rows.map(|row| row["id"].as_str().unwrap().to_owned()).collect()
}

#[track_caller]
fn refused((status, answer): &(u16, Value), expected: u16, code: &str) {
    assert_eq!(
        (*status, answer["code"].as_str()),
        (expected, Some(code)),
        "{answer}"
    );
}

/// What lies on disk by the names of these.
fn on_disk(root: &Path, names: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&directory) else {
            continue;
        };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if names.iter().any(|wanted| name.contains(wanted)) {
                found.push(entry.path());
            } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(entry.path());
            }
        }
    }
    found
}

async fn sandbox_of(api: &Api, session: &str) -> String {
    let events = api.events(session).await;
    let states = of_type(&events, "sandbox.state_changed");
    states.last().unwrap()["sandbox_id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_archived_session_is_kept_for_reading_and_comes_back_as_it_was() {
    let mut product = product();
    let api = start(&mut product).await;
    let (ada, _) = api.add_person("Ada").await;
    let (edith, edith_id) = api.add_person("Edith").await;
    let session = worked(&ada).await;
    let path = format!("/v1/sessions/{session}");
    let member = format!("{path}/members/{edith_id}");
    assert_eq!(ada.put(&member, json!({ "role": "editor" })).await.0, 200);

    // By its owner alone, alone in its request, and while nothing runs or waits.
    refused(&archive(&edith, &session, true).await, 403, "role_required");
    let both = json!({ "is_archived": true, "title": "Old" });
    refused(&ada.patch(&path, both).await, 422, "archive_with_others");
    assert_eq!(ada.prompt(&session, "wait", "wait").await.0, 202);
    refused(&archive(&ada, &session, true).await, 409, "session_busy");
    assert_eq!(ada.post(&format!("{path}/stop"), json!({})).await.0, 202);
    ada.wait_for_turns(&session, 2).await;

    // Who watches is told, and its sandbox is stopped although something still runs in it.
    let mut watching = edith.stream(&session, 0).await;
    for _ in 0..2 {
        let (status, row) = archive(&ada, &session, true).await;
        assert_eq!((status, row["state"].as_str()), (200, Some("archived")), "{row}");
    }
    watching.until(|frame| is_event(frame, "session.archived")).await;
    watching
        .until(|frame| is_event(frame, "sandbox.state_changed") && frame["event"]["state"] == "stopped")
        .await;

    // It is read like before, and found by whoever asks for archived ones.
    assert!(outputs(&edith.events(&session).await)[0].contains(char::is_numeric));
    assert!(!listed(&edith, "").await.contains(&session));
    assert_eq!(
        listed(&edith, "?archived=only").await,
        std::slice::from_ref(&session)
    );
    assert_eq!(
        listed(&edith, "?archived=include&words=work").await,
        std::slice::from_ref(&session)
    );
    assert_eq!(edith.get("/v1/sessions?archived=maybe").await.0, 422);
    refused(
        &edith.prompt(&session, "late", "show").await,
        409,
        "session_archived",
    );
    refused(
        &ada.patch(&path, json!({ "title": "Old" })).await,
        409,
        "session_archived",
    );
    let snapshot = edith.post(&format!("{path}/snapshots"), json!({})).await;
    refused(&snapshot, 409, "session_archived");
    // Who may see it is still its owner's to say.
    assert_eq!(ada.patch(&path, json!({ "access": "members" })).await.0, 200);

    // Also after a restart. Then it goes on where it was.
    product.kill();
    let api = product.start().await;
    let ada = api.with_token(&ada.token);
    refused(
        &ada.prompt(&session, "later", "show").await,
        409,
        "session_archived",
    );
    assert_eq!(archive(&ada, &session, false).await.1["state"], "idle");
    assert_eq!(ada.prompt(&session, "again", "show").await.0, 202);
    let events = ada.wait_for_turns(&session, 3).await;
    assert_eq!(
        outputs(&events).last().unwrap().lines().next(),
        Some("kept"),
        "{}",
        pretty(&events)
    );
    assert_eq!(of_type(&events, "session.archived").len(), 1);
    product.stop();
}

#[tokio::test]
async fn a_deleted_session_is_gone_from_everywhere_and_stays_so() {
    let mut product = product();
    let api = start(&mut product).await;
    let (ada, _) = api.add_person("Ada").await;
    let (edith, edith_id) = api.add_person("Edith").await;
    let create = json!({ "repository": "shop", "prompt": "work" });
    let request = || {
        ada.request(reqwest::Method::POST, "/v1/sessions")
            .header("idempotency-key", "one")
            .json(&create)
    };
    let (_, created) = ada.send(request()).await;
    let session = created["session"]["id"].as_str().unwrap().to_owned();
    ada.wait_for_turns(&session, 1).await;
    let path = format!("/v1/sessions/{session}");
    assert_eq!(
        ada.put(&format!("{path}/members/{edith_id}"), json!({ "role": "editor" }))
            .await
            .0,
        200
    );
    let (_, link) = link(&ada, &session, json!({ "kind": "share" })).await;
    let guest = api.with_token(&link);
    let fork = ada.must_post(&format!("{path}/forks"), json!({})).await;
    let fork = fork["sessions"][0]["session"]["id"].as_str().unwrap().to_owned();
    let sandbox = sandbox_of(&ada, &session).await;
    let branch = ada.must_get(&path).await["branch"].as_str().unwrap().to_owned();
    assert!(!on_disk(&product.data_dir(), &[&session, &sandbox]).is_empty());

    refused(&ada.delete(&path).await, 409, "session_not_archived");
    assert_eq!(archive(&ada, &session, true).await.0, 200);
    refused(&edith.delete(&path).await, 403, "role_required");
    let mut watching = edith.stream(&session, 0).await;
    let mut looking = guest.stream(&session, 0).await;
    for stream in [&mut watching, &mut looking] {
        stream.until(|frame| frame["frame"] == "caught_up").await;
    }
    let (status, answer) = ada.delete(&path).await;
    assert_eq!(status, 204, "{answer}");

    // Whoever had it open is told so; nobody finds it; nothing of it is on disk but what was pushed.
    for stream in [&mut watching, &mut looking] {
        let frames = stream.until(|frame| frame["frame"] == "closing").await;
        assert_eq!(frames.last().unwrap()["problem"]["code"], "session_unknown");
    }
    for person in [&ada, &edith, &api] {
        refused(&person.get(&path).await, 404, "session_unknown");
        refused(&person.delete(&path).await, 404, "session_unknown");
        refused(
            &person.prompt(&session, "late", "show").await,
            404,
            "session_unknown",
        );
        assert!(!listed(person, "?archived=include").await.contains(&session));
        assert!(
            !listed(person, "?archived=include&words=work")
                .await
                .contains(&session)
        );
    }
    refused(&guest.get(&path).await, 401, "link_invalid");
    assert_eq!(
        on_disk(&product.data_dir(), &[&session, &sandbox]),
        Vec::<PathBuf>::new()
    );
    let branches = ada.must_get("/v1/repositories/shop/branches").await;
    let is_there = |found: &Value| found["name"] == branch.as_str();
    assert!(
        branches["branches"].as_array().unwrap().iter().any(is_there),
        "{branches}"
    );

    // Also after a restart, and for who repeats what made it. What was made of it goes on without it.
    product.kill();
    let api = product.start().await;
    let ada = api.with_token(&ada.token);
    refused(&ada.get(&path).await, 404, "session_unknown");
    let again = ada.request(reqwest::Method::POST, "/v1/sessions");
    let again = again.header("idempotency-key", "one").json(&create);
    refused(&ada.send(again).await, 409, "session_deleted");
    let forked = || {
        let request = ada.request(reqwest::Method::POST, &format!("/v1/sessions/{fork}/forks"));
        ada.send(request.header("idempotency-key", "forks").json(&json!({})))
    };
    let (_, made) = forked().await;
    let second = made["sessions"][0]["session"]["id"].as_str().unwrap().to_owned();
    assert_eq!(archive(&ada, &second, true).await.0, 200);
    assert_eq!(ada.delete(&format!("/v1/sessions/{second}")).await.0, 204);
    let of_forks = ada.must_get("/v1/sessions").await;
    refused(&forked().await, 409, "session_deleted");
    assert_eq!(ada.must_get("/v1/sessions").await, of_forks);
    assert_eq!(ada.prompt(&fork, "show", "show").await.0, 202);
    let events = ada
        .wait_for(&fork, "its turn", |events| {
            events
                .last()
                .is_some_and(|event| event["type"] == "session.state_changed" && event["state"] == "idle")
                && outputs(events).len() == 2
        })
        .await;
    assert_eq!(
        outputs(&events)[1].lines().next(),
        Some("kept"),
        "{}",
        pretty(&events)
    );
    let audit = api.must_get(&format!("/v1/audit?about={session}")).await;
    let actions: Vec<_> = audit["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| &entry["action"])
        .collect();
    assert!(actions.contains(&&json!("deleteSession")), "{audit}");
    product.stop();
}

#[tokio::test]
async fn a_deletion_that_is_cut_off_anywhere_is_finished_by_the_next_start() {
    let steps: Vec<_> = steps_in_sources()
        .into_iter()
        .filter(|step| step.starts_with("deletion."))
        .collect();
    assert_eq!(steps.len(), 4, "{steps:?}");
    let mut product = product();
    let kill_file = product.root().join("kill-at");
    product.set_env("GREENROOM_TEST_KILL_FILE", kill_file.to_str().unwrap());
    let mut api = start(&mut product).await;
    for step in steps {
        let session = worked(&api).await;
        let sandbox = sandbox_of(&api, &session).await;
        assert_eq!(archive(&api, &session, true).await.0, 200);
        std::fs::write(&kill_file, &step).unwrap();
        let path = format!("/v1/sessions/{session}");
        // Whoever asked gets no answer.
        drop(api.request(reqwest::Method::DELETE, &path).send().await);
        let deadline = Instant::now() + PATIENCE;
        while !product.has_ended() {
            assert!(Instant::now() < deadline, "{step} is never reached");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        std::fs::remove_file(&kill_file).unwrap();
        api = product.start().await;
        refused(&api.get(&path).await, 404, "session_unknown");
        assert_eq!(
            on_disk(&product.data_dir(), &[&session, &sandbox]),
            Vec::<PathBuf>::new(),
            "{step}"
        );
        assert!(listed(&api, "?archived=include").await.is_empty(), "{step}");
    }
    product.stop();
}

#[tokio::test]
async fn sessions_end_by_their_age_if_the_operator_wants_it() {
    let mut product = product();
    let api = start(&mut product).await;
    let (old, waits) = (worked(&api).await, worked(&api).await);
    assert_eq!(api.prompt(&waits, "wait", "wait").await.0, 202);
    product.stop();
    // Two seconds.
    product.set_env("GREENROOM_ARCHIVE_AFTER_DAYS", "0.00002315");
    let api = product.start().await;
    let archived = |events: &[Value]| !of_type(events, "session.archived").is_empty();
    let events = api.wait_for(&old, "its end", archived).await;
    assert!(of_type(&events, "session.archived")[0]["by"].is_null());
    assert_eq!(
        listed(&api, "").await,
        std::slice::from_ref(&waits),
        "one at work is not old"
    );
    product.stop();
    product.set_env("GREENROOM_DELETE_ARCHIVED_AFTER_DAYS", "0.00002315");
    let api = product.start().await;
    let deadline = Instant::now() + PATIENCE;
    // Gone for everybody first, then from the disk.
    while !on_disk(&product.data_dir(), &[&old]).is_empty() {
        assert!(Instant::now() < deadline, "it is never deleted");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    refused(
        &api.get(&format!("/v1/sessions/{old}")).await,
        404,
        "session_unknown",
    );
    assert!(listed(&api, "?archived=only").await.is_empty());
    product.stop();
}

#[tokio::test]
async fn an_owner_of_the_server_frees_the_place_of_a_damaged_session() {
    let mut product = product();
    for part in [
        "database file is damaged",
        "session file is damaged",
        "cannot open the session",
        "session_corrupt",
    ] {
        product.expect_warning(part);
    }
    let api = start(&mut product).await;
    let (ada, _) = api.add_person("Ada").await;
    let session = worked(&ada).await;
    product.stop();
    let directory = on_disk(&product.data_dir().join("sessions"), &[&session]).remove(0);
    for entry in std::fs::read_dir(&directory).unwrap() {
        std::fs::write(entry.unwrap().path(), vec![b'x'; 8192]).unwrap();
    }
    let api = product.start().await;
    let path = format!("/v1/sessions/{session}");
    let (status, answer) = api.get(&path).await;
    assert!(matches!(status, 404 | 500), "{answer}");
    assert!(
        matches!(api.with_token(&ada.token).delete(&path).await.0, 404 | 500),
        "its own owner cannot be known"
    );
    assert_eq!(api.delete(&path).await.0, 204);
    assert!(listed(&api, "?archived=include").await.is_empty());
    assert_eq!(on_disk(&product.data_dir(), &[&session]), Vec::<PathBuf>::new());
    product.stop();
}
