//! `greenroom secret …`: values go in through standard input and never come out. A value as an argument would stand in
//! the process list and the shell's history.

use super::input;
use crate::arguments::{Global, SecretCommand};
use crate::connection;
use crate::failure::{Exit, Failure};
use crate::terminal::{Span, Style, Terminal};
use greenroom_sdk::Secret;
use std::io::IsTerminal;

/// Largest value, in bytes, that a server takes.
const MAX_VALUE_BYTES: usize = 64 * 1024;

/// Carries out one of the secret commands.
pub async fn run(global: &Global, command: SecretCommand, terminal: Terminal) -> Result<Exit, Failure> {
    let client = connection::connect(global)?;
    match command {
        SecretCommand::Set { name } => {
            if std::io::stdin().is_terminal() {
                terminal.note(&[Span::new(
                    Style::Yellow,
                    "type the value and end with Ctrl-D; it is visible while you type",
                )]);
            }
            let value = input::standard_input(MAX_VALUE_BYTES).await?;
            let value = value.trim_end_matches(['\r', '\n']);
            if value.is_empty() {
                return Err(Failure::usage("secret_empty", "standard input held no value")
                    .with_hint("greenroom secret set NAME < FILE"));
            }
            if value.len() > MAX_VALUE_BYTES {
                return Err(Failure::usage(
                    "secret_too_large",
                    "the value is larger than 64 KiB",
                ));
            }
            client.set_secret(&name, &Secret::new(value)).await?;
            terminal.line(&[Span::plain(format!("stored {name}"))])?;
        }
        SecretCommand::List(options) => {
            let names = client.secret_names().await?;
            match options.json {
                true => terminal.json(&names)?,
                false => names
                    .names
                    .iter()
                    .try_for_each(|name| terminal.line(&[Span::plain(name.clone())]))?,
            }
        }
        SecretCommand::Remove { name } => {
            client.remove_secret(&name).await?;
            terminal.line(&[Span::plain(format!("removed {name}"))])?;
        }
    }
    Ok(Exit::Success)
}
