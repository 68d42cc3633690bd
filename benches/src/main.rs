//! Runs benchmarks whose name begins with the argument (all without one), prints a table, and merges the results into
//! `bench-results/latest.json`. Reports only: a slow machine is not a failure.

mod base;
mod image;
mod load;
mod long_session;
mod product;
mod prompt;
mod report;
mod sandbox;
mod session;
mod snapshot;
mod stats;

use anyhow::Result;
use report::{Machine, Report};
use std::path::Path;

#[tokio::main]
#[expect(clippy::print_stdout, reason = "the table is what a benchmark is for")]
async fn main() -> Result<()> {
    let prefix = std::env::args().nth(1).unwrap_or_default();
    let machine = Machine::current();
    let mut results = Vec::new();
    if sandbox::NAMES.iter().any(|name| name.starts_with(&prefix)) {
        results.extend(sandbox::run(&prefix).await?);
    }
    if snapshot::NAMES.iter().any(|name| name.starts_with(&prefix)) {
        results.extend(snapshot::run(&prefix).await?);
    }
    if base::NAMES.iter().any(|name| name.starts_with(&prefix)) {
        results.extend(base::run(&prefix).await?);
    }
    if prompt::NAMES.iter().any(|name| name.starts_with(&prefix)) {
        results.extend(prompt::run().await?);
    }
    if session::NAMES.iter().any(|name| name.starts_with(&prefix)) {
        results.extend(session::run().await?);
    }
    if long_session::NAMES.iter().any(|name| name.starts_with(&prefix)) {
        results.extend(long_session::run().await?);
    }
    if load::NAMES.iter().any(|name| name.starts_with(&prefix)) {
        results.extend(load::run(&prefix).await?);
    }
    if image::NAMES.iter().any(|name| name.starts_with(&prefix)) {
        results.extend(image::run().await?);
    }
    results.retain(|result| result.name.starts_with(&prefix));
    let report = Report {
        machine,
        commit: report::commit(),
        results,
    };
    println!("{}", report.table());
    report.merge_into(Path::new("bench-results/latest.json"))
}
