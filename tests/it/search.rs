//! Sessions are found by their titles and by what people asked in them.

use crate::script::{commands, start_with_answer};
use greenroom_system_tests::api::Api;
use greenroom_system_tests::product::Product;
use reqwest::Method;
use serde_json::json;
use std::time::{Duration, Instant};

async fn found(api: &Api, words: &str) -> Vec<String> {
    let url = reqwest::Url::parse_with_params("http://x/v1/sessions", [("words", words)]).unwrap();
    let path = format!("{}?{}", url.path(), url.query().unwrap());
    let list = api.must_get(&path).await;
    let rows = list["sessions"].as_array().unwrap().iter();
    rows.map(|row| row["id"].as_str().unwrap().to_owned()).collect()
}

/// Lists follow the sessions within a moment.
async fn finds(api: &Api, words: &str, expected: &[&str]) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let found = found(api, words).await;
        if found == expected {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{words:?} finds {found:?} instead of {expected:?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn sessions_are_found_by_titles_and_prompts() {
    let script = commands(&[("wait", "while [ ! -e /tmp/go ]; do sleep 0.05; done")]);
    let mut product = Product::with_script(&script);
    let api = start_with_answer(&mut product).await;
    let one = api
        .start_session("answer", "Please wait for the Größe of src/main.rs")
        .await;
    let two = api
        .start_session("answer", "wait\n\nand then mend the flaky login test")
        .await;
    finds(&api, "größe", &[&one]).await;
    finds(&api, "GROSSE", &[]).await;
    finds(&api, "grosse", &[]).await;
    finds(&api, "main.rs", &[&one]).await;
    finds(&api, "mend flak", &[&two]).await;
    finds(&api, "mend größe", &[]).await;
    finds(&api, "wait", &[&two, &one]).await;
    finds(&api, "\"*(", &[]).await;
    for words in [
        "NEAR(mend login)",
        "mend OR größe",
        "text:mend",
        "mend\" AND \"größe",
        "%",
        "x' OR 1=1",
    ] {
        // Nothing of it is understood as anything but words.
        let (status, _) = api
            .get(&format!(
                "/v1/sessions?words={}",
                words.replace(['%', ' ', '"', '\''], "+")
            ))
            .await;
        assert_eq!(status, 200, "{words}");
    }

    let (_, receipt) = api.prompt(&one, "later", "Also describe the zebra").await;
    finds(&api, "zebra", &[&one]).await;
    let path = format!(
        "/v1/sessions/{one}/prompts/{}",
        receipt["prompt_id"].as_str().unwrap()
    );
    let edit = api
        .request(Method::PATCH, &path)
        .json(&json!({"text": "Also describe the quagga"}));
    assert_eq!(api.send(edit).await.0, 204);
    finds(&api, "quagga", &[&one]).await;
    finds(&api, "zebra", &[]).await;
    product.kill();
    let api = product.start().await;
    finds(&api, "quagga", &[&one]).await;
    assert_eq!(api.delete(&path).await.0, 204);
    finds(&api, "quagga", &[]).await;
    let rename = api
        .request(Method::PATCH, &format!("/v1/sessions/{two}"))
        .json(&json!({"title": "Aardvarks"}));
    assert_eq!(api.send(rename).await.0, 200);
    finds(&api, "aardvark", &[&two]).await;
    let said = product.run(&["session", "list", "--search", "aardv"]);
    let said = String::from_utf8_lossy(&said.stdout);
    assert!(said.contains("Aardvarks") && !said.contains("Größe"), "{said}");
    product.stop();
}
