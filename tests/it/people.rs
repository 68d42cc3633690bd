//! Several people on one server: who may do what in a session, what ends when somebody may do less, and who did what.

use crate::script::{FIX, add, commands, has_running_command, start_with_answer};
use greenroom_system_tests::api::{is_event, of_type, pretty};
use greenroom_system_tests::product::Product;
use greenroom_system_tests::repo;
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// What a caller is told at a path: 404 for whoever may not know of the session, 403 for whoever may do too little there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    Viewer,
    Editor,
    Owner,
    /// Of the server.
    ServerOwner,
}

use Needs::{Editor, Owner, ServerOwner, Viewer};

/// Every path of a session, what it needs, and a body that changes nothing that the other rows need.
fn paths() -> Vec<(Method, &'static str, Needs, Value)> {
    let none = || Value::Null;
    vec![
        (Method::GET, "", Viewer, none()),
        (Method::GET, "/events", Viewer, none()),
        (Method::GET, "/history?before=2", Viewer, none()),
        (Method::GET, "/prompts", Viewer, none()),
        (Method::GET, "/diff", Viewer, none()),
        (Method::GET, "/blobs/sha256:none", Viewer, none()),
        (Method::GET, "/members", Viewer, none()),
        (Method::GET, "/services", Viewer, none()),
        (Method::GET, "/services/none/log", Viewer, none()),
        (Method::GET, "/snapshots", Viewer, none()),
        (Method::POST, "/forks", Viewer, json!({ "count": 0 })),
        (Method::PATCH, "", Editor, json!({ "delivery": "queue" })),
        (Method::POST, "/prompts", Editor, json!({ "text": "" })),
        (Method::PATCH, "/prompts/prm_x", Editor, json!({ "position": 0 })),
        (Method::DELETE, "/prompts/prm_x", Editor, none()),
        (Method::POST, "/stop", Editor, none()),
        (
            Method::POST,
            "/effect-retries",
            Editor,
            json!({ "effect_key": "none" }),
        ),
        (Method::POST, "/snapshots", Editor, none()),
        (Method::DELETE, "/snapshots/snp_x", Editor, none()),
        (Method::DELETE, "", Owner, none()),
        (Method::PUT, "/members/usr_x", Owner, json!({ "role": "viewer" })),
        (Method::DELETE, "/members/usr_x", Owner, none()),
        (Method::GET, "/links", Owner, none()),
        (Method::POST, "/links", Owner, json!({ "kind": "invite" })),
        (Method::DELETE, "/links/lnk_x", Owner, none()),
        (
            Method::POST,
            "/snapshots/snp_x/push",
            ServerOwner,
            json!({ "reference": "none" }),
        ),
    ]
}

/// Whether somebody of a rank gets through, by what they are told.
fn expected(rank: u8, needs: Needs, status: u16, code: &str) -> bool {
    let needed = match needs {
        Viewer => 1,
        Editor => 2,
        Owner => 3,
        ServerOwner => 4,
    };
    match rank {
        // Somebody whom nobody let in: as if it did not exist.
        0 if needs == ServerOwner => (status, code) == (403, "owner_required"),
        0 => (status, code) == (404, "session_unknown"),
        rank if rank >= needed => !matches!(status, 401 | 403) && code != "session_unknown",
        _ if needs == ServerOwner => (status, code) == (403, "owner_required"),
        _ => (status, code) == (403, "role_required"),
    }
}

