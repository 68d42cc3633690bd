//! `GET /metrics`: for the operator's monitoring, with the owner's token.

use super::app::App;
use super::caller::{Caller, check_owner};
use super::failure::ApiFailure;
use crate::metrics::CONTENT_TYPE;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use greenroom_protocol::client::problem::Problem;

pub async fn serve(State(app): State<App>, caller: Caller) -> Result<impl IntoResponse, ApiFailure> {
    check_owner(&caller)?;
    let services = &app.services;
    services.metrics.set_sandboxes_running(services.running.count());
    services.metrics.set_sandboxes_still(services.running.still());
    services.metrics.set_sessions_awake(app.sessions.awake().await);
    let text = services
        .metrics
        .text()
        .map_err(|_| Problem::permanent("internal", "The metrics cannot be written."))?;
    Ok((
        [
            (header::CONTENT_TYPE, CONTENT_TYPE),
            (header::CACHE_CONTROL, "no-store"),
        ],
        text,
    ))
}
