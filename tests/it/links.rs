//! Links into a session: invitations for people of the server, and links for watching without signing in.

use crate::script::{FIX, start_with_answer};
use futures_util::StreamExt as _;
use greenroom_system_tests::api::{Api, is_event, of_type};
use greenroom_system_tests::product::Product;
use reqwest::Method;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

pub async fn link(api: &Api, session: &str, body: Value) -> (String, String) {
    let made = api
        .must_post(&format!("/v1/sessions/{session}/links"), body)
        .await;
    let url = made["url"].as_str().unwrap();
    assert!(url.contains(session), "{url}");
    let token = url.split_once("#token=").unwrap().1.to_owned();
    (made["link"]["id"].as_str().unwrap().to_owned(), token)
}

#[tokio::test]
async fn an_invitation_makes_members_until_it_is_revoked() {
    let mut product = Product::with_script(FIX);
    let api = start_with_answer(&mut product).await;
    let (ada, _) = api.add_person("Ada").await;
    let (grace, _) = api.add_person("Grace").await;
    let (edith, _) = api.add_person("Edith").await;
    let created = ada
        .must_post(
            "/v1/sessions",
            json!({ "repository": "answer", "access": "members" }),
        )
        .await;
    let session = created["session"]["id"].as_str().unwrap().to_owned();
    let (link_id, token) = link(&ada, &session, json!({ "kind": "invite", "role": "editor" })).await;
    let (_, weaker) = link(&ada, &session, json!({ "kind": "invite" })).await;
    assert_eq!(grace.get(&format!("/v1/sessions/{session}")).await.0, 404);

    let join = async |who: &Api, token: &str| who.post("/v1/memberships", json!({ "token": token })).await;
    let (status, joined) = join(&grace, &token).await;
    assert_eq!(
        (status, joined["role"].as_str()),
        (201, Some("editor")),
        "{joined}"
    );
    assert_eq!(joined["session_id"], session.as_str());
    // Nobody may do less by opening another one, and the owner stays the owner.
    assert_eq!(join(&grace, &weaker).await.1["role"], "editor");
    assert_eq!(join(&ada, &token).await.1["role"], "owner");
    assert_eq!(grace.prompt(&session, "hello", "hello").await.0, 202);

    // It names no one by its secret once it is made, also not after a restart.
    let links = ada.must_get(&format!("/v1/sessions/{session}/links")).await;
    assert_eq!(links["links"].as_array().unwrap().len(), 2);
    assert!(!links.to_string().contains(&token), "{links}");
    let revoked = format!("/v1/sessions/{session}/links/{link_id}");
    assert_eq!(ada.delete(&revoked).await.0, 204);
    assert_eq!(ada.delete(&revoked).await.1["code"], "link_unknown");
    for wrong in [token.as_str(), "", "grl_x", ada.token.as_str()] {
        let (status, refused) = join(&edith, wrong).await;
        assert_eq!(
            (status, refused["code"].as_str()),
            (401, Some("link_invalid")),
            "{wrong}"
        );
    }
    assert_eq!(
        grace.must_get(&format!("/v1/sessions/{session}/members")).await["your_role"],
        "editor"
    );
    // An invitation is no way to watch without signing in.
    assert_eq!(
        api.with_token(&weaker)
            .get(&format!("/v1/sessions/{session}"))
            .await
            .0,
        401
    );
    product.stop();
}

