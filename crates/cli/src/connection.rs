//! Finds the server that client commands talk to: the one that was named, else the one on this machine.

use crate::arguments::Global;
use crate::config::{Environment, data_dir_of_clients};
use crate::failure::{Exit, Failure};
use greenroom_sdk::{Client, Secret};
use std::path::{Path, PathBuf};

/// What a server writes into its data directory while it listens.
#[derive(serde::Deserialize)]
struct Running {
    url: String,
}

/// A client of the server, signed in with `GREENROOM_TOKEN` or, on this machine, as its owner.
pub fn connect(global: &Global) -> Result<Client, Failure> {
    let environment = Environment::of_process();
    let named = global.server.as_deref().or(environment.get("GREENROOM_SERVER"));
    let token = environment.get("GREENROOM_TOKEN").map(Secret::new);
    let (url, token) = match named {
        Some(url) => {
            let token = token.ok_or_else(|| {
                Failure::usage(
                    "token_missing",
                    format!("{url} needs an API token to sign in with"),
                )
                .with_hint("set GREENROOM_TOKEN to an API token of that server")
            })?;
            (url.to_owned(), token)
        }
        None => {
            let data_dir = data_dir(global)?;
            let running = running_server(&data_dir)?;
            let token = match token {
                Some(token) => token,
                None => cli_token(&data_dir)?,
            };
            (running.url, token)
        }
    };
    Ok(Client::new(&url, token)?)
}

fn data_dir(global: &Global) -> Result<PathBuf, Failure> {
    data_dir_of_clients(global.config.as_deref()).map_err(|errors| {
        let first = errors.first().map_or_else(String::new, |error| {
            format!(": {}: {}", error.place, error.message)
        });
        Failure::usage("config_invalid", format!("the configuration is broken{first}"))
            .with_hint("`greenroom config check` names every error; or name a server with --server URL")
    })
}

fn running_server(data_dir: &Path) -> Result<Running, Failure> {
    let path = data_dir.join("server.json");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(not_running(data_dir)),
        Err(error) => return Err(unreadable(&path, &error)),
    };
    // A file that is being written or left behind broken names no server.
    serde_json::from_str(&text).map_err(|_| not_running(data_dir))
}

fn cli_token(data_dir: &Path) -> Result<Secret, Failure> {
    let path = data_dir.join("cli-token");
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Secret::new(text.trim())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(not_running(data_dir)),
        Err(error) => Err(unreadable(&path, &error)),
    }
}

fn not_running(data_dir: &Path) -> Failure {
    Failure {
        exit: Exit::Unreachable,
        ..Failure::new(
            "server_not_running",
            format!(
                "no server runs on this machine with the data directory {}",
                data_dir.display()
            ),
        )
        .with_hint("start one with `greenroom up`, or name another with --server URL and GREENROOM_TOKEN")
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(
        "data_dir_unreadable",
        format!("{} cannot be read: {error}", path.display()),
    )
    .with_hint("run the command as the user who runs the server, or use --server URL and GREENROOM_TOKEN")
}

/// A dead server leaves its file behind: nobody listening there means that none runs.
pub fn explain_dead_server(global: &Global, failure: Failure) -> Failure {
    let is_named = global.server.is_some() || Environment::of_process().get("GREENROOM_SERVER").is_some();
    if failure.code == "server_unreachable" && !is_named {
        return data_dir(global).map_or_else(|failure| failure, |data_dir| not_running(&data_dir));
    }
    failure
}
