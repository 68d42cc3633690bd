//! Opens WebSockets (RFC 6455) over the client's own HTTP stack, so that TLS and proxies are configured once.

use crate::client::Client;
use crate::failure::ClientError;
use reqwest::{Method, StatusCode, Upgraded, Url, header};
use std::time::Duration;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

/// Largest message that is read, in bytes. The server cuts what an item holds far below.
const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;
/// How long the upgrade may take.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15);

pub(crate) async fn open(client: &Client, url: Url) -> Result<WebSocketStream<Upgraded>, ClientError> {
    match tokio::time::timeout(OPEN_TIMEOUT, upgrade(client, url)).await {
        Ok(result) => result,
        Err(elapsed) => Err(client.unreachable(elapsed)),
    }
}

async fn upgrade(client: &Client, url: Url) -> Result<WebSocketStream<Upgraded>, ClientError> {
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
    Ok(WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(config)).await)
}
