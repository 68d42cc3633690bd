//! `greenroom sample`: the embedded sample project as a git repository.

use crate::failure::{Exit, Failure};
use crate::sample;
use crate::terminal::{Span, Terminal};
use std::path::Path;

/// Writes the sample and commits it.
pub fn run(directory: &Path, terminal: Terminal) -> Result<Exit, Failure> {
    sample::write(directory)?;
    terminal.line(&[Span::plain(directory.display().to_string())])?;
    Ok(Exit::Success)
}
