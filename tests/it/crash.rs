//! kill -9 in the middle of a turn: after the next start the session goes on, or says visibly why not. Nothing accepted is
//! lost, nothing is shown twice.

use crate::script::{add, assert_completed, commands, start_with_answer};
use greenroom_protocol::guest::Hello;
use greenroom_protocol::guest::call::{Call, Exec};
use greenroom_protocol::guest::frame::{FrameKind, encode_header};
use greenroom_system_tests::api::{assert_gapless, of_type};
use greenroom_system_tests::product::Product;
use greenroom_system_tests::repo;
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// A command that is at work while the server dies and comes back. What it prints differs from how it is written.
const WORKING: &str = r#"
[[script]]
name = "work"
prompt_contains = "work"
[[script.step]]
say = "First I write a file."
[[script.step.call]]
tool = "write"
arguments = { path = "kept.txt", content = "kept\n" }
[[script.step]]
[[script.step.call]]
tool = "bash"
arguments = { command = "echo once >> count.txt; echo be''gun; sleep 3; echo fin''ished" }
[[script.step]]
expect_result_contains = "begun\nfinished\n[exit code 0]"
[[script.step.call]]
tool = "bash"
arguments = { command = "echo ran $(wc -l < count.txt) time" }
[[script.step]]
expect_result_contains = "ran 1 time"
say = "The command ran on."

[[script]]
name = "next"
prompt_contains = "hello"
[[script.step]]
say = "Hello again."
"#;

