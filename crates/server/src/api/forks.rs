//! Forks of a session.

use super::access;
use super::app::App;
use super::audit;
use super::body::JsonBody;
use super::caller::Caller;
use super::failure::ApiFailure;
use super::idempotency::OptionalKey;
use super::names::SessionPath;
use super::parameters::InPath;
use super::reply::Created;
use super::sessions::{check_first_prompt, claim, welcome};
use super::snapshots::snapshot_of;
use crate::models::SessionModel;
use crate::session::command::SessionHandle;
use crate::session::digest_of;
use crate::session::fork::Origin;
use crate::session::state::{MAX_TITLE_CHARS, branch_name, title_from_prompt};
use axum::extract::State;
use greenroom_protocol::client::event::EventBody;
use greenroom_protocol::client::member::Role;
use greenroom_protocol::client::person::Person;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::session::{ForkSession, ForkedSession, Session};
use greenroom_protocol::id::SessionId;

/// Forks made at once.
const MAX_FORKS: u32 = 8;

pub async fn create(
    State(app): State<App>,
    caller: Caller,
    InPath(SessionPath { id }): InPath<SessionPath>,
    OptionalKey(key): OptionalKey,
    JsonBody(body): JsonBody<ForkSession>,
) -> Result<Created<ForkedSession>, ApiFailure> {
    let row = access::enter(&app, &caller, &id, Role::Viewer).await?.fold.row;
    let count = body.count.unwrap_or(1);
    if !(1..=MAX_FORKS).contains(&count) {
        let message = format!("{count} forks cannot be made at once.");
        let hint = format!("Ask for 1 to {MAX_FORKS}.");
        return Err(Problem::permanent("fork_count_invalid", message)
            .with_hint(hint)
            .into());
    }
    check_first_prompt(body.prompt.as_deref(), &body.images)?;
    let digest = digest_of(&[
        b"fork_session",
        row.id.as_str().as_bytes(),
        serde_json::to_vec(&body).unwrap_or_default().as_slice(),
    ]);
    let mut forks = Vec::new();
    for number in 1..=count {
        // With a space, which no key of a caller has.
        let key = key.as_ref().map(|key| format!("{key} fork {number}"));
        forks.push(claim(&app, &caller.person, key.as_deref(), &digest).await?);
    }
    let begun = begin(&app, &caller.person, &row, &body, forks).await?;
    let ids: Vec<_> = begun.iter().map(|fork| fork.id.as_str()).collect();
    audit::about(&ids.join(" "));
    let mut sessions = Vec::new();
    for fork in begun {
        let prompt = body.prompt.clone().map(|text| (text, body.images.clone()));
        sessions.push(welcome(&app, &fork, prompt, &caller.person).await?);
    }
    Ok(Created(ForkedSession { sessions }))
}

/// Makes those that are not there yet, all from one moment.
async fn begin(
    app: &App,
    person: &Person,
    from: &Session,
    body: &ForkSession,
    forks: Vec<(SessionId, Option<SessionHandle>)>,
) -> Result<Vec<SessionHandle>, Problem> {
    let services = &app.services;
    // Whoever asks the same again at the same moment finds what this makes.
    let _turn = app.forking.lock().await;
    let mut known = Vec::new();
    for (id, made) in forks {
        let made = match made {
            Some(made) => Some(made),
            None => app.sessions.get(&id).await.ok(),
        };
        if made.is_none() {
            // Before anything is taken from the other session.
            app.sessions.refuse_deleted(&id).await?;
        }
        known.push((id, made));
    }
    let forks = known;
    let origin = match forks.iter().all(|(_, known)| known.is_some()) {
        true => None,
        false => {
            // What is wrong with them is wrong with all, and found before anything is taken.
            model(app, from, body)?;
            Some(take(app, from, body, person).await?)
        }
    };
    let begin = async {
        let mut begun = Vec::new();
        for ((id, known), number) in forks.into_iter().zip(1..) {
            begun.push(match (known, &origin) {
                (Some(known), _) => known,
                (None, Some(origin)) => {
                    let created = created(app, person, from, body, &id, number)?;
                    origin
                        .begin(services, &app.sessions, &id, created, person)
                        .await?
                }
                (None, None) => return Err(Problem::permanent("internal", "A fork has no origin.")),
            });
        }
        Ok(begun)
    };
    let begun = begin.await;
    if let Some(origin) = origin {
        origin.finish(services).await;
    }
    begun
}

async fn take(app: &App, row: &Session, body: &ForkSession, by: &Person) -> Result<Origin, Problem> {
    let snapshot = match &body.snapshot_id {
        Some(id) => Some(snapshot_of(app, &row.id, id.as_str()).await?),
        None => None,
    };
    // As it was before its sandbox is looked at: one that is being made for the first time has no files to lose.
    let had_files = app.sessions.get(&row.id).await?.fold().await?.had_sandbox;
    Origin::take(&app.services, row, snapshot, had_files, by).await
}

fn model(app: &App, from: &Session, body: &ForkSession) -> Result<SessionModel, Problem> {
    app.models
        .resolve(Some(body.model.as_ref().unwrap_or(&from.model)))
}

fn created(
    app: &App,
    person: &Person,
    from: &Session,
    body: &ForkSession,
    id: &SessionId,
    number: u32,
) -> Result<EventBody, Problem> {
    let model = model(app, from, body)?;
    let title = title(&from.title, body, number);
    Ok(EventBody::SessionCreated {
        branch: branch_name(&title, id.as_str()),
        session_id: id.clone(),
        title,
        repository: from.repository.clone(),
        base_branch: from.base_branch.clone(),
        model: model.id,
        is_scripted: model.is_scripted,
        created_by: person.clone(),
        // It tells what was said in the other, so it is not open to more people.
        access: from.access,
    })
}

/// So that forks of one prompt, or of none, can be told apart.
fn title(from: &str, body: &ForkSession, number: u32) -> String {
    let is_one = body.count.unwrap_or(1) == 1;
    let (title, mark) = match &body.prompt {
        Some(prompt) if is_one => return title_from_prompt(prompt),
        Some(prompt) => (title_from_prompt(prompt), format!(" · {number}")),
        None if is_one => (from.to_owned(), " · fork".to_owned()),
        None => (from.to_owned(), format!(" · fork {number}")),
    };
    let room = MAX_TITLE_CHARS - mark.chars().count();
    if title.chars().count() <= room {
        return title + &mark;
    }
    let cut: String = title.chars().take(room - 1).collect();
    format!("{}…{mark}", cut.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forks_have_titles_of_their_own() {
        let long = "x".repeat(MAX_TITLE_CHARS);
        for (from, prompt, count, expected) in [
            ("Fix it", None, 1, "Fix it · fork"),
            ("Fix it", None, 2, "Fix it · fork 2"),
            ("Fix it", Some("Try a queue\nnow"), 1, "Try a queue"),
            ("Fix it", Some("Try a queue"), 3, "Try a queue · 2"),
            (
                &long,
                None,
                1,
                &format!("{}… · fork", "x".repeat(MAX_TITLE_CHARS - 8)),
            ),
        ] {
            let body = ForkSession {
                count: Some(count),
                prompt: prompt.map(str::to_owned),
                ..ForkSession::default()
            };
            let title = title(from, &body, 2);
            assert_eq!(title, expected);
            assert!(title.chars().count() <= MAX_TITLE_CHARS);
        }
    }
}
