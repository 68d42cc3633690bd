//! `greenroom repo …`, and which repository a path, URL or name means.

use super::table;
use crate::arguments::{Global, RepoCommand};
use crate::connection;
use crate::failure::{Exit, Failure};
use crate::terminal::{Span, Terminal};
use greenroom_protocol::client::repository::{AddRepository, Repository};
use greenroom_sdk::Client;
use std::path::Path;

/// Carries out one of the repository commands.
pub async fn run(global: &Global, command: RepoCommand, terminal: Terminal) -> Result<Exit, Failure> {
    let client = connection::connect(global)?;
    match command {
        RepoCommand::Add { source, name, json } => {
            let source = source
                .map(|source| absolute_source(&client, &source))
                .transpose()?;
            let name = match (name, &source) {
                (Some(name), _) => name,
                (None, Some(source)) => name_of(source)?,
                (None, None) => {
                    return Err(Failure::usage(
                        "repository_name_missing",
                        "a name or a source is needed",
                    ));
                }
            };
            let repository = add(&client, name, source, terminal).await?;
            match json {
                true => terminal.json(&repository)?,
                false => terminal.line(&[Span::plain(format!(
                    "{} {}",
                    repository.name, repository.clone_url
                ))])?,
            }
        }
        RepoCommand::List(options) => {
            let repositories = client.repositories().await?.repositories;
            if options.json {
                repositories
                    .iter()
                    .try_for_each(|repository| terminal.json(repository))?;
            } else {
                list(&repositories, terminal)?;
            }
        }
    }
    Ok(Exit::Success)
}

/// The forge's name for what a person calls a repository; imports a path or URL that is not there yet.
pub async fn resolve(client: &Client, text: &str, terminal: Terminal) -> Result<String, Failure> {
    let known = client.repositories().await?.repositories;
    if !is_source(text) {
        if known.iter().any(|repository| repository.name == text) {
            return Ok(text.to_owned());
        }
        if !Path::new(text).is_dir() {
            return Err(Failure::new("repository_unknown", format!("there is no repository {text}")).with_hint(
                "greenroom repo list shows the repositories; give a path such as ./shop or a URL to import one",
            ));
        }
    }
    let source = absolute_source(client, text)?;
    if let Some(repository) = known
        .iter()
        .find(|repository| repository.source.as_ref() == Some(&source))
    {
        return Ok(repository.name.clone());
    }
    let base = name_of(&source)?;
    let is_taken = |name: &str| known.iter().any(|repository| repository.name == name);
    let numbered = (2_u32..).map(|number| format!("{base}-{number}"));
    let name = std::iter::once(base.clone())
        .chain(numbered)
        .find(|name| !is_taken(name))
        .unwrap_or(base);
    Ok(add(client, name, Some(source), terminal).await?.name)
}

async fn add(
    client: &Client,
    name: String,
    source: Option<String>,
    terminal: Terminal,
) -> Result<Repository, Failure> {
    let what = match &source {
        Some(source) => format!("importing {source}"),
        None => format!("creating {name}"),
    };
    let _progress = terminal.progress(what);
    Ok(client.add_repository(&AddRepository { name, source }).await?)
}

fn list(repositories: &[Repository], terminal: Terminal) -> Result<(), Failure> {
    let rows: Vec<_> = repositories
        .iter()
        .map(|repository| {
            vec![
                repository.name.clone(),
                repository
                    .default_branch
                    .clone()
                    .unwrap_or_else(|| "(empty)".to_owned()),
                repository.clone_url.clone(),
            ]
        })
        .collect();
    table::print(terminal, &["NAME", "DEFAULT BRANCH", "CLONE"], &rows)
}

/// Whether a text cannot be a name in the forge, or says clearly that it is a path.
fn is_source(text: &str) -> bool {
    text.contains(['/', ':']) || text.starts_with('.') || text.starts_with('~')
}

/// A URL as it is; a path made absolute, because the server works in another folder.
fn absolute_source(client: &Client, text: &str) -> Result<String, Failure> {
    if text.contains("://") {
        return Ok(text.to_owned());
    }
    if client.base_url().starts_with("https://") {
        return Err(Failure::usage(
            "path_not_on_server",
            format!("{text} is a path, but the server is another machine"),
        )
        .with_hint(
            "give an https:// URL, or push to the forge: greenroom repo add --name NAME, then git push",
        ));
    }
    let path = std::fs::canonicalize(text).map_err(|error| {
        Failure::usage("repository_path", format!("{text} cannot be opened: {error}"))
            .with_hint("give the path of a git repository, a URL, or a name that greenroom repo list shows")
    })?;
    match path.to_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(Failure::usage(
            "repository_path",
            "the path of the repository is not UTF-8",
        )),
    }
}

/// A name for the forge from the last part of a path or URL.
fn name_of(source: &str) -> Result<String, Failure> {
    let last = source
        .trim_end_matches('/')
        .rsplit(['/', ':'])
        .next()
        .unwrap_or_default();
    let last = last.strip_suffix(".git").unwrap_or(last).to_lowercase();
    let mapped: String = last
        .chars()
        .map(|c| {
            if c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-') {
                c
            } else {
                '-'
            }
        })
        .take(90)
        .collect();
    let name = mapped.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    if name.is_empty() {
        return Err(Failure::usage(
            "repository_name_missing",
            format!("{source} gives no name for the forge"),
        )
        .with_hint("greenroom repo add SOURCE --name NAME"));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_and_names_are_told_apart() {
        for (text, expected) in [
            ("shop", false),
            ("shop.js", false),
            (".", true),
            ("./shop", true),
            ("../shop", true),
            ("/srv/shop", true),
            ("team/shop", true),
            ("https://git.example/shop.git", true),
        ] {
            assert_eq!(is_source(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_name_follows_from_the_source() {
        for (source, expected) in [
            ("/srv/Shop", Some("shop")),
            ("https://git.example/team/shop.git", Some("shop")),
            ("https://git.example/team/shop.git/", Some("shop")),
            ("/srv/my shop!", Some("my-shop")),
            ("/srv/.dotfiles", Some("dotfiles")),
            ("/", None),
            ("/srv/___", None),
        ] {
            assert_eq!(name_of(source).ok().as_deref(), expected, "{source:?}");
        }
    }
}
