//! A request as the body of `POST /v1/messages`. Pure. Cache breakpoints sit where the prefix is stable: behind the tools,
//! behind the system prompt and behind the last two user messages, which makes four, the most the API takes
//! (<https://docs.anthropic.com/en/docs/build-with-claude/prompt-caching>).

use crate::conversation::{
    Block, MISSING_IMAGE, Message, ModelRequest, Opaque, ReasoningEffort, Role, ToolCall, ToolSpec,
    WireFormat,
};
use serde_json::{Map, Value, json};

/// Key under which arguments that were not a JSON object are replayed as one.
pub(crate) const MALFORMED_KEY: &str = "_malformed_arguments";

/// The smallest thinking budget the API takes, in tokens.
const MIN_THINKING_TOKENS: u32 = 1024;

pub(crate) fn encode(request: &ModelRequest) -> Value {
    let mut body = Map::new();
    body.insert("model".to_owned(), json!(request.model));
    body.insert("max_tokens".to_owned(), json!(request.max_output_tokens.max(1)));
    body.insert("stream".to_owned(), json!(true));
    let system: Vec<Value> = request
        .system
        .iter()
        .filter(|block| !block.text.trim().is_empty())
        .map(|block| json!({"type": "text", "text": block.text}))
        .collect();
    if !system.is_empty() {
        body.insert("system".to_owned(), mark_last(system));
    }
    if !request.tools.is_empty() {
        let tools = request.tools.iter().map(tool).collect();
        body.insert("tools".to_owned(), mark_last(tools));
    }
    body.insert("messages".to_owned(), messages(&request.messages));
    if let Some(effort) = request.reasoning {
        reasoning(&mut body, request, effort);
    }
    Value::Object(body)
}

fn tool(spec: &ToolSpec) -> Value {
    json!({"name": spec.name, "description": spec.description, "input_schema": spec.input_schema})
}

fn messages(messages: &[Message]) -> Value {
    let mut encoded: Vec<Value> = Vec::new();
    for message in messages {
        let mut blocks: Vec<Value> = message.blocks.iter().filter_map(block).collect();
        if message.role == Role::User {
            // The API wants results before anything else; the sort keeps the order otherwise.
            blocks.sort_by_key(|block| block["type"] != "tool_result");
        }
        if blocks.is_empty() {
            continue;
        }
        let role = match message.role {
            Role::User => "user",
            Role::Assistant => "assistant",
        };
        encoded.push(json!({"role": role, "content": blocks}));
    }
    let last_user = encoded
        .iter_mut()
        .rev()
        .filter(|message| message["role"] == "user")
        .take(2);
    for message in last_user {
        if let Some(last) = message["content"]
            .as_array_mut()
            .and_then(|blocks| blocks.last_mut())
        {
            mark(last);
        }
    }
    Value::Array(encoded)
}

fn block(block: &Block) -> Option<Value> {
    match block {
        Block::Text { text } if text.trim().is_empty() => None,
        Block::Text { text } => Some(json!({"type": "text", "text": text})),
        Block::Image {
            media_type,
            data_base64,
        } => Some(json!({
            "type": "image",
            "source": {"type": "base64", "media_type": media_type, "data": data_base64},
        })),
        Block::KeptImage { .. } => Some(json!({"type": "text", "text": MISSING_IMAGE})),
        Block::Reasoning { opaque, .. } => opaque.as_ref().and_then(own),
        Block::Unknown { opaque } => own(opaque),
        Block::ToolCall(call) => Some(json!({
            "type": "tool_use",
            "id": tool_id(&call.id),
            "name": call.name,
            "input": input(call),
        })),
        Block::ToolResult {
            call_id,
            content,
            is_error,
        } => Some(tool_result(call_id, content, *is_error)),
    }
}

fn own(opaque: &Opaque) -> Option<Value> {
    (opaque.format == WireFormat::AnthropicMessages).then(|| opaque.json.clone())
}

