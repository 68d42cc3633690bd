//! Events of a streamed message. Pure; one decoder per answer.

use crate::conversation::{
    Block, BlockKind, Opaque, StopReason, StreamEvent, TokenUsage, ToolCall, WireFormat,
};
use crate::failure::ModelFailure;
use crate::wire::{malformed, parse_data};
use crate::{refusal, sse};
use serde_json::{Value, json};

#[derive(Debug, Default)]
pub(crate) struct Decoder {
    open: Vec<OpenBlock>,
    next_index: usize,
    usage: TokenUsage,
    stop_reason: Option<StopReason>,
}

#[derive(Debug)]
struct OpenBlock {
    /// The provider's own number.
    wire_index: u64,
    index: usize,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Text(String),
    /// The provider's block, its text and signature growing.
    Thinking(Value),
    ToolCall(ToolCall),
    /// Kept as it began; `input_json` collects what streams in.
    Unknown {
        block: Value,
        input_json: String,
    },
}

impl Decoder {
    pub(crate) fn push(&mut self, event: &sse::Event) -> Result<Vec<StreamEvent>, ModelFailure> {
        let data = parse_data(event)?;
        match data["type"].as_str().unwrap_or(&event.name) {
            "message_start" => {
                self.count(&data["message"]["usage"]);
                Ok(Vec::new())
            }
            "content_block_start" => self.start(&data),
            "content_block_delta" => self.delta(&data),
            "content_block_stop" => {
                let wire_index = wire_index(&data)?;
                let position = self.open.iter().position(|open| open.wire_index == wire_index);
                let position = position.ok_or_else(|| malformed("a block ends that never began"))?;
                Ok(vec![complete(self.open.remove(position))])
            }
            "message_delta" => {
                self.count(&data["usage"]);
                if let Some(reason) = data["delta"]["stop_reason"].as_str() {
                    self.stop_reason = Some(stop_reason(reason));
                }
                Ok(Vec::new())
            }
            "message_stop" => Ok(self.finish()),
            "error" => Err(refusal::in_stream(&data["error"])),
            // `ping`, and whatever comes later: the API asks clients to tolerate unknown events.
            _ => Ok(Vec::new()),
        }
    }

    fn start(&mut self, data: &Value) -> Result<Vec<StreamEvent>, ModelFailure> {
        let wire_index = wire_index(data)?;
        if self.open.iter().any(|open| open.wire_index == wire_index) {
            return Err(malformed("a block begins twice"));
        }
        let block = &data["content_block"];
        let index = self.next_index;
        self.next_index += 1;
        let mut deltas = Vec::new();
        let text_of = |key: &str| block[key].as_str().unwrap_or_default().to_owned();
        let (kind, content) = match block["type"].as_str() {
            Some("text") => {
                let text = text_of("text");
                if !text.is_empty() {
                    deltas.push(StreamEvent::TextDelta {
                        index,
                        text: text.clone(),
                    });
                }
                (BlockKind::Text, Content::Text(text))
            }
            Some("thinking" | "redacted_thinking") => {
                let text = text_of("thinking");
                if !text.is_empty() {
                    deltas.push(StreamEvent::ReasoningDelta { index, text });
                }
                (BlockKind::Reasoning, Content::Thinking(block.clone()))
            }
            Some("tool_use") => {
                let (id, name) = (text_of("id"), text_of("name"));
                if id.is_empty() || name.is_empty() {
                    return Err(malformed("a tool call has no id or no name"));
                }
                // Some servers send the whole input at once instead of deltas.
                let arguments_json = match block["input"].as_object() {
                    Some(input) if !input.is_empty() => block["input"].to_string(),
                    _ => String::new(),
                };
                if !arguments_json.is_empty() {
                    deltas.push(StreamEvent::ArgumentsDelta {
                        index,
                        json: arguments_json.clone(),
                    });
                }
                let kind = BlockKind::ToolCall {
                    id: id.clone(),
                    name: name.clone(),
                };
                let call = ToolCall {
                    id,
                    name,
                    arguments_json,
                };
                (kind, Content::ToolCall(call))
            }
            Some(_) => (
                BlockKind::Unknown,
                Content::Unknown {
                    block: block.clone(),
                    input_json: String::new(),
                },
            ),
            None => return Err(malformed("a block has no type")),
        };
        self.open.push(OpenBlock {
            wire_index,
            index,
            content,
        });
        let mut events = vec![StreamEvent::BlockStarted { index, kind }];
        events.append(&mut deltas);
        Ok(events)
    }

