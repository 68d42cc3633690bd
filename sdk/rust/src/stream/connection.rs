//! One WebSocket connection (RFC 6455) over the client's own HTTP stack, so that TLS and proxies are configured once.

use crate::client::Client;
use crate::failure::ClientError;
use futures_util::{SinkExt, StreamExt};
use greenroom_protocol::client::stream::StreamFrame;
use greenroom_protocol::id::SessionId;
use reqwest::{Method, StatusCode, Upgraded, header};
use std::time::Duration;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

/// Largest message that is read, in bytes. The server cuts what an item holds far below.
const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;
/// How long the upgrade may take.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15);

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
    pub(super) async fn open(client: &Client, session: &SessionId, after: u64) -> Result<Self, ClientError> {
        match tokio::time::timeout(OPEN_TIMEOUT, Self::upgrade(client, session, after)).await {
            Ok(result) => result,
            Err(elapsed) => Err(client.unreachable(elapsed)),
        }
    }

    async fn upgrade(client: &Client, session: &SessionId, after: u64) -> Result<Self, ClientError> {
        let mut url = client.url(&["sessions", session.as_str(), "stream"]);
        url.query_pairs_mut().append_pair("after", &after.to_string());
        let key = generate_key();
        let response = client
            .request(Method::GET, url)
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_KEY, &key)
            .send()
            .await
            .map_err(|error| client.unreachable(error.without_url()))?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(client.refused(response).await);
        }
        let accept = response.headers().get(header::SEC_WEBSOCKET_ACCEPT);
        if accept.is_none_or(|accept| accept.as_bytes() != derive_accept_key(key.as_bytes()).as_bytes()) {
            return Err(client.malformed("the upgrade to a WebSocket was not confirmed"));
        }
        let upgraded = response
            .upgrade()
            .await
            .map_err(|error| client.unreachable(error))?;
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_MESSAGE_BYTES))
            .max_frame_size(Some(MAX_MESSAGE_BYTES));
        let socket = WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(config)).await;
        Ok(Self {
            socket,
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
