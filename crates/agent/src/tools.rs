//! The tools a model may call: their list, strict parsing of arguments, and the frame every run stands in. One file per
//! tool holds its input, schema and work. Tools reach the world only through [`ToolContext`].

mod apply_patch;
mod bash;
mod bash_kill;
mod bash_output;
mod bounds;
mod edit;
mod file_change;
mod glob;
mod grep;
mod list;
mod open_pr;
mod read;
mod share_file;
mod text_file;
mod write;

use crate::world::{Platform, Workspace, WorkspaceError};
use greenroom_llm::conversation::{Block, ToolCall, ToolSpec};
use greenroom_protocol::client::event::ItemBody;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::guest::WORKSPACE_PATH;
use greenroom_protocol::guest::call::{Call, Reply};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::future::Future;
use std::sync::Arc;
use std::sync::LazyLock;
use tokio_util::sync::CancellationToken;

pub use bounds::{MAX_RESULT_BYTES, bound_text};

/// Whether calls of a tool may run beside each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Changes nothing: runs in parallel with its neighbours.
    Reads,
    /// May change something: runs alone, in the order of the answer.
    Changes,
}

/// What a running tool may use.
pub struct ToolContext {
    pub workspace: Arc<dyn Workspace>,
    pub platform: Arc<dyn Platform>,
    /// Names what the call runs, so that it is found again after a crash: the id of its item.
    pub key: String,
    /// Cancelled when the turn is stopped.
    pub cancel: CancellationToken,
    /// Shows output as it comes; never waits.
    pub show_output: Box<dyn Fn(&str) + Send + Sync>,
}

impl ToolContext {
    async fn call(&self, call: Call) -> Result<Reply, ToolFailure> {
        match self.workspace.call(call).await? {
            Reply::Failed(error) => Err(ToolFailure::Answer(error.message)),
            reply => Ok(reply),
        }
    }
}

/// What a tool gives back.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ToolOutput {
    /// Text and images for the model; at most [`MAX_RESULT_BYTES`] of text.
    pub content: Vec<Block>,
    /// What people see beside the call itself, such as changed files.
    pub items: Vec<ItemBody>,
    /// The tool ran, but what it ran failed (a command with a non-zero exit code).
    pub is_error: bool,
}

impl ToolOutput {
    fn text(text: impl Into<String>) -> Self {
        Self {
            content: vec![Block::Text { text: text.into() }],
            ..Self::default()
        }
    }
}

/// Why a tool gave no output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolFailure {
    /// Text the model can act on.
    Answer(String),
    /// The workspace is gone; the turn cannot go on.
    Lost(Problem),
}

impl From<WorkspaceError> for ToolFailure {
    fn from(error: WorkspaceError) -> Self {
        match error {
            WorkspaceError::Call(error) => Self::Answer(error.message),
            WorkspaceError::Lost(problem) => Self::Lost(problem),
        }
    }
}

fn unexpected(reply: &Reply) -> ToolFailure {
    tracing::warn!(?reply, "the guest answered with another kind of reply");
    ToolFailure::Answer(
        "the sandbox gave an answer of the wrong kind; try again or use another tool".to_owned(),
    )
}

/// One tool: its input is the implementing type.
trait Tool: DeserializeOwned + JsonSchema + Send {
    const NAME: &'static str;
    const DESCRIPTION: &'static str;
    const ACCESS: Access;

    /// One line for a person.
    fn summary(&self) -> String;

    fn run(self, ctx: &ToolContext) -> impl Future<Output = Result<ToolOutput, ToolFailure>> + Send;
}

