//! An egress behind two listening ports, what it decided, and clients that speak in bytes.

use greenroom_egress::{
    AddressException, Credential, Decision, Egress, EgressLimits, Policy, Resolver, Verdict,
    fake::FakeResolver,
};
use greenroom_protocol::environment::EgressPolicy;
use greenroom_stdx::secret::Secret;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

/// Longest that any state is waited for.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What no sandbox may see.
pub const SECRET: &str = "s3cr3t-value-of-the-test";

pub fn policy(allow: &[String]) -> Policy {
    Policy::compile(&EgressPolicy {
        allow: allow.to_vec(),
        ..EgressPolicy::default()
    })
    .unwrap()
}

/// Servers of these tests are on loopback.
pub fn loopback() -> [AddressException; 2] {
    ["127.0.0.0/8", "::1"].map(|net| net.parse().unwrap())
}

pub fn bearer(host: &str, port: u16) -> Credential {
    Credential::new(
        host,
        "Authorization",
        Secret::new(SECRET),
        Some("Bearer {secret}"),
    )
    .unwrap()
    .on_port(port)
}

/// Names that lead to the tests' own servers.
pub fn names() -> FakeResolver {
    ["plain.test", "other.test", "secure.test", "a.wild.test"]
        .into_iter()
        .fold(FakeResolver::default(), |names, name| {
            names.answer(name, &["127.0.0.1"])
        })
}

/// A sandbox's egress, listening.
pub struct Proxy {
    pub egress: Egress,
    pub http_port: u16,
    pub socks_port: u16,
    decisions: Arc<Mutex<Vec<Decision>>>,
    _listeners: [AbortOnDropHandle<()>; 2],
}

impl Proxy {
    /// Allows `allow` on loopback, under the names of [`names`].
    pub async fn allowing(allow: &[String]) -> Self {
        let policy = policy(allow).allow_addresses(loopback());
        Self::start(policy, Vec::new(), names(), EgressLimits::default(), Vec::new()).await
    }

    pub async fn start(
        policy: Policy,
        credentials: Vec<Credential>,
        resolver: impl Resolver + 'static,
        limits: EgressLimits,
        roots: Vec<greenroom_egress::CertificateDer<'static>>,
    ) -> Self {
        let decisions = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&decisions);
        let observer = Arc::new(move |decision: &Decision| told.lock().unwrap().push(decision.clone()));
        let egress = Egress::new(policy, credentials, observer)
            .unwrap()
            .with_resolver(Arc::new(resolver))
            .with_limits(limits)
            .with_roots(roots)
            .unwrap();
        let (http_port, http) = listen(egress.clone(), |egress, stream| async move {
            egress.serve_http(stream).await;
        })
        .await;
        let (socks_port, socks) = listen(egress.clone(), |egress, stream| async move {
            egress.serve_socks(stream).await;
        })
        .await;
        Self {
            egress,
            http_port,
            socks_port,
            decisions,
            _listeners: [http, socks],
        }
    }

    pub fn http_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.http_port)
    }

    /// "verdict code host:port" of every decision so far.
    pub fn decisions(&self) -> Vec<String> {
        self.decisions
            .lock()
            .unwrap()
            .iter()
            .map(|decision| {
                let verdict = match decision.verdict {
                    Verdict::Allowed => "allowed",
                    Verdict::Refused => "refused",
                    Verdict::Failed => "failed",
                };
                format!(
                    "{verdict} {} {}:{}",
                    decision.reason.code(),
                    decision.host,
                    decision.port
                )
            })
            .collect()
    }

    pub fn last_decision(&self) -> Decision {
        self.decisions.lock().unwrap().last().unwrap().clone()
    }

    pub async fn connect_http(&self) -> TcpStream {
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.http_port))
            .await
            .unwrap()
    }

    pub async fn connect_socks(&self) -> TcpStream {
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.socks_port))
            .await
            .unwrap()
    }

    /// Sends bytes to the HTTP proxy and reads until it closes; requests should ask for that.
    pub async fn say(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect_http().await;
        stream.write_all(bytes.as_ref()).await.unwrap();
        read_all(&mut stream).await
    }

    /// A GET through the proxy on a connection of its own.
    pub async fn get(&self, url: &str) -> String {
        self.say(format!(
            "GET {url} HTTP/1.1\r\nhost: ignored\r\nconnection: close\r\n\r\n"
        ))
        .await
    }
}

async fn listen<F: Future<Output = ()> + Send + 'static>(
    egress: Egress,
    serve: impl Fn(Egress, TcpStream) -> F + Send + 'static,
) -> (u16, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let accepting = tokio::spawn(async move {
        let mut served = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            served.spawn(serve(egress.clone(), stream));
        }
    });
    (port, AbortOnDropHandle::new(accepting))
}

/// Everything until the other side closes. A reset counts as closing.
pub async fn read_all(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes))
        .await
        .expect("the other side closes in time");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads until a text has come.
pub async fn read_until(stream: &mut (impl tokio::io::AsyncRead + Unpin), end: &str) -> String {
    let mut bytes = Vec::new();
    let reading = async {
        while !bytes.ends_with(end.as_bytes()) {
            bytes.push(stream.read_u8().await.expect("more comes"));
        }
    };
    tokio::time::timeout(PATIENCE, reading)
        .await
        .unwrap_or_else(|_| panic!("{end:?} comes in time"));
    String::from_utf8_lossy(&bytes).into_owned()
}

#[track_caller]
pub fn assert_status(response: &str, expected: u16) {
    assert!(
        response.starts_with(&format!("HTTP/1.1 {expected} ")),
        "{expected} expected:\n{response}"
    );
}
