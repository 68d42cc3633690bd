//! What is said to a model and what it says back, independent of any provider's wire format. Plain data that is also
//! stored in a session's journal, so everything here serialises and unknown provider blocks survive a round trip.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One request: everything the model is told.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ModelRequest {
    /// The provider's own name of the model, without our `provider/` prefix.
    pub model: String,
    /// System prompt, most stable part first so that caches keep their prefix.
    pub system: Vec<SystemBlock>,
    /// Alternating user and assistant messages, user first.
    pub messages: Vec<Message>,
    /// Tools the model may call; may be empty.
    pub tools: Vec<ToolSpec>,
    pub max_output_tokens: u32,
    pub reasoning: Option<ReasoningEffort>,
    /// Groups requests that share a prefix (OpenAI's `prompt_cache_key`); the session id.
    pub cache_key: Option<String>,
}

/// A part of the system prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemBlock {
    pub text: String,
}

/// How much the model should reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasoningEffort {
    Low,
    Medium,
    High,
}

/// Who speaks. Tool results travel in user messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    User,
    Assistant,
}

/// One message of the conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    pub role: Role,
    pub blocks: Vec<Block>,
}

/// What a model is told in the place of an image that is lost.
pub const MISSING_IMAGE: &str = "[an image was here; it is not available any more]";

/// A piece of a message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Block {
    Text {
        text: String,
    },
    Image {
        media_type: String,
        data_base64: String,
    },
    /// An image whose file is kept elsewhere, by the SHA-256 of what is in it. Whoever asks a model puts it in first; what is not there
    /// any more is told as [`MISSING_IMAGE`].
    KeptImage {
        media_type: String,
        digest: String,
    },
    /// The model's reasoning. `opaque` is the provider's own block and is replayed to that wire format only, unchanged.
    Reasoning {
        text: String,
        opaque: Option<Opaque>,
    },
    ToolCall(ToolCall),
    ToolResult {
        call_id: String,
        /// Text and images.
        content: Vec<Block>,
        is_error: bool,
    },
    /// A block this version does not know, replayed to its wire format only, unchanged.
    Unknown {
        opaque: Opaque,
    },
}

/// A provider's own JSON, tied to the wire format that understands it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Opaque {
    pub format: WireFormat,
    pub json: Value,
}

/// The model asks for a tool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    /// Unique in the conversation; chosen by the provider, or by us where it gives none.
    pub id: String,
    pub name: String,
    /// Arguments as the model wrote them. Empty text means no arguments.
    pub arguments_json: String,
}

impl ToolCall {
    /// The arguments as an object; the error text is meant for the model.
    pub fn arguments(&self) -> Result<serde_json::Map<String, Value>, String> {
        if self.arguments_json.trim().is_empty() {
            return Ok(serde_json::Map::new());
        }
        match serde_json::from_str(&self.arguments_json) {
            Ok(Value::Object(map)) => Ok(map),
            Ok(_) => Err("the arguments are JSON but not an object".to_owned()),
            Err(error) => Err(format!("the arguments are not valid JSON: {error}")),
        }
    }
}

/// A tool the model may call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolSpec {
    pub name: String,
    pub description: String,
    /// JSON Schema of the arguments, `"type": "object"` at the top.
    pub input_schema: Value,
}

/// The protocols we speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WireFormat {
    /// <https://docs.anthropic.com/en/api/messages-streaming>
    AnthropicMessages,
    /// <https://platform.openai.com/docs/api-reference/responses-streaming>
    OpenaiResponses,
    /// <https://platform.openai.com/docs/api-reference/chat-streaming>, also Ollama, vLLM, llama-server.
    OpenaiChat,
}

/// What arrives while a model answers. `index` numbers the blocks of the answer from 0 in order of appearance.
#[derive(Debug, Clone, PartialEq)]
pub enum StreamEvent {
    BlockStarted {
        index: usize,
        kind: BlockKind,
    },
    TextDelta {
        index: usize,
        text: String,
    },
    ReasoningDelta {
        index: usize,
        text: String,
    },
    /// More of a tool call's raw argument text.
    ArgumentsDelta {
        index: usize,
        json: String,
    },
    BlockCompleted {
        index: usize,
        block: Block,
    },
    /// Always the last of a successful stream.
    Finished {
        stop_reason: StopReason,
        usage: TokenUsage,
    },
}

/// What kind of block began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlockKind {
    Text,
    Reasoning,
    ToolCall { id: String, name: String },
    Unknown,
}

/// Why the model stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    EndTurn,
    ToolCalls,
    MaxOutputTokens,
    Refusal,
    /// The provider's own word.
    Other(String),
}

/// Tokens of one request; see `greenroom_protocol::client::model::Usage` for the meaning of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenUsage {
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub cache_read_tokens: u64,
    pub cache_write_tokens: u64,
}
