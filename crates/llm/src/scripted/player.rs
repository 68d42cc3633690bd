//! Chooses the step for a conversation and plays it as a model would. The choice is pure; the only memory is how often a
//! failure with `times` was already played for the same conversation.

use crate::client::{ModelStream, Options, RetryObserver, STREAM_CAPACITY, with_retries};
use crate::conversation::{
    Block, BlockKind, Message, ModelRequest, Role, StopReason, StreamEvent, TokenUsage, ToolCall,
};
use crate::failure::{FailureKind, ModelFailure};
use crate::refusal;
use crate::scripted::script::{Call, Fault, Part, Script, Step};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

/// Conversations whose played failures are remembered; more than any test has.
const MAX_REMEMBERED: usize = 4096;
/// Characters of a tool result that `{{result}}` quotes.
const MAX_QUOTED_RESULT: usize = 2000;

/// Plays one script.
#[derive(Debug)]
pub struct Player {
    script: Arc<Script>,
    options: Options,
    failures_played: Mutex<HashMap<u64, u32>>,
}

/// One answer to play.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// In order. Empty only with a fault.
    pub blocks: Vec<Block>,
    /// Characters of each delta.
    pub chunk_chars: usize,
    /// Wait before each delta of text or reasoning.
    pub delay: Duration,
    pub fault: Option<Fault>,
    /// What a status says about waiting.
    pub retry_after: Option<Duration>,
    /// Guessed from lengths: four characters are one token.
    pub usage: TokenUsage,
}

impl Player {
    /// A player without memory of earlier ones.
    pub fn new(script: Arc<Script>, options: Options) -> Self {
        Self {
            script,
            options,
            failures_played: Mutex::default(),
        }
    }

    /// The answer to a request. Counts a failure that is played. Fails with `ScriptExhausted` where no step fits or an
    /// expectation is not met, and says which.
    pub fn answer(&self, request: &ModelRequest) -> Result<Answer, ModelFailure> {
        let key = fingerprint(request);
        let mut played = self
            .failures_played
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let answer = self
            .script
            .answer(request, played.get(&key).copied().unwrap_or(0))?;
        if answer.fault.is_some() {
            if played.len() >= MAX_REMEMBERED {
                played.clear();
            }
            *played.entry(key).or_insert(0) += 1;
        }
        Ok(answer)
    }

    /// Like a provider over HTTP, retries included.
    pub(crate) async fn stream(
        &self,
        request: &ModelRequest,
        on_retry: &RetryObserver,
    ) -> Result<ModelStream, ModelFailure> {
        let answer = with_retries(&self.options, on_retry, || {
            let begun = self.answer(request).and_then(|answer| match answer.fault {
                Some(Fault::Status(status)) => {
                    let mut failure = refusal::from_status(status, "played by the script", &request.model);
                    failure.retry_after = answer.retry_after;
                    Err(failure)
                }
                _ => Ok(answer),
            });
            std::future::ready(begun)
        });
        let answer = answer.await?;
        let (tx, rx) = mpsc::channel(STREAM_CAPACITY);
        let idle_timeout = self.options.idle_timeout;
        // Ends with the answer or the receiver; nothing waits for it.
        tokio::spawn(async move {
            tokio::select! {
                () = tx.closed() => {}
                () = play(answer, idle_timeout, &tx) => {}
            }
        });
        Ok(rx)
    }
}

async fn play(answer: Answer, idle_timeout: Duration, tx: &mpsc::Sender<Result<StreamEvent, ModelFailure>>) {
    let mut events = answer.events();
    if answer.fault.is_some() {
        events.truncate(events.len() / 2);
    }
    for event in events {
        // Arguments are not watched as they come.
        let is_prose = matches!(
            event,
            StreamEvent::TextDelta { .. } | StreamEvent::ReasoningDelta { .. }
        );
        if is_prose && !answer.delay.is_zero() {
            tokio::time::sleep(answer.delay).await;
        }
        if tx.send(Ok(event)).await.is_err() {
            return;
        }
    }
    let kind = match answer.fault {
        None => return,
        Some(Fault::Truncate) => FailureKind::Truncated,
        Some(Fault::Malformed) => FailureKind::Malformed,
        Some(Fault::ErrorEvent | Fault::Status(_)) => FailureKind::Overloaded,
        Some(Fault::Stall) => {
            tokio::time::sleep(idle_timeout).await;
            FailureKind::TimedOut
        }
    };
    let failure = ModelFailure::new(kind, "the script plays a failure in the middle of the answer");
    // A receiver that is gone wants no failure either.
    let _ = tx.send(Err(failure)).await;
}

