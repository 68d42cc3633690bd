//! A session's frames over a WebSocket, one text message each.

use super::follower::{Connection, Gone, SEND_TIMEOUT};
use crate::session::hub::Live;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use futures_util::SinkExt as _;
use greenroom_protocol::client::stream::{ClientFrame, StreamFrame};

pub struct OverWebSocket(pub WebSocket);

impl OverWebSocket {
    async fn send_message(&mut self, message: Message) -> Result<(), Gone> {
        match tokio::time::timeout(SEND_TIMEOUT, self.0.send(message)).await {
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
        match tokio::time::timeout(SEND_TIMEOUT, self.0.feed(Message::Text(text))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Gone),
        }
    }

    async fn flush(&mut self) -> Result<(), Gone> {
        match tokio::time::timeout(SEND_TIMEOUT, self.0.flush()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Gone),
        }
    }

    async fn ping(&mut self) -> Result<(), Gone> {
        self.send_message(Message::Ping(Vec::new().into())).await
    }

    async fn heard(&mut self) -> Result<ClientFrame, Gone> {
        loop {
            match self.0.recv().await {
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
