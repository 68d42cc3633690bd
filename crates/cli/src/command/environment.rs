//! `greenroom env …`: environments of repositories, as TOML in and out.

use super::{input, shell};
use crate::arguments::{EnvCommand, Global};
use crate::connection;
use crate::failure::{Exit, Failure};
use crate::terminal::{Span, Style, Terminal};
use greenroom_protocol::client::environment::{EnvironmentKind, EnvironmentReport, EnvironmentSource};
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::environment::Environment;
use greenroom_server::environment::{
    CheckedEnvironment, EnvironmentError, MAX_ENVIRONMENT_BYTES, read_devcontainer, read_toml,
};
use std::path::Path;

/// Carries out one of the environment commands.
pub async fn run(global: &Global, command: EnvCommand, terminal: Terminal) -> Result<Exit, Failure> {
    match command {
        EnvCommand::Show { repository, json } => {
            let report = connection::connect(global)?.environment(&repository).await?;
            match json {
                true => terminal.json(&report)?,
                false => show(&report, terminal)?,
            }
            Ok(Exit::Success)
        }
        EnvCommand::Shell { repository, branch } => {
            let query = shell::query(branch);
            let shell = connection::connect(global)?
                .environment_shell(&repository, &query)
                .await?;
            shell::run(shell, terminal).await
        }
        EnvCommand::Set { repository, file } => {
            let (place, text) = read(&file).await?;
            let checked = checked(&place, &text, terminal)?;
            let client = connection::connect(global)?;
            let report = client.set_environment(&repository, checked.written()).await?;
            terminal.line(&[
                Span::new(Style::Green, "set "),
                Span::plain(format!(
                    "the environment of {repository}; it applies when a sandbox starts next"
                )),
            ])?;
            report.notices.iter().for_each(|notice| warn(notice, terminal));
            Ok(Exit::Success)
        }
        EnvCommand::Unset { repository } => {
            connection::connect(global)?
                .remove_environment(&repository)
                .await?;
            terminal.line(&[Span::plain(format!(
                "{repository} has no environment set; its own file counts, if it has one"
            ))])?;
            Ok(Exit::Success)
        }
        EnvCommand::Build(arguments) => super::image::build(global, &arguments, terminal).await,
        EnvCommand::Check { file, json } => {
            let place = file.display().to_string();
            let text = std::fs::read(&file).map_err(|error| unreadable(&place, &error))?;
            match json {
                true => check_json(global, &place, &text, terminal).await,
                false => check(global, &place, &text, terminal).await,
            }
        }
    }
}

/// A file, or standard input for `-`, with the name it has in errors.
async fn read(file: &str) -> Result<(String, Vec<u8>), Failure> {
    // Larger ones are refused by the reader, with the right words.
    let limit = MAX_ENVIRONMENT_BYTES as usize + 1;
    match file {
        "-" => Ok((
            "standard input".to_owned(),
            input::standard_input(limit).await?.into_bytes(),
        )),
        path => std::fs::read(Path::new(path))
            .map(|text| (path.to_owned(), text))
            .map_err(|error| unreadable(path, &error)),
    }
}

fn unreadable(place: &str, error: &std::io::Error) -> Failure {
    Failure::usage(
        "environment_unreadable",
        format!("{place} cannot be read: {error}"),
    )
    .with_hint("name a TOML file; docs/environments.md shows what one looks like")
}

fn checked(place: &str, text: &[u8], terminal: Terminal) -> Result<CheckedEnvironment, Failure> {
    read_toml(place, text).map_err(|error| failed(&error, terminal))
}

/// Shows all errors but the last, which becomes the failure.
fn failed(error: &EnvironmentError, terminal: Terminal) -> Failure {
    let mut failures: Vec<_> = failures(error).collect();
    let last = failures.pop();
    failures.iter().for_each(|failure| terminal.failure(failure));
    last.unwrap_or_else(|| Failure::usage("environment_invalid", error.to_string()))
}

/// By the name of its file.
fn kind_of(place: &str) -> EnvironmentKind {
    match place.ends_with(".json") {
        true => EnvironmentKind::Devcontainer,
        false => EnvironmentKind::Toml,
    }
}

/// What is wrong with a text, and what of it is not supported.
fn look_at(place: &str, text: &[u8]) -> Result<Vec<Problem>, EnvironmentError> {
    match kind_of(place) {
        EnvironmentKind::Toml => read_toml(place, text).map(|_| Vec::new()),
        EnvironmentKind::Devcontainer => read_devcontainer(place, text).map(|found| found.notices),
    }
}

