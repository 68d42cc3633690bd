//! Environments: what a repository's own file and an administrator decide about sandboxes, and what people are told.

use crate::script::{add, commands, outputs};
use greenroom_system_tests::api::{Api, of_type, pretty};
use greenroom_system_tests::product::{Product, Who};
use greenroom_system_tests::repo;
use reqwest::Method;
use serde_json::{Value, json};
use std::path::PathBuf;

greenroom_system_tests::for_both_users! {
    a_repositorys_file_shapes_its_sandboxes_within_bounds,
    a_file_that_is_wrong_says_where_and_nothing_runs_by_guess,
    an_administrators_environment_wins_as_a_whole,
    the_command_line_checks_sets_and_shows_environments,
    metrics_are_for_the_operator,
}

/// A repository with this environment file.
fn repository(product: &Product, environment: &str) -> PathBuf {
    repo::with_files(
        product.root(),
        "shop",
        &[
            ("README.md", "A shop.\n"),
            (".greenroom/environment.toml", environment),
        ],
    )
}

/// Problems that were shown as notices.
fn notices(events: &[Value]) -> Vec<&Value> {
    of_type(events, "item.completed")
        .into_iter()
        .filter(|event| event["item"]["kind"] == "notice")
        .map(|event| &event["item"]["problem"])
        .collect()
}

async fn put_environment(api: &Api, environment: Value) -> (u16, Value) {
    let request = api.request(Method::PUT, "/v1/repositories/shop/environment");
    api.send(request.json(&environment)).await
}

const LOOK: &str = "ulimit -n; echo team=$TEAM";

async fn a_repositorys_file_shapes_its_sandboxes_within_bounds(who: Who) {
    let environment = r#"
[resources]
max_open_files = 256
memory_mb = 1000000

[variables]
TEAM = "checkout"

[egress]
preset = "package-registries"
allow = ["example.com"]

[[egress.credentials]]
host = "api.example.com"
header = "authorization"
secret = "api"
"#;
    let mut product = Product::with_script(&commands(&[("look", LOOK)]));
    product.run_as(who);
    let source = repository(&product, environment);
    let api = product.start().await;
    add(&api, "shop", &source).await;

    let report = api.must_get("/v1/repositories/shop/environment").await;
    assert_eq!(report["source"], "repository");
    assert_eq!(report["problem"], Value::Null);
    let cut = |notices: &Value| -> Vec<String> {
        let notices = notices.as_array().expect("notices");
        let fields = notices.iter().map(|notice| {
            notice["message"]
                .as_str()
                .unwrap()
                .split(':')
                .next()
                .unwrap()
                .to_owned()
        });
        fields.collect()
    };
    let expected = ["resources.memory_mb", "egress.allow", "egress.credentials"];
    assert_eq!(cut(&report["notices"]), expected);

    let session = api.start_session("shop", "look").await;
    let events = api.wait_for_turns(&session, 1).await;
    assert_eq!(outputs(&events).len(), 1, "{}", pretty(&events));
    let output = &outputs(&events)[0];
    assert!(
        output.contains("256") && output.contains("team=checkout"),
        "{output}"
    );
    let told: Vec<_> = notices(&events)
        .into_iter()
        .map(|notice| notice["message"].as_str().unwrap().split(':').next().unwrap())
        .collect();
    assert_eq!(told, expected, "what was cut is said in the session");

    // The same sandbox, the same cuts: nobody hears of them twice.
    assert_eq!(api.prompt(&session, "again", "look").await.0, 202);
    let events = api.wait_for_turns(&session, 2).await;
    assert_eq!(notices(&events).len(), expected.len());
    product.stop();
}

