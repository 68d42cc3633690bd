//! What must be true after any number of kills: what was accepted is done, and on disk lies what somebody needs, all of it and nothing else.

use crate::images::build;
use crate::script::outputs;
use greenroom_system_tests::api::{Api, of_type, pretty};
use greenroom_system_tests::product::Product;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

/// What the server said it would do.
#[derive(Default)]
pub struct Accepted {
    /// Turns of each session that must end.
    pub turns: BTreeMap<String, usize>,
    pub snapshots: Vec<(String, String)>,
}

/// What was accepted is done; from the image that survived it all, and from a new one, sessions begin.
pub async fn everything_accepted_is_done(api: &Api, accepted: &Accepted) {
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
        assert_eq!(build(api).await["state"], "published");
    }
}

/// Nothing is on disk that nobody needs, and nothing that is needed is missing. Ends the server.
pub async fn nothing_is_left(product: &mut Product, accepted: &Accepted) {
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
        if let Some(id) = image["snapshot_id"].as_str() {
            let record = product.sandboxes().join(format!("images/snapshots/{id}.json"));
            let layers: Vec<_> = image["layers"]
                .as_array()
                .unwrap()
                .iter()
                .map(|id| id.as_str().unwrap())
                .collect();
            assert_eq!(layers, layers_of(&record), "{image}");
            assert_eq!(image["policy_digest"].as_str().unwrap().len(), 64, "{image}");
        }
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
