//! Images: built by hand and by schedule, used by sessions, and what goes wrong.

use crate::script::{add, commands, outputs};
use greenroom_system_tests::api::{Api, of_type, pretty};
use greenroom_system_tests::product::{Product, Who};
use greenroom_system_tests::repo;
use reqwest::Method;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

greenroom_system_tests::for_both_users! {
    sessions_begin_with_the_image_and_the_newest_commit,
    steps_run_again_only_when_their_inputs_changed,
    what_fails_publishes_nothing_and_the_last_image_serves,
    a_step_has_no_way_to_the_repository_and_leaves_nothing_running,
    a_build_that_a_crash_cut_short_is_done_again,
    the_command_line_builds_and_shows_images,
    a_base_branch_that_was_rewritten_or_deleted_is_no_mystery,
    what_a_step_leaves_behind_decides_nothing_later,
    leftovers_of_steps_are_nobodys_change,
    a_server_that_waits_takes_no_processor,
    a_step_finds_its_secrets_and_nobody_else_does,
    older_images_go_before_a_new_one_is_refused,
    other_systems_ask_for_images_by_signed_calls,
}

/// Images are built when a test says so.
pub const BY_HAND: &str = "[image]\nschedule = \"off\"\n";

/// Longest that a build may take here.
const PATIENCE: Duration = Duration::from_secs(60);

fn shop(product: &Product, environment: &str) -> PathBuf {
    repo::with_files(
        product.root(),
        "shop",
        &[
            ("README.md", "A shop.\n"),
            ("package.json", "{}\n"),
            (".gitignore", "node_modules\n"),
            (".greenroom/environment.toml", environment),
        ],
    )
}

pub async fn start(product: &mut Product, environment: &str) -> (Api, PathBuf) {
    let source = shop(product, environment);
    let api = product.start().await;
    add(&api, "shop", &source).await;
    (api, source)
}

/// Commits a file and pushes it to the forge.
pub async fn push(api: &Api, source: &Path, file: &str, content: &str) {
    let repository = api.must_get("/v1/repositories/shop").await;
    let url = repo::with_token(repository["clone_url"].as_str().unwrap(), &api.token);
    std::fs::write(source.join(file), content).unwrap();
    repo::git(source, &["add", "-A"]);
    repo::git(source, &["commit", "-q", "-m", &format!("Change {file}")]);
    repo::git(source, &["push", "-q", "--force", &url, "main"]);
}

/// Builds an image and waits for its end.
pub async fn build(api: &Api) -> Value {
    let asked = api.must_post("/v1/repositories/shop/images", json!({})).await;
    ended(api, asked["id"].as_str().unwrap()).await
}

