//! OpenAI Chat Completions from the provider's side, with reasoning as vLLM streams it.

use super::responses::{bearer, error};
use super::speech::{self, Speech, add, begin, has_results, list, text};
use axum::http::HeaderMap;
use greenroom_llm::conversation::{Block, Message, ModelRequest, Role, StopReason, SystemBlock, ToolCall};
use greenroom_llm::scripted::player::Answer;
use greenroom_llm::wire::TOOL_IMAGE_NOTE;
use serde_json::{Value, json};

pub(super) struct Chat;

impl Speech for Chat {
    fn request(&self, body: &Value) -> Result<ModelRequest, String> {
        let mut request = begin(body)?;
        for tool in body["tools"].as_array().into_iter().flatten() {
            request.tools.push(speech::tool(&tool["function"], "parameters")?);
        }
        request.cache_key = body["prompt_cache_key"].as_str().map(str::to_owned);
        for message in list(body, "messages")? {
            match message["role"].as_str() {
                Some("system") => request.system.push(SystemBlock {
                    text: text(message, "content")?,
                }),
                _ => read_message(message, &mut request.messages)?,
            }
        }
        Ok(request)
    }

    fn events(&self, answer: &Answer, model: &str) -> Vec<(Option<String>, Value)> {
        let chunk = |choices: Value, usage: Value| {
            let chunk = json!({
                "id": "chatcmpl-scripted",
                "object": "chat.completion.chunk",
                "created": 0,
                "model": model,
                "choices": choices,
                "usage": usage,
            });
            (None, chunk)
        };
        let delta = |delta: Value, reason: Option<&str>| {
            let choice = json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": reason});
            chunk(json!([choice]), Value::Null)
        };
        let mut events = vec![delta(json!({"role": "assistant", "content": ""}), None)];
        let mut calls = 0;
        for block in &answer.blocks {
            match block {
                Block::Text { text } => {
                    events.extend(
                        answer
                            .chunks(text)
                            .iter()
                            .map(|text| delta(json!({"content": text}), None)),
                    );
                }
                Block::Reasoning { text, .. } => {
                    let chunks = answer.chunks(text);
                    events.extend(
                        chunks
                            .iter()
                            .map(|text| delta(json!({"reasoning_content": text}), None)),
                    );
                }
                Block::ToolCall(call) => {
                    let function = json!({"name": call.name, "arguments": ""});
                    let start =
                        json!({"index": calls, "id": call.id, "type": "function", "function": function});
                    events.push(delta(json!({"tool_calls": [start]}), None));
                    events.extend(answer.chunks(&call.arguments_json).iter().map(|arguments| {
                        let more = json!({"index": calls, "function": {"arguments": arguments}});
                        delta(json!({"tool_calls": [more]}), None)
                    }));
                    calls += 1;
                }
                // A script holds no other blocks.
                Block::Image { .. }
                | Block::KeptImage { .. }
                | Block::ToolResult { .. }
                | Block::Unknown { .. } => {}
            }
        }
        let reason = match answer.stop_reason() {
            StopReason::ToolCalls => "tool_calls",
            _ => "stop",
        };
        events.push(delta(json!({}), Some(reason)));
        let usage = answer.usage;
        let usage = json!({
            "prompt_tokens": usage.input_tokens + usage.cache_read_tokens,
            "completion_tokens": usage.output_tokens,
            "total_tokens": usage.input_tokens + usage.cache_read_tokens + usage.output_tokens,
            "prompt_tokens_details": {"cached_tokens": usage.cache_read_tokens},
        });
        events.push(chunk(json!([]), usage));
        events
    }

    fn closing(&self) -> Option<&'static str> {
        Some("[DONE]")
    }

    fn error(&self, status: u16, message: &str) -> Value {
        error(status, message)
    }

    fn error_event(&self, message: &str) -> (Option<String>, Value) {
        (None, error(500, message))
    }

    fn key<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        bearer(headers)
    }
}

fn read_message(message: &Value, messages: &mut Vec<Message>) -> Result<(), String> {
    match message["role"].as_str() {
        Some("user") => {
            let blocks = content(&message["content"])?;
            // Images of a tool result come back into the message of the results.
            let is_note =
                matches!(blocks.first(), Some(Block::Text { text }) if text.starts_with(TOOL_IMAGE_NOTE));
            add(messages, Role::User, blocks, |last| is_note && has_results(last));
        }
        Some("tool") => {
            let output = content(&message["content"])?;
            let result = Block::ToolResult {
                call_id: text(message, "tool_call_id")?,
                is_error: speech::is_error(&output),
                content: output,
            };
            add(messages, Role::User, vec![result], has_results);
        }
        Some("assistant") => {
            let mut blocks = Vec::new();
            if !message["content"].is_null() {
                blocks = content(&message["content"])?;
            }
            for call in message["tool_calls"].as_array().into_iter().flatten() {
                let call = ToolCall {
                    id: text(call, "id")?,
                    name: text(&call["function"], "name")?,
                    arguments_json: text(&call["function"], "arguments")?,
                };
                call.arguments()?;
                blocks.push(Block::ToolCall(call));
            }
            messages.push(Message {
                role: Role::Assistant,
                blocks,
            });
        }
        other => return Err(format!("a message has the unknown role {other:?}")),
    }
    Ok(())
}

fn content(content: &Value) -> Result<Vec<Block>, String> {
    if let Some(text) = content.as_str() {
        return Ok(vec![Block::Text {
            text: text.to_owned(),
        }]);
    }
    let parts = content.as_array().ok_or("`content` must be a text or a list")?;
    parts
        .iter()
        .map(|part| match part["type"].as_str() {
            Some("text") => Ok(Block::Text {
                text: text(part, "text")?,
            }),
            Some("image_url") => speech::image(&text(&part["image_url"], "url")?),
            other => Err(format!("a part of `content` has the unknown type {other:?}")),
        })
        .collect()
}
