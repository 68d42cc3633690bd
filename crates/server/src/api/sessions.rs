//! Sessions and their prompts.

use super::access::{self, Entered, Viewer};
use super::app::App;
use super::audit;
use super::body::JsonBody;
use super::caller::Caller;
use super::failure::ApiFailure;
use super::idempotency::{OptionalKey, RequiredKey};
use super::names::{
    ArchivedFilter, EventQuery, HistoryQuery, PromptPath, SessionPath, SessionQuery, StopQuery,
};
use super::once::{self, Repeatable};
use super::parameters::{InPath, InQuery};
use super::reply::{Accepted, Created};
use super::rights::RightsChange;
use super::sent;
use crate::session::command::{Reason, Sent, SessionHandle};
use crate::session::digest_of;
use crate::session::ending;
use crate::session::right::{Right, session_unknown};
use crate::session::state::{MAX_TITLE_CHARS, UNTITLED, branch_name, title_from_prompt};
use crate::session::views;
use axum::Json;
use axum::extract::State;
use axum::response::NoContent;
use greenroom_protocol::client::event::{EventBody, EventPage};
use greenroom_protocol::client::member::{Role, SessionAccess};
use greenroom_protocol::client::overview::History;
use greenroom_protocol::client::person::Person;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::prompt::{
    ChangePrompt, ImageAttachment, OpenPrompts, PromptReceipt, SendPrompt,
};
use greenroom_protocol::client::session::{
    CreateSession, CreatedSession, RetryEffect, Session, SessionList, UpdateSession,
};
use greenroom_protocol::id::{PromptId, SessionId};
use greenroom_stdx::id::fresh_bits;
use greenroom_store::session_log::Batch;
use std::sync::Arc;

const DEFAULT_PAGE: u32 = 50;
const MAX_PAGE: u32 = 200;
const DEFAULT_EVENTS: u32 = 500;
const MAX_EVENTS: u32 = 2_000;

pub async fn list(
    State(app): State<App>,
    caller: Caller,
    InQuery(query): InQuery<SessionQuery>,
) -> Result<Json<SessionList>, ApiFailure> {
    let limit = query.limit.unwrap_or(DEFAULT_PAGE).clamp(1, MAX_PAGE);
    let query = greenroom_store::catalog::SessionQuery {
        repository: query.repository,
        cursor: query.cursor,
        words: query.words,
        seen_by: (!caller.is_owner).then_some(caller.person.id),
        is_archived: match query.archived {
            ArchivedFilter::Exclude => Some(false),
            ArchivedFilter::Only => Some(true),
            ArchivedFilter::Include => None,
        },
        limit,
    };
    app.services.listing.brought().await;
    Ok(Json(
        app.catalog
            .sessions(query)
            .await
            .map_err(|error| error.problem())?,
    ))
}

pub async fn create(
    State(app): State<App>,
    caller: Caller,
    OptionalKey(key): OptionalKey,
    JsonBody(body): JsonBody<CreateSession>,
) -> Result<Created<CreatedSession>, ApiFailure> {
    let digest = digest_of(&[
        b"create_session",
        serde_json::to_vec(&body).unwrap_or_default().as_slice(),
    ]);
    let (id, known) = claim(&app, &caller.person, key.as_deref(), &digest).await?;
    let handle = match known {
        // Repeated: what was right then stays right, but for who may see it.
        Some(handle) => {
            let row = handle.fold().await?.row;
            access::role_of(&caller, &row).ok_or_else(session_unknown)?;
            handle
        }
        None => {
            let created = session_created(&app, &caller.person, &body, &id).await?;
            let begin = Batch {
                events: vec![created],
                ..Batch::default()
            };
            app.sessions.create(&id, begin).await?
        }
    };
    audit::about(handle.id.as_str());
    let prompt = body.prompt.map(|text| (text, body.images));
    Ok(Created(welcome(&app, &handle, prompt, &caller.person).await?))
}

/// The id of a session to be made, and the session if it was made under this key before.
pub(super) async fn claim(
    app: &App,
    person: &Person,
    key: Option<&str>,
    digest: &str,
) -> Result<(SessionId, Option<SessionHandle>), Problem> {
    let fresh_id = SessionId::from_bits(fresh_bits());
    let Some(key) = key else {
        return Ok((fresh_id, None));
    };
    let claimed = app
        .catalog
        .claim_session_creation(&person.id, key, digest, &fresh_id)
        .await;
    let id = claimed.map_err(|error| error.problem())?;
    let known = match id == fresh_id {
        true => None,
        false => app.sessions.get(&id).await.ok(),
    };
    Ok((id, known))
}

