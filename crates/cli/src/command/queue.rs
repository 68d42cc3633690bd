//! `greenroom session queue`: what waits in a session.

use super::{input, table};
use crate::failure::Failure;
use crate::terminal::{Span, Style, Terminal};
use greenroom_protocol::client::prompt::{ChangePrompt, Delivery, OpenPrompts, Prompt};
use greenroom_protocol::client::session::UpdateSession;
use greenroom_protocol::id::{PromptId, SessionId};
use greenroom_sdk::Client;

/// What is to become of a prompt that waits; by its id, or the end of it.
pub enum Change {
    /// Says something else.
    Edit(String, String),
    /// Runs next.
    First(String),
    Remove(String),
    /// Is told to the turn that runs.
    Insert(String),
    /// Whether all that waits stays.
    Pause(bool),
}

/// Changes a prompt if that is asked for, and prints what waits then.
pub async fn run(
    client: &Client,
    session: &SessionId,
    change: Option<Change>,
    json: bool,
    terminal: Terminal,
) -> Result<(), Failure> {
    let mut open = client.open_prompts(session).await?;
    if let Some(change) = change {
        apply(client, session, &open, change).await?;
        open = client.open_prompts(session).await?;
    }
    if json {
        return terminal.json(&open);
    }
    if client.session(session).await?.is_queue_paused {
        let hint = "The queue is paused: no turn begins until --go-on.";
        terminal.line(&[Span::new(Style::Yellow, hint)])?;
    }
    show(&open, terminal)
}

async fn apply(
    client: &Client,
    session: &SessionId,
    open: &OpenPrompts,
    change: Change,
) -> Result<(), Failure> {
    let (prompt, change) = match change {
        Change::Remove(prompt) => {
            client.cancel_prompt(session, &queued(open, &prompt)?).await?;
            return Ok(());
        }
        Change::Pause(is_paused) => {
            let change = UpdateSession {
                is_queue_paused: Some(is_paused),
                ..UpdateSession::default()
            };
            client.update_session(session, &change).await?;
            return Ok(());
        }
        Change::First(prompt) => {
            let position = Some(0);
            (
                prompt,
                ChangePrompt {
                    position,
                    ..ChangePrompt::default()
                },
            )
        }
        Change::Insert(prompt) => {
            let delivery = Some(Delivery::Insert);
            (
                prompt,
                ChangePrompt {
                    delivery,
                    ..ChangePrompt::default()
                },
            )
        }
        Change::Edit(prompt, text) => {
            let text = Some(input::prompt(&text).await?);
            (
                prompt,
                ChangePrompt {
                    text,
                    ..ChangePrompt::default()
                },
            )
        }
    };
    client
        .change_prompt(session, &queued(open, &prompt)?, &change)
        .await?;
    Ok(())
}

/// The one prompt that waits and has this id, or an id that ends so.
fn queued(open: &OpenPrompts, text: &str) -> Result<PromptId, Failure> {
    let is_meant = |prompt: &&Prompt| {
        prompt.id.as_str() == text || text.len() >= 4 && prompt.id.as_str().ends_with(text)
    };
    let mut matching = open.queued.iter().filter(is_meant);
    match (matching.next(), matching.next()) {
        (Some(prompt), None) => Ok(prompt.id.clone()),
        (Some(_), Some(_)) => Err(Failure::usage(
            "prompt_ambiguous",
            format!("several prompts end in {text}"),
        )
        .with_hint("give more of the id")),
        (None, _) => Err(Failure::new(
            "prompt_not_queued",
            format!("no prompt {text} waits in this session"),
        )
        .with_hint("greenroom session queue SESSION shows those that do")),
    }
}

fn show(open: &OpenPrompts, terminal: Terminal) -> Result<(), Failure> {
    if open.queued.is_empty() {
        return terminal.line(&[Span::plain("Nothing waits.")]);
    }
    let rows: Vec<_> = open
        .queued
        .iter()
        .map(|prompt| {
            let first_line = prompt.text.trim().lines().next().unwrap_or_default();
            let when = match prompt.delivery {
                Delivery::Insert => "next step",
                Delivery::Queue => "next turn",
            };
            vec![
                prompt.id.to_string(),
                when.to_owned(),
                prompt.author.name.clone(),
                first_line.to_owned(),
            ]
        })
        .collect();
    table::print(terminal, &["PROMPT", "TOLD", "AUTHOR", "TEXT"], &rows)
}
