//! Parameters in paths and queries, documented by their types.

use greenroom_protocol::client::pull_request::PullRequestState;
use schemars::JsonSchema;
use serde::Deserialize;

/// `{name}` of a repository or secret.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Named {
    pub name: String,
}

/// `{id}` of a person.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct PersonPath {
    /// `usr_…`
    pub id: String,
}

/// `{id}` of a session and `{person_id}` of one of its members.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct MemberPath {
    /// `ses_…`
    pub id: String,
    /// `usr_…`
    pub person_id: String,
}

/// `{id}` of a session and `{link_id}` of a link into it.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct LinkPath {
    /// `ses_…`
    pub id: String,
    /// `lnk_…`
    pub link_id: String,
}

/// Which audit entries to list.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct AuditListQuery {
    /// Older than this entry.
    pub before: Option<u64>,
    /// Only of this person, `usr_…`.
    pub person: Option<String>,
    /// Only those in whose target or subject this stands, such as a session's id or a repository's name.
    pub about: Option<String>,
    /// 1 to 500; 100 if absent.
    pub limit: Option<u32>,
}

/// `{id}` of an API token.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct TokenPath {
    /// `tok_…`
    pub id: String,
}

/// `{id}` of a session.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct SessionPath {
    /// `ses_…`
    pub id: String,
}

/// `{id}` of a session and `{prompt_id}` of one of its prompts.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct PromptPath {
    /// `ses_…`
    pub id: String,
    /// `prm_…`
    pub prompt_id: String,
}

/// `{id}` of a session and `{snapshot_id}` of one of its snapshots.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct SnapshotPath {
    /// `ses_…`
    pub id: String,
    /// `snp_…`
    pub snapshot_id: String,
}

/// `{id}` of a session and `{digest}` of one of its files.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct BlobPath {
    /// `ses_…`
    pub id: String,
    /// `sha256:` and 64 hexadecimal digits.
    pub digest: String,
}

/// A service of a session's sandbox.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct ServicePath {
    /// `ses_…`
    pub id: String,
    /// Its name in the environment.
    pub name: String,
}

/// Which part of a log to read.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct LogQuery {
    /// Bytes behind this offset; 0 if absent.
    pub after: Option<u64>,
}

/// `{id}` of an image.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct ImagePath {
    /// `img_…`
    pub id: String,
}

/// A pull request of a repository.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct PullRequestPath {
    /// The repository.
    pub name: String,
    /// Counts from 1.
    pub number: u64,
}

/// Which sessions to list.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct SessionQuery {
    /// 1 to 200; 50 if absent.
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// Only sessions on this repository.
    pub repository: Option<String>,
    /// Only sessions whose title, or one prompt of which, has all these words or words that begin so.
    pub words: Option<String>,
    /// What becomes of archived sessions; `exclude` if absent.
    #[serde(default)]
    pub archived: ArchivedFilter,
}

/// Which sessions a list holds.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ArchivedFilter {
    /// Those that are not archived.
    #[default]
    Exclude,
    /// Archived ones alone.
    Only,
    /// All.
    Include,
}

/// Which diff to show.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct DiffQuery {
    /// Whether to look at the files in the sandbox, if it runs, instead of at what was pushed.
    #[serde(default)]
    pub live: bool,
}

/// What else becomes of a session whose turn is stopped.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct StopQuery {
    /// Whether prompts that wait stay until somebody lets them go on; otherwise the next one begins.
    #[serde(default)]
    pub pauses_queue: bool,
}

/// Which events to list.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct EventQuery {
    /// Events behind this number; 0 if absent.
    pub after: Option<u64>,
    /// 1 to 2,000; 500 if absent.
    pub limit: Option<u32>,
}

/// Which part of a session's past to read.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct HistoryQuery {
    /// The part that ends with this event: `seq` of the overview that is known.
    pub before: u64,
}

/// Where a stream starts, and the right to open it.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct StreamQuery {
    /// Events behind this number; 0 if absent.
    pub after: Option<u64>,
    /// With `after` 0: begins with an `overview` frame and what came after it, instead of with the first event of a long session. What
    /// lies before is read by `listHistory`.
    #[serde(default)]
    pub recent: bool,
    /// From `POST /v1/stream-tickets`; browsers need one.
    pub ticket: Option<String>,
}

/// Which pull requests to list.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct PullRequestQuery {
    pub state: Option<PullRequestState>,
    /// Only of this repository.
    pub repository: Option<String>,
}
