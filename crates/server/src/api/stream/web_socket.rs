//! A session's frames over a WebSocket, one text message each.

use super::follower::{Connection, Gone, SEND_TIMEOUT};
use crate::session::hub::Live;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use futures_util::{FutureExt as _, SinkExt as _};
use greenroom_protocol::client::stream::{ClientFrame, StreamFrame};

/// Pings in a row that may stay unanswered. Whoever answers none is gone, though their connection may look as if it were there: their
/// machine sleeps, or something between forgot them.
const MAX_UNANSWERED: u32 = 2;

pub struct OverWebSocket {
    socket: WebSocket,
    /// Pings since something was heard.
    unanswered: u32,
}

impl OverWebSocket {
    pub fn new(socket: WebSocket) -> Self {
        Self {
            socket,
            unanswered: 0,
        }
    }

    /// Takes what has come already; whoever has much to send is not always listened to.
    fn hear_what_came(&mut self) -> Result<(), Gone> {
        while let Some(heard) = self.socket.recv().now_or_never() {
            match heard {
                None | Some(Err(_) | Ok(Message::Close(_))) => return Err(Gone),
                Some(Ok(_)) => self.unanswered = 0,
            }
        }
        Ok(())
    }

    async fn send_message(&mut self, message: Message) -> Result<(), Gone> {
        match tokio::time::timeout(SEND_TIMEOUT, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Gone),
        }
    }
}

impl Connection for OverWebSocket {
    async fn send(&mut self, frame: &StreamFrame) -> Result<(), Gone> {
        // Plain data always encodes.
        let text = serde_json::to_string(frame).unwrap_or_default();
        self.send_message(Message::Text(text.into())).await
    }

    async fn feed(&mut self, live: &Live) -> Result<(), Gone> {
        // JSON is UTF-8.
        let text = Utf8Bytes::try_from(live.text()).map_err(|_| Gone)?;
        match tokio::time::timeout(SEND_TIMEOUT, self.socket.feed(Message::Text(text))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Gone),
        }
    }

    async fn flush(&mut self) -> Result<(), Gone> {
        match tokio::time::timeout(SEND_TIMEOUT, self.socket.flush()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Gone),
        }
    }

    async fn ping(&mut self) -> Result<(), Gone> {
        if self.unanswered >= MAX_UNANSWERED {
            self.hear_what_came()?;
        }
        if self.unanswered >= MAX_UNANSWERED {
            return Err(Gone);
        }
        self.unanswered += 1;
        self.send_message(Message::Ping(Vec::new().into())).await
    }

    async fn heard(&mut self) -> Result<ClientFrame, Gone> {
        loop {
            let heard = self.socket.recv().await;
            self.unanswered = 0;
            match heard {
                None | Some(Err(_) | Ok(Message::Close(_))) => return Err(Gone),
                Some(Ok(Message::Text(text))) => {
                    // Unknown frames of newer clients are no reason to end it.
                    if let Ok(frame) = serde_json::from_str(&text) {
                        return Ok(frame);
                    }
                }
                Some(Ok(_)) => {}
            }
        }
    }

    async fn close(&mut self, reason: &str) {
        // 1012: the server ends it and the client may come back; the reason is for people's eyes.
        let frame = CloseFrame {
            code: 1012,
            reason: reason.to_owned().into(),
        };
        let _ = self.send_message(Message::Close(Some(frame))).await;
    }
}
