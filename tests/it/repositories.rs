//! Several repositories in one workspace: each a repository of its own, kept up to date, committed and pushed like the session's own.

use crate::script::{add, commands, outputs};
use greenroom_system_tests::api::{Api, of_type, pretty};
use greenroom_system_tests::product::{Product, Who};
use greenroom_system_tests::repo;
use reqwest::Method;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

greenroom_system_tests::for_both_users! {
    each_repository_is_changed_pushed_and_proposed_by_itself,
    images_and_the_pool_have_every_repository,
    forks_and_others_commits_reach_every_repository,
    what_cannot_be_is_said,
    nothing_goes_to_another_repository_whatever_the_agent_does,
    a_session_keeps_what_it_has_when_its_environment_changes,
}

const PATIENCE: Duration = Duration::from_secs(40);

const ENVIRONMENT: &str = "[[repositories]]\nname = \"core\"\npath = \"libraries/core\"\n\n[[repositories]]\nname = \"pay\"\nbranch = \"next\"\n";

const LOOK: &str = "cat libraries/core/core.txt pay/pay.txt; git -C libraries/core branch --show-current | cut -c1-10; \
    git -C pay log -1 --format=%s; git status --porcelain; echo end";

/// The server, and where its repositories come from: shop, core, pay.
async fn start(product: &mut Product, environment: &str) -> (Api, [PathBuf; 3]) {
    let root = product.root().to_owned();
    let shop = repo::with_files(
        &root,
        "shop",
        &[
            ("README.md", "A shop.\n"),
            (".greenroom/environment.toml", environment),
        ],
    );
    let core = repo::with_files(&root, "core", &[("core.txt", "core\n")]);
    let pay = repo::with_files(&root, "pay", &[("pay.txt", "old pay\n")]);
    repo::git(&pay, &["checkout", "-q", "-b", "next"]);
    commit(&pay, "pay.txt", "pay\n");
    repo::git(&pay, &["checkout", "-q", "main"]);
    let api = product.start().await;
    for (name, source) in [("shop", &shop), ("core", &core), ("pay", &pay)] {
        add(&api, name, source).await;
    }
    (api, [shop, core, pay])
}

fn commit(source: &Path, file: &str, content: &str) {
    std::fs::write(source.join(file), content).unwrap();
    repo::git(source, &["add", "-A"]);
    repo::git(source, &["commit", "-q", "-m", &format!("Change {file}")]);
}

/// Pushes a commit to a repository of the forge.
async fn push(api: &Api, name: &str, source: &Path, branch: &str, file: &str, content: &str) {
    let repository = api.must_get(&format!("/v1/repositories/{name}")).await;
    let url = repo::with_token(repository["clone_url"].as_str().unwrap(), &api.token);
    repo::git(source, &["fetch", "-q", &url, branch]);
    repo::git(source, &["checkout", "-q", "--detach", "FETCH_HEAD"]);
    commit(source, file, content);
    repo::git(
        source,
        &["push", "-q", &url, &format!("HEAD:refs/heads/{branch}")],
    );
}

/// What a branch of the forge has.
async fn shown(product: &Product, api: &Api, name: &str, what: &[&str]) -> String {
    let repository = api.must_get(&format!("/v1/repositories/{name}")).await;
    let url = repo::with_token(repository["clone_url"].as_str().unwrap(), &api.token);
    let place = product.root().join(format!("look-{name}"));
    if !place.exists() {
        std::fs::create_dir(&place).unwrap();
        repo::git(&place, &["init", "-q"]);
    }
    repo::git(
        &place,
        &[
            "fetch",
            "-q",
            "--force",
            &url,
            "+refs/heads/*:refs/remotes/origin/*",
        ],
    );
    repo::git(&place, what)
}

