//! One connection of the sandbox and its way out for requests: keeps at most one connection to the outside, for as long as
//! requests go to the same host, and opens another otherwise.

use super::answer::{self, Body, Obstacle};
use super::{head, mask::MaskedBody};
use crate::credential;
use crate::decision::Protocol;
use crate::dial::Dialed;
use crate::egress::Inner;
use crate::intercept::Interceptor;
use crate::policy::name::Target;
use crate::tunnel;
use ::http::header::{ACCEPT_ENCODING, HOST, HeaderValue};
use ::http::uri::PathAndQuery;
use ::http::{Request, Response, StatusCode, Uri, Version};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::task::AbortOnDropHandle;

/// How requests go out.
pub(crate) enum Way {
    /// As they came, each to the host that it names.
    Plain,
    /// By TLS to one host, with its credentials.
    Intercepted {
        interceptor: Arc<Interceptor>,
        protocol: Protocol,
        /// The connection that was opened before the first request.
        first: Mutex<Option<Dialed>>,
    },
}

/// A connection to the outside. Dropping it ends it.
struct Upstream {
    target: Target,
    address: IpAddr,
    sender: SendRequest<Incoming>,
    _driver: AbortOnDropHandle<()>,
}

/// Both sides of a change of protocol that both have agreed to.
struct Agreed {
    sandbox: OnUpgrade,
    outside: OnUpgrade,
}

/// See the file's head.
pub(crate) struct Lane {
    inner: Arc<Inner>,
    way: Way,
    upstream: Mutex<Option<Upstream>>,
    agreed: Mutex<Option<Agreed>>,
}

impl Lane {
    pub fn new(inner: Arc<Inner>, way: Way) -> Self {
        Self {
            inner,
            way,
            upstream: Mutex::default(),
            agreed: Mutex::default(),
        }
    }

    pub fn inner(&self) -> &Inner {
        &self.inner
    }

    /// Sends a request on and returns the response, or the answer that says why there is none.
    pub async fn forward(&self, mut request: Request<Incoming>, target: &Target) -> Response<Body> {
        let upgrade = head::take_upgrade(&mut request);
        let Some(request) = self.outgoing(request, target, upgrade.is_some()) else {
            return answer::bad_request("this is not the address of a request");
        };
        let response = match self.exchange(request, target).await {
            Ok(response) => response,
            Err(obstacle) => return answer::obstacle(target, &obstacle),
        };
        self.incoming(response, target, upgrade)
    }

