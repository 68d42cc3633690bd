//! The warm pool: sandboxes that are ready before anybody asks, for sessions and for people who type.

use crate::script::{add, commands, outputs};
use futures_util::future::join_all;
use greenroom_system_tests::api::{Api, of_type, pretty};
use greenroom_system_tests::product::{Product, Who};
use greenroom_system_tests::repo;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

greenroom_system_tests::for_both_users! {
    sessions_take_sandboxes_that_wait_each_its_own,
    what_the_environment_runs_goes_on_in_the_session,
    a_sandbox_waits_for_whoever_types,
    what_waits_follows_the_branch_the_environment_and_the_image,
    nothing_of_the_pool_outlives_the_server,
    what_waits_makes_room_and_never_exceeds_the_bounds,
}

const PATIENCE: Duration = Duration::from_secs(40);

/// Sessions that begin at the same moment.
const RACING: usize = 16;

const LOOK: &str = "cat README.md ~/made; git branch --show-current | cut -c1-10; git log -1 --format=%s; git status --porcelain; \
    echo mine > mine.txt";

async fn start(product: &mut Product, environment: &str) -> (Api, PathBuf) {
    let source = repo::with_files(
        product.root(),
        "shop",
        &[
            ("README.md", "A shop.\n"),
            (".greenroom/environment.toml", environment),
        ],
    );
    let api = product.start().await;
    add(&api, "shop", &source).await;
    (api, source)
}

fn product(who: Who) -> Product {
    let config =
        "[image]\nschedule = \"off\"\n\n[pool]\nmax_per_repository = 8\n\n[sandbox]\nmax_running = 40\n";
    let mut product = Product::with_config(&commands(&[("look", LOOK)]), config);
    product.run_as(who);
    product
}

/// Waits until so many sandboxes of the pool are there; returns the ids of all sandboxes.
async fn waiting(product: &Product, count: usize) -> HashSet<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found: HashSet<String> = std::fs::read_dir(product.sandboxes().join("sb"))
            .unwrap()
            .map(|entry| entry.unwrap())
            // The checkout's mark is the last that is made.
            .filter(|entry| entry.path().join("upper/home/agent/.greenroom/image").exists())
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        if found.len() >= count {
            return found;
        }
        assert!(Instant::now() < deadline, "{} instead of {count}", found.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn metric(api: &Api, line: &str) -> String {
    let text = api.text("/metrics").await;
    text.lines()
        .find_map(|found| found.strip_prefix(line))
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// Waits until so many sandboxes can be taken.
async fn offered(api: &Api, kind: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (status, report) = api
            .post(&format!("/v1/repositories/{kind}/typing"), json!({}))
            .await;
        if status == 202 && report["sandbox"] == "ready" {
            return;
        }
        assert!(matches!(status, 202 | 429), "{status} {report}");
        assert!(Instant::now() < deadline, "never ready: {report}");
        tokio::time::sleep(Duration::from_millis(600)).await;
    }
}

fn sandbox_of(events: &[Value]) -> String {
    let states = of_type(events, "sandbox.state_changed");
    states[0]["sandbox_id"].as_str().unwrap().to_owned()
}

async fn sessions_take_sandboxes_that_wait_each_its_own(who: Who) {
    let mut product = product(who);
    let (api, _) = start(&mut product, "[pool]\nminimum = 6\nmaximum = 8\n").await;
    let ready = waiting(&product, 6).await;
    // The check that follows the checkout.
    tokio::time::sleep(Duration::from_millis(500)).await;
    // All at once.
    let sessions = join_all((0..RACING).map(|_| api.start_session("shop", "look"))).await;
    let mut used = HashSet::new();
    for session in &sessions {
        let events = api.wait_for_turns(session, 1).await;
        let output = &outputs(&events)[0];
        assert!(output.starts_with("A shop.\n"), "{}", pretty(&events));
        assert!(
            output.contains("greenroom/\nFirst commit\n[exit code"),
            "{output}"
        );
        assert!(used.insert(sandbox_of(&events)), "two sessions have one sandbox");
    }
    assert!(used.intersection(&ready).count() >= 1, "none came from the pool");
    let from_pool = metric(&api, "greenroom_first_sandboxes_total{from=\"pool\"}").await;
    assert!(from_pool.parse::<usize>().unwrap() >= 1);
    // They are replaced, and what one session did is its own.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let session = api.start_session("shop", "look").await;
    let events = api.wait_for_turns(&session, 1).await;
    assert!(!outputs(&events)[0].contains("mine"), "{}", pretty(&events));
    // The pull request's way works from such a sandbox as from any other.
    assert!(
        !of_type(&events, "change.pushed").is_empty(),
        "{}",
        pretty(&events)
    );
    product.stop();
}

/// Such as an IDE's server, which takes long to start.
async fn what_the_environment_runs_goes_on_in_the_session(who: Who) {
    let script = commands(&[(
        "look",
        "cat ~/starts; sleep 0.3; kill -0 $(cat ~/starts) && echo alive",
    )]);
    let mut product = Product::with_config(&script, "[image]\nschedule = \"off\"\n");
    product.run_as(who);
    let environment = "[pool]\nminimum = 1\nmaximum = 1\n\n[[services]]\nname = \"ide\"\n\
        command = \"echo $$ >> ~/starts; sleep 1; touch ~/ready; while :; do echo >> ~/ticks; sleep 0.02; done\"\n\
        ready_command = \"test -e ~/ready\"\n";
    let (api, _) = start(&mut product, environment).await;
    offered(&api, "shop").await;
    // What waits stands still.
    let ticks = || -> BTreeMap<String, u64> {
        let sandboxes = std::fs::read_dir(product.sandboxes().join("sb")).unwrap();
        let ticks = |entry: std::fs::DirEntry| {
            let file = entry.path().join("upper/home/agent/ticks");
            let ticks = std::fs::metadata(file).map_or(0, |found| found.len());
            (entry.file_name().to_string_lossy().into_owned(), ticks)
        };
        sandboxes.map(|entry| ticks(entry.unwrap())).collect()
    };
    let deadline = Instant::now() + PATIENCE;
    let mut before = ticks();
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let after = ticks();
        if after == before {
            break;
        }
        assert!(Instant::now() < deadline, "it runs while nobody uses it");
        before = after;
    }
    let session = api.start_session("shop", "look").await;
    let events = api.wait_for_turns(&session, 1).await;
    let used = sandbox_of(&events);
    assert!(ticks()[&used] > before[&used], "{before:?} {}", pretty(&events));
    assert_eq!(
        metric(&api, "greenroom_first_sandboxes_total{from=\"pool\"}").await,
        "1"
    );
    let said = &outputs(&events)[0];
    let started = said.lines().filter(|line| line.parse::<u32>().is_ok()).count();
    assert_eq!(started, 1, "started once, before the session: {said}");
    assert!(said.contains("alive"), "{said}");
    product.stop();
}

