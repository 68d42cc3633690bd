//! Everything from outside can be wrong. Each wrong thing gets a code and a hint, nothing hangs, and the next prompt works.

use crate::script::{FIX, start_with_answer};
use greenroom_system_tests::api::of_type;
use greenroom_system_tests::product::Product;
use serde_json::{Value, json};

fn assert_problem((status, body): &(u16, Value), expected_status: u16, code: &str) {
    assert_eq!(
        (*status, body["code"].as_str()),
        (expected_status, Some(code)),
        "{body}"
    );
    assert!(
        body["message"]
            .as_str()
            .is_some_and(|message| !message.is_empty()),
        "{body}"
    );
}

#[tokio::test]
async fn wrong_requests_get_a_code_and_a_hint() {
    let mut product = Product::with_script(FIX);
    let api = start_with_answer(&mut product).await;
    let session = |repository: &str, prompt: &str| json!({ "repository": repository, "prompt": prompt });

    let unknown = api.post("/v1/sessions", session("nowhere", "Fix it.")).await;
    assert_problem(&unknown, 404, "repository_unknown");
    assert!(unknown.1["hint"].is_string());
    assert_problem(
        &api.post("/v1/sessions", session("answer", "  ")).await,
        422,
        "prompt_empty",
    );
    assert_problem(
        &api.post("/v1/sessions", session("answer", &"x".repeat(1024 * 1024)))
            .await,
        413,
        "prompt_too_large",
    );
    let with_model = json!({ "repository": "answer", "prompt": "Fix.", "model": "nobody/nothing" });
    assert_problem(&api.post("/v1/sessions", with_model).await, 404, "model_unknown");
    let with_branch = json!({ "repository": "answer", "prompt": "Fix.", "base_branch": "nowhere" });
    assert_problem(
        &api.post("/v1/sessions", with_branch).await,
        404,
        "branch_unknown",
    );
    let misspelt = json!({ "repository": "answer", "promt": "Fix." });
    assert_problem(&api.post("/v1/sessions", misspelt).await, 422, "body_invalid");
    for path in [
        "/v1/sessions/ses_00000000000000000000000000",
        "/v1/sessions/..%2f..%2fetc",
        "/v1/sessions/x",
    ] {
        assert_problem(&api.get(path).await, 404, "session_unknown");
    }
    assert_problem(&api.get("/v1/nothing").await, 404, "not_found");
    assert_problem(
        &api.get("/v1/repositories/answer/pull-requests/7").await,
        404,
        "pull_request_unknown",
    );
    for (name, code) in [
        ("../x", "repository_name_invalid"),
        ("", "repository_name_invalid"),
        ("Ünï", "repository_name_invalid"),
    ] {
        assert_problem(
            &api.post("/v1/repositories", json!({ "name": name })).await,
            422,
            code,
        );
    }
    assert_problem(
        &api.post("/v1/repositories", json!({ "name": "answer" })).await,
        409,
        "repository_name_taken",
    );
    let nowhere = json!({ "name": "other", "source": product.root().join("nowhere") });
    assert_eq!(
        api.post("/v1/repositories", nowhere).await.1["code"],
        "source_not_a_repository"
    );

    let text = api.request(reqwest::Method::POST, "/v1/sessions").body("{}");
    assert_problem(&api.send(text).await, 415, "body_type_unsupported");
    let broken = api
        .request(reqwest::Method::POST, "/v1/sessions")
        .header("content-type", "application/json")
        .body("{");
    assert_problem(&api.send(broken).await, 422, "body_invalid");
    let id = api.create_session("answer").await;
    let keyless = api
        .post(&format!("/v1/sessions/{id}/prompts"), json!({ "text": "Fix." }))
        .await;
    assert_problem(&keyless, 422, "idempotency_key_required");
    product.stop();
}

/// What a model may do wrong, one prompt each; the last prompt must still work.
const HOSTILE: &str = r#"
[[script]]
name = "unknown-tool"
prompt_contains = "unknown tool"
[[script.step]]
[[script.step.call]]
tool = "teleport"
arguments = { to = "mars" }
[[script.step]]
expect_result_contains = "bash"
say = "I was told which tools exist."

[[script]]
name = "malformed-arguments"
prompt_contains = "malformed"
[[script.step]]
[[script.step.call]]
tool = "read"
arguments_text = "{\"path\": "
[[script.step]]
expect_result_contains = "JSON"
say = "I was told what is wrong."

[[script]]
name = "outside"
prompt_contains = "outside"
[[script.step]]
[[script.step.call]]
tool = "read"
arguments = { path = "../etc/passwd" }
[[script.step]]
expect_result_contains = "workspace"
[[script.step.call]]
tool = "bash"
arguments = { command = "ln -s /etc/passwd link; head -c 100 /dev/urandom > noise.bin" }
[[script.step]]
[[script.step.call]]
tool = "read"
arguments = { path = "link" }
[[script.step]]
expect_result_contains = "workspace"
[[script.step.call]]
tool = "read"
arguments = { path = "noise.bin" }
[[script.step]]
expect_result_contains = "binary"
[[script.step.call]]
tool = "apply_patch"
arguments = { patch = "*** Begin Patch\n*** Update File: answer.txt\n@@\n-nothing like this\n+something\n*** End Patch" }
[[script.step]]
expect_result_contains = "answer.txt"
[[script.step.call]]
tool = "bash"
arguments = { command = "rm link noise.bin" }
[[script.step]]
say = "Each was refused."

[[script]]
name = "truncated"
prompt_contains = "truncated"
[[script.step]]
say = "This will be cut off here and never"
fail = "truncate"
times = 99

[[script]]
name = "unauthorized"
prompt_contains = "unauthorized"
[[script.step]]
fail = 401
times = 99

[[script]]
name = "fine"
prompt_contains = "fine"
[[script.step]]
say = "All is well."
"#;

#[tokio::test]
async fn a_model_that_misbehaves_harms_nothing() {
    let mut product = Product::with_script(HOSTILE);
    let api = start_with_answer(&mut product).await;
    let session = api.create_session("answer").await;
    let cases = [
        ("unknown tool", None),
        ("malformed arguments", None),
        ("outside", None),
        ("truncated", Some("model_stream_truncated")),
        ("unauthorized", Some("model_unauthorized")),
        ("fine", None),
    ];
    for (position, (prompt, failure)) in cases.into_iter().enumerate() {
        assert_eq!(
            api.prompt(&session, prompt.split(' ').next().unwrap(), prompt)
                .await
                .0,
            202
        );
        let events = api.wait_for_turns(&session, position + 1).await;
        let end = *of_type(&events, "turn.completed").last().unwrap();
        match failure {
            None => assert_eq!(end["outcome"]["result"], "completed", "{prompt}: {end}"),
            Some(code) => {
                assert_eq!(end["outcome"]["problem"]["code"], code, "{prompt}: {end}");
                assert!(end["outcome"]["problem"]["hint"].is_string(), "{end}");
            }
        }
    }
    product.stop();
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why() {
    let mut product = Product::with_script(FIX);
    product.start().await;
    let second = product.run(&["up"]);
    let text = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success());
    assert!(
        text.contains("data_dir_in_use") && text.contains("hint"),
        "{text}"
    );
    product.stop();

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = product.command(&["up"]);
    let output = command.env("GREENROOM_LISTEN", &address).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(text.contains("port_in_use") && text.contains("hint"), "{text}");

    let mut command = product.command(&["up"]);
    let output = command
        .env("GREENROOM_DATA_DIR", "/proc/greenroom")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(
        text.contains("data_dir_not_writable") && text.contains("hint"),
        "{text}"
    );
}
