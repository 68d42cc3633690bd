//! OpenAI Responses from the provider's side.

use super::speech::{self, Speech, add, begin, has_results, list, text};
use axum::http::HeaderMap;
use greenroom_llm::conversation::{
    Block, Message, ModelRequest, Opaque, Role, SystemBlock, ToolCall, WireFormat,
};
use greenroom_llm::scripted::player::Answer;
use serde_json::{Value, json};

pub(super) struct Responses;

impl Speech for Responses {
    fn request(&self, body: &Value) -> Result<ModelRequest, String> {
        let mut request = begin(body)?;
        if let Some(instructions) = body["instructions"].as_str() {
            request.system.push(SystemBlock {
                text: instructions.to_owned(),
            });
        }
        for tool in body["tools"].as_array().into_iter().flatten() {
            request.tools.push(speech::tool(tool, "parameters")?);
        }
        request.cache_key = body["prompt_cache_key"].as_str().map(str::to_owned);
        for item in list(body, "input")? {
            read_item(item, &mut request.messages)?;
        }
        Ok(request)
    }

    fn events(&self, answer: &Answer, model: &str) -> Vec<(Option<String>, Value)> {
        let mut writer = Writer {
            answer,
            model,
            events: Vec::new(),
            output: Vec::new(),
        };
        writer.write();
        writer
            .events
            .into_iter()
            .map(|data| (data["type"].as_str().map(str::to_owned), data))
            .collect()
    }

    fn closing(&self) -> Option<&'static str> {
        None
    }

    fn error(&self, status: u16, message: &str) -> Value {
        error(status, message)
    }

    fn error_event(&self, message: &str) -> (Option<String>, Value) {
        let data = json!({
            "type": "error",
            "code": "server_error",
            "message": message,
            "param": null,
            "sequence_number": 0,
        });
        (Some("error".to_owned()), data)
    }

    fn key<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        bearer(headers)
    }
}

/// OpenAI's body of a refusal.
pub(super) fn error(status: u16, message: &str) -> Value {
    let (kind, code) = match status {
        401 => ("invalid_request_error", Some("invalid_api_key")),
        429 => ("requests", Some("rate_limit_exceeded")),
        500.. => ("server_error", None),
        _ => ("invalid_request_error", None),
    };
    json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
}

/// The key of an `Authorization: Bearer` header.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers
        .get("authorization")?
        .to_str()
        .ok()?
        .strip_prefix("Bearer ")
}

struct Writer<'a> {
    answer: &'a Answer,
    model: &'a str,
    events: Vec<Value>,
    output: Vec<Value>,
}