/// Sends a session that was just made its first prompt, and puts it into lists.
pub(super) async fn welcome(
    app: &App,
    handle: &SessionHandle,
    prompt: Option<(String, Vec<ImageAttachment>)>,
    person: &Person,
) -> Result<CreatedSession, Problem> {
    let prompt = match prompt {
        Some((text, images)) => {
            // The session's own key: a repeated creation finds the prompt it already sent.
            let key = format!("create:{}", handle.id);
            let prompt = SendPrompt {
                text,
                images,
                model: None,
                delivery: None,
            };
            let right = Right {
                person: person.id.clone(),
                is_server_owner: false,
                needs: Role::Editor,
            };
            let handle = handle.clone().with_right(right);
            Some(
                handle
                    .send(sent::checked(app, prompt, person.clone(), key)?)
                    .await?,
            )
        }
        None => None,
    };
    let session = handle.fold().await?.row;
    // Whoever got this answer finds the session in lists, also after a crash.
    app.catalog
        .put_session(&session)
        .await
        .map_err(|error| error.problem())?;
    Ok(CreatedSession { session, prompt })
}

/// Checks everything that can be wrong with a new session before anything is written.
async fn session_created(
    app: &App,
    person: &Person,
    body: &CreateSession,
    id: &SessionId,
) -> Result<EventBody, Problem> {
    check_first_prompt(body.prompt.as_deref(), &body.images)?;
    let repository = app
        .forge
        .repository(&body.repository)
        .await
        .map_err(|error| error.problem())?;
    let base_branch = match (&body.base_branch, repository.default_branch) {
        (Some(branch), _) => {
            let branches = app
                .forge
                .branches(&body.repository)
                .await
                .map_err(|error| error.problem())?;
            if !branches.iter().any(|known| known.name == *branch) {
                let message = format!("`{}` has no branch of that name.", body.repository);
                return Err(Problem::permanent("branch_unknown", message)
                    .with_hint("See the repository's branches, or leave `base_branch` out."));
            }
            branch.clone()
        }
        (None, Some(branch)) => branch,
        (None, None) => {
            return Err(
                Problem::permanent("repository_empty", "This repository has no commit yet.")
                    .with_hint("Push a first commit to it, then start a session."),
            );
        }
    };
    let model = app.models.resolve(body.model.as_deref())?;
    let access = body.access.unwrap_or(app.settings.session_access);
    let title = body
        .prompt
        .as_deref()
        .map_or_else(|| UNTITLED.to_owned(), title_from_prompt);
    Ok(EventBody::SessionCreated {
        // A branch is seen by all who see the repository.
        branch: match access {
            SessionAccess::Members => branch_name("", id.as_str()),
            _ => branch_name(&title, id.as_str()),
        },
        session_id: id.clone(),
        title,
        repository: body.repository.clone(),
        base_branch,
        model: model.id,
        is_scripted: model.is_scripted,
        created_by: person.clone(),
        access,
    })
}

/// A first prompt may be left out, but not with images.
pub(super) fn check_first_prompt(text: Option<&str>, images: &[ImageAttachment]) -> Result<(), Problem> {
    match text {
        Some(text) => {
            sent::check_text(text)?;
            sent::images_of(images).map(|_| ())
        }
        None if images.is_empty() => Ok(()),
        None => Err(
            Problem::permanent("prompt_empty", "There are images but no prompt.")
                .with_hint("Say what is to be done with them."),
        ),
    }
}

pub async fn show(
    State(app): State<App>,
    viewer: Viewer,
    InPath(SessionPath { id }): InPath<SessionPath>,
) -> Result<Json<Session>, ApiFailure> {
    Ok(Json(viewer.enter(&app, &id).await?.fold.row))
}

