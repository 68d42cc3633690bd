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

/// What the tables of the three decoders share.
#[cfg(test)]
pub(crate) mod testing {
    use super::Decoder;
    use crate::conversation::{Block, StreamEvent, WireFormat};
    use crate::failure::{FailureKind, ModelFailure};
    use crate::sse;

    fn decode(format: WireFormat, chunks: &[&[u8]]) -> Result<Vec<StreamEvent>, ModelFailure> {
        let mut frames = sse::Decoder::default();
        let mut decoder = Decoder::new(format);
        let mut events = Vec::new();
        for chunk in chunks {
            for frame in frames.push(chunk).unwrap() {
                events.extend(decoder.push(&frame)?);
            }
        }
        decoder.finish()?;
        Ok(events)
    }

    /// Decodes a whole stream, cut at every byte, and checks what holds for every answer.
    pub(crate) fn check(format: WireFormat, stream: &str) -> Vec<StreamEvent> {
        let bytes = stream.as_bytes();
        let events = decode(format, &[bytes]).unwrap();
        for split in 0..bytes.len() {
            let (left, right) = bytes.split_at(split);
            assert_eq!(
                decode(format, &[left, right]).unwrap(),
                events,
                "split at {split}"
            );
        }
        check_shape(&events);
        // Whatever is cut off before the terminal event's blank line is noticed.
        let terminal = stream.trim_end().rfind("\n\n").unwrap_or(0);
        for end in 0..=terminal {
            let failure = decode(format, &[&bytes[..end]]).expect_err("a cut stream");
            assert_eq!(failure.kind, FailureKind::Truncated, "cut at {end}");
        }
        events
    }

    pub(crate) fn check_fails(format: WireFormat, stream: &str, expected: FailureKind) {
        let failure = decode(format, &[stream.as_bytes()]).expect_err(stream);
        assert_eq!(failure.kind, expected, "{stream}");
    }

    /// The completed blocks, by index.
    pub(crate) fn blocks(events: &[StreamEvent]) -> Vec<Block> {
        let mut blocks: Vec<(usize, Block)> = events
            .iter()
            .filter_map(|event| match event {
                StreamEvent::BlockCompleted { index, block } => Some((*index, block.clone())),
                _ => None,
            })
            .collect();
        blocks.sort_by_key(|(index, _)| *index);
        blocks.into_iter().map(|(_, block)| block).collect()
    }

    /// Indexes count up from 0, each block starts, grows and completes in this order, deltas add up to it, and
    /// `Finished` is last.
    fn check_shape(events: &[StreamEvent]) {
        let mut texts: Vec<(String, bool)> = Vec::new();
        for (position, event) in events.iter().enumerate() {
            match event {
                StreamEvent::BlockStarted { index, .. } => {
                    assert_eq!(*index, texts.len());
                    texts.push((String::new(), false));
                }
                StreamEvent::TextDelta { index, text }
                | StreamEvent::ReasoningDelta { index, text }
                | StreamEvent::ArgumentsDelta { index, json: text } => {
                    assert!(!texts[*index].1, "a delta behind the end of block {index}");
                    texts[*index].0.push_str(text);
                }
                StreamEvent::BlockCompleted { index, block } => {
                    assert!(
                        !std::mem::replace(&mut texts[*index].1, true),
                        "block {index} completes twice"
                    );
                    match block {
                        Block::Text { text } | Block::Reasoning { text, .. } => {
                            assert_eq!(*text, texts[*index].0)
                        }
                        Block::ToolCall(call) => assert_eq!(call.arguments_json, texts[*index].0),
                        Block::Unknown { .. } => {}
                        Block::Image { .. } | Block::KeptImage { .. } | Block::ToolResult { .. } => {
                            panic!("models do not say {block:?}")
                        }
                    }
                }
                StreamEvent::Finished { .. } => assert_eq!(position + 1, events.len()),
            }
        }
        assert!(matches!(events.last(), Some(StreamEvent::Finished { .. })));
        assert!(
            texts.iter().all(|(_, is_complete)| *is_complete),
            "every block completes"
        );
    }
}
