//! Anthropic Messages from the provider's side.

use super::speech::{self, Speech, begin, list, text};
use axum::http::HeaderMap;
use greenroom_llm::conversation::{
    Block, Message, ModelRequest, Opaque, Role, StopReason, SystemBlock, ToolCall, WireFormat,
};
use greenroom_llm::scripted::player::Answer;
use serde_json::{Value, json};

pub(super) struct Anthropic;

/// Stands for the signature of scripted reasoning.
const SIGNATURE: &str = "c2NyaXB0ZWQ=";

impl Speech for Anthropic {
    fn request(&self, body: &Value) -> Result<ModelRequest, String> {
        let mut request = begin(body)?;
        let limit = body["max_tokens"]
            .as_u64()
            .ok_or("`max_tokens` must be a number")?;
        request.max_output_tokens = u32::try_from(limit).map_err(|_| "`max_tokens` is too large")?;
        for block in body["system"].as_array().into_iter().flatten() {
            request.system.push(SystemBlock {
                text: text(block, "text")?,
            });
        }
        for tool in body["tools"].as_array().into_iter().flatten() {
            request.tools.push(speech::tool(tool, "input_schema")?);
        }
        for message in list(body, "messages")? {
            let role = match message["role"].as_str() {
                Some("user") => Role::User,
                Some("assistant") => Role::Assistant,
                _ => return Err("`role` must be user or assistant".to_owned()),
            };
            let blocks = content(&message["content"])?;
            request.messages.push(Message { role, blocks });
        }
        Ok(request)
    }

    fn events(&self, answer: &Answer, model: &str) -> Vec<(Option<String>, Value)> {
        let usage = |output_tokens: u64| {
            json!({
                "input_tokens": answer.usage.input_tokens,
                "output_tokens": output_tokens,
                "cache_creation_input_tokens": answer.usage.cache_write_tokens,
                "cache_read_input_tokens": answer.usage.cache_read_tokens,
                "cache_creation": null,
                "inference_geo": null,
                "output_tokens_details": null,
                "server_tool_use": null,
                "service_tier": "standard",
            })
        };
        let message = json!({
            "id": "msg_scripted",
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": [],
            "container": null,
            "stop_reason": null,
            "stop_sequence": null,
            "stop_details": null,
            "usage": usage(1),
        });
        let mut events = vec![
            json!({"type": "message_start", "message": message}),
            json!({"type": "ping"}),
        ];
        for (index, block) in answer.blocks.iter().enumerate() {
            block_events(answer, index, block, &mut events);
        }
        let stop_reason = match answer.stop_reason() {
            StopReason::ToolCalls => "tool_use",
            _ => "end_turn",
        };
        let mut total = usage(answer.usage.output_tokens);
        if let Some(total) = total.as_object_mut() {
            // These belong to the message's start only.
            for key in ["cache_creation", "inference_geo", "service_tier"] {
                total.remove(key);
            }
        }
        events.push(json!({
            "type": "message_delta",
            "delta": {"stop_reason": stop_reason, "stop_sequence": null, "stop_details": null, "container": null},
            "usage": total,
        }));
        events.push(json!({"type": "message_stop"}));
        events
            .into_iter()
            .map(|data| (data["type"].as_str().map(str::to_owned), data))
            .collect()
    }

    fn closing(&self) -> Option<&'static str> {
        None
    }

    fn error(&self, status: u16, message: &str) -> Value {
        let kind = match status {
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            413 => "request_too_large",
            429 => "rate_limit_error",
            529 => "overloaded_error",
            500.. => "api_error",
            _ => "invalid_request_error",
        };
        json!({
            "type": "error",
            "error": {"type": kind, "message": message},
            "request_id": null,
        })
    }

    fn error_event(&self, message: &str) -> (Option<String>, Value) {
        (Some("error".to_owned()), self.error(529, message))
    }

    fn key<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        headers.get("x-api-key")?.to_str().ok()
    }
}

fn block_events(answer: &Answer, index: usize, block: &Block, events: &mut Vec<Value>) {
    let (start, text, delta_type, delta_key) = match block {
        Block::Text { text } => (
            json!({"type": "text", "text": "", "citations": null}),
            text,
            "text_delta",
            "text",
        ),
        Block::Reasoning { text, .. } => {
            let start = json!({"type": "thinking", "thinking": "", "signature": ""});
            (start, text, "thinking_delta", "thinking")
        }
        Block::ToolCall(call) => {
            let start = json!({
                "type": "tool_use",
                "id": call.id,
                "name": call.name,
                "input": {},
                "caller": {"type": "direct"},
            });
            (start, &call.arguments_json, "input_json_delta", "partial_json")
        }
        // A script holds no other blocks.
        Block::Image { .. } | Block::KeptImage { .. } | Block::ToolResult { .. } | Block::Unknown { .. } => {
            return;
        }
    };
    events.push(json!({"type": "content_block_start", "index": index, "content_block": start}));
    for chunk in answer.chunks(text) {
        let delta = json!({"type": delta_type, delta_key: chunk});
        events.push(json!({"type": "content_block_delta", "index": index, "delta": delta}));
    }
    if matches!(block, Block::Reasoning { .. }) {
        let delta = json!({"type": "signature_delta", "signature": SIGNATURE});
        events.push(json!({"type": "content_block_delta", "index": index, "delta": delta}));
    }
    events.push(json!({"type": "content_block_stop", "index": index}));
}

fn content(content: &Value) -> Result<Vec<Block>, String> {
    if let Some(text) = content.as_str() {
        return Ok(vec![Block::Text {
            text: text.to_owned(),
        }]);
    }
    let blocks = content.as_array().ok_or("`content` must be a text or a list")?;
    blocks.iter().map(block).collect()
}

fn block(block: &Value) -> Result<Block, String> {
    let opaque = || Opaque {
        format: WireFormat::AnthropicMessages,
        json: block.clone(),
    };
    match block["type"].as_str() {
        Some("text") => Ok(Block::Text {
            text: text(block, "text")?,
        }),
        Some("image") => Ok(Block::Image {
            media_type: text(&block["source"], "media_type")?,
            data_base64: text(&block["source"], "data")?,
        }),
        Some("thinking" | "redacted_thinking") => Ok(Block::Reasoning {
            text: block["thinking"].as_str().unwrap_or_default().to_owned(),
            opaque: Some(opaque()),
        }),
        Some("tool_use") => {
            if !block["input"].is_object() {
                return Err("`input` of a tool_use must be an object".to_owned());
            }
            Ok(Block::ToolCall(ToolCall {
                id: text(block, "id")?,
                name: text(block, "name")?,
                arguments_json: block["input"].to_string(),
            }))
        }
        Some("tool_result") => Ok(Block::ToolResult {
            call_id: text(block, "tool_use_id")?,
            content: if block["content"].is_null() {
                Vec::new()
            } else {
                content(&block["content"])?
            },
            is_error: block["is_error"] == true,
        }),
        Some(_) => Ok(Block::Unknown { opaque: opaque() }),
        None => Err("a block must have a `type`".to_owned()),
    }
}