pub async fn update(
    State(app): State<App>,
    caller: Caller,
    InPath(SessionPath { id }): InPath<SessionPath>,
    key: OptionalKey,
    JsonBody(change): JsonBody<UpdateSession>,
) -> Result<Repeatable<Json<Session>>, ApiFailure> {
    let asked = serde_json::to_vec(&change).unwrap_or_default();
    let once = once::once(&caller, key, &[b"update_session", &asked]);
    if change == UpdateSession::default() {
        return Err(
            Problem::permanent("session_unchanged", "The request says nothing to change.")
                .with_hint("Send `title`, `delivery`, `is_queue_paused`, `access` or several of them, or `is_archived`.")
                .into(),
        );
    }
    if let Some(title) = &change.title {
        check_title(title)?;
    }
    let is_alone = |is_archived| {
        change
            == UpdateSession {
                is_archived: Some(is_archived),
                ..UpdateSession::default()
            }
    };
    if let Some(is_archived) = change.is_archived {
        if !is_alone(is_archived) {
            return Err(Problem::permanent(
                "archive_with_others",
                "Nothing else changes in the same request in which a session is archived or taken back.",
            )
            .with_hint("Send `is_archived` alone.")
            .into());
        }
        let handle = access::enter(&app, &caller, &id, Role::Owner).await?.handle;
        let by = caller.person.id;
        let done = once::carry_out(&app, handle, once, async |handle| match is_archived {
            true => ending::archive(&app.services, handle, Reason::Person(by)).await,
            false => handle.unarchive(by).await,
        });
        return Ok(done.await?.map(Json));
    }
    let needs = match change.access {
        Some(_) => Role::Owner,
        None => Role::Editor,
    };
    let handle = access::enter(&app, &caller, &id, needs).await?.handle;
    let changes_access = change.access.is_some();
    let session = handle.id.clone();
    let by = caller.person.id;
    let done = once::carry_out(&app, handle, once, async |handle| handle.update(change, by).await).await?;
    if changes_access {
        app.rights.changed(RightsChange::Session(session));
    }
    Ok(done.map(Json))
}

/// Only archived ones; of a damaged one, which cannot be archived, an owner of the server can free the place.
pub async fn remove(
    State(app): State<App>,
    caller: Caller,
    InPath(SessionPath { id }): InPath<SessionPath>,
) -> Result<NoContent, ApiFailure> {
    let handle = match access::enter(&app, &caller, &id, Role::Owner).await {
        Ok(entered) => entered.handle,
        Err(problem) => {
            let is_damaged = matches!(problem.code.as_str(), "session_corrupt" | "session_unknown");
            let damaged = id.parse().ok().filter(|_| caller.is_owner && is_damaged);
            let Some(damaged) = damaged else {
                return Err(problem.into());
            };
            let known = app.catalog.session(&damaged).await;
            if known.map_err(|error| error.problem())?.is_none() {
                return Err(problem.into());
            }
            ending::delete_unreadable(&app.services, &app.sessions, &damaged, &caller.person.id).await?;
            app.rights.changed(RightsChange::Session(damaged));
            return Ok(NoContent);
        }
    };
    let session = handle.id.clone();
    let why = Reason::Person(caller.person.id);
    let ended = || app.rights.changed(RightsChange::Session(session));
    ending::delete(&app.services, &handle, why, ended).await?;
    Ok(NoContent)
}

/// A title is one line that says something.
fn check_title(title: &str) -> Result<(), Problem> {
    let is_fine = !title.trim().is_empty()
        && title.chars().count() <= MAX_TITLE_CHARS
        && !title.chars().any(char::is_control);
    if is_fine {
        return Ok(());
    }
    Err(
        Problem::permanent("title_invalid", "This cannot be a session's title.").with_hint(format!(
            "A title is one line of 1 to {MAX_TITLE_CHARS} characters."
        )),
    )
}

pub async fn events(
    State(app): State<App>,
    viewer: Viewer,
    InPath(SessionPath { id }): InPath<SessionPath>,
    InQuery(query): InQuery<EventQuery>,
) -> Result<Json<EventPage>, ApiFailure> {
    let row = viewer.enter(&app, &id).await?.fold.row;
    let limit = query.limit.unwrap_or(DEFAULT_EVENTS).clamp(1, MAX_EVENTS);
    let events = app
        .store
        .read(&row.id, query.after.unwrap_or(0), limit)
        .await
        .map_err(|error| error.problem())?;
    Ok(Json(EventPage {
        events,
        last_seq: row.last_seq,
    }))
}

pub async fn history(
    State(app): State<App>,
    viewer: Viewer,
    InPath(SessionPath { id }): InPath<SessionPath>,
    InQuery(query): InQuery<HistoryQuery>,
) -> Result<Json<History>, ApiFailure> {
    let row = viewer.enter(&app, &id).await?.fold.row;
    if query.before > row.last_seq {
        return Err(
            Problem::permanent("cursor_ahead", "The cursor is past the session's last event.")
                .with_hint("Ask for what lies before the `seq` of an overview.")
                .into(),
        );
    }
    Ok(Json(views::history(&*app.store, &row.id, query.before).await?))
}

