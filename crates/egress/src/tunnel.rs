//! Bytes both ways between the sandbox and where it was allowed to go: as they are, or through the interceptor where
//! credentials are added.

use crate::decision::Protocol;
use crate::dial::Dialed;
use crate::egress::Inner;
use crate::policy::name::Target;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};

/// Bytes held each way.
const BUFFER_BYTES: usize = 32 * 1024;

/// Copies until both sides have ended, or one breaks.
pub(crate) async fn splice<A, B>(mut sandbox: A, mut outside: B)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let copied =
        tokio::io::copy_bidirectional_with_sizes(&mut sandbox, &mut outside, BUFFER_BYTES, BUFFER_BYTES)
            .await;
    if let Err(error) = copied {
        // Either side hanging up in the middle is everyday.
        tracing::debug!(%error, "a connection of a sandbox ended early");
    }
}

/// Serves a connection that was asked for by host and port, after the answer that it is open.
pub(crate) async fn run<S>(inner: Arc<Inner>, target: Target, protocol: Protocol, sandbox: S, dialed: Dialed)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match inner.interceptor.clone() {
        Some(interceptor) if interceptor.is_for(&target) => {
            crate::intercept::serve(inner, interceptor, target, protocol, sandbox, dialed).await;
        }
        Some(_) | None => splice(sandbox, dialed.stream).await,
    }
}
