//! Sandboxes whose root is not the host's: images of a registry (Debian's docker-registry, filled by skopeo).

use crate::images::build;
use crate::script::{add, commands, outputs};
use greenroom_system_tests::api::{Api, pretty};
use greenroom_system_tests::product::{Product, Who};
use greenroom_system_tests::repo;
use greenroom_testkit::oci::{Archive, Compression, LOGIN, Layout, TestRegistry, git_root, is_possible};
use reqwest::Method;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

greenroom_system_tests::for_both_users! {
    sessions_run_in_an_image_of_a_registry,
    a_base_that_cannot_be_had_says_why,
    a_dev_container_is_an_environment,
    a_pull_that_was_killed_leaves_nothing_and_is_done_again,
}

/// What tells one root from another.
const LOOK: &str = "cat /etc/issue README.md; cat /usr/local/tool made 2> /dev/null; echo $COLOUR; test -e /usr/bin/python3 || echo small; \
    git status --porcelain; git branch --show-current | cut -c1-10; id -un; echo mine > mine.txt";

fn registry(product: &Product, wants_login: bool) -> Option<(TestRegistry, Layout)> {
    registry_at(&product.root().join("registry"), wants_login)
}

fn tempfile_place() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("gr-registry-")
        .tempdir_in("/tmp")
        .unwrap()
}

fn registry_at(place: &Path, wants_login: bool) -> Option<(TestRegistry, Layout)> {
    if let Err(program) = is_possible() {
        eprintln!("SKIPPED-FEATURE: {program} is not installed; bases of registries are not tested");
        return None;
    }
    let registry = TestRegistry::start(place, wants_login).unwrap();
    Some((registry, Layout::new(&place.join("layout")).unwrap()))
}

fn product(who: Who, more: &str) -> Product {
    let config = format!("[image]\nschedule = \"off\"\n{more}");
    let mut product = Product::with_config(&commands(&[("look", LOOK)]), &config);
    product.run_as(who);
    product
}

async fn shop(product: &mut Product, files: &[(&str, &str)]) -> Api {
    let files = [&[("README.md", "A shop.\n")], files].concat();
    let source = repo::with_files(product.root(), "shop", &files);
    let api = product.start().await;
    add(&api, "shop", &source).await;
    api
}

/// Publishes a root with git.
fn publish(registry: &TestRegistry, layout: &mut Layout) -> String {
    let run = json!({"Env": ["PATH=/usr/local/bin:/usr/bin", "COLOUR=green"]});
    let layers = [git_root().unwrap().finish()];
    layout.image("v1", &layers, run, Compression::Gzip).unwrap();
    format!("oci:{}", registry.publish(layout, "v1", "base").unwrap())
}

async fn set(api: &Api, environment: Value) -> (u16, Value) {
    let request = api.request(Method::PUT, "/v1/repositories/shop/environment");
    api.send(request.json(&environment)).await
}

async fn look(api: &Api) -> String {
    look_with(api, "look").await
}

async fn look_with(api: &Api, prompt: &str) -> String {
    let session = api.start_session("shop", prompt).await;
    let events = api.wait_for_turns(&session, 1).await;
    match outputs(&events).first() {
        Some(output) => output.clone(),
        None => pretty(&events),
    }
}

