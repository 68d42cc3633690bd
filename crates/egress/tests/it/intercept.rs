//! Hosts with credentials: the sandbox trusts its own authority, the host sees the credential, the sandbox never does.

use crate::origin::Origin;
use crate::world::{
    PATIENCE, Proxy, SECRET, assert_status, bearer, loopback, names, policy, read_all, read_until,
};
use greenroom_egress::{Authority, CertificateDer, Egress, EgressLimits};
use greenroom_protocol::id::SandboxId;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A sandbox with a credential for `secure.test` on the origin's port.
async fn with_credential(origin: &Origin) -> Proxy {
    let policy = policy(&[
        format!("secure.test:{}", origin.port),
        format!("other.test:{}", origin.port),
    ])
    .allow_addresses(loopback());
    let credentials = vec![bearer("secure.test", origin.port)];
    let roots = origin.root.clone().into_iter().collect();
    Proxy::start(policy, credentials, names(), EgressLimits::default(), roots).await
}

/// What the sandbox finds in its file.
fn trusted(egress: &Egress) -> Vec<CertificateDer<'static>> {
    let trust = egress.trust().unwrap();
    CertificateDer::pem_slice_iter(trust.pem.as_bytes())
        .collect::<Result<_, _>>()
        .unwrap()
}

fn connector(roots: impl IntoIterator<Item = CertificateDer<'static>>) -> TlsConnector {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(roots);
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(store)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

async fn tunnel(proxy: &Proxy, host: &str, port: u16) -> TcpStream {
    let mut stream = proxy.connect_http().await;
    stream
        .write_all(format!("CONNECT {host}:{port} HTTP/1.1\r\n\r\n").as_bytes())
        .await
        .unwrap();
    assert_status(&read_until(&mut stream, "\r\n\r\n").await, 200);
    stream
}

async fn secured(proxy: &Proxy, host: &'static str, port: u16) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = tunnel(proxy, host, port).await;
    let connecting = connector(trusted(&proxy.egress)).connect(ServerName::try_from(host).unwrap(), stream);
    tokio::time::timeout(PATIENCE, connecting)
        .await
        .expect("TLS in time")
}

async fn ask(proxy: &Proxy, port: u16, request: &str) -> String {
    let mut stream = secured(proxy, "secure.test", port).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    read_all(&mut stream).await
}

#[tokio::test]
async fn the_host_sees_the_credential_and_the_sandbox_does_not() {
    let origin = Origin::secure("secure.test").await;
    let proxy = with_credential(&origin).await;
    let response = ask(
        &proxy,
        origin.port,
        "GET /leak HTTP/1.1\r\nhost: secure.test\r\nauthorization: mine\r\nAUTHORIZATION: mine too\r\n\
         accept-encoding: gzip\r\nconnection: close, authorization\r\n\r\n",
    )
    .await;
    assert_status(&response, 200);
    let seen = &origin.seen()[0];
    assert_eq!(seen.all("authorization"), [format!("Bearer {SECRET}")]);
    assert_eq!(seen.all("host"), [format!("secure.test:{}", origin.port)]);
    assert!(!response.contains(SECRET), "{response}");
    let masked = format!("Bearer {}", "*".repeat(SECRET.len()));
    assert!(response.contains(&format!("x-seen: {masked}\r\n")), "{response}");
    assert!(
        response.contains(&format!("set-cookie: token={masked}\r\n")),
        "{response}"
    );
    assert!(response.ends_with(&format!("you sent {masked}.")), "{response}");
    let decision = proxy.last_decision();
    assert!(decision.has_credential);
    assert_eq!(decision.host, "secure.test");
    assert_eq!(proxy.decisions().len(), 1);
    for shown in [format!("{decision:?}"), format!("{:?}", proxy.egress)] {
        assert!(!shown.contains(SECRET), "{shown}");
    }
}

#[tokio::test]
async fn other_hosts_are_not_opened() {
    let origin = Origin::secure("other.test").await;
    let proxy = with_credential(&origin).await;
    // The certificate is the origin's own; the sandbox's authority made none for it.
    let stream = tunnel(&proxy, "other.test", origin.port).await;
    let mut stream = connector(origin.root.clone())
        .connect(ServerName::try_from("other.test").unwrap(), stream)
        .await
        .unwrap();
    stream
        .write_all(b"GET /leak HTTP/1.1\r\nhost: other.test\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let response = read_all(&mut stream).await;
    assert!(response.ends_with("you sent ."), "{response}");
    assert_eq!(origin.seen()[0].all("authorization"), Vec::<&str>::new());
    assert!(!proxy.last_decision().has_credential);
}

#[tokio::test]
async fn a_connection_stays_with_the_host_that_it_was_opened_to() {
    let origin = Origin::secure("secure.test").await;
    let proxy = with_credential(&origin).await;
    for (request, status) in [
        ("GET / HTTP/1.1\r\nhost: SECURE.test.\r\n", 200),
        ("GET / HTTP/1.1\r\nhost: other.test\r\n", 421),
        ("GET / HTTP/1.1\r\nhost: secure.test:1\r\n", 421),
        ("GET / HTTP/1.1\r\nhost: secure.test\r\nhost: other.test\r\n", 421),
        ("GET / HTTP/1.1\r\nhost: secure.test@other.test\r\n", 421),
        ("GET / HTTP/1.1\r\nhost: \r\n", 421),
        ("GET http://other.test/ HTTP/1.1\r\nhost: secure.test\r\n", 421),
        ("GET https://secure.test/ HTTP/1.1\r\nhost: secure.test\r\n", 200),
        ("CONNECT other.test:443 HTTP/1.1\r\n", 405),
        ("TRACE / HTTP/1.1\r\nhost: secure.test\r\n", 405),
    ] {
        let response = ask(
            &proxy,
            origin.port,
            &format!("{request}connection: close\r\n\r\n"),
        )
        .await;
        assert_status(&response, status);
    }
    assert_eq!(origin.seen().len(), 2);
}

#[tokio::test]
async fn requests_follow_one_another_and_redirects_are_the_clients_business() {
    let origin = Origin::secure("secure.test").await;
    let proxy = with_credential(&origin).await;
    let mut stream = secured(&proxy, "secure.test", origin.port).await.unwrap();
    for _ in 0..3 {
        stream
            .write_all(b"GET /redirect HTTP/1.1\r\nhost: secure.test\r\n\r\n")
            .await
            .unwrap();
        let head = read_until(&mut stream, "\r\n\r\n").await;
        assert_status(&head, 302);
        assert!(head.contains("location: http://elsewhere.test/"), "{head}");
    }
    assert_status(&proxy.get("http://elsewhere.test/").await, 403);
    assert_eq!(
        proxy.decisions(),
        [
            format!("allowed rule secure.test:{}", origin.port),
            "refused not_allowed elsewhere.test:80".to_owned()
        ]
    );
}

#[tokio::test]
async fn bodies_stream_both_ways() {
    let origin = Origin::secure("secure.test").await;
    let proxy = with_credential(&origin).await;
    let mut stream = secured(&proxy, "secure.test", origin.port).await.unwrap();
    stream
        .write_all(b"GET /stream HTTP/1.1\r\nhost: secure.test\r\n\r\n")
        .await
        .unwrap();
    read_until(&mut stream, "first\n").await;
    origin.go_on();
    read_until(&mut stream, "second\n").await;
    let response = ask(
        &proxy,
        origin.port,
        "POST /in HTTP/1.1\r\nhost: secure.test\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n\
         5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
    )
    .await;
    assert!(response.ends_with("POST /in hello world\n"), "{response}");
}

#[tokio::test]
async fn responses_without_a_body_stay_without_one() {
    let origin = Origin::secure("secure.test").await;
    let proxy = with_credential(&origin).await;
    let mut stream = secured(&proxy, "secure.test", origin.port).await.unwrap();
    for (request, status, header) in [
        ("HEAD /x", 200, "content-length: 9\r\n"),
        ("GET /not-modified", 304, "etag: x\r\n"),
        ("HEAD /x", 200, "content-length: 9\r\n"),
    ] {
        stream
            .write_all(format!("{request} HTTP/1.1\r\nhost: secure.test\r\n\r\n").as_bytes())
            .await
            .unwrap();
        // Anything after the head would be taken for the next response.
        let head = read_until(&mut stream, "\r\n\r\n").await;
        assert_status(&head, status);
        assert!(head.contains(header), "{head}");
    }
}

#[tokio::test]
async fn large_bodies_arrive_whole() {
    let origin = Origin::secure("secure.test").await;
    let proxy = with_credential(&origin).await;
    let body: String = (0..600_000).map(|number| format!("{number:06}\n")).collect();
    let stream = secured(&proxy, "secure.test", origin.port).await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let sent = body.clone();
    let sending = tokio::spawn(async move {
        let head = format!(
            "POST / HTTP/1.1\r\nhost: secure.test\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            sent.len()
        );
        writer.write_all(head.as_bytes()).await.unwrap();
        writer.write_all(sent.as_bytes()).await.unwrap();
        writer
    });
    let response = read_all(&mut reader).await;
    sending.await.unwrap();
    let (_, back) = response.split_once("\r\n\r\nPOST / ").unwrap();
    assert!(back == format!("{body}\n"), "{} bytes came back", back.len());
    assert!(origin.seen()[0].body == body);
}

#[tokio::test]
async fn a_web_socket_goes_through_with_the_credential() {
    let origin = Origin::secure("secure.test").await;
    let proxy = with_credential(&origin).await;
    let mut stream = secured(&proxy, "secure.test", origin.port).await.unwrap();
    stream
        .write_all(
            b"GET /web-socket HTTP/1.1\r\nhost: secure.test\r\nconnection: Upgrade\r\nupgrade: WebSocket\r\n\r\n",
        )
        .await
        .unwrap();
    assert_status(&read_until(&mut stream, "\r\n\r\n").await, 101);
    stream.write_all(b"ping").await.unwrap();
    read_until(&mut stream, "ping").await;
    assert_eq!(
        origin.seen()[0].all("authorization"),
        [format!("Bearer {SECRET}")]
    );
}

#[tokio::test]
async fn a_host_that_does_not_prove_itself_gets_nothing() {
    // Signed by an authority that nobody was told of, and for another name.
    for (name, is_trusted) in [("secure.test", false), ("wrong.test", true)] {
        let origin = Origin::secure(name).await;
        let policy = policy(&[format!("secure.test:{}", origin.port)]).allow_addresses(loopback());
        let roots = origin.root.clone().into_iter().filter(|_| is_trusted).collect();
        let credentials = vec![bearer("secure.test", origin.port)];
        let proxy = Proxy::start(policy, credentials, names(), EgressLimits::default(), roots).await;
        let response = ask(
            &proxy,
            origin.port,
            "GET / HTTP/1.1\r\nhost: secure.test\r\nconnection: close\r\n\r\n",
        )
        .await;
        assert_status(&response, 502);
        assert!(response.contains("\"reason\":\"tls\""), "{response}");
        assert_eq!(origin.seen().len(), 0, "{name}");
    }
}

#[tokio::test]
async fn plain_requests_never_carry_a_credential() {
    let origin = Origin::plain().await;
    let proxy = with_credential(&origin).await;
    let response = proxy
        .get(&format!("http://secure.test:{}/leak", origin.port))
        .await;
    assert!(response.ends_with("you sent ."), "{response}");
    assert_eq!(origin.seen()[0].all("authorization"), Vec::<&str>::new());
}

#[tokio::test]
async fn what_is_no_tls_in_such_a_tunnel_gets_nothing() {
    let origin = Origin::secure("secure.test").await;
    let proxy = with_credential(&origin).await;
    let mut stream = tunnel(&proxy, "secure.test", origin.port).await;
    stream
        .write_all(b"GET /leak HTTP/1.1\r\nhost: secure.test\r\n\r\n")
        .await
        .unwrap();
    let response = read_all(&mut stream).await;
    assert!(!response.contains("HTTP/1.1"), "{response}");
    assert_eq!(origin.seen().len(), 0);
}

#[tokio::test]
async fn the_sandbox_trusts_the_same_authority_after_a_restart() {
    let origin = Origin::secure("secure.test").await;
    let (sandbox, other) = (SandboxId::from_bits(7), SandboxId::from_bits(8));
    let make = |id: &SandboxId| {
        let policy = policy(&[format!("secure.test:{}", origin.port)]).allow_addresses(loopback());
        Egress::new(policy, vec![bearer("secure.test", origin.port)], Arc::new(|_| {}))
            .unwrap()
            .with_resolver(Arc::new(names()))
            .with_authority(Authority::derive(&[9; 32], id).unwrap())
            .unwrap()
    };
    let first = trusted(&make(&sandbox));
    // The file of the first process, the proxy of a second one; and a proxy that is another sandbox's.
    for (id, is_accepted) in [(&sandbox, true), (&other, false)] {
        let egress = make(id);
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        let serving = tokio::spawn(async move { egress.serve_http(server).await });
        client
            .write_all(format!("CONNECT secure.test:{} HTTP/1.1\r\n\r\n", origin.port).as_bytes())
            .await
            .unwrap();
        assert_status(&read_until(&mut client, "\r\n\r\n").await, 200);
        let connected = connector(first.clone())
            .connect(ServerName::try_from("secure.test").unwrap(), client)
            .await;
        assert_eq!(connected.is_ok(), is_accepted, "{id}");
        drop(connected);
        tokio::time::timeout(PATIENCE, serving).await.unwrap().unwrap();
    }
    let trust = make(&sandbox).trust().unwrap();
    assert_eq!(trust.file_name, "ca-certificates.crt");
    assert!(!trust.pem.contains("PRIVATE"));
    for name in [
        "SSL_CERT_FILE",
        "NODE_EXTRA_CA_CERTS",
        "GIT_SSL_CAINFO",
        "REQUESTS_CA_BUNDLE",
    ] {
        let path = "/etc/greenroom/ca-certificates.crt".to_owned();
        assert!(trust.variables.contains(&(name.to_owned(), path)), "{name}");
    }
}