async fn a_file_that_is_wrong_says_where_and_nothing_runs_by_guess(who: Who) {
    let mut product = Product::with_script(&commands(&[("look", LOOK)]));
    product.run_as(who);
    product.expect_warning("sandbox not ready");
    let source = repository(
        &product,
        "[resources]\nmemory_mb = 4096\n\n[[services]]\nname = \"db\"\ncomand = \"x\"\n",
    );
    let api = product.start().await;
    add(&api, "shop", &source).await;
    let session = api.start_session("shop", "look").await;
    let events = api.wait_for_turns(&session, 1).await;
    let lost = of_type(&events, "sandbox.state_changed");
    let problem = &lost.last().expect("the sandbox is told of")["problem"];
    assert_eq!(problem["code"], "environment_invalid", "{}", pretty(&events));
    let message = problem["message"].as_str().unwrap();
    assert!(
        message.starts_with(".greenroom/environment.toml:6: unknown field `comand`"),
        "{message}"
    );
    assert!(
        problem["hint"]
            .as_str()
            .is_some_and(|hint| hint.contains("docs/environments.md"))
    );
    let end = of_type(&events, "turn.completed")[0];
    assert_ne!(
        end["outcome"]["result"], "completed",
        "no default was taken: {end}"
    );

    // Mended on the base branch, the next turn goes.
    let clone_url = api.must_get("/v1/repositories/shop").await;
    let url = repo::with_token(clone_url["clone_url"].as_str().unwrap(), &api.token);
    std::fs::write(
        source.join(".greenroom/environment.toml"),
        "[variables]\nTEAM = \"mended\"\n",
    )
    .unwrap();
    repo::git(&source, &["commit", "-q", "-a", "-m", "Mend the environment"]);
    repo::git(&source, &["push", "-q", &url, "main"]);
    assert_eq!(api.prompt(&session, "again", "look").await.0, 202);
    let events = api.wait_for_turns(&session, 2).await;
    assert!(
        outputs(&events).last().unwrap().contains("team=mended"),
        "{}",
        pretty(&events)
    );
    product.stop();
}

async fn an_administrators_environment_wins_as_a_whole(who: Who) {
    let mut product = Product::with_script(&commands(&[("look", LOOK)]));
    product.run_as(who);
    let source = repository(
        &product,
        "[variables]\nTEAM = \"repository\"\n[resources]\nmax_open_files = 256\n",
    );
    let api = product.start().await;
    add(&api, "shop", &source).await;

    let (status, refused) = put_environment(&api, json!({ "runtime": "/bin/sh" })).await;
    assert_eq!(
        (status, refused["code"].as_str()),
        (422, Some("environment_invalid")),
        "{refused}"
    );
    let (status, refused) = put_environment(&api, json!({ "backend": "microvm" })).await;
    assert_eq!(
        (status, refused["code"].as_str()),
        (422, Some("environment_refused")),
        "{refused}"
    );
    let (status, refused) = put_environment(&api, json!({ "backends": [] })).await;
    assert_eq!(
        (status, refused["code"].as_str()),
        (422, Some("body_invalid")),
        "{refused}"
    );
    let request = api.request(Method::PUT, "/v1/repositories/nowhere/environment");
    let (status, _) = api.send(request.json(&json!({}))).await;
    assert_eq!(status, 404);

    let credential = json!({ "host": "api.example.com", "header": "x-key", "secret": "not-yet" });
    let environment = json!({
        "variables": { "TEAM": "platform" },
        "egress": { "allow": ["*.example.com"], "credentials": [credential] },
    });
    let (status, report) = put_environment(&api, environment).await;
    assert_eq!(status, 200, "{report}");
    assert_eq!(report["source"], "administrator");
    assert_eq!(report["notices"].as_array().unwrap().len(), 1, "{report}");
    assert_eq!(report["notices"][0]["code"], "secret_unknown");

    let session = api.start_session("shop", "look").await;
    let events = api.wait_for_turns(&session, 1).await;
    let output = outputs(&events).pop().unwrap();
    assert!(output.contains("team=platform"), "{output}");
    assert!(
        !output.contains("256"),
        "nothing of the file is mixed in: {output}"
    );

    let (status, _) = api.delete("/v1/repositories/shop/environment").await;
    assert_eq!(status, 204);
    let report = api.must_get("/v1/repositories/shop/environment").await;
    assert_eq!(report["source"], "repository");
    // It applies at the next start of a sandbox: this one runs on as it is.
    assert_eq!(api.prompt(&session, "again", "look").await.0, 202);
    let events = api.wait_for_turns(&session, 2).await;
    assert!(outputs(&events).last().unwrap().contains("team=platform"));
    let other = api.start_session("shop", "look").await;
    let events = api.wait_for_turns(&other, 1).await;
    assert!(outputs(&events)[0].contains("team=repository"));
    product.stop();
}

