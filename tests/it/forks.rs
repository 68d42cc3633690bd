//! Sessions that begin as a copy of another, and what happens when two write to one branch.

use crate::script::{add, commands, outputs};
use greenroom_llm::scripted::script::Script;
use greenroom_system_tests::api::{Api, of_type, pretty};
use greenroom_system_tests::product::{Product, Who};
use greenroom_system_tests::repo;
use greenroom_testkit::model_server::ModelServer;
use reqwest::Method;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

greenroom_system_tests::for_both_users! {
    forks_begin_with_the_files_and_the_conversation,
    a_running_turn_is_forked_where_it_stands,
    what_others_push_is_taken_in_and_never_pushed_over,
    a_restored_sandbox_is_brought_together_with_its_branch,
    local_changes_of_a_restored_sandbox_are_kept_with_the_conflict,
    nothing_of_others_is_lost_whatever_the_agent_does_with_git,
    forks_bear_what_is_damaged_and_keep_nothing_for_ever,
}

const SHOW: &str = "cat README.md; cat cache other.txt 2> /dev/null; git log --format=%s; git branch --show-current; git status --porcelain";

async fn shop(product: &mut Product) -> Api {
    let files = [("README.md", "A shop.\n"), (".gitignore", "cache\n")];
    let source = repo::with_files(product.root(), "shop", &files);
    let api = product.start().await;
    add(&api, "shop", &source).await;
    api
}

async fn fork(api: &Api, session: &str, key: &str, body: Value) -> (u16, Value) {
    let request = api
        .request(Method::POST, &format!("/v1/sessions/{session}/forks"))
        .header("idempotency-key", key)
        .json(&body);
    api.send(request).await
}

fn ids(forked: &Value) -> Vec<String> {
    let sessions = forked["sessions"].as_array();
    let sessions = sessions.unwrap_or_else(|| panic!("{forked}"));
    let id = |made: &Value| made["session"]["id"].as_str().unwrap().to_owned();
    sessions.iter().map(id).collect()
}

async fn turn(api: &Api, session: &str, prompt: &str, turns: usize) -> (String, Vec<Value>) {
    assert_eq!(
        api.prompt(session, &format!("{prompt}{turns}"), prompt).await.0,
        202
    );
    let events = api.wait_for_turns(session, turns).await;
    let output = outputs(&events).pop().unwrap_or_default();
    (output, events)
}

/// Codes of what people were told in a session.
fn notices(events: &[Value]) -> Vec<String> {
    let told = of_type(events, "item.completed").into_iter();
    told.filter_map(|event| event["item"]["problem"]["code"].as_str().map(str::to_owned))
        .collect()
}

/// Somebody's own clone, with the session's branch checked out.
async fn clone(product: &Product, api: &Api, session: &str) -> (PathBuf, String) {
    let repository = api.must_get("/v1/repositories/shop").await;
    let url = repo::with_token(repository["clone_url"].as_str().unwrap(), &api.token);
    let branch = api.must_get(&format!("/v1/sessions/{session}")).await["branch"]
        .as_str()
        .unwrap()
        .to_owned();
    let place = product.root().join("clone");
    repo::git(
        product.root(),
        &["clone", "-q", "-b", &branch, &url, place.to_str().unwrap()],
    );
    (place, branch)
}

fn push(clone: &Path, file: &str, content: &str) {
    repo::git(clone, &["pull", "-q", "--rebase"]);
    std::fs::write(clone.join(file), content).unwrap();
    repo::git(clone, &["add", "-A"]);
    repo::git(clone, &["commit", "-q", "-m", &format!("Somebody's {file}")]);
    repo::git(clone, &["push", "-q", "origin", "HEAD"]);
}

fn fetched(clone: &Path, branch: &str, what: &str) -> String {
    repo::git(clone, &["fetch", "-q"]);
    repo::git(clone, &["show", &format!("origin/{branch}:{what}")])
}

