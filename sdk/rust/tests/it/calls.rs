//! Ordinary calls: what is sent, what is repeated, and how refusals come out.

use crate::server::client_of;
use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use greenroom_sdk::protocol::client::prompt::SendPrompt;
use greenroom_sdk::protocol::id::SessionId;
use greenroom_sdk::{Client, ClientError, IdempotencyKey, Secret};
use std::sync::{Arc, Mutex};

fn prompt() -> SendPrompt {
    SendPrompt {
        text: "go".to_owned(),
        images: Vec::new(),
        model: None,
        delivery: None,
    }
}

#[tokio::test]
async fn the_token_and_an_encoded_path_are_sent() {
    let routes = Router::new().route(
        "/v1/repositories/{name}",
        get(|Path(name): Path<String>, headers: HeaderMap| async move {
            let token = headers["authorization"].to_str().unwrap().to_owned();
            let body = format!(
                r#"{{"name":{name:?},"default_branch":null,"clone_url":{token:?},"created_at_ms":0,"later_field":1}}"#
            );
            ([("content-type", "application/json")], body)
        }),
    );
    let client = client_of(routes).await;
    // A name with a slash cannot reach another endpoint.
    let repository = client.repository("../me?x#y").await.unwrap();
    assert_eq!(repository.name, "../me?x#y");
    assert_eq!(repository.clone_url, "Bearer the-token");
    assert!(!format!("{client:?}").contains("the-token"));
}

#[tokio::test]
async fn a_refusal_keeps_its_code_and_status() {
    let problem = r#"{"code":"repository_unknown","message":"No such repository.","hint":"List them."}"#;
    let routes = Router::new()
        .route(
            "/v1/repositories/{name}",
            get(move || async move { (StatusCode::NOT_FOUND, problem) }),
        )
        .route("/v1/me", get(|| async { (StatusCode::BAD_GATEWAY, "<html>") }))
        .route("/v1/models", get(|| async { "not json" }))
        .route(
            "/v1/health",
            get(|| async { (StatusCode::FOUND, [("location", "https://elsewhere.example")]) }),
        );
    let client = client_of(routes).await;
    let error = client.repository("shop").await.unwrap_err();
    assert_eq!(error.problem_code(), Some("repository_unknown"));
    assert!(
        matches!(error, ClientError::Problem { status: 404, .. }),
        "{error:?}"
    );
    assert!(!error.is_retryable());
    for error in [
        client.me().await.unwrap_err(),
        client.models().await.unwrap_err(),
        // A redirect is not followed: the token would go along.
        client.health().await.unwrap_err(),
    ] {
        assert!(matches!(error, ClientError::Malformed { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_command_with_a_key_is_repeated_with_the_same_key() {
    let keys = Arc::new(Mutex::new(Vec::new()));
    let seen = keys.clone();
    let routes = Router::new().route(
        "/v1/sessions/{id}/prompts",
        post(move |headers: HeaderMap| async move {
            let mut seen = seen.lock().unwrap();
            seen.push(headers["idempotency-key"].to_str().unwrap().to_owned());
            if seen.len() < 3 {
                let busy = r#"{"code":"queue_full","message":"Busy.","retryable":true,"retry_after_ms":1}"#;
                return (StatusCode::TOO_MANY_REQUESTS, busy);
            }
            (
                StatusCode::ACCEPTED,
                r#"{"prompt_id":"prm_00000000000000000000000000","seq":7}"#,
            )
        }),
    );
    let client = client_of(routes).await;
    let key = IdempotencyKey::fresh();
    let receipt = client
        .send_prompt(&SessionId::from_bits(1), &prompt(), &key)
        .await
        .unwrap();
    assert_eq!(receipt.seq, 7);
    assert_eq!(*keys.lock().unwrap(), vec![key.as_str(); 3]);
}

/// Answers each call with a failure that may pass, and keeps the keys it came with.
fn busy(path: &str) -> (Router, Arc<Mutex<Vec<Option<String>>>>) {
    let keys = Arc::new(Mutex::new(Vec::new()));
    let kept = keys.clone();
    let answer = move |headers: HeaderMap| async move {
        let key = headers
            .get("idempotency-key")
            .map(|key| key.to_str().unwrap().to_owned());
        kept.lock().unwrap().push(key);
        (
            StatusCode::SERVICE_UNAVAILABLE,
            r#"{"code":"busy","message":"Busy.","retryable":true,"retry_after_ms":1}"#,
        )
    };
    (Router::new().route(path, post(answer)), keys)
}

#[tokio::test]
async fn every_command_is_repeated_under_one_key_of_its_own() {
    let (routes, keys) = busy("/v1/sessions/{id}/snapshots");
    let client = client_of(routes).await;
    for _ in 0..2 {
        let error = client.take_snapshot(&SessionId::from_bits(1)).await.unwrap_err();
        assert!(error.is_retryable());
    }
    let mut keys = keys.lock().unwrap().clone();
    assert!(keys.len() > 2, "it was repeated");
    assert!(keys.iter().all(Option::is_some));
    keys.dedup();
    assert_eq!(keys.len(), 2, "one for each command");
}

#[tokio::test]
async fn a_command_whose_answer_holds_a_secret_is_sent_once() {
    let (routes, keys) = busy("/v1/tokens");
    let error = client_of(routes).await.create_token("x").await.unwrap_err();
    assert!(error.is_retryable());
    assert_eq!(*keys.lock().unwrap(), [None]);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unreachable() {
    // Bound and closed: nobody listens there.
    let address = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let client = Client::new(&format!("http://{address}"), Secret::new("the-token")).unwrap();
    let error = client.me().await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error:?}");
    let error = client
        .stream(&SessionId::from_bits(1), 0)
        .next()
        .await
        .unwrap()
        .unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error:?}");
}
