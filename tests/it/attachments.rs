//! Images of prompts and of tools' results: kept once, by what is in them, and there for the model and for people as long as the session.

use crate::links::link;
use crate::script::add;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use greenroom_llm::scripted::script::Script;
use greenroom_system_tests::api::{Api, of_type};
use greenroom_system_tests::product::Product;
use greenroom_system_tests::repo;
use greenroom_testkit::model_server::ModelServer;
use reqwest::Method;
use serde_json::{Value, json};
use std::process::Command;

const SCRIPT: &str = r#"
[[script]]
name = "look"
prompt_contains = "look"
[[script.step]]
[[script.step.call]]
tool = "read"
arguments = { path = "shot.gif" }
[[script.step]]
[[script.step.call]]
tool = "bash"
arguments = { command = "printf 'all is well' > report.txt" }
[[script.step]]
[[script.step.call]]
tool = "share_file"
arguments = { path = "report.txt", title = "How it went" }
[[script.step]]
say = "I saw it."

[[script]]
name = "again"
prompt_contains = "again"
[[script.step]]
say = "I still see it."
"#;

/// What the repository has, a picture by its first bytes.
const IN_REPOSITORY: &str = "GIF89a, as far as anybody looks: shown by the read tool;";

/// What looks like a PNG to whoever does not look at the pixels.
pub fn picture(what: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, data) in [(b"IHDR", [8; 13].as_slice()), (b"IDAT", what), (b"IEND", &[])] {
        bytes.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
        bytes.extend(kind);
        bytes.extend(data);
        bytes.extend([0; 4]);
    }
    bytes
}

fn attached(bytes: &[u8], media_type: &str) -> Value {
    json!({ "media_type": media_type, "data_base64": STANDARD.encode(bytes) })
}

async fn prompt(api: &Api, session: &str, key: &str, text: &str, images: Value) -> (u16, Value) {
    let request = api
        .request(Method::POST, &format!("/v1/sessions/{session}/prompts"))
        .header("idempotency-key", key)
        .json(&json!({ "text": text, "images": images, "model": "wire/some-model" }));
    api.send(request).await
}

async fn file(api: &Api, session: &str, digest: &str) -> (u16, String, Vec<u8>) {
    let answer = api
        .request(Method::GET, &format!("/v1/sessions/{session}/blobs/{digest}"))
        .send()
        .await
        .unwrap();
    let status = answer.status().as_u16();
    let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
    (status, kind, answer.bytes().await.unwrap().to_vec())
}

fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

