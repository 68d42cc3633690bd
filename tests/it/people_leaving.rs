//! Somebody loses a right while things are under way: what they asked for is not done, or not further, and what they have open ends.

use crate::script::{FIX, commands, has_running_command, start_with_answer};
use greenroom_system_tests::api::{Api, of_type, pretty};
use greenroom_system_tests::product::Product;
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

/// Scripts of which one waits until it is stopped.
fn waiting() -> String {
    commands(&[
        ("wait", "while [ ! -e go ]; do sleep 0.05; done"),
        ("hello", "echo hello"),
    ])
}

/// A session in which a turn of its owner waits, and in which everybody may prompt.
async fn session_at_work(owner: &Api) -> String {
    let body = json!({ "repository": "answer", "prompt": "Please wait.", "access": "editor" });
    let session = owner.must_post("/v1/sessions", body).await;
    let session = session["session"]["id"].as_str().unwrap().to_owned();
    owner
        .wait_for(&session, "a running command", has_running_command)
        .await;
    session
}

/// Prompts of somebody that nobody took out of the queue.
fn not_withdrawn(events: &[Value], author: &str) -> usize {
    let cancelled: Vec<_> = of_type(events, "prompt.cancelled")
        .iter()
        .map(|event| event["prompt_id"].clone())
        .collect();
    of_type(events, "prompt.queued")
        .iter()
        .filter(|event| {
            event["prompt"]["author"]["id"] == author && !cancelled.contains(&event["prompt"]["id"])
        })
        .count()
}

#[tokio::test]
async fn who_is_removed_has_nothing_done_for_them_any_more() {
    let script = commands(&[
        ("wait", "while [ ! -e go ]; do sleep 0.05; done"),
        ("hello", "echo hello"),
    ]);
    let mut product = Product::with_script(&script);
    let api = start_with_answer(&mut product).await;
    let (ada, ada_id) = api.add_person("Ada").await;
    let (grace, grace_id) = api.add_person("Grace").await;
    let body = json!({ "repository": "answer", "prompt": "Please wait.", "access": "editor" });
    let session = ada.must_post("/v1/sessions", body).await;
    let session = session["session"]["id"].as_str().unwrap().to_owned();
    assert_eq!(grace.prompt(&session, "one", "hello from Grace").await.0, 202);
    assert_eq!(ada.prompt(&session, "two", "hello from Ada").await.0, 202);
    api.wait_for(&session, "a running command", has_running_command)
        .await;

    // What Grace asked for waits; it is taken out. What Ada asked for runs; it is stopped, and what she asked for next is not begun.
    assert_eq!(api.delete(&format!("/v1/people/{grace_id}")).await.0, 204);
    assert_eq!(api.delete(&format!("/v1/people/{ada_id}")).await.0, 204);
    let events = api
        .wait_for(&session, "the end", |events| {
            of_type(events, "turn.completed").len() == 1
                && events
                    .iter()
                    .rev()
                    .any(|event| event["type"] == "session.state_changed" && event["state"] == "idle")
        })
        .await;
    assert_eq!(
        of_type(&events, "prompt.cancelled").len(),
        2,
        "{}",
        pretty(&events)
    );
    assert_eq!(of_type(&events, "turn.started").len(), 1, "{}", pretty(&events));
    let end = of_type(&events, "turn.completed")[0];
    assert_eq!(end["outcome"]["result"], "stopped", "{end}");

    // A session that nobody had in memory hears of it when it is loaded: nothing is begun for somebody who left.
    let (edith, edith_id) = api.add_person("Edith").await;
    let body = json!({ "repository": "answer", "prompt": "Please wait.", "access": "editor" });
    let other = api.must_post("/v1/sessions", body).await;
    let other = other["session"]["id"].as_str().unwrap().to_owned();
    assert_eq!(edith.prompt(&other, "three", "hello from Edith").await.0, 202);
    api.wait_for(&other, "a running command", has_running_command)
        .await;
    let stop = format!("/v1/sessions/{other}/stop?pauses_queue=true");
    api.must_post(&stop, json!({})).await;
    api.wait_for_turns(&other, 1).await;
    product.stop();
    let api = product.start().await;
    assert_eq!(api.delete(&format!("/v1/people/{edith_id}")).await.0, 204);
    let events = api
        .wait_for(&other, "the prompt's end", |events| {
            !of_type(events, "prompt.cancelled").is_empty()
        })
        .await;
    assert_eq!(of_type(&events, "turn.started").len(), 1, "{}", pretty(&events));
    product.stop();
}

