//! Files that change in the workspace are told as they change, and the diff against the base is shown while a turn runs.

use crate::links::link;
use crate::script::{add, commands};
use greenroom_system_tests::api::{Api, assert_gapless, is_event, of_type, pretty};
use greenroom_system_tests::product::{Product, Who};
use greenroom_system_tests::repo;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::Output;

greenroom_system_tests::for_both_users! {
    changes_are_told_and_the_diff_is_live,
}

const FILES: &[(&str, &str)] = &[
    ("README.md", "A shop.\nIt sells.\n"),
    ("old.txt", "old\n"),
    ("moved.txt", "one\ntwo\nthree\nfour\nfive\nsix\n"),
    (".gitignore", "/build/\n*.log\n"),
];

/// What each path became, over all events.
fn told(events: &[Value]) -> BTreeMap<String, String> {
    of_type(events, "workspace.changed")
        .into_iter()
        .flat_map(|event| event["files"].as_array().unwrap())
        .map(|file| {
            let text = |name: &str| file[name].as_str().unwrap().to_owned();
            (text("path"), text("kind"))
        })
        .collect()
}

/// Path, what became of it, and its lines, of every file in a diff.
fn files(diff: &Value) -> Vec<String> {
    let files = diff["files"].as_array().unwrap().iter();
    files
        .map(|file| {
            let status = file["status"].as_str().unwrap();
            let path = file["path"].as_str().unwrap();
            format!("{status} {path} +{} -{}", file["additions"], file["deletions"])
        })
        .collect()
}

async fn live(api: &Api, session: &str) -> Value {
    api.must_get(&format!("/v1/sessions/{session}/diff?live=true"))
        .await
}

/// Waits until these paths were told of.
async fn wait_until_told(api: &Api, session: &str, paths: &[&str]) {
    let mut stream = api.stream(session, 0).await;
    let seen = std::cell::RefCell::new(BTreeMap::new());
    stream
        .until(|frame| {
            if is_event(frame, "workspace.changed") {
                seen.borrow_mut()
                    .extend(told(std::slice::from_ref(&frame["event"])));
            }
            paths.iter().all(|path| seen.borrow().contains_key(*path))
        })
        .await;
}

async fn changes_are_told_and_the_diff_is_live(who: Who) {
    let script = commands(&[(
        "work",
        "echo more >> README.md; rm old.txt; mkdir build src; echo x > build/out; echo y > src/dev.log; printf 'fn main() {}\\n' > 'src/a b.rs'; \
         mv moved.txt src/moved.txt; ln -s README.md link; head -c 17000000 /dev/zero > big.bin; sleep 600",
    )]);
    let mut product = Product::with_script(&script);
    product.run_as(who);
    let source = repo::with_files(product.root(), "shop", FILES);
    let api = product.start().await;
    add(&api, "shop", &source).await;
    let (ada, _) = api.add_person("Ada").await;
    let session = ada.start_session("shop", "work").await;
    wait_until_told(
        &ada,
        &session,
        &["README.md", "old.txt", "src/a b.rs", "link", "big.bin"],
    )
    .await;

    // While the turn runs: nothing is pushed, and the files are seen as they are.
    let diff = live(&ada, &session).await;
    let expected = [
        "modified README.md +1 -0",
        "added link +1 -0",
        "deleted old.txt +0 -1",
        "added src/a b.rs +1 -0",
        "renamed src/moved.txt +0 -0",
    ];
    assert_eq!(files(&diff), expected, "{diff}");
    assert_eq!(diff["source"], "workspace");
    // The one file that is too large.
    assert_eq!(diff["is_truncated"], true);
    assert!(
        diff["files"][0]["patch"].as_str().unwrap().contains("\n+more\n"),
        "{diff}"
    );
    let pushed = ada.must_get(&format!("/v1/sessions/{session}/diff")).await;
    assert_eq!(
        (files(&pushed).len(), pushed["source"].as_str()),
        (0, Some("pushed"))
    );
    let (_, token) = link(&ada, &session, json!({ "kind": "share" })).await;
    let guest = api.with_token(&token);
    let (one, two, three) = tokio::join!(live(&guest, &session), live(&api, &session), live(&ada, &session));
    assert!(
        [&one, &two, &three]
            .into_iter()
            .all(|other| other["files"] == diff["files"])
    );
    let (status, wrong) = ada
        .get(&format!("/v1/sessions/{session}/diff?live=perhaps"))
        .await;
    assert_eq!(
        (status, wrong["code"].as_str()),
        (422, Some("query_invalid")),
        "{wrong}"
    );

    // Looking changed nothing: what is committed is what was seen, and it is told what became of each path.
    assert_eq!(
        ada.post(&format!("/v1/sessions/{session}/stop"), json!({}))
            .await
            .0,
        202
    );
    let events = ada.wait_for_turns(&session, 1).await;
    assert_gapless(&events);
    let kinds = told(&events);
    for (path, kind) in [
        ("README.md", "modified"),
        ("old.txt", "removed"),
        ("src/a b.rs", "created"),
        ("src/moved.txt", "created"),
        ("moved.txt", "removed"),
        ("link", "created"),
    ] {
        assert_eq!(
            kinds.get(path).map(String::as_str),
            Some(kind),
            "{path} of {kinds:?}"
        );
    }
    assert!(
        !kinds
            .keys()
            .any(|path| path.starts_with("build/") || path.contains(".git/")),
        "{kinds:?}"
    );
    let pushed = ada.must_get(&format!("/v1/sessions/{session}/diff")).await;
    let mut expected = expected.to_vec();
    expected.insert(1, "added big.bin +0 -0");
    assert_eq!(files(&pushed), expected, "{}", product.log());

    // By the command line, and from the forge once the sandbox rests.
    let diff = |arguments: &[&str]| {
        let Output {
            status,
            stdout,
            stderr,
        } = product.run(&[&["session", "diff", &session], arguments].concat());
        assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).unwrap()
    };
    let printed = diff(&["--pushed"]);
    assert!(
        printed.contains("+++ b/src/a b.rs\t\n") && printed.contains("\n+more\n"),
        "{printed}"
    );
    assert!(diff(&[]).contains("\n+more\n"));
    let archived = json!({ "is_archived": true });
    assert_eq!(
        ada.patch(&format!("/v1/sessions/{session}"), archived).await.0,
        200
    );
    let rested: Value = serde_json::from_str(&diff(&["--json"])).unwrap();
    assert_eq!(
        (files(&rested), rested["source"].as_str()),
        (files(&pushed), Some("pushed"))
    );
    product.stop();
}

