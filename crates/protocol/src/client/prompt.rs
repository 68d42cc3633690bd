//! Prompts: what people ask, and the receipt they get.

use super::person::Person;
use crate::id::PromptId;
use crate::reference::Digest;
use serde::{Deserialize, Serialize};

/// Where a prompt stands. It ends in exactly one of the last three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum PromptState {
    Queued,
    Running,
    Completed,
    Failed,
    Cancelled,
}

/// When the agent is told a prompt that is sent while a turn runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// After the turn, as a turn of its own.
    #[default]
    Queue,
    /// At the next step of the turn. If the turn ends before, as the next turn, before those that wait for theirs.
    Insert,
}

impl Delivery {
    /// Whether it need not be written.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A message that asks for work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Prompt {
    pub id: PromptId,
    pub author: Person,
    /// Markdown, never empty, at most [`super::MAX_PROMPT_BYTES`].
    pub text: String,
    /// Images, at most 8, 5 MiB each and 20 MiB together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<PromptImage>,
    /// Model of this prompt alone; absent: the session's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    #[serde(default, skip_serializing_if = "Delivery::is_default")]
    pub delivery: Delivery,
    pub queued_at_ms: i64,
}

/// An image of a prompt, as a session holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum PromptImage {
    Kept(KeptImage),
    /// In sessions of servers that kept no files.
    Inline(ImageAttachment),
}

/// An image that is a file of the session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct KeptImage {
    /// `image/png`, `image/jpeg`, `image/gif` or `image/webp`.
    pub media_type: String,
    /// Names the file: `GET /v1/sessions/{id}/blobs/{digest}`.
    pub digest: Digest,
    pub size_bytes: u64,
}

/// Images that a prompt takes.
pub const MAX_IMAGES: usize = 8;
/// Size of each of them.
pub const MAX_IMAGE_BYTES: u64 = 5 * 1024 * 1024;
/// Size of all of them; with the rest of a conversation more is refused by models' providers.
pub const MAX_IMAGES_BYTES: u64 = 20 * 1024 * 1024;

/// An image sent along with a prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ImageAttachment {
    /// `image/png`, `image/jpeg`, `image/gif` or `image/webp`.
    pub media_type: String,
    /// The file in standard base64 with padding.
    pub data_base64: String,
}

/// Body of `POST /v1/sessions/{id}/prompts`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SendPrompt {
    pub text: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<ImageAttachment>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Absent: the session's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Delivery>,
}

/// Answer to `GET /v1/sessions/{id}/prompts`: prompts that have not ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OpenPrompts {
    /// The one whose turn runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<Prompt>,
    /// Those that the same turn was told since, in their order; they end with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inserted: Vec<Prompt>,
    /// Those that wait, the next one first.
    pub queued: Vec<Prompt>,
}

/// Body of `PATCH /v1/sessions/{id}/prompts/{prompt_id}`; at least one of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ChangePrompt {
    /// What it says from now on. Only its author may change that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// How many prompts are to wait before it: 0 runs next, and one beyond the last is the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u32>,
    /// When the agent is told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Delivery>,
}

/// The prompt is on disk and will finish or visibly fail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PromptReceipt {
    pub prompt_id: PromptId,
    /// Number of the `prompt.queued` event.
    pub seq: u64,
}