async fn forks_begin_with_the_files_and_the_conversation(who: Who) {
    let script = commands(&[
        ("work", "echo mine > README.md; echo built > cache"),
        ("show", SHOW),
        ("own", "echo own >> README.md"),
    ]);
    let model = ModelServer::start(Script::parse(&script).unwrap()).await.unwrap();
    let provider = format!(
        "\n[[providers]]\nid = \"wire\"\nkind = \"openai-chat\"\nbase_url = \"{}\"\napi_key_env = \"WIRE_KEY\"\nmodels = [\"some-model\"]\n",
        model.url()
    );
    let mut product = Product::with_config(&script, &provider);
    product.set_env("WIRE_KEY", "sk-test-key");
    product.run_as(who);
    let api = shop(&mut product).await;
    let session = api.start_session("shop", "work").await;
    let before = api.wait_for_turns(&session, 1).await;

    for (body, status, code) in [
        (json!({"count": 0}), 422, "fork_count_invalid"),
        (json!({"count": 9, "prompt": "x"}), 422, "fork_count_invalid"),
        (json!({"prompt": " "}), 422, "prompt_empty"),
        (json!({"model": "none/none"}), 404, "model_unknown"),
        (
            json!({"snapshot_id": "snp_00000000000000000000000000"}),
            404,
            "snapshot_unknown",
        ),
        (json!({"counts": 1}), 422, "body_invalid"),
    ] {
        let (found, problem) = fork(&api, &session, &format!("wrong-{body}").replace(' ', ""), body).await;
        assert_eq!(
            (found, problem["code"].as_str()),
            (status, Some(code)),
            "{problem}"
        );
    }
    let (status, problem) = fork(&api, "ses_00000000000000000000000000", "none", json!({})).await;
    assert_eq!((status, problem["code"].as_str()), (404, Some("session_unknown")));

    let body = json!({"count": 3, "prompt": "show", "model": "wire/some-model"});
    let (status, forked) = fork(&api, &session, "three", body.clone()).await;
    assert_eq!(status, 201, "{forked}");
    let forks = ids(&forked);
    assert_eq!(forks.len(), 3);
    let (_, again) = fork(&api, &session, "three", body).await;
    assert_eq!(ids(&again), forks, "the same answer under the same key");
    let (status, problem) = fork(&api, &session, "three", json!({"count": 2})).await;
    assert_eq!(status, 409, "{problem}");
    let mut branches = Vec::new();
    for (id, number) in forks.iter().zip(1..) {
        let events = api.wait_for_turns(id, 2).await;
        let said = outputs(&events).pop().unwrap();
        let row = api.must_get(&format!("/v1/sessions/{id}")).await;
        let branch = row["branch"].as_str().unwrap().to_owned();
        assert_eq!(row["forked_from"], session.as_str());
        assert_eq!(row["title"], format!("show · {number}"));
        assert!(
            said.starts_with(&format!("mine\nbuilt\nwork\nFirst commit\n{branch}\n[exit")),
            "{said}\n{}",
            pretty(&events)
        );
        assert_eq!(outputs(&events)[0], outputs(&before)[0], "what was said is there");
        assert_eq!(notices(&events), Vec::<String>::new(), "{}", pretty(&events));
        let ended = |events: &[Value]| of_type(events, "turn.completed")[0]["at_ms"].clone();
        assert_eq!(ended(&events), ended(&before), "and when");
        branches.push(branch);
    }
    branches.sort();
    branches.dedup();
    assert_eq!(branches.len(), 3);
    // The model knows what was said before the fork.
    let first = model.requests().remove(0).body.to_string();
    assert!(
        first.contains("echo mine > README.md") && first.contains("show"),
        "{first}"
    );
    // Whatever happens to a fork is its own, and it is a session like any other.
    let (_, events) = turn(&api, &forks[0], "own", 3).await;
    assert_eq!(notices(&events), Vec::<String>::new());
    let pushed = of_type(&events, "change.pushed");
    // What it began with, and what it changed.
    assert_eq!(pushed.len(), 2, "{}", pretty(&events));
    let (said, _) = turn(&api, &session, "show", 2).await;
    assert!(said.starts_with("mine\nbuilt\nwork\nFirst commit\n"), "{said}");
    let (_, forked) = fork(&api, &forks[0], "deeper", json!({})).await;
    let deeper = ids(&forked).remove(0);
    product.kill();
    let api = product.start().await;
    let (said, events) = turn(&api, &deeper, "show", 4).await;
    assert!(
        said.starts_with("mine\nown\nbuilt\nown\nwork\nFirst commit\n"),
        "{said}\n{}",
        pretty(&events)
    );
    product.stop();
}

