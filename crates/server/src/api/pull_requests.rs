//! Pull requests of the built-in forge. When one of them belongs to a session, the session's log learns what happened.

use super::app::App;
use super::body::JsonBody;
use super::caller::Caller;
use super::failure::ApiFailure;
use super::names::{Named, PullRequestPath, PullRequestQuery};
use super::parameters::{InPath, InQuery};
use super::reply::Created;
use axum::Json;
use axum::extract::State;
use greenroom_forge::{NewPullRequest, PullRequestFilter};
use greenroom_protocol::client::event::EventBody;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::pull_request::{
    AddComment, AddReview, CommitList, Diff, MergePullRequest, OpenPullRequest, PullRequest, PullRequestList,
    PullRequestState,
};
use greenroom_store::session_log::Batch;

pub async fn list_all(
    State(app): State<App>,
    _: Caller,
    InQuery(query): InQuery<PullRequestQuery>,
) -> Result<Json<PullRequestList>, ApiFailure> {
    let filter = filter(query.state);
    let pull_requests = match query.repository {
        Some(name) => app.forge.pull_requests(&name, filter).await,
        None => app.forge.all_pull_requests(filter).await,
    };
    Ok(Json(PullRequestList {
        pull_requests: pull_requests.map_err(|error| error.problem())?,
    }))
}

fn filter(state: Option<PullRequestState>) -> PullRequestFilter {
    state.map_or(PullRequestFilter::All, PullRequestFilter::In)
}

pub async fn list(
    State(app): State<App>,
    _: Caller,
    InPath(Named { name }): InPath<Named>,
    InQuery(query): InQuery<PullRequestQuery>,
) -> Result<Json<PullRequestList>, ApiFailure> {
    let pull_requests = app.forge.pull_requests(&name, filter(query.state)).await;
    Ok(Json(PullRequestList {
        pull_requests: pull_requests.map_err(|error| error.problem())?,
    }))
}

pub async fn open(
    State(app): State<App>,
    caller: Caller,
    InPath(Named { name }): InPath<Named>,
    JsonBody(body): JsonBody<OpenPullRequest>,
) -> Result<Created<PullRequest>, ApiFailure> {
    let new = NewPullRequest {
        title: body.title,
        body: body.body,
        head_branch: body.head_branch,
        base_branch: body.base_branch,
        prompted_by: vec![caller.person.clone()],
        author: caller.person,
        session: None,
        idempotency_key: None,
    };
    let opened = app.forge.open_pull_request(&name, &new).await;
    Ok(Created(opened.map_err(|error| error.problem())?))
}

pub async fn show(
    State(app): State<App>,
    _: Caller,
    InPath(path): InPath<PullRequestPath>,
) -> Result<Json<PullRequest>, ApiFailure> {
    Ok(Json(
        app.forge
            .pull_request(&path.name, path.number)
            .await
            .map_err(|error| error.problem())?,
    ))
}

pub async fn commits(
    State(app): State<App>,
    _: Caller,
    InPath(path): InPath<PullRequestPath>,
) -> Result<Json<CommitList>, ApiFailure> {
    let commits = app
        .forge
        .pull_request_commits(&path.name, path.number)
        .await
        .map_err(|error| error.problem())?;
    Ok(Json(CommitList { commits }))
}

pub async fn diff(
    State(app): State<App>,
    _: Caller,
    InPath(path): InPath<PullRequestPath>,
) -> Result<Json<Diff>, ApiFailure> {
    Ok(Json(
        app.forge
            .pull_request_diff(&path.name, path.number)
            .await
            .map_err(|error| error.problem())?,
    ))
}

pub async fn comment(
    State(app): State<App>,
    caller: Caller,
    InPath(path): InPath<PullRequestPath>,
    JsonBody(body): JsonBody<AddComment>,
) -> Result<Created<PullRequest>, ApiFailure> {
    let updated = app
        .forge
        .add_comment(&path.name, path.number, &caller.person, &body)
        .await;
    Ok(Created(updated.map_err(|error| error.problem())?))
}

pub async fn review(
    State(app): State<App>,
    caller: Caller,
    InPath(path): InPath<PullRequestPath>,
    JsonBody(body): JsonBody<AddReview>,
) -> Result<Created<PullRequest>, ApiFailure> {
    let updated = app
        .forge
        .add_review(&path.name, path.number, &caller.person, &body)
        .await;
    Ok(Created(updated.map_err(|error| error.problem())?))
}

pub async fn merge(
    State(app): State<App>,
    caller: Caller,
    InPath(path): InPath<PullRequestPath>,
    JsonBody(body): JsonBody<MergePullRequest>,
) -> Result<Json<PullRequest>, ApiFailure> {
    carried_out(&app.clone(), async move {
        let merged = app
            .forge
            .merge_pull_request(&path.name, path.number, &caller.person, &body)
            .await;
        app.services.changes.tell(&path.name);
        Ok(told_session(&app, merged.map_err(|error| error.problem())?).await)
    })
    .await
}

pub async fn close(
    State(app): State<App>,
    caller: Caller,
    InPath(path): InPath<PullRequestPath>,
) -> Result<Json<PullRequest>, ApiFailure> {
    carried_out(&app.clone(), async move {
        let closed = app
            .forge
            .close_pull_request(&path.name, path.number, &caller.person)
            .await;
        Ok(told_session(&app, closed.map_err(|error| error.problem())?).await)
    })
    .await
}

pub async fn reopen(
    State(app): State<App>,
    caller: Caller,
    InPath(path): InPath<PullRequestPath>,
) -> Result<Json<PullRequest>, ApiFailure> {
    carried_out(&app.clone(), async move {
        let reopened = app
            .forge
            .reopen_pull_request(&path.name, path.number, &caller.person)
            .await;
        Ok(told_session(&app, reopened.map_err(|error| error.problem())?).await)
    })
    .await
}

pub async fn delete_head_branch(
    State(app): State<App>,
    _: Caller,
    InPath(path): InPath<PullRequestPath>,
) -> Result<Json<PullRequest>, ApiFailure> {
    let updated = app.forge.delete_head_branch(&path.name, path.number).await;
    Ok(Json(updated.map_err(|error| error.problem())?))
}

/// Does it to the end, also when the caller goes away in the middle: the session must hear of what the forge did.
async fn carried_out(
    app: &App,
    effect: impl Future<Output = Result<PullRequest, Problem>> + Send + 'static,
) -> Result<Json<PullRequest>, ApiFailure> {
    let done = app.services.tasks.spawn(effect).await;
    let broken = |_| Problem::permanent("internal", "Something in the server broke.");
    Ok(Json(done.map_err(broken)??))
}

/// Tells the pull request's session. The forge is where the truth is: a session that cannot be told only shows it late.
async fn told_session(app: &App, pull_request: PullRequest) -> PullRequest {
    if let Some(session) = &pull_request.session {
        let event = EventBody::PullRequestStateChanged {
            repository: pull_request.repository.clone(),
            number: pull_request.number,
            state: pull_request.state,
        };
        let told = async {
            let handle = app.sessions.get(session).await?;
            handle
                .append(Batch {
                    events: vec![event],
                    ..Batch::default()
                })
                .await
        };
        if let Err(problem) = told.await {
            tracing::warn!(session = %session, code = problem.code, "a session was not told of its pull request");
        }
    }
    pull_request
}