fn failures(error: &EnvironmentError) -> impl Iterator<Item = Failure> {
    error.lines().map(|(line, hint)| {
        let failure = Failure::usage("environment_invalid", line);
        match hint {
            Some(hint) => failure.with_hint(hint),
            None => failure,
        }
    })
}

async fn check(global: &Global, place: &str, text: &[u8], terminal: Terminal) -> Result<Exit, Failure> {
    let unsupported = look_at(place, text).map_err(|error| failed(&error, terminal))?;
    match ask_server(global, place, text).await {
        Ok(report) => {
            report.notices.iter().for_each(|notice| warn(notice, terminal));
            if let Some(problem) = report.problem {
                return Err(problem.into());
            }
            terminal.line(&[Span::new(Style::Green, "ok "), Span::plain(place)])?;
        }
        Err(failure) if failure.exit == Exit::Unreachable => {
            unsupported.iter().for_each(|notice| warn(notice, terminal));
            terminal.line(&[Span::new(Style::Green, "ok "), Span::plain(place)])?;
            terminal.note(&[Span::new(
                Style::Yellow,
                "no server was asked, so what its operator would cut is not known",
            )]);
        }
        Err(failure) => return Err(failure),
    }
    Ok(Exit::Success)
}

async fn check_json(global: &Global, place: &str, text: &[u8], terminal: Terminal) -> Result<Exit, Failure> {
    if let Err(error) = look_at(place, text) {
        let errors: Vec<_> = error
            .faults
            .iter()
            .map(|fault| {
                serde_json::json!({
                    "line": fault.line, "field": fault.field(), "message": fault.message, "hint": fault.hint,
                })
            })
            .collect();
        terminal.json(&serde_json::json!({ "errors": errors }))?;
        return Ok(Exit::Usage);
    }
    match ask_server(global, place, text).await {
        Ok(report) => {
            let exit = match report.problem {
                Some(_) => Exit::Failed,
                None => Exit::Success,
            };
            terminal.json(&serde_json::json!({
                "errors": [], "is_server_asked": true, "notices": report.notices, "problem": report.problem,
            }))?;
            Ok(exit)
        }
        Err(failure) if failure.exit == Exit::Unreachable => {
            terminal.json(&serde_json::json!({ "errors": [], "is_server_asked": false }))?;
            Ok(Exit::Success)
        }
        Err(failure) => Err(failure),
    }
}

async fn ask_server(global: &Global, place: &str, text: &[u8]) -> Result<EnvironmentReport, Failure> {
    let text = String::from_utf8_lossy(text);
    Ok(connection::connect(global)?
        .check_environment(&text, kind_of(place))
        .await?)
}

fn show(report: &EnvironmentReport, terminal: Terminal) -> Result<(), Failure> {
    let from = match report.source {
        EnvironmentSource::Defaults => "the server's defaults; nobody wrote an environment",
        EnvironmentSource::Repository => "from the repository's own file on the default branch",
        EnvironmentSource::Administrator => "set by an administrator",
    };
    terminal.line(&[Span::new(Style::Dim, format!("# {from}"))])?;
    if let Some(problem) = &report.problem {
        return Err(problem.clone().into());
    }
    let text = as_toml(&report.environment).map_err(|error| {
        Failure::new(
            "environment_unwritable",
            format!("the environment cannot be shown as TOML: {error}"),
        )
        .with_hint("use --json")
    })?;
    terminal.raw(&text)?;
    report.notices.iter().for_each(|notice| warn(notice, terminal));
    Ok(())
}

/// On stderr, so that what is shown stays a file.
fn warn(notice: &Problem, terminal: Terminal) {
    let hint = notice.hint.as_ref().map(|hint| format!(" ({hint})"));
    terminal.note(&[
        Span::new(Style::Yellow, format!("! {}", notice.message)),
        Span::new(Style::Dim, hint.unwrap_or_default()),
    ]);
}

/// As a person would write it: nothing that is empty.
fn as_toml(environment: &Environment) -> Result<String, toml::ser::Error> {
    let mut table = toml::Table::try_from(environment)?;
    without_empty(&mut table);
    let mut text = toml::to_string(&table)?;
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

fn without_empty(table: &mut toml::Table) {
    table.retain(|_, value| match value {
        toml::Value::Table(inner) => {
            without_empty(inner);
            !inner.is_empty()
        }
        toml::Value::Array(entries) => {
            for entry in &mut *entries {
                if let toml::Value::Table(inner) = entry {
                    without_empty(inner);
                }
            }
            !entries.is_empty()
        }
        _ => true,
    });
}
