//! Connections that processes in a sandbox make to the host's brokers, as byte streams.

use crate::link::{Event, Link, Stream};
use greenroom_protocol::guest::Route;
use greenroom_protocol::guest::frame::FrameKind;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

/// The host's end of one connection. Dropping it closes the connection.
pub type RouteStream = DuplexStream;

/// Serves connections of one sandbox: called once per connection, must return at once (spawn a task). Dropping the stream
/// refuses the connection.
pub type RouteHandler = Arc<dyn Fn(Route, RouteStream) + Send + Sync>;

/// A handler that refuses every connection.
pub fn refuse_routes() -> RouteHandler {
    Arc::new(|_, stream| drop(stream))
}

/// Bytes between the handler and the link, each way.
const BUFFER_BYTES: usize = 64 * 1024;

/// Copies both ways until both ended or one side is gone.
pub(crate) async fn carry(link: Link, stream: Arc<Stream>, route: Route, handler: RouteHandler) {
    let (ours, theirs) = tokio::io::duplex(BUFFER_BYTES);
    handler(route, theirs);
    let (mut reader, mut writer) = tokio::io::split(ours);
    let inbound = async {
        loop {
            match stream.next().await {
                Event::Data { bytes, .. } => {
                    if writer.write_all(&bytes).await.is_err() {
                        return false;
                    }
                    link.grant(&stream, bytes.len()).await;
                }
                Event::End => {
                    let _ = writer.shutdown().await;
                    return true;
                }
                Event::Reply(_) | Event::Gone => return false,
            }
        }
    };
    let outbound = async {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let Some(room) = stream.room().await else {
                return false;
            };
            match reader.read(&mut buffer[..room.min(BUFFER_BYTES)]).await {
                Ok(0) | Err(_) => {
                    link.send(FrameKind::End, stream.id(), &[]).await;
                    return true;
                }
                Ok(len) => link.send_data(&stream, &buffer[..len]).await,
            }
        }
    };
    tokio::pin!(inbound, outbound);
    let (mut is_in_done, mut is_out_done) = (false, false);
    while !(is_in_done && is_out_done) {
        let went_well = tokio::select! {
            well = &mut inbound, if !is_in_done => { is_in_done = true; well }
            well = &mut outbound, if !is_out_done => { is_out_done = true; well }
        };
        if !went_well {
            link.send(FrameKind::Reset, stream.id(), &[]).await;
            break;
        }
    }
    link.close(&stream);
}
