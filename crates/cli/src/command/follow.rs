//! Follows a session on the terminal until its turn ends, its pull request is there, or the person leaves.

use crate::failure::{Exit, Failure};
use crate::terminal::{Span, Style, Terminal};
use crate::turn_view::TurnView;
use greenroom_protocol::client::event::{EventBody, ItemBody, ToolCallStatus, TurnOutcome};
use greenroom_protocol::client::stream::StreamFrame;
use greenroom_protocol::id::{PromptId, SessionId, TurnId};
use greenroom_sdk::{Client, ClientError};
use std::time::Duration;
use tokio::time::Instant;

/// How long to wait, after a turn that asked for a pull request, for the forge to have it.
const PULL_REQUEST_PATIENCE: Duration = Duration::from_secs(60);

/// How frames are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Text,
    /// One stored event per line.
    Json,
}

/// What Ctrl-C means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signals {
    None,
    /// The turn was asked to stop.
    Stopping,
}

/// Follows one prompt to the end of its turn. Ctrl-C asks the turn to stop; a second one leaves.
pub async fn prompt(
    client: &Client,
    session: &SessionId,
    prompt: &PromptId,
    after: u64,
    form: Form,
    terminal: Terminal,
) -> Result<Exit, Failure> {
    let mut stream = client.stream(session, after);
    let mut view = TurnView::default();
    let mut watch = Watch::new(prompt.clone());
    let mut signals = Signals::None;
    let mut deadline: Option<Instant> = None;
    loop {
        let frame = tokio::select! {
            frame = stream.next() => frame,
            () = interrupted() => {
                if signals == Signals::Stopping || watch.outcome.is_some() {
                    leave(terminal, session);
                    return Ok(Exit::Interrupted);
                }
                signals = Signals::Stopping;
                terminal.note(&[Span::new(Style::Yellow, "asking the turn to stop; Ctrl-C again leaves at once")]);
                stop(client, session, prompt).await?;
                continue;
            }
            () = until(deadline) => {
                let hint = format!("see `greenroom session show {session}`");
                let message = "the pull request is not open yet";
                return Err(Failure::new("pull_request_pending", message).with_hint(hint));
            }
        };
        let frame = next(frame)?;
        show(&frame, form, &mut view, terminal)?;
        watch.see(&frame);
        let Some(outcome) = &watch.outcome else { continue };
        match outcome {
            TurnOutcome::Completed if watch.is_awaiting_pull_request() => {
                deadline.get_or_insert_with(|| Instant::now() + PULL_REQUEST_PATIENCE);
            }
            TurnOutcome::Completed => {
                summary(client, session, form, terminal).await?;
                return Ok(Exit::Success);
            }
            TurnOutcome::Failed { .. } => return Ok(Exit::Failed),
            TurnOutcome::Stopped { .. } if signals == Signals::Stopping => return Ok(Exit::Interrupted),
            TurnOutcome::Stopped { .. } => return Ok(Exit::Failed),
        }
    }
}

/// Follows a session until Ctrl-C, which only leaves.
pub async fn session(
    client: &Client,
    session: &SessionId,
    after: u64,
    form: Form,
    terminal: Terminal,
) -> Result<Exit, Failure> {
    let mut stream = client.stream(session, after);
    let mut view = TurnView::default();
    loop {
        let frame = tokio::select! {
            frame = stream.next() => frame,
            () = interrupted() => {
                leave(terminal, session);
                return Ok(Exit::Interrupted);
            }
        };
        let frame = next(frame)?;
        show(&frame, form, &mut view, terminal)?;
    }
}

/// Shows what is stored and returns.
pub async fn history(
    client: &Client,
    session: &SessionId,
    form: Form,
    terminal: Terminal,
) -> Result<(), Failure> {
    let mut view = TurnView::default();
    let mut after = 0;
    loop {
        let page = client.events(session, after, 500).await?;
        for event in &page.events {
            after = event.seq;
            let frame = StreamFrame::Event { event: event.clone() };
            show(&frame, form, &mut view, terminal)?;
        }
        if page.events.is_empty() || after >= page.last_seq {
            return Ok(());
        }
    }
}

