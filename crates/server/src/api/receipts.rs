//! Commands by their idempotency keys: what was answered once is answered again, also after a restart, and nothing is done twice. Creating
//! sessions, sending prompts and changing a session keep receipts of their own, in the transaction that does the work; all other commands pass
//! here.

use super::app::App;
use super::body::{self, MAX_BODY_BYTES};
use super::caller::{Caller, check_after_reading};
use super::failure::ApiFailure;
use super::idempotency;
use crate::session::digest_of;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{FromRequestParts as _, MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use greenroom_protocol::client::person::Person;
use greenroom_protocol::client::problem::Problem;
use greenroom_stdx::chain::Chain;
use greenroom_stdx::step;
use greenroom_store::catalog::{MAX_RECEIPT_BYTES, Receipt};
use std::time::Instant;

/// Set on an answer that is a repetition.
pub(super) const REPLAYED_HEADER: &str = "idempotency-replayed";

/// After which whoever repeats a command that still runs may ask again.
const RUNNING_RETRY_MS: u64 = 1_000;

/// Paths whose commands keep their own receipts, and paths whose answers hold a secret, which is kept nowhere.
const OTHERS: [&str; 12] = [
    "/v1/sessions",
    "/v1/sessions/{id}/prompts",
    "/v1/sessions/{id}/forks",
    "/v1/tokens",
    "/v1/sign-in",
    "/v1/sign-in-links",
    "/v1/people",
    "/v1/people/{id}/sign-in-links",
    "/v1/sessions/{id}/links",
    "/v1/sign-out",
    "/v1/stream-tickets",
    "/v1/secrets/{name}",
];

/// Commands of which the session's own log keeps receipts.
const OF_SESSIONS: [(&Method, &str); 5] = [
    (&Method::PATCH, "/v1/sessions/{id}"),
    (&Method::POST, "/v1/sessions/{id}/stop"),
    (&Method::POST, "/v1/sessions/{id}/effect-retries"),
    (&Method::PATCH, "/v1/sessions/{id}/prompts/{prompt_id}"),
    (&Method::DELETE, "/v1/sessions/{id}/prompts/{prompt_id}"),
];

/// Answers a command that was carried out before; otherwise carries it out, to its end even if the caller goes away, and keeps the answer.
pub async fn remember(State(app): State<App>, request: Request, next: Next) -> Response {
    if !is_kept(&request) {
        return next.run(request).await;
    }
    let (mut parts, body) = request.into_parts();
    // Whoever may not come in is told so by the handler.
    let Ok(caller) = Caller::from_request_parts(&mut parts, &app).await else {
        return next.run(Request::from_parts(parts, body)).await;
    };
    let key = match idempotency::read(&parts.headers) {
        Ok(Some(key)) => key,
        Ok(None) => return next.run(Request::from_parts(parts, body)).await,
        Err(problem) => return ApiFailure(problem).into_response(),
    };
    let began = Instant::now();
    let body = match body::read(body, MAX_BODY_BYTES).await {
        Ok(body) => body,
        Err(problem) => return ApiFailure(problem).into_response(),
    };
    if let Err(problem) = check_after_reading(&app, &parts.extensions, began).await {
        return ApiFailure(problem).into_response();
    }
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    let digest = digest_of(&[parts.method.as_str().as_bytes(), target.as_bytes(), &body]);
    let request = Request::from_parts(parts, Body::from(body));
    let tasks = app.services.tasks.clone();
    let command = Command {
        app,
        person: caller.person,
        key,
        digest,
    };
    // From here on to the end, whether the caller waits or not: a key that is taken is also ended.
    let answered = tasks.spawn(async move { command.answer(request, next).await });
    answered.await.unwrap_or_else(|_| {
        let problem = Problem::permanent("internal", "Something in the server broke in this command.");
        ApiFailure(problem).into_response()
    })
}

fn is_kept(request: &Request) -> bool {
    let changes = matches!(
        *request.method(),
        Method::POST | Method::PUT | Method::PATCH | Method::DELETE
    );
    let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let is_of_session = |path| OF_SESSIONS.contains(&(request.method(), path));
    changes
        && path
            .is_some_and(|path| path.starts_with("/v1/") && !OTHERS.contains(&path) && !is_of_session(path))
}

struct Command {
    app: App,
    person: Person,
    key: String,
    digest: String,
}

impl Command {
    async fn answer(self, request: Request, next: Next) -> Response {
        let Self { app, person, .. } = &self;
        let begun = app
            .catalog
            .begin_receipt(&person.id, &self.key, &self.digest, &app.run);
        match begun.await {
            Ok(Receipt::Fresh) => self.keep(next.run(request).await).await,
            Ok(Receipt::Done { status, body }) => replayed(status, body),
            Ok(Receipt::Begun { server }) => ApiFailure(unfinished(server == app.run)).into_response(),
            Err(error) => ApiFailure(error.problem()).into_response(),
        }
    }

    async fn keep(&self, response: Response) -> Response {
        let Self { app, person, key, .. } = self;
        let (parts, body) = response.into_parts();
        // Answers of commands are made in memory; one that is too large for a receipt is still given.
        let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
        step::reached("command.done");
        let is_done = parts.status.is_success() && body.len() <= MAX_RECEIPT_BYTES;
        let kept = match is_done {
            true => {
                let (status, body) = (parts.status.as_u16(), body.to_vec());
                app.catalog.keep_receipt(&person.id, key, status, body).await
            }
            // What was refused may be tried again, also under this key.
            false => app.catalog.forget_receipt(&person.id, key).await,
        };
        if let Err(error) = kept {
            tracing::warn!(error = %Chain(&error), "a command's receipt is not kept");
        }
        Response::from_parts(parts, Body::from(body))
    }
}

fn replayed(status: u16, body: Vec<u8>) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let mut response = (status, Bytes::from(body)).into_response();
    let headers = response.headers_mut();
    match status {
        StatusCode::NO_CONTENT => drop(headers.remove(header::CONTENT_TYPE)),
        _ => drop(headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))),
    }
    headers.insert(REPLAYED_HEADER, HeaderValue::from_static("true"));
    response
}

/// What is said of a command that began and whose end is not known.
fn unfinished(is_running: bool) -> Problem {
    if is_running {
        let problem = Problem::transient("command_running", "This command is being carried out.");
        return Problem {
            retry_after_ms: Some(RUNNING_RETRY_MS),
            ..problem
        };
    }
    Problem::permanent(
        "command_interrupted",
        "The server was stopped in the middle of this command: it may or may not have been done.",
    )
    .with_hint("Look whether it was done; if not, send it again with a new key.")
}