impl Answer {
    /// Every event of the whole answer, `Finished` last.
    pub fn events(&self) -> Vec<StreamEvent> {
        let mut events = Vec::new();
        for (index, block) in self.blocks.iter().enumerate() {
            let (kind, text) = match block {
                Block::Text { text } => (BlockKind::Text, text.as_str()),
                Block::Reasoning { text, .. } => (BlockKind::Reasoning, text.as_str()),
                Block::ToolCall(call) => {
                    let kind = BlockKind::ToolCall {
                        id: call.id.clone(),
                        name: call.name.clone(),
                    };
                    (kind, call.arguments_json.as_str())
                }
                Block::Image { .. }
                | Block::KeptImage { .. }
                | Block::ToolResult { .. }
                | Block::Unknown { .. } => continue,
            };
            events.push(StreamEvent::BlockStarted {
                index,
                kind: kind.clone(),
            });
            events.extend(self.chunks(text).into_iter().map(|chunk| match kind {
                BlockKind::Text | BlockKind::Unknown => StreamEvent::TextDelta { index, text: chunk },
                BlockKind::Reasoning => StreamEvent::ReasoningDelta { index, text: chunk },
                BlockKind::ToolCall { .. } => StreamEvent::ArgumentsDelta { index, json: chunk },
            }));
            events.push(StreamEvent::BlockCompleted {
                index,
                block: block.clone(),
            });
        }
        events.push(StreamEvent::Finished {
            stop_reason: self.stop_reason(),
            usage: self.usage,
        });
        events
    }

    /// Why the answer ends.
    pub fn stop_reason(&self) -> StopReason {
        if self
            .blocks
            .iter()
            .any(|block| matches!(block, Block::ToolCall(_)))
        {
            StopReason::ToolCalls
        } else {
            StopReason::EndTurn
        }
    }

    /// A text in deltas of `chunk_chars`; none for an empty text.
    pub fn chunks(&self, text: &str) -> Vec<String> {
        let letters: Vec<char> = text.chars().collect();
        letters
            .chunks(self.chunk_chars.max(1))
            .map(|chunk| chunk.iter().collect())
            .collect()
    }
}

impl Script {
    /// Pure: the answer to a conversation of which `failures_played` answers failed already.
    fn answer(&self, request: &ModelRequest, failures_played: u32) -> Result<Answer, ModelFailure> {
        let scene = Scene::of(request)?;
        let part = self.scripts.iter().find(|part| part.fits(&scene.prompt));
        let part = part.ok_or_else(|| {
            exhausted(format!(
                "no script fits the prompt “{}”",
                excerpt(&scene.prompt, 80)
            ))
        })?;
        let step = part
            .steps
            .iter()
            .find(|step| step.answer == Some(scene.position) && step.fits(&scene));
        let step = step.ok_or_else(|| {
            let position = scene.position;
            exhausted(format!(
                "the script `{}` has no step for answer {position} of this turn",
                part.name
            ))
        })?;
        let fill = |text: &str| fill(text, part, &scene);
        for expected in step.expect_result_contains.as_slice() {
            let expected = fill(expected);
            if !scene.results.contains(&expected) {
                return Err(exhausted(format!(
                    "the script `{}`, answer {}, expected a tool result with “{expected}” and got “{}”",
                    part.name,
                    scene.position,
                    excerpt(&scene.results, 300),
                )));
            }
        }
        let mut blocks = Vec::new();
        if let Some(text) = &step.think {
            blocks.push(Block::Reasoning {
                text: fill(text),
                opaque: None,
            });
        }
        if let Some(text) = &step.say {
            blocks.push(Block::Text { text: fill(text) });
        }
        for (number, call) in step.calls.iter().enumerate() {
            blocks.push(Block::ToolCall(ToolCall {
                // Unique in the conversation and the same each time it is asked.
                id: format!("scripted_{}_{number}", scene.answers_before),
                name: call.tool.clone(),
                arguments_json: arguments(call, &fill),
            }));
        }
        let fault = step.fail.filter(|_| failures_played < step.times);
        if blocks.is_empty() && fault.is_none() {
            return Err(exhausted(format!(
                "the script `{}`, answer {}, has only failures and all were played",
                part.name, scene.position
            )));
        }
        Ok(Answer {
            usage: TokenUsage {
                input_tokens: tokens(&serde_json::to_string(&request.messages).unwrap_or_default()),
                output_tokens: blocks.iter().map(block_tokens).sum(),
                ..TokenUsage::default()
            },
            blocks,
            chunk_chars: step.chunk_chars,
            delay: Duration::from_millis(step.delay_ms),
            fault,
            retry_after: step.retry_after_ms.map(Duration::from_millis),
        })
    }
}

/// What a step is chosen by.
struct Scene {
    /// Text of the last user message that holds text and no tool results.
    prompt: String,
    /// Assistant messages behind that prompt.
    position: usize,
    /// Assistant messages of the whole conversation.
    answers_before: usize,
    /// Texts of the tool results behind the last assistant message.
    results: String,
    has_error: bool,
}

