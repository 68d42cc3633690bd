//! kill -9 at any moment of builds, seals, claims, snapshots, forks and collections, all of them at once: after each restart the last
//! good image serves, what was accepted is done, and at the end nothing lies on disk that nobody needs.

use crate::images::build;
use crate::script::{add, commands, outputs};
use greenroom_system_tests::api::{Api, of_type, pretty};
use greenroom_system_tests::product::{Product, Who};
use greenroom_system_tests::repo;
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

greenroom_system_tests::for_both_users! {
    nothing_is_lost_or_left_by_kills_at_random_points,
}

const ENVIRONMENT: &str =
    "setup = \"echo made > ~/made\"\nbuild = \"date > built\"\n\n[pool]\nminimum = 1\nmaximum = 2\n";

/// The same numbers for the same seed.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let fresh = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        let seed = std::env::var("GREENROOM_TEST_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok());
        let seed: u64 = seed.unwrap_or_else(fresh) | 1;
        eprintln!("GREENROOM_TEST_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// What the server said it would do.
#[derive(Default)]
struct Accepted {
    /// Turns of each session that must end.
    turns: BTreeMap<String, usize>,
    snapshots: Vec<(String, String)>,
}

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
    let builds = ask(
        &api,
        Method::POST,
        "/v1/repositories/shop/images",
        None,
        json!({}),
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

async fn nothing_is_lost_or_left_by_kills_at_random_points(who: Who) {
    let cycles = std::env::var("GREENROOM_TEST_CYCLES").ok();
    // Those of the host's tests are cheaper.
    let cycles = cycles
        .and_then(|cycles| cycles.parse::<usize>().ok())
        .map_or(10, |cycles| cycles.div_ceil(50));
    let mut random = Random::new();
    let script = commands(&[("work", "cat ~/made; echo work >> work.txt")]);
    let mut product = Product::with_config(&script, "[image]\nschedule = \"off\"\n\n[snapshot]\nkeep = 2\n");
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
    let mut api = product.start().await;
    add(&api, "shop", &source).await;
    assert_eq!(build(&api).await["state"], "published");
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
        let images = api.must_get("/v1/repositories/shop/images").await;
        assert!(
            images["current"].is_string(),
            "the last good image serves: {images}"
        );
    }

    let accepted = std::mem::take(&mut *accepted.lock().unwrap());
    assert!(
        accepted.turns.len() >= 2,
        "next to nothing was accepted before the kills"
    );
    for session in accepted.turns.keys() {
        let row = |events: &[Value]| {
            let started = of_type(events, "turn.started").len();
            started > 0 && of_type(events, "turn.completed").len() == of_type(events, "prompt.queued").len()
        };
        let events = api.wait_for(session, "end of all turns", row).await;
        for ended in of_type(&events, "turn.completed") {
            let result = &ended["outcome"]["result"];
            assert!(
                result == "completed" || result == "stopped",
                "{}",
                pretty(&events)
            );
        }
        let said = outputs(&events);
        assert!(!said.is_empty(), "{}", pretty(&events));
        for output in said {
            assert!(
                output.starts_with("made\n") || output.contains("interrupted"),
                "{output}\n{}",
                pretty(&events)
            );
        }
    }
    for (session, snapshot) in &accepted.snapshots {
        let listed = api.must_get(&format!("/v1/sessions/{session}/snapshots")).await;
        let is_there = |found: &Value| found["id"] == snapshot.as_str();
        assert!(
            listed["snapshots"].as_array().unwrap().iter().any(is_there),
            "{snapshot}: {listed}"
        );
    }
    // From the image that survived it all, and from a new one.
    for _ in 0..2 {
        let session = api.start_session("shop", "work").await;
        let events = api.wait_for_turns(&session, 1).await;
        let said = &outputs(&events)[0];
        assert!(said.starts_with("made\n"), "{}", pretty(&events));
        assert_eq!(build(&api).await["state"], "published");
    }

    // What is left after a start, when nothing is at work, is needed by somebody who is known, and nothing that is needed is missing.
    product.kill();
    let api = product.start().await;
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let sessions = api.must_get("/v1/sessions?limit=200").await;
        let mut at_work = 0;
        for row in sessions["sessions"].as_array().unwrap() {
            // Whose prompt was cut off before it was accepted goes on when somebody looks.
            let row = api
                .must_get(&format!("/v1/sessions/{}", row["id"].as_str().unwrap()))
                .await;
            at_work += usize::from(row["state"] == "running" || row["state"] == "stopping");
        }
        if at_work == 0 {
            break;
        }
        assert!(Instant::now() < deadline, "never idle: {sessions}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    product.stop();
    let api = product.start().await;
    let (mut snapshots, mut sandboxes) = (BTreeSet::new(), BTreeSet::new());
    let images = api.must_get("/v1/repositories/shop/images").await;
    for image in images["images"].as_array().unwrap() {
        let state = image["state"].as_str().unwrap();
        assert!(
            matches!(state, "published" | "failed"),
            "a build that never ends: {image}"
        );
        snapshots.extend(image["snapshot_id"].as_str().map(|id| format!("{id}.json")));
    }
    let sessions = api.must_get("/v1/sessions?limit=200").await;
    for session in sessions["sessions"].as_array().unwrap() {
        let id = session["id"].as_str().unwrap();
        let events = api.events(id).await;
        let states = of_type(&events, "sandbox.state_changed");
        let has_run = states.iter().any(|event| event["state"] == "ready");
        for event in states {
            sandboxes.insert(event["sandbox_id"].as_str().unwrap().to_owned());
        }
        let forks = of_type(&events, "session.forked");
        let is_origin = |snapshot: &Value| forks.iter().any(|event| event["snapshot_id"] == snapshot["id"]);
        let listed = api.must_get(&format!("/v1/sessions/{id}/snapshots")).await;
        for snapshot in listed["snapshots"].as_array().unwrap() {
            assert!(
                session["forked_from"].is_null()
                    || !has_run
                    || !is_origin(snapshot)
                    || snapshot["is_pinned"] == false
                    || accepted
                        .snapshots
                        .iter()
                        .any(|(_, kept)| snapshot["id"] == kept.as_str()),
                "a fork that runs keeps what it began with: {snapshot}"
            );
            snapshots.insert(format!("{}.json", snapshot["id"].as_str().unwrap()));
        }
    }
    product.stop();
    let images = product.sandboxes().join("images");
    let records: BTreeSet<String> = files_in(&images.join("snapshots")).into_iter().collect();
    let differ: Vec<_> = records.symmetric_difference(&snapshots).collect();
    let on_disk = |id: &&String| std::fs::read_to_string(images.join("snapshots").join(id.as_str()));
    assert!(
        differ.is_empty(),
        "not both on disk and known: {differ:?}: {:?}",
        differ.iter().map(on_disk).collect::<Vec<_>>()
    );
    let mut needed = BTreeSet::new();
    for record in records {
        needed.extend(layers_of(&images.join("snapshots").join(record)));
    }
    for sandbox in files_in(&product.sandboxes().join("sb")) {
        assert!(sandboxes.contains(&sandbox), "{sandbox} is nobody's");
        needed.extend(layers_of(
            &product.sandboxes().join("sb").join(sandbox).join("layers.json"),
        ));
    }
    let (beside, there): (BTreeSet<String>, BTreeSet<String>) = files_in(&images.join("layers"))
        .into_iter()
        .partition(|name| name.ends_with(".bytes") || name.ends_with(".oci.json"));
    assert_eq!(there, needed, "layers on disk and layers that somebody needs");
    for note in beside {
        assert!(
            there.contains(note.split('.').next().unwrap()),
            "{note} is of no layer"
        );
    }
    assert_eq!(files_in(&images.join("incoming")), Vec::<String>::new());
}

fn files_in(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    entries.map(name).collect()
}

/// Layers that a record names; none if there is no record.
fn layers_of(record: &Path) -> Vec<String> {
    let Ok(text) = std::fs::read(record) else {
        return Vec::new();
    };
    let record: Value = serde_json::from_slice(&text).unwrap();
    let layers = record["layers"].as_array().unwrap();
    layers
        .iter()
        .map(|layer| layer.as_str().unwrap().to_owned())
        .collect()
}