#[tokio::test]
async fn images_are_kept_once_and_stay_for_the_model_and_for_people() {
    let model = ModelServer::start(Script::parse(SCRIPT).unwrap()).await.unwrap();
    let provider = format!(
        "\n[[providers]]\nid = \"wire\"\nkind = \"anthropic-messages\"\nbase_url = \"{}\"\napi_key_env = \"WIRE_KEY\"\nmodels = [\"some-model\"]\n",
        model.url()
    );
    let mut product = Product::with_config(SCRIPT, &provider);
    product.set_env("WIRE_KEY", "sk-test-key");
    let source = repo::with_files(product.root(), "shop", &[("shot.gif", IN_REPOSITORY)]);
    let api = product.start().await;
    add(&api, "shop", &source).await;
    let session = api.create_session("shop").await;

    let (one, two) = (picture(&b"one".repeat(9_000)), picture(&b"two".repeat(9_000)));
    let images = json!([
        attached(&one, "image/png"),
        attached(&two, "image/png"),
        attached(&one, "image/png")
    ]);
    let (status, receipt) = prompt(&api, &session, "look", "Please look.", images.clone()).await;
    assert_eq!(status, 202, "{receipt}");
    let (_, again) = prompt(&api, &session, "look", "Please look.", images).await;
    assert_eq!(again, receipt, "a repetition is answered alike");
    let events = api.wait_for_turns(&session, 1).await;
    let end = &of_type(&events, "turn.completed")[0]["outcome"];
    assert_eq!(end["result"], "completed", "{end}");

    // Events name files, and the files are there.
    let kept = of_type(&events, "prompt.queued")[0]["prompt"]["images"].clone();
    let digest = |at: usize| kept[at]["digest"].as_str().unwrap().to_owned();
    assert_eq!(digest(0), digest(2));
    assert_eq!(kept[1]["size_bytes"], two.len());
    assert!(kept[0].get("data_base64").is_none(), "{kept}");
    for (at, bytes) in [(0, &one), (1, &two)] {
        let found = file(&api, &session, &digest(at)).await;
        assert_eq!(found, (200, "image/png".to_owned(), bytes.clone()));
    }
    let none = format!("sha256:{}", "0".repeat(64));
    for name in [none.as_str(), "sha256:1", "x", "..%2f..%2fetc"] {
        let (status, _, problem) = file(&api, &session, name).await;
        let problem: Value = serde_json::from_slice(&problem).unwrap();
        assert_eq!(
            (status, problem["code"].as_str()),
            (404, Some("blob_unknown")),
            "{name}"
        );
    }
    let (_, secret) = link(&api, &session, json!({ "kind": "share" })).await;
    let guest = api.with_token(&secret);
    assert_eq!(
        file(&guest, &session, &digest(0)).await.0,
        200,
        "whoever may watch"
    );
    let (bob, _) = api.add_person("Bob").await;
    let other = bob.create_session("shop").await;
    assert_eq!(
        file(&bob, &other, &digest(0)).await.0,
        404,
        "files are their session's alone"
    );

    // What the agent shared is an item, and a file too.
    let shared: Vec<_> = of_type(&events, "item.completed")
        .into_iter()
        .map(|event| &event["item"])
        .filter(|item| item["kind"] == "artifact")
        .collect();
    assert_eq!(shared.len(), 1);
    assert_eq!(
        (&shared[0]["name"], &shared[0]["title"]),
        (&json!("report.txt"), &json!("How it went"))
    );
    let report = shared[0]["digest"].as_str().unwrap();
    let (status, kind, bytes) = file(&guest, &session, report).await;
    assert_eq!(
        (status, kind.as_str(), bytes.as_slice()),
        (200, "text/plain; charset=utf-8", b"all is well".as_slice())
    );

    // The model was shown them, and the one that a tool read.
    let asked = model.requests();
    let (first, second) = (asked[0].body.to_string(), asked[1].body.to_string());
    let (one_base64, gif_base64) = (STANDARD.encode(&one), STANDARD.encode(IN_REPOSITORY));
    assert_eq!(
        (count(&first, &one_base64), count(&first, &STANDARD.encode(&two))),
        (2, 1)
    );
    assert_eq!((count(&second, &one_base64), count(&second, &gif_base64)), (2, 1));

    // Neither is written twice, or in another form.
    product.kill();
    let holds = |what: &[u8]| {
        let mut places = 0;
        for (path, bytes) in product.all_files() {
            if path.to_string_lossy().contains("sandboxes") {
                continue;
            }
            places += usize::from(bytes.windows(what.len()).any(|window| window == what));
        }
        places
    };
    assert_eq!(holds(&one_base64.as_bytes()[..1_000]), 0);
    // In pages of the database.
    assert!(holds(&one[100..1_100]) >= 1);

    // After kill -9 the model is shown the same again, from disk.
    let api = product.start().await;
    assert_eq!(
        prompt(&api, &session, "again", "And again?", json!([])).await.0,
        202
    );
    let events = api.wait_for_turns(&session, 2).await;
    assert_eq!(
        of_type(&events, "turn.completed")[1]["outcome"]["result"],
        "completed"
    );
    let later = model.requests().pop().unwrap().body.to_string();
    assert_eq!((count(&later, &one_base64), count(&later, &gif_base64)), (2, 1));

    // A fork has them, whatever becomes of the session.
    let (status, forked) = api
        .post(
            &format!("/v1/sessions/{session}/forks"),
            json!({ "model": "wire/some-model" }),
        )
        .await;
    assert_eq!(status, 201, "{forked}");
    let fork = forked["sessions"][0]["session"]["id"]
        .as_str()
        .unwrap()
        .to_owned();

    // So has an archive.
    let archive = product.root().join("one.tar.gz");
    let name = archive.to_str().unwrap();
    let exported = product.run(&["session", "export", &session, "--output", name]);
    assert!(exported.status.success(), "{exported:?}");
    let said = String::from_utf8_lossy(&exported.stdout).into_owned();
    assert!(said.contains("and 4 files"), "{said}");
    let listed = Command::new("tar").args(["-tzf", name]).output().unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert_eq!(count(&listed, ".png\n"), 3, "{listed}");
    assert_eq!(count(&listed, "/report.txt\n"), 1, "{listed}");

    let path = format!("/v1/sessions/{session}");
    assert_eq!(api.patch(&path, json!({ "is_archived": true })).await.0, 200);
    assert_eq!(api.delete(&path).await.0, 204);
    assert_eq!(file(&api, &session, &digest(0)).await.0, 404);
    assert_eq!(file(&api, &fork, &digest(0)).await.2, one);
    assert_eq!(file(&api, &fork, report).await.2, b"all is well");
    assert_eq!(prompt(&api, &fork, "again", "And again?", json!([])).await.0, 202);
    api.wait_for_turns(&fork, 3).await;
    let later = model.requests().pop().unwrap().body.to_string();
    assert_eq!((count(&later, &one_base64), count(&later, &gif_base64)), (2, 1));
    product.stop();
}