fn input(call: &ToolCall) -> Value {
    match call.arguments() {
        Ok(map) => Value::Object(map),
        Err(_) => json!({ MALFORMED_KEY: call.arguments_json }),
    }
}

fn tool_result(call_id: &str, content: &[Block], is_error: bool) -> Value {
    let content: Vec<Value> = content
        .iter()
        .filter(|inner| {
            matches!(
                inner,
                Block::Text { .. } | Block::Image { .. } | Block::KeptImage { .. }
            )
        })
        .filter_map(block)
        .collect();
    let mut result = Map::new();
    result.insert("type".to_owned(), json!("tool_result"));
    result.insert("tool_use_id".to_owned(), json!(tool_id(call_id)));
    if !content.is_empty() {
        result.insert("content".to_owned(), Value::Array(content));
    }
    if is_error {
        result.insert("is_error".to_owned(), json!(true));
    }
    Value::Object(result)
}

/// The API takes ids of `[a-zA-Z0-9_-]+` only; other providers' ids may hold more.
fn tool_id(id: &str) -> String {
    let id: String = id
        .chars()
        .map(|letter| match letter {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | '-' => letter,
            _ => '_',
        })
        .collect();
    if id.is_empty() { "_".to_owned() } else { id }
}

fn mark_last(mut values: Vec<Value>) -> Value {
    if let Some(last) = values.last_mut() {
        mark(last);
    }
    Value::Array(values)
}

/// Reasoning blocks must be replayed unchanged and take no breakpoint.
fn mark(block: &mut Value) {
    let is_reasoning = matches!(block["type"].as_str(), Some("thinking" | "redacted_thinking"));
    if let (false, Some(block)) = (is_reasoning, block.as_object_mut()) {
        block.insert("cache_control".to_owned(), json!({"type": "ephemeral"}));
    }
}

fn reasoning(body: &mut Map<String, Value>, request: &ModelRequest, effort: ReasoningEffort) {
    match thinking_of(&request.model) {
        Thinking::None => {}
        Thinking::Adaptive => {
            body.insert(
                "thinking".to_owned(),
                json!({"type": "adaptive", "display": "summarized"}),
            );
            body.insert(
                "output_config".to_owned(),
                json!({"effort": crate::openai::effort(effort)}),
            );
        }
        Thinking::Budget => {
            let wanted = match effort {
                ReasoningEffort::Low => 2048,
                ReasoningEffort::Medium => 8192,
                ReasoningEffort::High => 24_576,
            };
            // The budget counts into `max_tokens`; half is left for the answer itself.
            let budget = wanted.min(request.max_output_tokens / 2);
            if budget >= MIN_THINKING_TOKENS {
                body.insert(
                    "thinking".to_owned(),
                    json!({"type": "enabled", "budget_tokens": budget}),
                );
            }
        }
    }
}

enum Thinking {
    None,
    Budget,
    Adaptive,
}

/// Models since 4.6 decide themselves how long to think, those of 3.7 to 4.5 take a budget, older ones do neither
/// (<https://docs.claude.com/en/docs/build-with-claude/extended-thinking>). Names we do not know are servers that speak
/// the format, and those follow the older form.
fn thinking_of(model: &str) -> Thinking {
    let Some(name) = model
        .rsplit('/')
        .next()
        .and_then(|name| name.strip_prefix("claude-"))
    else {
        return Thinking::Budget;
    };
    let numbers: Vec<u32> = name
        .split('-')
        .filter(|part| part.len() < 3)
        .filter_map(|part| part.parse().ok())
        .collect();
    match numbers.as_slice() {
        [3, 7, ..] => Thinking::Budget,
        [0..=3, ..] => Thinking::None,
        [4] | [4, 0..=5, ..] => Thinking::Budget,
        _ => Thinking::Adaptive,
    }
}

#[cfg(test)]
#[path = "encode_tests.rs"]
mod tests;