/// The repositories that a session pushed to, with the files, in order.
fn pushed(events: &[Value]) -> Vec<(String, Vec<String>)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    of_type(events, "change.pushed")
        .into_iter()
        .map(|event| {
            let files = event["files"].as_array().unwrap().iter().map(text);
            (text(&event["repository"]["name"]), files.collect())
        })
        .collect()
}

async fn turn(api: &Api, session: &str, prompt: &str, turns: usize) -> Vec<Value> {
    let key = format!("{prompt}{turns}");
    assert_eq!(api.prompt(session, &key, prompt).await.0, 202);
    api.wait_for_turns(session, turns).await
}

fn propose(word: &str, repository: &str) -> String {
    format!(
        "[[script]]\nname = {word:?}\nprompt_contains = {word:?}\n[[script.step]]\n[[script.step.call]]\ntool = \"open_pr\"\n\
         arguments = {{ title = \"Change {repository}\", body = \"Why.\", repository = {repository:?} }}\n[[script.step]]\nsay = \"Done.\"\n\n"
    )
}

async fn each_repository_is_changed_pushed_and_proposed_by_itself(who: Who) {
    let forbidden = "cd libraries/core; git push origin HEAD:refs/heads/main 2>&1 | grep -c 'own branch\\|refused\\|rejected'; \
        git ls-remote http://127.0.0.1:7418/other.git 2>&1 | tail -n 1; git ls-remote origin | grep -c main";
    let mut script = commands(&[
        ("look", LOOK),
        (
            "work",
            "echo mine >> libraries/core/core.txt; echo new > pay/new.txt; echo more >> README.md",
        ),
        ("again", "echo again >> libraries/core/core.txt"),
        ("forbidden", forbidden),
        // What the session's own repository must not take for its own.
        (
            "careless",
            "rm -rf .git/info pay/.git; echo lost > pay/lost.txt; echo still >> README.md",
        ),
    ]);
    script.push_str(&propose("propose", "core"));
    script.push_str(&propose("stranger", "other"));
    let mut product = Product::with_script(&script);
    product.run_as(who);
    let (api, [_, other, _]) = start(&mut product, ENVIRONMENT).await;
    add(&api, "other", &other).await;

    let session = api.start_session("shop", "look").await;
    let events = api.wait_for_turns(&session, 1).await;
    let expected = "core\npay\ngreenroom/\nChange pay.txt\nend";
    assert!(outputs(&events)[0].contains(expected), "{}", pretty(&events));
    assert!(pushed(&events).is_empty());

    let events = turn(&api, &session, "work", 2).await;
    let file = |name: &str| vec![name.to_owned()];
    let expected = [
        (String::new(), file("README.md")),
        ("core".to_owned(), file("core.txt")),
        ("pay".to_owned(), file("new.txt")),
    ];
    assert_eq!(pushed(&events), expected, "{}", pretty(&events));
    let branch = api.must_get(&format!("/v1/sessions/{session}")).await["branch"]
        .as_str()
        .unwrap()
        .to_owned();
    let own = shown(
        &product,
        &api,
        "shop",
        &["ls-tree", "-r", "--name-only", &format!("origin/{branch}")],
    )
    .await;
    assert_eq!(own, ".greenroom/environment.toml\nREADME.md");
    let core = shown(
        &product,
        &api,
        "core",
        &["log", "-1", "--format=%B", &format!("origin/{branch}")],
    )
    .await;
    assert!(core.contains(&format!("Greenroom-Session: {session}")), "{core}");
    let diff = api.must_get(&format!("/v1/sessions/{session}/diff")).await;
    let paths: Vec<_> = diff["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| file["path"].as_str().unwrap())
        .collect();
    assert_eq!(paths, ["README.md", "libraries/core/core.txt", "pay/new.txt"]);

    // Only what moved is pushed; its pull request goes to its own repository.
    let events = turn(&api, &session, "again", 3).await;
    assert_eq!(pushed(&events)[3..], [("core".to_owned(), file("core.txt"))]);
    let events = turn(&api, &session, "propose", 4).await;
    let opened = of_type(&events, "pull_request.opened");
    assert_eq!(opened[0]["repository"], "core", "{}", pretty(&events));
    let number = &opened[0]["number"];
    let pull_request = api
        .must_get(&format!("/v1/repositories/core/pull-requests/{number}"))
        .await;
    assert_eq!(pull_request["base_branch"], "main");
    let events = turn(&api, &session, "stranger", 5).await;
    assert!(
        outputs(&events)
            .last()
            .unwrap()
            .contains("There are: shop, core, pay."),
        "{}",
        pretty(&events)
    );

    // Nothing but the session's branch is pushed, and no other repository is there.
    let events = turn(&api, &session, "forbidden", 6).await;
    let said = outputs(&events).pop().unwrap();
    let lines: Vec<_> = said.lines().collect();
    assert!(lines[0] != "0" && lines[2] != "0", "{said}");
    assert!(lines[1].contains("not found"), "{said}");

    // After a crash everything goes on.
    product.kill();
    let api = product.start().await;
    let events = turn(&api, &session, "again", 7).await;
    assert_eq!(
        pushed(&events)[4..],
        [("core".to_owned(), file("core.txt"))],
        "{}",
        pretty(&events)
    );

    // What is wrong with one repository keeps no work in another from being pushed, and mixes nothing.
    let events = turn(&api, &session, "careless", 8).await;
    assert_eq!(
        pushed(&events)[5..],
        [(String::new(), file("README.md"))],
        "{}",
        pretty(&events)
    );
    let own = shown(
        &product,
        &api,
        "shop",
        &["ls-tree", "-r", "--name-only", &format!("origin/{branch}")],
    )
    .await;
    assert!(!own.contains("lost") && !own.contains("libraries"), "{own}");
    let problems: Vec<_> = of_type(&events, "item.completed")
        .into_iter()
        .filter_map(|event| event["item"]["problem"]["message"].as_str())
        .collect();
    assert!(
        problems.iter().any(|said| said.contains("pay is not at pay")),
        "{problems:?}"
    );
    product.stop();
}

async fn images_and_the_pool_have_every_repository(who: Who) {
    let environment = format!(
        "setup = 'cat libraries/core/core.txt > libraries/core/built; echo setup'\n\
         build = {{ run = 'echo pay >> ~/ran; cat ~/ran', inputs = ['pay'] }}\n{ENVIRONMENT}"
    );
    let look = "cat libraries/core/built ~/ran; git -C libraries/core status --porcelain; ".to_owned() + LOOK;
    let mut product = Product::with_config(&commands(&[("look", &look)]), "[image]\nschedule = \"off\"\n");
    product.run_as(who);
    let (api, [shop, core, pay]) = start(&mut product, &environment).await;
    let image = build(&api).await;
    assert_eq!(image["state"], "published", "{image}");
    let held: Vec<_> = image["repositories"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            format!(
                "{} {}",
                one["name"].as_str().unwrap(),
                one["branch"].as_str().unwrap()
            )
        })
        .collect();
    assert_eq!(held, ["core main", "pay next"]);

    // What was pushed since then is there, what was built stays, and what other repositories have is nobody's change.
    push(&api, "core", &core, "main", "core.txt", "newer core\n").await;
    push(&api, "pay", &pay, "next", "pay.txt", "newer pay\n").await;
    let session = api.start_session("shop", "look").await;
    let events = api.wait_for_turns(&session, 1).await;
    let expected = "core\npay\nnewer core\nnewer pay\ngreenroom/\nChange pay.txt\nend";
    assert!(outputs(&events)[0].contains(expected), "{}", pretty(&events));

    // A step runs again when its inputs in another repository changed.
    let image = build(&api).await;
    let outcomes = |image: &Value| -> Vec<String> {
        let steps = image["steps"].as_array().unwrap().iter();
        steps
            .map(|step| step["outcome"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(outcomes(&image), ["done", "cached", "done", "done"], "{image}");
    let again = build(&api).await;
    assert_eq!(outcomes(&again), ["done", "cached", "cached", "done"], "{again}");

    // What waits follows every repository.
    push(
        &api,
        "shop",
        &shop,
        "main",
        ".greenroom/environment.toml",
        &format!("{environment}\n[pool]\nminimum = 1\n"),
    )
    .await;
    waits(&api).await;
    push(&api, "core", &core, "main", "core.txt", "newest core\n").await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let session = api.start_session("shop", "look").await;
        let events = api.wait_for_turns(&session, 1).await;
        let said = outputs(&events).pop().unwrap();
        assert!(
            said.contains("newest core\nnewer pay\ngreenroom/"),
            "{}",
            pretty(&events)
        );
        let hits = metric(&api, "greenroom_first_sandboxes_total{from=\"pool\"}").await;
        if hits > 0 {
            break;
        }
        assert!(Instant::now() < deadline, "none came from the pool");
        waits(&api).await;
    }
    product.stop();
}

async fn build(api: &Api) -> Value {
    let asked = api.must_post("/v1/repositories/shop/images", json!({})).await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let image = api
            .must_get(&format!("/v1/images/{}", asked["id"].as_str().unwrap()))
            .await;
        if matches!(image["state"].as_str(), Some("published" | "failed")) {
            return image;
        }
        assert!(Instant::now() < deadline, "{image}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn metric(api: &Api, name: &str) -> u64 {
    let text = api.text("/metrics").await;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

/// Until a sandbox of the pool waits.
async fn waits(api: &Api) {
    let deadline = Instant::now() + PATIENCE;
    while metric(api, "greenroom_pool_size").await == 0 {
        assert!(Instant::now() < deadline, "no sandbox waits");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn forks_and_others_commits_reach_every_repository(who: Who) {
    let script = commands(&[
        (
            "work",
            "echo mine > libraries/core/mine.txt; echo open > libraries/core/open.txt",
        ),
        (
            "more",
            "echo more > libraries/core/more.txt; cat libraries/core/theirs.txt",
        ),
        (
            "fight",
            "echo mine > libraries/core/core.txt; echo fine > pay/fine.txt",
        ),
    ]);
    let mut product = Product::with_script(&script);
    product.run_as(who);
    let (api, [_, core, _]) = start(&mut product, ENVIRONMENT).await;
    let session = api.start_session("shop", "work").await;
    api.wait_for_turns(&session, 1).await;
    let branch_of = async |session: &str| {
        let found = api.must_get(&format!("/v1/sessions/{session}")).await;
        found["branch"].as_str().unwrap().to_owned()
    };
    let branch = branch_of(&session).await;

    let request = api
        .request(Method::POST, &format!("/v1/sessions/{session}/forks"))
        .header("idempotency-key", "f")
        .json(&json!({ "prompt": "more" }));
    let (status, forked) = api.send(request).await;
    assert_eq!(status, 201, "{forked}");
    let fork = forked["sessions"][0]["session"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let events = api.wait_for_turns(&fork, 2).await;
    let fork_branch = branch_of(&fork).await;
    let files = ["ls-tree", "-r", "--name-only", &format!("origin/{fork_branch}")];
    let of_fork = shown(&product, &api, "core", &files).await;
    assert_eq!(
        of_fork,
        "core.txt\nmine.txt\nmore.txt\nopen.txt",
        "{}",
        pretty(&events)
    );
    let files = ["ls-tree", "-r", "--name-only", &format!("origin/{branch}")];
    assert_eq!(
        shown(&product, &api, "core", &files).await,
        "core.txt\nmine.txt\nopen.txt"
    );

    // A reviewer's commit on the session's branch of another repository is taken in.
    push(&api, "core", &core, &branch, "theirs.txt", "theirs\n").await;
    let events = turn(&api, &session, "more", 2).await;
    assert!(
        notices(&events).contains(&"branch_joined".to_owned()),
        "{}",
        pretty(&events)
    );
    assert_eq!(
        shown(&product, &api, "core", &files).await,
        "core.txt\nmine.txt\nmore.txt\nopen.txt\ntheirs.txt"
    );
    // One that conflicts is not pushed over, and the other repositories are pushed all the same.
    push(&api, "core", &core, &branch, "core.txt", "theirs\n").await;
    let events = turn(&api, &session, "fight", 3).await;
    assert!(
        notices(&events).contains(&"branch_conflict".to_owned()),
        "{}",
        pretty(&events)
    );
    assert_eq!(pushed(&events).last().unwrap().0, "pay");
    assert_eq!(
        shown(
            &product,
            &api,
            "core",
            &["show", &format!("origin/{branch}:core.txt")]
        )
        .await,
        "theirs"
    );
    product.stop();
}

/// Plays a command in a session of its own, and a second one in the next turn; returns the session and its events.
async fn played(api: &Api, first: &str, second: &str) -> (String, Vec<Value>) {
    let session = api.start_session("shop", first).await;
    api.wait_for_turns(&session, 1).await;
    let events = turn(api, &session, second, 2).await;
    (session, events)
}

async fn nothing_goes_to_another_repository_whatever_the_agent_does(who: Who) {
    let script = commands(&[
        (
            "swap",
            "mv pay x && mv libraries/core pay && mv x libraries/core && echo swapped > pay/swapped",
        ),
        (
            "led",
            "rm -rf pay/.git && echo 'gitdir: ../.git' > pay/.git && echo led > pay/led",
        ),
        (
            "linked",
            "rm -rf pay && ln -s libraries/core pay && echo linked > pay/linked",
        ),
        (
            "worktree",
            "rm -rf pay && git -C libraries/core worktree add ../../pay 2>&1 && echo tree > pay/tree",
        ),
        (
            "elsewhere",
            "git -C pay remote set-url origin http://127.0.0.1:7418/core.git && echo mine > pay/mine.txt",
        ),
        (
            "refs",
            "cd pay && echo r > r && git add r && git commit -qm r && git update-ref refs/remotes/origin/next HEAD",
        ),
        (
            "admit",
            "printf '!pay\n!libraries\n' > .gitignore; git add -f pay 2> /dev/null; echo a > a; echo b > pay/b",
        ),
        (
            "gone",
            "rm -rf pay libraries/core/.git; rm -rf libraries/core; echo c > c",
        ),
        ("look", LOOK),
        ("more", "echo more > more; echo more > pay/b"),
        ("again", "echo again > again; echo again > libraries/core/again"),
    ]);
    let mut product = Product::with_script(&script);
    product.run_as(who);
    let (api, [shop, ..]) = start(&mut product, ENVIRONMENT).await;
    let files_of = async |name: &str, branch: &str| {
        let listed = ["ls-tree", "-r", "--name-only", &format!("origin/{branch}")];
        let place = shown(
            &product,
            &api,
            name,
            &["for-each-ref", &format!("refs/remotes/origin/{branch}")],
        )
        .await;
        match place.is_empty() {
            true => String::new(),
            false => shown(&product, &api, name, &listed).await,
        }
    };
    let branch_of = async |session: &str| {
        let found = api.must_get(&format!("/v1/sessions/{session}")).await;
        found["branch"].as_str().unwrap().to_owned()
    };

    // What is not the repository that belongs there is pushed nowhere, and the rest is.
    for (word, of_core, of_pay) in [
        ("swap", "", ""),
        ("led", "again\ncore.txt", ""),
        ("linked", "again\ncore.txt\nlinked", ""),
        ("worktree", "again\ncore.txt", ""),
        ("elsewhere", "again\ncore.txt", "mine.txt\npay.txt"),
        ("refs", "again\ncore.txt", "pay.txt\nr"),
    ] {
        let (session, events) = played(&api, word, "again").await;
        let branch = branch_of(&session).await;
        let text = format!("{word}: {}", pretty(&events));
        assert_eq!(
            files_of("shop", &branch).await,
            ".greenroom/environment.toml\nREADME.md\nagain",
            "{text}"
        );
        assert_eq!(files_of("core", &branch).await, of_core, "{text}");
        assert_eq!(files_of("pay", &branch).await, of_pay, "{text}");
        let told = notices(&events).contains(&"repository_path_unusable".to_owned());
        assert_eq!(told, of_pay.is_empty(), "{text}");
    }

    // Its own ignore files do not make the session's repository hold others.
    let (session, events) = played(&api, "admit", "again").await;
    let branch = branch_of(&session).await;
    let expected = ".gitignore\n.greenroom/environment.toml\nREADME.md\na\nagain";
    assert_eq!(files_of("shop", &branch).await, expected, "{}", pretty(&events));
    assert_eq!(files_of("pay", &branch).await, "b\npay.txt");

    // Files of the session's own repository where another lies are not pushed to that one.
    push(&api, "shop", &shop, &branch, "z.txt", "z\n").await;
    std::fs::create_dir(shop.join("pay")).unwrap();
    push(&api, "shop", &shop, &branch, "pay/z.txt", "of shop\n").await;
    let events = turn(&api, &session, "more", 3).await;
    let told = notices(&events);
    for code in ["branch_joined", "repository_path_unusable"] {
        assert!(told.contains(&code.to_owned()), "{code}: {}", pretty(&events));
    }
    let own = files_of("shop", &branch).await;
    assert!(own.contains("more\npay/z.txt") && own.contains("z.txt"), "{own}");
    assert_eq!(
        files_of("pay", &branch).await,
        "b\npay.txt",
        "{}",
        pretty(&events)
    );

    // What was thrown away is there again when the sandbox starts next.
    let session = api.start_session("shop", "gone").await;
    let events = api.wait_for_turns(&session, 1).await;
    assert!(
        notices(&events).contains(&"repository_missing".to_owned()),
        "{}",
        pretty(&events)
    );
    product.stop();
    let api = product.start().await;
    let events = turn(&api, &session, "look", 2).await;
    let said = outputs(&events).pop().unwrap();
    assert!(
        said.contains("core\npay\ngreenroom/\nChange pay.txt\nend"),
        "{}",
        pretty(&events)
    );
    product.stop();
}

async fn a_session_keeps_what_it_has_when_its_environment_changes(who: Who) {
    let script = commands(&[
        (
            "work",
            "echo mine > pay/mine.txt; mkdir late; echo precious > late/file; echo late >> .gitignore",
        ),
        ("more", "echo more > pay/more.txt; cat late/file; ls"),
    ]);
    let mut product = Product::with_config(&script, "[image]\nschedule = \"off\"\n");
    product.run_as(who);
    let pay = "[[repositories]]\nname = \"pay\"\n";
    let (api, [shop, ..]) = start(&mut product, pay).await;
    let session = api.start_session("shop", "work").await;
    let events = api.wait_for_turns(&session, 1).await;
    assert_eq!(pushed(&events).last().unwrap().0, "pay", "{}", pretty(&events));
    // Another one where the session has files, and the one that it has is gone.
    let core = "[[repositories]]\nname = \"core\"\npath = \"late\"\n";
    push(&api, "shop", &shop, "main", ".greenroom/environment.toml", core).await;
    product.stop();
    let api = product.start().await;
    let events = turn(&api, &session, "more", 2).await;
    let said = outputs(&events).pop().unwrap();
    assert!(
        said.starts_with("precious\nREADME.md\nlate\npay\n"),
        "{}",
        pretty(&events)
    );
    assert!(
        notices(&events).contains(&"repository_path_unusable".to_owned()),
        "{}",
        pretty(&events)
    );
    assert_eq!(
        pushed(&events).last().unwrap(),
        &(
            "pay".to_owned(),
            vec!["mine.txt".to_owned(), "more.txt".to_owned()]
        )
    );
    // A repository that is gone does not hide the rest.
    std::fs::remove_dir_all(product.data_dir().join("forge/pay.git")).unwrap();
    let diff = api.must_get(&format!("/v1/sessions/{session}/diff")).await;
    assert_eq!(diff["files"][0]["path"], ".gitignore", "{diff}");

    // A link of the repository leads no other one into its files, and no step makes an image of such a thing.
    std::os::unix::fs::symlink("src", shop.join("vendor")).unwrap();
    std::fs::create_dir_all(shop.join("src/sub")).unwrap();
    let linked = "[[repositories]]\nname = \"core\"\npath = \"vendor/sub\"\n";
    push(&api, "shop", &shop, "main", "src/sub/y.c", "y\n").await;
    push(&api, "shop", &shop, "main", ".greenroom/environment.toml", linked).await;
    let other = api.start_session("shop", "more").await;
    let events = api.wait_for_turns(&other, 1).await;
    assert!(
        pretty(&events).contains("core is not at vendor/sub: something else is there"),
        "{}",
        pretty(&events)
    );
    let replaced = "setup = 'rm -rf core; ln -s src core'\n[[repositories]]\nname = \"core\"\n";
    push(
        &api,
        "shop",
        &shop,
        "main",
        ".greenroom/environment.toml",
        replaced,
    )
    .await;
    let image = build(&api).await;
    assert_eq!(image["problem"]["code"], "repository_path_unusable", "{image}");
    product.stop();
}

/// Codes of what people were told in a session.
fn notices(events: &[Value]) -> Vec<String> {
    let told = of_type(events, "item.completed").into_iter();
    told.filter_map(|event| event["item"]["problem"]["code"].as_str().map(str::to_owned))
        .collect()
}

async fn what_cannot_be_is_said(who: Who) {
    let mut product = Product::with_script(&commands(&[("look", "true")]));
    product.run_as(who);
    product.expect_warning("sandbox not ready");
    let (api, [shop, ..]) = start(&mut product, "").await;
    let empty = product.root().join("empty");
    std::fs::create_dir(&empty).unwrap();
    repo::git(&empty, &["init", "-q", "-b", "main"]);
    add(&api, "empty", &empty).await;
    for (environment, code, part) in [
        (
            "[[repositories]]\nname = \"none\"\n",
            "environment_refused",
            "repositories[0]: `none` is not a repository of this server.",
        ),
        (
            "[[repositories]]\nname = \"core\"\n[[repositories]]\nname = \"empty\"\n",
            "environment_refused",
            "repositories[1]: `empty` has no commit yet.",
        ),
        (
            "[[repositories]]\nname = \"shop\"\n",
            "environment_refused",
            "repositories[0]: `shop` is the environment's own repository",
        ),
        (
            "[[repositories]]\nname = \"core\"\nbranch = \"gone\"\n",
            "branch_unknown",
            "The repository core has no branch gone.",
        ),
        (
            "[[repositories]]\nname = \"core\"\npath = \"README.md\"\n",
            "repository_path_unusable",
            "core is not at README.md: the session's own repository has files there",
        ),
        (
            "[[repositories]]\nname = \"core\"\npath = \"../core\"\n",
            "environment_invalid",
            ".greenroom/environment.toml:3: repositories[0].path: must be a relative path",
        ),
    ] {
        push(
            &api,
            "shop",
            &shop,
            "main",
            ".greenroom/environment.toml",
            environment,
        )
        .await;
        let session = api.start_session("shop", "look").await;
        let events = api.wait_for_turns(&session, 1).await;
        let text = pretty(&events);
        assert!(
            text.contains(code) && text.contains(part),
            "{environment}: {text}"
        );
    }
    product.stop();
}