async fn a_running_turn_is_forked_where_it_stands(who: Who) {
    let script = commands(&[
        ("work", "echo half > other.txt; echo begun; sleep 600"),
        ("show", SHOW),
    ]);
    let mut product = Product::with_script(&script);
    product.run_as(who);
    let api = shop(&mut product).await;
    let session = api.start_session("shop", "work").await;
    let file = async || {
        let snapshots = api
            .post(&format!("/v1/sessions/{session}/snapshots"), json!({}))
            .await;
        snapshots.0
    };
    // What it wrote is there when it says so.
    let mut stream = api.stream(&session, 0).await;
    stream
        .until(|frame| {
            frame["channel"] == "output" && frame["text"].as_str().is_some_and(|text| text.contains("begun"))
        })
        .await;
    drop(stream);
    assert_eq!(file().await, 200);
    let output = product.run(&["session", "fork", &session, "--count", "2", "--json"]);
    let forked: Value = serde_json::from_slice(&output.stdout).unwrap();
    let forks = ids(&forked);
    // One that waits begins with the same files after a restart, and is told as stopped.
    let row = api.must_get(&format!("/v1/sessions/{}", forks[0])).await;
    assert_eq!(row["state"], "idle", "{row}");
    let ends = api.events(&forks[0]).await;
    let ends = of_type(&ends, "turn.completed");
    assert_eq!(ends[0]["outcome"]["result"], "stopped");
    assert_eq!(
        api.must_post(&format!("/v1/sessions/{session}/stop"), json!({}))
            .await["state"],
        "stopping"
    );
    api.wait_for_turns(&session, 1).await;
    product.kill();
    let api = product.start().await;
    for id in &forks {
        let (said, events) = turn(&api, id, "show", 2).await;
        assert!(
            said.contains("half\nFirst commit\n") && said.contains("?? other.txt"),
            "{said}\n{}",
            pretty(&events)
        );
    }
    // A fork of a snapshot has what was said before it and nothing of after it.
    let listed = api.must_get(&format!("/v1/sessions/{session}/snapshots")).await;
    let snapshots = listed["snapshots"].as_array().unwrap();
    let oldest = snapshots.last().unwrap()["id"].as_str().unwrap().to_owned();
    turn(&api, &session, "show", 2).await;
    let output = product.run(&[
        "session",
        "fork",
        &session,
        "show",
        "--snapshot",
        &oldest,
        "--no-wait",
        "--json",
    ]);
    let forked: Value = serde_json::from_slice(&output.stdout).unwrap();
    let fork = ids(&forked).remove(0);
    let events = api.wait_for_turns(&fork, 2).await;
    assert_eq!(of_type(&events, "turn.started").len(), 2, "{}", pretty(&events));
    let said = outputs(&events).pop().unwrap();
    assert!(said.contains("?? other.txt"), "{said}");
    product.stop();
}