/// What matters of the frames for when to end.
struct Watch {
    prompt: PromptId,
    /// The turn that was told it, if it has none of its own.
    told: Option<TurnId>,
    outcome: Option<TurnOutcome>,
    is_pull_request_asked: bool,
    is_pull_request_open: bool,
}

impl Watch {
    fn new(prompt: PromptId) -> Self {
        Self {
            prompt,
            told: None,
            outcome: None,
            is_pull_request_asked: false,
            is_pull_request_open: false,
        }
    }

    fn see(&mut self, frame: &StreamFrame) {
        let StreamFrame::Event { event } = frame else {
            return;
        };
        match &event.body {
            EventBody::ItemCompleted { item, .. } => {
                if let ItemBody::ToolCall(call) = &item.body {
                    self.is_pull_request_asked |=
                        call.tool == "open_pr" && call.status == ToolCallStatus::Succeeded;
                }
            }
            EventBody::PullRequestOpened { .. } => self.is_pull_request_open = true,
            // A given-up effect is shown; there is nothing left to wait for.
            EventBody::EffectFailed { .. } => self.is_pull_request_asked = false,
            EventBody::PromptInserted { turn_id, prompt_id } if *prompt_id == self.prompt => {
                self.told = Some(turn_id.clone());
            }
            EventBody::TurnCompleted {
                prompt_id,
                turn_id,
                outcome,
                ..
            } if *prompt_id == self.prompt || self.told.as_ref() == Some(turn_id) => {
                self.outcome = Some(outcome.clone());
            }
            EventBody::PromptCancelled { prompt_id, by } if *prompt_id == self.prompt => {
                self.outcome = Some(TurnOutcome::Stopped { by: by.clone() });
            }
            _ => {}
        }
    }

    fn is_awaiting_pull_request(&self) -> bool {
        self.is_pull_request_asked && !self.is_pull_request_open
    }
}

async fn summary(
    client: &Client,
    session: &SessionId,
    form: Form,
    terminal: Terminal,
) -> Result<(), Failure> {
    if form == Form::Json {
        return Ok(());
    }
    for link in client.session(session).await?.pull_requests {
        terminal.line(&[
            Span::new(
                Style::Green,
                format!("pull request {}#{} ", link.repository, link.number),
            ),
            Span::new(Style::Bold, client.page_url(&link.path)),
        ])?;
    }
    Ok(())
}

/// Stops what runs; a prompt that still waits is taken out of the queue.
async fn stop(client: &Client, session: &SessionId, prompt: &PromptId) -> Result<(), Failure> {
    match client.cancel_prompt(session, prompt).await {
        Ok(()) => return Ok(()),
        Err(ClientError::Problem {
            status: 404 | 409, ..
        }) => {}
        Err(error) => return Err(error.into()),
    }
    match client.stop_session(session, false).await {
        Ok(_) => Ok(()),
        // It ended by itself in this moment; its last event says how.
        Err(error) if error.problem_code() == Some("nothing_to_stop") => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn show(frame: &StreamFrame, form: Form, view: &mut TurnView, terminal: Terminal) -> Result<(), Failure> {
    match (form, frame) {
        (Form::Text, frame) => {
            let spans = view.apply(frame);
            if spans.is_empty() {
                Ok(())
            } else {
                terminal.write(&spans)
            }
        }
        (Form::Json, StreamFrame::Event { event }) => terminal.json(event),
        (Form::Json, _) => Ok(()),
    }
}

fn next(frame: Option<Result<StreamFrame, ClientError>>) -> Result<StreamFrame, Failure> {
    match frame {
        Some(Ok(StreamFrame::Closing { problem, .. })) => Err(problem.into()),
        Some(Ok(frame)) => Ok(frame),
        Some(Err(error)) => Err(error.into()),
        None => Err(Failure::new("stream_ended", "the server ended the stream")),
    }
}

fn leave(terminal: Terminal, session: &SessionId) {
    terminal.note(&[Span::new(
        Style::Dim,
        format!("left; the session goes on: greenroom session follow {session}"),
    )]);
}

async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        // Without a handler the default action ends the process, which is what was asked for.
        std::future::pending::<()>().await;
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