async fn sessions_run_in_an_image_of_a_registry(who: Who) {
    let mut product = product(who, "");
    let Some((registry, mut layout)) = registry(&product, true) else {
        return;
    };
    let base = publish(&registry, &mut layout);
    let api = shop(&mut product, &[]).await;
    let secret = format!("registry.{}", registry.address().replace(':', "_"));
    let login = api.request(Method::PUT, &format!("/v1/secrets/{secret}"));
    let login = login.json(&json!({"value": format!("{}:{}", LOGIN.0, LOGIN.1)}));
    assert_eq!(api.send(login).await.0, 204);
    let setup = "mkdir -p /usr/local && echo installed > /usr/local/tool; echo built > made";
    let (status, report) = set(&api, json!({"base": base, "setup": setup})).await;
    assert_eq!(status, 200, "{report}");

    // Without an image of its own: the repository is cloned into the base.
    let said = look(&api).await;
    let expected = "a root of its own\nA shop.\ngreen\nsmall\ngreenroom/\nagent\n";
    assert!(said.contains(expected), "{said}");

    let image = build(&api).await;
    assert_eq!(image["state"], "published", "{image}");
    assert_eq!(image["base"], base);
    let id = image["id"].as_str().unwrap();
    let log = api.must_get(&format!("/v1/images/{id}/log?after=0")).await;
    assert!(!log["output"].as_str().unwrap().contains(LOGIN.1), "{log}");
    // To another server, by the command line.
    let run = |product: &Product, arguments: &[&str]| {
        let output = product.run(arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    let name = format!("{}/images/shop:main", registry.address());
    let pushed = run(&product, &["image", "push", id, &name]);
    assert!(pushed.starts_with(&format!("{name}@sha256:")), "{pushed}");
    assert_eq!(
        run(&product, &["image", "digest", &name]),
        format!("oci:{pushed}")
    );
    // What a session did goes the same way.
    let session = api.start_session("shop", "look").await;
    api.wait_for_turns(&session, 1).await;
    let taken: Value = serde_json::from_str(&run(
        &product,
        &["session", "snapshots", &session, "--take", "--json"],
    ))
    .unwrap();
    let session_name = format!("{}/sessions/shop:one", registry.address());
    let snapshot = taken["id"].as_str().unwrap();
    let pushed_session = run(
        &product,
        &[
            "session",
            "snapshots",
            &session,
            "--push",
            snapshot,
            &session_name,
        ],
    );
    assert!(
        pushed_session.starts_with(&format!("{session_name}@sha256:")),
        "{pushed_session}"
    );
    assert_eq!(
        run(&product, &["image", "digest", &session_name]),
        format!("oci:{pushed_session}")
    );
    let (status, problem) = api
        .post(
            &format!("/v1/sessions/{session}/snapshots/snp_x/push"),
            json!({"reference": session_name}),
        )
        .await;
    assert_eq!(
        (status, problem["code"].as_str()),
        (404, Some("snapshot_unknown")),
        "{problem}"
    );
    let mut other = Product::with_config(&commands(&[("look", LOOK)]), "[image]\nschedule = \"off\"\n");
    other.run_as(who);
    let other_api = shop(&mut other, &[]).await;
    let login = other_api.request(Method::PUT, &format!("/v1/secrets/{secret}"));
    let login = login.json(&json!({"value": format!("{}:{}", LOGIN.0, LOGIN.1)}));
    assert_eq!(other_api.send(login).await.0, 204);
    assert_eq!(
        set(&other_api, json!({"base": base, "setup": setup})).await.0,
        200
    );
    let pulled = run(&other, &["image", "pull", "shop", &name, "--json"]);
    let pulled: Value = serde_json::from_str(&pulled).unwrap();
    assert_eq!(pulled["commit"], image["commit"]);
    assert_eq!(pulled["trigger"]["reference"], pushed);
    let again: Value =
        serde_json::from_str(&run(&other, &["image", "pull", "shop", &pushed, "--json"])).unwrap();
    assert_eq!(again["id"], pulled["id"]);
    let said = look(&other_api).await;
    assert!(
        said.contains("A shop.\ninstalled\nbuilt\ngreen\nsmall\ngreenroom/\n"),
        "{said}"
    );
    let (status, problem) = other_api
        .post(
            "/v1/repositories/shop/images/pull",
            json!({"reference": base.trim_start_matches("oci:")}),
        )
        .await;
    assert_eq!(
        (status, problem["code"].as_str()),
        (422, Some("image_not_ours")),
        "{problem}"
    );
    other.stop();

    // What is here needs no registry.
    drop(registry);
    let expected = "a root of its own\nA shop.\ninstalled\nbuilt\ngreen\nsmall\ngreenroom/\nagent\n";
    let said = look(&api).await;
    assert!(said.contains(expected), "{said}");
    product.kill();
    let api = product.start().await;
    let said = look(&api).await;
    assert!(said.contains(expected), "{said}");

    // Another base: the image is of no use any more.
    let (status, report) = set(&api, json!({"base": "host"})).await;
    assert_eq!(status, 200, "{report}");
    let said = look(&api).await;
    assert!(
        !said.contains("installed") && !said.contains("a root of its own"),
        "{said}"
    );
    product.stop();
}

async fn a_base_that_cannot_be_had_says_why(who: Who) {
    let mut product = product(who, "registries = [\"127.0.0.1:1\"]\n");
    product.expect_warning("The registry 127.0.0.1:1 cannot be reached");
    let zeros = "0".repeat(64);
    let unreachable = format!("base = 'oci:127.0.0.1:1/base@sha256:{zeros}'\n");
    let api = shop(&mut product, &[(".greenroom/environment.toml", &unreachable)]).await;
    let failed = build(&api).await;
    assert_eq!(failed["problem"]["code"], "registry_unreachable", "{failed}");
    let said = look(&api).await;
    assert!(
        said.contains("The registry 127.0.0.1:1 cannot be reached"),
        "{said}"
    );
    for (environment, line) in [
        ("base = 'debian:12'\n", 1),
        ("variables = {}\nbase = 'oci:docker.io/library/debian:12'\n", 2),
        ("base = 'oci:UPPER@sha256:00'\n", 1),
        ("base = 'rootfs:relative'\n", 1),
        ("backend = 'microvm'\nbase = 'rootfs:/srv/root'\n", 2),
    ] {
        let file = product.root().join("environment.toml");
        std::fs::write(&file, environment).unwrap();
        let output = product.run(&["env", "check", file.to_str().unwrap()]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            text.contains(&format!("environment.toml:{line}: base: ")),
            "{environment}: {text}"
        );
        assert_eq!(output.status.code(), Some(2));
    }
    // What only an administrator may.
    let missing = json!({"base": "rootfs:/nonexistent/root"});
    assert_eq!(set(&api, missing).await.0, 200);
    let failed = build(&api).await;
    assert_eq!(failed["problem"]["code"], "base_missing", "{failed}");
    product.stop();
}

/// A dev container feature that installs a greeting.
fn feature() -> Vec<u8> {
    let description = r#"{"id": "greeting", "version": "1.0.0",
        "options": {"text": {"type": "string", "default": "hello"}, "loud": {"type": "boolean", "default": true}},
        "containerEnv": {"PATH": "/opt/greeting:${PATH}"}, "privileged": true}"#;
    let install = "#!/bin/sh\nset -e\ntest \"$(id -u)\" = 0\nmkdir -p /opt/greeting /etc/greeting.d\necho new > /etc/greeting.d/one\n\
        printf '#!/bin/sh\\necho %s %s %s\\n' \"$TEXT\" \"$LOUD\" \"$_REMOTE_USER\" > /opt/greeting/greet\nchmod 755 /opt/greeting/greet\n\
        chown -R 0:0 /opt/greeting\n";
    Archive::default()
        .file("./devcontainer-feature.json", 0o644, description)
        .file("./install.sh", 0o644, install)
        .finish()
}

async fn a_dev_container_is_an_environment(who: Who) {
    let look = "greet; cat /etc/greeting.d/one made; id -un; echo $HOME $TEAM; cat ~/created; git status --porcelain; cat started";
    let script = commands(&[("look", look)]);
    let place = tempfile_place();
    let Some((registry, mut layout)) = registry_at(place.path(), false) else {
        return;
    };
    let config = format!(
        "[image]\nschedule = \"off\"\nregistries = [\"{}\"]\n",
        registry.address()
    );
    let mut product = Product::with_config(&script, &config);
    product.run_as(who);
    let run = json!({"Env": ["PATH=/usr/local/bin:/usr/bin"]});
    let vscode = "root:x:0:0:root:/root:/bin/bash\nvscode:x:1000:1000::/home/vscode:/bin/bash\n";
    let root = git_root()
        .unwrap()
        .file("etc/passwd", 0o644, vscode)
        .directory("home/vscode/", 0o755);
    layout
        .image("v1", &[root.finish()], run, Compression::Gzip)
        .unwrap();
    registry.publish(&layout, "v1", "dev/base").unwrap();
    layout.artifact("1", &feature()).unwrap();
    registry.publish(&layout, "1", "features/greeting").unwrap();
    let address = registry.address();
    let devcontainer = format!(
        r#"{{
        // As people write them.
        "image": "{address}/dev/base:v1",
        "features": {{ "{address}/features/greeting:1": {{ "text": "it is me" }} }},
        "onCreateCommand": "echo created > ~/created",
        "updateContentCommand": ["sh", "-c", "echo made by $(id -u) > made"],
        "postStartCommand": "echo started > started; sleep 1000",
        "containerEnv": {{ "TEAM": "checkout" }},
        "remoteUser": "vscode",
        "customizations": {{ "vscode": {{}} }},
        }}"#
    );
    let api = shop(
        &mut product,
        &[
            (".devcontainer/devcontainer.json", &devcontainer),
            (".gitignore", "started\n"),
        ],
    )
    .await;
    let report = api.must_get("/v1/repositories/shop/environment").await;
    let base = report["environment"]["base"].as_str().unwrap();
    assert!(
        base.starts_with(&format!("oci:{address}/dev/base:v1@sha256:")),
        "{report}"
    );
    assert!(
        report["notices"][0]["message"]
            .as_str()
            .unwrap()
            .contains("customizations"),
        "{report}"
    );
    let image = build(&api).await;
    let id = image["id"].as_str().unwrap();
    let log = api.must_get(&format!("/v1/images/{id}/log?after=0")).await;
    let log = log["output"].as_str().unwrap();
    assert_eq!(image["state"], "published", "{image} {log}");
    assert!(log.contains("its `privileged` is not supported"), "{log}");
    let said = look_with(&api, "look").await;
    assert_eq!(
        said,
        "it is me true vscode\nnew\nmade by 0\nagent\n/home/vscode checkout\ncreated\nstarted\n[exit code 0]"
    );
    // The same image again: the feature is not installed again, and what it needs is at hand.
    let stop = registry;
    drop(stop);
    let again = build(&api).await;
    assert_eq!(again["state"], "published", "{again}");
    assert_eq!(again["steps"][1]["name"], "features");
    assert_eq!(again["steps"][1]["outcome"], "cached");
    let said = look_with(&api, "look").await;
    assert_eq!(
        said,
        "it is me true vscode\nnew\nmade by 0\nagent\n/home/vscode checkout\ncreated\nstarted\n[exit code 0]"
    );
    product.stop();

    // What is wrong is said with line and field, without a server.
    let file = place.path().join("devcontainer.json");
    std::fs::write(&file, "{\n\"image\": \"debian\",\n\"build\": {}\n}").unwrap();
    let output = product.run(&["env", "check", file.to_str().unwrap()]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        text.contains("devcontainer.json:3: build: is not supported"),
        "{text}"
    );
}

