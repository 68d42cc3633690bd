//! Repositories of the built-in forge.

use super::app::App;
use super::body::JsonBody;
use super::caller::Caller;
use super::failure::ApiFailure;
use super::names::Named;
use super::parameters::InPath;
use super::reply::{Accepted, Created};
use crate::pool::{Kind, Reservation};
use axum::Json;
use axum::extract::State;
use greenroom_protocol::client::repository::{
    AddRepository, BranchList, Repository, RepositoryList, TypingReport, WarmSandbox,
};

pub async fn list(State(app): State<App>, _: Caller) -> Result<Json<RepositoryList>, ApiFailure> {
    let repositories = app.forge.repositories().await.map_err(|error| error.problem())?;
    Ok(Json(RepositoryList { repositories }))
}

pub async fn add(
    State(app): State<App>,
    _: Caller,
    JsonBody(body): JsonBody<AddRepository>,
) -> Result<Created<Repository>, ApiFailure> {
    let added = app.forge.add_repository(&body.name, body.source.as_deref()).await;
    let added = added.map_err(|error| error.problem())?;
    app.services.changes.tell(&added.name);
    Ok(Created(added))
}

pub async fn show(
    State(app): State<App>,
    _: Caller,
    InPath(Named { name }): InPath<Named>,
) -> Result<Json<Repository>, ApiFailure> {
    Ok(Json(
        app.forge
            .repository(&name)
            .await
            .map_err(|error| error.problem())?,
    ))
}

pub async fn typing(
    State(app): State<App>,
    caller: Caller,
    InPath(Named { name }): InPath<Named>,
) -> Result<Accepted<TypingReport>, ApiFailure> {
    let repository = app
        .forge
        .repository(&name)
        .await
        .map_err(|error| error.problem())?;
    let Some(branch) = repository.default_branch else {
        return Ok(Accepted(TypingReport {
            sandbox: WarmSandbox::None,
        }));
    };
    let kind = Kind {
        repository: name,
        branch,
    };
    let services = &app.services;
    let reservation = services.pool.typing(services, &kind, &caller.person.id).await?;
    let sandbox = match reservation {
        Reservation::Ready => WarmSandbox::Ready,
        Reservation::Starting | Reservation::Wanted => WarmSandbox::Starting,
        Reservation::Refused => WarmSandbox::None,
    };
    Ok(Accepted(TypingReport { sandbox }))
}

pub async fn branches(
    State(app): State<App>,
    _: Caller,
    InPath(Named { name }): InPath<Named>,
) -> Result<Json<BranchList>, ApiFailure> {
    let branches = app.forge.branches(&name).await.map_err(|error| error.problem())?;
    Ok(Json(BranchList { branches }))
}
