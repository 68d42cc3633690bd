//! A prompt becomes a merged pull request, over HTTP and with real git clients.

use crate::script::{FIX, answer_repository, start_with_answer};
use greenroom_system_tests::api::{assert_gapless, is_event, of_type};
use greenroom_system_tests::product::Product;
use greenroom_system_tests::repo;
use serde_json::json;

#[tokio::test]
async fn a_prompt_becomes_a_merged_pull_request() {
    let mut product = Product::with_script(FIX);
    let api = start_with_answer(&mut product).await;
    api.send(
        api.request(reqwest::Method::PATCH, "/v1/me")
            .json(&json!({ "name": "Ada Lovelace", "email": "ada@example.com" })),
    )
    .await;

    let session = api.start_session("answer", "Please fix the answer.").await;
    let mut stream = api.stream(&session, 0).await;
    let frames = stream.until(|frame| is_event(frame, "turn.completed")).await;
    assert_eq!(frames[0]["frame"], "hello");
    let events = api.wait_for_turns(&session, 1).await;
    assert_gapless(&events);
    let end = of_type(&events, "turn.completed")[0];
    assert_eq!(end["outcome"]["result"], "completed", "{end}");
    assert_eq!(
        of_type(&events, "turn.started")[0]["is_scripted"],
        true,
        "a script must be shown as one"
    );

    // Every tool call is there with its result, and the edit as a change of a file.
    let calls: Vec<_> = of_type(&events, "item.completed")
        .into_iter()
        .filter(|event| event["item"]["kind"] == "tool_call")
        .map(|event| {
            (
                event["item"]["tool"].as_str().unwrap(),
                event["item"]["status"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        calls,
        ["read", "edit", "bash", "open_pr"].map(|tool| (tool, "succeeded"))
    );
    let change = of_type(&events, "item.completed")
        .into_iter()
        .find(|event| event["item"]["kind"] == "file_change")
        .expect("the edit shows as a change");
    assert!(change["item"]["patch"].as_str().unwrap().contains("+42"));

    // The pull request is the person's, and so is the commit.
    let pull_request = api.must_get("/v1/repositories/answer/pull-requests/1").await;
    assert_eq!(pull_request["title"], "Answer with 42");
    assert_eq!(pull_request["author"]["name"], "Ada Lovelace");
    assert_eq!(pull_request["session"], session);
    assert_eq!(pull_request["mergeability"]["status"], "clean");
    let commits = api
        .must_get("/v1/repositories/answer/pull-requests/1/commits")
        .await;
    let commit = &commits["commits"][0];
    for field in ["author_name", "committer_name"] {
        assert_eq!(commit[field], "Ada Lovelace");
    }
    for field in ["author_email", "committer_email"] {
        assert_eq!(commit[field], "ada@example.com");
    }
    let trailer = format!("Greenroom-Session: {session}");
    assert!(commit["message"].as_str().unwrap().contains(&trailer), "{commit}");
    let diff = api.must_get("/v1/repositories/answer/pull-requests/1/diff").await;
    assert_eq!(diff["files"][0]["path"], "answer.txt");

    // Nobody approves what they asked for; merging works and the session hears of it.
    let (status, refusal) = api
        .post(
            "/v1/repositories/answer/pull-requests/1/reviews",
            json!({ "verdict": "approve" }),
        )
        .await;
    assert_eq!(
        (status, refusal["code"].as_str()),
        (403, Some("own_change")),
        "{refusal}"
    );
    let merged = api
        .must_post(
            "/v1/repositories/answer/pull-requests/1/merge",
            json!({ "method": "squash", "delete_head_branch": true }),
        )
        .await;
    assert_eq!(merged["state"], "merged");
    api.wait_for(&session, "the merge", |events| {
        !of_type(events, "pull_request.state_changed").is_empty()
    })
    .await;

    // A real git client sees it.
    let repository = api.must_get("/v1/repositories/answer").await;
    let url = repo::with_token(repository["clone_url"].as_str().unwrap(), &api.token);
    repo::git(product.root(), &["clone", "-q", &url, "clone"]);
    let clone = product.root().join("clone");
    assert_eq!(std::fs::read_to_string(clone.join("answer.txt")).unwrap(), "42\n");
    std::fs::write(clone.join("more.txt"), "more\n").unwrap();
    repo::git(&clone, &["add", "-A"]);
    repo::git(&clone, &["commit", "-q", "-m", "More"]);
    repo::git(&clone, &["push", "-q", "origin", "main"]);
    product.stop();
}

#[tokio::test]
async fn the_command_line_makes_the_same_journey() {
    let mut product = Product::with_script(FIX);
    let source = answer_repository(&product);
    let api = product.start().await;
    let source = source.to_str().unwrap();

    let run = product.run(&["run", "Please fix the answer.", "--repo", source]);
    let output = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(
        run.status.success(),
        "{output}\n{}",
        String::from_utf8_lossy(&run.stderr)
    );
    assert!(
        output.contains("/repositories/answer/pull-requests/1"),
        "the pull request's address is printed: {output}"
    );
    assert!(!output.contains('\u{1b}'), "NO_COLOR is honoured");

    for (arguments, expected) in [
        (vec!["session", "list"], "fix the answer"),
        (vec!["repo", "list"], "answer"),
        (vec!["pr", "list"], "Answer with 42"),
        (vec!["pr", "show", "answer#1"], "The answer was off by one."),
        (vec!["pr", "diff", "answer#1"], "+42"),
        (vec!["pr", "merge", "answer#1", "--method", "merge"], "erged"),
    ] {
        let output = product.run(&arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {text}{errors}");
        assert!(
            text.contains(expected),
            "{arguments:?} must say {expected:?}: {text}"
        );
    }
    let merged = api.must_get("/v1/repositories/answer/pull-requests/1").await;
    assert_eq!(merged["state"], "merged");

    let json = product.run(&["run", "Please fix the answer.", "--repo", "answer", "--json"]);
    for line in String::from_utf8_lossy(&json.stdout).lines() {
        serde_json::from_str::<serde_json::Value>(line).expect("one JSON document per line");
    }
    assert!(
        !json.status.success(),
        "the second fix finds 42 and its script fails, so the exit code must say so"
    );
    product.stop();
}
