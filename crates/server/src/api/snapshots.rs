//! Snapshots of sessions: which there are, taking one, removing one.

use super::access::{self, Entered};
use super::app::App;
use super::body::JsonBody;
use super::caller::{Caller, check_owner};
use super::failure::ApiFailure;
use super::names::{SessionPath, SnapshotPath};
use super::parameters::InPath;
use crate::session::ending::check_not_archived;
use crate::session::snapshots;
use axum::Json;
use axum::extract::State;
use axum::response::NoContent;
use greenroom_protocol::client::image::RegistryImage;
use greenroom_protocol::client::member::Role;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::session::{SessionSnapshot, SessionSnapshotList};
use greenroom_protocol::id::SessionId;

pub async fn list(
    State(app): State<App>,
    caller: Caller,
    InPath(path): InPath<SessionPath>,
) -> Result<Json<SessionSnapshotList>, ApiFailure> {
    let session = access::enter(&app, &caller, &path.id, Role::Viewer)
        .await?
        .handle
        .id;
    let snapshots = app.catalog.snapshots(&session).await;
    Ok(Json(SessionSnapshotList {
        snapshots: snapshots.map_err(|error| error.problem())?,
    }))
}

/// Pinned, because somebody wanted it.
pub async fn take(
    State(app): State<App>,
    caller: Caller,
    InPath(path): InPath<SessionPath>,
) -> Result<Json<SessionSnapshot>, ApiFailure> {
    let row = access::enter(&app, &caller, &path.id, Role::Editor)
        .await?
        .fold
        .row;
    check_not_archived(&row)?;
    let session = row.id;
    let sandbox = app.catalog.sandbox(&session).await;
    let Some(sandbox) = sandbox.map_err(|error| error.problem())? else {
        return Err(
            Problem::permanent("sandbox_none", "The session has no sandbox yet.")
                .with_hint("Its first turn that uses one makes it.")
                .into(),
        );
    };
    Ok(Json(
        snapshots::take(&app.services, &session, &sandbox, true).await?,
    ))
}

pub async fn remove(
    State(app): State<App>,
    caller: Caller,
    InPath(path): InPath<SnapshotPath>,
) -> Result<NoContent, ApiFailure> {
    let Entered { fold, .. } = access::enter(&app, &caller, &path.id, Role::Editor).await?;
    check_not_archived(&fold.row)?;
    let snapshot = snapshot_of(&app, &fold.row.id, &path.snapshot_id).await?;
    if fold.forked_snapshot.as_ref() == Some(&snapshot.id) && !fold.had_sandbox {
        return Err(
            Problem::permanent("snapshot_needed", "The fork has its files nowhere else yet.")
                .with_hint("Once its first prompt has run, the snapshot can be removed.")
                .into(),
        );
    }
    snapshots::remove(&app.services, &[snapshot.id]).await?;
    Ok(NoContent)
}

pub async fn push(
    State(app): State<App>,
    caller: Caller,
    InPath(path): InPath<SnapshotPath>,
    JsonBody(body): JsonBody<RegistryImage>,
) -> Result<Json<RegistryImage>, ApiFailure> {
    check_owner(&caller)?;
    let row = access::enter(&app, &caller, &path.id, Role::Owner)
        .await?
        .fold
        .row;
    let snapshot = snapshot_of(&app, &row.id, &path.snapshot_id).await?;
    let pushed = app.images.push_session(&row, &snapshot.id, &body.reference);
    Ok(Json(pushed.await?))
}

/// A snapshot of a session by its name.
pub(super) async fn snapshot_of(
    app: &App,
    session: &SessionId,
    id: &str,
) -> Result<SessionSnapshot, Problem> {
    let all = app.catalog.snapshots(session).await;
    let all = all.map_err(|error| error.problem())?;
    all.into_iter()
        .find(|snapshot| snapshot.id.as_str() == id)
        .ok_or_else(|| {
            Problem::permanent("snapshot_unknown", "The session has no such snapshot.")
                .with_hint("List them with `greenroom session snapshots SESSION`.")
        })
}
