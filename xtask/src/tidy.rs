//! Rules of the repository that are held by a check: the crate graph, and the form of source files.

mod graph;
mod source;

use anyhow::{Result, bail};
use std::path::Path;

/// Checks everything; the error lists every finding.
pub fn run(root: &Path) -> Result<String> {
    let metadata = graph::metadata(root)?;
    let files = source::tracked(root)?;
    let mut findings = graph::findings(&metadata);
    findings.extend(source::findings(root, &files)?);
    if findings.is_empty() {
        return Ok(format!(
            "tidy: {} files and the crate graph are in order",
            files.len()
        ));
    }
    bail!("tidy: {} findings\n  {}", findings.len(), findings.join("\n  "));
}
