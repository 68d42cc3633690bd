//! The whole journey with a model behind a real socket, in each of the three wire formats.

use crate::script::{FIX, add, answer_repository};
use greenroom_llm::scripted::script::Script;
use greenroom_system_tests::api::of_type;
use greenroom_system_tests::product::Product;
use greenroom_testkit::model_server::{Behaviour, ModelServer};
use reqwest::Method;
use serde_json::json;

/// Where the server finds the model's key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Key {
    InEnvironment,
    InSecretStore,
}

async fn journey(kind: &str, path: &str, key: Key) {
    let behaviour = Behaviour {
        required_key: Some("sk-test-key".to_owned()),
        ..Behaviour::default()
    };
    let script = Script::parse(FIX).expect("the script is right");
    let model = ModelServer::start_with(script, behaviour)
        .await
        .expect("start the model server");
    let key_option = match key {
        Key::InEnvironment => "api_key_env",
        Key::InSecretStore => "api_key_secret",
    };
    let provider = format!(
        "\n[[providers]]\nid = \"wire\"\nkind = \"{kind}\"\nbase_url = \"{}\"\n{key_option} = \"WIRE_KEY\"\nmodels = [\"some-model\"]\n",
        model.url()
    );
    let mut product = Product::with_config(FIX, &provider);
    if key == Key::InEnvironment {
        product.set_env("WIRE_KEY", "sk-test-key");
    }
    let source = answer_repository(&product);
    let api = product.start().await;
    if key == Key::InSecretStore {
        let put = api
            .request(Method::PUT, "/v1/secrets/WIRE_KEY")
            .json(&json!({ "value": "sk-test-key" }));
        assert_eq!(api.send(put).await.0, 204);
        assert_eq!(
            api.must_get("/v1/secrets").await,
            json!({ "names": ["WIRE_KEY"] }),
            "names, never values"
        );
    }
    add(&api, "answer", &source).await;
    let body =
        json!({ "repository": "answer", "prompt": "Please fix the answer.", "model": "wire/some-model" });
    let created = api.must_post("/v1/sessions", body).await;
    let session = created["session"]["id"].as_str().unwrap().to_owned();
    let events = api.wait_for_turns(&session, 1).await;
    let end = of_type(&events, "turn.completed")[0];
    assert_eq!(end["outcome"]["result"], "completed", "{kind}: {end}");
    assert_eq!(
        of_type(&events, "turn.started")[0]["is_scripted"],
        false,
        "over HTTP it is a model like any other"
    );
    assert!(
        end["usage"]["output_tokens"]
            .as_u64()
            .is_some_and(|tokens| tokens > 0),
        "{kind}: usage is counted: {end}"
    );
    assert_eq!(
        api.must_get("/v1/repositories/answer/pull-requests/1").await["title"],
        "Answer with 42"
    );
    let requests = model.requests();
    assert!(requests.len() >= 5, "one request per step");
    assert!(
        requests.iter().all(|request| request.path.ends_with(path)),
        "{kind}"
    );
    // The key goes to the provider and nowhere else.
    product.stop();
    for (file, bytes) in product.all_files() {
        let has_key = bytes.windows(11).any(|window| window == b"sk-test-key");
        assert!(!has_key, "{} holds the model's key", file.display());
    }
}

#[tokio::test]
async fn anthropic_messages() {
    journey("anthropic-messages", "/v1/messages", Key::InEnvironment).await;
}

#[tokio::test]
async fn openai_responses() {
    journey("openai-responses", "/responses", Key::InEnvironment).await;
}

#[tokio::test]
async fn openai_chat() {
    journey("openai-chat", "/chat/completions", Key::InSecretStore).await;
}
