//! Connections from the host to ports that processes of the sandbox listen on.

use crate::failure::{self, CallResult, failed};
use crate::route::carry;
use crate::stream::Stream;
use greenroom_protocol::guest::Route;
use greenroom_protocol::guest::call::{CallErrorCode, Reply};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Connections at once; each has a thread, and other calls need streams too.
const MAX_FORWARDS: usize = 192;

/// How long a process may take to accept; only one whose queue is full takes any time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

static OPEN: AtomicUsize = AtomicUsize::new(0);

/// One of the connections; the place is free again when it is dropped.
struct Place;

impl Place {
    fn take() -> Option<Self> {
        OPEN.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| {
            (open < MAX_FORWARDS).then_some(open + 1)
        })
        .is_ok()
        .then_some(Self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Replies once connected and carries bytes to the end; only a failure to connect is left to the caller.
pub fn forward(stream: &Arc<Stream>, port: u16) -> CallResult<()> {
    let _place = Place::take().ok_or_else(|| {
        failed(
            CallErrorCode::Os,
            format!("{MAX_FORWARDS} connections into the sandbox are open already"),
        )
    })?;
    // These lead back to the host, with the session's own rights.
    if port == 0 || Route::PORTS.iter().any(|(_, reserved)| *reserved == port) {
        return Err(failed(
            CallErrorCode::Invalid,
            format!("port {port} cannot be forwarded"),
        ));
    }
    let socket = connect(port).map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused => failed(
            CallErrorCode::Refused,
            format!("nothing listens on port {port} of the sandbox"),
        ),
        _ => failure::of(&error, &format!("port {port} of the sandbox")),
    })?;
    // Without it small answers may wait for one another; it only fails on a socket that is gone.
    let _ = socket.set_nodelay(true);
    stream.reply(&Reply::Done);
    carry(stream, &socket);
    Ok(())
}

/// Programs listen on either loopback address, or on both.
fn connect(port: u16) -> io::Result<TcpStream> {
    let to = |address: IpAddr| TcpStream::connect_timeout(&SocketAddr::new(address, port), CONNECT_TIMEOUT);
    match to(Ipv4Addr::LOCALHOST.into()) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            // A sandbox without IPv6 has refused with the first answer.
            to(Ipv6Addr::LOCALHOST.into()).map_err(|_| error)
        }
        connected => connected,
    }
}
