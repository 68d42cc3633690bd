//! What is done outside a session: given up visibly, and tried again when somebody says so.

use crate::script::{add, commands};
use greenroom_system_tests::api::{of_type, pretty};
use greenroom_system_tests::product::Product;
use greenroom_system_tests::repo;
use serde_json::{Value, json};

const PROPOSE: &str = r#"
[[script]]
name = "propose"
prompt_contains = "propose"
[[script.step]]
[[script.step.call]]
tool = "open_pr"
arguments = { title = "A change", body = "It changes something." }
[[script.step]]
say = "I tried."
"#;

#[tokio::test]
async fn what_was_given_up_is_tried_again_once_and_after_a_crash_too() {
    let script = commands(&[("change", "echo changed > README.md")]) + PROPOSE;
    let mut product = Product::with_script(&script);
    let source = repo::with_files(product.root(), "shop", &[("README.md", "A shop.\n")]);
    let api = product.start().await;
    add(&api, "shop", &source).await;
    let repository = api.must_get("/v1/repositories/shop").await;
    let url = repo::with_token(repository["clone_url"].as_str().unwrap(), &api.token);
    repo::git(&source, &["push", "-q", &url, "main:next"]);
    let session = api
        .must_post(
            "/v1/sessions",
            json!({ "repository": "shop", "base_branch": "next", "prompt": "change" }),
        )
        .await;
    let session = session["session"]["id"].as_str().unwrap().to_owned();
    api.wait_for_turns(&session, 1).await;
    // The branch that it is to be merged into goes away, and comes back when it is too late.
    repo::git(&source, &["push", "-q", &url, ":next"]);
    api.prompt(&session, "two", "propose").await;
    let events = api.wait_for_turns(&session, 2).await;
    let failed = of_type(&events, "effect.failed");
    assert_eq!(failed.len(), 1, "{}", pretty(&events));
    let key = failed[0]["effect_key"].as_str().unwrap().to_owned();
    let path = format!("/v1/sessions/{session}");
    let listed = |row: &Value| row["failed_effects"].clone();
    let row = api.must_get(&path).await;
    assert_eq!(
        (&listed(&row)[0]["key"], &listed(&row)[0]["effect"]),
        (&json!(key), &json!("open_pull_request"))
    );

    // Another one fails, and stays when the first is tried again.
    api.prompt(&session, "three", "propose").await;
    api.wait_for_turns(&session, 3).await;
    let row = api.must_get(&path).await;
    assert_eq!(listed(&row).as_array().unwrap().len(), 2);

    // Not mended yet: it fails again, under another key.
    let retry = format!("{path}/effect-retries");
    let (status, answer) = api.post(&retry, json!({ "effect_key": key })).await;
    assert_eq!(status, 202, "{answer}");
    let is_given_up_again = |events: &[Value]| of_type(events, "effect.failed").len() == 3;
    let events = api
        .wait_for(&session, "the failure of the retry", is_given_up_again)
        .await;
    let second = of_type(&events, "effect.failed")[2]["effect_key"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_ne!(second, key);
    let (status, answer) = api.post(&retry, json!({ "effect_key": key })).await;
    assert_eq!(
        (status, answer["code"].as_str()),
        (409, Some("effect_not_failed"))
    );

    product.kill();
    let api = product.start().await;
    repo::git(&source, &["push", "-q", &url_of(&api).await, "main:next"]);
    let said = product.run(&["session", "retry", &session]);
    assert!(said.status.success(), "{said:?}");
    let is_open = |events: &[Value]| !of_type(events, "pull_request.opened").is_empty();
    let events = api.wait_for(&session, "the pull request", is_open).await;
    let retried = of_type(&events, "effect.retried").len();
    assert!(retried >= 2, "{}", pretty(&events));
    let row = api.must_get(&path).await;
    assert!(listed(&row).is_null(), "{row}");
    assert_eq!(row["pull_requests"].as_array().unwrap().len(), 1);
    let said = product.run(&["session", "retry", &session]);
    assert!(
        String::from_utf8_lossy(&said.stdout).contains("Nothing was given up."),
        "{said:?}"
    );
    product.stop();
}

/// Where the repository is cloned from, as this start of the server has it.
async fn url_of(api: &greenroom_system_tests::api::Api) -> String {
    let repository = api.must_get("/v1/repositories/shop").await;
    repo::with_token(repository["clone_url"].as_str().unwrap(), &api.token)
}
