//! Who gets in, and from where.

use crate::script::FIX;
use greenroom_system_tests::product::Product;
use reqwest::Method;
use serde_json::{Value, json};

#[tokio::test]
async fn nothing_works_without_signing_in() {
    let mut product = Product::with_script(FIX);
    let api = product.start().await;
    let document: Value = api.must_get("/v1/openapi.json").await;
    assert_eq!(document["openapi"], "3.1.0");
    let client = api.anonymous();
    let mut checked = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys() {
            // A webhook is signed instead, and refused with the same status here.
            if ["/v1/health", "/v1/sign-in"].contains(&path.as_str()) {
                continue;
            }
            let url = format!(
                "{}{}",
                api.url,
                path.replace("{id}", "ses_0")
                    .replace("{name}", "x")
                    .replace("{number}", "1")
                    .replace("{prompt_id}", "prm_0")
            );
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let answer = client
                .request(method.clone(), url)
                .json(&json!({}))
                .header("idempotency-key", "k")
                .send()
                .await
                .unwrap();
            assert_eq!(answer.status(), 401, "{method} {path}");
            checked += 1;
        }
    }
    assert!(
        checked > 30,
        "the document lists the whole API, {checked} operations were checked"
    );
    // A real upgrade, which the same request with a token passes on to the session.
    let upgrade = |request: reqwest::RequestBuilder| {
        request
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .send()
    };
    let path = "/v1/sessions/ses_00000000000000000000000000/stream";
    let nobody = upgrade(client.get(format!("{}{path}", api.url))).await.unwrap();
    assert_eq!(nobody.status(), 401);
    let somebody = upgrade(api.request(Method::GET, path)).await.unwrap();
    assert_eq!(somebody.status(), 404, "signed in, and there is no such session");
    let git = client
        .get(format!("{}/git/x.git/info/refs?service=git-upload-pack", api.url))
        .send()
        .await
        .unwrap();
    assert_eq!(git.status(), 401);
    product.stop();
}

#[tokio::test]
async fn a_link_signs_in_once_and_only_pages_of_this_server_may_act() {
    let mut product = Product::with_script(FIX);
    let api = product.start().await;
    let link = product.printed_sign_in_link();
    let secret = link.split("#token=").nth(1).unwrap().to_owned();
    let client = api.anonymous();
    let sign_in = |secret: String| {
        client
            .post(format!("{}/v1/sign-in", api.url))
            .json(&json!({ "token": secret }))
            .send()
    };

    let first = sign_in(secret.clone()).await.unwrap();
    assert_eq!(first.status(), 200);
    let cookie = first.headers()["set-cookie"].to_str().unwrap().to_owned();
    for part in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let cookie = cookie.split(';').next().unwrap().to_owned();
    assert_eq!(sign_in(secret).await.unwrap().status(), 401, "a link works once");

    let with_cookie = |method: Method, path: &str| {
        client
            .request(method, format!("{}{path}", api.url))
            .header("cookie", &cookie)
    };
    assert_eq!(
        with_cookie(Method::GET, "/v1/me").send().await.unwrap().status(),
        200
    );
    for (origin, expected) in [
        (None, 403),
        (Some("https://evil.example"), 403),
        (Some("null"), 403),
        (Some(api.url.as_str()), 201),
    ] {
        let mut request = with_cookie(Method::POST, "/v1/stream-tickets");
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        assert_eq!(
            request.send().await.unwrap().status(),
            expected,
            "origin {origin:?}"
        );
    }
    let rebound = with_cookie(Method::GET, "/v1/me")
        .header("host", "evil.example")
        .send()
        .await
        .unwrap();
    assert_eq!(rebound.status(), 403, "a name that is not this server's");
    let out = with_cookie(Method::POST, "/v1/sign-out")
        .header("origin", &api.url)
        .send()
        .await
        .unwrap();
    assert_eq!(out.status(), 204);
    assert_eq!(
        with_cookie(Method::GET, "/v1/me").send().await.unwrap().status(),
        401,
        "signed out"
    );
    product.stop();
}

#[tokio::test]
async fn a_revoked_token_opens_nothing() {
    let mut product = Product::with_script(FIX);
    let api = product.start().await;
    let made = api.must_post("/v1/tokens", json!({ "label": "laptop" })).await;
    let other = greenroom_system_tests::api::Api::new(&api.url, made["secret"].as_str().unwrap());
    assert_eq!(other.get("/v1/me").await.0, 200);
    let listed = api.must_get("/v1/tokens").await;
    let labels: Vec<_> = listed["tokens"]
        .as_array()
        .unwrap()
        .iter()
        .map(|token| token["label"].clone())
        .collect();
    assert!(
        labels.contains(&json!("laptop")) && !listed.to_string().contains(made["secret"].as_str().unwrap())
    );
    let path = format!("/v1/tokens/{}", made["id"].as_str().unwrap());
    assert_eq!(api.delete(&path).await.0, 204);
    assert_eq!(other.get("/v1/me").await.0, 401);
    assert_eq!(api.delete(&path).await.0, 404, "it is gone");
    product.stop();
}
