//! Runs one tool call and shapes what came of it: for the model a result, for people an item. When calls run, and what a stop
//! or a lost sandbox means for the turn, is the driver's business.

use crate::history;
use crate::tools::{self, ToolContext, ToolFailure, ToolOutput};
use crate::turn::OpenCall;
use crate::world::{Recorder, TurnInput};
use greenroom_llm::conversation::Block;
use greenroom_protocol::client::event::{Item, ItemBody, ToolCallItem, ToolCallStatus};
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::stream::DeltaChannel;
use serde_json::Value;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a cancelled tool that changes something may take to end; the guest kills its processes within 2 s.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// Text of a call's arguments and output that its item keeps, in bytes.
const MAX_ITEM_BYTES: usize = 64 * 1024;

/// A call that ended.
pub(crate) struct Ended {
    pub(crate) call: OpenCall,
    pub(crate) output: CallOutput,
    pub(crate) status: ToolCallStatus,
    pub(crate) duration: Duration,
}

/// What a call gave.
pub(crate) enum CallOutput {
    Tool(ToolOutput),
    Text(String),
    Lost(Problem),
}

impl CallOutput {
    /// Blocks for the model, what people see beside the call, and whether it is an error.
    pub(crate) fn into_parts(self) -> (Vec<Block>, Vec<ItemBody>, bool) {
        let text = |text| vec![Block::Text { text }];
        match self {
            Self::Tool(output) => (output.content, output.items, output.is_error),
            Self::Text(answer) => (text(answer), Vec::new(), true),
            Self::Lost(problem) => (
                text(match problem.code.starts_with("sandbox_") {
                    true => format!("the sandbox is gone: {}", problem.message),
                    // It never began.
                    false => format!("there is no sandbox: {}", problem.message),
                }),
                Vec::new(),
                true,
            ),
        }
    }
}

/// What to do with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doing {
    Run,
    /// It ran before a crash: its program is followed if the sandbox still knows it, and it is never run again.
    FindAgain,
}

/// Runs a call to its end, or until a stop has been waited for long enough.
pub(crate) async fn run_one(call: OpenCall, doing: Doing, input: &TurnInput) -> Ended {
    let began = Instant::now();
    let cancel = input.stop.child_token();
    let (output, status) = match &call.refusal {
        Some(refusal) => (CallOutput::Text(refusal.clone()), ToolCallStatus::Failed),
        None => {
            let recorder: Arc<dyn Recorder> = input.recorder.clone();
            let item_id = call.item_id.clone();
            let context = ToolContext {
                workspace: input.workspace.clone(),
                platform: input.platform.clone(),
                key: call.item_id.to_string(),
                cancel,
                show_output: Box::new(move |text| recorder.delta(&item_id, DeltaChannel::Output, text)),
            };
            let stopped_for_good = async {
                input.stop.cancelled().await;
                // A read may be waiting for a sandbox that is still starting; nothing is lost by leaving it.
                if !call.is_read() {
                    tokio::time::sleep(STOP_GRACE).await;
                }
            };
            let work = async {
                match doing {
                    Doing::Run => Some(tools::run(&call.call, &context).await),
                    Doing::FindAgain => tools::find_again(&call.call, &context).await,
                }
            };
            let result = tokio::select! {
                result = work => result,
                () = stopped_for_good => None,
            };
            let was_stopped = input.stop.is_cancelled();
            match result {
                Some(Ok(output)) if was_stopped => (CallOutput::Tool(output), ToolCallStatus::Interrupted),
                Some(Ok(output)) if output.is_error => (CallOutput::Tool(output), ToolCallStatus::Failed),
                Some(Ok(output)) => (CallOutput::Tool(output), ToolCallStatus::Succeeded),
                Some(Err(ToolFailure::Answer(answer))) => (CallOutput::Text(answer), ToolCallStatus::Failed),
                Some(Err(ToolFailure::Lost(problem))) => {
                    (CallOutput::Lost(problem), ToolCallStatus::Interrupted)
                }
                None => (
                    CallOutput::Text(history::INTERRUPTED.to_owned()),
                    ToolCallStatus::Interrupted,
                ),
            }
        }
    };
    Ended {
        call,
        output,
        status,
        duration: began.elapsed(),
    }
}

/// The item a call is shown as.
pub(crate) fn item(
    call: &OpenCall,
    status: ToolCallStatus,
    output: &str,
    duration: Option<Duration>,
) -> Item {
    let arguments = &call.call.arguments_json;
    let input = match call.call.arguments() {
        Ok(map) if arguments.len() <= MAX_ITEM_BYTES => Value::Object(map),
        _ => Value::String(tools::bound_text(arguments.clone(), MAX_ITEM_BYTES)),
    };
    let body = ItemBody::ToolCall(ToolCallItem {
        tool: call.call.name.clone(),
        summary: tools::plan(&call.call).summary,
        input,
        status,
        output: tools::bound_text(output.to_owned(), MAX_ITEM_BYTES),
        duration_ms: duration.map(|duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)),
    });
    Item {
        id: call.item_id.clone(),
        body,
    }
}

/// What people see of a result.
pub(crate) fn text_of(content: &[Block]) -> String {
    let texts = content.iter().map(|block| match block {
        Block::Text { text } => text.as_str(),
        Block::Image { .. } | Block::KeptImage { .. } => "[image]",
        _ => "",
    });
    texts.collect::<Vec<_>>().join("\n")
}
