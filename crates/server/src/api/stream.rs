//! The WebSocket of a session: subscribe first, replay from disk behind the client's cursor, then go on live. A reader too
//! slow for the ring is brought up from disk again; one that does not read at all is closed with its cursor.

use super::app::App;
use super::caller::{Caller, sign_in_required};
use super::failure::ApiFailure;
use super::names::{SessionPath, StreamQuery};
use super::parameters::{InPath, InQuery};
use super::sessions;
use super::socket;
use crate::session::command::{SessionHandle, shutting_down};
use crate::session::hub::{HubFrame, Partial};
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::http::HeaderMap;
use axum::response::Response;
use greenroom_protocol::client::event::{Event, EventBody};
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::stream::StreamFrame;
use greenroom_protocol::id::{ItemId, SessionId};
use std::collections::HashSet;
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

/// A client that takes longer for one frame is gone.
const SEND_TIMEOUT: Duration = Duration::from_secs(20);
/// How often an idle socket is asked whether it is still there.
const PING_EVERY: Duration = Duration::from_secs(25);
/// Events read at once in a replay.
const REPLAY_PAGE_EVENTS: u32 = 500;
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
    socket::admit(&app, &caller, query.ticket.as_deref(), &headers)?;
    let upgrade = socket::upgraded(
        upgrade,
        MAX_CLIENT_FRAME_BYTES,
        "Open it with a WebSocket client.",
    )?;
    let handle = sessions::handle(&app, &id).await?;
    let session_id = handle.fold().await?.row.id;
    let after = query.after.unwrap_or(0);
    let upgrade = upgrade.read_buffer_size(1024).write_buffer_size(0);
    Ok(upgrade.on_upgrade(move |socket| async move {
        let mut follower = Follower {
            app,
            caller,
            handle,
            session_id,
            socket,
            cursor: after,
            completed: HashSet::new(),
        };
        if let Err(end) = follower.follow().await {
            follower.close(end).await;
        }
    }))
}

/// Why a stream ends.
enum End {
    /// The client went away; there is nobody to tell.
    Gone,
    /// Told to the client.
    Problem(Problem),
}