#[tokio::test]
async fn what_is_no_image_is_refused_before_anything_is_kept() {
    let mut product = Product::with_script(SCRIPT);
    let source = repo::with_files(product.root(), "shop", &[("a", "a\n")]);
    let api = product.start().await;
    add(&api, "shop", &source).await;
    let session = api.create_session("shop").await;
    let one = picture(b"one");
    let large = picture(&[0; 5 * 1024 * 1024]);
    let fitting = picture(&[0; 4_250_000]);
    for (images, status, code) in [
        (
            json!([attached(b"no picture", "image/png")]),
            422,
            "image_invalid",
        ),
        (json!([attached(&one, "image/gif")]), 422, "image_invalid"),
        (
            json!([attached(&one, "text/html")]),
            422,
            "image_type_unsupported",
        ),
        (
            json!([{ "media_type": "image/png", "data_base64": "%%%" }]),
            422,
            "image_invalid",
        ),
        (json!(vec![attached(&one, "image/png"); 9]), 422, "image_too_many"),
        (json!([attached(&large, "image/png")]), 413, "image_too_large"),
        (
            json!(vec![attached(&fitting, "image/png"); 5]),
            413,
            "image_too_large",
        ),
        (json!([attached(&one[..40], "image/png")]), 422, "image_invalid"),
        (
            json!([{ "digest": format!("sha256:{}", "0".repeat(64)), "media_type": "image/png" }]),
            422,
            "body_invalid",
        ),
    ] {
        let request = api
            .request(Method::POST, &format!("/v1/sessions/{session}/prompts"))
            .header("idempotency-key", format!("wrong-{code}"))
            .json(&json!({ "text": "again", "images": images }));
        let (found, problem) = api.send(request).await;
        assert_eq!(
            (found, problem["code"].as_str()),
            (status, Some(code)),
            "{problem}"
        );
    }
    assert_eq!(of_type(&api.events(&session).await, "prompt.queued").len(), 0);

    // The command line says so before it sends anything, and sends what is right.
    let root = product.root().to_owned();
    let at = |name: &str, bytes: &[u8]| {
        std::fs::write(root.join(name), bytes).unwrap();
        root.join(name).to_str().unwrap().to_owned()
    };
    let (fine, text) = (at("one.png", &one), at("text.png", b"text"));
    for (path, part) in [
        (text.as_str(), "no image of a kind"),
        ("/none.png", "cannot be read"),
        ("/tmp", "cannot be read"),
    ] {
        let out = product.run(&["session", "prompt", &session, "again", "--image", path]);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success() && said.contains(part), "{said}");
    }
    let out = product.run(&["session", "prompt", &session, "again", "--image", &fine]);
    assert!(out.status.success(), "{out:?}");
    let shown = product.run(&["session", "show", &session]);
    assert!(
        String::from_utf8_lossy(&shown.stdout).contains("(1 image)"),
        "{shown:?}"
    );
    product.stop();
}