impl Writer<'_> {
    fn write(&mut self) {
        let begun = self.response("in_progress");
        self.push("response.created", json!({"response": begun}));
        self.push("response.in_progress", json!({"response": begun}));
        for (index, block) in self.answer.blocks.iter().enumerate() {
            match block {
                Block::Reasoning { text, .. } => self.reasoning(index, text),
                Block::Text { text } => self.message(index, text),
                Block::ToolCall(call) => self.call(index, call),
                // A script holds no other blocks.
                Block::Image { .. }
                | Block::KeptImage { .. }
                | Block::ToolResult { .. }
                | Block::Unknown { .. } => {}
            }
        }
        let whole = self.response("completed");
        self.push("response.completed", json!({"response": whole}));
    }

    fn push(&mut self, kind: &str, mut data: Value) {
        data["type"] = json!(kind);
        data["sequence_number"] = json!(self.events.len());
        self.events.push(data);
    }

    fn begin_item(&mut self, index: usize, item: &Value) {
        self.push(
            "response.output_item.added",
            json!({"output_index": index, "item": item}),
        );
    }

    fn end_item(&mut self, index: usize, item: Value) {
        self.push(
            "response.output_item.done",
            json!({"output_index": index, "item": item}),
        );
        self.output.push(item);
    }

    fn reasoning(&mut self, index: usize, text: &str) {
        let id = format!("rs_{index}");
        let item = |summary: Value| {
            json!({
                "id": id,
                "type": "reasoning",
                "summary": summary,
                "encrypted_content": "c2NyaXB0ZWQ=",
            })
        };
        let place = json!({"item_id": id, "output_index": index, "summary_index": 0});
        let part = |text: &str| json!({"type": "summary_text", "text": text});
        self.begin_item(index, &item(json!([])));
        self.push(
            "response.reasoning_summary_part.added",
            with(&place, "part", part("")),
        );
        for chunk in self.answer.chunks(text) {
            self.push(
                "response.reasoning_summary_text.delta",
                with(&place, "delta", json!(chunk)),
            );
        }
        self.push(
            "response.reasoning_summary_text.done",
            with(&place, "text", json!(text)),
        );
        self.push(
            "response.reasoning_summary_part.done",
            with(&place, "part", part(text)),
        );
        self.end_item(index, item(json!([part(text)])));
    }

    fn message(&mut self, index: usize, text: &str) {
        let id = format!("msg_{index}");
        let item = |status: &str, content: Value| json!({"id": id, "type": "message", "role": "assistant", "status": status, "content": content});
        let place = json!({"item_id": id, "output_index": index, "content_index": 0});
        let part =
            |text: &str| json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []});
        self.begin_item(index, &item("in_progress", json!([])));
        self.push("response.content_part.added", with(&place, "part", part("")));
        for chunk in self.answer.chunks(text) {
            let delta = with(&with(&place, "delta", json!(chunk)), "logprobs", json!([]));
            self.push("response.output_text.delta", delta);
        }
        let done = with(&with(&place, "text", json!(text)), "logprobs", json!([]));
        self.push("response.output_text.done", done);
        self.push("response.content_part.done", with(&place, "part", part(text)));
        self.end_item(index, item("completed", json!([part(text)])));
    }

    fn call(&mut self, index: usize, call: &ToolCall) {
        let id = format!("fc_{index}");
        let item = |status: &str, arguments: &str| {
            json!({
                "id": id,
                "type": "function_call",
                "status": status,
                "call_id": call.id,
                "name": call.name,
                "arguments": arguments,
            })
        };
        let place = json!({"item_id": id, "output_index": index});
        self.begin_item(index, &item("in_progress", ""));
        for chunk in self.answer.chunks(&call.arguments_json) {
            self.push(
                "response.function_call_arguments.delta",
                with(&place, "delta", json!(chunk)),
            );
        }
        let done = with(
            &with(&place, "arguments", json!(call.arguments_json)),
            "name",
            json!(call.name),
        );
        self.push("response.function_call_arguments.done", done);
        self.end_item(index, item("completed", &call.arguments_json));
    }

    fn response(&self, status: &str) -> Value {
        let usage = self.answer.usage;
        let usage = json!({
            "input_tokens": usage.input_tokens,
            "input_tokens_details": {"cached_tokens": usage.cache_read_tokens},
            "output_tokens": usage.output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage.input_tokens + usage.output_tokens,
        });
        let mut response = json!({
            "id": "resp_scripted",
            "object": "response",
            "created_at": 0,
            "status": status,
            "error": null,
            "incomplete_details": null,
            "instructions": null,
            "metadata": {},
            "model": self.model,
            "output": self.output,
            "parallel_tool_calls": true,
            "temperature": 1,
            "tool_choice": "auto",
            "tools": [],
            "top_p": 1,
        });
        if status == "completed" {
            response["usage"] = usage;
        }
        response
    }
}

fn with(place: &Value, key: &str, value: Value) -> Value {
    let mut data = place.clone();
    data[key] = value;
    data
}

fn read_item(item: &Value, messages: &mut Vec<Message>) -> Result<(), String> {
    let opaque = || Opaque {
        format: WireFormat::OpenaiResponses,
        json: item.clone(),
    };
    let assistant = |messages: &mut Vec<Message>, block: Block| {
        add(messages, Role::Assistant, vec![block], |_| true);
    };
    match item["type"].as_str().unwrap_or("message") {
        "message" => {
            let blocks = content(&item["content"])?;
            match item["role"].as_str() {
                Some("user") => messages.push(Message {
                    role: Role::User,
                    blocks,
                }),
                Some("assistant") => add(messages, Role::Assistant, blocks, |_| true),
                _ => return Err("`role` must be user or assistant".to_owned()),
            }
        }
        "function_call" => {
            let call = ToolCall {
                id: text(item, "call_id")?,
                name: text(item, "name")?,
                arguments_json: text(item, "arguments")?,
            };
            call.arguments()?;
            assistant(messages, Block::ToolCall(call));
        }
        "function_call_output" => {
            let output = content(&item["output"])?;
            let result = Block::ToolResult {
                call_id: text(item, "call_id")?,
                is_error: speech::is_error(&output),
                content: output,
            };
            add(messages, Role::User, vec![result], has_results);
        }
        "reasoning" => {
            let block = Block::Reasoning {
                text: String::new(),
                opaque: Some(opaque()),
            };
            assistant(messages, block);
        }
        _ => assistant(messages, Block::Unknown { opaque: opaque() }),
    }
    Ok(())
}

fn content(content: &Value) -> Result<Vec<Block>, String> {
    if let Some(text) = content.as_str() {
        return Ok(vec![Block::Text {
            text: text.to_owned(),
        }]);
    }
    let parts = content.as_array().ok_or("content must be a text or a list")?;
    parts
        .iter()
        .map(|part| match part["type"].as_str() {
            Some("input_text" | "output_text") => Ok(Block::Text {
                text: text(part, "text")?,
            }),
            Some("input_image") => speech::image(&text(part, "image_url")?),
            other => Err(format!("a part of content has the unknown type {other:?}")),
        })
        .collect()
}