async fn what_others_push_is_taken_in_and_never_pushed_over(who: Who) {
    let script = commands(&[
        ("work", "echo mine > README.md"),
        ("more", "echo more > more.txt; echo '!' >> .gitignore"),
        ("clash", "echo clash > other.txt"),
        (
            "solve",
            "git fetch -q && git merge -q origin/$(git branch --show-current); echo both > other.txt",
        ),
        (
            "amend",
            "echo amended > README.md; git commit -q --amend -a --no-edit",
        ),
        ("show", SHOW),
    ]);
    let mut product = Product::with_script(&script);
    product.run_as(who);
    let api = shop(&mut product).await;
    let session = api.start_session("shop", "work").await;
    api.wait_for_turns(&session, 1).await;
    let (place, branch) = clone(&product, &api, &session).await;

    push(&place, "theirs.txt", "theirs\n");
    let (_, events) = turn(&api, &session, "more", 2).await;
    assert_eq!(notices(&events), ["branch_joined"], "{}", pretty(&events));
    for (file, content) in [
        ("theirs.txt", "theirs"),
        ("more.txt", "more"),
        ("README.md", "mine"),
    ] {
        assert_eq!(fetched(&place, &branch, file), content);
    }
    let (said, _) = turn(&api, &session, "show", 3).await;
    assert!(
        said.contains("more\nSomebody's theirs.txt\nwork\nFirst commit\n"),
        "{said}"
    );
    assert!(said.contains("were taken in"), "the model hears of it: {said}");

    push(&place, "other.txt", "theirs\n");
    let (_, events) = turn(&api, &session, "clash", 4).await;
    assert_eq!(notices(&events), ["branch_joined", "branch_conflict"]);
    assert_eq!(fetched(&place, &branch, "other.txt"), "theirs");
    let (said, events) = turn(&api, &session, "solve", 5).await;
    assert!(said.contains("origin/"), "the model hears of it: {said}");
    assert_eq!(
        notices(&events).len(),
        2,
        "both sides are in now: {}",
        pretty(&events)
    );
    assert_eq!(fetched(&place, &branch, "other.txt"), "both");

    // What it rewrites of its own is its own business.
    let (_, events) = turn(&api, &session, "amend", 6).await;
    assert_eq!(notices(&events).len(), 2, "{}", pretty(&events));
    assert_eq!(fetched(&place, &branch, "README.md"), "amended");
    // The branch is gone: it comes again.
    repo::git(&place, &["push", "-q", "origin", &format!(":{branch}")]);
    turn(&api, &session, "more", 7).await;
    let (_, events) = turn(&api, &session, "clash", 8).await;
    assert_eq!(notices(&events).len(), 2, "{}", pretty(&events));
    assert_eq!(fetched(&place, &branch, "other.txt"), "clash");
    product.stop();
}

/// A snapshot taken in the middle of a turn that pushed when it was stopped, and the sandbox's files gone after it.
async fn restored(product: &mut Product, at_stop: &str) -> (Api, String) {
    let script = commands(&[
        ("work", "echo mine > README.md"),
        (
            "more",
            &format!("echo local > other.txt; trap '{at_stop}; exit' TERM; sleep 600 & wait"),
        ),
        ("show", SHOW),
        ("solve", "echo both > other.txt"),
    ]);
    std::fs::write(product.root().join("script.toml"), script).unwrap();
    let api = shop(product).await;
    let session = api.start_session("shop", "work").await;
    api.wait_for_turns(&session, 1).await;
    assert_eq!(api.prompt(&session, "more", "more").await.0, 202);
    let has_two = |events: &[Value]| {
        let started = of_type(events, "item.started").into_iter();
        started.filter(|event| event["item"]["tool"] == "bash").count() == 2
    };
    api.wait_for(&session, "a running command", has_two).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    api.must_post(&format!("/v1/sessions/{session}/snapshots"), json!({}))
        .await;
    let output = product.run(&["session", "stop", &session]);
    assert!(output.status.success());
    api.wait_for_turns(&session, 2).await;
    product.stop();
    std::fs::remove_dir_all(product.sandboxes().join("sb")).unwrap();
    (product.start().await, session)
}

async fn a_restored_sandbox_is_brought_together_with_its_branch(who: Who) {
    let mut product = Product::with_config("", "[snapshot]\nkeep = 0\n");
    product.run_as(who);
    let (api, session) = restored(&mut product, "true").await;
    // The stopped turn pushed the same file that lies in the snapshot, not committed.
    let (said, events) = turn(&api, &session, "show", 3).await;
    assert_eq!(
        notices(&events),
        ["sandbox_restored", "branch_joined"],
        "{}",
        pretty(&events)
    );
    assert!(
        said.starts_with("mine\nlocal\nmore\nwork\nFirst commit\n"),
        "{said}"
    );
    assert!(!said.contains("?? other.txt"), "nothing is left over: {said}");
    assert!(
        said.contains("the sandbox was lost"),
        "the model hears of it: {said}"
    );
    product.stop();
}

