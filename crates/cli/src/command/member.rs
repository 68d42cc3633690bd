//! `greenroom session members`, `link` and `join`: who may do what in a session.

use super::{input, table};
use crate::arguments::{Global, LinkArguments, MembersArguments};
use crate::connection;
use crate::failure::{Exit, Failure};
use crate::terminal::{Span, Style, Terminal};
use crate::turn_view::{access_sentence, role_word};
use greenroom_protocol::client::member::{CreateLink, LinkKind, Role, SessionAccess};
use greenroom_protocol::client::session::UpdateSession;
use url::Url;

/// Shows or changes the members of a session.
pub async fn members(
    global: &Global,
    options: MembersArguments,
    terminal: Terminal,
) -> Result<Exit, Failure> {
    let client = connection::connect(global)?;
    let id = input::session_id(&client, &options.id).await?;
    if let Some(person) = &options.add {
        let person = input::person(&client, person).await?;
        let role = options.role.as_deref().map_or(Role::Editor, role_of);
        client.set_member(&id, &person.id, role).await?;
    }
    if let Some(person) = &options.remove {
        let person = input::person(&client, person).await?;
        client.remove_member(&id, &person.id).await?;
        if client.me().await?.person.id == person.id {
            terminal.line(&[Span::plain(format!("you left {id}"))])?;
            return Ok(Exit::Success);
        }
    }
    if let Some(access) = &options.everybody {
        let change = UpdateSession {
            access: Some(access_of(access)),
            ..UpdateSession::default()
        };
        client.update_session(&id, &change).await?;
    }
    let members = client.members(&id).await?;
    if options.json {
        terminal.json(&members)?;
        return Ok(Exit::Success);
    }
    let rows: Vec<_> = members
        .members
        .into_iter()
        .map(|member| {
            vec![
                member.person.id.to_string(),
                member.person.name,
                role_word(member.role).to_owned(),
            ]
        })
        .collect();
    table::print(terminal, &["PERSON", "NAME", "ROLE"], &rows)?;
    let others = access_sentence(members.access);
    let you = role_word(members.your_role);
    terminal.note(&[Span::new(Style::Dim, format!("{others}; you are {you}"))]);
    Ok(Exit::Success)
}

/// Makes a link into a session, lists those there are, or revokes one.
pub async fn link(global: &Global, options: LinkArguments, terminal: Terminal) -> Result<Exit, Failure> {
    let client = connection::connect(global)?;
    let id = input::session_id(&client, &options.id).await?;
    if let Some(link) = &options.revoke {
        let link = link.parse().map_err(|_| {
            Failure::usage("link_argument", format!("{link} is no link's id"))
                .with_hint(format!("greenroom session link {id} --list shows them"))
        })?;
        client.revoke_link(&id, &link).await?;
        terminal.line(&[Span::plain(format!("{link} lets nobody in any more"))])?;
        return Ok(Exit::Success);
    }
    if options.list {
        let links = client.links(&id).await?;
        if options.json {
            terminal.json(&links)?;
            return Ok(Exit::Success);
        }
        let rows: Vec<_> = links
            .links
            .into_iter()
            .map(|link| {
                let kind = match link.kind {
                    LinkKind::Invite => "invite",
                    LinkKind::Share => "share",
                };
                vec![
                    link.id.to_string(),
                    kind.to_owned(),
                    role_word(link.role).to_owned(),
                    input::time(link.expires_at_ms),
                    link.created_by.name,
                ]
            })
            .collect();
        table::print(terminal, &["LINK", "KIND", "ROLE", "UNTIL", "BY"], &rows)?;
        return Ok(Exit::Success);
    }
    let create = CreateLink {
        kind: if options.share {
            LinkKind::Share
        } else {
            LinkKind::Invite
        },
        role: options.role.as_deref().map(role_of),
        valid_for_seconds: options.hours.map(|hours| hours.saturating_mul(3600)),
    };
    let created = client.create_link(&id, &create).await?;
    if options.json {
        terminal.json(&created)?;
        return Ok(Exit::Success);
    }
    let until = input::time(created.link.expires_at_ms);
    let note = match created.link.kind {
        LinkKind::Invite => format!(
            "whoever is signed in and opens it becomes {}, until {until}",
            role_word(created.link.role)
        ),
        LinkKind::Share => format!("whoever has it watches without signing in, until {until}"),
    };
    terminal.note(&[Span::new(Style::Dim, note)]);
    terminal.line(&[Span::plain(created.url)])?;
    Ok(Exit::Success)
}

/// Becomes a member by an invite link.
pub async fn join(global: &Global, link: &str, terminal: Terminal) -> Result<Exit, Failure> {
    let token = Url::parse(link)
        .ok()
        .and_then(|url| Some(url.fragment()?.strip_prefix("token=")?.to_owned()));
    let token = token.ok_or_else(|| {
        Failure::usage("link_argument", "this is no invite link")
            .with_hint("give the whole address, with what stands behind the #")
    })?;
    let joined = connection::connect(global)?.join_session(&token).await?;
    let text = format!("{} as {}", joined.session_id, role_word(joined.role));
    terminal.line(&[Span::plain(text)])?;
    Ok(Exit::Success)
}

fn role_of(word: &str) -> Role {
    match word {
        "owner" => Role::Owner,
        "editor" => Role::Editor,
        _ => Role::Viewer,
    }
}

/// What people may do who are no members, from an argument.
pub fn access_of(word: &str) -> SessionAccess {
    match word {
        "editor" => SessionAccess::Editor,
        "viewer" => SessionAccess::Viewer,
        _ => SessionAccess::Members,
    }
}