async fn the_command_line_checks_sets_and_shows_environments(who: Who) {
    let mut product = Product::with_script(&commands(&[("look", LOOK)]));
    product.run_as(who);
    let source = repository(&product, "");
    let file = product.root().join("environment.toml");
    std::fs::write(
        &file,
        "[egress]\nallow = [\"example.com\", \"https://x\"]\n[[services]]\nname = \"Db\"\ncommand = \"x\"\n",
    )
    .unwrap();
    let path = file.to_str().unwrap();
    let run = |arguments: &[&str]| {
        let output = product.run(arguments);
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        (output.status.code(), text[0].clone(), text[1].clone())
    };
    // Without a server, and with every error at once.
    let (code, _, errors) = run(&["env", "check", path]);
    assert_eq!(code, Some(2), "{errors}");
    for expected in [
        format!("{path}:2: egress.allow[1]: is not an egress rule"),
        format!("{path}:4: services[0].name: must be"),
    ] {
        assert!(errors.contains(&expected), "{expected}: {errors}");
    }
    std::fs::write(&file, "[egress]\nallow = [\"example.com\"]\n").unwrap();
    let (code, output, errors) = run(&["env", "check", path]);
    assert_eq!(code, Some(0), "{errors}");
    assert!(
        output.contains("ok") && errors.contains("no server was asked"),
        "{output}{errors}"
    );

    let api = product.start().await;
    add(&api, "shop", &source).await;
    let run = |arguments: &[&str]| {
        let output = product.run(arguments);
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        (output.status.code(), text[0].clone(), text[1].clone())
    };
    let (code, _, errors) = run(&["env", "check", path]);
    assert_eq!(code, Some(0), "{errors}");
    assert!(
        errors.contains("egress.allow: a repository's own file may name no hosts"),
        "{errors}"
    );
    let (code, _, errors) = run(&["env", "set", "shop", path]);
    assert_eq!(code, Some(0), "{errors}");
    let (code, output, _) = run(&["env", "show", "shop"]);
    assert_eq!(code, Some(0));
    assert!(
        output.starts_with("# set by an administrator") && output.contains("example.com"),
        "{output}"
    );
    assert!(
        output.ends_with('\n') && !output.contains("[variables]"),
        "{output}"
    );
    // What is shown can be set again.
    std::fs::write(&file, &output).unwrap();
    let (code, _, errors) = run(&["env", "set", "shop", path]);
    assert_eq!(code, Some(0), "{errors}");
    let (code, _, _) = run(&["env", "unset", "shop"]);
    assert_eq!(code, Some(0));
    let (_, output, _) = run(&["env", "show", "shop"]);
    assert!(output.starts_with("# from the repository's own file"), "{output}");
    product.stop();
}

async fn metrics_are_for_the_operator(who: Who) {
    let mut product = Product::with_script(&commands(&[("look", LOOK)]));
    product.run_as(who);
    let source = repository(&product, "");
    let api = product.start().await;
    add(&api, "shop", &source).await;
    let session = api.start_session("shop", "look").await;
    api.wait_for_turns(&session, 1).await;
    let anonymous = api
        .anonymous()
        .get(format!("{}/metrics", api.url))
        .send()
        .await
        .unwrap();
    assert_eq!(anonymous.status().as_u16(), 401);
    let answer = api.request(Method::GET, "/metrics").send().await.unwrap();
    assert!(
        answer.headers()["content-type"]
            .to_str()
            .unwrap()
            .starts_with("application/openmetrics-text")
    );
    let text = answer.text().await.unwrap();
    for line in [
        "greenroom_sandboxes_running 1",
        "greenroom_sandboxes_started_total{backend=\"namespace\"} 1",
        "greenroom_sandbox_start_duration_seconds_count 1",
        "greenroom_turns_total{outcome=\"completed\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    product.stop();
}