async fn local_changes_of_a_restored_sandbox_are_kept_with_the_conflict(who: Who) {
    let mut product = Product::with_config("", "[snapshot]\nkeep = 0\n");
    product.run_as(who);
    let (api, session) = restored(&mut product, "echo later > other.txt").await;
    let (place, branch) = clone(&product, &api, &session).await;
    let (said, events) = turn(&api, &session, "show", 3).await;
    // When it began, and when nothing could be pushed.
    assert_eq!(
        notices(&events),
        ["sandbox_restored", "branch_conflict", "branch_conflict"],
        "{}",
        pretty(&events)
    );
    assert!(
        said.contains("<<<<<<<") && said.contains("local\n") && said.contains("later\n"),
        "both sides are visible: {said}"
    );
    // Nothing with markers in it reaches the branch, turn after turn, until somebody resolves it.
    assert_eq!(fetched(&place, &branch, "other.txt"), "later");
    let (_, events) = turn(&api, &session, "solve", 4).await;
    assert_eq!(notices(&events).len(), 3, "{}", pretty(&events));
    assert_eq!(fetched(&place, &branch, "other.txt"), "both");
    product.stop();
}

async fn nothing_of_others_is_lost_whatever_the_agent_does_with_git(who: Who) {
    let script = commands(&[
        ("work", "echo mine > README.md"),
        ("clash", "echo clash > other.txt"),
        ("unrelated", "date +%N >> unrelated.txt"),
        (
            "look",
            "B=$(git branch --show-current); git fetch -q; git checkout -q origin/$B; ls; git checkout -q $B; echo p > p.txt",
        ),
        (
            "leave",
            "git fetch -q; git checkout -q --detach origin/main; echo z > z.txt",
        ),
        (
            "rebase",
            "git fetch -q; git rebase -q origin/$(git branch --show-current)",
        ),
        (
            "end",
            "echo both > other.txt; git add -A; GIT_EDITOR=true git rebase --continue",
        ),
        ("secret", "echo '.env' >> .gitignore; echo local-secret > .env"),
        ("keep", "cat .env"),
    ]);
    let mut product = Product::with_script(&script);
    product.run_as(who);
    let api = shop(&mut product).await;
    let session = api.start_session("shop", "work").await;
    api.wait_for_turns(&session, 1).await;
    let (place, branch) = clone(&product, &api, &session).await;

    // A conflict that nobody resolves is said again, and nothing goes over it.
    push(&place, "other.txt", "theirs\n");
    turn(&api, &session, "clash", 2).await;
    let (_, events) = turn(&api, &session, "unrelated", 3).await;
    assert_eq!(notices(&events), ["branch_conflict", "branch_conflict"]);
    assert_eq!(fetched(&place, &branch, "other.txt"), "theirs");
    // A rebase that stops half way is not made a commit.
    let (_, events) = turn(&api, &session, "rebase", 4).await;
    assert_eq!(
        notices(&events).pop().unwrap(),
        "branch_busy",
        "{}",
        pretty(&events)
    );
    assert_eq!(fetched(&place, &branch, "other.txt"), "theirs");
    let (_, events) = turn(&api, &session, "end", 5).await;
    assert_eq!(notices(&events).len(), 3, "{}", pretty(&events));
    assert_eq!(fetched(&place, &branch, "other.txt"), "both");
    assert!(!fetched(&place, &branch, "unrelated.txt").is_empty());

    // What was only looked at is not its own.
    push(&place, "seen.txt", "seen\n");
    let (_, events) = turn(&api, &session, "look", 6).await;
    assert_eq!(
        notices(&events).pop().unwrap(),
        "branch_joined",
        "{}",
        pretty(&events)
    );
    assert_eq!(fetched(&place, &branch, "seen.txt"), "seen");
    assert_eq!(fetched(&place, &branch, "p.txt"), "p");
    // What was taken in before stays when the agent leaves the branch.
    turn(&api, &session, "leave", 7).await;
    for (file, content) in [("seen.txt", "seen"), ("README.md", "mine"), ("z.txt", "z")] {
        assert_eq!(fetched(&place, &branch, file), content);
    }

    // Files that git does not keep are not written over.
    turn(&api, &session, "secret", 8).await;
    repo::git(&place, &["pull", "-q", "--rebase"]);
    std::fs::write(place.join(".env"), "theirs\n").unwrap();
    repo::git(&place, &["add", "-f", ".env"]);
    repo::git(&place, &["commit", "-q", "-m", "A file that is ignored"]);
    repo::git(&place, &["push", "-q", "origin", "HEAD"]);
    // A name that ends like the branch's confuses nobody.
    repo::git(
        &place,
        &[
            "push",
            "-q",
            "origin",
            &format!("HEAD:refs/heads/x/refs/heads/{branch}"),
        ],
    );
    let (_, events) = turn(&api, &session, "unrelated", 9).await;
    assert_eq!(
        notices(&events).pop().unwrap(),
        "branch_conflict",
        "{}",
        pretty(&events)
    );
    let (said, _) = turn(&api, &session, "keep", 10).await;
    assert!(said.starts_with("local-secret\n"), "{said}");
    product.stop();
}

