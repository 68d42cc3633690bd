//! Scripts that the scripted model plays in these tests, and the repository they work on.

use greenroom_system_tests::api::Api;
use greenroom_system_tests::product::Product;
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
    api.must_post("/v1/repositories", json!({ "name": name, "source": source }))
        .await
}
