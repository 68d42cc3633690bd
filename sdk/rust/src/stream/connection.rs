//! One connection of a stream.

use crate::client::Client;
use crate::failure::ClientError;
use crate::socket;
use futures_util::{SinkExt, StreamExt};
use greenroom_protocol::client::stream::StreamFrame;
use greenroom_protocol::id::SessionId;
use reqwest::Upgraded;
use std::time::Duration;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// An open stream.
pub(super) struct Connection {
    socket: WebSocketStream<Upgraded>,
    is_probed: bool,
    /// When the server last gave a sign of life, or was last asked for one.
    quiet_since: Instant,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("is_probed", &self.is_probed)
            .finish_non_exhaustive()
    }
}

/// What came of waiting for a frame.
pub(super) enum Received {
    Frame(Box<StreamFrame>),
    /// A message that is no frame of any generation.
    Malformed(String),
    /// The connection ended or went silent; why, for logs.
    Lost(String),
}

impl Connection {
    pub(super) async fn open(
        client: &Client,
        session: &SessionId,
        after: u64,
        is_recent: bool,
    ) -> Result<Self, ClientError> {
        let mut url = client.url(&["sessions", session.as_str(), "stream"]);
        url.query_pairs_mut()
            .append_pair("after", &after.to_string())
            .append_pair("recent", if is_recent { "true" } else { "false" });
        Ok(Self {
            socket: socket::open(client, url).await?,
            is_probed: false,
            quiet_since: Instant::now(),
        })
    }

    /// Waits for the next frame; may be dropped at any moment without losing one.
    pub(super) async fn receive(&mut self, probe_after: Duration) -> Received {
        loop {
            let Ok(next) = tokio::time::timeout_at(self.quiet_since + probe_after, self.socket.next()).await
            else {
                self.quiet_since = Instant::now();
                if std::mem::replace(&mut self.is_probed, true) {
                    return Received::Lost("silent".to_owned());
                }
                if let Err(error) = self.socket.send(Message::Ping(Vec::new().into())).await {
                    return Received::Lost(error.to_string());
                }
                continue;
            };
            self.is_probed = false;
            self.quiet_since = Instant::now();
            match next {
                Some(Ok(Message::Text(text))) => {
                    return match serde_json::from_str(&text) {
                        Ok(frame) => Received::Frame(Box::new(frame)),
                        Err(error) => Received::Malformed(error.to_string()),
                    };
                }
                Some(Ok(Message::Binary(_))) => return Received::Malformed("a binary message".to_owned()),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Close(_))) | None => return Received::Lost("closed".to_owned()),
                Some(Err(error)) => return Received::Lost(error.to_string()),
            }
        }
    }
}
