//! kill -9 at every step and at any moment of builds, seals, claims, snapshots, forks and collections, all of them at once: after each
//! restart the last good image serves, what was accepted is done, and at the end nothing lies on disk that nobody needs.

use crate::aftermath::{Accepted, everything_accepted_is_done, nothing_is_left};
use crate::images::build;
use crate::script::{add, commands};
use greenroom_system_tests::api::Api;
use greenroom_system_tests::product::{Product, Who};
use greenroom_system_tests::random::{Random, cycles};
use greenroom_system_tests::repo;
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

greenroom_system_tests::for_both_users! {
    nothing_is_lost_or_left_by_a_kill_at_any_step,
    nothing_is_lost_or_left_by_kills_at_random_points,
}

/// Where the program can be told to end (`greenroom_stdx::step`).
const STEPS: [&str; 32] = [
    "command.done",
    "build.requested",
    "build.cloned",
    "build.step",
    "build.built",
    "build.reaped",
    "build.searched",
    "build.sealed",
    "build.ended",
    "build.published",
    "seal.named",
    "seal.moved",
    "record.drafted",
    "record.written",
    "record.synced",
    "record.removed",
    "collect.unnoted",
    "collect.renamed",
    "collect.removed",
    "pool.started",
    "pool.frozen",
    "claim.booked",
    "claim.thawed",
    "claim.kept",
    "claim.synced",
    "claim.ready",
    "copy.copied",
    "copy.published",
    "snapshot.taken",
    "snapshot.listed",
    "snapshot.unlisted",
    "fork.copied",
];

/// Within which all that [`work`] does reaches each step.
const PATIENCE: Duration = Duration::from_secs(60);

const ENVIRONMENT: &str =
    "setup = \"echo made > ~/made\"\nbuild = \"date > built\"\n\n[pool]\nminimum = 1\nmaximum = 2\n";

/// Asks, and takes no answer for one that did not come.
async fn ask(api: &Api, method: Method, path: &str, key: Option<&str>, body: Value) -> Option<Value> {
    let mut request = api.request(method, path).json(&body);
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    let answer = request.send().await.ok()?;
    let is_success = answer.status().is_success();
    let answer = answer.json().await.ok();
    answer.filter(|_| is_success)
}

/// What people do at once; each step may be the last.
async fn work(api: Api, cycle: usize, known: Vec<String>, accepted: Arc<Mutex<Accepted>>) {
    let build_key = format!("build{cycle}");
    let builds = ask(
        &api,
        Method::POST,
        "/v1/repositories/shop/images",
        Some(&build_key),
        // Otherwise its steps may all be done already.
        json!({"from_scratch": cycle.is_multiple_of(2)}),
    );
    let sessions = async {
        let body = json!({"repository": "shop", "prompt": "work"});
        let key = format!("new{cycle}");
        if let Some(made) = ask(&api, Method::POST, "/v1/sessions", Some(&key), body).await {
            let id = made["session"]["id"].as_str().unwrap().to_owned();
            accepted.lock().unwrap().turns.insert(id, 1);
        }
    };
    let types = ask(
        &api,
        Method::POST,
        "/v1/repositories/shop/typing",
        None,
        json!({}),
    );
    let copies = async {
        let Some(session) = known.get(cycle % known.len().max(1)) else {
            return;
        };
        let snapshots = format!("/v1/sessions/{session}/snapshots");
        if let Some(taken) = ask(&api, Method::POST, &snapshots, None, json!({})).await {
            let id = taken["id"].as_str().unwrap().to_owned();
            accepted.lock().unwrap().snapshots.push((session.clone(), id));
        }
        let (path, key) = (format!("/v1/sessions/{session}/forks"), format!("fork{cycle}"));
        let body = json!({"count": 2, "prompt": "work"});
        if let Some(forked) = ask(&api, Method::POST, &path, Some(&key), body).await {
            for made in forked["sessions"].as_array().unwrap() {
                let id = made["session"]["id"].as_str().unwrap().to_owned();
                // With those of the session before.
                accepted.lock().unwrap().turns.insert(id, 1);
            }
        }
        if let Some(listed) = ask(&api, Method::GET, &snapshots, None, json!({})).await
            && let Some(oldest) = listed["snapshots"].as_array().unwrap().last()
        {
            let id = oldest["id"].as_str().unwrap();
            let removed = format!("{snapshots}/{id}");
            accepted.lock().unwrap().snapshots.retain(|(_, kept)| kept != id);
            ask(&api, Method::DELETE, &removed, None, json!({})).await;
        }
    };
    tokio::join!(builds, sessions, types, copies);
}

