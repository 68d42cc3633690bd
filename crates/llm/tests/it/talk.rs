//! What the tests share: a conversation with every kind of block, and asking a client.

use greenroom_llm::client::{Client, Options};
use greenroom_llm::conversation::{
    Block, Message, ModelRequest, Opaque, ReasoningEffort, Role, StopReason, StreamEvent, SystemBlock,
    TokenUsage, ToolCall, ToolSpec, WireFormat,
};
use greenroom_llm::failure::ModelFailure;
use greenroom_llm::provider::Endpoint;
use greenroom_stdx::backoff::Backoff;
use serde_json::json;
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub const FORMATS: [WireFormat; 3] = [
    WireFormat::AnthropicMessages,
    WireFormat::OpenaiResponses,
    WireFormat::OpenaiChat,
];

/// A whole answer.
#[derive(Debug)]
pub struct Heard {
    pub blocks: Vec<Block>,
    pub stop_reason: StopReason,
    pub usage: TokenUsage,
}

impl Heard {
    pub fn text(&self) -> String {
        self.blocks
            .iter()
            .filter_map(|block| match block {
                Block::Text { text } => Some(text.as_str()),
                _ => None,
            })
            .collect()
    }

    pub fn calls(&self) -> Vec<&ToolCall> {
        self.blocks
            .iter()
            .filter_map(|block| match block {
                Block::ToolCall(call) => Some(call),
                _ => None,
            })
            .collect()
    }
}

/// Retries without waiting long, and gives up on silence soon.
pub fn quick() -> Options {
    Options {
        idle_timeout: Duration::from_secs(20),
        max_attempts: 3,
        backoff: Backoff {
            first: Duration::from_millis(2),
            max: Duration::from_millis(4),
        },
        ..Options::default()
    }
}

pub fn client(endpoint: Endpoint) -> Client {
    Client::http(endpoint, quick()).unwrap()
}

/// Asks and hears the whole answer.
pub async fn ask(client: &Client, request: ModelRequest) -> Result<Heard, ModelFailure> {
    ask_and_watch(client, request).await.0
}

/// Also the failures that were retried.
pub async fn ask_and_watch(
    client: &Client,
    request: ModelRequest,
) -> (Result<Heard, ModelFailure>, Vec<ModelFailure>) {
    let retried = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&retried);
    let on_retry =
        Arc::new(move |_: u32, _: u64, failure: &ModelFailure| seen.lock().unwrap().push(failure.clone()));
    let heard = hear(client, request, on_retry).await;
    let retried = retried.lock().unwrap().clone();
    (heard, retried)
}

async fn hear(
    client: &Client,
    request: ModelRequest,
    on_retry: greenroom_llm::client::RetryObserver,
) -> Result<Heard, ModelFailure> {
    let mut stream = client.stream(request, on_retry).await?;
    let mut blocks = Vec::new();
    while let Some(event) = stream.recv().await {
        match event? {
            StreamEvent::BlockCompleted { index, block } => blocks.push((index, block)),
            StreamEvent::Finished { stop_reason, usage } => {
                assert!(stream.recv().await.is_none(), "nothing follows Finished");
                blocks.sort_by_key(|(index, _)| *index);
                let blocks = blocks.into_iter().map(|(_, block)| block).collect();
                return Ok(Heard {
                    blocks,
                    stop_reason,
                    usage,
                });
            }
            StreamEvent::BlockStarted { .. }
            | StreamEvent::TextDelta { .. }
            | StreamEvent::ReasoningDelta { .. }
            | StreamEvent::ArgumentsDelta { .. } => {}
        }
    }
    panic!("the stream ended without Finished or an error");
}

pub fn text(text: &str) -> Block {
    Block::Text {
        text: text.to_owned(),
    }
}

pub fn user(blocks: Vec<Block>) -> Message {
    Message {
        role: Role::User,
        blocks,
    }
}

pub fn assistant(blocks: Vec<Block>) -> Message {
    Message {
        role: Role::Assistant,
        blocks,
    }
}

/// One prompt.
pub fn prompt(words: &str) -> ModelRequest {
    ModelRequest {
        model: "demo".to_owned(),
        messages: vec![user(vec![text(words)])],
        max_output_tokens: 1024,
        ..ModelRequest::default()
    }
}

/// A conversation with everything a format may have to carry.
pub fn everything(model: &str) -> ModelRequest {
    let image = Block::Image {
        media_type: "image/png".to_owned(),
        data_base64: "aGVsbG8=".to_owned(),
    };
    let call = |id: &str, arguments: &str| {
        Block::ToolCall(ToolCall {
            id: id.to_owned(),
            name: "read".to_owned(),
            arguments_json: arguments.to_owned(),
        })
    };
    let reasoning = |format: WireFormat, json: serde_json::Value| Block::Reasoning {
        text: "Hm.".to_owned(),
        opaque: Some(Opaque { format, json }),
    };
    let result = |id: &str, content: Vec<Block>, is_error: bool| Block::ToolResult {
        call_id: id.to_owned(),
        content,
        is_error,
    };
    ModelRequest {
        model: model.to_owned(),
        system: vec![SystemBlock {
            text: "Be kind.".to_owned(),
        }],
        messages: vec![
            user(vec![text("Look at this."), image.clone()]),
            assistant(vec![
                reasoning(
                    WireFormat::AnthropicMessages,
                    json!({"type": "thinking", "thinking": "Hm.", "signature": "abc="}),
                ),
                reasoning(
                    WireFormat::AnthropicMessages,
                    json!({"type": "redacted_thinking", "data": "xyz"}),
                ),
                reasoning(
                    WireFormat::OpenaiResponses,
                    json!({"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "enc"}),
                ),
                text("I read both."),
                call("call_a", r#"{"path": "a"}"#),
                call("call_b", "{broken"),
                call("call_c", ""),
            ]),
            user(vec![
                result("call_a", vec![text("A"), image], false),
                result("call_b", vec![text("bad arguments")], true),
                result("call_c", vec![], false),
            ]),
            assistant(vec![text("Done.")]),
            user(vec![text("Thanks.")]),
        ],
        tools: vec![ToolSpec {
            name: "read".to_owned(),
            description: "Reads a file.".to_owned(),
            input_schema: json!({"type": "object", "properties": {"path": {"type": "string"}}}),
        }],
        max_output_tokens: 16_384,
        reasoning: Some(ReasoningEffort::Medium),
        cache_key: Some("ses_1".to_owned()),
    }
}
