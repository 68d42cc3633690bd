//! What the server needs of a wire format, and the small readers the formats share.

use axum::http::HeaderMap;
use greenroom_llm::conversation::{Block, Message, ModelRequest, Role, ToolSpec};
use greenroom_llm::scripted::player::Answer;
use serde_json::Value;

/// One wire format, seen from the provider's side. Pure.
pub(super) trait Speech: Sync {
    /// Reads a request; the error says what is wrong with it.
    fn request(&self, body: &Value) -> Result<ModelRequest, String>;

    /// The whole answer as (event name, data), without [`Speech::closing`].
    fn events(&self, answer: &Answer, model: &str) -> Vec<(Option<String>, Value)>;

    /// Data of a last event that is not JSON.
    fn closing(&self) -> Option<&'static str>;

    /// Body of a refusal.
    fn error(&self, status: u16, message: &str) -> Value;

    /// An error in the middle of an answer.
    fn error_event(&self, message: &str) -> (Option<String>, Value);

    /// The key a client sent.
    fn key<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str>;
}

/// A required text.
pub(super) fn text(value: &Value, key: &str) -> Result<String, String> {
    value[key]
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| format!("`{key}` must be a text"))
}

/// A required list.
pub(super) fn list<'a>(value: &'a Value, key: &str) -> Result<&'a [Value], String> {
    value[key]
        .as_array()
        .map(Vec::as_slice)
        .ok_or_else(|| format!("`{key}` must be a list"))
}

/// Fields every format writes alike; this server only streams.
pub(super) fn begin(body: &Value) -> Result<ModelRequest, String> {
    if body["stream"] != true {
        return Err("`stream` must be true".to_owned());
    }
    Ok(ModelRequest {
        model: text(body, "model")?,
        ..ModelRequest::default()
    })
}

/// A tool whose name, description and schema lie at these keys.
pub(super) fn tool(value: &Value, schema_key: &str) -> Result<ToolSpec, String> {
    let input_schema = value[schema_key].clone();
    if !input_schema.is_object() {
        return Err(format!("`{schema_key}` of a tool must be an object"));
    }
    Ok(ToolSpec {
        name: text(value, "name")?,
        description: text(value, "description")?,
        input_schema,
    })
}

/// An image written as a `data:` URL.
pub(super) fn image(url: &str) -> Result<Block, String> {
    let (media_type, data) = url
        .strip_prefix("data:")
        .and_then(|rest| rest.split_once(";base64,"))
        .ok_or("an image must be a base64 `data:` URL")?;
    Ok(Block::Image {
        media_type: media_type.to_owned(),
        data_base64: data.to_owned(),
    })
}

/// Adds blocks to the last message if it is of this role and `joins`, else as a new message.
pub(super) fn add(
    messages: &mut Vec<Message>,
    role: Role,
    blocks: Vec<Block>,
    joins: impl Fn(&Message) -> bool,
) {
    match messages.last_mut() {
        Some(last) if last.role == role && joins(last) => last.blocks.extend(blocks),
        _ => messages.push(Message { role, blocks }),
    }
}

/// Whether a message carries tool results.
pub(super) fn has_results(message: &Message) -> bool {
    message
        .blocks
        .iter()
        .any(|block| matches!(block, Block::ToolResult { .. }))
}

/// The OpenAI formats have no field for it: a result is an error if it says so in front.
pub(super) fn is_error(content: &[Block]) -> bool {
    matches!(content.first(), Some(Block::Text { text })
        if text.get(..6).is_some_and(|start| start.eq_ignore_ascii_case("error:")))
}