#[tokio::test]
async fn who_has_a_share_link_watches_this_session_and_does_nothing_else() {
    let mut product = Product::with_script(FIX);
    let api = start_with_answer(&mut product).await;
    let created = api
        .must_post(
            "/v1/sessions",
            json!({ "repository": "answer", "access": "members" }),
        )
        .await;
    let session = created["session"]["id"].as_str().unwrap().to_owned();
    let other = api.create_session("answer").await;
    let (link_id, token) = link(&api, &session, json!({ "kind": "share" })).await;
    let guest = api.with_token(&token);

    for path in ["", "/events", "/history?before=0", "/prompts", "/diff"] {
        guest.must_get(&format!("/v1/sessions/{session}{path}")).await;
        let (status, refused) = guest.get(&format!("/v1/sessions/{other}{path}")).await;
        assert_eq!(
            (status, refused["code"].as_str()),
            (404, Some("session_unknown")),
            "{path}"
        );
    }
    // Everything else in the document wants somebody who is signed in.
    let document = api.must_get("/v1/openapi.json").await;
    let open = [
        "/v1/health",
        "/v1/sign-in",
        "/v1/stream-tickets",
        "/v1/repositories/{name}/images/webhook",
    ];
    let mut tried = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item
            .as_object()
            .unwrap()
            .keys()
            .filter(|key| *key != "parameters")
        {
            let reads = method == "get"
                && ["", "/events", "/history", "/prompts", "/diff", "/blobs/{digest}"]
                    .map(|end| format!("/v1/sessions/{{id}}{end}"))
                    .contains(path);
            if open.contains(&path.as_str()) || reads {
                continue;
            }
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let target = path
                .replace("{id}", &session)
                .replace("{name}", "answer")
                .replace("{number}", "1");
            let target = target
                .split('/')
                .map(|part| if part.starts_with('{') { "x" } else { part });
            let target = target.collect::<Vec<_>>().join("/");
            let request = guest
                .request(method.clone(), &target)
                .header("idempotency-key", "guest")
                .json(&json!({}));
            let (status, answer) = guest.send(request).await;
            assert_eq!(
                (status, answer["code"].as_str()),
                (401, Some("sign_in_required")),
                "{method} {target}: {answer}"
            );
            tried += 1;
        }
    }
    assert!(tried > 50, "only {tried}");

    // It is followed live: with the secret as a token, and by a ticket as browsers do.
    let mut stream = guest.stream(&session, 0).await;
    let ticket = guest.must_post("/v1/stream-tickets", json!({})).await;
    let ticket = ticket["ticket"].as_str().unwrap();
    let url = format!(
        "{}/v1/sessions/{session}/stream?ticket={ticket}",
        api.url.replacen("http", "ws", 1)
    );
    let (mut by_ticket, _) = tokio_tungstenite::connect_async(&url).await.unwrap();
    let twice = tokio_tungstenite::connect_async(&url).await;
    assert!(twice.is_err(), "a ticket opens one door once");
    api.prompt(&session, "fix", "Please fix the answer.").await;
    stream.until(|frame| is_event(frame, "turn.completed")).await;
    let events = guest.must_get(&format!("/v1/sessions/{session}/events")).await;
    assert!(!of_type(events["events"].as_array().unwrap(), "turn.completed").is_empty());

    // Revoked, both end at once.
    assert_eq!(
        api.delete(&format!("/v1/sessions/{session}/links/{link_id}"))
            .await
            .0,
        204
    );
    let frames = stream.until(|frame| frame["frame"] == "closing").await;
    assert_eq!(frames.last().unwrap()["problem"]["code"], "link_invalid");
    let closing = async {
        while let Some(Ok(message)) = by_ticket.next().await {
            if let Message::Text(text) = message
                && text.contains("\"closing\"")
            {
                return text.to_string();
            }
        }
        String::new()
    };
    assert!(closing.await.contains("link_invalid"));
    let (status, refused) = guest.get(&format!("/v1/sessions/{session}")).await;
    assert_eq!((status, refused["code"].as_str()), (401, Some("link_invalid")));
    product.stop();
}

#[tokio::test]
async fn a_link_that_makes_no_sense_is_refused() {
    let mut product = Product::with_script(FIX);
    let api = start_with_answer(&mut product).await;
    let session = api.create_session("answer").await;
    for (body, code) in [
        (json!({ "kind": "share", "role": "editor" }), "link_role_invalid"),
        (json!({ "kind": "invite", "role": "owner" }), "link_role_invalid"),
        (
            json!({ "kind": "invite", "valid_for_seconds": 59 }),
            "link_lifetime_invalid",
        ),
        (
            json!({ "kind": "invite", "valid_for_seconds": 7_776_001 }),
            "link_lifetime_invalid",
        ),
        (
            json!({ "kind": "invite", "valid_for_seconds": u64::MAX }),
            "link_lifetime_invalid",
        ),
        (json!({ "kind": "door" }), "body_invalid"),
        (json!({}), "body_invalid"),
    ] {
        let (status, refused) = api
            .post(&format!("/v1/sessions/{session}/links"), body.clone())
            .await;
        assert_eq!(
            (status, refused["code"].as_str()),
            (422, Some(code)),
            "{body}: {refused}"
        );
    }
    product.stop();
}