macro_rules! tools {
    ($($variant:ident => $input:ty),+ $(,)?) => {
        /// A call whose tool exists and whose arguments have the right shape.
        #[derive(Debug)]
        enum Input { $($variant($input)),+ }

        /// Every tool, in the order the model sees them; stable, so that caches keep their prefix.
        pub fn specs() -> &'static [ToolSpec] {
            static SPECS: LazyLock<Vec<ToolSpec>> = LazyLock::new(|| vec![$(spec::<$input>()),+]);
            &SPECS
        }

        fn parse_named(name: &str, arguments: Value) -> Option<Result<Input, serde_json::Error>> {
            match name {
                $(<$input>::NAME => Some(serde_json::from_value(arguments).map(Input::$variant)),)+
                _ => None,
            }
        }

        impl Input {
            fn summary(&self) -> String { match self { $(Self::$variant(input) => input.summary()),+ } }
            fn access(&self) -> Access { match self { $(Self::$variant(_) => <$input>::ACCESS),+ } }
            async fn run(self, ctx: &ToolContext) -> Result<ToolOutput, ToolFailure> {
                match self { $(Self::$variant(input) => input.run(ctx).await),+ }
            }
        }
    };
}

tools! {
    Read => read::Read,
    Write => write::Write,
    Edit => edit::Edit,
    ApplyPatch => apply_patch::ApplyPatch,
    List => list::List,
    Glob => glob::Glob,
    Grep => grep::Grep,
    Bash => bash::Bash,
    BashOutput => bash_output::BashOutput,
    BashKill => bash_kill::BashKill,
    OpenPr => open_pr::OpenPr,
    ShareFile => share_file::ShareFile,
}

fn spec<T: Tool>() -> ToolSpec {
    let mut input_schema = schemars::schema_for!(T).to_value();
    if let Some(schema) = input_schema.as_object_mut() {
        // Noise to a model, and some providers refuse it.
        schema.remove("$schema");
        schema.remove("title");
        schema.remove("description");
        if !schema.contains_key("properties") {
            schema.insert("properties".to_owned(), Value::Object(serde_json::Map::new()));
        }
    }
    ToolSpec {
        name: T::NAME.to_owned(),
        description: T::DESCRIPTION.to_owned(),
        input_schema,
    }
}

