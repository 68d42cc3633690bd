//! Cases of `anthropic::encode`.

use super::*;
use crate::conversation::SystemBlock;

fn text(text: &str) -> Block {
    Block::Text {
        text: text.to_owned(),
    }
}

fn own(json: Value) -> Option<Opaque> {
    Some(Opaque {
        format: WireFormat::AnthropicMessages,
        json,
    })
}

fn message(role: Role, blocks: Vec<Block>) -> Message {
    Message { role, blocks }
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
    let thinking = json!({"type": "thinking", "thinking": "Hm.", "signature": "abc", "new": 1});
    let image = Block::Image {
        media_type: "image/png".to_owned(),
        data_base64: "aGk=".to_owned(),
    };
    let foreign = Opaque {
        format: WireFormat::OpenaiResponses,
        json: json!({"type": "reasoning"}),
    };
    let request = ModelRequest {
        model: "claude-sonnet-4-6".to_owned(),
        system: vec![
            SystemBlock {
                text: "Be kind.".to_owned(),
            },
            SystemBlock { text: String::new() },
        ],
        messages: vec![
            message(Role::User, vec![text("Look."), image.clone()]),
            message(
                Role::Assistant,
                vec![
                    Block::Reasoning {
                        text: "Hm.".to_owned(),
                        opaque: own(thinking.clone()),
                    },
                    Block::Reasoning {
                        text: "Foreign.".to_owned(),
                        opaque: Some(foreign),
                    },
                    text(""),
                    call("functions.read:0", r#"{"path": "a"}"#),
                    call("b", "{broken"),
                    call("c", ""),
                ],
            ),
            message(
                Role::User,
                vec![
                    Block::ToolResult {
                        call_id: "functions.read:0".to_owned(),
                        content: vec![text("A"), image],
                        is_error: false,
                    },
                    Block::ToolResult {
                        call_id: "b".to_owned(),
                        content: vec![text("bad")],
                        is_error: true,
                    },
                    Block::ToolResult {
                        call_id: "c".to_owned(),
                        content: vec![],
                        is_error: false,
                    },
                ],
            ),
        ],
        tools: vec![ToolSpec {
            name: "read".to_owned(),
            description: "Reads.".to_owned(),
            input_schema: json!({"type": "object"}),
        }],
        max_output_tokens: 4096,
        reasoning: None,
        cache_key: Some("ses_1".to_owned()),
    };
    let cached = json!({"type": "ephemeral"});
    let image =
        json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}});
    let mut prompt_image = image.clone();
    prompt_image["cache_control"] = cached.clone();
    assert_eq!(
        encode(&request),
        json!({
            "model": "claude-sonnet-4-6",
            "max_tokens": 4096,
            "stream": true,
            "system": [{"type": "text", "text": "Be kind.", "cache_control": cached}],
            "tools": [{
                "name": "read", "description": "Reads.", "input_schema": {"type": "object"}, "cache_control": cached,
            }],
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "Look."}, prompt_image]},
                {"role": "assistant", "content": [
                    thinking,
                    {"type": "tool_use", "id": "functions_read_0", "name": "read", "input": {"path": "a"}},
                    {"type": "tool_use", "id": "b", "name": "read", "input": {"_malformed_arguments": "{broken"}},
                    {"type": "tool_use", "id": "c", "name": "read", "input": {}},
                ]},
                {"role": "user", "content": [
                    {"type": "tool_result", "tool_use_id": "functions_read_0",
                     "content": [{"type": "text", "text": "A"}, image]},
                    {"type": "tool_result", "tool_use_id": "b",
                     "content": [{"type": "text", "text": "bad"}], "is_error": true},
                    {"type": "tool_result", "tool_use_id": "c", "cache_control": cached},
                ]},
            ],
        })
    );
}

#[test]
fn at_most_four_breakpoints_however_long_the_conversation() {
    let mut messages = Vec::new();
    for _ in 0..20 {
        messages.push(message(Role::User, vec![text("a")]));
        messages.push(message(Role::Assistant, vec![text("b")]));
    }
    let request = ModelRequest {
        system: vec![SystemBlock { text: "x".to_owned() }; 3],
        tools: vec![
            ToolSpec {
                name: "t".to_owned(),
                description: String::new(),
                input_schema: json!({})
            };
            3
        ],
        messages,
        ..ModelRequest::default()
    };
    assert_eq!(encode(&request).to_string().matches("cache_control").count(), 4);
}

#[test]
fn each_generation_is_asked_to_think_in_its_own_way() {
    let adaptive = json!({"type": "adaptive", "display": "summarized"});
    let budget = |tokens: u32| json!({"type": "enabled", "budget_tokens": tokens});
    for (model, max_output_tokens, expected) in [
        ("claude-opus-4-8", 16_384, adaptive.clone()),
        ("claude-sonnet-4-6", 16_384, adaptive.clone()),
        ("claude-fable-5", 16_384, adaptive.clone()),
        ("claude-mythos-preview", 16_384, adaptive),
        ("claude-haiku-4-5-20251001", 32_768, budget(8192)),
        ("claude-opus-4-1-20250805", 4096, budget(2048)),
        ("claude-sonnet-4-20250514", 1024, Value::Null),
        ("claude-3-7-sonnet-20250219", 32_768, budget(8192)),
        ("claude-3-5-haiku-20241022", 32_768, Value::Null),
        ("vendor/some-model", 32_768, budget(8192)),
    ] {
        let request = ModelRequest {
            model: model.to_owned(),
            max_output_tokens,
            reasoning: Some(ReasoningEffort::Medium),
            ..ModelRequest::default()
        };
        assert_eq!(encode(&request)["thinking"], expected, "{model}");
    }
}

#[test]
fn results_come_first_in_a_message() {
    let result = Block::ToolResult {
        call_id: "a".to_owned(),
        content: vec![],
        is_error: false,
    };
    let request = ModelRequest {
        messages: vec![message(Role::User, vec![text("Go on."), result])],
        ..ModelRequest::default()
    };
    let body = encode(&request);
    let kinds: Vec<&Value> = body["messages"][0]["content"]
        .as_array()
        .unwrap()
        .iter()
        .map(|block| &block["type"])
        .collect();
    assert_eq!(kinds, ["tool_result", "text"]);
}
