//! A session's frames as server-sent events, for clients and proxies without WebSockets. Each is the data of one; stored events carry
//! their number as id, so that a client that comes back says by itself how far it was.

use super::follower::{Connection, Gone, SEND_TIMEOUT};
use crate::session::hub::Live;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse as _, Response};
use greenroom_protocol::client::stream::{ClientFrame, StreamFrame};
use std::convert::Infallible;
use tokio::sync::mpsc;

/// Frames that wait until the client reads.
const WAITING_FRAMES: usize = 16;

pub struct OverServerSent(mpsc::Sender<Result<Event, Infallible>>);

/// The answer to the client, and where its frames go.
pub fn open() -> (Response, OverServerSent) {
    let (sender, receiver) = mpsc::channel(WAITING_FRAMES);
    let frames = futures_util::stream::unfold(receiver, async |mut receiver| {
        Some((receiver.recv().await?, receiver))
    });
    // Some proxies collect an answer before they pass it on, unless they are told not to.
    let headers = [("x-accel-buffering", "no")];
    (
        (headers, Sse::new(frames)).into_response(),
        OverServerSent(sender),
    )
}

impl OverServerSent {
    async fn send_event(&mut self, event: Event) -> Result<(), Gone> {
        match tokio::time::timeout(SEND_TIMEOUT, self.0.send(Ok(event))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Gone),
        }
    }
}

impl Connection for OverServerSent {
    async fn send(&mut self, frame: &StreamFrame) -> Result<(), Gone> {
        // Plain data always encodes, and JSON has no line breaks.
        let event = Event::default().data(serde_json::to_string(frame).unwrap_or_default());
        let event = match frame {
            StreamFrame::Event { event: stored } => event.id(stored.seq.to_string()),
            _ => event,
        };
        self.send_event(event).await
    }

    async fn feed(&mut self, live: &Live) -> Result<(), Gone> {
        let text = live.text();
        let event = Event::default().data(String::from_utf8_lossy(&text));
        let event = match &live.frame {
            StreamFrame::Event { event: stored } => event.id(stored.seq.to_string()),
            _ => event,
        };
        self.send_event(event).await
    }

    async fn flush(&mut self) -> Result<(), Gone> {
        Ok(())
    }

    async fn ping(&mut self) -> Result<(), Gone> {
        self.send_event(Event::default().comment("")).await
    }

    async fn heard(&mut self) -> Result<ClientFrame, Gone> {
        self.0.closed().await;
        Err(Gone)
    }

    async fn close(&mut self, _: &str) {}
}