#[tokio::test]
async fn who_may_only_watch_from_now_on_has_nothing_done_for_them() {
    let mut product = Product::with_script(&waiting());
    let api = start_with_answer(&mut product).await;
    let (ada, _) = api.add_person("Ada").await;
    let (grace, grace_id) = api.add_person("Grace").await;
    let (edith, edith_id) = api.add_person("Edith").await;
    let session = session_at_work(&ada).await;
    let path = format!("/v1/sessions/{session}");
    for (who, key) in [(&grace, "one"), (&edith, "two"), (&api, "three")] {
        assert_eq!(who.prompt(&session, key, "hello").await.0, 202);
    }
    // Edith is let in by name; Grace was only one of everybody. The server's owner may anyway.
    ada.put(&format!("{path}/members/{edith_id}"), json!({ "role": "editor" }))
        .await;
    assert_eq!(ada.patch(&path, json!({ "access": "viewer" })).await.0, 200);
    let events = ada.events(&session).await;
    assert_eq!(not_withdrawn(&events, &grace_id), 0, "{}", pretty(&events));
    assert_eq!(not_withdrawn(&events, &edith_id), 1, "{}", pretty(&events));
    assert_eq!(of_type(&events, "prompt.cancelled").len(), 1);
    assert_eq!(
        grace.prompt(&session, "four", "hello").await.1["code"],
        "role_required"
    );
    assert_eq!(ada.delete(&format!("{path}/members/{edith_id}")).await.0, 204);
    let events = ada.events(&session).await;
    assert_eq!(not_withdrawn(&events, &edith_id), 0, "{}", pretty(&events));
    product.stop();
}

#[tokio::test]
async fn nothing_slips_in_behind_a_removal() {
    let mut product = Product::with_script(&waiting());
    let api = start_with_answer(&mut product).await;
    let (ada, _) = api.add_person("Ada").await;
    let (grace, grace_id) = api.add_person("Grace").await;
    for round in 0..6 {
        let session = session_at_work(&ada).await;
        let path = format!("/v1/sessions/{session}");
        ada.put(&format!("{path}/members/{grace_id}"), json!({ "role": "editor" }))
            .await;
        ada.patch(&path, json!({ "access": "members" })).await;
        let prompts: Vec<_> = (0..8)
            .map(|number| {
                let (grace, session) = (grace.clone(), session.clone());
                tokio::spawn(async move { grace.prompt(&session, &number.to_string(), "hello").await.0 })
            })
            .collect();
        let removed = ada.delete(&format!("{path}/members/{grace_id}")).await;
        assert_eq!(removed.0, 204, "{}", removed.1);
        for prompt in prompts {
            let status = prompt.await.unwrap();
            assert!([202, 404].contains(&status), "{status}");
        }
        let events = ada.events(&session).await;
        assert_eq!(
            not_withdrawn(&events, &grace_id),
            0,
            "round {round}: {}",
            pretty(&events)
        );
        ada.must_post(&format!("{path}/stop"), json!({})).await;
    }
    // Of many who hand a session over at once, one does: it is no longer theirs then.
    let session = ada.create_session("answer").await;
    let (_, edith_id) = api.add_person("Edith").await;
    let handed: Vec<_> = [grace_id, edith_id]
        .into_iter()
        .map(|heir| {
            let (ada, path) = (ada.clone(), format!("/v1/sessions/{session}/members/{heir}"));
            tokio::spawn(async move { ada.put(&path, json!({ "role": "owner" })).await.0 })
        })
        .collect();
    let mut answers = Vec::new();
    for answer in handed {
        answers.push(answer.await.unwrap());
    }
    answers.sort_unstable();
    assert_eq!(answers, [200, 403]);
    product.stop();
}

