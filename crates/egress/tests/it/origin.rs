//! Servers that sandboxes want to reach: they tell what they were sent, and remember it.

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    pub line: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Seen {
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
            .collect()
    }
}

#[derive(Default)]
struct State {
    seen: Mutex<Vec<Seen>>,
    /// Lets `/stream` go on to its second piece.
    go_on: Notify,
    files: Option<PathBuf>,
}

/// A server on a port of its own.
pub struct Origin {
    pub port: u16,
    /// Who signed its certificate, if it speaks TLS.
    pub root: Option<CertificateDer<'static>>,
    state: Arc<State>,
    _serving: AbortOnDropHandle<()>,
}

impl Origin {
    pub async fn plain() -> Self {
        Self::start(None, None).await
    }

    /// With a certificate for `name` by an authority of its own.
    pub async fn secure(name: &str) -> Self {
        Self::start(Some(name), None).await
    }

    /// The same, with the files of a directory.
    pub async fn secure_files(name: &str, files: PathBuf) -> Self {
        Self::start(Some(name), Some(files)).await
    }

    async fn start(name: Option<&str>, files: Option<PathBuf>) -> Self {
        let (root, acceptor) = name.map(certified).unzip();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            files,
            ..State::default()
        });
        let served = Arc::clone(&state);
        let serving = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (state, acceptor) = (Arc::clone(&served), acceptor.clone());
                connections.spawn(async move {
                    match acceptor {
                        None => serve(state, stream).await,
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                serve(state, stream).await;
                            }
                        }
                    }
                });
            }
        });
        Self {
            port,
            root,
            state,
            _serving: AbortOnDropHandle::new(serving),
        }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    pub fn go_on(&self) {
        self.state.go_on.notify_one();
    }
}

fn certified(name: &str) -> (CertificateDer<'static>, TlsAcceptor) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let root = params.self_signed(&key).unwrap().der().clone();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec![name.to_owned()])
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], PrivatePkcs8KeyDer::from(key).into())
        .unwrap();
    (root, TlsAcceptor::from(Arc::new(config)))
}

async fn serve<S>(state: Arc<State>, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request| {
        let state = Arc::clone(&state);
        async move { answer(&state, request).await }
    });
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
}

async fn answer(
    state: &Arc<State>,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, std::io::Error> {
    let upgrade = hyper::upgrade::on(&mut request);
    let (parts, body) = request.into_parts();
    let is_web_socket = parts.headers.contains_key("upgrade");
    let body = match is_web_socket {
        true => Bytes::new(),
        false => body.collect().await.map_err(std::io::Error::other)?.to_bytes(),
    };
    let seen = Seen {
        line: format!("{} {}", parts.method, parts.uri),
        headers: parts
            .headers
            .iter()
            .map(|(name, value)| {
                (
                    name.to_string(),
                    String::from_utf8_lossy(value.as_bytes()).into_owned(),
                )
            })
            .collect(),
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    state.seen.lock().unwrap().push(seen.clone());
    let authorization = seen.all("authorization").join(",");
    let response = Response::builder();
    Ok(match parts.uri.path() {
        "/web-socket" if is_web_socket => {
            tokio::spawn(async move {
                let mut stream = TokioIo::new(upgrade.await.unwrap());
                let mut buffer = [0; 64];
                while let Ok(len @ 1..) = stream.read(&mut buffer).await {
                    stream.write_all(&buffer[..len]).await.unwrap();
                }
            });
            response
                .status(StatusCode::SWITCHING_PROTOCOLS)
                .header("connection", "upgrade")
                .header("upgrade", "websocket")
                .body(full(""))
        }
        "/leak" => response
            .header("x-seen", &authorization)
            .header("set-cookie", format!("token={authorization}"))
            .body(full(&format!("you sent {authorization}."))),
        "/redirect" => response
            .status(StatusCode::FOUND)
            .header("location", "http://elsewhere.test/")
            .body(full("")),
        "/private-header" => response
            .header("connection", "x-hop")
            .header("x-hop", "1")
            .header("proxy-authenticate", "Basic")
            .header("x-end", "2")
            .body(full("")),
        "/not-modified" => response
            .status(StatusCode::NOT_MODIFIED)
            .header("etag", "x")
            .body(full("")),
        "/close" => return Err(std::io::ErrorKind::ConnectionReset.into()),
        "/stream" => {
            let (tx, rx) = tokio::sync::mpsc::channel(1);
            let state = Arc::clone(state);
            tokio::spawn(async move {
                let _ = tx.send("first\n").await;
                state.go_on.notified().await;
                let _ = tx.send("second\n").await;
            });
            let pieces = futures_util::stream::unfold(rx, |mut rx| async {
                let piece = rx.recv().await?;
                Some((Ok::<_, Infallible>(Frame::data(Bytes::from(piece))), rx))
            });
            response.body(StreamBody::new(pieces).boxed_unsync())
        }
        path => match state
            .files
            .as_ref()
            .map(|root| root.join(path.trim_start_matches('/')))
        {
            Some(file) => match std::fs::read(file) {
                Ok(bytes) => response.body(Full::new(bytes.into()).boxed_unsync()),
                Err(_) => response.status(StatusCode::NOT_FOUND).body(full("")),
            },
            None => response.body(full(&format!("{} {}\n", seen.line, seen.body))),
        },
    }
    .unwrap())
}

fn full(text: &str) -> Body {
    Full::new(Bytes::from(text.to_owned())).boxed_unsync()
}

/// A server that answers 200 to whatever it is sent, and tells the bytes of each connection when it ends.
pub async fn raw() -> (u16, tokio::sync::mpsc::Receiver<String>, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tx, rx) = tokio::sync::mpsc::channel(16);
    let serving = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut bytes = Vec::new();
            let mut buffer = [0; 4096];
            while let Ok(len @ 1..) = stream.read(&mut buffer).await {
                bytes.extend_from_slice(&buffer[..len]);
                // Whole by then, in these tests: heads and small bodies come at once.
                if bytes.windows(4).any(|window| window == b"\r\n\r\n") && !is_waiting_for_more(&bytes) {
                    let _ = stream
                        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
                        .await;
                    break;
                }
            }
            let _ = stream.shutdown().await;
            let _ = stream.read_to_end(&mut bytes).await;
            let _ = tx.send(String::from_utf8_lossy(&bytes).into_owned()).await;
        }
    });
    (port, rx, AbortOnDropHandle::new(serving))
}

fn is_waiting_for_more(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes).to_lowercase();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .and_then(|length| length.parse().ok());
    match length {
        Some(length) => body.len() < length,
        None => head.contains("transfer-encoding: chunked") && !body.ends_with("0\r\n\r\n"),
    }
}
