//! The HTTP proxy: requests in absolute form and CONNECT (RFC 9110, 9112). Every request is decided by itself, also when it
//! comes on a connection that served another host before. hyper reads and writes all heads and bodies: what goes out is
//! framed anew, so a message has one length wherever it is read.

mod answer;
mod head;
mod lane;
mod mask;

pub(crate) use answer::{Body, misdirected, not_allowed_method};
pub(crate) use lane::{Lane, Way};

use crate::decision::Protocol;
use crate::dial::Dialed;
use crate::egress::{EgressLimits, Inner};
use crate::policy::name::Target;
use crate::tunnel;
use ::http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use ::http::uri::{Authority, Scheme};
use ::http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

/// Longest head of a request.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Most bytes of a connection that wait in either direction.
const MAX_BUFFER_BYTES: usize = 128 * 1024;

/// Most headers of a request.
const MAX_HEADERS: usize = 128;

/// A CONNECT that was answered with yes.
struct Tunnel {
    sandbox: OnUpgrade,
    target: Target,
    dialed: Dialed,
}

/// Serves one connection to its end.
pub(crate) async fn serve<S>(inner: Arc<Inner>, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let lane = Arc::new(Lane::new(Arc::clone(&inner), Way::Plain));
    let tunnel: Arc<Mutex<Option<Tunnel>>> = Arc::default();
    let service = service_fn(|request| {
        let (lane, tunnel) = (Arc::clone(&lane), Arc::clone(&tunnel));
        async move { Ok::<_, Infallible>(handle(&lane, &tunnel, request).await) }
    });
    let served = server(&inner.limits)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection of a sandbox to the HTTP proxy ended early");
    }
    let agreed = tunnel.lock().unwrap_or_else(PoisonError::into_inner).take();
    match agreed {
        Some(Tunnel {
            sandbox,
            target,
            dialed,
        }) => {
            if let Ok(sandbox) = sandbox.await {
                tunnel::run(inner, target, Protocol::Connect, TokioIo::new(sandbox), dialed).await;
            }
        }
        None => lane.finish().await,
    }
}

/// Says that there are too many connections, without waiting for what this one wants.
pub(crate) async fn refuse_busy<S: AsyncWrite + Unpin>(mut stream: S) {
    if stream.write_all(answer::BUSY.as_bytes()).await.is_ok() {
        let _ = stream.shutdown().await;
    }
}

/// How heads are read from the sandbox, outside and inside of TLS.
pub(crate) fn server(limits: &EgressLimits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_header_size(MAX_HEAD_BYTES)
        .max_buf_size(MAX_BUFFER_BYTES)
        .max_headers(MAX_HEADERS);
    builder
}

async fn handle(lane: &Lane, tunnel: &Mutex<Option<Tunnel>>, request: Request<Incoming>) -> Response<Body> {
    if request.method() == Method::CONNECT {
        return connect(lane, tunnel, request).await;
    }
    if request.method() == Method::TRACE {
        return not_allowed_method();
    }
    let Some(authority) = request.uri().authority() else {
        return answer::bad_request("this is a proxy, and the request names no host");
    };
    match request.uri().scheme() {
        Some(scheme) if *scheme == Scheme::HTTP => {}
        Some(_) | None => {
            return answer::bad_request("only http:// is asked for in this way; TLS goes through CONNECT");
        }
    }
    match target(lane, authority, Some(80), Protocol::Http) {
        Ok(target) => lane.forward(request, &target).await,
        Err(refused) => *refused,
    }
}

async fn connect(
    lane: &Lane,
    tunnel: &Mutex<Option<Tunnel>>,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let headers = request.headers();
    if headers.contains_key(TRANSFER_ENCODING) || headers.contains_key(CONTENT_LENGTH) {
        return answer::bad_request("CONNECT has no body");
    }
    let uri = request.uri();
    let (Some(authority), None, None) = (uri.authority(), uri.scheme(), uri.path_and_query()) else {
        return answer::bad_request("CONNECT names a host and a port");
    };
    let target = match target(lane, authority, None, Protocol::Connect) {
        Ok(target) => target,
        Err(refused) => return *refused,
    };
    match lane.inner().dial(&target, Protocol::Connect).await {
        Ok(dialed) => {
            let agreed = Tunnel {
                sandbox: hyper::upgrade::on(&mut request),
                target,
                dialed,
            };
            *tunnel.lock().unwrap_or_else(PoisonError::into_inner) = Some(agreed);
            Response::new(Body::default())
        }
        Err(decision) => answer::refused(&decision),
    }
}

fn target(
    lane: &Lane,
    authority: &Authority,
    default_port: Option<u16>,
    protocol: Protocol,
) -> Result<Target, Box<Response<Body>>> {
    if authority.as_str().contains('@') {
        return Err(Box::new(answer::bad_request(
            "a name before @ means nothing to a proxy",
        )));
    }
    let text = authority.as_str();
    let has_port = text.len() > authority.host().len();
    let port = match has_port {
        true => authority.port_u16(),
        false => default_port,
    };
    let invalid = |port| {
        let decision = lane.inner().refuse_invalid(authority.host(), port, protocol);
        Box::new(answer::refused(&decision))
    };
    let port = port.ok_or_else(|| invalid(0))?;
    Target::new(authority.host(), port).map_err(|_| invalid(port))
}
