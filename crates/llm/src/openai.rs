//! What the two OpenAI formats share: replayed arguments, result texts, and which models are OpenAI's own. Pure.

use crate::conversation::{Block, MISSING_IMAGE, ReasoningEffort, ToolCall};
use serde_json::{Value, json};

/// Argument text every server can parse: servers that fill chat templates parse it and fail the whole request on text
/// that is not an object.
pub(crate) fn replayed_arguments(call: &ToolCall) -> String {
    match call.arguments() {
        Ok(map) if map.is_empty() => "{}".to_owned(),
        Ok(_) => call.arguments_json.clone(),
        Err(_) => json!({ crate::anthropic::encode::MALFORMED_KEY: call.arguments_json }).to_string(),
    }
}

/// Texts of a result as one string; errors say so, because these formats have no field for it.
pub(crate) fn result_text(content: &[Block], is_error: bool) -> String {
    let texts: Vec<&str> = content
        .iter()
        .filter_map(|block| match block {
            Block::Text { text } => Some(text.as_str()),
            Block::KeptImage { .. } => Some(MISSING_IMAGE),
            Block::Image { .. }
            | Block::Reasoning { .. }
            | Block::ToolCall(_)
            | Block::ToolResult { .. }
            | Block::Unknown { .. } => None,
        })
        .collect();
    let text = texts.join("\n");
    if is_error && !starts_with_error(&text) {
        format!("Error: {text}")
    } else {
        text
    }
}

fn starts_with_error(text: &str) -> bool {
    text.get(..6)
        .is_some_and(|start| start.eq_ignore_ascii_case("error:"))
}

/// Images of a result, as (media type, base64).
pub(crate) fn result_images(content: &[Block]) -> Vec<(&str, &str)> {
    content
        .iter()
        .filter_map(|block| match block {
            Block::Image {
                media_type,
                data_base64,
            } => Some((media_type.as_str(), data_base64.as_str())),
            Block::Text { .. }
            | Block::KeptImage { .. }
            | Block::Reasoning { .. }
            | Block::ToolCall(_)
            | Block::ToolResult { .. }
            | Block::Unknown { .. } => None,
        })
        .collect()
}

/// An image as a `data:` URL (RFC 2397).
pub(crate) fn data_url(media_type: &str, data_base64: &str) -> String {
    format!("data:{media_type};base64,{data_base64}")
}

/// The word both formats use.
pub(crate) fn effort(effort: ReasoningEffort) -> &'static str {
    match effort {
        ReasoningEffort::Low => "low",
        ReasoningEffort::Medium => "medium",
        ReasoningEffort::High => "high",
    }
}

/// Whether the name is one of OpenAI's own hosted models; other servers refuse some of OpenAI's newer fields.
pub(crate) fn is_hosted_model(model: &str) -> bool {
    let name = model.rsplit('/').next().unwrap_or(model);
    let is_o_series = name
        .strip_prefix('o')
        .is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()));
    is_o_series
        || (name.starts_with("gpt-") && !name.starts_with("gpt-oss"))
        || name.starts_with("chatgpt-")
        || name.starts_with("codex-")
}

/// Whether the model refuses `include: ["reasoning.encrypted_content"]` because it cannot reason.
pub(crate) fn is_without_reasoning(model: &str) -> bool {
    let name = model.rsplit('/').next().unwrap_or(model);
    ["gpt-3.5", "gpt-4", "chatgpt-4"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

/// Text of the system blocks, stable part first.
pub(crate) fn system_text(blocks: &[crate::conversation::SystemBlock]) -> String {
    let texts: Vec<&str> = blocks
        .iter()
        .map(|block| block.text.as_str())
        .filter(|text| !text.trim().is_empty())
        .collect();
    texts.join("\n\n")
}

/// A number of tokens at a JSON pointer; 0 where it is missing or null.
pub(crate) fn tokens(usage: &Value, pointer: &str) -> u64 {
    usage.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}
