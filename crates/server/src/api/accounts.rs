//! Who may use this server.

use super::app::App;
use super::audit;
use super::body::JsonBody;
use super::caller::{Caller, check_owner};
use super::failure::ApiFailure;
use super::names::PersonPath;
use super::parameters::InPath;
use super::people::{self, checked_email, checked_name, sign_in_link};
use super::reply::Created;
use super::rights::RightsChange;
use axum::Json;
use axum::extract::State;
use axum::response::NoContent;
use greenroom_protocol::client::person::{
    Account, AccountList, AddPerson, AddedPerson, SignInLink, UpdatePerson,
};
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::id::PersonId;

pub async fn list(State(app): State<App>, _: Caller) -> Result<Json<AccountList>, ApiFailure> {
    let people = app.catalog.accounts().await.map_err(|error| error.problem())?;
    Ok(Json(AccountList { people }))
}

pub async fn add(
    State(app): State<App>,
    caller: Caller,
    JsonBody(body): JsonBody<AddPerson>,
) -> Result<Created<AddedPerson>, ApiFailure> {
    check_owner(&caller)?;
    let name = checked_name(&body.name)?;
    let email = checked_email(&body.email)?;
    let person = app.catalog.add_person(name, email, body.is_owner).await;
    let person = person.map_err(|error| error.problem())?;
    audit::about(person.person.id.as_str());
    let sign_in = sign_in_link(&app, &person.person.id).await?;
    Ok(Created(AddedPerson { person, sign_in }))
}

pub async fn update(
    State(app): State<App>,
    caller: Caller,
    InPath(PersonPath { id }): InPath<PersonPath>,
    JsonBody(body): JsonBody<UpdatePerson>,
) -> Result<Json<Account>, ApiFailure> {
    check_owner(&caller)?;
    let id = known(&id)?;
    if body == UpdatePerson::default() {
        return Err(
            Problem::permanent("person_unchanged", "The request says nothing to change.")
                .with_hint("Send `name`, `email`, `is_owner` or several of them.")
                .into(),
        );
    }
    let update = UpdatePerson {
        name: body.name.as_deref().map(checked_name).transpose()?,
        email: body.email.as_deref().map(checked_email).transpose()?,
        ..body
    };
    let before = app.catalog.account(&id).await.map_err(|error| error.problem())?;
    let account = app.catalog.update_account(&id, update).await;
    let (account, links) = account.map_err(|error| error.problem())?;
    if let Some(before) = before {
        let owns = match (before.is_owner, account.is_owner) {
            (false, true) => ", an owner now",
            (true, false) => ", no owner any more",
            _ => "",
        };
        let renamed = people::renamed(&before.person, &account.person);
        audit::about(&format!("{renamed}{owns}"));
    }
    app.rights.changed(RightsChange::Person(id));
    for link in links {
        app.rights.changed(RightsChange::Link(link));
    }
    if !account.is_owner {
        end_unentitled(&app, &caller.person.id).await;
    }
    Ok(Json(account))
}

/// Somebody may no longer use this server: what they have open ends at once, and what they asked for is not done, or not further.
pub async fn remove(
    State(app): State<App>,
    caller: Caller,
    InPath(PersonPath { id }): InPath<PersonPath>,
) -> Result<NoContent, ApiFailure> {
    check_owner(&caller)?;
    let id = known(&id)?;
    let links = app.catalog.remove_person(&id).await;
    let links = links.map_err(|error| error.problem())?;
    app.services.removed.add(id.clone());
    app.rights.changed(RightsChange::Person(id));
    for link in links {
        app.rights.changed(RightsChange::Link(link));
    }
    end_unentitled(&app, &caller.person.id).await;
    Ok(NoContent)
}

/// In all sessions that are in memory; the others look when they are loaded.
async fn end_unentitled(app: &App, by: &PersonId) {
    for handle in app.sessions.loaded().await {
        if let Err(problem) = handle.end_unentitled(by.clone()).await {
            tracing::warn!(session = %handle.id, code = problem.code, "what somebody asked for who may not any more goes on");
        }
    }
}

pub async fn create_sign_in_link(
    State(app): State<App>,
    caller: Caller,
    InPath(PersonPath { id }): InPath<PersonPath>,
) -> Result<Created<SignInLink>, ApiFailure> {
    check_owner(&caller)?;
    let id = known(&id)?;
    Ok(Created(sign_in_link(&app, &id).await?))
}

fn known(id: &str) -> Result<PersonId, Problem> {
    id.parse().map_err(|_| {
        Problem::permanent("person_unknown", "There is no such person.").with_hint("See GET /v1/people.")
    })
}