    /// Serves what is left of the connection once it has stopped being HTTP.
    pub async fn finish(&self) {
        let agreed = self.agreed.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Agreed { sandbox, outside }) = agreed else {
            return;
        };
        if let (Ok(sandbox), Ok(outside)) = tokio::join!(sandbox, outside) {
            tunnel::splice(TokioIo::new(sandbox), TokioIo::new(outside)).await;
        }
    }

    /// The request as the other side gets it.
    fn outgoing(
        &self,
        request: Request<Incoming>,
        target: &Target,
        is_web_socket: bool,
    ) -> Option<Request<Incoming>> {
        let (mut parts, body) = request.into_parts();
        let path = parts
            .uri
            .path_and_query()
            .map_or("/", PathAndQuery::as_str)
            .parse::<PathAndQuery>()
            .ok()?;
        let default_port = match self.way {
            Way::Plain => 80,
            Way::Intercepted { .. } => 443,
        };
        let host = match target.port == default_port {
            true => target.host.to_string(),
            false => target.to_string(),
        };
        head::strip(&mut parts.headers);
        // What the host is was decided from the target, so nothing else may say it (RFC 9112, 3.2.2).
        parts.headers.insert(HOST, HeaderValue::from_str(&host).ok()?);
        if is_web_socket {
            head::set_web_socket(&mut parts.headers);
        }
        if let Way::Intercepted { interceptor, .. } = &self.way {
            // An echoed credential must be found in the body.
            parts
                .headers
                .insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            credential::add(&interceptor.credentials_of(target), &mut parts.headers);
        }
        let mut outgoing = Request::new(body);
        *outgoing.method_mut() = parts.method;
        *outgoing.uri_mut() = Uri::from(path);
        *outgoing.version_mut() = Version::HTTP_11;
        *outgoing.headers_mut() = parts.headers;
        Some(outgoing)
    }

    /// The response as the sandbox gets it.
    fn incoming(
        &self,
        mut response: Response<Incoming>,
        target: &Target,
        upgrade: Option<OnUpgrade>,
    ) -> Response<Body> {
        let is_switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if is_switching {
            let Some(sandbox) = upgrade.filter(|_| head::wants_web_socket(response.headers())) else {
                return answer::obstacle(target, &Obstacle::Broken);
            };
            let outside = hyper::upgrade::on(&mut response);
            *self.agreed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Agreed { sandbox, outside });
        }
        let (mut parts, body) = response.into_parts();
        head::strip(&mut parts.headers);
        if is_switching {
            head::set_web_socket(&mut parts.headers);
        }
        match &self.way {
            Way::Plain => Response::from_parts(parts, body.boxed_unsync()),
            Way::Intercepted { interceptor, .. } => {
                let credentials = interceptor.credentials_of(target);
                credential::redact_head(&credentials, &mut parts);
                Response::from_parts(parts, MaskedBody::new(body, &credentials).boxed_unsync())
            }
        }
    }

    async fn exchange(
        &self,
        mut request: Request<Incoming>,
        target: &Target,
    ) -> Result<Response<Incoming>, Obstacle> {
        if let Some(mut kept) = self.kept(target)
            && kept.sender.ready().await.is_ok()
        {
            match self.way {
                Way::Plain => self
                    .inner
                    .decide_again(target, Protocol::Http, kept.address)
                    .map_err(Obstacle::Decision)?,
                // Decided when it was opened: it leads nowhere else.
                Way::Intercepted { .. } => {}
            }
            match kept.sender.try_send_request(request).await {
                Ok(response) => {
                    self.keep(kept);
                    return Ok(response);
                }
                // The other side had closed it meanwhile. Nothing was sent, so it may be sent again.
                Err(mut unsent) => match unsent.take_message() {
                    Some(message) => request = message,
                    None => return Err(broken(unsent.error())),
                },
            }
        }
        let mut upstream = self.open(target).await?;
        let response = upstream
            .sender
            .send_request(request)
            .await
            .map_err(|error| broken(&error))?;
        self.keep(upstream);
        Ok(response)
    }

    fn kept(&self, target: &Target) -> Option<Upstream> {
        let kept = self
            .upstream
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        kept.filter(|upstream| upstream.target == *target && !upstream.sender.is_closed())
    }

    /// Kept also while a response body comes through it.
    fn keep(&self, upstream: Upstream) {
        *self.upstream.lock().unwrap_or_else(PoisonError::into_inner) = Some(upstream);
    }

    async fn open(&self, target: &Target) -> Result<Upstream, Obstacle> {
        match &self.way {
            Way::Plain => {
                let dialed = self
                    .inner
                    .dial(target, Protocol::Http)
                    .await
                    .map_err(Obstacle::Decision)?;
                handshake(target, dialed.address, dialed.stream).await
            }
            Way::Intercepted {
                interceptor,
                protocol,
                first,
                ..
            } => {
                let opened = first.lock().unwrap_or_else(PoisonError::into_inner).take();
                let dialed = match opened {
                    Some(dialed) => dialed,
                    None => self
                        .inner
                        .dial(target, *protocol)
                        .await
                        .map_err(Obstacle::Decision)?,
                };
                let secured = interceptor.secure(target, dialed.stream);
                let stream = tokio::time::timeout(self.inner.limits.connect_timeout, secured)
                    .await
                    .map_err(|_| Obstacle::Tls)?
                    .map_err(|error| {
                        tracing::info!(%target, %error, "a host with credentials is not what it should be");
                        Obstacle::Tls
                    })?;
                handshake(target, dialed.address, stream).await
            }
        }
    }
}

fn broken(error: &hyper::Error) -> Obstacle {
    tracing::debug!(%error, "a request of a sandbox got no response");
    Obstacle::Broken
}

async fn handshake<S>(target: &Target, address: IpAddr, stream: S) -> Result<Upstream, Obstacle>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| broken(&error))?;
    let driver = tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a connection for a sandbox ended early");
        }
    });
    Ok(Upstream {
        target: target.clone(),
        address,
        sender,
        _driver: AbortOnDropHandle::new(driver),
    })
}