async fn ended(api: &Api, id: &str) -> Value {
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

pub async fn log(api: &Api, image: &Value) -> String {
    let (mut whole, mut after) = (String::new(), 0);
    loop {
        let id = image["id"].as_str().unwrap();
        let log = api.must_get(&format!("/v1/images/{id}/log?after={after}")).await;
        whole.push_str(log["output"].as_str().unwrap());
        after = log["end_offset"].as_u64().unwrap();
        if log["is_whole"] == true {
            return whole;
        }
    }
}

fn outcomes(image: &Value) -> Vec<(&str, &str)> {
    let steps = image["steps"].as_array().unwrap();
    steps
        .iter()
        .map(|step| (step["name"].as_str().unwrap(), step["outcome"].as_str().unwrap()))
        .collect()
}

async fn sessions_begin_with_the_image_and_the_newest_commit(who: Who) {
    let environment = "setup = 'mkdir -p node_modules && echo dependency > node_modules/x'\n\
        build = 'mkdir -p out && cp README.md out/ && echo changed >> package.json'\n\
        warm = 'grep -q shop out/README.md'\n";
    let look = "cat node_modules/x out/README.md README.md package.json; git status --porcelain; git log -1 --format=%s; \
        git branch --show-current | cut -c1-10";
    let script = commands(&[
        ("look", look),
        ("write", "echo mine > README.md; rm -r out; echo done"),
    ]);
    let mut product = Product::with_config(&script, BY_HAND);
    product.run_as(who);
    let (api, source) = start(&mut product, environment).await;
    let image = build(&api).await;
    assert_eq!(image["state"], "published", "{}", log(&api, &image).await);
    let expected = [
        ("clone", "done"),
        ("setup", "done"),
        ("build", "done"),
        ("warm", "done"),
        ("seal", "done"),
    ];
    assert_eq!(outcomes(&image), expected);
    let listed = api.must_get("/v1/repositories/shop/images").await;
    assert_eq!(listed["current"], image["id"]);

    push(&api, &source, "README.md", "A bigger shop.\n").await;
    let session = api.start_session("shop", "look").await;
    let events = api.wait_for_turns(&session, 1).await;
    // What the build made, and left alone; what it changed of the repository's own is as committed.
    let expected = "dependency\nA shop.\nA bigger shop.\n{}\nChange README.md\ngreenroom/";
    assert!(outputs(&events)[0].contains(expected), "{}", pretty(&events));

    // What one session does, another does not see.
    assert_eq!(api.prompt(&session, "write", "write").await.0, 202);
    api.wait_for_turns(&session, 2).await;
    let other = api.start_session("shop", "look").await;
    let events = api.wait_for_turns(&other, 1).await;
    assert!(outputs(&events)[0].contains(expected), "{}", pretty(&events));
    product.stop();
}

async fn steps_run_again_only_when_their_inputs_changed(who: Who) {
    let environment = "setup = 'echo setup >> ~/ran'\n\
        build = { run = 'echo build >> ~/ran', inputs = ['src', 'Makefile'] }\n\
        warm = 'echo warm >> ~/ran; cat ~/ran'\n";
    let mut product = Product::with_config(&commands(&[("look", "true")]), BY_HAND);
    product.run_as(who);
    let (api, source) = start(&mut product, environment).await;
    let first = build(&api).await;
    assert_eq!(first["state"], "published", "{}", log(&api, &first).await);
    std::fs::create_dir(source.join("src")).unwrap();
    let cases = [
        ("README.md", ["cached", "cached", "done"]),
        ("src/main.js", ["cached", "done", "done"]),
        ("package.json", ["done", "done", "done"]),
    ];
    for (file, [setup, build_outcome, warm]) in cases {
        push(&api, &source, file, &format!("{file} anew\n")).await;
        let image = build(&api).await;
        let expected = [
            ("clone", "done"),
            ("setup", setup),
            ("build", build_outcome),
            ("warm", warm),
            ("seal", "done"),
        ];
        assert_eq!(outcomes(&image), expected, "{file}: {}", log(&api, &image).await);
        assert!(image["built_on"].is_string());
    }
    let again = build(&api).await;
    assert_eq!(outcomes(&again)[3], ("warm", "cached"), "nothing changed at all");
    // From nothing, and by another environment.
    let asked = api
        .must_post("/v1/repositories/shop/images", json!({ "from_scratch": true }))
        .await;
    let scratch = ended(&api, asked["id"].as_str().unwrap()).await;
    assert_eq!(scratch["built_on"], Value::Null);
    assert!(log(&api, &scratch).await.contains("\nsetup\nbuild\nwarm\n"));
    let other = environment.replace("warm = 'echo warm", "warm = 'echo other");
    push(&api, &source, ".greenroom/environment.toml", &other).await;
    let image = build(&api).await;
    assert_eq!(image["built_on"], Value::Null);
    // The newest two that were published are kept; the others go a moment after the newest is published.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let listed = api.must_get("/v1/repositories/shop/images").await;
        if listed["images"].as_array().unwrap().len() == 2 {
            break;
        }
        assert!(Instant::now() < deadline, "old ones stay: {listed}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    product.stop();
}

async fn what_fails_publishes_nothing_and_the_last_image_serves(who: Who) {
    let script = commands(&[("look", "cat ~/good; git log -1 --format=%s")]);
    let mut product = Product::with_config(&script, BY_HAND);
    product.run_as(who);
    let (api, source) = start(&mut product, "setup = 'echo good > ~/good'\n").await;
    let secret = api.request(reqwest::Method::PUT, "/v1/secrets/api");
    assert_eq!(
        api.send(secret.json(&json!({ "value": "hunter2-hunter2" })))
            .await
            .0,
        204
    );
    let good = build(&api).await;
    assert_eq!(good["state"], "published");
    let cases = [
        (
            "setup = 'echo first; exit 7'",
            "step_failed",
            "first\n==> failed: setup ended with code 7.",
        ),
        (
            "setup = 'kill -9 $$'",
            "step_failed",
            "setup was ended by signal 9",
        ),
        (
            "setup = 'no-such-program'",
            "step_failed",
            "setup ended with code 127",
        ),
        (
            "setup = 'yes'\n[resources]\nmax_output_mb = 1",
            "step_output_limit",
            "setup wrote more output than it may",
        ),
        (
            "setup = 'head -c 40000000 /dev/zero > ~/big; sleep 1'\n[resources]\ndisk_mb = 16",
            "step_disk_limit",
            " took more disk than it may",
        ),
        (
            "setup = 'printf %s%s hunter2- hunter2 > ~/.config-file'",
            "secret_in_image",
            "home/agent/.config-file holds the value of the secret `api`",
        ),
    ];
    for (environment, code, says) in cases {
        push(&api, &source, ".greenroom/environment.toml", environment).await;
        let image = build(&api).await;
        assert_eq!(image["state"], "failed", "{environment}");
        assert_eq!(image["problem"]["code"], code, "{environment}: {image}");
        let log = log(&api, &image).await;
        assert!(log.contains(says), "{environment}: {log}");
        assert_eq!(image["snapshot_id"], Value::Null);
    }
    push(&api, &source, ".greenroom/environment.toml", "setup = 3").await;
    let image = build(&api).await;
    assert_eq!(image["problem"]["code"], "environment_invalid");
    assert!(
        image["problem"]["message"]
            .as_str()
            .unwrap()
            .contains("environment.toml:1: "),
        "{image}"
    );
    push(&api, &source, ".greenroom/environment.toml", "").await;
    let listed = api.must_get("/v1/repositories/shop/images").await;
    assert_eq!(listed["current"], good["id"]);
    let session = api.start_session("shop", "look").await;
    let events = api.wait_for_turns(&session, 1).await;
    let output = &outputs(&events)[0];
    assert!(
        output.contains("good\nChange .greenroom/environment.toml"),
        "{output}"
    );

    // Its files are gone: slower, but nothing is lost.
    let snapshot = good["snapshot_id"].as_str().unwrap();
    let images = product.sandboxes().join("images");
    std::fs::remove_file(images.join(format!("snapshots/{snapshot}.json"))).unwrap();
    product.expect_warning("a sandbox begins without its snapshot");
    let session = api.start_session("shop", "look").await;
    let events = api.wait_for_turns(&session, 1).await;
    assert!(
        outputs(&events)[0].contains("Change .greenroom/environment.toml"),
        "{}",
        pretty(&events)
    );
    for (path, status) in [
        ("/v1/repositories/nowhere/images", 404),
        ("/v1/images/img_x", 404),
        ("/v1/images/img_00000000000000000000000000", 404),
    ] {
        assert_eq!(api.get(path).await.0, status, "{path}");
    }
    product.stop();
}

async fn a_step_has_no_way_to_the_repository_and_leaves_nothing_running(who: Who) {
    let environment = "setup = 'if timeout 20 git fetch -q origin; then exit 9; fi; echo closed'\n\
        build = 'test -f /tmp/db && echo served; setsid sleep 1234 & sleep 1235 & echo left'\n\
        [[services]]\nname = 'db'\ncommand = 'touch /tmp/db; sleep 1236'\nready_command = 'test -f /tmp/db'\n";
    let mut product = Product::with_config(&commands(&[("look", "true")]), BY_HAND);
    product.run_as(who);
    let (api, _) = start(&mut product, environment).await;
    let image = build(&api).await;
    let log = log(&api, &image).await;
    assert_eq!(image["state"], "published", "{log}");
    for said in ["closed\n", "served\n", "left\n"] {
        assert!(log.contains(said), "{said}: {log}");
    }
    let sandboxes = std::fs::read_dir(product.sandboxes().join("sb")).unwrap();
    assert_eq!(sandboxes.count(), 0, "the build's sandbox is gone");
    product.stop();
}

async fn a_build_that_a_crash_cut_short_is_done_again(who: Who) {
    let script = commands(&[("look", "cat ~/made")]);
    // By schedule.
    let mut product = Product::with_config(&script, "");
    product.run_as(who);
    let environment = "setup = 'echo begun; until [ -f go ]; do sleep 0.05; done; echo made > ~/made'\n";
    let (api, source) = start(&mut product, environment).await;
    let building = async |api: &Api| {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let listed = api.must_get("/v1/repositories/shop/images").await;
            let first = &listed["images"][0];
            if first["state"] == "installing" {
                return first["id"].as_str().unwrap().to_owned();
            }
            assert!(Instant::now() < deadline, "never builds: {listed}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let first = building(&api).await;
    // The one that follows can end.
    push(&api, &source, "go", "").await;
    product.kill();
    let api = product.start().await;
    let image = ended(&api, &first).await;
    assert_eq!(image["problem"]["code"], "build_interrupted");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let listed = api.must_get("/v1/repositories/shop/images").await;
        if listed["current"].is_string() {
            break;
        }
        assert!(Instant::now() < deadline, "never published: {listed}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let session = api.start_session("shop", "look").await;
    let events = api.wait_for_turns(&session, 1).await;
    assert!(outputs(&events)[0].contains("made"), "{}", pretty(&events));
    product.stop();
}

async fn the_command_line_builds_and_shows_images(who: Who) {
    let mut product = Product::with_config(&commands(&[("look", "true")]), BY_HAND);
    product.run_as(who);
    let (_, _) = start(&mut product, "setup = 'echo hello from setup'\n").await;
    let text = |output: std::process::Output| {
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (code, out, error) = text(product.run(&["image", "build", "shop"]));
    assert_eq!(code, Some(0), "{error}");
    assert!(
        out.contains("hello from setup\n") && out.contains("published"),
        "{out}"
    );
    let (code, out, _) = text(product.run(&["image", "list", "shop", "--json"]));
    assert_eq!(code, Some(0));
    let image: Value = serde_json::from_str(out.lines().next().unwrap()).unwrap();
    let id = image["id"].as_str().unwrap();
    let (_, out, _) = text(product.run(&["image", "show", id]));
    assert!(out.contains("setup  done"), "{out}");
    let (_, out, _) = text(product.run(&["image", "log", id]));
    assert!(out.ends_with("==> published\n"), "{out}");
    let (code, out, _) = text(product.run(&["env", "build", "shop", "--json", "--from-scratch"]));
    assert_eq!(code, Some(0));
    let image: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(image["state"], "published");
    for wrong in [
        ["image", "build", "nowhere"],
        ["image", "show", "img_x"],
        ["image", "log", "x"],
    ] {
        let (code, _, error) = text(product.run(&wrong));
        assert!(
            code == Some(1) && error.contains("_unknown]"),
            "{wrong:?}: {code:?} {error}"
        );
    }
    product.stop();
}

async fn a_base_branch_that_was_rewritten_or_deleted_is_no_mystery(who: Who) {
    let script = commands(&[(
        "look",
        "cat README.md; git log --format=%s | wc -l; git status --porcelain",
    )]);
    let mut product = Product::with_config(&script, BY_HAND);
    product.run_as(who);
    let (api, source) = start(&mut product, "build = 'echo made > made.txt'\n").await;
    push(&api, &source, "README.md", "Second.\n").await;
    assert_eq!(build(&api).await["state"], "published");
    repo::git(&source, &["reset", "-q", "--hard", "HEAD~1"]);
    push(&api, &source, "README.md", "Another second.\n").await;
    let session = api.start_session("shop", "look").await;
    let events = api.wait_for_turns(&session, 1).await;
    assert!(
        outputs(&events)[0].contains("Another second.\n2\n"),
        "{}",
        pretty(&events)
    );
    let image = build(&api).await;
    assert_eq!(image["state"], "published", "{}", log(&api, &image).await);

    // A session on a branch that goes away before its sandbox starts.
    let repository = api.must_get("/v1/repositories/shop").await;
    let url = repo::with_token(repository["clone_url"].as_str().unwrap(), &api.token);
    repo::git(&source, &["push", "-q", &url, "main:next"]);
    let session = api
        .must_post(
            "/v1/sessions",
            json!({ "repository": "shop", "base_branch": "next" }),
        )
        .await;
    let session = session["session"]["id"].as_str().unwrap().to_owned();
    repo::git(&source, &["push", "-q", &url, ":next"]);
    product.expect_warning("sandbox not ready");
    assert_eq!(api.prompt(&session, "one", "look").await.0, 202);
    let events = api.wait_for_turns(&session, 1).await;
    let failed = of_type(&events, "sandbox.state_changed");
    assert!(
        failed
            .iter()
            .any(|event| event["problem"]["code"] == "branch_unknown"
                && event["problem"]["message"] == "The repository shop has no branch next."),
        "{}",
        pretty(&events)
    );
    assert!(
        of_type(&events, "change.pushed").is_empty(),
        "{}",
        pretty(&events)
    );
    product.stop();
}

async fn what_a_step_leaves_behind_decides_nothing_later(who: Who) {
    let look = "cat README.md; git log -1 --format=%s; git branch --show-current | cut -c1-10";
    let mut product = Product::with_config(&commands(&[("look", look)]), BY_HAND);
    product.run_as(who);
    // Git's configuration in all its places, hooks, programs with well-known names, our own marks, what cannot be removed, and a
    // daemon that writes on.
    let environment = r"build = '''
git config url.http://127.0.0.1:9/.insteadOf http
git config --global url.http://127.0.0.1:9/.insteadOf http
git config core.fsmonitor /home/agent/spy
git config core.hooksPath /home/agent/hooks
mkdir -p ~/.local/bin ~/hooks ~/.greenroom
printf '#!/bin/sh\nexit 1\n' > ~/spy
chmod +x ~/spy; cp ~/spy ~/hooks/post-checkout; cp ~/spy ~/hooks/reference-transaction; cp ~/spy ~/.local/bin/git
touch ~/.greenroom/checkout
mkdir -p /tmp/closed/deep && touch /tmp/closed/deep/x && chmod 500 /tmp/closed/deep /tmp/closed
(setsid sh -c 'while :; do echo dirty > README.md; sleep .002; done' &)
sleep .2
'''
";
    let (api, source) = start(&mut product, environment).await;
    for content in ["First.", "Second."] {
        push(&api, &source, "other.txt", content).await;
        let image = build(&api).await;
        assert_eq!(image["state"], "published", "{}", log(&api, &image).await);
    }
    push(&api, &source, "README.md", "A newer shop.\n").await;
    // The agent's own git is what the step made of it.
    let session = api.start_session("shop", "look").await;
    let events = api.wait_for_turns(&session, 1).await;
    let output = &outputs(&events)[0];
    assert!(output.starts_with("A newer shop.\n"), "{output}");
    assert!(
        !pretty(&events).contains("change.pushed"),
        "nobody changed anything: {}",
        pretty(&events)
    );
    push(
        &api,
        &source,
        ".greenroom/environment.toml",
        "build = 'rm -rf .git && touch .git'",
    )
    .await;
    let image = build(&api).await;
    assert_eq!(image["problem"]["code"], "image_workspace", "{image}");
    let message = image["problem"]["message"].as_str().unwrap();
    assert!(message.contains("a step replaced .git"), "{message}");
    product.stop();
}

async fn leftovers_of_steps_are_nobodys_change(who: Who) {
    let look = "git status --porcelain; ls out; echo new > out/mine.txt; git status --porcelain -uall";
    let mut product = Product::with_config(&commands(&[("look", look)]), BY_HAND);
    product.run_as(who);
    let environment = r##"build = '''
echo '*' > .git/info/exclude
mkdir -p out many
touch 'café.txt' 'sp ' "$(printf 'tab\tx')" '"q"' "$(printf 'new\nline')" '[a]*?' '#x' '!y' 'back\slash' out/made.txt
'''
"##;
    let (api, _) = start(&mut product, environment).await;
    let image = build(&api).await;
    assert_eq!(image["state"], "published", "{}", log(&api, &image).await);
    let session = api.start_session("shop", "look").await;
    let events = api.wait_for_turns(&session, 1).await;
    let output = &outputs(&events)[0];
    assert!(output.starts_with("made.txt\n?? out/mine.txt\n"), "{output}");
    product.stop();
}

/// Processor time of a process, in ticks.
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

async fn a_server_that_waits_takes_no_processor(who: Who) {
    let mut product = Product::with_config(&commands(&[("look", "true")]), BY_HAND);
    product.run_as(who);
    let (_api, _source) = start(&mut product, "setup = 'true'\n").await;
    // What follows a start.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = ticks(product.pid());
    tokio::time::sleep(Duration::from_secs(2)).await;
    let taken = ticks(product.pid()) - before;
    assert!(taken < 60, "{taken} of 200 ticks");
    product.stop();
}

async fn a_step_finds_its_secrets_and_nobody_else_does(who: Who) {
    let look = "ls /run/secrets 2> /dev/null; cat used; grep -rsl hunter2-hunter2 /workspace /home /tmp /run; echo end";
    let mut product = Product::with_config(&commands(&[("look", look)]), BY_HAND);
    product.run_as(who);
    let (api, _source) = start(
        &mut product,
        "setup = { run = 'true', secrets = ['npm.token'] }\n",
    )
    .await;
    // A repository's own file may not.
    let failed = build(&api).await;
    assert_eq!(failed["problem"]["code"], "environment_refused", "{failed}");
    let set = async |setup: Value| {
        let request = api.request(reqwest::Method::PUT, "/v1/repositories/shop/environment");
        let build = "test ! -e /run/secrets && test -e used";
        let (status, report) = api
            .send(request.json(&json!({"setup": setup, "build": build})))
            .await;
        assert_eq!(status, 200, "{report}");
    };
    let used = json!({"run": "test \"$(cat /run/secrets/npm.token)\" = hunter2-hunter2 && echo used > used", "secrets": ["npm.token"]});
    set(used.clone()).await;
    let failed = build(&api).await;
    assert_eq!(failed["problem"]["code"], "secret_missing", "{failed}");
    let secret = api.request(reqwest::Method::PUT, "/v1/secrets/npm.token");
    assert_eq!(
        api.send(secret.json(&json!({"value": "hunter2-hunter2"})))
            .await
            .0,
        204
    );
    let image = build(&api).await;
    assert_eq!(image["state"], "published", "{}", log(&api, &image).await);
    let session = api.start_session("shop", "look").await;
    let events = api.wait_for_turns(&session, 1).await;
    assert!(
        outputs(&events)[0].starts_with("used\nend\n"),
        "{}",
        pretty(&events)
    );
    // One that keeps it fails.
    set(json!({"run": "cp /run/secrets/npm.token kept", "secrets": ["npm.token"]})).await;
    let failed = build(&api).await;
    assert_eq!(failed["state"], "failed", "{failed}");
    product.stop();
}

async fn other_systems_ask_for_images_by_signed_calls(who: Who) {
    let mut product = Product::with_config(&commands(&[("look", "true")]), BY_HAND);
    product.run_as(who);
    let (api, _) = start(&mut product, "").await;
    let call = async |path: &str, headers: &[(&str, String)], body: &str| {
        let client = api.anonymous();
        let mut request = client.post(format!("{}{path}", api.url)).body(body.to_owned());
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let answer = request.send().await.unwrap();
        (
            answer.status().as_u16(),
            answer.json::<Value>().await.unwrap_or_default(),
        )
    };
    let sign = |secret: &str, body: &str| {
        let program = "import hashlib, hmac, sys; print(hmac.new(sys.argv[1].encode(), sys.argv[2].encode(), hashlib.sha256).hexdigest())";
        let output = std::process::Command::new("python3")
            .args(["-c", program, secret, body])
            .output()
            .unwrap();
        let digits = String::from_utf8(output.stdout).unwrap();
        vec![("x-hub-signature-256", format!("sha256={}", digits.trim()))]
    };
    let path = "/v1/repositories/shop/images/webhook";
    let body = r#"{"ref": "refs/heads/main"}"#;
    let unsigned = (401, json!("webhook_unsigned"));
    let code = |(status, answer): (u16, Value)| (status, answer["code"].clone());
    // Nobody stored a secret.
    assert_eq!(code(call(path, &sign("", body), body).await), unsigned);
    let put = api.request(Method::PUT, "/v1/secrets/webhook.shop");
    let put = put.json(&json!({"value": "between us"}));
    assert_eq!(api.send(put).await.0, 204);
    assert_eq!(code(call(path, &[], body).await), unsigned);
    assert_eq!(code(call(path, &sign("other", body), body).await), unsigned);
    let nowhere = "/v1/repositories/nowhere/images/webhook";
    assert_eq!(
        code(call(nowhere, &sign("between us", body), body).await),
        unsigned
    );
    let large = "x".repeat(2 << 20);
    assert_eq!(call(path, &[], &large).await.0, 413);

    let (status, answer) = call(path, &sign("between us", body), body).await;
    assert_eq!(status, 202, "{answer}");
    let image = ended(&api, answer["image_id"].as_str().unwrap()).await;
    assert_eq!(
        (&image["state"], &image["trigger"]),
        (&json!("published"), &json!({"kind": "webhook"}))
    );
    let again = call(path, &sign("between us", body), body).await;
    assert_eq!(again, (202, json!({})), "the same call again builds nothing");
    let other = r#"{"ref": "refs/heads/next"}"#;
    let (status, answer) = call(path, &sign("between us", other), other).await;
    assert_eq!(
        (status, answer),
        (202, json!({})),
        "nothing that an image is built of"
    );
    let token = [("x-gitlab-token", "between us".to_owned())];
    let (status, answer) = call(path, &token, "").await;
    assert!(
        status == 202 && answer["image_id"].is_string(),
        "{status} {answer}"
    );
    ended(&api, answer["image_id"].as_str().unwrap()).await;
    product.stop();
}

async fn older_images_go_before_a_new_one_is_refused(who: Who) {
    let config = "[image]\nschedule = \"off\"\ndisk_mb = 40\n";
    let mut product = Product::with_config(&commands(&[("look", "cat ~/big | wc -c")]), config);
    product.run_as(who);
    let setup = |bytes: usize| format!("setup = \"head -c {bytes} /dev/urandom > ~/big\"\n");
    let (api, source) = start(&mut product, &setup(25_000_000)).await;
    let first = build(&api).await;
    // What both have in common counts once, so this is no reason to remove anything.
    push(&api, &source, "README.md", "Second.\n").await;
    let second = build(&api).await;
    assert_eq!(second["state"], "published", "{second}");
    let path = |image: &Value| format!("/v1/images/{}", image["id"].as_str().unwrap());
    assert_eq!(api.get(&path(&first)).await.0, 200);
    // Another 25 MB: now there are more than 40, and the next build makes room.
    push(&api, &source, ".greenroom/environment.toml", &setup(25_000_001)).await;
    let third = build(&api).await;
    assert_eq!(third["state"], "published", "{third}");
    push(&api, &source, "README.md", "Fourth.\n").await;
    let fourth = build(&api).await;
    assert_eq!(fourth["state"], "published", "{fourth}");
    assert_eq!(api.get(&path(&second)).await.0, 404);
    let session = api.start_session("shop", "look").await;
    let events = api.wait_for_turns(&session, 1).await;
    assert!(
        outputs(&events)[0].starts_with("25000001\n"),
        "{}",
        pretty(&events)
    );
    // One that is too large alone leaves no room for any other, and still serves.
    push(&api, &source, ".greenroom/environment.toml", &setup(45_000_000)).await;
    assert_eq!(build(&api).await["state"], "published");
    let refused = build(&api).await;
    assert_eq!(refused["problem"]["code"], "images_disk_full", "{refused}");
    let session = api.start_session("shop", "look").await;
    let events = api.wait_for_turns(&session, 1).await;
    assert!(
        outputs(&events)[0].starts_with("45000000\n"),
        "{}",
        pretty(&events)
    );
    product.stop();
}

/// Alone and as one user: it takes a minute, the least that can be set.
#[tokio::test]
async fn a_step_that_never_ends_is_ended() {
    let mut product = Product::with_config(&commands(&[("look", "cat ~/made")]), BY_HAND);
    let (api, source) = start(&mut product, "setup = \"echo made > ~/made\"\n").await;
    assert_eq!(build(&api).await["state"], "published");
    let endless = "setup = \"echo made > ~/made; while true; do sleep 1 & wait; done\"\n\n[image]\nstep_timeout_minutes = 1\n";
    push(&api, &source, ".greenroom/environment.toml", endless).await;
    let asked = api.must_post("/v1/repositories/shop/images", json!({})).await;
    // Sessions begin with the last good one meanwhile, and afterwards.
    let id = asked["id"].as_str().unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let session = api.start_session("shop", "look").await;
        let events = api.wait_for_turns(&session, 1).await;
        assert!(outputs(&events)[0].starts_with("made\n"), "{}", pretty(&events));
        let image = api.must_get(&format!("/v1/images/{id}")).await;
        if image["state"] == "failed" {
            assert_eq!(image["problem"]["code"], "step_timed_out", "{image}");
            break;
        }
        assert!(Instant::now() < deadline, "{image}");
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    product.stop();
}
