//! `greenroom person …` and `greenroom audit`: who may use the server, and who did what there.

use super::{input, table};
use crate::arguments::{AuditArguments, Global, PersonCommand};
use crate::connection;
use crate::failure::{Exit, Failure};
use crate::terminal::{Span, Style, Terminal};
use greenroom_protocol::client::person::{Account, AddPerson, SignInLink, UpdatePerson};
use greenroom_sdk::AuditFilter;

/// Carries out one of the person commands.
pub async fn run(global: &Global, command: PersonCommand, terminal: Terminal) -> Result<Exit, Failure> {
    let client = connection::connect(global)?;
    match command {
        PersonCommand::List(options) => {
            let people = client.people().await?;
            if options.json {
                terminal.json(&people)?;
                return Ok(Exit::Success);
            }
            let rows: Vec<_> = people
                .people
                .into_iter()
                .map(|account| {
                    vec![
                        account.person.id.to_string(),
                        account.person.name,
                        account.person.email,
                        if account.is_owner { "owner" } else { "" }.to_owned(),
                    ]
                })
                .collect();
            table::print(terminal, &["PERSON", "NAME", "EMAIL", "SERVER"], &rows)?;
        }
        PersonCommand::Add {
            name,
            email,
            owner,
            json,
        } => {
            let add = AddPerson {
                name,
                email,
                is_owner: owner,
            };
            let added = client.add_person(&add).await?;
            match json {
                true => terminal.json(&added)?,
                false => tell_link(&added.sign_in, &added.person.person.name, terminal)?,
            }
        }
        PersonCommand::SignInLink { person, json } => {
            let person = input::person(&client, &person).await?;
            let link = client.create_sign_in_link_for(&person.id).await?;
            match json {
                true => terminal.json(&link)?,
                false => tell_link(&link, &person.name, terminal)?,
            }
        }
        PersonCommand::Set {
            person,
            name,
            email,
            owner,
        } => {
            let person = input::person(&client, &person).await?;
            let update = UpdatePerson {
                name,
                email,
                is_owner: owner,
            };
            let Account { person, is_owner, .. } = client.update_person(&person.id, &update).await?;
            let is = if is_owner { "owns" } else { "uses" };
            let text = format!("{} <{}> {is} this server", person.name, person.email);
            terminal.line(&[Span::plain(crate::terminal::printable(&text))])?;
        }
        PersonCommand::Remove { person } => {
            let person = input::person(&client, &person).await?;
            client.remove_person(&person.id).await?;
            let text = format!("{} may no longer use this server", person.name);
            terminal.line(&[Span::plain(crate::terminal::printable(&text))])?;
        }
    }
    Ok(Exit::Success)
}

/// The link alone on standard output; whom it is for beside it.
fn tell_link(link: &SignInLink, name: &str, terminal: Terminal) -> Result<(), Failure> {
    let name = crate::terminal::printable(name);
    terminal.note(&[Span::new(
        Style::Dim,
        format!("give this link to {name}; it signs in once, within a day"),
    )]);
    terminal.line(&[Span::plain(link.url.clone())])
}

/// Prints who did what, the newest first.
pub async fn audit(global: &Global, options: AuditArguments, terminal: Terminal) -> Result<Exit, Failure> {
    let client = connection::connect(global)?;
    let person = match &options.person {
        Some(person) => Some(input::person(&client, person).await?.id),
        None => None,
    };
    let page = client
        .audit(&AuditFilter {
            before: options.before,
            person,
            about: options.about,
            limit: Some(options.limit),
        })
        .await?;
    if options.json {
        for entry in &page.entries {
            terminal.json(entry)?;
        }
        return Ok(Exit::Success);
    }
    let rows: Vec<_> = page
        .entries
        .into_iter()
        .map(|entry| {
            let answer = entry
                .status
                .map_or("unknown".to_owned(), |status| status.to_string());
            let about = match entry.subject {
                Some(subject) => format!("{} ({subject})", entry.target),
                None => entry.target,
            };
            vec![
                input::time(entry.at_ms),
                entry.person.name,
                entry.action,
                answer,
                about,
            ]
        })
        .collect();
    table::print(terminal, &["WHEN", "WHO", "WHAT", "ANSWER", "WHERE"], &rows)?;
    if let Some(before) = page.next_before {
        let text = format!("older ones: --before {before}");
        terminal.note(&[Span::new(Style::Dim, text)]);
    }
    Ok(Exit::Success)
}
