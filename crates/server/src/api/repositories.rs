//! Repositories of the built-in forge.

use super::app::App;
use super::body::JsonBody;
use super::caller::Caller;
use super::failure::ApiFailure;
use super::names::Named;
use super::parameters::InPath;
use super::reply::Created;
use axum::Json;
use axum::extract::State;
use greenroom_protocol::client::repository::{AddRepository, BranchList, Repository, RepositoryList};

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
    Ok(Created(added.map_err(|error| error.problem())?))
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

pub async fn branches(
    State(app): State<App>,
    _: Caller,
    InPath(Named { name }): InPath<Named>,
) -> Result<Json<BranchList>, ApiFailure> {
    let branches = app.forge.branches(&name).await.map_err(|error| error.problem())?;
    Ok(Json(BranchList { branches }))
}
