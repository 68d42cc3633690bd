//! `greenroom session …`.

use super::follow::{self, Form};
use super::{diff, export, input, member, queue, shell, table};
use crate::arguments::{Global, SessionCommand};
use crate::connection;
use crate::failure::{Exit, Failure};
use crate::terminal::{Span, Style, Terminal, printable};
use crate::turn_view::model_label;
use greenroom_protocol::client::prompt::{Delivery, SendPrompt};
use greenroom_protocol::client::session::{
    ForkSession, ForkedSession, Session, SessionSnapshot, SessionState, UpdateSession,
};
use greenroom_protocol::guest::service::ServiceState;
use greenroom_protocol::id::SessionId;
use greenroom_sdk::{Archived, Client, IdempotencyKey, SessionFilter};
use std::time::Duration;

/// Carries out one of the session commands.
pub async fn run(global: &Global, command: SessionCommand, terminal: Terminal) -> Result<Exit, Failure> {
    match command {
        SessionCommand::List {
            repo,
            search,
            archived,
            all,
            limit,
            json,
        } => {
            let client = connection::connect(global)?;
            let filter = SessionFilter {
                limit: Some(limit),
                cursor: None,
                repository: repo,
                words: search,
                archived: match (archived, all) {
                    (true, _) => Archived::Only,
                    (_, true) => Archived::Include,
                    _ => Archived::Exclude,
                },
            };
            let sessions = client.sessions(&filter).await?.sessions;
            if json {
                sessions.iter().try_for_each(|session| terminal.json(session))?;
            } else {
                list(&sessions, terminal)?;
            }
            Ok(Exit::Success)
        }
        SessionCommand::Show { id, json } => {
            let client = connection::connect(global)?;
            let id = input::session_id(&client, &id).await?;
            let session = client.session(&id).await?;
            if !json {
                header(&session, &client.page_url(&format!("/sessions/{id}")), terminal)?;
            }
            follow::history(&client, &id, form(json), terminal).await?;
            Ok(Exit::Success)
        }
        SessionCommand::Follow { id, after, json } => {
            let client = connection::connect(global)?;
            let id = input::session_id(&client, &id).await?;
            follow::session(&client, &id, after, form(json), terminal).await
        }
        SessionCommand::Prompt {
            id,
            prompt,
            images,
            model,
            insert,
            queue,
            json,
            no_wait,
        } => {
            let text = input::prompt(&prompt).await?;
            let client = connection::connect(global)?;
            let id = input::session_id(&client, &id).await?;
            let send = SendPrompt {
                text,
                images: input::images(&images)?,
                model,
                delivery: match (insert, queue) {
                    (true, _) => Some(Delivery::Insert),
                    (_, true) => Some(Delivery::Queue),
                    _ => None,
                },
            };
            let receipt = client.send_prompt(&id, &send, &IdempotencyKey::fresh()).await?;
            if no_wait {
                match json {
                    true => terminal.json(&receipt)?,
                    false => terminal.line(&[Span::plain(receipt.prompt_id.to_string())])?,
                }
                return Ok(Exit::Success);
            }
            let session = client.session(&id).await?;
            if session.is_queue_paused && session.state == SessionState::Idle {
                terminal.note(&[Span::new(
                    Style::Yellow,
                    format!(
                        "the queue is paused, so this waits; greenroom session queue {id} --go-on lets it run"
                    ),
                )]);
            }
            let after = receipt.seq.saturating_sub(1);
            follow::prompt(&client, &id, &receipt.prompt_id, after, form(json), terminal).await
        }
        SessionCommand::Queue {
            id,
            edit,
            first,
            remove,
            insert,
            pause,
            go_on,
            json,
        } => {
            let client = connection::connect(global)?;
            let id = input::session_id(&client, &id).await?;
            let change = match (edit.as_deref(), first, remove, insert) {
                (Some([prompt, text]), ..) => Some(queue::Change::Edit(prompt.clone(), text.clone())),
                (_, Some(prompt), ..) => Some(queue::Change::First(prompt)),
                (_, _, Some(prompt), _) => Some(queue::Change::Remove(prompt)),
                (.., Some(prompt)) => Some(queue::Change::Insert(prompt)),
                _ if pause || go_on => Some(queue::Change::Pause(pause)),
                _ => None,
            };
            queue::run(&client, &id, change, json, terminal).await?;
            Ok(Exit::Success)
        }
        SessionCommand::Set { id, title, delivery } => {
            let client = connection::connect(global)?;
            let id = input::session_id(&client, &id).await?;
            let change = UpdateSession {
                title,
                delivery: delivery.map(|name| match name.as_str() {
                    "insert" => Delivery::Insert,
                    _ => Delivery::Queue,
                }),
                ..UpdateSession::default()
            };
            let session = client.update_session(&id, &change).await?;
            header(&session, &client.page_url(&format!("/sessions/{id}")), terminal)?;
            Ok(Exit::Success)
        }
        SessionCommand::Diff { id, pushed, json } => {
            let client = connection::connect(global)?;
            let id = input::session_id(&client, &id).await?;
            let diff = client.session_diff(&id, !pushed).await?;
            match json {
                true => terminal.json(&diff)?,
                false => diff::print(&diff.diff, terminal)?,
            }
            Ok(Exit::Success)
        }
        SessionCommand::Export { id, output, json } => {
            let client = connection::connect(global)?;
            let id = input::session_id(&client, &id).await?;
            let file = output.unwrap_or_else(|| format!("{id}.tar.gz").into());
            let exported = export::export(&client, &id, &file).await?;
            match json {
                true => terminal.json(&exported)?,
                false => terminal.line(&[Span::plain(format!(
                    "wrote {} events and {} files to {}",
                    exported.events,
                    exported.files,
                    exported.file.display()
                ))])?,
            }
            for name in &exported.lost {
                let text = format!("{name} is not in it: the server lost the file");
                terminal.note(&[Span::new(Style::Yellow, text)]);
            }
            Ok(Exit::Success)
        }
        SessionCommand::Archive { id } => {
            archive(global, &id, true, terminal).await?;
            Ok(Exit::Success)
        }
        SessionCommand::Unarchive { id } => {
            archive(global, &id, false, terminal).await?;
            Ok(Exit::Success)
        }
        SessionCommand::Delete { id, yes } => {
            let client = connection::connect(global)?;
            let id = input::session_id(&client, &id).await?;
            delete(&client, &id, yes, terminal).await?;
            Ok(Exit::Success)
        }
        SessionCommand::Services {
            id,
            log,
            follow,
            json,
        } => {
            let client = connection::connect(global)?;
            let id = input::session_id(&client, &id).await?;
            match log {
                Some(name) if follow => service_log(&client, &id, &name, Until::Interrupted, terminal).await,
                Some(name) => service_log(&client, &id, &name, Until::Now, terminal).await,
                None => {
                    services(&client, &id, json, terminal).await?;
                    Ok(Exit::Success)
                }
            }
        }
        SessionCommand::Snapshots {
            id,
            take,
            remove,
            push,
            json,
        } => {
            let client = connection::connect(global)?;
            let id = input::session_id(&client, &id).await?;
            if let Some([snapshot, reference]) = push.as_deref() {
                terminal.note(&[Span::new(Style::Dim, format!("pushing {snapshot}"))]);
                let pushed = client.push_snapshot(&id, snapshot, reference).await?;
                terminal.line(&[Span::plain(pushed.reference)])?;
                return Ok(Exit::Success);
            }
            match remove {
                Some(snapshot) => {
                    client.remove_snapshot(&id, &snapshot).await?;
                    terminal.line(&[Span::plain(format!("removed {snapshot}"))])?;
                }
                None if take => {
                    let taken = client.take_snapshot(&id).await?;
                    match json {
                        true => terminal.json(&taken)?,
                        false => snapshots(&[taken], terminal)?,
                    }
                }
                None => {
                    let listed = client.session_snapshots(&id).await?;
                    match json {
                        true => terminal.json(&listed)?,
                        false => snapshots(&listed.snapshots, terminal)?,
                    }
                }
            }
            Ok(Exit::Success)
        }
        SessionCommand::Fork {
            id,
            prompt,
            images,
            count,
            snapshot,
            model,
            no_wait,
            json,
        } => {
            let text = match prompt {
                Some(prompt) => Some(input::prompt(&prompt).await?),
                None => None,
            };
            let client = connection::connect(global)?;
            let id = input::session_id(&client, &id).await?;
            let fork = ForkSession {
                count: Some(count),
                snapshot_id: snapshot,
                prompt: text,
                images: input::images(&images)?,
                model,
            };
            let forked = {
                let _progress = terminal.progress("forking the session");
                client.fork_session(&id, &fork, &IdempotencyKey::fresh()).await?
            };
            told_forks(&client, forked, no_wait, json, terminal).await
        }
        SessionCommand::Shell { id } => {
            let client = connection::connect(global)?;
            let id = input::session_id(&client, &id).await?;
            let shell = client.session_shell(&id, &shell::query(None)).await?;
            shell::run(shell, terminal).await
        }
        SessionCommand::Members(options) => member::members(global, options, terminal).await,
        SessionCommand::Link(options) => member::link(global, options, terminal).await,
        SessionCommand::Join { link } => member::join(global, &link, terminal).await,
        SessionCommand::Retry { id } => {
            let client = connection::connect(global)?;
            let id = input::session_id(&client, &id).await?;
            let failed = client.session(&id).await?.failed_effects;
            if failed.is_empty() {
                terminal.line(&[Span::plain("Nothing was given up.")])?;
            }
            for effect in failed {
                client.retry_effect(&id, &effect.key).await?;
                let text = format!("{} is tried again. Before, it failed: ", effect.effect);
                terminal.line(&[Span::plain(text), Span::plain(printable(&effect.problem.message))])?;
                terminal.note(&[Span::new(
                    Style::Dim,
                    format!("greenroom session show {id} tells how it ends"),
                )]);
            }
            Ok(Exit::Success)
        }
        SessionCommand::Stop { id, pause_queue } => {
            let client = connection::connect(global)?;
            let id = input::session_id(&client, &id).await?;
            let session = client.stop_session(&id, pause_queue).await?;
            terminal.line(&[Span::plain(format!("{id} {}", state_word(session.state)))])?;
            Ok(Exit::Success)
        }
    }
}

