//! Cases of `chat::encode`.

use super::*;
use crate::conversation::{Opaque, ReasoningEffort, SystemBlock, ToolSpec};

fn text(text: &str) -> Block {
    Block::Text {
        text: text.to_owned(),
    }
}

fn image() -> Block {
    Block::Image {
        media_type: "image/png".to_owned(),
        data_base64: "aGk=".to_owned(),
    }
}

fn thought(text: &str) -> Block {
    Block::Reasoning {
        text: text.to_owned(),
        opaque: Some(Opaque {
            format: WireFormat::OpenaiChat,
            json: json!({"reasoning_content": text}),
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

fn result(id: &str, content: Vec<Block>) -> Block {
    Block::ToolResult {
        call_id: id.to_owned(),
        content,
        is_error: false,
    }
}

fn message(role: Role, blocks: Vec<Block>) -> Message {
    Message { role, blocks }
}

#[test]
fn a_whole_conversation() {
    let request = ModelRequest {
        model: "qwen3-coder".to_owned(),
        system: vec![SystemBlock {
            text: "Be kind.".to_owned(),
        }],
        messages: vec![
            message(Role::User, vec![text("Hello.")]),
            message(Role::Assistant, vec![thought("Old."), text("Hi.")]),
            message(Role::User, vec![text("Look."), image()]),
            message(
                Role::Assistant,
                vec![
                    thought("New."),
                    call("a", r#"{"path": "a"}"#),
                    call("b", "{broken"),
                ],
            ),
            message(
                Role::User,
                vec![
                    result("a", vec![text("A"), image()]),
                    result("b", vec![text("B")]),
                ],
            ),
        ],
        tools: vec![ToolSpec {
            name: "read".to_owned(),
            description: "Reads.".to_owned(),
            input_schema: json!({"type": "object"}),
        }],
        max_output_tokens: 4096,
        reasoning: Some(ReasoningEffort::Low),
        cache_key: Some("ses_1".to_owned()),
    };
    let image = json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}});
    let function = |arguments: &str| json!({"name": "read", "arguments": arguments});
    let malformed = r#"{"_malformed_arguments":"{broken"}"#;
    assert_eq!(
        encode(&request),
        json!({
            "model": "qwen3-coder",
            "stream": true,
            "stream_options": {"include_usage": true},
            "max_tokens": 4096,
            "messages": [
                {"role": "system", "content": "Be kind."},
                {"role": "user", "content": "Hello."},
                {"role": "assistant", "content": "Hi."},
                {"role": "user", "content": [{"type": "text", "text": "Look."}, image]},
                {"role": "assistant", "reasoning_content": "New.", "content": null, "tool_calls": [
                    {"id": "a", "type": "function", "function": function("{\"path\": \"a\"}")},
                    {"id": "b", "type": "function", "function": function(malformed)},
                ]},
                {"role": "tool", "tool_call_id": "a", "content": "A"},
                {"role": "tool", "tool_call_id": "b", "content": "B"},
                {"role": "user", "content": [
                    {"type": "text", "text": "[image from the result of tool call a]"}, image,
                ]},
            ],
            "tools": [{"type": "function", "function": {
                "name": "read", "description": "Reads.", "parameters": {"type": "object"},
            }}],
            "reasoning_effort": "low",
        })
    );
}

#[test]
fn newer_fields_go_to_hosted_models_only() {
    for (model, is_hosted) in [
        ("gpt-5.4", true),
        ("o3", true),
        ("openai/gpt-5.4", true),
        ("gpt-oss:20b", false),
        ("openai/gpt-oss-120b", false),
        ("olmo-3", false),
        ("llama3.3", false),
    ] {
        let request = ModelRequest {
            model: model.to_owned(),
            cache_key: Some("k".to_owned()),
            ..ModelRequest::default()
        };
        let body = encode(&request);
        assert_eq!(body.get("max_completion_tokens").is_some(), is_hosted, "{model}");
        assert_eq!(body.get("prompt_cache_key").is_some(), is_hosted, "{model}");
    }
}