async fn a_pull_that_was_killed_leaves_nothing_and_is_done_again(who: Who) {
    let mut product = product(who, "");
    let Some((registry, mut layout)) = registry(&product, false) else {
        return;
    };
    let base = publish(&registry, &mut layout);
    let mut api = shop(&mut product, &[]).await;
    assert_eq!(set(&api, json!({"base": base})).await.0, 200);
    // While it is downloaded, unpacked, recorded, and cloned into.
    for delay_ms in [30, 150, 400, 900] {
        api.must_post("/v1/repositories/shop/images", json!({})).await;
        tokio::time::sleep(Duration::from_millis(delay_ms)).await;
        product.kill();
        api = product.start().await;
    }
    let image = build(&api).await;
    assert_eq!(image["state"], "published", "{image}");
    let said = look(&api).await;
    assert!(said.contains("a root of its own\nA shop.\n"), "{said}");
    // The session may be copied just now: what is half made is seen while nothing runs.
    product.kill();
    product.start().await;
    let images = product.sandboxes().join("images");
    assert_eq!(std::fs::read_dir(images.join("incoming")).unwrap().count(), 0);
    let layers = std::fs::read_dir(images.join("layers")).unwrap();
    let drafts = layers.filter_map(|entry| entry.unwrap().file_name().into_string().ok());
    let drafts: Vec<String> = drafts.filter(|name| name.starts_with('.')).collect();
    assert!(drafts.is_empty(), "{drafts:?}");
    product.stop();
}