async fn forks_bear_what_is_damaged_and_keep_nothing_for_ever(who: Who) {
    let script = commands(&[
        ("work", "echo mine > README.md; echo built > cache"),
        ("damage", "rm -rf .git; echo kept > kept.txt"),
        ("show", "cat README.md cache kept.txt 2> /dev/null"),
    ]);
    let mut product = Product::with_config(&script, "[snapshot]\nkeep = 0\n");
    product.run_as(who);
    let api = shop(&mut product).await;
    let session = api.start_session("shop", "work").await;
    api.wait_for_turns(&session, 1).await;
    // The same question at the same moment has one answer, and leaves one snapshot.
    let ask = || fork(&api, &session, "same", json!({"count": 2}));
    let answers = tokio::join!(ask(), ask(), ask());
    let forks = ids(&answers.0.1);
    assert!(ids(&answers.1.1) == forks && ids(&answers.2.1) == forks);
    let snapshots = async |session: &str| {
        let listed = api.must_get(&format!("/v1/sessions/{session}/snapshots")).await;
        listed["snapshots"].as_array().unwrap().clone()
    };
    for id in &forks {
        let kept = snapshots(id).await;
        assert_eq!(kept.len(), 1, "{kept:?}");
        let path = format!("/v1/sessions/{id}/snapshots/{}", kept[0]["id"].as_str().unwrap());
        let (status, problem) = api.delete(&path).await;
        assert_eq!((status, &problem["code"]), (409, &json!("snapshot_needed")));
    }
    // What a fork began with knows all that was said before.
    let origin = snapshots(&forks[1]).await[0]["id"].clone();
    let (_, again) = fork(&api, &forks[1], "of-its-origin", json!({"snapshot_id": origin})).await;
    let again = api.events(&ids(&again)[0]).await;
    assert_eq!(of_type(&again, "turn.started").len(), 1, "{}", pretty(&again));
    let (said, _) = turn(&api, &forks[0], "show", 2).await;
    assert!(said.starts_with("mine\nbuilt\n"), "{said}");
    assert!(
        snapshots(&forks[0])
            .await
            .iter()
            .all(|kept| kept["is_pinned"] == false)
    );

    // A repository that is no more does not keep a fork from the files.
    turn(&api, &session, "damage", 2).await;
    let (_, forked) = fork(&api, &session, "damaged", json!({"prompt": "show"})).await;
    let damaged = ids(&forked).remove(0);
    let events = api.wait_for_turns(&damaged, 3).await;
    assert!(
        outputs(&events).pop().unwrap().starts_with("mine\nbuilt\nkept\n"),
        "{}",
        pretty(&events)
    );

    // Nobody begins with files that are lost, without being told.
    product.stop();
    std::fs::remove_dir_all(product.sandboxes().join("sb")).unwrap();
    let api = product.start().await;
    let (status, problem) = fork(&api, &session, "lost", json!({})).await;
    assert_eq!(
        (status, &problem["code"]),
        (409, &json!("fork_files_lost")),
        "{problem}"
    );
    product.stop();
}
