//! Events of a streamed response. Pure; one decoder per answer. Each output item is one block; the item as it is when
//! done is the truth, deltas are only for watching.

use crate::conversation::{
    Block, BlockKind, Opaque, StopReason, StreamEvent, TokenUsage, ToolCall, WireFormat,
};
use crate::failure::ModelFailure;
use crate::openai::tokens;
use crate::wire::{malformed, parse_data};
use crate::{refusal, sse};
use serde_json::Value;

#[derive(Debug, Default)]
pub(crate) struct Decoder {
    items: Vec<Item>,
    has_calls: bool,
    has_refusal: bool,
}

#[derive(Debug)]
struct Item {
    output_index: u64,
    is_done: bool,
    /// As it was announced.
    announced: Value,
    /// What streamed in: text, reasoning or arguments.
    streamed: String,
}

impl Decoder {
    pub(crate) fn push(&mut self, event: &sse::Event) -> Result<Vec<StreamEvent>, ModelFailure> {
        // Some servers close the stream as the chat format does.
        if event.data == "[DONE]" {
            return Ok(Vec::new());
        }
        let data = parse_data(event)?;
        match data["type"].as_str().unwrap_or(&event.name) {
            "response.output_item.added" => {
                let (_, events) = self.announce(output_index(&data)?, &data["item"])?;
                Ok(events)
            }
            "response.output_item.done" => self.done(output_index(&data)?, &data["item"]),
            "response.output_text.delta" | "response.refusal.delta" => {
                self.delta(&data, |index, text| StreamEvent::TextDelta { index, text })
            }
            "response.reasoning_summary_text.delta" | "response.reasoning_text.delta" => {
                self.delta(&data, |index, text| StreamEvent::ReasoningDelta { index, text })
            }
            "response.reasoning_summary_part.added" => self.summary_part(&data),
            "response.function_call_arguments.delta" => {
                self.delta(&data, |index, json| StreamEvent::ArgumentsDelta { index, json })
            }
            "response.completed" => self.finish(&data["response"], StopReason::EndTurn),
            "response.incomplete" => {
                let reason = match data["response"]["incomplete_details"]["reason"].as_str() {
                    Some("max_output_tokens") => StopReason::MaxOutputTokens,
                    Some("content_filter") => StopReason::Refusal,
                    other => StopReason::Other(other.unwrap_or("incomplete").to_owned()),
                };
                self.finish(&data["response"], reason)
            }
            "response.failed" => Err(refusal::in_stream(&data["response"]["error"])),
            "error" if data["error"].is_object() => Err(refusal::in_stream(&data["error"])),
            "error" => Err(refusal::in_stream(&data)),
            // Parts, `.done` of texts, tools we do not use, and whatever comes later.
            _ => Ok(Vec::new()),
        }
    }

    fn announce(
        &mut self,
        output_index: u64,
        item: &Value,
    ) -> Result<(usize, Vec<StreamEvent>), ModelFailure> {
        if let Some(index) = self.position(output_index) {
            return Ok((index, Vec::new()));
        }
        let index = self.items.len();
        let kind = kind_of(item)?;
        self.items.push(Item {
            output_index,
            is_done: false,
            announced: item.clone(),
            streamed: String::new(),
        });
        Ok((index, vec![StreamEvent::BlockStarted { index, kind }]))
    }

    fn done(&mut self, output_index: u64, item: &Value) -> Result<Vec<StreamEvent>, ModelFailure> {
        let (index, mut events) = self.announce(output_index, item)?;
        if std::mem::replace(&mut self.items[index].is_done, true) {
            return Ok(events);
        }
        let block = block_of(item, &self.items[index].streamed)?;
        self.has_calls |= matches!(block, Block::ToolCall(_));
        self.has_refusal |= item["content"]
            .as_array()
            .is_some_and(|parts| parts.iter().any(|part| part["type"] == "refusal"));
        events.push(StreamEvent::BlockCompleted { index, block });
        Ok(events)
    }

    fn delta(
        &mut self,
        data: &Value,
        event: impl Fn(usize, String) -> StreamEvent,
    ) -> Result<Vec<StreamEvent>, ModelFailure> {
        let index = self.position(output_index(data)?);
        let index = index.ok_or_else(|| malformed("a delta belongs to no item"))?;
        let text = data["delta"]
            .as_str()
            .ok_or_else(|| malformed("a delta lacks its text"))?;
        self.items[index].streamed.push_str(text);
        Ok(vec![event(index, text.to_owned())])
    }

