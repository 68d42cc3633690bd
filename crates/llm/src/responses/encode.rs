//! A request as the body of `POST /v1/responses`. Pure. Nothing is stored at the provider (`store: false`), so reasoning
//! comes back encrypted and is replayed in its place between the other items.

use crate::conversation::{Block, MISSING_IMAGE, Message, ModelRequest, Opaque, Role, WireFormat};
use crate::openai;
use serde_json::{Map, Value, json};

pub(crate) fn encode(request: &ModelRequest) -> Value {
    let mut body = Map::new();
    body.insert("model".to_owned(), json!(request.model));
    body.insert("stream".to_owned(), json!(true));
    body.insert("store".to_owned(), json!(false));
    // The API refuses less than 16.
    body.insert(
        "max_output_tokens".to_owned(),
        json!(request.max_output_tokens.max(16)),
    );
    let system = openai::system_text(&request.system);
    if !system.is_empty() {
        body.insert("instructions".to_owned(), json!(system));
    }
    body.insert("input".to_owned(), Value::Array(input(&request.messages)));
    if !request.tools.is_empty() {
        let tools: Vec<Value> = request
            .tools
            .iter()
            .map(|tool| {
                json!({
                    "type": "function",
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": tool.input_schema,
                    "strict": false,
                })
            })
            .collect();
        body.insert("tools".to_owned(), Value::Array(tools));
        body.insert("parallel_tool_calls".to_owned(), json!(true));
    }
    if !openai::is_without_reasoning(&request.model) {
        body.insert("include".to_owned(), json!(["reasoning.encrypted_content"]));
        if let Some(effort) = request.reasoning {
            let reasoning = json!({"effort": openai::effort(effort), "summary": "auto"});
            body.insert("reasoning".to_owned(), reasoning);
        }
    }
    if let Some(key) = &request.cache_key {
        // The API takes 64 characters.
        let key: String = key.chars().take(64).collect();
        body.insert("prompt_cache_key".to_owned(), json!(key));
    }
    Value::Object(body)
}

fn input(messages: &[Message]) -> Vec<Value> {
    let mut items = Vec::new();
    for message in messages {
        match message.role {
            Role::User => user(&message.blocks, &mut items),
            Role::Assistant => items.extend(message.blocks.iter().filter_map(assistant_item)),
        }
    }
    items
}

fn user(blocks: &[Block], items: &mut Vec<Value>) {
    items.extend(blocks.iter().filter_map(|block| match block {
        Block::ToolResult {
            call_id,
            content,
            is_error,
        } => Some(json!({
            "type": "function_call_output",
            "call_id": call_id,
            "output": output(content, *is_error),
        })),
        Block::Text { .. }
        | Block::Image { .. }
        | Block::KeptImage { .. }
        | Block::Reasoning { .. }
        | Block::ToolCall(_)
        | Block::Unknown { .. } => None,
    }));
    let content: Vec<Value> = blocks.iter().filter_map(content_part).collect();
    if !content.is_empty() {
        items.push(json!({"type": "message", "role": "user", "content": content}));
    }
}

fn content_part(block: &Block) -> Option<Value> {
    match block {
        Block::Text { text } if text.is_empty() => None,
        Block::Text { text } => Some(json!({"type": "input_text", "text": text})),
        Block::Image {
            media_type,
            data_base64,
        } => Some(image(media_type, data_base64)),
        Block::KeptImage { .. } => Some(json!({"type": "input_text", "text": MISSING_IMAGE})),
        Block::Reasoning { .. } | Block::ToolCall(_) | Block::ToolResult { .. } | Block::Unknown { .. } => {
            None
        }
    }
}

fn image(media_type: &str, data_base64: &str) -> Value {
    json!({
        "type": "input_image",
        "detail": "auto",
        "image_url": openai::data_url(media_type, data_base64),
    })
}

/// Text alone stays a string, which every server takes.
fn output(content: &[Block], is_error: bool) -> Value {
    let text = openai::result_text(content, is_error);
    let images = openai::result_images(content);
    if images.is_empty() {
        return json!(text);
    }
    let mut parts = Vec::new();
    if !text.is_empty() {
        parts.push(json!({"type": "input_text", "text": text}));
    }
    parts.extend(
        images
            .into_iter()
            .map(|(media_type, data)| image(media_type, data)),
    );
    Value::Array(parts)
}

fn assistant_item(block: &Block) -> Option<Value> {
    match block {
        Block::Text { text } if text.is_empty() => None,
        Block::Text { text } => Some(json!({"type": "message", "role": "assistant", "content": text})),
        Block::Reasoning { opaque, .. } => opaque.as_ref().filter(|own| is_replayable(own)).map(json_of),
        Block::Unknown { opaque } => (opaque.format == WireFormat::OpenaiResponses).then(|| json_of(opaque)),
        Block::ToolCall(call) => Some(json!({
            "type": "function_call",
            "call_id": call.id,
            "name": call.name,
            "arguments": openai::replayed_arguments(call),
        })),
        Block::Image { .. } | Block::KeptImage { .. } | Block::ToolResult { .. } => None,
    }
}

fn json_of(opaque: &Opaque) -> Value {
    opaque.json.clone()
}

/// A reasoning item without its content is only a reference, and with `store: false` nothing is there to refer to.
fn is_replayable(opaque: &Opaque) -> bool {
    let has_content = opaque.json["encrypted_content"].is_string()
        || opaque.json["content"]
            .as_array()
            .is_some_and(|parts| !parts.is_empty());
    opaque.format == WireFormat::OpenaiResponses && has_content
}

#[cfg(test)]
#[path = "encode_tests.rs"]
mod tests;