/// A server with a repository, an image of it and a sandbox that waits.
async fn begin(who: Who, kill_file: Option<&str>) -> (Product, Api) {
    let script = commands(&[("work", "cat ~/made; echo work >> work.txt")]);
    let mut product = Product::with_config(&script, "[image]\nschedule = \"off\"\n\n[snapshot]\nkeep = 2\n");
    if let Some(name) = kill_file {
        let path = product.root().join(name);
        product.set_env("GREENROOM_TEST_KILL_FILE", path.to_str().unwrap());
    }
    product.run_as(who);
    // Whoever was cut off may say so.
    for part in [
        "sandbox not ready",
        "no snapshot was taken",
        "a snapshot is forgotten",
        "a layer is not removed yet",
    ] {
        product.expect_warning(part);
    }
    let files = [
        ("README.md", "A shop.\n"),
        (".greenroom/environment.toml", ENVIRONMENT),
    ];
    let source = repo::with_files(product.root(), "shop", &files);
    let api = product.start().await;
    add(&api, "shop", &source).await;
    assert_eq!(build(&api).await["state"], "published");
    (product, api)
}

async fn last_good_image_serves(api: &Api) {
    let images = api.must_get("/v1/repositories/shop/images").await;
    assert!(images["current"].is_string(), "{images}");
}

async fn nothing_is_lost_or_left_by_a_kill_at_any_step(who: Who) {
    let mut steps = steps_in_sources();
    // `archive.rs` has those of deletions.
    steps.retain(|step| !step.starts_with("deletion."));
    assert_eq!(BTreeSet::from(STEPS.map(str::to_owned)), steps);
    let (mut product, mut api) = begin(who, Some("kill-at")).await;
    let kill_file = product.root().join("kill-at");
    let accepted = Arc::new(Mutex::new(Accepted::default()));
    let mut round = 0;
    for step in STEPS {
        std::fs::write(&kill_file, step).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while !product.has_ended() {
            assert!(Instant::now() < deadline, "{step} is never reached");
            let known: Vec<String> = accepted.lock().unwrap().turns.keys().cloned().collect();
            work(api.clone(), round, known, accepted.clone()).await;
            round += 1;
            // What was accepted goes on in the background, and a sandbox gets ready for the next one.
            for _ in 0..50 {
                if product.has_ended() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        std::fs::remove_file(&kill_file).unwrap();
        api = product.start().await;
        last_good_image_serves(&api).await;
    }
    let accepted = std::mem::take(&mut *accepted.lock().unwrap());
    everything_accepted_is_done(&api, &accepted).await;
    nothing_is_left(&mut product, &accepted).await;
}

/// All that the sources name, so that none is forgotten here.
pub fn steps_in_sources() -> BTreeSet<String> {
    fn look(directory: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                look(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let named = text.split("step::reached(\"").skip(1);
                found.extend(named.map(|rest| rest.split('"').next().unwrap().to_owned()));
            }
        }
    }
    let mut found = BTreeSet::new();
    look(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates"),
        &mut found,
    );
    found
}

async fn nothing_is_lost_or_left_by_kills_at_random_points(who: Who) {
    // Those of the host's tests, for which the number is, are cheaper.
    let cycles = cycles(500).div_ceil(50);
    let mut random = Random::new();
    let (mut product, mut api) = begin(who, None).await;
    let accepted = Arc::new(Mutex::new(Accepted::default()));
    for cycle in 0..cycles {
        let known: Vec<String> = accepted.lock().unwrap().turns.keys().cloned().collect();
        let working = tokio::spawn(work(api.clone(), cycle, known, accepted.clone()));
        // Short ones often: most steps take milliseconds.
        let longest = [20, 100, 400, 1500][random.below(4) as usize];
        let pause = match cycle % 5 {
            // So that there is something to be copied.
            0 => 1500,
            _ => random.below(longest),
        };
        tokio::time::sleep(Duration::from_millis(pause)).await;
        product.kill();
        working.await.unwrap();
        api = product.start().await;
        last_good_image_serves(&api).await;
    }
    let accepted = std::mem::take(&mut *accepted.lock().unwrap());
    assert!(
        accepted.turns.len() >= 2,
        "next to nothing was accepted before the kills"
    );
    everything_accepted_is_done(&api, &accepted).await;
    nothing_is_left(&mut product, &accepted).await;
}
