//! The stream of a session: over a WebSocket, or as server-sent events for whoever accepts only those.

mod follower;
mod server_sent;
mod web_socket;

use self::follower::Following;
use self::web_socket::OverWebSocket;
use super::access::{Entered, Guest, Viewer};
use super::app::App;
use super::failure::ApiFailure;
use super::names::{SessionPath, StreamQuery};
use super::parameters::{InPath, InQuery};
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
    viewer: Result<Viewer, ApiFailure>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiFailure> {
    let is_server_sent = upgrade.is_err() && accepts_events(&headers);
    let viewer = admitted(&app, viewer, query.ticket.as_deref(), &headers, is_server_sent).await?;
    let mut after = query.after.unwrap_or(0);
    if is_server_sent && let Some(last) = headers.get("last-event-id") {
        let last = last.to_str().ok().and_then(|last| last.parse().ok());
        after = last.ok_or_else(|| {
            Problem::permanent("cursor_invalid", "Last-Event-ID is not the number of an event.")
                .with_hint("Leave it out to begin at `after`.")
        })?;
    }
    let following = async |app: App, viewer: Viewer| {
        let Entered { handle, fold, .. } = viewer.enter(&app, &id).await?;
        let row = fold.row;
        if is_server_sent && after > row.last_seq {
            // Told at once: after a stream that began, browsers come again and again.
            return Err(follower::cursor_ahead());
        }
        Ok(Following {
            session_id: row.id,
            app,
            viewer,
            hub: handle.hub,
            after,
            is_recent: query.recent && after == 0,
        })
    };
    if is_server_sent {
        let tasks = app.services.tasks.clone();
        let following = following(app, viewer).await?;
        let (response, connection) = server_sent::open();
        tasks.spawn(follower::follow(following, connection));
        return Ok(response);
    }
    let upgrade = socket::upgraded(
        upgrade,
        MAX_CLIENT_FRAME_BYTES,
        "Open it with a WebSocket client, or accept text/event-stream.",
    )?;
    let following = following(app, viewer).await?;
    let upgrade = upgrade.read_buffer_size(1024).write_buffer_size(4096);
    Ok(upgrade.on_upgrade(move |socket| follower::follow(following, OverWebSocket::new(socket))))
}

/// Who looks: as the request says, or the guest whose ticket it brings, which goes before a cookie that a browser sends along.
async fn admitted(
    app: &App,
    viewer: Result<Viewer, ApiFailure>,
    ticket: Option<&str>,
    headers: &HeaderMap,
    is_server_sent: bool,
) -> Result<Viewer, ApiFailure> {
    let now_ms = app.clock.now_ms();
    if let Some(secret) = ticket.and_then(|ticket| app.tickets.redeem_guest(ticket, now_ms)) {
        return Ok(Viewer::Guest(Guest::with(app, secret).await?));
    }
    let viewer = viewer?;
    // A page of another origin cannot read an answer over HTTP, but could over a WebSocket.
    if let (Viewer::Person(caller), false) = (&viewer, is_server_sent) {
        socket::admit(app, caller, ticket, headers)?;
    }
    Ok(viewer)
}

fn accepts_events(headers: &HeaderMap) -> bool {
    let accepted = headers
        .get(header::ACCEPT)
        .and_then(|accepted| accepted.to_str().ok());
    accepted.is_some_and(|accepted| accepted.contains("text/event-stream"))
}
