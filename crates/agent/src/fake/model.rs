//! A model whose answers are listed beforehand. Looks at no request, but keeps them all.

use crate::world::{ModelClient, ModelStream, RetryObserver};
use async_trait::async_trait;
use greenroom_llm::conversation::{
    Block, BlockKind, ModelRequest, StopReason, StreamEvent, TokenUsage, ToolCall,
};
use greenroom_llm::failure::{FailureKind, ModelFailure};
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use tokio::sync::mpsc;

/// What one request gets.
#[derive(Debug, Clone)]
pub enum Answer {
    /// These events in order; the stream ends behind the last, or behind the first failure.
    Stream(Vec<Result<StreamEvent, ModelFailure>>),
    /// These events, then silence until the receiver is dropped.
    Hang(Vec<StreamEvent>),
    /// No stream at all.
    Fail(ModelFailure),
    /// `on_retry` is told of each failure (attempts from 1, waits of 0 ms), then the answer comes.
    Retry(Vec<ModelFailure>, Box<Answer>),
}

impl Answer {
    /// A text and the end of the turn; 10 tokens in, 5 out.
    pub fn text(text: &str) -> Self {
        let mut events = text_events(0, text);
        events.push(finished(StopReason::EndTurn));
        Self::of(events)
    }

    /// Calls of tools: id, name and raw argument text of each; 10 tokens in, 5 out.
    pub fn calls(calls: &[(&str, &str, &str)]) -> Self {
        let mut events = Vec::new();
        for (index, (id, name, arguments)) in calls.iter().enumerate() {
            events.push(StreamEvent::BlockStarted {
                index,
                kind: BlockKind::ToolCall {
                    id: (*id).to_owned(),
                    name: (*name).to_owned(),
                },
            });
            events.push(StreamEvent::ArgumentsDelta {
                index,
                json: (*arguments).to_owned(),
            });
            events.push(StreamEvent::BlockCompleted {
                index,
                block: Block::ToolCall(ToolCall {
                    id: (*id).to_owned(),
                    name: (*name).to_owned(),
                    arguments_json: (*arguments).to_owned(),
                }),
            });
        }
        events.push(finished(StopReason::ToolCalls));
        Self::of(events)
    }

    /// These events without a failure.
    pub fn of(events: Vec<StreamEvent>) -> Self {
        Self::Stream(events.into_iter().map(Ok).collect())
    }
}

/// The events of one text block.
fn text_events(index: usize, text: &str) -> Vec<StreamEvent> {
    vec![
        StreamEvent::BlockStarted {
            index,
            kind: BlockKind::Text,
        },
        StreamEvent::TextDelta {
            index,
            text: text.to_owned(),
        },
        StreamEvent::BlockCompleted {
            index,
            block: Block::Text {
                text: text.to_owned(),
            },
        },
    ]
}

fn finished(stop_reason: StopReason) -> StreamEvent {
    StreamEvent::Finished {
        stop_reason,
        usage: TokenUsage {
            input_tokens: 10,
            output_tokens: 5,
            ..TokenUsage::default()
        },
    }
}

/// Plays answers in order; behind the last it fails with [`FailureKind::ScriptExhausted`].
#[derive(Debug, Default)]
pub struct ListedModel {
    answers: Mutex<VecDeque<Answer>>,
    requests: Mutex<Vec<ModelRequest>>,
}

impl ListedModel {
    /// A model with these answers, one per request.
    pub fn new(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self {
            answers: Mutex::new(answers.into_iter().collect()),
            requests: Mutex::default(),
        }
    }

    /// Every request so far, in order.
    pub fn requests(&self) -> Vec<ModelRequest> {
        self.requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// How many answers were not asked for.
    pub fn answers_left(&self) -> usize {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

#[async_trait]
impl ModelClient for ListedModel {
    async fn stream(
        &self,
        request: ModelRequest,
        on_retry: RetryObserver,
    ) -> Result<ModelStream, ModelFailure> {
        self.requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(request);
        let mut answer = self
            .answers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front();
        let mut attempt = 0;
        while let Some(Answer::Retry(failures, then)) = answer {
            for failure in &failures {
                attempt += 1;
                on_retry(attempt, 0, failure);
            }
            answer = Some(*then);
        }
        let (events, hangs) = match answer {
            Some(Answer::Stream(events)) => (events, false),
            Some(Answer::Hang(events)) => (events.into_iter().map(Ok).collect(), true),
            Some(Answer::Fail(failure)) => return Err(failure),
            Some(Answer::Retry(..)) | None => {
                return Err(ModelFailure::new(
                    FailureKind::ScriptExhausted,
                    "the list of answers is at its end",
                ));
            }
        };
        let (sender, receiver) = mpsc::channel(16);
        tokio::spawn(async move {
            for event in events {
                let is_failure = event.is_err();
                if sender.send(event).await.is_err() || is_failure {
                    return;
                }
            }
            if hangs {
                sender.closed().await;
            }
        });
        Ok(receiver)
    }
}
