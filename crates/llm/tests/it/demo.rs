//! The built-in demo, played against what the agent's tools would answer, in the sample repository and elsewhere.

use crate::talk::{FORMATS, ask, assistant, client, prompt, quick, text, user};
use greenroom_llm::client::Client;
use greenroom_llm::conversation::{Block, ToolCall};
use greenroom_llm::scripted::script::Script;
use greenroom_testkit::model_server::ModelServer;
use std::sync::Arc;

const SLUG: &str = include_str!("../../../cli/sample/textkit/slug.py");

/// A workspace as plain as the demo needs it.
struct Workspace {
    is_sample: bool,
    slug: String,
    pull_requests: Vec<String>,
}

impl Workspace {
    fn sample() -> Self {
        Self {
            is_sample: true,
            slug: SLUG.to_owned(),
            pull_requests: Vec::new(),
        }
    }

    fn run(&mut self, call: &ToolCall) -> Result<String, String> {
        let arguments = call.arguments()?;
        let argument = |key: &str| arguments[key].as_str().unwrap().to_owned();
        match call.name.as_str() {
            "list" if self.is_sample => Ok("AGENTS.md\nREADME.md\ntests/\ntextkit/\n".to_owned()),
            "list" => Ok("Cargo.toml\nsrc/\n".to_owned()),
            "read" if argument("path") == "textkit/slug.py" => Ok(self.slug.clone()),
            "read" => Ok("import unittest\n".to_owned()),
            "bash" => {
                assert_eq!(argument("command"), "python3 -B -m unittest");
                let is_fixed = self.slug.contains("[^a-z0-9]+");
                Ok(if is_fixed {
                    "Ran 5 tests\n\nOK\n"
                } else {
                    "Ran 5 tests\n\nFAILED (failures=1)\n"
                }
                .to_owned())
            }
            "edit" => {
                let old = argument("old_text");
                assert_eq!(self.slug.matches(&old).count(), 1, "the edit is unique");
                self.slug = self.slug.replace(&old, &argument("new_text"));
                Ok("edited".to_owned())
            }
            "open_pr" => {
                self.pull_requests.push(argument("title"));
                Ok("opened pull request 1".to_owned())
            }
            other => Err(format!("no tool {other}")),
        }
    }
}

/// Runs one turn and returns the last words.
async fn turn(
    client: &Client,
    request: &mut greenroom_llm::conversation::ModelRequest,
    workspace: &mut Workspace,
) -> String {
    for _ in 0..20 {
        let heard = ask(client, request.clone()).await.unwrap();
        let calls: Vec<ToolCall> = heard.calls().into_iter().cloned().collect();
        let last = heard.text();
        request.messages.push(assistant(heard.blocks));
        if calls.is_empty() {
            return last;
        }
        let results = calls.iter().map(|call| {
            let (words, is_error) = match workspace.run(call) {
                Ok(words) => (words, false),
                Err(words) => (words, true),
            };
            Block::ToolResult {
                call_id: call.id.clone(),
                content: vec![text(&words)],
                is_error,
            }
        });
        request.messages.push(user(results.collect()));
    }
    panic!("the demo does not end");
}

#[tokio::test]
async fn the_demo_fixes_the_sample_in_every_format_and_says_what_it_is_afterwards() {
    let server = ModelServer::start(Script::demo().without_delays()).await.unwrap();
    let mut clients: Vec<Client> = FORMATS
        .iter()
        .map(|format| client(server.endpoint(*format)))
        .collect();
    clients.push(Client::scripted(
        Arc::new(Script::demo().without_delays()),
        quick(),
    ));
    for client in clients {
        let mut workspace = Workspace::sample();
        let mut request = prompt("Make the tests pass, please.");
        let last = turn(&client, &mut request, &mut workspace).await;
        assert!(last.starts_with("Done."), "{last}");
        assert_eq!(workspace.slug, SLUG.replace("[^a-z0-9]", "[^a-z0-9]+"));
        assert_eq!(workspace.pull_requests, ["Collapse runs of separators in slugs"]);

        request.messages.push(user(vec![text("Now write a web server.")]));
        let last = turn(&client, &mut request, &mut workspace).await;
        assert!(
            last.contains("nothing left for me to do") && last.contains("scripted demo model"),
            "{last}"
        );
        assert_eq!(workspace.pull_requests.len(), 1);
    }
}

#[tokio::test]
async fn elsewhere_the_demo_touches_nothing_and_says_why() {
    let client = Client::scripted(Arc::new(Script::demo().without_delays()), quick());
    let mut workspace = Workspace {
        is_sample: false,
        ..Workspace::sample()
    };
    let last = turn(&client, &mut prompt("Fix it."), &mut workspace).await;
    assert!(
        last.contains("not the sample repository") && last.contains("scripted demo model"),
        "{last}"
    );
    assert_eq!(workspace.slug, SLUG);
}

#[tokio::test]
async fn without_python_the_demo_changes_nothing() {
    let client = Client::scripted(Arc::new(Script::demo().without_delays()), quick());
    let mut request = prompt("Fix it.");
    let mut workspace = Workspace::sample();
    for _ in 0..3 {
        let heard = ask(&client, request.clone()).await.unwrap();
        let results = heard.calls().into_iter().map(|call| Block::ToolResult {
            call_id: call.id.clone(),
            content: vec![text(&match call.name.as_str() {
                "bash" => "bash: python3: command not found".to_owned(),
                _ => workspace.run(call).unwrap(),
            })],
            is_error: call.name == "bash",
        });
        let results = user(results.collect());
        request
            .messages
            .extend([assistant(heard.blocks.clone()), results]);
    }
    let heard = ask(&client, request).await.unwrap();
    assert!(heard.calls().is_empty());
    assert!(
        heard.text().contains("python3: command not found"),
        "{}",
        heard.text()
    );
}
