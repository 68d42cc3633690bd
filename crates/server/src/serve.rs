//! Takes connections: as many as there is room for, and none that asks nothing for ever.

use axum::Router;
use greenroom_protocol::client::problem::Problem;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::net::sockopt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// How long the head of a request may take, and a connection may stay without one. More than clients keep theirs, less than for ever.
const HEAD_TIMEOUT: Duration = Duration::from_secs(120);

/// How long the other machine may leave what was sent without a sign that it has it, in milliseconds.
const SILENCE_MS: u32 = 60_000;
/// When and how often a connection on which nothing is sent is looked at.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);

/// Pause after the system refused a connection, such as for want of descriptors: the next try would be refused as well.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long those who find no room get to read so.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest head of a request that is read to be refused, in bytes.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Refusals told at once; who comes then is only closed.
const MAX_REFUSALS: usize = 64;

/// After which whoever found no room may try again.
const RETRY_AFTER_S: u64 = 1;

/// Serves until `closing`, then until every answer is given. At most `max_connections` at once, sockets among them.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    max_connections: usize,
    closing: CancellationToken,
) -> io::Result<()> {
    let room = Arc::new(Semaphore::new(max_connections.min(Semaphore::MAX_PERMITS)));
    let refusals = Arc::new(Semaphore::new(MAX_REFUSALS));
    let connections = TaskTracker::new();
    let mut is_short = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = closing.cancelled() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => {
                is_short = false;
                stream
            }
            Err(error) => {
                // Of one connection that is gone again, or of the whole process, which has to get along for a while.
                if !is_about_one(&error) {
                    if !std::mem::replace(&mut is_short, true) {
                        tracing::warn!(%error, "no connection can be taken for now");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                continue;
            }
        };
        set_options(&stream);
        match room.clone().try_acquire_owned() {
            Ok(permit) => {
                let counted = Counted {
                    stream,
                    _permit: permit,
                    _open: connections.token(),
                };
                connections.spawn(answer(counted, router.clone(), closing.clone()));
            }
            Err(_) => {
                if let Ok(permit) = refusals.clone().try_acquire_owned() {
                    connections.spawn(async move {
                        refuse(stream).await;
                        drop(permit);
                    });
                }
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
    Ok(())
}

/// What makes a connection quick, and ends it when the other side is gone without a word. One that does without is as good, only later.
fn set_options(stream: &TcpStream) {
    // Frames are small and wanted now; without it each may wait for the other side to say that it has the last.
    let _ = stream.set_nodelay(true);
    let _ = sockopt::set_tcp_user_timeout(stream, SILENCE_MS);
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, KEEPALIVE_AFTER);
    let _ = sockopt::set_tcp_keepintvl(stream, KEEPALIVE_EVERY);
}

async fn answer(stream: Counted, router: Router, closing: CancellationToken) {
    let service = TowerToHyperService::new(router);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Says that there is no room to whoever asks something; others are closed.
async fn refuse(mut stream: TcpStream) {
    let mut problem = Problem::transient(
        "server_busy",
        "This server has as many connections as it can hold.",
    )
    .with_hint("Try again in a moment.");
    problem.retry_after_ms = Some(RETRY_AFTER_S * 1000);
    // Plain data always encodes.
    let body = serde_json::to_string(&problem).unwrap_or_default();
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\nretry-after: {RETRY_AFTER_S}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let told = async {
        // Clients take an answer to what they did not ask yet for a broken connection.
        let mut head = Vec::new();
        while !head.windows(4).any(|end| end == b"\r\n\r\n") {
            if head.len() > MAX_HEAD_BYTES || stream.read_buf(&mut head).await? == 0 {
                return Ok(0);
            }
        }
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        // Closed with something unread, the answer could be lost on the way.
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
    };
    // Whoever does not listen is not waited for.
    let _: Result<io::Result<u64>, _> = tokio::time::timeout(REFUSAL_TIMEOUT, told).await;
}

/// Whether accepting failed because of the one connection (`accept(2)`).
fn is_about_one(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

/// A connection that has its place until it is closed, whoever holds it then.
struct Counted {
    stream: TcpStream,
    _permit: OwnedSemaphorePermit,
    /// The end of the server waits for sockets, too: they are told why they are closed.
    _open: TaskTrackerToken,
}

impl AsyncRead for Counted {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