impl Scene {
    fn of(request: &ModelRequest) -> Result<Self, ModelFailure> {
        let messages = &request.messages;
        let at = messages.iter().rposition(is_prompt);
        let at = at.ok_or_else(|| exhausted("the conversation holds no prompt".to_owned()))?;
        let is_answer = |message: &&Message| message.role == Role::Assistant;
        let last_answer = messages
            .iter()
            .rposition(|message| message.role == Role::Assistant);
        let mut results = Vec::new();
        let mut has_error = false;
        for message in &messages[last_answer.map_or(0, |answer| answer + 1)..] {
            for block in &message.blocks {
                if let Block::ToolResult {
                    content, is_error, ..
                } = block
                {
                    results.push(texts(content));
                    has_error |= is_error;
                }
            }
        }
        Ok(Self {
            prompt: last_text(&messages[at].blocks),
            position: messages[at..].iter().filter(is_answer).count(),
            answers_before: messages.iter().filter(is_answer).count(),
            results: results.join("\n"),
            has_error,
        })
    }
}

impl Part {
    fn fits(&self, prompt: &str) -> bool {
        self.prompt_contains
            .as_ref()
            .is_none_or(|text| prompt.contains(text))
            && self
                .prompt_matches
                .as_ref()
                .is_none_or(|regex| regex.is_match(prompt))
    }
}

impl Step {
    fn fits(&self, scene: &Scene) -> bool {
        self.result_contains
            .as_ref()
            .is_none_or(|text| scene.results.contains(text))
            && self
                .result_matches
                .as_ref()
                .is_none_or(|regex| regex.is_match(&scene.results))
            && self
                .result_is_error
                .is_none_or(|wanted| wanted == scene.has_error)
    }
}

fn is_prompt(message: &Message) -> bool {
    let has_text = message
        .blocks
        .iter()
        .any(|block| matches!(block, Block::Text { .. }));
    let has_results = message
        .blocks
        .iter()
        .any(|block| matches!(block, Block::ToolResult { .. }));
    message.role == Role::User && has_text && !has_results
}

/// A prompt behind one that was never answered shares its message with it; the newest counts.
fn last_text(blocks: &[Block]) -> String {
    let mut texts = blocks.iter().filter_map(|block| match block {
        Block::Text { text } => Some(text.clone()),
        _ => None,
    });
    texts.next_back().unwrap_or_default()
}

fn texts(blocks: &[Block]) -> String {
    let texts: Vec<&str> = blocks
        .iter()
        .filter_map(|block| match block {
            Block::Text { text } => Some(text.as_str()),
            Block::Image { .. }
            | Block::KeptImage { .. }
            | Block::Reasoning { .. }
            | Block::ToolCall(_)
            | Block::ToolResult { .. }
            | Block::Unknown { .. } => None,
        })
        .collect();
    texts.join("\n")
}

fn arguments(call: &Call, fill: &impl Fn(&str) -> String) -> String {
    match &call.arguments_text {
        Some(text) => fill(text),
        None => json(&toml::Value::Table(call.arguments.clone()), fill).to_string(),
    }
}

fn json(value: &toml::Value, fill: &impl Fn(&str) -> String) -> serde_json::Value {
    match value {
        toml::Value::String(text) => fill(text).into(),
        toml::Value::Integer(number) => (*number).into(),
        toml::Value::Float(number) => (*number).into(),
        toml::Value::Boolean(is) => (*is).into(),
        toml::Value::Datetime(time) => time.to_string().into(),
        toml::Value::Array(list) => list.iter().map(|inner| json(inner, fill)).collect(),
        toml::Value::Table(table) => table
            .iter()
            .map(|(key, inner)| (key.clone(), json(inner, fill)))
            .collect(),
    }
}

/// Replaces each `{{name}}`; what is filled in is not looked at again.
fn fill(template: &str, part: &Part, scene: &Scene) -> String {
    let captures = part
        .prompt_matches
        .as_ref()
        .and_then(|regex| regex.captures(&scene.prompt));
    let mut filled = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((name, after)) = after.split_once("}}") else {
            break;
        };
        filled.push_str(before);
        match name.trim() {
            "prompt" => filled.push_str(&scene.prompt),
            "result" => filled.push_str(&excerpt(&scene.results, MAX_QUOTED_RESULT)),
            name => {
                let group = captures.as_ref().and_then(|captures| match name.parse() {
                    Ok(number) => captures.get(number),
                    Err(_) => captures.name(name),
                });
                filled.push_str(group.map_or("", |group| group.as_str()));
            }
        }
        rest = after;
    }
    filled + rest
}

fn exhausted(message: String) -> ModelFailure {
    ModelFailure::new(FailureKind::ScriptExhausted, message)
}

fn excerpt(text: &str, max_chars: usize) -> String {
    match text.char_indices().nth(max_chars) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn tokens(text: &str) -> u64 {
    (text.len() as u64).div_ceil(4)
}

fn block_tokens(block: &Block) -> u64 {
    match block {
        Block::Text { text } | Block::Reasoning { text, .. } => tokens(text),
        Block::ToolCall(call) => tokens(&call.name) + tokens(&call.arguments_json),
        Block::Image { .. } | Block::KeptImage { .. } | Block::ToolResult { .. } | Block::Unknown { .. } => 0,
    }
}

fn fingerprint(request: &ModelRequest) -> u64 {
    let mut hasher = DefaultHasher::new();
    request.cache_key.hash(&mut hasher);
    serde_json::to_string(&request.messages)
        .unwrap_or_default()
        .hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
#[path = "player_tests.rs"]
mod tests;
