//! What a server keeps is copied while it works, and a server that is made of the copy knows all of it.

use crate::script::{FIX, add, commands, outputs};
use greenroom_system_tests::api::{Api, is_event, of_type, pretty};
use greenroom_system_tests::product::{Product, Who, give_to_owner_of_parent};
use greenroom_system_tests::repo;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

greenroom_system_tests::for_both_users! {
    a_server_at_work_is_backed_up_and_restored_whole,
}

fn product() -> Product {
    let script = commands(&[
        (
            "work",
            "echo kept > note.log; echo more >> README.md; chmod 0 note.log",
        ),
        ("wait", "sleep 600"),
        ("show", "chmod 600 note.log; cat note.log"),
    ]);
    Product::with_script(&(script + FIX))
}

async fn start(product: &mut Product) -> Api {
    let files = [("README.md", "A shop.\n"), (".gitignore", "*.log\n")];
    let shop = repo::with_files(product.root(), "shop", &files);
    let answer = crate::script::answer_repository(product);
    let api = product.start().await;
    add(&api, "shop", &shop).await;
    // A name like git's own drafts.
    add(&api, "tmp_answer", &answer).await;
    add(&api, "answer", &answer).await;
    api
}

/// Runs the program; what it printed, or its error's code.
fn run(product: &Product, arguments: &[&str]) -> Result<Value, String> {
    let output = product.run(&[arguments, &["--json"]].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    match output.status.success() {
        true => Ok(serde_json::from_slice(&output.stdout).unwrap()),
        false => Err(said),
    }
}

#[track_caller]
fn refused(done: Result<Value, String>, code: &str) {
    let said = done.unwrap_err();
    assert!(said.contains(&format!("error[{code}]")), "{said}");
}

async fn a_server_at_work_is_backed_up_and_restored_whole(who: Who) {
    let mut product = product();
    product.run_as(who);
    let api = start(&mut product).await;
    let (ada, _) = api.add_person("Ada").await;
    let session = ada.start_session("shop", "work").await;
    ada.wait_for_turns(&session, 1).await;
    let fixed = ada.start_session("answer", "fix").await;
    ada.wait_for_turns(&fixed, 1).await;
    let waiting = ada.start_session("shop", "wait").await;
    let mut stream = ada.stream(&waiting, 0).await;
    stream
        .until(|frame| is_event(frame, "item.started") && frame["event"]["item"]["tool"] == "bash")
        .await;
    // Of the turn that is over; the snapshot behind it is taken in the background.
    let snapshots = format!("/v1/sessions/{session}/snapshots");
    assert_eq!(ada.post(&snapshots, json!({})).await.0, 200);
    let secret = json!({ "value": "hidden" });
    assert_eq!(api.put("/v1/secrets/TOKEN", secret).await.0, 204);

    // One of them as a file for somebody else.
    let file = product.root().join("one.tar.gz");
    let name = file.to_str().unwrap();
    let exported = run(&product, &["session", "export", &session, "--output", name]).unwrap();
    let events = ada.events(&session).await;
    assert_eq!(exported["events"], events.len());
    refused(
        run(&product, &["session", "export", &session, "--output", name]),
        "export_exists",
    );
    let tar = Command::new("tar")
        .args(["-xzf", name, "-C"])
        .arg(product.root())
        .output()
        .unwrap();
    assert!(tar.status.success(), "{tar:?}");
    let there = |name: &str| fs::read_to_string(product.root().join(&session).join(name)).unwrap();
    let lines: Vec<Value> = there("events.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines, events);
    assert!(there("changes.patch").contains("\n+more\n"));
    assert_eq!(
        serde_json::from_str::<Value>(&there("session.json")).unwrap()["id"],
        session.as_str()
    );
    let left: Vec<_> = fs::read_dir(product.root()).unwrap().flatten().collect();
    assert!(
        left.iter()
            .all(|entry| !entry.file_name().to_string_lossy().ends_with(".partial")),
        "{left:?}"
    );

    let target = product.root().join("backups/one");
    let place = target.to_str().unwrap();
    let made = run(&product, &["backup", place]).unwrap();
    assert_eq!(
        (&made["sessions"], &made["repositories"], &made["lacking"]),
        (&json!(3), &json!(3), &json!([]))
    );
    refused(run(&product, &["backup", place]), "backup_target_not_empty");
    // What comes after it is not in it.
    let late = ada.create_session("shop").await;
    let mode = |name: &str| fs::metadata(target.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(["", "catalog.db", "secret.key"].map(mode), [0o700, 0o600, 0o600]);
    let events = ada.events(&session).await;
    let pull_requests = ada.must_get("/v1/pull-requests").await;
    refused(run(&product, &["restore", place]), "data_dir_in_use");
    product.stop();
    refused(run(&product, &["restore", place]), "data_dir_not_empty");
    fs::rename(product.data_dir(), product.root().join("lost")).unwrap();
    refused(
        run(&product, &["backup", &format!("{place}-two")]),
        "data_dir_missing",
    );

    // Somewhere else, also where an earlier try was cut off.
    let draft = product.data_dir().join(".restoring");
    fs::create_dir_all(draft.join("forge")).unwrap();
    fs::create_dir(product.data_dir().join("sessions")).unwrap();
    fs::write(draft.join("catalog.db"), "half").unwrap();
    give_to_owner_of_parent(&product.data_dir());
    let restored = run(&product, &["restore", place]).unwrap();
    assert_eq!(restored, made);
    assert!(!draft.exists());
    let api = product.start().await;
    let ada = api.with_token(&ada.token);
    assert_eq!(ada.events(&session).await[..events.len()], events[..]);
    assert_eq!(ada.must_get("/v1/pull-requests").await, pull_requests);
    let diff = ada.must_get("/v1/repositories/answer/pull-requests/1/diff").await;
    assert_eq!(diff["files"][0]["path"], "answer.txt", "{diff}");
    assert!(api.must_get("/v1/secrets").await.to_string().contains("TOKEN"));
    assert_eq!(ada.get(&format!("/v1/sessions/{late}")).await.0, 404);
    // What was cut goes on; files that are in no repository are there.
    ada.wait_for(&waiting, "its turn to go on", |events| {
        !of_type(events, "turn.resumed").is_empty()
    })
    .await;
    assert_eq!(ada.prompt(&session, "again", "show").await.0, 202);
    let events = ada.wait_for_turns(&session, 2).await;
    assert!(
        outputs(&events).last().unwrap().starts_with("kept\n"),
        "{}",
        pretty(&events)
    );
    ada.wait_for_turns(&waiting, 1).await;
    product.stop();
}

#[tokio::test]
async fn what_cannot_be_read_is_left_out_and_said_so() {
    let mut product = product();
    let api = start(&mut product).await;
    let (whole, damaged) = (api.create_session("shop").await, api.create_session("shop").await);
    product.stop();
    let file = |session: &str| {
        let end = &session[session.len() - 2..];
        product
            .data_dir()
            .join("sessions")
            .join(end)
            .join(session)
            .join("session.db")
    };
    let mut bytes = fs::read(file(&damaged)).unwrap();
    let middle = bytes.len() / 2;
    bytes[4096..middle].fill(0xa5);
    fs::write(file(&damaged), bytes).unwrap();

    let target = product.root().join("backup");
    let place = target.to_str().unwrap();
    let said = run(&product, &["backup", place]).unwrap_err();
    assert!(
        said.contains("error[backup_lacks_something]") && said.contains(&damaged),
        "{said}"
    );
    fs::rename(product.data_dir(), product.root().join("lost")).unwrap();
    run(&product, &["restore", place]).unwrap();
    let api = product.start().await;
    let listed = api.must_get("/v1/sessions").await;
    let ids: Vec<_> = listed["sessions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, [whole.as_str()]);
    product.stop();

    // One that was cut off is none.
    fs::rename(product.data_dir(), product.root().join("lost-too")).unwrap();
    fs::remove_file(target.join("backup.json")).unwrap();
    refused(run(&product, &["restore", place]), "backup_unusable");
    let nowhere = Path::new("/nowhere/at/all");
    refused(
        run(&product, &["restore", nowhere.to_str().unwrap()]),
        "backup_unusable",
    );
    assert!(!product.data_dir().join("catalog.db").exists());
}