fn texts<'a>(events: &'a [Value], kind: &str) -> Vec<&'a str> {
    of_type(events, "item.completed")
        .into_iter()
        .filter(|event| event["item"]["kind"] == kind)
        .map(|event| event["item"]["text"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn a_killed_server_goes_on_with_the_turn() {
    let mut product = Product::with_script(WORKING);
    let api = start_with_answer(&mut product).await;
    let session = api.create_session("answer").await;
    let mut stream = api.stream(&session, 0).await;
    for (key, text) in [("one", "Please work."), ("next", "hello")] {
        assert_eq!(api.prompt(&session, key, text).await.0, 202);
    }
    stream
        .until(|frame| frame["text"].as_str().is_some_and(|text| text.contains("begun")))
        .await;
    let before = api.events(&session).await;
    product.kill();

    let api = product.start().await;
    let events = api.wait_for_turns(&session, 2).await;
    assert_gapless(&events);
    assert_eq!(
        events[..before.len()],
        before[..],
        "what was shown stays as it was"
    );
    assert_eq!(of_type(&events, "turn.resumed").len(), 1);
    let outcomes: Vec<_> = of_type(&events, "turn.completed")
        .into_iter()
        .map(|event| event["outcome"]["result"].as_str().unwrap())
        .collect();
    assert_eq!(outcomes, ["completed", "completed"], "{events:#?}");
    let bash: Vec<_> = of_type(&events, "item.completed")
        .into_iter()
        .filter(|event| event["item"]["tool"] == "bash")
        .map(|event| {
            let item = &event["item"];
            (item["status"].as_str().unwrap(), item["output"].as_str().unwrap())
        })
        .collect();
    assert_eq!(
        bash,
        [
            ("succeeded", "begun\nfinished\n[exit code 0]"),
            ("succeeded", "ran 1 time\n[exit code 0]")
        ],
        "the command went on without its server, and its result is shown once"
    );
    assert_eq!(
        texts(&events, "message"),
        ["First I write a file.", "The command ran on.", "Hello again."]
    );
    let pushed = of_type(&events, "change.pushed");
    assert_eq!(
        pushed.last().unwrap()["files"],
        serde_json::json!(["count.txt", "kept.txt"])
    );
    product.stop();
}

#[tokio::test]
async fn no_accepted_prompt_is_lost_by_kills_at_random_moments() {
    let script = r#"
[[script]]
name = "say"
prompt_matches = "prompt (\\d+)"
[[script.step]]
say = "Answering."
[[script.step.call]]
tool = "bash"
arguments = { command = "echo again" }
[[script.step]]
say = "Answered."
"#;
    let mut product = Product::with_script(script);
    let mut api = start_with_answer(&mut product).await;
    let session = api.start_session("answer", "prompt 0").await;
    let mut accepted = 1;
    for round in 1..=6_u64 {
        // No clock decides: the round's own number of prompts is sent, then the process is killed, whatever it does.
        for part in 0..round {
            let key = format!("{round}-{part}");
            if api
                .prompt(&session, &key, &format!("prompt {round}{part}"))
                .await
                .0
                == 202
            {
                accepted += 1;
            }
        }
        product.kill();
        api = product.start().await;
    }
    let events = api.wait_for_turns(&session, accepted).await;
    assert_gapless(&events);
    assert_eq!(of_type(&events, "prompt.queued").len(), accepted);
    let ended = of_type(&events, "turn.completed");
    let mut prompts: Vec<_> = ended
        .iter()
        .map(|event| event["prompt_id"].as_str().unwrap())
        .collect();
    prompts.sort_unstable();
    prompts.dedup();
    assert_eq!(prompts.len(), accepted, "each prompt ended exactly once");
    for event in ended {
        assert_eq!(event["outcome"]["result"], "completed", "{event}");
    }
    product.stop();
}

#[tokio::test]
async fn work_of_a_turn_that_was_cut_at_its_very_end_still_reaches_the_forge() {
    let script = r#"
[[script]]
name = "work"
prompt_contains = "work"
[[script.step]]
[[script.step.call]]
tool = "write"
arguments = { path = "late.txt", content = "late\n" }
[[script.step]]
say = "That is all."
"#;
    let mut product = Product::with_script(script);
    let api = start_with_answer(&mut product).await;
    let session = api.create_session("answer").await;
    let mut stream = api.stream(&session, 0).await;
    assert_eq!(api.prompt(&session, "one", "Please work.").await.0, 202);
    // The last answer is on disk; committing and pushing come behind it.
    stream
        .until(|frame| {
            frame["event"]["type"] == "item.completed" && frame["event"]["item"]["text"] == "That is all."
        })
        .await;
    product.kill();

    let api = product.start().await;
    let events = api.wait_for_turns(&session, 1).await;
    assert_eq!(
        of_type(&events, "turn.completed")[0]["outcome"]["result"],
        "completed"
    );
    let pushed = of_type(&events, "change.pushed");
    assert_eq!(pushed.len(), 1, "the work is on the forge, once: {events:#?}");
    assert_eq!(pushed[0]["files"], serde_json::json!(["late.txt"]));
    product.stop();
}

#[tokio::test]
async fn lock_files_of_a_killed_git_hold_nothing_up() {
    let script = r#"
[[script]]
name = "lock"
prompt_contains = "lock"
[[script.step]]
[[script.step.call]]
tool = "bash"
arguments = { command = "touch .git/index.lock .git/config.lock .git/HEAD.lock; echo work > work.txt" }
[[script.step]]
say = "Locked."
"#;
    let mut product = Product::with_script(script);
    let api = start_with_answer(&mut product).await;
    let session = api.start_session("answer", "lock it").await;
    let events = api.wait_for_turns(&session, 1).await;
    let pushed = of_type(&events, "change.pushed");
    assert_eq!(
        pushed.len(),
        1,
        "the work reached the forge all the same: {events:#?}"
    );
    assert_eq!(pushed[0]["files"], serde_json::json!(["work.txt"]));
    product.stop();
}

/// A command that prints before and after its link breaks, and one more.
const CUT_OFF: &str = r#"
[[script]]
name = "work"
prompt_contains = "work"
[[script.step]]
[[script.step.call]]
tool = "bash"
arguments = { command = "echo once >> count.txt; echo be''gun; until test -e go; do sleep 0.05; done; echo fin''ished" }
[[script.step]]
expect_result_contains = "begun\nfinished\n[exit code 0]"
[[script.step.call]]
tool = "bash"
arguments = { command = "echo ran $(wc -l < count.txt) time" }
[[script.step]]
expect_result_contains = "ran 1 time"
say = "The command ran on."
"#;

#[tokio::test]
async fn a_broken_link_is_attached_again_in_the_same_turn() {
    let mut product = Product::with_script(CUT_OFF);
    let api = start_with_answer(&mut product).await;
    let session = api.create_session("answer").await;
    let mut stream = api.stream(&session, 0).await;
    assert_eq!(api.prompt(&session, "one", "Please work.").await.0, 202);
    stream
        .until(|frame| frame["text"].as_str().is_some_and(|text| text.contains("begun")))
        .await;
    let events = api.events(&session).await;
    let sandbox = of_type(&events, "sandbox.state_changed").last().unwrap()["sandbox_id"]
        .as_str()
        .unwrap()
        .to_owned();
    // Several times, because the second link may break as well.
    for round in 0..3 {
        if round > 0 {
            api.wait_for(&session, "the link is attached again", |events| {
                let ready = of_type(events, "sandbox.state_changed")
                    .into_iter()
                    .filter(|event| event["state"] == "ready")
                    .count();
                ready > round
            })
            .await;
        }
        let program = if round == 2 { "touch" } else { "true" };
        break_link(&product, &sandbox, &[program, "/workspace/go"]);
    }
    let events = api.wait_for_turns(&session, 1).await;
    assert_gapless(&events);
    assert_eq!(
        of_type(&events, "turn.completed")[0]["outcome"]["result"],
        "completed",
        "{events:#?}"
    );
    let bash: Vec<_> = of_type(&events, "item.completed")
        .into_iter()
        .filter(|event| event["item"]["tool"] == "bash")
        .map(|event| event["item"]["output"].as_str().unwrap())
        .collect();
    assert_eq!(
        bash,
        ["begun\nfinished\n[exit code 0]", "ran 1 time\n[exit code 0]"]
    );
    assert!(
        of_type(&events, "sandbox.state_changed")
            .into_iter()
            .all(|event| event["state"] != "lost" && event["sandbox_id"] == sandbox.as_str())
    );
    product.stop();
}

/// Takes the link to a sandbox's guest away from the server, as a newer host does, starts `program` in it, and leaves.
fn break_link(product: &Product, sandbox: &str, program: &[&str]) {
    let path = product
        .data_dir()
        .join("sandboxes/sb")
        .join(sandbox)
        .join("guest.sock");
    let frame = |kind, stream, payload: &[u8]| {
        let header = encode_header(kind, stream, payload.len());
        [header.as_slice(), payload].concat()
    };
    let start = Call::Exec(Exec {
        argv: program.iter().map(|part| (*part).to_owned()).collect(),
        is_background: true,
        ..Exec::default()
    });
    let both = [
        frame(FrameKind::Hello, 0, &serde_json::to_vec(&Hello::OURS).unwrap()),
        frame(FrameKind::Call, 1, &serde_json::to_vec(&start).unwrap()),
    ];
    let mut link = UnixStream::connect(path).unwrap();
    link.write_all(&both.concat()).unwrap();
    let mut seen = String::new();
    while !seen.contains("started") {
        let mut bytes = [0; 4096];
        let len = link.read(&mut bytes).unwrap();
        // The server may be back before the answer is written; the call came with the hello and is done all the same.
        if len == 0 {
            break;
        }
        seen.push_str(&String::from_utf8_lossy(&bytes[..len]));
    }
    assert!(seen.contains("generation"), "the guest took no link: {seen}");
}

#[tokio::test]
async fn who_sees_a_session_and_that_it_works_is_known_after_a_kill_right_behind_the_answer() {
    let mut product = Product::with_script(&commands(&[("wait", "sleep 600"), ("show", "echo shown")]));
    let source = repo::with_files(product.root(), "shop", &[("README.md", "A shop.\n")]);
    let api = product.start().await;
    add(&api, "shop", &source).await;
    let (ada, _) = api.add_person("Ada").await;
    let (grace, _) = api.add_person("Grace").await;
    let session = ada.start_session("shop", "wait").await;
    let path = format!("/v1/sessions/{session}");
    assert_eq!(ada.prompt(&session, "next", "show").await.0, 202);
    let stopped = ada
        .post(&format!("{path}/stop?pauses_queue=true"), json!({}))
        .await;
    assert_eq!(stopped.0, 202);
    ada.wait_for_turns(&session, 1).await;
    assert_eq!(
        grace.must_get("/v1/sessions").await["sessions"][0]["state"],
        "idle"
    );

    // Both change what the catalog says of the session; neither is seen by opening it.
    let (status, row) = ada.patch(&path, json!({ "is_queue_paused": false })).await;
    assert_eq!((status, row["state"].as_str()), (200, Some("running")), "{row}");
    let quiet = format!("/v1/sessions/{}", ada.create_session("shop").await);
    for change in [json!({ "title": "Quiet" }), json!({ "access": "members" })] {
        assert_eq!(ada.patch(&quiet, change).await.0, 200);
    }
    product.kill();
    let api = product.start().await;
    let (ada, grace) = (api.with_token(&ada.token), api.with_token(&grace.token));
    let seen = grace.must_get("/v1/sessions").await;
    assert_eq!(seen["sessions"].as_array().unwrap().len(), 1, "{seen}");
    let deadline = Instant::now() + Duration::from_secs(40);
    loop {
        let row = grace.must_get("/v1/sessions").await["sessions"][0].take();
        if row["state"] == "idle" {
            break;
        }
        assert!(
            Instant::now() < deadline,
            "the turn does not go on: {row}\n{}",
            product.log()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Its command may have been cut, which the model is told.
    let events = ada.events(&session).await;
    assert_completed(&events);
    product.stop();
}
