//! A sandbox that nobody uses stands still, with its services, until somebody does.

use crate::script::{add, assert_completed, commands, outputs};
use greenroom_system_tests::api::{Api, pretty};
use greenroom_system_tests::product::{Product, Who};
use greenroom_system_tests::repo;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

greenroom_system_tests::for_both_users! {
    an_unused_sandbox_stands_still_until_somebody_uses_it,
    one_that_stands_still_is_found_by_the_next_server_and_stops_in_order,
}

const PATIENCE: Duration = Duration::from_secs(40);

/// Writes as long as it goes on. In the home directory, so that no change of the workspace is told each time.
const ENVIRONMENT: &str = r#"
[[services]]
name = "tick"
command = "while :; do date +%s%N > ~/next; mv ~/next ~/tick; sleep 0.02; done"
"#;

async fn shop(product: &mut Product) -> Api {
    let files = [
        ("README.md", "A shop.\n"),
        (".greenroom/environment.toml", ENVIRONMENT),
    ];
    let source = repo::with_files(product.root(), "shop", &files);
    let api = product.start().await;
    add(&api, "shop", &source).await;
    api
}

fn product(who: Who, more: &str) -> Product {
    let script = commands(&[
        ("begin", "echo begun > note"),
        ("again", "cat note ~/tick"),
        (
            "job",
            "nohup sh -c 'until [ -e go ]; do sleep 0.05; done' > /dev/null & echo",
        ),
        ("end", "touch go"),
    ]);
    let config = format!("\n[sandbox]\nstill_seconds = 0.3\n{more}");
    let mut product = Product::with_config(&script, &config);
    product.run_as(who);
    product
}

async fn still(api: &Api) -> bool {
    let metrics = api.text("/metrics").await;
    metrics.lines().any(|line| line == "greenroom_sandboxes_still 1")
}

async fn wait_until_still(api: &Api) {
    let deadline = Instant::now() + PATIENCE;
    while !still(api).await {
        assert!(Instant::now() < deadline, "it goes on");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Where the service writes, as the machine sees it.
fn tick(product: &Product) -> PathBuf {
    let sandboxes = std::fs::read_dir(product.sandboxes().join("sb")).unwrap();
    let mut places = sandboxes.map(|entry| entry.unwrap().path().join("upper/home/agent/tick"));
    places.find(|place| place.exists()).expect("the service wrote")
}

fn wait_until_it_goes_on(tick: &Path) {
    let last = std::fs::read(tick).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while std::fs::read(tick).unwrap() == last {
        assert!(Instant::now() < deadline, "it stands still");
        std::thread::sleep(Duration::from_millis(10));
    }
}

async fn an_unused_sandbox_stands_still_until_somebody_uses_it(who: Who) {
    let mut product = product(who, "");
    let api = shop(&mut product).await;
    let session = api.start_session("shop", "begin").await;
    api.wait_for_turns(&session, 1).await;
    wait_until_still(&api).await;
    let tick = tick(&product);
    let last = std::fs::read(&tick).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(
        last,
        std::fs::read(&tick).unwrap(),
        "a service of a sandbox that stands still"
    );

    // Whoever asks it something is answered.
    let diff = api
        .must_get(&format!("/v1/sessions/{session}/diff?live=true"))
        .await;
    assert_eq!(diff["source"], "workspace", "{diff}");
    wait_until_it_goes_on(&tick);
    wait_until_still(&api).await;
    let listed = api.must_get(&format!("/v1/sessions/{session}/services")).await;
    assert_eq!(listed["services"][0]["state"], "ready", "{listed}");

    // It goes on as long as somebody has a terminal in it.
    let mut shell = product
        .command(&["session", "shell", &session])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut typed = shell.stdin.take().unwrap();
    typed.write_all(b"touch ~/here\n").unwrap();
    let here = tick.with_file_name("here");
    let deadline = Instant::now() + PATIENCE;
    while !here.exists() {
        assert!(Instant::now() < deadline, "the terminal does nothing");
        std::thread::sleep(Duration::from_millis(10));
    }
    for _ in 0..20 {
        assert!(!still(&api).await);
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(typed);
    assert!(shell.wait().unwrap().success());
    wait_until_still(&api).await;

    // A turn finds all as it was, and what its agent's command left running keeps it going.
    assert_eq!(api.prompt(&session, "again", "again").await.0, 202);
    let events = api.wait_for_turns(&session, 2).await;
    assert_completed(&events);
    assert!(
        outputs(&events).concat().contains("begun\n1"),
        "{}",
        pretty(&events)
    );
    assert_eq!(api.prompt(&session, "job", "job").await.0, 202);
    api.wait_for_turns(&session, 3).await;
    for _ in 0..20 {
        assert!(!still(&api).await);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(api.prompt(&session, "end", "end").await.0, 202);
    assert_completed(&api.wait_for_turns(&session, 4).await);
    wait_until_still(&api).await;
    product.stop();
}

async fn one_that_stands_still_is_found_by_the_next_server_and_stops_in_order(who: Who) {
    let mut product = product(who, "");
    let api = shop(&mut product).await;
    let session = api.start_session("shop", "begin").await;
    api.wait_for_turns(&session, 1).await;
    wait_until_still(&api).await;
    let tick = tick(&product);
    product.kill();
    let api = product.start().await;
    wait_until_it_goes_on(&tick);
    wait_until_still(&api).await;
    assert_eq!(api.prompt(&session, "again", "again").await.0, 202);
    let events = api.wait_for_turns(&session, 2).await;
    assert_completed(&events);
    wait_until_still(&api).await;
    // Also when the server ends: nothing of it is left.
    product.stop();
    let events = {
        let api = product.start().await;
        let events = api.events(&session).await;
        product.stop();
        events
    };
    assert!(
        outputs(&events).concat().contains("begun\n1"),
        "{}",
        pretty(&events)
    );
}