    fn delta(&mut self, data: &Value) -> Result<Vec<StreamEvent>, ModelFailure> {
        let wire_index = wire_index(data)?;
        let open = self.open.iter_mut().find(|open| open.wire_index == wire_index);
        let open = open.ok_or_else(|| malformed("a delta belongs to no block"))?;
        let index = open.index;
        let delta = &data["delta"];
        let text_of = |key: &str| {
            delta[key]
                .as_str()
                .ok_or_else(|| malformed("a delta lacks its text"))
                .map(str::to_owned)
        };
        let kind = delta["type"].as_str().unwrap_or_default();
        let event = match (kind, &mut open.content) {
            ("text_delta", Content::Text(whole)) => {
                let text = text_of("text")?;
                whole.push_str(&text);
                StreamEvent::TextDelta { index, text }
            }
            ("thinking_delta", Content::Thinking(block)) => {
                let text = text_of("thinking")?;
                append(block, "thinking", &text);
                StreamEvent::ReasoningDelta { index, text }
            }
            ("signature_delta", Content::Thinking(block)) => {
                append(block, "signature", &text_of("signature")?);
                return Ok(Vec::new());
            }
            ("input_json_delta", Content::ToolCall(call)) => {
                let json = text_of("partial_json")?;
                call.arguments_json.push_str(&json);
                StreamEvent::ArgumentsDelta { index, json }
            }
            ("input_json_delta", Content::Unknown { input_json, .. }) => {
                input_json.push_str(&text_of("partial_json")?);
                return Ok(Vec::new());
            }
            ("text_delta" | "thinking_delta" | "signature_delta", Content::Unknown { .. }) => {
                return Ok(Vec::new());
            }
            ("text_delta" | "thinking_delta" | "signature_delta" | "input_json_delta", _) => {
                return Err(malformed("a delta does not fit its block"));
            }
            // Citations and later kinds: the text is whole without them.
            _ => return Ok(Vec::new()),
        };
        Ok(vec![event])
    }

    /// Counts are cumulative; a later one replaces an earlier one.
    fn count(&mut self, usage: &Value) {
        let usage_fields = [
            ("input_tokens", &mut self.usage.input_tokens),
            ("output_tokens", &mut self.usage.output_tokens),
            ("cache_read_input_tokens", &mut self.usage.cache_read_tokens),
            ("cache_creation_input_tokens", &mut self.usage.cache_write_tokens),
        ];
        for (key, field) in usage_fields {
            if let Some(count) = usage[key].as_u64() {
                *field = count;
            }
        }
    }

    fn finish(&mut self) -> Vec<StreamEvent> {
        let mut events: Vec<StreamEvent> = self.open.drain(..).map(complete).collect();
        events.push(StreamEvent::Finished {
            stop_reason: self.stop_reason.take().unwrap_or(StopReason::EndTurn),
            usage: self.usage,
        });
        events
    }
}

fn complete(open: OpenBlock) -> StreamEvent {
    let block = match open.content {
        Content::Text(text) => Block::Text { text },
        Content::Thinking(json) => Block::Reasoning {
            text: json["thinking"].as_str().unwrap_or_default().to_owned(),
            opaque: Some(own(json)),
        },
        Content::ToolCall(call) => Block::ToolCall(call),
        Content::Unknown {
            mut block,
            input_json,
        } => {
            if !input_json.is_empty() {
                let input = serde_json::from_str(&input_json).unwrap_or_else(|_| json!({}));
                block["input"] = input;
            }
            Block::Unknown { opaque: own(block) }
        }
    };
    StreamEvent::BlockCompleted {
        index: open.index,
        block,
    }
}

fn own(json: Value) -> Opaque {
    Opaque {
        format: WireFormat::AnthropicMessages,
        json,
    }
}

fn append(block: &mut Value, key: &str, text: &str) {
    match block.get_mut(key) {
        Some(Value::String(whole)) => whole.push_str(text),
        // The block is an object: it has a `type`.
        _ => block[key] = json!(text),
    }
}

fn wire_index(data: &Value) -> Result<u64, ModelFailure> {
    data["index"]
        .as_u64()
        .ok_or_else(|| malformed("an event of a block has no index"))
}

fn stop_reason(reason: &str) -> StopReason {
    match reason {
        "end_turn" | "stop_sequence" => StopReason::EndTurn,
        "tool_use" => StopReason::ToolCalls,
        "max_tokens" => StopReason::MaxOutputTokens,
        "refusal" => StopReason::Refusal,
        other => StopReason::Other(other.to_owned()),
    }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
