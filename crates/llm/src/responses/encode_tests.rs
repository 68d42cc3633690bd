//! Cases of `responses::encode`.

use super::*;
use crate::conversation::{ReasoningEffort, SystemBlock, ToolCall, ToolSpec};

fn text(text: &str) -> Block {
    Block::Text {
        text: text.to_owned(),
    }
}

fn reasoning(json: Value) -> Block {
    Block::Reasoning {
        text: String::new(),
        opaque: Some(Opaque {
            format: WireFormat::OpenaiResponses,
            json,
        }),
    }
}

fn call(id: &str, arguments: &str) -> Block {
    Block::ToolCall(ToolCall {
        id: id.to_owned(),
        name: "read".to_owned(),
        arguments_json: arguments.to_owned(),
    })
}

#[test]
fn a_whole_conversation() {
    let sealed =
        json!({"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "enc", "new": 1});
    let image = Block::Image {
        media_type: "image/png".to_owned(),
        data_base64: "aGk=".to_owned(),
    };
    let result = |id: &str, content: Vec<Block>, is_error| Block::ToolResult {
        call_id: id.to_owned(),
        content,
        is_error,
    };
    let request = ModelRequest {
        model: "gpt-5.4".to_owned(),
        system: vec![
            SystemBlock {
                text: "Be kind.".to_owned(),
            },
            SystemBlock {
                text: "Today.".to_owned(),
            },
        ],
        messages: vec![
            Message {
                role: Role::User,
                blocks: vec![text("Look."), image.clone()],
            },
            Message {
                role: Role::Assistant,
                blocks: vec![
                    reasoning(sealed.clone()),
                    call("a", r#"{"path": "a"}"#),
                    reasoning(json!({"type": "reasoning", "id": "rs_2", "summary": []})),
                    text("Both."),
                    call("b", "[1]"),
                    call("c", ""),
                ],
            },
            Message {
                role: Role::User,
                blocks: vec![
                    result("a", vec![text("A"), image], false),
                    result("b", vec![text("bad")], true),
                    result("c", vec![], false),
                    text("Go on."),
                ],
            },
        ],
        tools: vec![ToolSpec {
            name: "read".to_owned(),
            description: "Reads.".to_owned(),
            input_schema: json!({"type": "object"}),
        }],
        max_output_tokens: 4096,
        reasoning: Some(ReasoningEffort::High),
        cache_key: Some("ses_1".to_owned()),
    };
    let image = json!({"type": "input_image", "detail": "auto", "image_url": "data:image/png;base64,aGk="});
    let malformed = r#"{"_malformed_arguments":"[1]"}"#;
    assert_eq!(
        encode(&request),
        json!({
            "model": "gpt-5.4",
            "stream": true,
            "store": false,
            "max_output_tokens": 4096,
            "instructions": "Be kind.\n\nToday.",
            "input": [
                {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Look."}, image]},
                sealed,
                {"type": "function_call", "call_id": "a", "name": "read", "arguments": "{\"path\": \"a\"}"},
                {"type": "message", "role": "assistant", "content": "Both."},
                {"type": "function_call", "call_id": "b", "name": "read", "arguments": malformed},
                {"type": "function_call", "call_id": "c", "name": "read", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "a",
                 "output": [{"type": "input_text", "text": "A"}, image]},
                {"type": "function_call_output", "call_id": "b", "output": "Error: bad"},
                {"type": "function_call_output", "call_id": "c", "output": ""},
                {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Go on."}]},
            ],
            "tools": [{
                "type": "function", "name": "read", "description": "Reads.",
                "parameters": {"type": "object"}, "strict": false,
            }],
            "parallel_tool_calls": true,
            "include": ["reasoning.encrypted_content"],
            "reasoning": {"effort": "high", "summary": "auto"},
            "prompt_cache_key": "ses_1",
        })
    );
}

#[test]
fn models_that_cannot_reason_are_not_asked_to() {
    let request = ModelRequest {
        model: "gpt-4.1".to_owned(),
        reasoning: Some(ReasoningEffort::High),
        ..ModelRequest::default()
    };
    let body = encode(&request);
    assert!(body.get("include").is_none() && body.get("reasoning").is_none());
}
