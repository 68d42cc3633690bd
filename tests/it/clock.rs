//! A clock that jumps, forward and back, while the server runs and while it is down.

use crate::images::build;
use crate::script::{add, commands, outputs};
use greenroom_system_tests::api::{Api, assert_gapless, of_type, pretty};
use greenroom_system_tests::product::Product;
use greenroom_system_tests::repo;
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;

/// The library that gives a program another time.
fn faketime() -> Option<PathBuf> {
    let libraries = std::fs::read_dir("/usr/lib").ok()?;
    libraries
        .filter_map(|entry| Some(entry.ok()?.path().join("faketime/libfaketimeMT.so.1")))
        .find(|library| library.exists())
}

async fn works(api: &Api, when: &str) {
    let image = build(api).await;
    assert_eq!(image["state"], "published", "{when}: {image}");
    let images = api.must_get("/v1/repositories/shop/images").await;
    assert_eq!(
        images["current"], image["id"],
        "{when}: the newest is that of the last build"
    );
    let session = api.start_session("shop", "work").await;
    let events = api.wait_for_turns(&session, 1).await;
    assert!(
        outputs(&events)[0].starts_with("made\n"),
        "{when}: {}",
        pretty(&events)
    );
    api.must_post(&format!("/v1/sessions/{session}/snapshots"), json!({}))
        .await;
    assert_eq!(api.prompt(&session, "again", "work").await.0, 202, "{when}");
    let events = api.wait_for_turns(&session, 2).await;
    assert_gapless(&events);
    assert_eq!(
        of_type(&events, "change.pushed").len(),
        2,
        "{when}: {}",
        pretty(&events)
    );
}

#[tokio::test]
async fn nothing_minds_a_clock_that_jumps() {
    let Some(library) = faketime() else {
        eprintln!("SKIPPED-FEATURE: libfaketime is not installed; a clock that jumps is not tested");
        return;
    };
    let script = commands(&[("work", "cat ~/made; date +%s%N >> work.txt")]);
    let mut product = Product::with_config(&script, "[image]\nschedule = \"off\"\n");
    let clock = product.root().join("clock");
    let set = |offset: &str| std::fs::write(&clock, format!("{offset}\n")).unwrap();
    set("+0");
    for (name, value) in [
        ("LD_PRELOAD", library.to_str().unwrap()),
        ("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("NO_FAKE_STAT", "1"),
    ] {
        product.set_env(name, value);
    }
    let environment = "setup = \"echo made > ~/made\"\n\n[pool]\nminimum = 1\nmaximum = 1\n";
    let files = [
        ("README.md", "A shop.\n"),
        (".greenroom/environment.toml", environment),
    ];
    let source = repo::with_files(product.root(), "shop", &files);
    let mut api = product.start().await;
    add(&api, "shop", &source).await;
    works(&api, "now").await;
    for offset in ["+3d", "-2d", "+1h", "-400d", "+0"] {
        set(offset);
        // Whoever looks from time to time looks once.
        tokio::time::sleep(Duration::from_millis(300)).await;
        works(&api, offset).await;
    }
    for offset in ["-10d", "+10d", "+0"] {
        product.kill();
        set(offset);
        api = product.start().await;
        works(&api, offset).await;
    }
    let images = api.must_get("/v1/repositories/shop/images").await;
    assert_eq!(
        images["images"].as_array().unwrap().len(),
        2,
        "the newest and the one before"
    );
    let sessions = api.must_get("/v1/sessions?limit=50").await;
    assert_eq!(sessions["sessions"].as_array().unwrap().len(), 9);
    product.stop();
}