impl From<Problem> for End {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

struct Follower {
    app: App,
    caller: Caller,
    handle: SessionHandle,
    session_id: SessionId,
    socket: WebSocket,
    /// Number of the last event the client has.
    cursor: u64,
    /// Items whose completion the client has, in this connection: late deltas of them are not sent.
    completed: HashSet<ItemId>,
}

impl Follower {
    async fn follow(&mut self) -> Result<(), End> {
        let (mut live, partials) = self.handle.hub.subscribe();
        let row = self.handle.fold().await?.row;
        if self.cursor > row.last_seq {
            return Err(
                Problem::permanent("cursor_ahead", "The cursor is past the session's last event.")
                    .with_hint("Start again from 0.")
                    .into(),
            );
        }
        let generation = greenroom_protocol::CLIENT_GENERATION;
        let hello = StreamFrame::Hello {
            generation,
            session_id: self.session_id.clone(),
            last_seq: row.last_seq,
        };
        self.send(&hello).await?;
        self.replay().await?;
        self.send_partials(partials).await?;
        self.send(&StreamFrame::Session {
            session: Box::new(row),
        })
        .await?;
        self.send(&StreamFrame::CaughtUp {
            last_seq: self.cursor,
        })
        .await?;
        let mut ping = tokio::time::interval(PING_EVERY);
        ping.tick().await;
        let shutdown = self.app.shutdown.clone();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Err(shutting_down().into()),
                () = self.handle.closed() => {
                    return Err(Problem::transient("session_reloaded", "The session is being loaded again.").into());
                }
                frame = live.recv() => self.live_frame(frame, &mut live).await?,
                message = self.socket.recv() => match message {
                    None | Some(Err(_) | Ok(Message::Close(_))) => return Err(End::Gone),
                    // What clients say only keeps the socket open; unknown frames of newer clients are no reason to end it.
                    Some(Ok(_)) => {}
                },
                _ = ping.tick() => {
                    if !self.caller.is_still_signed_in(&self.app).await? {
                        return Err(sign_in_required().into());
                    }
                    self.send_message(Message::Ping(Vec::new().into())).await?;
                }
            }
        }
    }

    async fn live_frame(
        &mut self,
        frame: Result<HubFrame, RecvError>,
        live: &mut broadcast::Receiver<HubFrame>,
    ) -> Result<(), End> {
        match frame {
            Ok(HubFrame::Event(event)) => {
                if event.seq > self.cursor + 1 {
                    self.replay().await?;
                }
                if event.seq == self.cursor + 1 {
                    self.send_event((*event).clone()).await?;
                }
                Ok(())
            }
            Ok(HubFrame::Delta {
                item_id,
                channel,
                offset,
                text,
            }) => {
                if self.completed.contains(&item_id) {
                    return Ok(());
                }
                let text = text.to_string();
                self.send(&StreamFrame::Delta {
                    item_id,
                    channel,
                    offset,
                    text,
                })
                .await
            }
            Ok(HubFrame::Session(row)) => {
                let session = Box::new((*row).clone());
                self.send(&StreamFrame::Session { session }).await
            }
            Err(RecvError::Lagged(_)) => {
                let partials;
                (*live, partials) = self.handle.hub.subscribe();
                self.replay().await?;
                self.send_partials(partials).await
            }
            Err(RecvError::Closed) => Err(shutting_down().into()),
        }
    }

    /// Sends what is on disk behind the cursor.
    async fn replay(&mut self) -> Result<(), End> {
        loop {
            let page = self
                .app
                .store
                .read(&self.session_id, self.cursor, REPLAY_PAGE_EVENTS)
                .await;
            let page = page.map_err(|error| error.problem())?;
            if page.is_empty() {
                return Ok(());
            }
            for event in page {
                self.send_event(event).await?;
            }
        }
    }

    async fn send_event(&mut self, event: Event) -> Result<(), End> {
        self.cursor = event.seq;
        match &event.body {
            EventBody::ItemCompleted { item, .. } => {
                self.completed.insert(item.id.clone());
            }
            // Deltas never cross the end of a turn.
            EventBody::TurnCompleted { .. } => self.completed.clear(),
            _ => {}
        }
        self.send(&StreamFrame::Event { event }).await
    }

    /// Sends texts that were unfinished when this socket joined, and still are: an item that ended during the replay, or a
    /// step that was asked for again, leaves nothing behind.
    async fn send_partials(&mut self, mut partials: Vec<Partial>) -> Result<(), End> {
        self.handle.hub.retain_unfinished(&mut partials);
        for Partial {
            item_id,
            channel,
            text,
            ..
        } in partials
        {
            if !self.completed.contains(&item_id) {
                self.send(&StreamFrame::Delta {
                    item_id,
                    channel,
                    offset: 0,
                    text,
                })
                .await?;
            }
        }
        Ok(())
    }

    async fn send(&mut self, frame: &StreamFrame) -> Result<(), End> {
        let text = serde_json::to_string(frame)
            .map_err(|_| Problem::permanent("internal", "A frame cannot be written as JSON."))?;
        self.send_message(Message::Text(text.into())).await
    }

    async fn send_message(&mut self, message: Message) -> Result<(), End> {
        match tokio::time::timeout(SEND_TIMEOUT, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(End::Gone),
        }
    }

    async fn close(&mut self, end: End) {
        let End::Problem(problem) = end else { return };
        let reason = problem.code.clone();
        let _ = self
            .send(&StreamFrame::Closing {
                problem,
                last_seq: self.cursor,
            })
            .await;
        // 1012: the server ends it and the client may come back; the reason is for people's eyes.
        let frame = CloseFrame {
            code: 1012,
            reason: reason.into(),
        };
        let _ = self.send_message(Message::Close(Some(frame))).await;
    }
}