/// Tells which forks there are; a single one that has a prompt is followed.
async fn told_forks(
    client: &Client,
    forked: ForkedSession,
    no_wait: bool,
    json: bool,
    terminal: Terminal,
) -> Result<Exit, Failure> {
    let followed = match forked.sessions.as_slice() {
        [only] if !no_wait => only.prompt.as_ref().map(|receipt| (&only.session.id, receipt)),
        _ => None,
    };
    if json && followed.is_none() {
        terminal.json(&forked)?;
    }
    if !json {
        for fork in &forked.sessions {
            let id = &fork.session.id;
            let url = client.page_url(&format!("/sessions/{id}"));
            terminal.line(&[
                Span::new(Style::Bold, format!("session {id} ")),
                Span::new(Style::Dim, url),
            ])?;
        }
    }
    match followed {
        Some((id, receipt)) => {
            let after = receipt.seq.saturating_sub(1);
            follow::prompt(client, id, &receipt.prompt_id, after, form(json), terminal).await
        }
        None => Ok(Exit::Success),
    }
}

fn snapshots(snapshots: &[SessionSnapshot], terminal: Terminal) -> Result<(), Failure> {
    if snapshots.is_empty() {
        terminal.note(&[Span::new(
            Style::Dim,
            "no snapshots; one is taken when a turn has changed something, or with --take",
        )]);
        return Ok(());
    }
    let rows: Vec<_> = snapshots
        .iter()
        .map(|snapshot| {
            let kept = if snapshot.is_pinned {
                "until removed"
            } else {
                "for a while"
            };
            vec![
                snapshot.id.to_string(),
                input::time(snapshot.created_at_ms),
                format!("{} MiB", snapshot.size_bytes.div_ceil(1 << 20)),
                kept.to_owned(),
            ]
        })
        .collect();
    table::print(terminal, &["SNAPSHOT", "TAKEN", "SIZE", "KEPT"], &rows)
}

