//! Writes down who gives which command: before it is carried out, and again how it was answered. Who may not be written down may not
//! act. What sessions' own logs tell with its author (prompts, changes of a session, what begins one) is written down here a moment later: the
//! way from a prompt to its model does not wait for this.

use super::app::App;
use super::caller::{Caller, check_owner};
use super::failure::ApiFailure;
use super::names::AuditListQuery;
use super::parameters::InQuery;
use axum::Json;
use axum::extract::{FromRequestParts as _, MatchedPath, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use greenroom_protocol::client::audit::AuditPage;
use greenroom_protocol::client::person::Person;
use greenroom_protocol::client::problem::Problem;
use greenroom_stdx::chain::Chain;
use greenroom_store::catalog::{AuditQuery, NewAuditEntry};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

const DEFAULT_PAGE: u32 = 100;

/// How often old entries are looked for.
const FORGET_EVERY: Duration = Duration::from_secs(6 * 3600);

/// What changes nothing that anybody would ask about, or says itself who did it.
const UNRECORDED: [&str; 5] = [
    "typing",
    "createStreamTicket",
    "checkEnvironment",
    "imageWebhook",
    "signIn",
];

/// What the sessions' own logs tell first, with who did it.
const LOGGED_ELSEWHERE: [&str; 8] = [
    "createSession",
    "forkSession",
    "sendPrompt",
    "updateSession",
    "changePrompt",
    "cancelPrompt",
    "stopTurn",
    "retryEffect",
];

/// Names of what can be asked for, by method and path.
pub type Actions = HashMap<(Method, String), String>;

tokio::task_local! {
    /// What the command that this task carries out made or changed.
    static SUBJECT: RefCell<Option<String>>;
}

/// Tells what a command made or changed, where its path does not.
pub fn about(subject: &str) {
    // Outside a command nobody asks.
    let _ = SUBJECT.try_with(|cell| *cell.borrow_mut() = Some(subject.to_owned()));
}

/// Writes down what the request asks for and what came of it.
pub async fn record(
    State((app, actions)): State<(App, Arc<Actions>)>,
    request: Request,
    next: Next,
) -> Response {
    let Some(action) = action_of(&actions, &request) else {
        return next.run(request).await;
    };
    let (mut parts, body) = request.into_parts();
    // Whoever may not come in is told so by the handler; strangers must not fill the disk.
    let Ok(caller) = Caller::from_request_parts(&mut parts, &app).await else {
        return next.run(Request::from_parts(parts, body)).await;
    };
    let new = NewAuditEntry {
        person: caller.person.clone(),
        action: action.clone(),
        target: parts.uri.path().to_owned(),
        status: None,
        subject: None,
    };
    let request = Request::from_parts(parts, body);
    // To its end, whether the caller waits or not: what is half done would be half undone by nobody, and written down as unknown.
    let tasks = app.services.tasks.clone();
    let ran = tasks.spawn(async move {
        if LOGGED_ELSEWHERE.contains(&action.as_str()) {
            let (response, subject) = run(request, next).await;
            let status = response.status().as_u16();
            app.services.tasks.clone().spawn(async move {
                let done = NewAuditEntry {
                    status: Some(status),
                    subject,
                    ..new
                };
                // It is told where the session's own log has it.
                let _ = begin(&app, done).await;
            });
            return response;
        }
        let id = match begin(&app, new).await {
            Ok(id) => id,
            Err(problem) => return ApiFailure(problem).into_response(),
        };
        let (response, subject) = run(request, next).await;
        end(&app, id, response.status().as_u16(), subject).await;
        response
    });
    ran.await.unwrap_or_else(|_| {
        let problem = Problem::permanent("internal", "Something in the server broke in this command.");
        ApiFailure(problem).into_response()
    })
}

/// The answer, and what the command was about.
async fn run(request: Request, next: Next) -> (Response, Option<String>) {
    let answered = async {
        let response = next.run(request).await;
        (response, SUBJECT.with(RefCell::take))
    };
    SUBJECT.scope(RefCell::new(None), answered).await
}

fn action_of(actions: &Actions, request: &Request) -> Option<String> {
    if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        return None;
    }
    let path = request.extensions().get::<MatchedPath>()?.as_str().to_owned();
    let action = actions.get(&(request.method().clone(), path))?;
    (!UNRECORDED.contains(&action.as_str())).then(|| action.clone())
}

/// Writes down what is no command of the API, with its status if that is known; answers with the entry's number.
pub async fn happens(
    app: &App,
    person: &Person,
    action: &str,
    target: &str,
    status: Option<StatusCode>,
) -> Result<u64, Problem> {
    let new = NewAuditEntry {
        person: person.clone(),
        action: action.to_owned(),
        target: target.to_owned(),
        status: status.map(|status| status.as_u16()),
        subject: None,
    };
    begin(app, new).await
}

async fn begin(app: &App, new: NewAuditEntry) -> Result<u64, Problem> {
    app.catalog.begin_audit(new).await.map_err(|error| {
        tracing::warn!(error = %Chain(&error), "who did what cannot be written down");
        error.problem()
    })
}

/// Writes down how something was answered.
pub async fn end(app: &App, id: u64, status: u16, subject: Option<String>) {
    if let Err(error) = app.catalog.end_audit(id, status, subject).await {
        tracing::warn!(error = %Chain(&error), "how a command was answered is not written down");
    }
}

/// `GET /v1/audit`.
pub async fn list(
    State(app): State<App>,
    caller: Caller,
    InQuery(query): InQuery<AuditListQuery>,
) -> Result<Json<AuditPage>, ApiFailure> {
    check_owner(&caller)?;
    let person = query.person.map(|id| {
        id.parse().map_err(|_| {
            Problem::permanent("person_unknown", "There is no such person.").with_hint("See GET /v1/people.")
        })
    });
    let query = AuditQuery {
        before: query.before,
        person: person.transpose()?,
        about: query.about.filter(|about| !about.is_empty()),
        limit: query.limit.unwrap_or(DEFAULT_PAGE),
    };
    let page = app.catalog.audit(query).await;
    Ok(Json(page.map_err(|error| error.problem())?))
}

/// Forgets what is older than the server's settings say, from time to time.
pub async fn forget_old(app: App) {
    loop {
        if let Err(error) = app.catalog.forget_audit(app.settings.audit_age).await {
            tracing::warn!(error = %Chain(&error), "old audit entries stay");
        }
        tokio::select! {
            () = tokio::time::sleep(FORGET_EVERY) => {}
            () = app.shutdown.cancelled() => return,
        }
    }
}