#[tokio::test]
async fn everybody_may_do_what_their_role_says_and_no_more() {
    let mut product = Product::with_script(FIX);
    let api = start_with_answer(&mut product).await;
    let (ada, _) = api.add_person("Ada").await;
    let (grace, grace_id) = api.add_person("Grace").await;
    let (edith, edith_id) = api.add_person("Edith").await;
    let (mallory, _) = api.add_person("Mallory").await;
    let session = ada
        .must_post(
            "/v1/sessions",
            json!({ "repository": "answer", "access": "members" }),
        )
        .await;
    assert_eq!(session["session"]["members"][0]["role"], "owner");
    let session = session["session"]["id"].as_str().unwrap().to_owned();
    for (id, role) in [(&grace_id, "viewer"), (&edith_id, "editor")] {
        let (status, answer) = ada
            .put(
                &format!("/v1/sessions/{session}/members/{id}"),
                json!({ "role": role }),
            )
            .await;
        assert_eq!(status, 200, "{answer}");
    }

    let mut wrong = Vec::new();
    for (who, caller, rank) in [
        ("a stranger", &mallory, 0),
        ("a viewer", &grace, 1),
        ("an editor", &edith, 2),
        ("its owner", &ada, 3),
        ("the server's owner", &api, 4),
    ] {
        for (method, path, needs, body) in paths() {
            let mut request = caller
                .request(method.clone(), &format!("/v1/sessions/{session}{path}"))
                .header(
                    "idempotency-key",
                    format!("{who} {method}{path}").replace(' ', "-"),
                );
            if !body.is_null() {
                request = request.json(&body);
            }
            let (status, answer) = caller.send(request).await;
            if !expected(rank, needs, status, answer["code"].as_str().unwrap_or_default()) {
                wrong.push(format!("{who}, {method} {path}: {status} {answer}"));
            }
        }
        let stream = format!("/v1/sessions/{session}/stream");
        let stream = caller
            .request(Method::GET, &stream)
            .header("accept", "text/event-stream")
            .send()
            .await
            .unwrap();
        let status = if rank == 0 { 404 } else { 200 };
        assert_eq!(stream.status(), status, "{who} at the stream");
        let listed = caller.must_get("/v1/sessions?words=untitled").await;
        assert_eq!(
            listed["sessions"].as_array().unwrap().len(),
            usize::from(rank > 0),
            "{who}"
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    // A path that this table does not know is a path that nobody thought of.
    let document = api.must_get("/v1/openapi.json").await;
    let known: BTreeSet<_> = paths()
        .iter()
        .map(|(method, path, ..)| (method.as_str().to_lowercase(), shape(path)))
        .collect();
    let documented: BTreeSet<_> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .filter_map(|(path, item)| Some((path.strip_prefix("/v1/sessions/{id}")?, item.as_object()?)))
        .flat_map(|(path, item)| item.keys().map(|method| (method.clone(), shape(path))))
        .filter(|(method, _)| method != "parameters")
        .collect();
    assert_eq!(known, documented);
    product.stop();
}

/// A path with its variable parts left out.
fn shape(path: &str) -> String {
    let path = path.split('?').next().unwrap_or_default();
    let parts = path.split('/').enumerate();
    let parts = parts.map(|(place, part)| if place > 0 && place % 2 == 0 { "*" } else { part });
    parts.collect::<Vec<_>>().join("/")
}

#[tokio::test]
async fn what_somebody_has_open_ends_when_they_may_do_less() {
    let mut product = Product::with_script(FIX);
    let api = start_with_answer(&mut product).await;
    let (ada, _) = api.add_person("Ada").await;
    let (grace, grace_id) = api.add_person("Grace").await;
    let body = json!({ "repository": "answer", "access": "members" });
    let session = ada.must_post("/v1/sessions", body).await;
    let session = session["session"]["id"].as_str().unwrap().to_owned();
    let member = format!("/v1/sessions/{session}/members/{grace_id}");
    let caught_up = |frame: &Value| frame["frame"] == "caught_up";
    let closing = |frame: &Value| frame["frame"] == "closing";

    // No member any more.
    ada.put(&member, json!({ "role": "viewer" })).await;
    let mut stream = grace.stream(&session, 0).await;
    stream.until(caught_up).await;
    assert_eq!(ada.delete(&member).await.0, 204);
    let frames = stream.until(closing).await;
    assert_eq!(frames.last().unwrap()["problem"]["code"], "session_unknown");
    let (status, again) = grace.get(&format!("/v1/sessions/{session}")).await;
    assert_eq!((status, again["code"].as_str()), (404, Some("session_unknown")));

    // What everybody may is taken back; who is a member stays.
    let everybody = async |access: &str| {
        let changed = ada
            .patch(&format!("/v1/sessions/{session}"), json!({ "access": access }))
            .await;
        assert_eq!(changed.0, 200, "{}", changed.1);
    };
    everybody("viewer").await;
    let mut stream = grace.stream(&session, 0).await;
    let mut owners = ada.stream(&session, 0).await;
    stream.until(caught_up).await;
    owners.until(caught_up).await;
    everybody("members").await;
    let frames = stream.until(closing).await;
    assert_eq!(frames.last().unwrap()["problem"]["code"], "session_unknown");
    owners
        .until(|frame| frame["event"]["access"] == "members" && frame["event"]["seq"].as_u64() > Some(3))
        .await;

    // A token that is revoked.
    everybody("viewer").await;
    let mut stream = grace.stream(&session, 0).await;
    stream.until(caught_up).await;
    let tokens = grace.must_get("/v1/tokens").await;
    let token = tokens["tokens"][0]["id"].as_str().unwrap();
    assert_eq!(grace.delete(&format!("/v1/tokens/{token}")).await.0, 204);
    let frames = stream.until(closing).await;
    assert_eq!(frames.last().unwrap()["problem"]["code"], "sign_in_required");

    // Somebody who is removed from the server.
    let (edith, edith_id) = api.add_person("Edith").await;
    let mut stream = edith.stream(&session, 0).await;
    stream.until(caught_up).await;
    assert_eq!(api.delete(&format!("/v1/people/{edith_id}")).await.0, 204);
    let frames = stream.until(closing).await;
    assert_eq!(frames.last().unwrap()["problem"]["code"], "sign_in_required");
    assert_eq!(edith.get("/v1/me").await.0, 401);
    product.stop();
}

#[tokio::test]
async fn each_commit_is_by_whoever_asked_for_it_and_none_of_them_approves() {
    let script = r#"
[[script]]
name = "one"
prompt_contains = "one"
[[script.step]]
[[script.step.call]]
tool = "write"
arguments = { path = "one.txt", content = "one\n" }
[[script.step]]
say = "Done."

[[script]]
name = "two"
prompt_contains = "two"
[[script.step]]
[[script.step.call]]
tool = "write"
arguments = { path = "two.txt", content = "two\n" }
[[script.step]]
[[script.step.call]]
tool = "open_pr"
arguments = { title = "Two files", body = "" }
[[script.step]]
say = "Done."
"#;
    let mut product = Product::with_script(script);
    let api = start_with_answer(&mut product).await;
    let (ada, _) = api.add_person("Ada").await;
    let (grace, grace_id) = api.add_person("Grace").await;
    let (edith, _) = api.add_person("Edith").await;
    let session = ada.start_session("answer", "Write one.").await;
    ada.wait_for_turns(&session, 1).await;
    let (status, refused) = grace.prompt(&session, "two", "Write two.").await;
    assert_eq!((status, refused["code"].as_str()), (403, Some("role_required")));
    assert!(refused["hint"].as_str().unwrap().contains("Ada"), "{refused}");
    ada.put(
        &format!("/v1/sessions/{session}/members/{grace_id}"),
        json!({ "role": "editor" }),
    )
    .await;
    assert_eq!(grace.prompt(&session, "two", "Write two.").await.0, 202);
    grace.wait_for_turns(&session, 2).await;
    api.wait_for(&session, "a pull request", |events| {
        !of_type(events, "pull_request.opened").is_empty()
    })
    .await;

    let pull_request = "/v1/repositories/answer/pull-requests/1";
    let commits = edith.must_get(&format!("{pull_request}/commits")).await;
    let authors: Vec<_> = commits["commits"]
        .as_array()
        .unwrap()
        .iter()
        .map(|commit| commit["author_email"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(authors, ["ada@example.com", "grace@example.com"], "{commits}");
    let shown = edith.must_get(pull_request).await;
    assert_eq!(shown["author"]["name"], "Grace", "who asked for it: {shown}");
    for (who, expected) in [(&ada, 403), (&grace, 403), (&edith, 201)] {
        let review = json!({ "verdict": "approve" });
        let (status, answer) = who.post(&format!("{pull_request}/reviews"), review).await;
        assert_eq!(status, expected, "{answer}");
    }
    product.stop();
}

#[tokio::test]
async fn who_spoke_to_a_turn_of_another_is_a_co_author() {
    let script = commands(&[("slow", "sleep 2; echo one > one.txt")]);
    let mut product = Product::with_script(&script);
    let api = start_with_answer(&mut product).await;
    let (ada, _) = api.add_person("Ada").await;
    let (grace, _) = api.add_person("Grace").await;
    let body = json!({ "repository": "answer", "prompt": "Be slow.", "access": "editor" });
    let session = ada.must_post("/v1/sessions", body).await;
    let session = session["session"]["id"].as_str().unwrap().to_owned();
    ada.wait_for(&session, "a running command", has_running_command)
        .await;
    for (key, text) in [("one", "Mind the gap."), ("two", "And the other one.")] {
        let request = grace
            .request(Method::POST, &format!("/v1/sessions/{session}/prompts"))
            .header("idempotency-key", key)
            .json(&json!({ "text": text, "delivery": "insert" }));
        assert_eq!(grace.send(request).await.0, 202);
    }
    let events = ada.wait_for_turns(&session, 1).await;
    assert_eq!(
        of_type(&events, "prompt.inserted").len(),
        2,
        "{}",
        pretty(&events)
    );
    let commit = of_type(&events, "change.pushed")[0]["commit"].as_str().unwrap();
    let remote = api
        .url
        .replacen("http://", &format!("http://x:{}@", api.token), 1);
    let clone = product.root().join("clone");
    let remote = format!("{remote}/git/answer.git");
    repo::git(
        product.root(),
        &["clone", "-q", "--no-checkout", &remote, clone.to_str().unwrap()],
    );
    let shown = repo::git(&clone, &["show", "-s", "--format=%an%n%(trailers)", commit]);
    let lines: Vec<_> = shown.lines().filter(|line| !line.is_empty()).collect();
    let session = format!("Greenroom-Session: {session}");
    assert_eq!(
        lines,
        ["Ada", &session, "Co-authored-by: Grace <grace@example.com>"]
    );
    product.stop();
}

#[tokio::test]
async fn a_session_is_handed_over_and_always_has_an_owner() {
    let mut product = Product::with_script(FIX);
    let api = start_with_answer(&mut product).await;
    let (ada, ada_id) = api.add_person("Ada").await;
    let (grace, grace_id) = api.add_person("Grace").await;
    let session = ada.create_session("answer").await;
    let member = |id: &str| format!("/v1/sessions/{session}/members/{id}");
    for (caller, method, id, body, status, code) in [
        (&ada, Method::DELETE, &ada_id, Value::Null, 409, "session_owner"),
        (
            &ada,
            Method::PUT,
            &ada_id,
            json!({ "role": "viewer" }),
            409,
            "session_owner",
        ),
        (
            &grace,
            Method::PUT,
            &grace_id,
            json!({ "role": "owner" }),
            403,
            "role_required",
        ),
        (
            &grace,
            Method::DELETE,
            &grace_id,
            Value::Null,
            404,
            "member_unknown",
        ),
        (
            &ada,
            Method::PUT,
            &"usr_x".to_owned(),
            json!({ "role": "viewer" }),
            404,
            "person_unknown",
        ),
        (
            &ada,
            Method::PUT,
            &grace_id,
            json!({ "role": "king" }),
            422,
            "body_invalid",
        ),
    ] {
        let mut request = caller.request(method.clone(), &member(id));
        if !body.is_null() {
            request = request.json(&body);
        }
        let (answered, answer) = caller.send(request).await;
        assert_eq!(
            (answered, answer["code"].as_str()),
            (status, Some(code)),
            "{method} {body} {answer}"
        );
    }
    let (status, members) = ada.put(&member(&grace_id), json!({ "role": "owner" })).await;
    assert_eq!(status, 200, "{members}");
    assert_eq!(members["your_role"], "editor");
    product.kill();
    let api = product.start().await;
    let (ada, grace) = (api.with_token(&ada.token), api.with_token(&grace.token));
    let members = grace.must_get(&format!("/v1/sessions/{session}/members")).await;
    assert_eq!(members["your_role"], "owner");
    let roles: Vec<_> = members["members"]
        .as_array()
        .unwrap()
        .iter()
        .map(|member| {
            (
                member["person"]["name"].as_str().unwrap(),
                member["role"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(roles, [("Grace", "owner"), ("Ada", "editor")]);
    // Who leaves goes by themselves.
    assert_eq!(ada.delete(&member(&ada_id)).await.0, 204);
    product.stop();
}

#[tokio::test]
async fn the_server_has_owners_and_other_people() {
    let mut product = Product::with_script(FIX);
    let api = start_with_answer(&mut product).await;
    let owner_id = api.must_get("/v1/me").await["id"].as_str().unwrap().to_owned();
    let (ada, ada_id) = api.add_person("Ada").await;
    let ada_path = format!("/v1/people/{ada_id}");
    let owner_path = format!("/v1/people/{owner_id}");
    for (caller, method, path, body, status, code) in [
        (
            &api,
            Method::POST,
            "/v1/people",
            json!({ "name": "Other", "email": "ADA@example.com" }),
            409,
            "person_exists",
        ),
        (
            &api,
            Method::POST,
            "/v1/people",
            json!({ "name": "<", "email": "x@example.com" }),
            422,
            "name_invalid",
        ),
        (
            &api,
            Method::POST,
            "/v1/people",
            json!({ "name": "X", "email": "example.com" }),
            422,
            "email_invalid",
        ),
        (
            &api,
            Method::POST,
            "/v1/people",
            json!({ "name": "X", "email": "x@example.com", "age": 3 }),
            422,
            "body_invalid",
        ),
        (
            &ada,
            Method::POST,
            "/v1/people",
            json!({ "name": "X", "email": "x@example.com" }),
            403,
            "owner_required",
        ),
        (
            &ada,
            Method::PATCH,
            &ada_path,
            json!({ "is_owner": true }),
            403,
            "owner_required",
        ),
        (
            &ada,
            Method::DELETE,
            &owner_path,
            Value::Null,
            403,
            "owner_required",
        ),
        (
            &ada,
            Method::POST,
            &format!("{owner_path}/sign-in-links"),
            Value::Null,
            403,
            "owner_required",
        ),
        (&ada, Method::GET, "/v1/audit", Value::Null, 403, "owner_required"),
        (
            &ada,
            Method::PATCH,
            "/v1/me",
            json!({ "email": "owner@greenroom.invalid" }),
            403,
            "owner_required",
        ),
        (
            &api,
            Method::PATCH,
            &ada_path,
            json!({ "email": "owner@greenroom.invalid" }),
            409,
            "person_exists",
        ),
        (&api, Method::PATCH, &ada_path, json!({}), 422, "person_unchanged"),
        (
            &ada,
            Method::PATCH,
            "/v1/me",
            json!({ "name": "owner@greenroom.invalid" }),
            422,
            "name_invalid",
        ),
        (&api, Method::DELETE, &owner_path, Value::Null, 409, "last_owner"),
        (
            &api,
            Method::PATCH,
            &owner_path,
            json!({ "is_owner": false }),
            409,
            "last_owner",
        ),
        (
            &api,
            Method::DELETE,
            "/v1/people/usr_x",
            Value::Null,
            404,
            "person_unknown",
        ),
    ] {
        let mut request = caller.request(method.clone(), path);
        if !body.is_null() {
            request = request.json(&body);
        }
        let (answered, answer) = caller.send(request).await;
        assert_eq!(
            (answered, answer["code"].as_str()),
            (status, Some(code)),
            "{method} {path} {answer}"
        );
    }

    // Two owners: either may go.
    assert_eq!(api.patch(&ada_path, json!({ "is_owner": true })).await.0, 200);
    assert_eq!(ada.must_get("/v1/me").await["is_owner"], true);
    let private = api
        .must_post(
            "/v1/sessions",
            json!({ "repository": "answer", "access": "members" }),
        )
        .await;
    let id = private["session"]["id"].as_str().unwrap();
    ada.must_get(&format!("/v1/sessions/{id}")).await;
    assert_eq!(ada.patch(&ada_path, json!({ "is_owner": false })).await.0, 200);
    assert_eq!(ada.get(&format!("/v1/sessions/{id}")).await.0, 404);

    // Who comes again is somebody else, with the same address.
    assert_eq!(api.delete(&ada_path).await.0, 204);
    assert_eq!(api.delete(&ada_path).await.0, 404);
    let (_, again) = api.add_person("Ada").await;
    assert_ne!(again, ada_id);
    product.stop();
}

#[tokio::test]
async fn it_is_written_down_who_did_what() {
    let mut product = Product::with_script(FIX);
    let source = repo::with_files(product.root(), "shop", &[("README.md", "A shop.\n")]);
    let api = product.start().await;
    add(&api, "shop", &source).await;
    let (ada, ada_id) = api.add_person("Ada").await;
    let session = ada.start_session("shop", "hello").await;
    ada.wait_for_turns(&session, 1).await;
    assert_eq!(
        ada.put("/v1/secrets/stolen", json!({ "value": "s3cr3t-value" }))
            .await
            .0,
        403
    );
    let link = json!({ "kind": "share" });
    let link = ada
        .must_post(&format!("/v1/sessions/{session}/links"), link)
        .await;
    let clone = product.root().join("clone");
    let remote = api
        .url
        .replacen("http://", &format!("http://x:{}@", ada.token), 1);
    repo::git(
        product.root(),
        &[
            "clone",
            "-q",
            &format!("{remote}/git/shop.git"),
            clone.to_str().unwrap(),
        ],
    );
    std::fs::write(clone.join("new.txt"), "new\n").unwrap();
    repo::git(&clone, &["add", "."]);
    repo::git(
        &clone,
        &[
            "-c",
            "user.name=Ada",
            "-c",
            "user.email=ada@example.com",
            "commit",
            "-qm",
            "New",
        ],
    );
    repo::git(&clone, &["push", "-q", "origin", "HEAD:refs/heads/new"]);

    let of_ada = async || {
        let page = api.must_get(&format!("/v1/audit?person={ada_id}")).await;
        let mut entries = page["entries"].as_array().unwrap().clone();
        entries.reverse();
        entries
    };
    // What begins sessions is written down a moment later.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let entries = loop {
        let entries = of_ada().await;
        if entries.iter().any(|entry| entry["action"] == "createSession") && entries.len() >= 6 {
            break entries;
        }
        assert!(std::time::Instant::now() < deadline, "{}", pretty(&entries));
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    let told: BTreeSet<_> = entries
        .iter()
        .map(|entry| {
            let text = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
            (
                text("action"),
                text("target"),
                entry["status"].as_u64(),
                text("subject"),
            )
        })
        .collect();
    let link_id = link["link"]["id"].as_str().unwrap();
    let expected: BTreeSet<_> = [
        ("signIn", "/v1/sign-in".to_owned(), Some(200), ""),
        ("createToken", "/v1/tokens".to_owned(), Some(201), ""),
        (
            "createSession",
            "/v1/sessions".to_owned(),
            Some(201),
            session.as_str(),
        ),
        ("setSecret", "/v1/secrets/stolen".to_owned(), Some(403), ""),
        (
            "createLink",
            format!("/v1/sessions/{session}/links"),
            Some(201),
            link_id,
        ),
        ("gitPush", "/git/shop.git".to_owned(), Some(200), ""),
    ]
    .map(|(action, target, status, subject)| (action.to_owned(), target, status, subject.to_owned()))
    .into();
    assert_eq!(told, expected);
    // Nothing of what was sent, and no secret.
    let whole = pretty(&entries);
    let secret = link["url"].as_str().unwrap().split_once("#token=").unwrap().1;
    for hidden in ["s3cr3t-value", secret, ada.token.as_str()] {
        assert!(!whole.contains(hidden), "{whole}");
    }

    // Narrowed, and page by page.
    let about = api.must_get(&format!("/v1/audit?about={session}&limit=1")).await;
    assert_eq!(about["entries"][0]["action"], "createLink", "{about}");
    let before = about["next_before"].as_u64().unwrap();
    let next = api
        .must_get(&format!("/v1/audit?about={session}&limit=1&before={before}"))
        .await;
    assert_eq!(next["entries"][0]["action"], "createSession", "{next}");
    assert_eq!(next["next_before"], Value::Null);
    product.stop();
}

#[tokio::test]
async fn everybody_of_the_server_watches_unless_the_settings_say_otherwise() {
    for (access, expected) in [("viewer", 200), ("members", 404)] {
        let mut product = Product::with_script(FIX);
        product.set_env("GREENROOM_SESSION_ACCESS", access);
        let api = start_with_answer(&mut product).await;
        let (ada, _) = api.add_person("Ada").await;
        let (grace, _) = api.add_person("Grace").await;
        let session = ada.create_session("answer").await;
        let (status, seen) = grace.get(&format!("/v1/sessions/{session}")).await;
        assert_eq!(status, expected, "{seen}");
        // A fork tells what was said in the session, and is open to no more people.
        let forked = ada
            .must_post(&format!("/v1/sessions/{session}/forks"), json!({}))
            .await;
        let fork = forked["sessions"][0]["session"]["id"].as_str().unwrap();
        assert_eq!(grace.get(&format!("/v1/sessions/{fork}")).await.0, expected);
        let by_viewer = grace
            .post(&format!("/v1/sessions/{session}/forks"), json!({}))
            .await;
        assert_eq!(
            by_viewer.0,
            if expected == 200 { 201 } else { 404 },
            "{}",
            by_viewer.1
        );
        product.stop();
    }
}

#[tokio::test]
async fn the_command_line_knows_people() {
    let mut product = Product::with_script(FIX);
    let api = start_with_answer(&mut product).await;
    let run = |arguments: &[&str]| {
        let output = product.run(arguments);
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        (output.status.code(), text.concat())
    };
    let (code, added) = run(&["person", "add", "Ada Lovelace", "ada@example.com"]);
    assert_eq!(code, Some(0), "{added}");
    let link = added.lines().find(|line| line.starts_with("http")).unwrap();
    let ada = api.with_token(&api.token_of_link(link).await);
    let session = api.create_session("answer").await;
    for (arguments, code, said) in [
        (
            &["person", "add", "Ada", "ada@example.com"][..],
            1,
            "person_exists",
        ),
        (&["person", "list"], 0, "Ada Lovelace"),
        (
            &["person", "set", "nobody", "--owner", "true"],
            1,
            "person_unknown",
        ),
        (
            &["session", "members", &session, "--add", "ada@example.com"],
            0,
            "editor",
        ),
        (
            &["session", "members", &session, "--everybody", "members"],
            0,
            "nobody else",
        ),
        (
            &[
                "session",
                "members",
                &session,
                "--add",
                "Ada Lovelace",
                "--role",
                "owner",
            ],
            0,
            "owner",
        ),
        (&["session", "link", &session, "--share"], 0, "/shared/ses_"),
        (
            &["session", "link", &session, "--role", "editor", "--hours", "2"],
            0,
            "/join/ses_",
        ),
        (&["session", "link", &session, "--list"], 0, "share"),
        (
            &["session", "link", &session, "--revoke", "lnk_1"],
            2,
            "link_argument",
        ),
        (
            &["session", "join", "http://127.0.0.1/join/x"],
            2,
            "link_argument",
        ),
        (&["audit", "--about", &session], 0, "setMember"),
        (&["person", "remove", "ada@example.com"], 0, "may no longer use"),
    ] {
        let (ended, text) = run(arguments);
        assert_eq!(ended, Some(code), "{arguments:?}: {text}");
        assert!(text.contains(said), "{arguments:?}: {text}");
    }
    assert_eq!(ada.get("/v1/me").await.0, 401);
    product.stop();
}

#[tokio::test]
async fn events_of_members_reach_everybody_who_watches() {
    let mut product = Product::with_script(FIX);
    let api = start_with_answer(&mut product).await;
    let (_, ada_id) = api.add_person("Ada").await;
    let session = api.create_session("answer").await;
    let mut stream = api.stream(&session, 0).await;
    let member = format!("/v1/sessions/{session}/members/{ada_id}");
    api.put(&member, json!({ "role": "editor" })).await;
    let frames = stream
        .until(|frame| is_event(frame, "session.member_changed"))
        .await;
    let event = &frames.last().unwrap()["event"];
    assert_eq!(
        (event["person"]["name"].as_str(), event["role"].as_str()),
        (Some("Ada"), Some("editor"))
    );
    let rows = stream
        .until(|frame| {
            frame["frame"] == "session"
                && frame["session"]["members"]
                    .as_array()
                    .is_some_and(|all| all.len() == 2)
        })
        .await;
    assert!(!rows.is_empty());
    // The same again says nothing new.
    let before = api.events(&session).await.len();
    api.put(&member, json!({ "role": "editor" })).await;
    assert_eq!(api.events(&session).await.len(), before);
    product.stop();
}