async fn services(client: &Client, id: &SessionId, json: bool, terminal: Terminal) -> Result<(), Failure> {
    let services = client.session_services(id).await?;
    if json {
        return terminal.json(&services);
    }
    if services.services.is_empty() {
        terminal.note(&[Span::new(
            Style::Dim,
            "no service runs; they start with the sandbox, in the session's next turn",
        )]);
        return Ok(());
    }
    let rows: Vec<_> = services
        .services
        .into_iter()
        .map(|service| {
            vec![
                service.name,
                service_word(service.state).to_owned(),
                service.restarts.to_string(),
                service.reason,
            ]
        })
        .collect();
    table::print(terminal, &["SERVICE", "STATE", "RESTARTS", "WHY"], &rows)
}

/// How long to stay with a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    Now,
    Interrupted,
}

/// How often a log is looked at while it is followed.
const LOG_PAUSE: Duration = Duration::from_millis(500);

async fn service_log(
    client: &Client,
    id: &SessionId,
    name: &str,
    until: Until,
    terminal: Terminal,
) -> Result<Exit, Failure> {
    let mut after = 0;
    loop {
        let log = client.service_log(id, name, after).await?;
        if log.start_offset > after {
            // All that was kept at first has been told; the service writes faster than this reads.
            if after > 0 && until == Until::Now {
                return Ok(Exit::Success);
            }
            let lost = log.start_offset - after;
            terminal.note(&[Span::new(
                Style::Dim,
                format!("{lost} older bytes are not kept any more"),
            )]);
        }
        let has_more = log.end_offset > log.start_offset;
        after = log.end_offset;
        // Others wrote it.
        terminal.write(&[Span::plain(log.output)])?;
        if has_more {
            continue;
        }
        if until == Until::Now {
            return Ok(Exit::Success);
        }
        tokio::select! {
            () = tokio::time::sleep(LOG_PAUSE) => {}
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Interrupted),
        }
    }
}

