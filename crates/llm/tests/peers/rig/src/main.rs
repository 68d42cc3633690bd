//! Asks a server in one format through rig and prints what rig made of the stream, as one line of JSON: `text`,
//! `reasoning` and `calls` (id, name, arguments), or `error`. Arguments: FORMAT BASE_URL.

use futures_util::StreamExt;
use rig_core::completion::{CompletionRequest, CompletionResponse};
use rig_core::error::ProviderError;
use rig_core::message::AssistantContent;
use rig_core::providers::anthropic::AnthropicConfig;
use rig_core::providers::openai::OpenAIConfig;
use serde_json::json;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [format, base_url] = arguments.as_slice() else {
        return Err("usage: greenroom-rig-peer FORMAT BASE_URL".into());
    };
    let request = CompletionRequest::new("hello").max_tokens(1024);
    let openai = || {
        OpenAIConfig::new("key")
            .with_base_url(format!("{base_url}/v1"))
            .client()
    };
    macro_rules! ask {
        ($model:expr) => {
            match $model.stream(request) {
                Ok(mut events) => {
                    while let Some(event) = events.next().await {
                        // The fold below reports the failure.
                        if event.is_err() {
                            break;
                        }
                    }
                    events.finish().await
                }
                Err(error) => Err(error),
            }
        };
    }
    let answer = match format.as_str() {
        "anthropic-messages" => {
            let client = AnthropicConfig::new("key").with_base_url(base_url).client();
            ask!(client.completion("claude-sonnet-4-6"))
        }
        "openai-responses" => ask!(openai().responses("gpt-5.4")),
        "openai-chat" => ask!(openai().chat("gpt-5.4")),
        other => return Err(format!("unknown format {other}").into()),
    };
    println!("{}", show(answer));
    Ok(())
}

fn show(answer: Result<CompletionResponse, ProviderError>) -> serde_json::Value {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return json!({"error": error.to_string()}),
    };
    let (mut text, mut reasoning, mut calls) = (String::new(), String::new(), Vec::new());
    for content in &answer.choice {
        match content {
            AssistantContent::Text(part) => text.push_str(&part.text),
            AssistantContent::Reasoning(part) => reasoning.push_str(&part.text),
            AssistantContent::ToolCall(call) => calls.push(json!({
                "id": call.id.to_string(),
                "name": call.function.name.to_string(),
                "arguments": call.function.arguments,
                "invalid_arguments": call.function.invalid_arguments,
            })),
            _ => {}
        }
    }
    json!({"text": text, "reasoning": reasoning, "calls": calls})
}
