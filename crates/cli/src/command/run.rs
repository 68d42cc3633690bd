//! `greenroom run`: from a prompt to a pull request.

use super::follow::{self, Form};
use super::{input, repository};
use crate::arguments::{Global, RunArguments};
use crate::connection;
use crate::failure::{Exit, Failure};
use crate::terminal::{Span, Style, Terminal};
use crate::turn_view::model_label;
use greenroom_protocol::client::session::CreateSession;
use greenroom_sdk::IdempotencyKey;

/// Starts a session and follows its first turn.
pub async fn run(global: &Global, arguments: RunArguments, terminal: Terminal) -> Result<Exit, Failure> {
    let prompt = input::prompt(&arguments.prompt).await?;
    let images = input::images(&arguments.images)?;
    let client = connection::connect(global)?;
    let repository = repository::resolve(&client, &arguments.repo, terminal).await?;
    let create = CreateSession {
        repository,
        base_branch: arguments.base,
        model: arguments.model,
        prompt: Some(prompt),
        images,
        access: arguments.everybody.as_deref().map(super::member::access_of),
    };
    let created = {
        let _progress = terminal.progress("starting the session");
        client.create_session(&create, &IdempotencyKey::fresh()).await?
    };
    let session = &created.session;
    let url = client.page_url(&format!("/sessions/{}", session.id));
    if arguments.no_wait {
        match arguments.json {
            true => terminal.json(&created)?,
            false => terminal.line(&[Span::plain(format!("{} {url}", session.id))])?,
        }
        return Ok(Exit::Success);
    }
    let Some(receipt) = &created.prompt else {
        return Err(Failure::new(
            "answer_malformed",
            "the server gave no receipt for the prompt",
        ));
    };
    let form = if arguments.json { Form::Json } else { Form::Text };
    if form == Form::Text {
        let model = model_label(&session.model, session.is_scripted);
        terminal.line(&[
            Span::new(Style::Bold, format!("session {} ", session.id)),
            Span::new(Style::Dim, model),
        ])?;
        terminal.line(&[Span::new(Style::Dim, url)])?;
    }
    follow::prompt(&client, &session.id, &receipt.prompt_id, 0, form, terminal).await
}
