//! `greenroom doctor`: what this machine and this configuration allow, each finding with what is used instead and a hint.
//! It changes nothing that stays.

mod machine;
mod sandbox;

use crate::arguments::Global;
use crate::config::{self, Config, ConfigError, Environment};
use crate::failure::{Exit, Failure};
use crate::terminal::{Span, Style, Terminal};
use serde::Serialize;

/// How well something serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    Ok,
    /// Something else is used.
    Instead,
    /// `greenroom up` cannot work without it.
    Missing,
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Stable, lower-case words joined by underscores.
    pub name: String,
    pub standing: Standing,
    pub detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Check {
    fn ok(name: &str, detail: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            standing: Standing::Ok,
            detail: detail.into(),
            hint: None,
        }
    }

    fn instead(name: &str, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            standing: Standing::Instead,
            hint: Some(hint.into()),
            ..Self::ok(name, detail)
        }
    }

    fn missing(name: &str, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            standing: Standing::Missing,
            hint: Some(hint.into()),
            ..Self::ok(name, detail)
        }
    }
}

/// Looks at everything and reports; the exit status is 1 only if `up` cannot work.
pub async fn run(global: &Global, json: bool, terminal: Terminal) -> Result<Exit, Failure> {
    let environment = Environment::of_process();
    let checks = {
        let _progress = terminal.progress("trying what this machine can do");
        match config::load_with_scripts(global.config.as_deref(), &environment) {
            Ok(config) => all(&config, &environment).await,
            Err(errors) => errors.into_iter().map(invalid).chain([machine::git()]).collect(),
        }
    };
    if json {
        terminal.json(&checks)?;
    } else {
        show(&checks, terminal)?;
    }
    match checks.iter().any(|check| check.standing == Standing::Missing) {
        true => Ok(Exit::Failed),
        false => Ok(Exit::Success),
    }
}

async fn all(config: &Config, environment: &Environment) -> Vec<Check> {
    let source = match &config.source {
        Some(path) => path.display().to_string(),
        None => "no file; defaults and environment".to_owned(),
    };
    let mut checks = vec![Check::ok("config", source), machine::git(), machine::python()];
    checks.extend(machine::data_dir(&config.server.data_dir));
    checks.push(machine::port(config));
    checks.push(machine::models(config, environment));
    checks.push(match greenroom_server::has_web_app() {
        true => Check::ok("web_app", "embedded in this binary"),
        false => Check::instead(
            "web_app",
            "not in this binary; the API and the command line work",
            "run `make web` and build again",
        ),
    });
    checks.extend(sandbox::checks(config).await);
    checks
}

fn invalid(error: ConfigError) -> Check {
    let hint = error
        .hint
        .clone()
        .unwrap_or_else(|| "greenroom config reference explains every option".to_owned());
    Check::missing("config", error.to_string(), hint)
}

fn show(checks: &[Check], terminal: Terminal) -> Result<(), Failure> {
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    for check in checks {
        let (style, word) = match check.standing {
            Standing::Ok => (Style::Green, "ok     "),
            Standing::Instead => (Style::Yellow, "instead"),
            Standing::Missing => (Style::Red, "missing"),
        };
        terminal.line(&[
            Span::new(style, word),
            Span::new(Style::Bold, format!("  {:<width$}", check.name)),
            Span::plain(format!("  {}", check.detail)),
        ])?;
        if let Some(hint) = &check.hint {
            terminal.line(&[
                Span::new(Style::Cyan, format!("         {:width$}  hint", "")),
                Span::plain(format!(": {hint}")),
            ])?;
        }
    }
    Ok(())
}