#[tokio::test]
async fn a_program_that_writes_all_the_time_does_not_fill_the_log() {
    let mut product = Product::with_script(&commands(&[(
        "write",
        "for i in $(seq 400); do echo $i > file$((i % 150)); sleep 0.01; done",
    )]));
    let source = repo::with_files(product.root(), "shop", FILES);
    let api = product.start().await;
    add(&api, "shop", &source).await;
    let session = api.start_session("shop", "write").await;
    let events = api.wait_for_turns(&session, 1).await;
    let all = of_type(&events, "workspace.changed");
    let writes = of_type(&events, "workspace.changed")
        .into_iter()
        .map(|event| event["files"].as_array().unwrap().len());
    assert!(all.len() > 1, "{}", pretty(&events));
    // Whatever the machine's speed: a second lies between two of them.
    let times: Vec<_> = all.iter().map(|event| event["at_ms"].as_i64().unwrap()).collect();
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= 900), "{times:?}");
    assert!(
        writes.into_iter().all(|files| files <= 100),
        "{}",
        pretty(&events)
    );
    product.stop();
}

#[tokio::test]
async fn what_an_agent_does_to_its_repository_breaks_no_more_than_its_diff() {
    let mut product = Product::with_script(&commands(&[
        (
            "ruin",
            "rm -rf .git/index; mkdir .git/index; git config core.fsmonitor 'touch /tmp/ran; false'; echo x > y",
        ),
        ("remove", "rm -rf .git; echo x > z"),
    ]));
    let source = repo::with_files(product.root(), "shop", FILES);
    let api = product.start().await;
    add(&api, "shop", &source).await;
    let session = api.start_session("shop", "ruin").await;
    api.wait_for_turns(&session, 1).await;
    let diff = live(&api, &session).await;
    assert_eq!(files(&diff), ["added y +1 -0"]);
    assert_eq!(api.prompt(&session, "remove", "remove").await.0, 202);
    api.wait_for_turns(&session, 2).await;
    let (status, problem) = api.get(&format!("/v1/sessions/{session}/diff?live=true")).await;
    assert_eq!(
        (status, problem["code"].as_str()),
        (409, Some("live_diff_failed")),
        "{problem}"
    );
    assert!(
        problem["message"]
            .as_str()
            .unwrap()
            .contains("the repository is gone"),
        "{problem}"
    );
    assert_eq!(api.get(&format!("/v1/sessions/{session}/diff")).await.0, 200);
    product.stop();
}

#[tokio::test]
async fn a_sandbox_that_outlives_its_server_tells_on() {
    let mut product = Product::with_script(&commands(&[(
        "write",
        "(while true; do date >> clock.txt; sleep 0.2; done > /dev/null 2>&1 &)",
    )]));
    let source = repo::with_files(product.root(), "shop", FILES);
    let api = product.start().await;
    add(&api, "shop", &source).await;
    let session = api.start_session("shop", "write").await;
    api.wait_for_turns(&session, 1).await;
    product.kill();
    let api = product.start().await;
    // No turn looks after it.
    let last = api.events(&session).await.last().unwrap()["seq"]
        .as_u64()
        .unwrap();
    let mut stream = api.stream(&session, last).await;
    let frames = stream.until(|frame| is_event(frame, "workspace.changed")).await;
    let event = &frames.last().unwrap()["event"];
    assert_eq!(event["files"][0]["path"], "clock.txt", "{event}");
    product.stop();
}
