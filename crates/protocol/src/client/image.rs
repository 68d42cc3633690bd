//! Images as the API tells them: what a repository's sandboxes begin with, and how each came to be.

use super::problem::Problem;
use crate::id::{ImageId, LayerId, PersonId, SnapshotId};
use serde::{Deserialize, Serialize};

/// An image of a repository's environment at a commit, or the attempt to build one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Image {
    pub id: ImageId,
    pub repository: String,
    /// The branch whose head was built.
    pub branch: String,
    /// Commit in the workspace; absent before it was cloned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The environment's other repositories in the workspace; empty before they were cloned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repositories: Vec<ImageRepository>,
    pub state: ImageState,
    pub trigger: ImageTrigger,
    /// The image it was built on; absent: from nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub built_on: Option<ImageId>,
    /// In the order they ran.
    pub steps: Vec<ImageStep>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// SHA-256 of the environment it was built with, policy included.
    #[serde(default)]
    pub environment_digest: String,
    /// SHA-256 of the egress policy in force while it was built, organisation's rules and repository's.
    #[serde(default)]
    pub policy_digest: String,
    /// What its sandboxes have below their layers, as its environment says it: `host`, `oci:…` or `rootfs:…`.
    #[serde(default)]
    pub base: String,
    /// The same as a digest.
    #[serde(default)]
    pub base_digest: String,
    /// The files; only of a published image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<SnapshotId>,
    /// What the files are in, topmost first; only of a published image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<LayerId>,
    /// Of all its layers; layers that images share count in each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// Milliseconds since 1970.
    pub created_at_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at_ms: Option<i64>,
    /// When the first image of its line was built from nothing.
    #[serde(default)]
    pub line_began_at_ms: i64,
    /// How many images of its line came before it, each built on the one before.
    #[serde(default)]
    pub line_length: u32,
}

/// Another repository in an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ImageRepository {
    pub name: String,
    /// The branch whose head was cloned.
    pub branch: String,
    /// Directory where it lies, relative to the workspace.
    pub path: String,
    pub commit: String,
}

/// How far an image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ImageState {
    /// Waits for its turn.
    Scheduled,
    Cloning,
    Installing,
    Building,
    Testing,
    Sealing,
    /// Sandboxes begin with it, until a newer one is published.
    Published,
    /// The image before goes on serving.
    Failed,
}

impl ImageState {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Cloning => "cloning",
            Self::Installing => "installing",
            Self::Building => "building",
            Self::Testing => "testing",
            Self::Sealing => "sealing",
            Self::Published => "published",
            Self::Failed => "failed",
        }
    }

    /// Whether nothing more happens to it.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Published | Self::Failed)
    }
}

/// Why an image is built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ImageTrigger {
    /// It was time, and something had changed.
    Schedule,
    /// Somebody asked for it.
    Person { id: PersonId },
    /// A signed call of another system.
    Webhook,
    /// Somebody brought it from a registry; `reference` has a digest.
    Pulled { id: PersonId, reference: String },
}

/// Answer to `POST /v1/repositories/{name}/images/webhook`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WebhookReceipt {
    /// The image that is built; absent: the call was understood, and no image would be another because of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_id: Option<ImageId>,
}

/// One step of an image build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ImageStep {
    pub name: StepName,
    pub outcome: StepOutcome,
    /// How long it took, in milliseconds; 0 while it runs.
    pub duration_ms: u64,
    /// SHA-256 of all that it depends on. The same key on the image before: it need not run.
    #[serde(default)]
    pub key: String,
}

/// The steps of an image build, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum StepName {
    Clone,
    /// Installs dev container features.
    Features,
    Setup,
    Build,
    Warm,
    Seal,
}

impl StepName {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Clone => "clone",
            Self::Features => "features",
            Self::Setup => "setup",
            Self::Build => "build",
            Self::Warm => "warm",
            Self::Seal => "seal",
        }
    }
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum StepOutcome {
    Running,
    Done,
    /// Nothing that it depends on had changed.
    Cached,
    Failed,
}

/// Answer to `GET /v1/repositories/{name}/images`, the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ImageList {
    pub images: Vec<Image>,
    /// The one that sandboxes of the default branch begin with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<ImageId>,
}

/// Body of `POST /v1/repositories/{name}/images`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct BuildImage {
    /// Take nothing over from the image before.
    pub from_scratch: bool,
}

/// Body of `POST /v1/images/{id}/push` and `POST /v1/repositories/{name}/images/pull`; answer to `GET /v1/registry-images` and to the
/// first of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RegistryImage {
    /// `[REGISTRY/]NAME[:TAG][@DIGEST]`; in answers with the digest.
    pub reference: String,
}

/// Answer to `GET /v1/images/{id}/log`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ImageLog {
    /// From the offset that was asked for.
    pub output: String,
    /// Pass as `after` to get what comes next, in bytes.
    pub end_offset: u64,
    /// Whether nothing more comes after this.
    pub is_whole: bool,
}
