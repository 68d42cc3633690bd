//! What a session changed.

use super::access::Viewer;
use super::app::App;
use super::failure::ApiFailure;
use super::names::{DiffQuery, SessionPath};
use super::parameters::{InPath, InQuery};
use crate::session::diff;
use axum::Json;
use axum::extract::State;
use greenroom_protocol::client::pull_request::SessionDiff;

/// What the session changed against its base branches. Empty before the first push, unless its sandbox is looked at.
pub async fn show(
    State(app): State<App>,
    viewer: Viewer,
    InPath(SessionPath { id }): InPath<SessionPath>,
    InQuery(query): InQuery<DiffQuery>,
) -> Result<Json<SessionDiff>, ApiFailure> {
    let entered = viewer.enter(&app, &id).await?;
    let (services, fold) = (&app.services, &entered.fold);
    let diff = match query.live {
        true => diff::live(services, &entered.handle, fold)
            .await?
            .as_ref()
            .clone(),
        false => diff::pushed(services, fold).await?,
    };
    Ok(Json(diff))
}
