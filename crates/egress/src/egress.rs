//! The egress of one sandbox: what it may do, put together, and its two ways in.

use crate::authority::{Authority, AuthorityError};
use crate::credential::Credential;
use crate::decision::Observer;
use crate::intercept::Interceptor;
use crate::meter::{Counters, Metered};
use crate::policy::Policy;
use crate::resolve::{Resolver, SystemResolver};
use crate::trust::{Trust, system_roots};
use crate::{http, socks};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What one sandbox may use of the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EgressLimits {
    /// Connections at once, both proxies together. One more is refused at once.
    pub max_connections: usize,
    /// For a name to be resolved.
    pub resolve_timeout: Duration,
    /// For each address of a host to accept a connection, with TLS where the proxy speaks it.
    pub connect_timeout: Duration,
    /// For the head of a request to arrive, also the next one on a connection.
    pub head_timeout: Duration,
    /// How long a connection may be silent in both directions.
    pub idle_timeout: Duration,
}

impl Default for EgressLimits {
    fn default() -> Self {
        Self {
            max_connections: 128,
            resolve_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(8),
            head_timeout: Duration::from_secs(30),
            // Longer than slow servers think before their first byte.
            idle_timeout: Duration::from_secs(15 * 60),
        }
    }
}

/// What a sandbox did since its egress was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EgressUsage {
    /// Connections to the proxies.
    pub connections: u64,
    /// Decisions by verdict.
    pub allowed: u64,
    pub refused: u64,
    pub failed: u64,
    /// Bytes from the sandbox to the proxies.
    pub bytes_out: u64,
    /// Bytes from the proxies to the sandbox.
    pub bytes_in: u64,
}

/// Why an egress cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    #[error("set up the authority for hosts with credentials")]
    Authority(#[from] AuthorityError),
    #[error("set up TLS")]
    Tls(#[from] rustls::Error),
}

/// The egress of one sandbox. Cheap to clone; clones share counters and limits.
#[derive(Clone)]
pub struct Egress(Arc<Inner>);

#[derive(Clone)]
pub(crate) struct Inner {
    pub policy: Policy,
    pub observer: Observer,
    pub resolver: Arc<dyn Resolver>,
    pub limits: EgressLimits,
    pub counters: Arc<Counters>,
    connections: Arc<Semaphore>,
    credentials: Vec<Credential>,
    extra_roots: Vec<CertificateDer<'static>>,
    authority: Option<Arc<Authority>>,
    /// Only where there are credentials.
    pub interceptor: Option<Arc<Interceptor>>,
}

impl fmt::Debug for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Egress")
            .field("policy", &self.0.policy)
            .field("credentials", &self.0.credentials.len())
            .finish_non_exhaustive()
    }
}

impl Egress {
    /// An egress with the system's resolver and default limits. With credentials its authority ends with this process, unless
    /// [`Egress::with_authority`] names a lasting one.
    pub fn new(
        policy: Policy,
        credentials: Vec<Credential>,
        observer: Observer,
    ) -> Result<Self, EgressError> {
        let limits = EgressLimits::default();
        let authority = match credentials.is_empty() {
            true => None,
            false => Some(Arc::new(Authority::generate()?)),
        };
        Self(Arc::new(Inner {
            policy,
            observer,
            resolver: Arc::new(SystemResolver::default()),
            limits,
            counters: Arc::default(),
            connections: Arc::new(Semaphore::new(limits.max_connections)),
            credentials,
            extra_roots: Vec::new(),
            authority,
            interceptor: None,
        }))
        .rebuilt()
    }

    /// Uses this authority towards the sandbox: see [`Authority::derive`].
    pub fn with_authority(mut self, authority: Authority) -> Result<Self, EgressError> {
        let inner = Arc::make_mut(&mut self.0);
        inner.authority = (!inner.credentials.is_empty()).then(|| Arc::new(authority));
        self.rebuilt()
    }

    /// Trusts these certificates besides the machine's own, here and in the sandbox: a company's internal authority.
    pub fn with_roots(mut self, roots: Vec<CertificateDer<'static>>) -> Result<Self, EgressError> {
        Arc::make_mut(&mut self.0).extra_roots = roots;
        self.rebuilt()
    }

    pub fn with_resolver(mut self, resolver: Arc<dyn Resolver>) -> Self {
        Arc::make_mut(&mut self.0).resolver = resolver;
        self
    }

    pub fn with_limits(mut self, limits: EgressLimits) -> Self {
        let inner = Arc::make_mut(&mut self.0);
        inner.limits = limits;
        inner.connections = Arc::new(Semaphore::new(limits.max_connections));
        self
    }

    fn rebuilt(mut self) -> Result<Self, EgressError> {
        let inner = Arc::make_mut(&mut self.0);
        inner.interceptor = match &inner.authority {
            None => None,
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(system_roots().iter().chain(&inner.extra_roots).cloned());
                Some(Arc::new(Interceptor::new(
                    inner.credentials.clone(),
                    Arc::clone(authority),
                    roots,
                )?))
            }
        };
        Ok(self)
    }

    /// What the sandbox must trust; `None` if its own certificates are enough.
    pub fn trust(&self) -> Option<Trust> {
        let inner = &self.0;
        let is_needed = inner.authority.is_some() || !inner.extra_roots.is_empty();
        is_needed.then(|| Trust::new(&inner.extra_roots, inner.authority.as_deref()))
    }

    /// What the sandbox did so far.
    pub fn usage(&self) -> EgressUsage {
        let counters = &self.0.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        EgressUsage {
            connections: read(&counters.connections),
            allowed: read(&counters.allowed),
            refused: read(&counters.refused),
            failed: read(&counters.failed),
            bytes_out: read(&counters.bytes_out),
            bytes_in: read(&counters.bytes_in),
        }
    }

    /// Serves one connection of the sandbox to the HTTP proxy, to its end. Dropping the future ends the connection and
    /// everything it led to.
    pub async fn serve_http<S>(&self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        match self.admit(stream) {
            Ok((stream, _permit)) => self.0.watch(stream, http::serve).await,
            Err(stream) => http::refuse_busy(stream).await,
        }
    }

    /// The same for the SOCKS proxy.
    pub async fn serve_socks<S>(&self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        match self.admit(stream) {
            Ok((stream, _permit)) => self.0.watch(stream, socks::serve).await,
            // Closed without a word: there is no reply before the greeting has come.
            Err(stream) => drop(stream),
        }
    }

    fn admit<S>(&self, stream: S) -> Result<(Metered<S>, OwnedSemaphorePermit), S> {
        match Arc::clone(&self.0.connections).try_acquire_owned() {
            Ok(permit) => Ok((Metered::new(stream, Arc::clone(&self.0.counters)), permit)),
            Err(_) => Err(stream),
        }
    }
}

impl Inner {
    /// Serves until the end, or until nothing has moved for too long.
    async fn watch<S, F>(self: &Arc<Self>, stream: Metered<S>, serve: impl FnOnce(Arc<Self>, Metered<S>) -> F)
    where
        F: Future<Output = ()>,
    {
        let activity = stream.activity();
        tokio::select! {
            () = serve(Arc::clone(self), stream) => {}
            () = activity.idle(self.limits.idle_timeout) => {
                tracing::debug!("a connection of a sandbox was silent for too long");
            }
        }
    }
}
