//! Who may open a WebSocket, and how large its messages are. A browser sends its cookie to any address that a page names, so whoever
//! comes with one also brings a ticket that only a page of this server could get.

use super::app::App;
use super::caller::{Caller, Proof, check_origin};
use super::tickets::Holder;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::HeaderMap;
use greenroom_protocol::client::problem::Problem;

/// Refuses a caller by cookie without a ticket of their own.
pub fn admit(app: &App, caller: &Caller, ticket: Option<&str>, headers: &HeaderMap) -> Result<(), Problem> {
    if caller.proof != Proof::Cookie {
        return Ok(());
    }
    check_origin(headers, app)?;
    match app.tickets.redeem(ticket.unwrap_or_default(), app.clock.now_ms()) {
        Some(Holder::Person(holder)) if holder == caller.person.id => Ok(()),
        _ => Err(ticket_invalid()),
    }
}

/// What those get whose ticket opens nothing.
pub fn ticket_invalid() -> Problem {
    Problem::permanent(
        "ticket_invalid",
        "The ticket was used, is too old, or is not yours.",
    )
    .with_hint("Ask for a new one at POST /v1/stream-tickets.")
}

/// Becomes a WebSocket that takes messages of at most so many bytes. `hint` is for whoever came with something else.
pub fn upgraded(
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    max_bytes: usize,
    hint: &str,
) -> Result<WebSocketUpgrade, Problem> {
    let upgrade = upgrade
        .map_err(|_| Problem::permanent("upgrade_required", "This path is a WebSocket.").with_hint(hint))?;
    Ok(upgrade.max_message_size(max_bytes).max_frame_size(max_bytes))
}
