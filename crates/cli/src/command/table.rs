//! Columns for people. Programs use `--json`.

use crate::failure::Failure;
use crate::terminal::{Span, Style, Terminal, printable};

/// Longest cell, in characters; the last column is not cut.
const MAX_CELL: usize = 48;

/// Prints rows under headings; every row has as many cells as there are headings.
pub fn print(terminal: Terminal, headings: &[&str], rows: &[Vec<String>]) -> Result<(), Failure> {
    let last = headings.len().saturating_sub(1);
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            row.iter()
                .enumerate()
                .map(|(at, cell)| fit(cell, at == last))
                .collect()
        })
        .collect();
    let width = |at: usize| {
        let cells = rows
            .iter()
            .filter_map(|row| row.get(at))
            .map(|cell| cell.chars().count());
        cells.chain([headings[at].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let headings: Vec<String> = headings.iter().map(|heading| (*heading).to_owned()).collect();
    terminal.line(&[Span::new(Style::Dim, line(&headings, &widths))])?;
    for row in &rows {
        terminal.line(&[Span::plain(line(row, &widths))])?;
    }
    Ok(())
}

fn line(cells: &[String], widths: &[usize]) -> String {
    let padded = cells
        .iter()
        .zip(widths)
        .map(|(cell, width)| format!("{cell:<width$}"));
    padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

fn fit(cell: &str, is_last: bool) -> String {
    let cell = printable(cell).replace(['\n', '\t'], " ");
    match cell.char_indices().nth(MAX_CELL) {
        Some((end, _)) if !is_last => format!("{}…", &cell[..end]),
        _ => cell,
    }
}