fn parse(call: &ToolCall) -> Result<Input, String> {
    let arguments = call.arguments().map_err(|error| {
        format!(
            "{error}. Call `{}` again with one JSON object that matches its schema.",
            call.name
        )
    });
    let names = || {
        specs()
            .iter()
            .map(|spec| spec.name.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    // Whether the tool exists matters more to the model than how its arguments look.
    if !specs().iter().any(|spec| spec.name == call.name) {
        return Err(format!(
            "there is no tool `{}`; the tools are: {}",
            call.name,
            names()
        ));
    }
    match parse_named(&call.name, Value::Object(arguments?)) {
        Some(Ok(input)) => Ok(input),
        Some(Err(error)) => Err(format!(
            "the arguments of `{}` do not match its schema: {error}",
            call.name
        )),
        None => Err(format!(
            "there is no tool `{}`; the tools are: {}",
            call.name,
            names()
        )),
    }
}

/// What is known of a call before it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallPlan {
    pub access: Access,
    /// One line, at most 200 characters; empty if the arguments make no sense.
    pub summary: String,
    /// Whether running it reaches into the sandbox.
    pub needs_workspace: bool,
}

/// Looks at a call without running it.
pub fn plan(call: &ToolCall) -> CallPlan {
    match parse(call) {
        Ok(input) => CallPlan {
            access: input.access(),
            summary: one_line(&input.summary()),
            needs_workspace: true,
        },
        // Answered at once with why; that changes nothing.
        Err(_) => CallPlan {
            access: Access::Reads,
            summary: String::new(),
            needs_workspace: false,
        },
    }
}

/// Runs a call. Text of any outcome is bounded to [`MAX_RESULT_BYTES`].
pub async fn run(call: &ToolCall, ctx: &ToolContext) -> Result<ToolOutput, ToolFailure> {
    let ran = match parse(call) {
        Ok(input) => run_settled(input, ctx).await,
        Err(error) => Err(ToolFailure::Answer(error)),
    };
    with_notes(bound(ran), ctx.workspace.take_notes())
}

/// What changes something waits until nothing else changes the workspace, before it looks at anything.
async fn run_settled(input: Input, ctx: &ToolContext) -> Result<ToolOutput, ToolFailure> {
    if input.access() == Access::Changes {
        ctx.workspace.settled().await?;
    }
    input.run(ctx).await
}

fn with_notes(
    mut output: Result<ToolOutput, ToolFailure>,
    notes: Vec<String>,
) -> Result<ToolOutput, ToolFailure> {
    for note in notes {
        let note = format!("[note: {note}]");
        match &mut output {
            Ok(output) => output.content.push(Block::Text { text: note }),
            Err(ToolFailure::Answer(text)) => text.push_str(&format!("\n{note}")),
            Err(ToolFailure::Lost(_)) => {}
        }
    }
    output
}

/// Goes on with a call that a crash cut, if what it ran is still known; `None` if nobody can tell whether it ran.
pub async fn find_again(call: &ToolCall, ctx: &ToolContext) -> Option<Result<ToolOutput, ToolFailure>> {
    match parse(call) {
        Ok(Input::Bash(bash)) => bash.find_again(ctx).await.map(bound),
        Ok(_) | Err(_) => None,
    }
}

fn bound(mut output: Result<ToolOutput, ToolFailure>) -> Result<ToolOutput, ToolFailure> {
    match &mut output {
        Ok(output) => {
            for block in &mut output.content {
                if let Block::Text { text } = block {
                    *text = bound_text(std::mem::take(text), MAX_RESULT_BYTES);
                }
            }
        }
        Err(ToolFailure::Answer(text)) => *text = bound_text(std::mem::take(text), MAX_RESULT_BYTES),
        Err(ToolFailure::Lost(_)) => {}
    }
    output
}

fn one_line(text: &str) -> String {
    let mut line: String = text
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(200)
        .collect();
    if line.len() < text.trim_end().len() {
        line.push('…');
    }
    line
}

/// How people and results name a path: relative to the workspace if it lies in it.
fn shown_path(path: &str) -> &str {
    let inside = path
        .strip_prefix(WORKSPACE_PATH)
        .and_then(|rest| rest.strip_prefix('/'));
    inside.unwrap_or(path).trim_start_matches("./")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(name: &str, arguments: &str) -> ToolCall {
        ToolCall {
            id: "c1".into(),
            name: name.into(),
            arguments_json: arguments.into(),
        }
    }

    #[test]
    fn bad_calls_say_what_to_do() {
        for (name, arguments, expected) in [
            (
                "rm",
                "{}",
                "there is no tool `rm`; the tools are: read, write, edit, apply_patch, list, glob, grep, bash, bash_output, bash_kill, open_pr, share_file",
            ),
            ("rm", "{", "there is no tool `rm`"),
            ("read", "{\"path\":", "not valid JSON"),
            ("read", "[1]", "not an object"),
            ("read", "", "missing field `path`"),
            ("read", "{\"path\":1}", "invalid type"),
            ("read", "{\"path\":\"a\",\"color\":1}", "unknown field `color`"),
            ("read", "{\"path\":\"a\",\"offset\":-1}", "invalid value"),
        ] {
            let error = parse(&call(name, arguments)).unwrap_err();
            assert!(error.contains(expected), "{name} {arguments}: {error}");
        }
    }

    #[test]
    fn every_schema_is_a_closed_object_with_described_properties() {
        for spec in specs() {
            let schema = &spec.input_schema;
            assert_eq!(schema["type"], "object", "{}", spec.name);
            assert_eq!(schema["additionalProperties"], false, "{}", spec.name);
            for (property, value) in schema["properties"].as_object().unwrap() {
                assert!(value["description"].is_string(), "{}.{property}", spec.name);
            }
            assert!(spec.description.len() > 20, "{}", spec.name);
        }
        assert_eq!(specs(), specs());
    }

    #[test]
    fn summaries_are_one_short_line() {
        for (text, expected) in [("ls", "ls"), ("ls\n", "ls"), ("a\nb", "a…"), ("", "")] {
            assert_eq!(one_line(text), expected);
        }
        assert_eq!(one_line(&"é".repeat(1000)).chars().count(), 201);
    }
}