#[tokio::test]
async fn a_removal_is_done_to_its_end_without_its_caller() {
    let mut product = Product::with_script(&waiting());
    let api = start_with_answer(&mut product).await;
    let (ada, _) = api.add_person("Ada").await;
    let mut sessions = Vec::new();
    for _ in 0..3 {
        sessions.push(session_at_work(&ada).await);
    }
    let (grace, grace_id) = api.add_person("Grace").await;
    for session in &sessions {
        assert_eq!(grace.prompt(session, "one", "hello").await.0, 202);
    }
    let address = api.url.strip_prefix("http://").unwrap();
    let mut socket = TcpStream::connect(address).unwrap();
    write!(
        socket,
        "DELETE /v1/people/{grace_id} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\n\r\n",
        api.token
    )
    .unwrap();
    // Gone as soon as the server has begun.
    let deadline = Instant::now() + PATIENCE;
    while grace.get("/v1/me").await.0 != 401 {
        assert!(Instant::now() < deadline);
    }
    drop(socket);
    for session in &sessions {
        api.wait_for(session, "that nothing waits", |events| {
            not_withdrawn(events, &grace_id) == 0
        })
        .await;
    }
    loop {
        let page = api.must_get(&format!("/v1/audit?about={grace_id}")).await;
        let removal = &page["entries"][0];
        if removal["action"] == "removePerson" && removal["status"] == 204 {
            break;
        }
        assert!(Instant::now() < deadline, "{page}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    product.stop();
}

#[tokio::test]
async fn a_turn_of_somebody_who_was_removed_does_not_go_on_after_a_kill() {
    let mut product = Product::with_script(&waiting());
    let api = start_with_answer(&mut product).await;
    let (ada, ada_id) = api.add_person("Ada").await;
    let mut sessions = Vec::new();
    for _ in 0..4 {
        sessions.push(session_at_work(&ada).await);
    }
    let removal = tokio::spawn({
        let (api, path) = (api.clone(), format!("/v1/people/{ada_id}"));
        async move { api.delete(&path).await.0 }
    });
    let deadline = Instant::now() + PATIENCE;
    while ada.get("/v1/me").await.0 == 200 {
        assert!(Instant::now() < deadline);
    }
    product.kill();
    let _ = removal.await;
    let api = product.start().await;
    assert_eq!(api.with_token(&ada.token).get("/v1/me").await.0, 401);
    for session in &sessions {
        let events = api.wait_for_turns(session, 1).await;
        let end = of_type(&events, "turn.completed")[0];
        assert_eq!(end["outcome"]["result"], "stopped", "{}", pretty(&events));
    }
    product.stop();
}

#[tokio::test]
async fn who_was_taken_out_comes_back_only_by_the_owner() {
    let mut product = Product::with_script(FIX);
    let api = start_with_answer(&mut product).await;
    let (ada, ada_id) = api.add_person("Ada").await;
    let (grace, grace_id) = api.add_person("Grace").await;
    let (edith, _) = api.add_person("Edith").await;
    let create = json!({ "repository": "answer", "access": "members" });
    let created = async |who: &Api| {
        let request = who
            .request(reqwest::Method::POST, "/v1/sessions")
            .header("idempotency-key", "create-once");
        who.send(request.json(&create)).await
    };
    let session = created(&ada).await.1["session"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = format!("/v1/sessions/{session}");
    let made = async |who: &Api, body: Value| {
        let made = who.must_post(&format!("{path}/links"), body).await;
        made["url"]
            .as_str()
            .unwrap()
            .split_once("#token=")
            .unwrap()
            .1
            .to_owned()
    };
    let invitation = made(&ada, json!({ "kind": "invite", "role": "editor" })).await;
    let join = async |who: &Api, token: &str| who.post("/v1/memberships", json!({ "token": token })).await;
    assert_eq!(join(&grace, &invitation).await.0, 201);

    // Who leaves may come back by the same link; whom the owner took out may not.
    assert_eq!(grace.delete(&format!("{path}/members/{grace_id}")).await.0, 204);
    assert_eq!(join(&grace, &invitation).await.0, 201);
    assert_eq!(ada.delete(&format!("{path}/members/{grace_id}")).await.0, 204);
    let (status, refused) = join(&grace, &invitation).await;
    assert_eq!(
        (status, refused["code"].as_str()),
        (403, Some("member_removed")),
        "{refused}"
    );
    ada.put(&format!("{path}/members/{grace_id}"), json!({ "role": "viewer" }))
        .await;
    assert_eq!(join(&grace, &invitation).await.1["role"], "editor");
    let watching = made(&ada, json!({ "kind": "share" })).await;
    assert_eq!(join(&edith, &watching).await.1["code"], "link_is_for_watching");

    // Links of who hands the session over end with that, and what is open by them.
    let mut stream = api.with_token(&watching).stream(&session, 0).await;
    stream.until(|frame| frame["frame"] == "caught_up").await;
    ada.put(&format!("{path}/members/{grace_id}"), json!({ "role": "owner" }))
        .await;
    let frames = stream.until(|frame| frame["frame"] == "closing").await;
    assert_eq!(frames.last().unwrap()["problem"]["code"], "link_invalid");
    assert_eq!(join(&edith, &invitation).await.1["code"], "link_invalid");

    // Who is out is told nothing by repeating what once made it.
    assert_eq!(grace.delete(&format!("{path}/members/{ada_id}")).await.0, 204);
    grace.patch(&path, json!({ "title": "TOPSECRET" })).await;
    let (status, replayed) = created(&ada).await;
    assert_eq!(
        (status, replayed["code"].as_str()),
        (404, Some("session_unknown")),
        "{replayed}"
    );

    // A link ends with the person who made it.
    let watching = made(&grace, json!({ "kind": "share" })).await;
    let mut stream = api.with_token(&watching).stream(&session, 0).await;
    stream.until(|frame| frame["frame"] == "caught_up").await;
    assert_eq!(api.delete(&format!("/v1/people/{grace_id}")).await.0, 204);
    let frames = stream.until(|frame| frame["frame"] == "closing").await;
    assert_eq!(frames.last().unwrap()["problem"]["code"], "link_invalid");
    product.stop();
}

#[tokio::test]
async fn links_into_sessions_of_others_end_with_the_ownership_of_the_server() {
    let mut product = Product::with_script(FIX);
    let api = start_with_answer(&mut product).await;
    let (ada, _) = api.add_person("Ada").await;
    let (grace, grace_id) = api.add_person("Grace").await;
    let path = format!("/v1/people/{grace_id}");
    assert_eq!(api.patch(&path, json!({ "is_owner": true })).await.0, 200);
    let created = ada
        .must_post(
            "/v1/sessions",
            json!({ "repository": "answer", "access": "members" }),
        )
        .await;
    let session = created["session"]["id"].as_str().unwrap().to_owned();
    let link = grace
        .must_post(
            &format!("/v1/sessions/{session}/links"),
            json!({ "kind": "share" }),
        )
        .await;
    let guest = api.with_token(link["url"].as_str().unwrap().split_once("#token=").unwrap().1);
    let mut stream = guest.stream(&session, 0).await;
    stream.until(|frame| frame["frame"] == "caught_up").await;
    assert_eq!(api.patch(&path, json!({ "is_owner": false })).await.0, 200);
    let frames = stream.until(|frame| frame["frame"] == "closing").await;
    assert_eq!(frames.last().unwrap()["problem"]["code"], "link_invalid");
    assert_eq!(guest.get(&format!("/v1/sessions/{session}")).await.0, 401);
    let audit = api.must_get(&format!("/v1/audit?about={grace_id}&limit=1")).await;
    let subject = audit["entries"][0]["subject"].as_str().unwrap();
    assert_eq!(subject, "Grace <grace@example.com>, no owner any more");
    product.stop();
}

#[tokio::test]
async fn who_takes_long_to_send_a_command_may_have_lost_the_right_to_it() {
    let mut product = Product::with_script(FIX);
    let api = start_with_answer(&mut product).await;
    let (mallory, mallory_id) = api.add_person("Mallory").await;
    let path = format!("/v1/people/{mallory_id}");
    assert_eq!(api.patch(&path, json!({ "is_owner": true })).await.0, 200);
    let session = mallory.create_session("answer").await;
    let address = api.url.strip_prefix("http://").unwrap();
    // With an idempotency key and without, the body is read in different places.
    let slow = |command: &str, key: &str, body: &Value| {
        let body = body.to_string();
        let (sent, last) = body.split_at(body.len() - 1);
        let mut socket = TcpStream::connect(address).unwrap();
        write!(
            socket,
            "{command} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
             {key}connection: close\r\ncontent-length: {}\r\n\r\n{sent}",
            mallory.token,
            body.len()
        )
        .unwrap();
        (socket, last.to_owned())
    };
    let person = json!({ "name": "Trudy", "email": "trudy@example.com", "is_owner": true });
    let link = json!({ "kind": "share" });
    let links = format!("/v1/sessions/{session}/links");
    let begun = [
        slow("POST /v1/people", "", &person),
        slow("POST /v1/people", "idempotency-key: one\r\n", &person),
        slow(&format!("POST {links}"), "", &link),
        slow(
            &format!("PATCH /v1/sessions/{session}"),
            "idempotency-key: two\r\n",
            &json!({ "title": "Mine" }),
        ),
    ];
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(api.delete(&path).await.0, 204);
    for (mut socket, last) in begun {
        socket.write_all(last.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    }
    let people = api.must_get("/v1/people").await;
    assert_eq!(people["people"].as_array().unwrap().len(), 1, "{people}");
    assert_eq!(api.must_get(&links).await["links"], json!([]));
    product.stop();
}