async fn a_sandbox_waits_for_whoever_types(who: Who) {
    let mut product = product(who);
    // No pool at all.
    let (api, _) = start(&mut product, "").await;
    let typing = "/v1/repositories/shop/typing";
    let (status, report) = api.post(typing, json!({})).await;
    assert_eq!((status, &report["sandbox"]), (202, &json!("starting")));
    let (status, refused) = api.post(typing, json!({})).await;
    assert_eq!((status, &refused["code"]), (429, &json!("rate_limited")));
    offered(&api, "shop").await;
    let ready = waiting(&product, 1).await;
    assert_eq!(ready.len(), 1, "one person, one sandbox");
    let session = api.start_session("shop", "look").await;
    let events = api.wait_for_turns(&session, 1).await;
    assert!(ready.contains(&sandbox_of(&events)), "{}", pretty(&events));
    assert_eq!(
        api.post("/v1/repositories/nowhere/typing", json!({})).await.0,
        404
    );
    let anonymous = api
        .anonymous()
        .post(format!("{}{typing}", api.url))
        .send()
        .await
        .unwrap();
    assert_eq!(anonymous.status(), 401);
    product.stop();
}

async fn what_waits_follows_the_branch_the_environment_and_the_image(who: Who) {
    let mut product = product(who);
    let environment = "setup = 'echo made > ~/made'\n[pool]\nminimum = 1\nmaximum = 1\n";
    let (api, source) = start(&mut product, environment).await;
    let push = async |file: &str, content: &str| {
        let repository = api.must_get("/v1/repositories/shop").await;
        let url = repo::with_token(repository["clone_url"].as_str().unwrap(), &api.token);
        std::fs::write(source.join(file), content).unwrap();
        repo::git(&source, &["commit", "-q", "-am", &format!("Change {file}")]);
        repo::git(&source, &["push", "-q", &url, "main"]);
    };
    let first = waiting(&product, 1).await;
    push("README.md", "A bigger shop.\n").await;
    // An image: what waited without it is replaced.
    let image = api.must_post("/v1/repositories/shop/images", json!({})).await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let image = api
            .must_get(&format!("/v1/images/{}", image["id"].as_str().unwrap()))
            .await;
        if image["state"] == "published" {
            break;
        }
        assert!(Instant::now() < deadline && image["state"] != "failed", "{image}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let deadline = Instant::now() + PATIENCE;
    while first
        .iter()
        .any(|id| product.sandboxes().join("sb").join(id).exists())
    {
        assert!(Instant::now() < deadline, "the old one never goes");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    offered(&api, "shop").await;
    let session = api.start_session("shop", "look").await;
    let events = api.wait_for_turns(&session, 1).await;
    let output = &outputs(&events)[0];
    assert!(output.starts_with("A bigger shop.\nmade\n"), "{output}");
    assert!(!first.contains(&sandbox_of(&events)));
    assert_eq!(
        metric(&api, "greenroom_first_sandboxes_total{from=\"pool\"}").await,
        "1"
    );
    // A commit after it was checked out: whoever takes it has that too.
    offered(&api, "shop").await;
    push("README.md", "The biggest shop.\n").await;
    let session = api.start_session("shop", "look").await;
    let events = api.wait_for_turns(&session, 1).await;
    let output = &outputs(&events)[0];
    assert!(output.starts_with("The biggest shop.\nmade\n"), "{output}");
    // An environment that cannot be used keeps nobody's sandboxes.
    push(
        ".greenroom/environment.toml",
        "setup = 'x'\n[pool]\nmaximum = -1\n",
    )
    .await;
    product.expect_warning("sandbox not ready");
    let session = api.start_session("shop", "look").await;
    let events = api.wait_for_turns(&session, 1).await;
    assert!(
        pretty(&events).contains("environment_invalid"),
        "{}",
        pretty(&events)
    );
    product.stop();
}

async fn nothing_of_the_pool_outlives_the_server(who: Who) {
    let mut product = product(who);
    let (api, _) = start(&mut product, "[pool]\nminimum = 2\nmaximum = 2\n").await;
    let first = waiting(&product, 2).await;
    product.kill();
    let api_again = product.start().await;
    drop(api);
    let second = waiting(&product, 2).await;
    assert!(
        second.is_disjoint(&first),
        "what a crash left is removed, and made anew"
    );
    let session = api_again.start_session("shop", "look").await;
    api_again.wait_for_turns(&session, 1).await;
    product.stop();
    let left: Vec<_> = std::fs::read_dir(product.sandboxes().join("sb"))
        .unwrap()
        .collect();
    assert_eq!(left.len(), 1, "only the session's own: {left:?}");
}

async fn what_waits_makes_room_and_never_exceeds_the_bounds(who: Who) {
    let config = "[image]\nschedule = \"off\"\n[sandbox]\nmax_running = 3\n[pool]\nmax_per_repository = 2\n";
    let mut product = Product::with_config(&commands(&[("look", LOOK)]), config);
    product.run_as(who);
    let (api, source) = start(&mut product, "[pool]\nminimum = 50\n").await;
    let report = api.must_get("/v1/repositories/shop/environment").await;
    let notice = report["notices"][0]["message"].as_str().unwrap();
    assert!(
        notice.starts_with("pool.minimum: 50 asked for, 2 given"),
        "{notice}"
    );
    waiting(&product, 2).await;
    let plain = repo::with_files(product.root(), "plain", &[("README.md", "Plain.\n")]);
    add(&api, "plain", &plain).await;
    let running = || {
        let sandboxes = std::fs::read_dir(product.sandboxes().join("sb")).unwrap();
        let is_running = |entry: &std::fs::DirEntry| entry.path().join("guest.sock").exists();
        sandboxes
            .filter(|entry| entry.as_ref().is_ok_and(is_running))
            .count()
    };
    for _ in 0..3 {
        let session = api.start_session("plain", "look").await;
        api.wait_for_turns(&session, 1).await;
        let count = running();
        assert!(count <= 3, "{count} run");
    }
    // What nobody can use does not wait.
    let repository = api.must_get("/v1/repositories/shop").await;
    let url = repo::with_token(repository["clone_url"].as_str().unwrap(), &api.token);
    std::fs::write(source.join(".greenroom/environment.toml"), "pool = 3").unwrap();
    repo::git(&source, &["commit", "-q", "-am", "Break it"]);
    repo::git(&source, &["push", "-q", &url, "main"]);
    let deadline = Instant::now() + PATIENCE;
    while metric(&api, "greenroom_pool_size").await != "0" {
        assert!(Instant::now() < deadline, "it still waits");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    product.stop();
}
