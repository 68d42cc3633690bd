//! Chunks of a streamed chat completion. Pure; one decoder per answer. The format names no blocks: text, reasoning and
//! tool calls become blocks in the order in which they first appear. `[DONE]` is the terminal event.

use crate::conversation::{
    Block, BlockKind, Opaque, StopReason, StreamEvent, TokenUsage, ToolCall, WireFormat,
};
use crate::failure::ModelFailure;
use crate::openai::tokens;
use crate::wire::{malformed, parse_data};
use crate::{refusal, sse};
use serde_json::{Value, json};

#[derive(Debug, Default)]
pub(crate) struct Decoder {
    next_index: usize,
    /// Text or reasoning that grows; at most one, because a new kind ends the old.
    prose: Option<Prose>,
    calls: Vec<OpenCall>,
    has_calls: bool,
    has_refusal: bool,
    finish_reason: Option<String>,
    usage: TokenUsage,
}

#[derive(Debug)]
struct Prose {
    index: usize,
    text: String,
    /// The field reasoning came in; `None` is text.
    reasoning_field: Option<&'static str>,
}

#[derive(Debug)]
struct OpenCall {
    wire_index: u64,
    index: usize,
    call: ToolCall,
}

impl Decoder {
    pub(crate) fn push(&mut self, event: &sse::Event) -> Result<Vec<StreamEvent>, ModelFailure> {
        if event.data.trim() == "[DONE]" {
            return self.finish();
        }
        let data = parse_data(event)?;
        if !data["error"].is_null() {
            let error = if data["error"].is_object() {
                &data["error"]
            } else {
                &data
            };
            return Err(refusal::in_stream(error));
        }
        if event.name == "error" {
            return Err(refusal::in_stream(&data));
        }
        self.count(&data["usage"]);
        let mut events = Vec::new();
        let choice = data["choices"].as_array().and_then(|choices| {
            choices
                .iter()
                .find(|choice| choice["index"].as_u64().unwrap_or(0) == 0)
        });
        let Some(choice) = choice else {
            return Ok(events);
        };
        let delta = &choice["delta"];
        for field in ["reasoning_content", "reasoning"] {
            if let Some(text) = delta[field].as_str() {
                self.prose(text, Some(field), &mut events);
                break;
            }
        }
        self.content(&delta["content"], &mut events);
        if let Some(text) = delta["refusal"].as_str() {
            self.has_refusal = true;
            self.prose(text, None, &mut events);
        }
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            self.call(call, &mut events)?;
        }
        if let Some(reason) = choice["finish_reason"].as_str() {
            self.finish_reason = Some(reason.to_owned());
        }
        Ok(events)
    }

    /// A string, or parts where a server streams reasoning and text in one field.
    fn content(&mut self, content: &Value, events: &mut Vec<StreamEvent>) {
        if let Some(text) = content.as_str() {
            self.prose(text, None, events);
        }
        for part in content.as_array().into_iter().flatten() {
            if let Some(text) = part["text"].as_str() {
                self.prose(text, None, events);
            }
        }
    }

    fn prose(&mut self, text: &str, field: Option<&'static str>, events: &mut Vec<StreamEvent>) {
        if text.is_empty() {
            return;
        }
        let is_same = self
            .prose
            .as_ref()
            .is_some_and(|open| open.reasoning_field == field);
        if !is_same {
            self.end_prose(events);
            let kind = match field {
                Some(_) => BlockKind::Reasoning,
                None => BlockKind::Text,
            };
            let index = self.take_index();
            events.push(StreamEvent::BlockStarted { index, kind });
            self.prose = Some(Prose {
                index,
                text: String::new(),
                reasoning_field: field,
            });
        }
        if let Some(open) = &mut self.prose {
            open.text.push_str(text);
            let (index, text) = (open.index, text.to_owned());
            events.push(match field {
                Some(_) => StreamEvent::ReasoningDelta { index, text },
                None => StreamEvent::TextDelta { index, text },
            });
        }
    }

    fn end_prose(&mut self, events: &mut Vec<StreamEvent>) {
        let Some(open) = self.prose.take() else {
            return;
        };
        let block = match open.reasoning_field {
            None => Block::Text { text: open.text },
            Some(field) => Block::Reasoning {
                opaque: Some(Opaque {
                    format: WireFormat::OpenaiChat,
                    json: json!({ field: open.text }),
                }),
                text: open.text,
            },
        };
        events.push(StreamEvent::BlockCompleted {
            index: open.index,
            block,
        });
    }

    fn call(&mut self, delta: &Value, events: &mut Vec<StreamEvent>) -> Result<(), ModelFailure> {
        let id = delta["id"].as_str().filter(|id| !id.is_empty());
        let name = delta["function"]["name"].as_str().filter(|name| !name.is_empty());
        let position = match self.position(delta["index"].as_u64(), id) {
            Some(position) => position,
            None => self.start_call(delta, id, name, events)?,
        };
        let arguments = match &delta["function"]["arguments"] {
            Value::String(text) => text.clone(),
            // Some servers send the object itself.
            Value::Object(object) if !object.is_empty() => delta["function"]["arguments"].to_string(),
            _ => String::new(),
        };
        if !arguments.is_empty() {
            let open = &mut self.calls[position];
            open.call.arguments_json.push_str(&arguments);
            events.push(StreamEvent::ArgumentsDelta {
                index: open.index,
                json: arguments,
            });
        }
        Ok(())
    }

    /// The open call a delta continues. Servers exist that number every call 0 and tell them apart by id only, and
    /// servers that number nothing.
    fn position(&self, wire_index: Option<u64>, id: Option<&str>) -> Option<usize> {
        let found = match wire_index {
            Some(wire_index) => self.calls.iter().rposition(|open| open.wire_index == wire_index),
            None => self.calls.len().checked_sub(1),
        };
        found.filter(|position| id.is_none_or(|id| self.calls[*position].call.id == id))
    }

    fn start_call(
        &mut self,
        delta: &Value,
        id: Option<&str>,
        name: Option<&str>,
        events: &mut Vec<StreamEvent>,
    ) -> Result<usize, ModelFailure> {
        let name = name
            .ok_or_else(|| malformed("a tool call has no name"))?
            .to_owned();
        self.end_prose(events);
        self.has_calls = true;
        let index = self.take_index();
        let id = id.map_or_else(
            || format!("call_{:032x}", greenroom_stdx::id::fresh_bits()),
            str::to_owned,
        );
        events.push(StreamEvent::BlockStarted {
            index,
            kind: BlockKind::ToolCall {
                id: id.clone(),
                name: name.clone(),
            },
        });
        self.calls.push(OpenCall {
            wire_index: delta["index"].as_u64().unwrap_or(u64::MAX),
            index,
            call: ToolCall {
                id,
                name,
                arguments_json: String::new(),
            },
        });
        Ok(self.calls.len() - 1)
    }

    fn count(&mut self, usage: &Value) {
        if !usage.is_object() {
            return;
        }
        let cache_read_tokens = tokens(usage, "/prompt_tokens_details/cached_tokens")
            .max(tokens(usage, "/prompt_cache_hit_tokens"));
        self.usage = TokenUsage {
            input_tokens: tokens(usage, "/prompt_tokens").saturating_sub(cache_read_tokens),
            output_tokens: tokens(usage, "/completion_tokens"),
            cache_read_tokens,
            cache_write_tokens: 0,
        };
    }

    fn finish(&mut self) -> Result<Vec<StreamEvent>, ModelFailure> {
        let mut events = Vec::new();
        self.end_prose(&mut events);
        for open in self.calls.drain(..) {
            events.push(StreamEvent::BlockCompleted {
                index: open.index,
                block: Block::ToolCall(open.call),
            });
        }
        let stop_reason = match self.finish_reason.as_deref() {
            // Servers exist that say `stop` although they call tools.
            Some("tool_calls" | "stop" | "function_call") if self.has_calls => StopReason::ToolCalls,
            Some("stop" | "tool_calls") if self.has_refusal => StopReason::Refusal,
            Some("stop" | "tool_calls") => StopReason::EndTurn,
            Some("length") => StopReason::MaxOutputTokens,
            Some("content_filter") => StopReason::Refusal,
            Some(other) => StopReason::Other(other.to_owned()),
            None if self.next_index == 0 => return Err(malformed("the answer is empty")),
            None => return Err(malformed("the answer ends without a finish_reason")),
        };
        events.push(StreamEvent::Finished {
            stop_reason,
            usage: self.usage,
        });
        Ok(events)
    }

    fn take_index(&mut self) -> usize {
        let index = self.next_index;
        self.next_index += 1;
        index
    }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
