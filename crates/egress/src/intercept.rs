//! TLS that ends here, for hosts with credentials alone: the sandbox sees a certificate of its own authority, the host sees a
//! verified connection from the proxy with the credential added. Which request goes where was decided before.

use crate::authority::Authority;
use crate::credential::Credential;
use crate::decision::Protocol;
use crate::dial::Dialed;
use crate::egress::Inner;
use crate::http::{self, Body, Lane, Way, misdirected, not_allowed_method};
use crate::policy::name::{Host, Target};
use ::http::header::HOST;
use ::http::uri::Authority as UriAuthority;
use ::http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// HTTP/2 is not spoken on either side; clients fall back.
const HTTP_1: &[u8] = b"http/1.1";

/// How long a certificate is shown before another is made.
const LEAF_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// The credentials of a sandbox, its authority, and TLS to the outside.
pub(crate) struct Interceptor {
    credentials: Vec<Credential>,
    authority: Arc<Authority>,
    connector: TlsConnector,
    /// By host; no more than there are hosts with credentials.
    shown: Mutex<HashMap<String, (Instant, Arc<ServerConfig>)>>,
}

impl Interceptor {
    pub fn new(
        credentials: Vec<Credential>,
        authority: Arc<Authority>,
        roots: RootCertStore,
    ) -> Result<Self, rustls::Error> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![HTTP_1.to_vec()];
        Ok(Self {
            credentials,
            authority,
            connector: TlsConnector::from(Arc::new(config)),
            shown: Mutex::default(),
        })
    }

    /// Whether connections to this host and port carry credentials.
    pub fn is_for(&self, target: &Target) -> bool {
        self.credentials
            .iter()
            .any(|credential| credential.target() == target)
    }

    pub fn credentials_of(&self, target: &Target) -> Vec<Credential> {
        self.credentials
            .iter()
            .filter(|credential| credential.target() == target)
            .cloned()
            .collect()
    }

    /// TLS to the host, verified.
    pub async fn secure(&self, target: &Target, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(target.host.to_string()).map_err(io::Error::other)?;
        self.connector.connect(name, stream).await
    }

    fn config(&self, host: &str) -> io::Result<Arc<ServerConfig>> {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((made_at, config)) = shown.get(host)
            && made_at.elapsed() < LEAF_LIFE
        {
            return Ok(Arc::clone(config));
        }
        let leaf = self.authority.issue(host).map_err(io::Error::other)?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_single_cert(leaf.chain, leaf.key.into())
            .map_err(io::Error::other)?;
        config.alpn_protocols = vec![HTTP_1.to_vec()];
        let config = Arc::new(config);
        shown.insert(host.to_owned(), (Instant::now(), Arc::clone(&config)));
        Ok(config)
    }

    async fn accept<S>(&self, host: &str, stream: S) -> io::Result<tokio_rustls::server::TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        TlsAcceptor::from(self.config(host)?).accept(stream).await
    }
}

/// Serves a connection to a host with credentials to its end.
pub(crate) async fn serve<S>(
    inner: Arc<Inner>,
    interceptor: Arc<Interceptor>,
    target: Target,
    protocol: Protocol,
    sandbox: S,
    dialed: Dialed,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let host = target.host.to_string();
    let accepting = interceptor.accept(&host, sandbox);
    let stream = match tokio::time::timeout(inner.limits.head_timeout, accepting).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            // Most often a program that brings its own list of authorities.
            tracing::info!(%target, %error, "a program in a sandbox did not accept the proxy's certificate");
            return;
        }
        Err(_) => return,
    };
    let server = http::server(&inner.limits);
    let way = Way::Intercepted {
        interceptor,
        protocol,
        first: Mutex::new(Some(dialed)),
    };
    let lane = Arc::new(Lane::new(inner, way));
    let service = service_fn(|request| {
        let (lane, target) = (Arc::clone(&lane), target.clone());
        async move { Ok::<_, Infallible>(handle(&lane, &target, request).await) }
    });
    let served = server
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection of a sandbox with credentials ended early");
    }
    lane.finish().await;
}

async fn handle(lane: &Lane, target: &Target, request: Request<Incoming>) -> Response<Body> {
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
        return not_allowed_method();
    }
    let in_uri = request.uri().authority().cloned();
    let in_header = request
        .headers()
        .get_all(HOST)
        .into_iter()
        .map(|value| UriAuthority::try_from(value.as_bytes()).ok());
    // One that cannot be read is another host too.
    let is_same = in_uri
        .into_iter()
        .map(Some)
        .chain(in_header)
        .all(|authority| authority.is_some_and(|authority| is_target(&authority, target)));
    match is_same {
        true => lane.forward(request, target).await,
        false => misdirected(target),
    }
}

fn is_target(authority: &UriAuthority, target: &Target) -> bool {
    let port = authority.port_u16();
    !authority.as_str().contains('@')
        && Host::parse(authority.host()).as_ref() == Ok(&target.host)
        && port.is_none_or(|port| port == target.port)
}
