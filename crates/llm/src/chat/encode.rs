//! A request as the body of `POST /v1/chat/completions`. Pure. This format carries no image in a tool result, so images
//! follow in a user message; fields that only OpenAI's own models take are sent to those alone.

use crate::conversation::{Block, MISSING_IMAGE, Message, ModelRequest, Role, ToolCall, WireFormat};
use crate::openai;
use crate::wire::TOOL_IMAGE_NOTE;
use serde_json::{Map, Value, json};

pub(crate) fn encode(request: &ModelRequest) -> Value {
    let is_hosted = openai::is_hosted_model(&request.model);
    let mut body = Map::new();
    body.insert("model".to_owned(), json!(request.model));
    body.insert("stream".to_owned(), json!(true));
    body.insert("stream_options".to_owned(), json!({"include_usage": true}));
    let limit = if is_hosted {
        "max_completion_tokens"
    } else {
        "max_tokens"
    };
    body.insert(limit.to_owned(), json!(request.max_output_tokens.max(1)));
    body.insert("messages".to_owned(), Value::Array(messages(request)));
    if !request.tools.is_empty() {
        let tools: Vec<Value> = request
            .tools
            .iter()
            .map(|tool| {
                json!({
                    "type": "function",
                    "function": {
                        "name": tool.name,
                        "description": tool.description,
                        "parameters": tool.input_schema,
                    },
                })
            })
            .collect();
        body.insert("tools".to_owned(), Value::Array(tools));
    }
    if let Some(effort) = request.reasoning
        && !openai::is_without_reasoning(&request.model)
    {
        body.insert("reasoning_effort".to_owned(), json!(openai::effort(effort)));
    }
    if let (true, Some(key)) = (is_hosted, &request.cache_key) {
        let key: String = key.chars().take(64).collect();
        body.insert("prompt_cache_key".to_owned(), json!(key));
    }
    Value::Object(body)
}

fn messages(request: &ModelRequest) -> Vec<Value> {
    let mut encoded = Vec::new();
    let system = openai::system_text(&request.system);
    if !system.is_empty() {
        encoded.push(json!({"role": "system", "content": system}));
    }
    // Reasoning is replayed inside the running turn only: servers that want it back want it between tool calls, and
    // some refuse it elsewhere.
    let turn_start = request.messages.iter().rposition(is_prompt).unwrap_or(0);
    for (position, message) in request.messages.iter().enumerate() {
        match message.role {
            Role::User => user(&message.blocks, &mut encoded),
            Role::Assistant => encoded.extend(assistant(&message.blocks, position > turn_start)),
        }
    }
    encoded
}

fn is_prompt(message: &Message) -> bool {
    message.role == Role::User
        && !message
            .blocks
            .iter()
            .any(|block| matches!(block, Block::ToolResult { .. }))
}

fn user(blocks: &[Block], encoded: &mut Vec<Value>) {
    let mut parts = Vec::new();
    for block in blocks {
        match block {
            Block::ToolResult {
                call_id,
                content,
                is_error,
            } => {
                let text = openai::result_text(content, *is_error);
                encoded.push(json!({"role": "tool", "tool_call_id": call_id, "content": text}));
                for (media_type, data) in openai::result_images(content) {
                    parts.push(json!({"type": "text", "text": format!("{TOOL_IMAGE_NOTE}{call_id}]")}));
                    parts.push(image(media_type, data));
                }
            }
            Block::Text { text } if text.is_empty() => {}
            Block::Text { text } => parts.push(json!({"type": "text", "text": text})),
            Block::Image {
                media_type,
                data_base64,
            } => parts.push(image(media_type, data_base64)),
            Block::KeptImage { .. } => parts.push(json!({"type": "text", "text": MISSING_IMAGE})),
            Block::Reasoning { .. } | Block::ToolCall(_) | Block::Unknown { .. } => {}
        }
    }
    if parts.is_empty() {
        return;
    }
    // Text alone is sent as a string: chat templates of small servers know no parts.
    let texts: Option<Vec<&str>> = parts.iter().map(|part| part["text"].as_str()).collect();
    let content = match texts {
        Some(texts) => json!(texts.join("\n\n")),
        None => Value::Array(parts),
    };
    encoded.push(json!({"role": "user", "content": content}));
}

fn image(media_type: &str, data_base64: &str) -> Value {
    json!({"type": "image_url", "image_url": {"url": openai::data_url(media_type, data_base64)}})
}

fn assistant(blocks: &[Block], is_in_turn: bool) -> Option<Value> {
    let mut message = Map::new();
    message.insert("role".to_owned(), json!("assistant"));
    let mut text = String::new();
    let mut calls = Vec::new();
    for block in blocks {
        match block {
            Block::Text { text: more } => text.push_str(more),
            Block::ToolCall(call) => calls.push(tool_call(call)),
            Block::Reasoning {
                opaque: Some(opaque), ..
            } if is_in_turn && opaque.format == WireFormat::OpenaiChat => {
                for (key, value) in opaque.json.as_object().into_iter().flatten() {
                    message.insert(key.clone(), value.clone());
                }
            }
            Block::Reasoning { .. }
            | Block::Unknown { .. }
            | Block::Image { .. }
            | Block::KeptImage { .. }
            | Block::ToolResult { .. } => {}
        }
    }
    if text.is_empty() && calls.is_empty() {
        return None;
    }
    message.insert(
        "content".to_owned(),
        if text.is_empty() { Value::Null } else { json!(text) },
    );
    if !calls.is_empty() {
        message.insert("tool_calls".to_owned(), Value::Array(calls));
    }
    Some(Value::Object(message))
}

fn tool_call(call: &ToolCall) -> Value {
    json!({
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": openai::replayed_arguments(call)},
    })
}

#[cfg(test)]
#[path = "encode_tests.rs"]
mod tests;
