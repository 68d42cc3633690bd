//! What we send, and what our scripted server sends, against the vendors' own OpenAPI schemas.

use crate::peers;
use crate::talk::{FORMATS, everything, prompt};
use greenroom_llm::client::Options;
use greenroom_llm::conversation::{Block, WireFormat};
use greenroom_llm::scripted::player::Player;
use greenroom_llm::scripted::script::Script;
use greenroom_llm::wire;
use greenroom_testkit::model_server::{heard, spoken};
use serde_json::{Value, json};
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;

fn vendor(format: WireFormat) -> &'static str {
    match format {
        WireFormat::AnthropicMessages => "anthropic",
        WireFormat::OpenaiResponses | WireFormat::OpenaiChat => "openai",
    }
}

/// Validates (format, schema, instance) and returns the messages for each; `None` if the specs are not set up.
fn validate(tasks: &[(WireFormat, &str, Value)]) -> Option<Vec<Vec<String>>> {
    let python = peers::find("python/bin/python")?;
    let specs = peers::find("openai.json")?;
    let mut child = Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/validate.py"))
        .arg(specs.parent()?)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines: String = tasks
        .iter()
        .map(|(format, schema, instance)| {
            json!({"vendor": vendor(*format), "schema": schema, "instance": instance}).to_string() + "\n"
        })
        .collect();
    let mut stdin = child.stdin.take().unwrap();
    let writing = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap().unwrap();
    assert!(output.status.success());
    let lines = String::from_utf8(output.stdout).unwrap();
    let answers: Vec<Vec<String>> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(answers.len(), tasks.len());
    Some(answers)
}

fn assert_valid(tasks: &[(WireFormat, &str, Value)]) {
    for ((_, schema, instance), messages) in tasks.iter().zip(validate(tasks).unwrap_or_default()) {
        assert!(messages.is_empty(), "{schema}: {messages:#?}\n{instance:#}");
    }
}

fn request_schema(format: WireFormat) -> &'static str {
    match format {
        WireFormat::AnthropicMessages => "CreateMessageParams",
        WireFormat::OpenaiResponses => "CreateResponse",
        WireFormat::OpenaiChat => "CreateChatCompletionRequest",
    }
}

#[test]
fn requests_are_what_the_vendors_specify() {
    let mut tasks = Vec::new();
    for format in FORMATS {
        for model in ["claude-opus-4-8", "claude-haiku-4-5", "gpt-5.4", "gpt-4.1"] {
            tasks.push((
                format,
                request_schema(format),
                wire::encode(format, &everything(model)),
            ));
        }
        tasks.push((
            format,
            request_schema(format),
            wire::encode(format, &prompt("hello")),
        ));
    }
    assert_valid(&tasks);
}

#[test]
fn the_schemas_can_refuse() {
    let tasks: Vec<_> = FORMATS
        .iter()
        .map(|format| {
            let mut body = wire::encode(*format, &everything("gpt-5.4"));
            let key = if *format == WireFormat::OpenaiResponses {
                "input"
            } else {
                "messages"
            };
            body[key] = json!(7);
            (*format, request_schema(*format), body)
        })
        .collect();
    for messages in validate(&tasks).unwrap_or_default() {
        assert!(!messages.is_empty());
    }
}

#[test]
fn our_server_speaks_as_the_vendors_specify() {
    let script = r#"
        [[script]]
        name = "all"
        [[script.step]]
        think = "Hm."
        say = "I read both."
        call = [{ tool = "read", arguments = { path = "a" } }, { tool = "list" }]
    "#;
    let player = Player::new(Arc::new(Script::parse(script).unwrap()), Options::default());
    let answer = player.answer(&prompt("hello")).unwrap();
    let mut tasks = Vec::new();
    for format in FORMATS {
        let schema = match format {
            WireFormat::AnthropicMessages => "MessageStreamEvent",
            WireFormat::OpenaiResponses => "ResponseStreamEvent",
            WireFormat::OpenaiChat => "CreateChatCompletionStreamResponse",
        };
        for (_, event) in spoken(format, &answer, "demo") {
            // The reference documents pings; the schema leaves them out.
            if event["type"] != "ping" {
                tasks.push((format, schema, event));
            }
        }
    }
    assert_valid(&tasks);
}

#[test]
fn our_server_hears_every_request_we_send() {
    for format in FORMATS {
        let sent = everything("gpt-5.4");
        let understood = heard(format, &wire::encode(format, &sent)).unwrap();
        assert_eq!(understood.messages.len(), sent.messages.len(), "{format:?}");
        let roles = |messages: &[greenroom_llm::conversation::Message]| -> Vec<_> {
            messages.iter().map(|message| message.role).collect()
        };
        assert_eq!(roles(&understood.messages), roles(&sent.messages));
        assert_eq!(understood.tools, sent.tools);
        let errors: Vec<bool> = understood.messages[2]
            .blocks
            .iter()
            .filter_map(|block| match block {
                Block::ToolResult { is_error, .. } => Some(*is_error),
                _ => None,
            })
            .collect();
        assert_eq!(errors, [false, true, false], "{format:?}");
    }
}
