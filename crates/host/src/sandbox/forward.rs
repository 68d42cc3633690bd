//! Connections to ports of a sandbox, and ports of this machine that lead to them.

use super::{CALL_TIMEOUT, Lease, Sandbox, within};
use crate::expose::{ExposeError, Exposed};
use crate::failure::SandboxError;
use crate::link::Event;
use crate::splice::{Ending, splice};
use greenroom_protocol::guest::call::{Call, Reply};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};

/// Bytes between a connection's user and the link, each way.
const BUFFER_BYTES: usize = 64 * 1024;

/// One connection to a port of a sandbox. Shutting down the writing side leaves the reading side open; a connection that
/// breaks ends early. Dropping it closes the connection.
pub type ForwardStream = DuplexStream;

impl Sandbox {
    /// Connects to a port that a process of the sandbox listens on, on either loopback address.
    /// [`CallErrorCode::Refused`](greenroom_protocol::guest::call::CallErrorCode::Refused) if none does.
    pub async fn forward(&self, port: u16) -> Result<ForwardStream, SandboxError> {
        let lease = self.connect(port).await?;
        let (ours, theirs) = tokio::io::duplex(BUFFER_BYTES);
        let end = Arc::clone(&self.end);
        tokio::spawn(async move {
            finish(lease, ours).await;
            // The connection keeps the link open as long as it lasts.
            drop(end);
        });
        Ok(theirs)
    }

    /// Listens on an address of this machine's loopback network (port 0: any free one) and joins each connection to `port`
    /// of the sandbox. The address is kept with the sandbox: until [`Sandbox::unexpose`] every host that starts or finds the
    /// sandbox listens on it again. Exposing the same port on the same address again changes nothing.
    pub async fn expose(&self, port: u16, listen: SocketAddr) -> Result<Exposed, ExposeError> {
        self.ports.expose(port, listen).await
    }

    /// Ends listening on an address. Connections that are open go on. An address that is not exposed is fine.
    pub async fn unexpose(&self, address: SocketAddr) -> Result<(), ExposeError> {
        self.ports.unexpose(address).await
    }

    /// What is exposed, in the order in which it was, also what could not be listened on.
    pub fn exposed(&self) -> Vec<Exposed> {
        self.ports.exposed()
    }

    /// Connects `socket` to a port, to the end of both.
    pub(crate) async fn carry<S: AsyncRead + AsyncWrite + Unpin>(&self, port: u16, socket: S) -> Ending {
        match self.connect(port).await {
            Ok(lease) => finish(lease, socket).await,
            Err(_) => Ending::Broken,
        }
    }

    /// A stream that is connected to a port; nothing was read from it yet.
    async fn connect(&self, port: u16) -> Result<Lease, SandboxError> {
        let mut lease = self.open(&Call::Forward { port }).await?;
        match within(CALL_TIMEOUT, lease.stream.next()).await? {
            Event::Reply(Reply::Done) => Ok(lease),
            other => {
                lease.is_done = true;
                Err(self.unexpected(other))
            }
        }
    }
}

async fn finish<S: AsyncRead + AsyncWrite + Unpin>(mut lease: Lease, socket: S) -> Ending {
    let ending = splice(&lease.link, &lease.stream, socket).await;
    lease.is_done = true;
    ending
}
