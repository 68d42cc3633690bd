//! Snapshots of sessions: taken by themselves and by hand, used when a sandbox lost its files, and removed again.

use crate::script::{add, commands, outputs};
use greenroom_system_tests::api::{Api, of_type, pretty};
use greenroom_system_tests::product::{Product, Who};
use greenroom_system_tests::repo;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

greenroom_system_tests::for_both_users! {
    a_turn_that_changed_something_leaves_a_snapshot_that_replaces_lost_files,
    what_git_does_not_see_is_kept_too,
    snapshots_are_taken_listed_and_removed_by_hand,
}

const PATIENCE: Duration = Duration::from_secs(40);

async fn shop(product: &mut Product) -> Api {
    let source = repo::with_files(
        product.root(),
        "shop",
        &[("README.md", "A shop.\n"), (".gitignore", "cache\n")],
    );
    let api = product.start().await;
    add(&api, "shop", &source).await;
    api
}

async fn snapshots(api: &Api, session: &str) -> Vec<Value> {
    let listed = api.must_get(&format!("/v1/sessions/{session}/snapshots")).await;
    listed["snapshots"].as_array().unwrap().clone()
}

/// Waits until a session has so many snapshots.
async fn eventually(api: &Api, session: &str, count: usize) -> Vec<Value> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = snapshots(api, session).await;
        if found.len() == count {
            return found;
        }
        assert!(Instant::now() < deadline, "{} instead of {count}", found.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn a_turn_that_changed_something_leaves_a_snapshot_that_replaces_lost_files(who: Who) {
    let script = commands(&[
        ("look", "cat README.md; ls"),
        ("work", "echo mine > README.md; echo built > cache"),
        (
            "show",
            "cat README.md cache; git branch --show-current | cut -c1-10; git status --porcelain",
        ),
    ]);
    let mut product = Product::with_config(&script, "[snapshot]\nkeep = 1\n");
    product.run_as(who);
    let api = shop(&mut product).await;
    let session = api.start_session("shop", "look").await;
    api.wait_for_turns(&session, 1).await;
    // In the first turn the checkout may have been over for less than a step of the kernel's clock.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = snapshots(&api, &session).await;
    assert_eq!(api.prompt(&session, "look", "look").await.0, 202);
    api.wait_for_turns(&session, 2).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(snapshots(&api, &session).await, before, "nothing changed");
    assert_eq!(api.prompt(&session, "work", "work").await.0, 202);
    api.wait_for_turns(&session, 3).await;
    let deadline = Instant::now() + PATIENCE;
    let first = loop {
        let found = eventually(&api, &session, 1).await;
        if found != before {
            break found;
        }
        assert!(Instant::now() < deadline, "no snapshot is taken");
    };
    assert_eq!(first[0]["is_pinned"], false);

    // Its files are gone while it is down.
    product.stop();
    std::fs::remove_dir_all(product.sandboxes().join("sb")).unwrap();
    let api = product.start().await;
    assert_eq!(api.prompt(&session, "show", "show").await.0, 202);
    let events = api.wait_for_turns(&session, 4).await;
    let said = outputs(&events).pop().unwrap();
    assert!(
        said.starts_with("mine\nbuilt\ngreenroom/\n[exit"),
        "{said}\n{}",
        pretty(&events)
    );
    let notices: Vec<_> = of_type(&events, "item.completed")
        .into_iter()
        .filter(|event| event["item"]["problem"]["code"] == "sandbox_restored")
        .collect();
    assert_eq!(notices.len(), 1, "{}", pretty(&events));
    product.stop();
}

async fn what_git_does_not_see_is_kept_too(who: Who) {
    let script = commands(&[
        ("look", "cat README.md"),
        ("ignored", "echo built > cache"),
        ("outside", "echo mine > ~/notes; rm -f cache"),
        ("passing", "echo gone > /tmp/gone; git status; git stash list"),
    ]);
    let mut product = Product::with_config(&script, "[snapshot]\nkeep = 9\n");
    product.run_as(who);
    let api = shop(&mut product).await;
    let session = api.start_session("shop", "look").await;
    api.wait_for_turns(&session, 1).await;
    for (turn, prompt) in ["ignored", "outside", "passing"].into_iter().enumerate() {
        // Longer than the steps of the kernel's clock.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let before = snapshots(&api, &session).await.len();
        assert_eq!(api.prompt(&session, prompt, prompt).await.0, 202);
        let events = api.wait_for_turns(&session, turn + 2).await;
        assert!(
            of_type(&events, "change.pushed").is_empty(),
            "{}",
            pretty(&events)
        );
        match prompt {
            "passing" => {
                tokio::time::sleep(Duration::from_millis(500)).await;
                assert_eq!(snapshots(&api, &session).await.len(), before, "{prompt}");
            }
            _ => drop(eventually(&api, &session, before + 1).await),
        }
    }
    product.stop();
}

async fn snapshots_are_taken_listed_and_removed_by_hand(who: Who) {
    let script = commands(&[("work", "echo mine >> README.md")]);
    let mut product = Product::with_config(&script, "[snapshot]\nkeep = 1\n");
    product.run_as(who);
    let api = shop(&mut product).await;
    let (status, problem) = api
        .post("/v1/sessions/ses_00000000000000000000000000/snapshots", json!({}))
        .await;
    assert_eq!(
        (status, problem["code"].as_str()),
        (404, Some("session_unknown")),
        "{problem}"
    );
    let session = api.create_session("shop").await;
    let path = format!("/v1/sessions/{session}/snapshots");
    let (status, problem) = api.post(&path, json!({})).await;
    assert_eq!(
        (status, problem["code"].as_str()),
        (422, Some("sandbox_none")),
        "{problem}"
    );
    assert_eq!(api.prompt(&session, "one", "work").await.0, 202);
    api.wait_for_turns(&session, 1).await;
    let own = eventually(&api, &session, 1).await;
    let run = |arguments: &[&str]| {
        let output = product.run(arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.success(),
            format!("{}{}", text(&output.stdout), text(&output.stderr)),
        )
    };
    let (is_done, text) = run(&["session", "snapshots", &session, "--take"]);
    assert!(is_done && text.contains("until removed"), "{text}");
    assert_eq!(api.prompt(&session, "two", "work").await.0, 202);
    api.wait_for_turns(&session, 2).await;
    // The pinned one stays; of the others the newest.
    let deadline = Instant::now() + PATIENCE;
    let listed = loop {
        let listed = snapshots(&api, &session).await;
        if listed.len() == 2 && listed.iter().all(|snapshot| snapshot["id"] != own[0]["id"]) {
            break listed;
        }
        assert!(Instant::now() < deadline, "{listed:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(
        listed
            .iter()
            .filter(|snapshot| snapshot["is_pinned"] == true)
            .count(),
        1
    );
    let (is_done, text) = run(&["session", "snapshots", &session]);
    assert!(is_done && text.contains("for a while"), "{text}");
    for snapshot in &listed {
        let (is_done, text) = run(&[
            "session",
            "snapshots",
            &session,
            "--remove",
            snapshot["id"].as_str().unwrap(),
        ]);
        assert!(is_done, "{text}");
    }
    let (is_done, text) = run(&[
        "session",
        "snapshots",
        &session,
        "--remove",
        listed[0]["id"].as_str().unwrap(),
    ]);
    assert!(!is_done && text.contains("snapshot_unknown"), "{text}");
    let layers = std::fs::read_dir(product.sandboxes().join("images/layers")).unwrap();
    assert_eq!(layers.count(), 0);
    product.stop();
}
