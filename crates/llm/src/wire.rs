//! One face for the three wire formats: a request becomes a JSON body, server-sent events become stream events. Pure; it
//! neither sends nor waits.

use crate::conversation::{ModelRequest, StreamEvent, WireFormat};
use crate::failure::{FailureKind, ModelFailure};
use crate::{anthropic, chat, responses, sse};
use serde_json::Value;

/// Chat completions carry no image in a tool result: each follows in a user message behind a text that opens with this,
/// then the call's id and `]`.
pub const TOOL_IMAGE_NOTE: &str = "[image from the result of tool call ";

/// The body of a streaming request.
pub fn encode(format: WireFormat, request: &ModelRequest) -> Value {
    match format {
        WireFormat::AnthropicMessages => anthropic::encode::encode(request),
        WireFormat::OpenaiResponses => responses::encode::encode(request),
        WireFormat::OpenaiChat => chat::encode::encode(request),
    }
}

/// Decodes one answer. After an error or [`StreamEvent::Finished`] nothing more is said.
#[derive(Debug)]
pub struct Decoder {
    inner: Inner,
    is_finished: bool,
}

#[derive(Debug)]
enum Inner {
    Anthropic(anthropic::decode::Decoder),
    Responses(responses::decode::Decoder),
    Chat(chat::decode::Decoder),
}

impl Decoder {
    /// A decoder for one answer.
    pub fn new(format: WireFormat) -> Self {
        let inner = match format {
            WireFormat::AnthropicMessages => Inner::Anthropic(anthropic::decode::Decoder::default()),
            WireFormat::OpenaiResponses => Inner::Responses(responses::decode::Decoder::default()),
            WireFormat::OpenaiChat => Inner::Chat(chat::decode::Decoder::default()),
        };
        Self {
            inner,
            is_finished: false,
        }
    }

    /// Takes the next event. Events of unknown type yield nothing. Fails with what the provider reports inside the
    /// stream, or `Malformed` where an event is not what the format says.
    pub fn push(&mut self, event: &sse::Event) -> Result<Vec<StreamEvent>, ModelFailure> {
        if self.is_finished {
            return Ok(Vec::new());
        }
        let result = match &mut self.inner {
            Inner::Anthropic(decoder) => decoder.push(event),
            Inner::Responses(decoder) => decoder.push(event),
            Inner::Chat(decoder) => decoder.push(event),
        };
        self.is_finished = match &result {
            Ok(events) => matches!(events.last(), Some(StreamEvent::Finished { .. })),
            Err(_) => true,
        };
        result
    }

    /// Whether [`StreamEvent::Finished`] or an error was returned.
    pub fn is_finished(&self) -> bool {
        self.is_finished
    }

    /// Call when the body ended: fails with `Truncated` unless the terminal event came before.
    pub fn finish(self) -> Result<(), ModelFailure> {
        if self.is_finished {
            Ok(())
        } else {
            Err(ModelFailure::new(
                FailureKind::Truncated,
                "the model's answer ended in the middle",
            ))
        }
    }
}

/// The JSON of an event's data.
pub(crate) fn parse_data(event: &sse::Event) -> Result<Value, ModelFailure> {
    serde_json::from_str(&event.data).map_err(|error| malformed(&format!("an event is not JSON ({error})")))
}

/// A failure for an answer that is not what the format says.
pub(crate) fn malformed(what: &str) -> ModelFailure {
    ModelFailure::new(
        FailureKind::Malformed,
        format!("the model's answer is malformed: {what}"),
    )
}
