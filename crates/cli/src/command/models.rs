//! `greenroom models`.

use super::table;
use crate::arguments::Global;
use crate::connection;
use crate::failure::{Exit, Failure};
use crate::terminal::Terminal;

/// Lists the models of the server, the default first.
pub async fn run(global: &Global, json: bool, terminal: Terminal) -> Result<Exit, Failure> {
    let models = connection::connect(global)?.models().await?.models;
    if json {
        models.iter().try_for_each(|model| terminal.json(model))?;
        return Ok(Exit::Success);
    }
    let rows: Vec<_> = models
        .iter()
        .map(|model| {
            let default = if model.is_default { "default" } else { "" };
            vec![model.id.clone(), default.to_owned(), model.label.clone()]
        })
        .collect();
    table::print(terminal, &["MODEL", "", "LABEL"], &rows)?;
    Ok(Exit::Success)
}
