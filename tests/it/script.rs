//! Scripts that the scripted model plays in these tests, and the repository they work on.

use greenroom_system_tests::api::{Api, of_type, pretty};
use greenroom_system_tests::product::{Product, give_to_owner_of_parent};
use greenroom_system_tests::repo;
use serde_json::{Value, json};
use std::path::PathBuf;

/// A script that fixes a number and opens a pull request.
pub const FIX: &str = r#"
[[script]]
name = "fix"
prompt_contains = "fix"

[[script.step]]
say = "I will look at the file."
[[script.step.call]]
tool = "read"
arguments = { path = "answer.txt" }

[[script.step]]
expect_result_contains = "41"
[[script.step.call]]
tool = "edit"
arguments = { path = "answer.txt", old_text = "41", new_text = "42" }

[[script.step]]
[[script.step.call]]
tool = "bash"
arguments = { command = "sh check.sh" }

[[script.step]]
expect_result_contains = "correct"
[[script.step.call]]
tool = "open_pr"
arguments = { title = "Answer with 42", body = "The answer was off by one." }

[[script.step]]
say = "The answer is 42 now, and a pull request is open."
"#;

/// The repository that [`FIX`] works on.
pub fn answer_repository(product: &Product) -> PathBuf {
    repo::with_files(
        product.root(),
        "answer",
        &[
            ("answer.txt", "41\n"),
            ("check.sh", "test \"$(cat answer.txt)\" = 42 && echo correct\n"),
            ("AGENTS.md", "Run `sh check.sh` before you open a pull request.\n"),
        ],
    )
}

/// Adds a repository to the forge.
pub async fn add(api: &Api, name: &str, source: &std::path::Path) -> Value {
    give_to_owner_of_parent(source);
    api.must_post("/v1/repositories", json!({ "name": name, "source": source }))
        .await
}

/// Starts the product and adds the repository that [`FIX`] works on.
pub async fn start_with_answer(product: &mut Product) -> Api {
    let source = answer_repository(product);
    let api = product.start().await;
    add(&api, "answer", &source).await;
    api
}

/// A script that plays, for a prompt with the word, the command in bash.
pub fn commands(pairs: &[(&str, &str)]) -> String {
    pairs
        .iter()
        .map(|(word, command)| {
            format!(
                "[[script]]\nname = {word:?}\nprompt_contains = {word:?}\n[[script.step]]\n[[script.step.call]]\n\
                 tool = \"bash\"\narguments = {{ command = {command:?} }}\n[[script.step]]\nsay = \"Done.\"\n\n"
            )
        })
        .collect()
}

/// What the tool calls of a session answered, in order.
pub fn outputs(events: &[Value]) -> Vec<String> {
    of_type(events, "item.completed")
        .into_iter()
        .filter(|event| event["item"]["kind"] == "tool_call")
        .map(|event| event["item"]["output"].as_str().unwrap_or_default().to_owned())
        .collect()
}

/// Whether the agent began a command.
pub fn has_running_command(events: &[Value]) -> bool {
    of_type(events, "item.started")
        .into_iter()
        .any(|event| event["item"]["tool"] == "bash")
}

/// Asserts that the last turn completed.
#[track_caller]
pub fn assert_completed(events: &[Value]) {
    let end = last_outcome(events);
    assert_eq!(end["result"], "completed", "{}", pretty(events));
}

/// How the last turn ended.
#[track_caller]
pub fn last_outcome(events: &[Value]) -> &Value {
    let ends = of_type(events, "turn.completed");
    &ends.last().expect("an ended turn")["outcome"]
}
