//! Connections that processes in a sandbox make to the host's brokers, as byte streams.

use crate::link::{Link, Stream};
use crate::splice::splice;
use greenroom_protocol::guest::Route;
use greenroom_protocol::guest::frame::FrameKind;
use std::sync::Arc;
use tokio::io::DuplexStream;

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

/// Refuses a connection.
pub(crate) async fn refuse(link: Link, stream: Arc<Stream>) {
    link.send(FrameKind::Reset, stream.id(), &[]).await;
    link.close(&stream);
}

/// Serves one connection to its end.
pub(crate) async fn carry(link: Link, stream: Arc<Stream>, route: Route, handler: RouteHandler) {
    let (ours, theirs) = tokio::io::duplex(BUFFER_BYTES);
    handler(route, theirs);
    splice(&link, &stream, ours).await;
    link.close(&stream);
}