fn service_word(state: ServiceState) -> &'static str {
    match state {
        ServiceState::Starting => "starting",
        ServiceState::Ready => "ready",
        ServiceState::Waiting => "starts again",
        ServiceState::Ended => "ended",
        ServiceState::Failed => "failed",
        ServiceState::Stopped => "stopped",
    }
}

fn form(json: bool) -> Form {
    if json { Form::Json } else { Form::Text }
}

fn list(sessions: &[Session], terminal: Terminal) -> Result<(), Failure> {
    let rows: Vec<_> = sessions
        .iter()
        .map(|session| {
            let pull_requests: Vec<_> = session
                .pull_requests
                .iter()
                .map(|link| match link.repository == session.repository {
                    true => format!("#{}", link.number),
                    false => format!("{}#{}", link.repository, link.number),
                })
                .collect();
            let state = match &session.last_error_code {
                Some(code) if session.state != SessionState::Running => code.clone(),
                _ => state_word(session.state).to_owned(),
            };
            vec![
                session.id.to_string(),
                state,
                session.repository.clone(),
                pull_requests.join(" "),
                session.title.clone(),
            ]
        })
        .collect();
    table::print(
        terminal,
        &["SESSION", "STATE", "REPOSITORY", "PRS", "TITLE"],
        &rows,
    )
}

fn header(session: &Session, url: &str, terminal: Terminal) -> Result<(), Failure> {
    terminal.line(&[Span::new(Style::Bold, session.title.clone())])?;
    let model = model_label(&session.model, session.is_scripted);
    let facts = format!(
        "{} {}, {model}, by {}",
        session.id,
        state_word(session.state),
        session.created_by.name
    );
    terminal.line(&[Span::new(Style::Dim, facts)])?;
    terminal.line(&[Span::new(Style::Dim, url)])
}

fn state_word(state: SessionState) -> &'static str {
    match state {
        SessionState::Created => "created",
        SessionState::Idle => "idle",
        SessionState::Running => "running",
        SessionState::Stopping => "stopping",
        SessionState::Asleep => "asleep",
        SessionState::Archived => "archived",
    }
}

async fn archive(global: &Global, id: &str, is_archived: bool, terminal: Terminal) -> Result<(), Failure> {
    let client = connection::connect(global)?;
    let id = input::session_id(&client, id).await?;
    let change = UpdateSession {
        is_archived: Some(is_archived),
        ..UpdateSession::default()
    };
    let session = client.update_session(&id, &change).await?;
    let done = match is_archived {
        true => "archived",
        false => "takes prompts again",
    };
    terminal.line(&[
        Span::new(Style::Bold, session.title),
        Span::plain(format!(" {done}")),
    ])
}

/// What is archived first, if it has to be, so that one command does what it says.
async fn delete(client: &Client, id: &SessionId, is_sure: bool, terminal: Terminal) -> Result<(), Failure> {
    if !is_sure {
        return Err(Failure::usage(
            "not_confirmed",
            "a deleted session does not come back: its log, its sandbox and its snapshots go, branches and pull requests stay",
        )
        .with_hint(format!(
            "greenroom session delete {id} --yes, or greenroom session archive {id} to have it out of the way"
        )));
    }
    // One whose log is damaged cannot be archived; the server lets its owner delete it as it is.
    if let Ok(session) = client.session(id).await
        && session.state != SessionState::Archived
    {
        let change = UpdateSession {
            is_archived: Some(true),
            ..UpdateSession::default()
        };
        client.update_session(id, &change).await?;
    }
    client.delete_session(id).await?;
    terminal.line(&[Span::plain(format!("deleted {id}"))])
}
