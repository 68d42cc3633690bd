//! Services of a session's sandbox: how they stand, and what they wrote.

use super::access;
use super::app::App;
use super::caller::Caller;
use super::failure::ApiFailure;
use super::names::{LogQuery, ServicePath, SessionPath};
use super::parameters::{InPath, InQuery};
use crate::sandbox::{Sandbox, SandboxError};
use crate::session::{InUse, service_statuses};
use axum::Json;
use axum::extract::State;
use greenroom_protocol::client::environment::{ServiceLog, SessionService, SessionServices};
use greenroom_protocol::client::member::Role;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::guest::call::{Call, CallErrorCode, Reply};
use std::sync::Arc;

/// Most of a log in one answer, in bytes.
const MAX_LOG_BYTES: u64 = 256 * 1024;

pub async fn list(
    State(app): State<App>,
    caller: Caller,
    InPath(SessionPath { id }): InPath<SessionPath>,
) -> Result<Json<SessionServices>, ApiFailure> {
    let Some((sandbox, _in_use)) = running(&app, &caller, &id).await? else {
        return Ok(Json(SessionServices { services: Vec::new() }));
    };
    let statuses = service_statuses(&sandbox).await.map_err(problem)?;
    let services = statuses.into_iter().map(|status| SessionService {
        name: status.name,
        state: status.state,
        restarts: status.restarts,
        reason: status.reason,
    });
    Ok(Json(SessionServices {
        services: services.collect(),
    }))
}

pub async fn log(
    State(app): State<App>,
    caller: Caller,
    InPath(ServicePath { id, name }): InPath<ServicePath>,
    InQuery(LogQuery { after }): InQuery<LogQuery>,
) -> Result<Json<ServiceLog>, ApiFailure> {
    let (sandbox, _in_use) = running(&app, &caller, &id).await?.ok_or_else(|| {
        Problem::permanent("not_running", "The session's sandbox does not run.")
            .with_hint("Logs of services are kept as long as the sandbox runs; the next turn starts it.")
    })?;
    let call = Call::ReadServiceLog {
        name: name.clone(),
        after_offset: after.unwrap_or(0),
        max_bytes: MAX_LOG_BYTES,
    };
    match sandbox.call(call).await {
        Ok(Reply::ProcessOutput {
            start_offset,
            end_offset,
            output,
            ..
        }) => Ok(Json(ServiceLog {
            start_offset,
            end_offset,
            output,
        })),
        Ok(_) => Err(Problem::transient(
            "sandbox_answer",
            "The sandbox gave an answer that makes no sense.",
        )
        .into()),
        Err(SandboxError::Call(error)) if error.code == CallErrorCode::NotFound => Err(Problem::permanent(
            "service_unknown",
            format!("The sandbox has no service `{name}`."),
        )
        .with_hint("List the session's services for their names.")
        .into()),
        Err(error) => Err(problem(error).into()),
    }
}

/// The session's sandbox if it runs.
async fn running(app: &App, caller: &Caller, id: &str) -> Result<Option<(Arc<dyn Sandbox>, InUse)>, Problem> {
    let entered = access::enter(app, caller, id, Role::Viewer).await?;
    Ok(entered.handle.sandbox.to_ask().await)
}

fn problem(error: SandboxError) -> Problem {
    match error {
        SandboxError::Call(error) => Problem::transient(
            "sandbox_call_failed",
            format!("{}.", error.message.trim_end_matches('.')),
        ),
        SandboxError::Lost(problem) => problem,
    }
}