pub async fn send_prompt(
    State(app): State<App>,
    caller: Caller,
    InPath(SessionPath { id }): InPath<SessionPath>,
    RequiredKey(key): RequiredKey,
    JsonBody(prompt): JsonBody<SendPrompt>,
) -> Result<Accepted<PromptReceipt>, ApiFailure> {
    let Entered { handle, .. } = access::enter(&app, &caller, &id, Role::Editor).await?;
    let sent: Sent = sent::checked(&app, prompt, caller.person, key)?;
    let receipt = handle.send(sent).await?;
    Ok(Accepted(receipt))
}

pub async fn open_prompts(
    State(app): State<App>,
    viewer: Viewer,
    InPath(SessionPath { id }): InPath<SessionPath>,
) -> Result<Json<OpenPrompts>, ApiFailure> {
    let fold = viewer.enter(&app, &id).await?.fold;
    Ok(Json(OpenPrompts {
        inserted: fold
            .running
            .as_ref()
            .map(|running| running.inserted.clone())
            .unwrap_or_default(),
        running: fold.running.map(|running| Arc::unwrap_or_clone(running.prompt)),
        queued: fold.queue.into_iter().map(Arc::unwrap_or_clone).collect(),
    }))
}

pub async fn change_prompt(
    State(app): State<App>,
    caller: Caller,
    InPath(PromptPath { id, prompt_id }): InPath<PromptPath>,
    key: OptionalKey,
    JsonBody(change): JsonBody<ChangePrompt>,
) -> Result<Repeatable<NoContent>, ApiFailure> {
    let asked = serde_json::to_vec(&change).unwrap_or_default();
    let once = once::once(&caller, key, &[b"change_prompt", prompt_id.as_bytes(), &asked]);
    if change == ChangePrompt::default() {
        return Err(
            Problem::permanent("prompt_unchanged", "The request says nothing to change.")
                .with_hint("Send `text`, `position`, `delivery` or several of them.")
                .into(),
        );
    }
    if let Some(text) = &change.text {
        sent::check_text(text)?;
    }
    let Entered { handle, .. } = access::enter(&app, &caller, &id, Role::Editor).await?;
    let (prompt_id, by) = (queued_id(&prompt_id)?, caller.person.id);
    let done = once::carry_out(&app, handle, once, async |handle| {
        handle.change_prompt(prompt_id, change, by).await
    });
    Ok(done.await?.map(|_| NoContent))
}

pub async fn cancel_prompt(
    State(app): State<App>,
    caller: Caller,
    InPath(PromptPath { id, prompt_id }): InPath<PromptPath>,
    key: OptionalKey,
) -> Result<Repeatable<NoContent>, ApiFailure> {
    let once = once::once(&caller, key, &[b"cancel_prompt", prompt_id.as_bytes()]);
    let Entered { handle, .. } = access::enter(&app, &caller, &id, Role::Editor).await?;
    let (prompt_id, by) = (queued_id(&prompt_id)?, caller.person.id);
    let done = once::carry_out(&app, handle, once, async |handle| {
        handle.cancel_prompt(prompt_id, by).await
    });
    Ok(done.await?.map(|_| NoContent))
}

/// An id that leads nowhere is as good as one of a prompt that ran long ago.
fn queued_id(id: &str) -> Result<PromptId, Problem> {
    id.parse()
        .map_err(|_| Problem::permanent("prompt_not_queued", "This prompt is not in the queue."))
}

pub async fn stop(
    State(app): State<App>,
    caller: Caller,
    InPath(SessionPath { id }): InPath<SessionPath>,
    InQuery(query): InQuery<StopQuery>,
    key: OptionalKey,
) -> Result<Repeatable<Accepted<Session>>, ApiFailure> {
    let pauses_queue = query.pauses_queue;
    let once = once::once(&caller, key, &[b"stop", &[u8::from(pauses_queue)]]);
    let Entered { handle, .. } = access::enter(&app, &caller, &id, Role::Editor).await?;
    let by = caller.person.id;
    let done = once::carry_out(&app, handle, once, async |handle| {
        handle.stop(by, pauses_queue).await
    });
    Ok(done.await?.map(Accepted))
}

pub async fn retry_effect(
    State(app): State<App>,
    caller: Caller,
    InPath(SessionPath { id }): InPath<SessionPath>,
    key: OptionalKey,
    JsonBody(body): JsonBody<RetryEffect>,
) -> Result<Repeatable<Accepted<Session>>, ApiFailure> {
    let once = once::once(&caller, key, &[b"retry_effect", body.effect_key.as_bytes()]);
    let Entered { handle, .. } = access::enter(&app, &caller, &id, Role::Editor).await?;
    let by = caller.person.id;
    let done = once::carry_out(&app, handle, once, async |handle| {
        handle.retry_effect(body.effect_key, by).await
    });
    Ok(done.await?.map(Accepted))
}
