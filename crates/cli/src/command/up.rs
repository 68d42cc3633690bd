//! `greenroom up` as typed: configuration in, address and sign-in link out. The wiring is in [`crate::up`].

use crate::arguments::{Global, UpArguments};
use crate::command::config;
use crate::config::{LogConfig, LogFormat};
use crate::failure::{Exit, Failure};
use crate::terminal::{Span, Style, Terminal};
use crate::up::{Ready, UpError, up};
use tracing_subscriber::EnvFilter;

/// Runs a server until it is told to stop.
pub async fn run(global: &Global, arguments: &UpArguments, terminal: Terminal) -> Result<Exit, Failure> {
    let config = config::load_with_scripts(global, terminal)?;
    log_to_stderr(&config.log)?;
    let is_json = arguments.json;
    up(config, |ready| {
        // A server serves on when nobody reads what it says first.
        let _ = match is_json {
            true => announce_json(ready, terminal),
            false => announce(ready, terminal),
        };
    })
    .await
    .map_err(failure)?;
    Ok(Exit::Success)
}

fn announce(ready: &Ready, terminal: Terminal) -> Result<(), Failure> {
    let label = |text: &str| Span::new(Style::Dim, format!("{text:<10}"));
    terminal.line(&[
        Span::new(Style::Green, "✓ "),
        Span::new(Style::Bold, "Greenroom is ready"),
    ])?;
    terminal.line(&[label("address"), Span::plain(ready.url.clone())])?;
    let once = Span::new(Style::Dim, "  (works once; another: greenroom sign-in-link)");
    terminal.line(&[
        label("sign in"),
        Span::new(Style::Cyan, ready.sign_in_link.clone()),
        once,
    ])?;
    let model = ready.models.first().cloned().unwrap_or_default();
    terminal.line(&[label("model"), Span::plain(model)])?;
    if ready.is_scripted {
        let text = "it plays a script; for a real one set ANTHROPIC_API_KEY, OPENAI_API_KEY or a base URL";
        terminal.line(&[label(""), Span::new(Style::Yellow, text)])?;
    }
    if !ready.has_web_app {
        let text = "the web app is not in this binary; run `make web` and build again";
        terminal.line(&[label("web"), Span::new(Style::Yellow, text)])?;
    }
    terminal.line(&[label("stop"), Span::plain("Ctrl-C")])
}

fn announce_json(ready: &Ready, terminal: Terminal) -> Result<(), Failure> {
    terminal.json(&serde_json::json!({
        "url": ready.url,
        "sign_in_url": ready.sign_in_link,
        "models": ready.models,
        "is_scripted": ready.is_scripted,
        "has_web_app": ready.has_web_app,
        "pid": std::process::id(),
        "version": env!("CARGO_PKG_VERSION"),
    }))
}

fn failure(error: anyhow::Error) -> Failure {
    match error.downcast::<UpError>() {
        Ok(error) => Failure::from(error.0),
        Err(error) => Failure::new("internal", format!("{error:#}"))
            .with_hint("greenroom doctor and greenroom config check tell more"),
    }
}

fn log_to_stderr(config: &LogConfig) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(&config.level).map_err(|error| {
        Failure::usage(
            "config_invalid",
            format!("log.level {} is no filter: {error}", config.level),
        )
        .with_hint("use error, warn, info, debug, trace, or info,greenroom_agent=debug")
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // Fails only if something else logs already, which then goes on.
    let _ = match config.format {
        LogFormat::Text => {
            let is_coloured = Terminal::of_process().is_stderr_coloured();
            builder.with_ansi(is_coloured).try_init()
        }
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}
