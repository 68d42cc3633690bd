//! Sessions and their prompts.

use super::access::{self, Entered, Viewer};
use super::app::App;
use super::audit;
use super::body::JsonBody;
use super::caller::Caller;
use super::failure::ApiFailure;
use super::idempotency::{OptionalKey, RequiredKey};
use super::names::{EventQuery, PromptPath, SessionPath, SessionQuery, StopQuery};
use super::parameters::{InPath, InQuery};
use super::reply::{Accepted, Created};
use super::rights::RightsChange;
use super::sent;
use crate::session::command::{Sent, SessionHandle};
use crate::session::digest_of;
use crate::session::right::{Right, session_unknown};
use crate::session::state::{MAX_TITLE_CHARS, UNTITLED, branch_name, title_from_prompt};
use axum::Json;
use axum::extract::State;
use axum::response::NoContent;
use greenroom_protocol::client::event::{EventBody, EventPage};
use greenroom_protocol::client::member::{Role, SessionAccess};
use greenroom_protocol::client::person::Person;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::prompt::{
    ChangePrompt, ImageAttachment, OpenPrompts, PromptReceipt, SendPrompt,
};
use greenroom_protocol::client::pull_request::Diff;
use greenroom_protocol::client::session::{
    CreateSession, CreatedSession, RetryEffect, Session, SessionList, UpdateSession, WorkspaceRepository,
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
        limit,
    };
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
            sent::check_images(images)
        }
        None if images.is_empty() => Ok(()),
        None => Err(Problem::permanent(
            "prompt_empty",
            "There are images but no prompt.",
        )),
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
    JsonBody(change): JsonBody<UpdateSession>,
) -> Result<Json<Session>, ApiFailure> {
    if change == UpdateSession::default() {
        return Err(
            Problem::permanent("session_unchanged", "The request says nothing to change.")
                .with_hint("Send `title`, `delivery`, `is_queue_paused`, `access` or several of them.")
                .into(),
        );
    }
    if let Some(title) = &change.title {
        check_title(title)?;
    }
    let needs = match change.access {
        Some(_) => Role::Owner,
        None => Role::Editor,
    };
    let handle = access::enter(&app, &caller, &id, needs).await?.handle;
    let changes_access = change.access.is_some();
    handle.update(change, caller.person.id).await?;
    if changes_access {
        app.rights.changed(RightsChange::Session(handle.id.clone()));
    }
    Ok(Json(handle.fold().await?.row))
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
    JsonBody(change): JsonBody<ChangePrompt>,
) -> Result<NoContent, ApiFailure> {
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
    handle
        .change_prompt(queued_id(&prompt_id)?, change, caller.person.id)
        .await?;
    Ok(NoContent)
}

pub async fn cancel_prompt(
    State(app): State<App>,
    caller: Caller,
    InPath(PromptPath { id, prompt_id }): InPath<PromptPath>,
) -> Result<NoContent, ApiFailure> {
    let Entered { handle, .. } = access::enter(&app, &caller, &id, Role::Editor).await?;
    handle
        .cancel_prompt(queued_id(&prompt_id)?, caller.person.id)
        .await?;
    Ok(NoContent)
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
) -> Result<Accepted<Session>, ApiFailure> {
    let Entered { handle, .. } = access::enter(&app, &caller, &id, Role::Editor).await?;
    handle.stop(caller.person.id, query.pauses_queue).await?;
    Ok(Accepted(handle.fold().await?.row))
}

pub async fn retry_effect(
    State(app): State<App>,
    caller: Caller,
    InPath(SessionPath { id }): InPath<SessionPath>,
    JsonBody(body): JsonBody<RetryEffect>,
) -> Result<Accepted<Session>, ApiFailure> {
    let Entered { handle, .. } = access::enter(&app, &caller, &id, Role::Editor).await?;
    handle.retry_effect(body.effect_key, caller.person.id).await?;
    Ok(Accepted(handle.fold().await?.row))
}

/// What the session changed, as pushed, against its base branches. Empty before the first push. Paths are relative to the workspace.
pub async fn diff(
    State(app): State<App>,
    viewer: Viewer,
    InPath(SessionPath { id }): InPath<SessionPath>,
) -> Result<Json<Diff>, ApiFailure> {
    let fold = viewer.enter(&app, &id).await?.fold;
    let row = &fold.row;
    let mut whole = Diff {
        files: Vec::new(),
        additions: 0,
        deletions: 0,
        is_truncated: false,
    };
    for pushed in &fold.pushed {
        let own = WorkspaceRepository::own(&row.repository, &row.base_branch);
        let repository = pushed.repository.as_ref().unwrap_or(&own);
        let WorkspaceRepository {
            name, base_branch, ..
        } = repository;
        let diff = app.forge.diff_branches(name, base_branch, &row.branch).await;
        let diff = match diff.map_err(|error| error.problem()) {
            // One that is gone, or whose branch is, does not hide what the session's own shows.
            Err(problem) if !problem.retryable && !repository.is_own() => {
                whole.is_truncated = true;
                continue;
            }
            diff => diff?,
        };
        whole.additions += diff.additions;
        whole.deletions += diff.deletions;
        whole.is_truncated |= diff.is_truncated;
        whole.files.extend(diff.files.into_iter().map(|mut file| {
            if !repository.is_own() {
                file.path = format!("{}/{}", repository.path, file.path);
                file.old_path = file.old_path.map(|path| format!("{}/{path}", repository.path));
                file.patch = in_directory(&file.patch, &repository.path);
            }
            file
        }));
    }
    whole.files.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(Json(whole))
}

/// A patch with the names of its header below a directory.
fn in_directory(patch: &str, directory: &str) -> String {
    let (header, rest) = match patch.find("\n@@") {
        Some(end) => patch.split_at(end),
        None => (patch, ""),
    };
    let lines: Vec<_> = header
        .split('\n')
        .map(|line| {
            for begin in ["--- a/", "+++ b/", "--- \"a/", "+++ \"b/"] {
                if let Some(name) = line.strip_prefix(begin) {
                    return format!("{begin}{directory}/{name}");
                }
            }
            line.to_owned()
        })
        .collect();
    lines.join("\n") + rest
}

#[cfg(test)]
mod tests {
    use super::in_directory;

    #[test]
    fn patches_name_files_of_the_workspace() {
        for (patch, expected) in [
            (
                "--- a/x\n+++ b/x\n@@ -1 +1 @@\n--- a/x\n",
                "--- a/d/x\n+++ b/d/x\n@@ -1 +1 @@\n--- a/x\n",
            ),
            (
                "--- /dev/null\n+++ \"b/\\303\"\n@@ -0,0 +1 @@\n",
                "--- /dev/null\n+++ \"b/d/\\303\"\n@@ -0,0 +1 @@\n",
            ),
            ("", ""),
        ] {
            assert_eq!(in_directory(patch, "d"), expected);
        }
    }
}
