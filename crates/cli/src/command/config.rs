//! `greenroom config …`.

use super::table;
use crate::arguments::{ConfigCommand, Global};
use crate::config::{self, Config, ConfigError, Environment};
use crate::failure::{Exit, Failure};
use crate::terminal::{Span, Style, Terminal};

/// Carries out one of the configuration commands.
pub fn run(global: &Global, command: ConfigCommand, terminal: Terminal) -> Result<Exit, Failure> {
    match command {
        ConfigCommand::Check(options) => {
            match config::load_with_scripts(global.config.as_deref(), &Environment::of_process()) {
                Ok(config) => {
                    let source = config.source.map(|path| path.display().to_string());
                    match options.json {
                        true => terminal.json(&serde_json::json!({ "source": source, "errors": [] }))?,
                        false => {
                            let source =
                                source.unwrap_or_else(|| "defaults and environment (no file)".to_owned());
                            terminal.line(&[Span::new(Style::Green, "ok "), Span::plain(source)])?;
                        }
                    }
                    Ok(Exit::Success)
                }
                Err(errors) if options.json => {
                    let errors: Vec<_> = errors
                    .iter()
                    .map(|error| {
                        serde_json::json!({
                            "place": error.place, "option": error.option, "message": error.message, "hint": error.hint,
                        })
                    })
                    .collect();
                    terminal.json(&serde_json::json!({ "errors": errors }))?;
                    Ok(Exit::Usage)
                }
                Err(errors) => Err(report(errors, terminal)),
            }
        }
        ConfigCommand::Show(options) => {
            let config = load(global, terminal)?;
            match options.json {
                true => terminal.json(&config.shown)?,
                false => show(&config, terminal)?,
            }
            Ok(Exit::Success)
        }
        ConfigCommand::Reference => {
            terminal.raw(&config::as_text())?;
            Ok(Exit::Success)
        }
    }
}

/// The configuration, or all its errors on stderr.
pub fn load(global: &Global, terminal: Terminal) -> Result<Config, Failure> {
    config::load(global.config.as_deref(), &Environment::of_process())
        .map_err(|errors| report(errors, terminal))
}

/// The same for a server, which plays the scripts that it names.
pub fn load_with_scripts(global: &Global, terminal: Terminal) -> Result<Config, Failure> {
    config::load_with_scripts(global.config.as_deref(), &Environment::of_process())
        .map_err(|errors| report(errors, terminal))
}

/// Shows all errors but the last, which becomes the failure.
fn report(mut errors: Vec<ConfigError>, terminal: Terminal) -> Failure {
    let last = errors.pop();
    for error in errors {
        terminal.failure(&failure(error));
    }
    match last {
        Some(error) => failure(error),
        None => Failure::usage("config_invalid", "the configuration is not valid"),
    }
}

fn failure(error: ConfigError) -> Failure {
    let failure = Failure::usage("config_invalid", error.to_string());
    match error.hint {
        Some(hint) => failure.with_hint(hint),
        None => failure.with_hint("greenroom config reference explains every option"),
    }
}

fn show(config: &Config, terminal: Terminal) -> Result<(), Failure> {
    let rows: Vec<_> = config
        .shown
        .iter()
        .map(|shown| vec![shown.option.clone(), shown.value.clone(), shown.origin.clone()])
        .collect();
    table::print(terminal, &["OPTION", "VALUE", "FROM"], &rows)?;
    terminal.line(&[])?;
    let rows: Vec<_> = config
        .models
        .providers
        .iter()
        .map(|provider| {
            let key = match &provider.key {
                config::KeyOrigin::Environment(name) => format!("${name}"),
                config::KeyOrigin::Secret(name) => format!("secret {name}"),
                config::KeyOrigin::None => "none".to_owned(),
            };
            let url = provider.base_url.clone().unwrap_or_default();
            vec![provider.id.clone(), key, url, provider.models.join(", ")]
        })
        .collect();
    table::print(terminal, &["PROVIDER", "KEY", "ADDRESS", "MODELS"], &rows)
}
