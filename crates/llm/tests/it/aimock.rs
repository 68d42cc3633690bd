//! The client against aimock, a model server of other people (npm `@copilotkit/aimock`).

use crate::peers;
use crate::talk::{FORMATS, ask, assistant, client, prompt, text, user};
use greenroom_llm::conversation::{Block, StopReason, ToolSpec, WireFormat};
use greenroom_llm::provider::{Endpoint, KeySource};
use greenroom_stdx::secret::Secret;
use serde_json::json;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A running aimock; dropping it ends the process.
struct Aimock {
    child: Child,
    url: String,
}

impl Aimock {
    fn start(directory: &Path) -> Self {
        let mut child = Command::new("node")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/aimock.mjs"))
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut url)
            .unwrap();
        Self {
            child,
            url: url.trim().to_owned(),
        }
    }
}

impl Drop for Aimock {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_tool_loop_runs_in_every_format() {
    let Some(directory) = peers::find("aimock/node_modules") else {
        return;
    };
    let aimock = Aimock::start(directory.parent().unwrap());
    for format in FORMATS {
        let key = KeySource::from_fn("the test", || Some(Secret::new("sk-mock")));
        let client = client(Endpoint::new(format, &aimock.url, key));
        let mut request = prompt("weather in two cities");
        request.model = match format {
            WireFormat::AnthropicMessages => "claude-sonnet-4-6",
            WireFormat::OpenaiResponses | WireFormat::OpenaiChat => "gpt-5.4",
        }
        .to_owned();
        request.tools.push(ToolSpec {
            name: "get_weather".to_owned(),
            description: "Says the weather.".to_owned(),
            input_schema: json!({"type": "object", "properties": {"city": {"type": "string"}}}),
        });
        let first = ask(&client, request.clone()).await.unwrap();
        assert_eq!(first.stop_reason, StopReason::ToolCalls, "{format:?}");
        let cities: Vec<_> = first
            .calls()
            .iter()
            .map(|call| call.arguments().unwrap()["city"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(cities, ["Bern", "Oslo"], "{format:?}");
        let results = first.calls().into_iter().map(|call| Block::ToolResult {
            call_id: call.id.clone(),
            content: vec![text("sunny")],
            is_error: false,
        });
        let results = user(results.collect());
        request
            .messages
            .extend([assistant(first.blocks.clone()), results]);
        let second = ask(&client, request).await.unwrap();
        assert_eq!(second.text(), "Sunny in both — ☀ everywhere.", "{format:?}");
        assert_eq!(second.stop_reason, StopReason::EndTurn);
        assert_eq!(
            (second.usage.input_tokens, second.usage.output_tokens),
            (11, 7),
            "{format:?}"
        );
    }
}
