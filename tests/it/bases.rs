//! Sandboxes whose root is not the host's: images of a registry (Debian's docker-registry, filled by skopeo).

use crate::script::{add, commands, outputs};
use greenroom_system_tests::api::{Api, pretty};
use greenroom_system_tests::product::{Product, Who};
use greenroom_system_tests::repo;
use greenroom_testkit::oci::{Compression, LOGIN, Layout, TestRegistry, git_root, is_possible};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

greenroom_system_tests::for_both_users! {
    sessions_run_in_an_image_of_a_registry,
    a_base_that_cannot_be_had_says_why,
}

const PATIENCE: Duration = Duration::from_secs(60);

/// What tells one root from another.
const LOOK: &str = "cat /etc/issue README.md; cat /usr/local/tool made 2> /dev/null; echo $COLOUR; test -e /usr/bin/python3 || echo small; \
    git status --porcelain; git branch --show-current | cut -c1-10; id -un; echo mine > mine.txt";

fn registry(product: &Product, wants_login: bool) -> Option<(TestRegistry, Layout)> {
    if let Err(program) = is_possible() {
        eprintln!("SKIPPED-FEATURE: {program} is not installed; bases of registries are not tested");
        return None;
    }
    let place = product.root().join("registry");
    let registry = TestRegistry::start(&place, wants_login).unwrap();
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

async fn build(api: &Api) -> Value {
    let asked = api.must_post("/v1/repositories/shop/images", json!({})).await;
    let id = asked["id"].as_str().unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let image = api.must_get(&format!("/v1/images/{id}")).await;
        if matches!(image["state"].as_str(), Some("published" | "failed")) {
            return image;
        }
        assert!(Instant::now() < deadline, "never ends: {image}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn look(api: &Api) -> String {
    let session = api.start_session("shop", "look").await;
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
    assert_eq!(image["base_digest"], base.rsplit_once('@').unwrap().1);
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
