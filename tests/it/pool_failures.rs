//! What is wrong with a sandbox of the warm pool never reaches a session, and a session that cannot begin gives its sandbox back.

use crate::script::{add, commands, outputs};
use greenroom_system_tests::api::{Api, of_type, pretty};
use greenroom_system_tests::product::{Product, Who};
use greenroom_system_tests::repo;
use serde_json::json;
use std::collections::HashSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

greenroom_system_tests::for_both_users! {
    a_sandbox_that_cannot_run_a_program_is_never_offered,
    a_sandbox_goes_back_when_its_session_cannot_have_it,
}

const PATIENCE: Duration = Duration::from_secs(40);
const POOL: &str = "[pool]\nminimum = 1\nmaximum = 1\n";

/// Takes the workspace away after the checkout, so that no program starts in it.
const BREAKS: &str = "\n[[services]]\nname = \"breaker\"\ncommand = \"chmod 0 /workspace; echo broken; exec sleep 1000\"\n\
    ready_output = \"broken\"\n";

/// Takes so long to start that nothing replaces what was taken for a while.
const SLOW: &str = "\n[[services]]\nname = \"slow\"\ncommand = \"sleep 3; touch ~/up; echo up; exec sleep 1000\"\nready_output = \"up\"\n";

async fn start(product: &mut Product, environment: &str) -> (Api, PathBuf) {
    let files = [
        ("README.md", "A shop.\n"),
        (".greenroom/environment.toml", environment),
    ];
    let source = repo::with_files(product.root(), "shop", &files);
    let api = product.start().await;
    add(&api, "shop", &source).await;
    (api, source)
}

fn product(who: Who) -> Product {
    let script = commands(&[("look", "cat README.md")]);
    let mut product = Product::with_config(&script, "[image]\nschedule = \"off\"\n");
    product.run_as(who);
    product
}

fn sandboxes(product: &Product) -> HashSet<String> {
    std::fs::read_dir(product.sandboxes().join("sb"))
        .map(|entries| {
            entries
                .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
                .collect()
        })
        .unwrap_or_default()
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn metric(api: &Api, line: &str) -> usize {
    let text = api.text("/metrics").await;
    let value = text.lines().find_map(|found| found.strip_prefix(line));
    value.map_or(0, |value| value.trim().parse().unwrap())
}

/// Whether whoever types is told that a sandbox waits.
async fn is_offered(api: &Api) -> bool {
    let (status, report) = api.post("/v1/repositories/shop/typing", json!({})).await;
    assert!(matches!(status, 202 | 429), "{status} {report}");
    tokio::time::sleep(Duration::from_millis(550)).await;
    report["sandbox"] == "ready"
}

async fn a_sandbox_that_cannot_run_a_program_is_never_offered(who: Who) {
    let mut product = product(who);
    let (api, source) = start(&mut product, &format!("{POOL}{BREAKS}")).await;
    let failures = "greenroom_pool_start_failures_total{code=\"sandbox_unusable\"}";
    until("a sandbox is found unusable", async || {
        assert!(!is_offered(&api).await, "it was offered");
        metric(&api, failures).await >= 1
    })
    .await;
    until("it is removed", async || sandboxes(&product).is_empty()).await;
    assert!(product.log().contains("sandbox_unusable"), "{}", product.log());
    // Not tried again and again; an environment that was mended is tried at once.
    let failed = metric(&api, failures).await;
    let repository = api.must_get("/v1/repositories/shop").await;
    let url = repo::with_token(repository["clone_url"].as_str().unwrap(), &api.token);
    std::fs::write(source.join(".greenroom/environment.toml"), POOL).unwrap();
    repo::git(&source, &["commit", "-q", "-am", "Mend it"]);
    repo::git(&source, &["push", "-q", &url, "main"]);
    until("a usable one is offered", async || is_offered(&api).await).await;
    assert_eq!(metric(&api, failures).await, failed);
    let session = api.start_session("shop", "look").await;
    let events = api.wait_for_turns(&session, 1).await;
    assert!(outputs(&events)[0].starts_with("A shop."), "{}", pretty(&events));
    assert_eq!(
        metric(&api, "greenroom_first_sandboxes_total{from=\"pool\"}").await,
        1
    );
    product.stop();
}

async fn a_sandbox_goes_back_when_its_session_cannot_have_it(who: Who) {
    let mut product = product(who);
    for part in ["sandbox", "effect", "claim"] {
        product.expect_warning(part);
    }
    let (api, _) = start(&mut product, &format!("{POOL}{SLOW}")).await;
    let is_up = |id: &String| {
        let sandbox = product.sandboxes().join("sb").join(id);
        sandbox.join("upper/home/agent/up").exists()
    };
    until("one is up", async || sandboxes(&product).iter().any(is_up)).await;
    // Asking by typing would have another one started. It is checked and frozen right after this.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let waiting = sandboxes(&product);
    assert_eq!(waiting.len(), 1);
    // A disk that fails just then.
    let catalog = rusqlite::Connection::open(product.data_dir().join("catalog.db")).unwrap();
    catalog.busy_timeout(Duration::from_secs(5)).unwrap();
    catalog
        .execute_batch(
            "CREATE TRIGGER refuse BEFORE INSERT ON sandboxes BEGIN SELECT RAISE(ABORT, 'refused by a test'); END",
        )
        .unwrap();
    let refused = api.start_session("shop", "look").await;
    let events = api.wait_for_turns(&refused, 1).await;
    assert!(
        !pretty(&events).contains("A shop."),
        "the test refuses nothing: {}",
        pretty(&events)
    );
    let taken = metric(&api, "greenroom_first_sandboxes_total{from=\"pool\"}").await;
    assert!(taken >= 1, "it was never taken");
    catalog.execute_batch("DROP TRIGGER refuse").unwrap();
    // It waits again, not the one that was begun in its place.
    until("one is left", async || sandboxes(&product) == waiting).await;
    let session = api.start_session("shop", "look").await;
    let events = api.wait_for_turns(&session, 1).await;
    assert!(outputs(&events)[0].starts_with("A shop."), "{}", pretty(&events));
    let states = of_type(&events, "sandbox.state_changed");
    assert!(
        waiting.contains(states[0]["sandbox_id"].as_str().unwrap()),
        "{}",
        pretty(&events)
    );
    product.stop();
}