    /// Summary parts are paragraphs.
    fn summary_part(&mut self, data: &Value) -> Result<Vec<StreamEvent>, ModelFailure> {
        let index = self.position(output_index(data)?);
        let index = index.ok_or_else(|| malformed("a summary belongs to no item"))?;
        let item = &mut self.items[index];
        if item.streamed.is_empty() {
            return Ok(Vec::new());
        }
        item.streamed.push_str("\n\n");
        Ok(vec![StreamEvent::ReasoningDelta {
            index,
            text: "\n\n".to_owned(),
        }])
    }

    fn finish(&mut self, response: &Value, reason: StopReason) -> Result<Vec<StreamEvent>, ModelFailure> {
        let mut events = Vec::new();
        // Servers that announce nothing, or finish no item, still send the whole output here.
        let output = response["output"].as_array().map_or(&[][..], Vec::as_slice);
        for (output_index, item) in (0..).zip(output) {
            events.append(&mut self.done(output_index, item)?);
        }
        for index in 0..self.items.len() {
            if !self.items[index].is_done {
                let (output_index, item) = (
                    self.items[index].output_index,
                    self.items[index].announced.clone(),
                );
                events.append(&mut self.done(output_index, &item)?);
            }
        }
        let stop_reason = match reason {
            StopReason::EndTurn if self.has_calls => StopReason::ToolCalls,
            StopReason::EndTurn if self.has_refusal => StopReason::Refusal,
            other => other,
        };
        events.push(StreamEvent::Finished {
            stop_reason,
            usage: usage(&response["usage"]),
        });
        Ok(events)
    }

    fn position(&self, output_index: u64) -> Option<usize> {
        self.items
            .iter()
            .position(|item| item.output_index == output_index)
    }
}

fn kind_of(item: &Value) -> Result<BlockKind, ModelFailure> {
    match item["type"].as_str() {
        Some("message") => Ok(BlockKind::Text),
        Some("reasoning") => Ok(BlockKind::Reasoning),
        Some("function_call") => {
            let call = call_of(item, "")?;
            Ok(BlockKind::ToolCall {
                id: call.id,
                name: call.name,
            })
        }
        Some(_) => Ok(BlockKind::Unknown),
        None => Err(malformed("an item has no type")),
    }
}

fn block_of(item: &Value, streamed: &str) -> Result<Block, ModelFailure> {
    let opaque = || Opaque {
        format: WireFormat::OpenaiResponses,
        json: item.clone(),
    };
    match item["type"].as_str() {
        Some("message") => {
            let text = texts(&item["content"], "").unwrap_or_else(|| streamed.to_owned());
            Ok(Block::Text { text })
        }
        Some("reasoning") => {
            let text = texts(&item["summary"], "\n\n")
                .or_else(|| texts(&item["content"], "\n\n"))
                .unwrap_or_else(|| streamed.to_owned());
            Ok(Block::Reasoning {
                text,
                opaque: Some(opaque()),
            })
        }
        Some("function_call") => call_of(item, streamed).map(Block::ToolCall),
        _ => Ok(Block::Unknown { opaque: opaque() }),
    }
}

fn call_of(item: &Value, streamed: &str) -> Result<ToolCall, ModelFailure> {
    let (Some(id), Some(name)) = (item["call_id"].as_str(), item["name"].as_str()) else {
        return Err(malformed("a tool call has no call_id or no name"));
    };
    let arguments = item["arguments"]
        .as_str()
        .filter(|text| !text.is_empty())
        .unwrap_or(streamed);
    Ok(ToolCall {
        id: id.to_owned(),
        name: name.to_owned(),
        arguments_json: arguments.to_owned(),
    })
}

/// Joined texts (and refusals) of parts; `None` where there are none.
fn texts(parts: &Value, separator: &str) -> Option<String> {
    let texts: Vec<&str> = parts
        .as_array()?
        .iter()
        .filter_map(|part| part["text"].as_str().or_else(|| part["refusal"].as_str()))
        .collect();
    (!texts.is_empty()).then(|| texts.join(separator))
}

fn output_index(data: &Value) -> Result<u64, ModelFailure> {
    data["output_index"]
        .as_u64()
        .ok_or_else(|| malformed("an event of an item has no output_index"))
}

fn usage(usage: &Value) -> TokenUsage {
    let cache_read_tokens = tokens(usage, "/input_tokens_details/cached_tokens");
    TokenUsage {
        input_tokens: tokens(usage, "/input_tokens").saturating_sub(cache_read_tokens),
        output_tokens: tokens(usage, "/output_tokens"),
        cache_read_tokens,
        cache_write_tokens: 0,
    }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
