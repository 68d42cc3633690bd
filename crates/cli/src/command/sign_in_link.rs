//! `greenroom sign-in-link`.

use crate::arguments::Global;
use crate::connection;
use crate::failure::{Exit, Failure};
use crate::terminal::{Span, Terminal};

/// Prints a link that works once.
pub async fn run(global: &Global, json: bool, terminal: Terminal) -> Result<Exit, Failure> {
    let link = connection::connect(global)?.create_sign_in_link().await?;
    match json {
        true => terminal.json(&link)?,
        false => terminal.line(&[Span::plain(link.url)])?,
    }
    Ok(Exit::Success)
}
