//! The stream of a session: over a WebSocket, or as server-sent events for whoever accepts only those.

mod follower;
mod server_sent;
mod web_socket;

use self::follower::Following;
use self::web_socket::OverWebSocket;
use super::app::App;
use super::caller::Caller;
use super::failure::ApiFailure;
use super::names::{SessionPath, StreamQuery};
use super::parameters::{InPath, InQuery};
use super::sessions;
use super::socket;
use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::{HeaderMap, header};
use axum::response::Response;
use greenroom_protocol::client::problem::Problem;

/// Largest frame taken from a client; the only ones are pings.
const MAX_CLIENT_FRAME_BYTES: usize = 4 * 1024;

/// `GET /v1/sessions/{id}/stream`.
pub async fn stream(
    State(app): State<App>,
    InPath(SessionPath { id }): InPath<SessionPath>,
    InQuery(query): InQuery<StreamQuery>,
    headers: HeaderMap,
    caller: Result<Caller, ApiFailure>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiFailure> {
    let caller = caller?;
    let is_server_sent = upgrade.is_err() && accepts_events(&headers);
    if !is_server_sent {
        // A page of another origin cannot read an answer over HTTP, but could over a WebSocket.
        socket::admit(&app, &caller, query.ticket.as_deref(), &headers)?;
    }
    let mut after = query.after.unwrap_or(0);
    if is_server_sent && let Some(last) = headers.get("last-event-id") {
        let last = last.to_str().ok().and_then(|last| last.parse().ok());
        after = last.ok_or_else(|| {
            Problem::permanent("cursor_invalid", "Last-Event-ID is not the number of an event.")
                .with_hint("Leave it out to begin at `after`.")
        })?;
    }
    let following = async |app, caller| {
        let handle = sessions::handle(&app, &id).await?;
        let row = handle.fold().await?.row;
        if is_server_sent && after > row.last_seq {
            // Told at once: after a stream that began, browsers come again and again.
            return Err(follower::cursor_ahead());
        }
        Ok(Following {
            session_id: row.id,
            app,
            caller,
            handle,
            after,
        })
    };
    if is_server_sent {
        let tasks = app.services.tasks.clone();
        let following = following(app, caller).await?;
        let (response, connection) = server_sent::open();
        tasks.spawn(follower::follow(following, connection));
        return Ok(response);
    }
    let upgrade = socket::upgraded(
        upgrade,
        MAX_CLIENT_FRAME_BYTES,
        "Open it with a WebSocket client, or accept text/event-stream.",
    )?;
    let following = following(app, caller).await?;
    let upgrade = upgrade.read_buffer_size(1024).write_buffer_size(0);
    Ok(upgrade.on_upgrade(move |socket| follower::follow(following, OverWebSocket(socket))))
}

fn accepts_events(headers: &HeaderMap) -> bool {
    let accepted = headers
        .get(header::ACCEPT)
        .and_then(|accepted| accepted.to_str().ok());
    accepted.is_some_and(|accepted| accepted.contains("text/event-stream"))
}
