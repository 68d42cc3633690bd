//! The way out of a sandbox: programs inside, the proxy of `greenroom-egress` outside, and between them the guest and the
//! link.

use crate::world::{PATIENCE, World, fresh_id, sh};
use greenroom_egress::{Credential, Decision, Egress, Policy, Verdict, fake::FakeResolver};
use greenroom_host::{RouteHandler, Sandbox, SandboxFile};
use greenroom_protocol::environment::EgressPolicy;
use greenroom_protocol::guest::{GIT_PORT, Route, SOCKS_PORT};
use greenroom_stdx::secret::Secret;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

crate::scenarios_on_each_kernel!(
    nothing_is_allowed_by_default,
    an_allowed_host_is_reached_and_no_other,
    a_credential_is_used_and_never_seen,
    the_proxy_variables_leave_git_alone,
    a_full_port_refuses_and_leaves_the_others_room,
);

const SECRET: &str = "s3cr3t-value-of-the-test";

/// What the sandbox was told and what the servers were sent.
#[derive(Default)]
struct Notes {
    decisions: Mutex<Vec<Decision>>,
    heads: Mutex<Vec<String>>,
}

impl Notes {
    fn verdicts(&self) -> Vec<(String, Verdict)> {
        let decisions = self.decisions.lock().unwrap();
        decisions
            .iter()
            .map(|decision| (decision.host.clone(), decision.verdict))
            .collect()
    }
}

/// An egress for servers on loopback under names of their own.
fn egress(notes: &Arc<Notes>, allow: &[String], credentials: Vec<Credential>) -> Egress {
    let policy = EgressPolicy {
        allow: allow.to_vec(),
        ..EgressPolicy::default()
    };
    let policy = Policy::compile(&policy)
        .unwrap()
        .allow_addresses(["127.0.0.0/8".parse().unwrap()]);
    let told = Arc::clone(notes);
    let observer = Arc::new(move |decision: &Decision| told.decisions.lock().unwrap().push(decision.clone()));
    let names = FakeResolver::default()
        .answer("plain.test", &["127.0.0.1"])
        .answer("secure.test", &["127.0.0.1"]);
    Egress::new(policy, credentials, observer)
        .unwrap()
        .with_resolver(Arc::new(names))
}

fn routes(egress: Egress) -> RouteHandler {
    Arc::new(move |route, mut stream| {
        let egress = egress.clone();
        match route {
            Route::Git => {
                tokio::spawn(async move {
                    read_head(&mut stream).await;
                    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\ngit\n";
                    stream.write_all(answer.as_bytes()).await.unwrap();
                });
            }
            Route::HttpProxy => {
                tokio::spawn(async move { egress.serve_http(stream).await });
            }
            Route::Socks => {
                tokio::spawn(async move { egress.serve_socks(stream).await });
            }
        }
    })
}

async fn start(world: &World, egress: &Egress) -> Sandbox {
    let mut start = world.with_routes(&fresh_id(), routes(egress.clone()));
    if let Some(trust) = egress.trust() {
        start.env = trust.variables;
        start.files = vec![SandboxFile {
            name: trust.file_name.to_owned(),
            bytes: trust.pem.into_bytes(),
        }];
    }
    world.host.start(start).await.unwrap()
}

async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    let reading = async {
        while !bytes.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => bytes.push(byte),
                Err(_) => return,
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading)
        .await
        .expect("a head in time");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A server that answers with the head of the request.
async fn origin(notes: &Arc<Notes>, acceptor: Option<TlsAcceptor>) -> (u16, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let notes = Arc::clone(notes);
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            match &acceptor {
                None => answer(&notes, stream).await,
                Some(acceptor) => {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        answer(&notes, stream).await;
                    }
                }
            }
        }
    });
    (port, serving)
}

async fn answer(notes: &Notes, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let head = read_head(&mut stream).await;
    let response = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{head}",
        head.len()
    );
    let _ = stream.write_all(response.as_bytes()).await;
    let _ = stream.shutdown().await;
    notes.heads.lock().unwrap().push(head);
}

fn certified(name: &str) -> (CertificateDer<'static>, TlsAcceptor) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = params.self_signed(&key).unwrap().der().clone();
    let issuer = rcgen::Issuer::new(params, key);
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec![name.to_owned()])
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], PrivatePkcs8KeyDer::from(key).into())
        .unwrap();
    (root, TlsAcceptor::from(Arc::new(config)))
}

async fn nothing_is_allowed_by_default(world: &World) {
    let notes = Arc::default();
    let sandbox = start(world, &egress(&notes, &[], Vec::new())).await;
    let refused = sh(&sandbox, "curl -sS -w '%{http_code}' http://plain.test/")
        .await
        .ok();
    assert!(
        refused.ends_with("403") && refused.contains("\"code\":\"egress_refused\""),
        "{refused}"
    );
    let refused = sh(&sandbox, "curl -sSv https://plain.test/ 2>&1").await;
    assert!(
        refused
            .output
            .contains("403 egress_refused: plain.test:443 is not allowed by this environment"),
        "{refused:?}"
    );
    let refused = sh(
        &sandbox,
        &format!("curl -sS --socks5-hostname 127.0.0.1:{SOCKS_PORT} http://plain.test/"),
    )
    .await;
    assert_eq!(refused.exit.code, Some(97), "{refused:?}");
    assert_eq!(
        notes.verdicts(),
        vec![("plain.test".to_owned(), Verdict::Refused); 3]
    );
    // Nothing resolves inside, and no packet leaves: both fail by themselves and soon, without the proxy.
    for script in [
        "getent hosts plain.test",
        "python3 -c 'import socket; socket.getaddrinfo(\"plain.test\", 80)'",
        "curl --noproxy '*' -sS http://192.0.66.2/",
        "curl --noproxy '*' -sS http://169.254.169.254/latest/meta-data/",
        "curl --noproxy '*' -sS 'http://[2606:4700::1111]/'",
    ] {
        let ran = sh(&sandbox, script).await;
        assert_ne!(ran.exit.code, Some(0), "{script}: {ran:?}");
    }
    assert_eq!(notes.verdicts().len(), 3);
}

async fn an_allowed_host_is_reached_and_no_other(world: &World) {
    let notes = Arc::default();
    let (port, _serving) = origin(&notes, None).await;
    let sandbox = start(
        world,
        &egress(&notes, &[format!("plain.test:{port}")], Vec::new()),
    )
    .await;
    let url = format!("http://plain.test:{port}");
    for script in [
        format!("curl -sS {url}/by-request"),
        format!("curl -sS --proxytunnel {url}/by-tunnel"),
        format!("curl -sS --socks5-hostname 127.0.0.1:{SOCKS_PORT} {url}/by-socks"),
        format!(
            "python3 -c 'import urllib.request as u; print(u.urlopen(\"{url}/by-python\").read().decode())'"
        ),
    ] {
        let path = script.split("/by-").nth(1).unwrap();
        let path = path.split('"').next().unwrap();
        let output = sh(&sandbox, &script).await.ok();
        assert!(
            output.starts_with(&format!("GET /by-{path} HTTP/1.1\r\n")),
            "{output}"
        );
    }
    for (script, expected) in [
        (
            format!("curl -sS --noproxy '' http://127.0.0.1:{port}/"),
            "not_allowed",
        ),
        (
            format!("curl -sS --noproxy '' http://0x7f.1:{port}/"),
            "not_allowed",
        ),
        ("curl -sS http://169.254.169.254/".to_owned(), "not_allowed"),
        (format!("curl -sS http://other.test:{port}/"), "not_allowed"),
        ("curl -sS http://plain.test/".to_owned(), "not_allowed"),
    ] {
        let output = sh(&sandbox, &script).await.output;
        assert!(
            output.contains(&format!("\"reason\":\"{expected}\"")),
            "{script}: {output}"
        );
    }
    assert_eq!(notes.heads.lock().unwrap().len(), 4);
}

async fn a_credential_is_used_and_never_seen(world: &World) {
    let notes: Arc<Notes> = Arc::default();
    let (root, acceptor) = certified("secure.test");
    let (port, _serving) = origin(&notes, Some(acceptor)).await;
    let credential = Credential::new(
        "secure.test",
        "authorization",
        Secret::new(SECRET),
        Some("Bearer {secret}"),
    )
    .unwrap()
    .on_port(port);
    let egress = egress(&notes, &[format!("secure.test:{port}")], vec![credential])
        .with_roots(vec![root])
        .unwrap();
    let sandbox = start(world, &egress).await;
    let url = format!("https://secure.test:{port}/");
    let scripts = [
        format!("curl -sSi -H 'Authorization: mine' {url}"),
        format!("curl -sSi --socks5-hostname 127.0.0.1:{SOCKS_PORT} {url}"),
        format!("python3 -c 'import urllib.request as u; print(u.urlopen(\"{url}\").read().decode())'"),
        format!("git ls-remote {url}repository.git; true"),
    ];
    for script in &scripts {
        let output = sh(&sandbox, script).await.ok();
        assert!(!output.contains(SECRET), "{script}: {output}");
        assert!(
            output.to_lowercase().contains("authorization: bearer ***") || script.starts_with("git"),
            "{script}: {output}"
        );
    }
    let heads = notes.heads.lock().unwrap().clone();
    assert!(heads.len() >= scripts.len(), "{heads:?}");
    for head in heads {
        assert!(
            head.contains(&format!("authorization: Bearer {SECRET}\r\n")),
            "{head}"
        );
        assert!(!head.contains("mine"), "{head}");
    }
    // Nowhere that a process of the sandbox can read, and no private key either.
    let found = sh(
        &sandbox,
        "grep -rlsa -e \"$(printf 's3cr3t-value-%s' of-the-test)\" -e 'PRIVATE KEY' \
         /etc /home /tmp /workspace /run /var /proc/*/environ; env",
    )
    .await
    .output;
    assert!(!found.contains(SECRET), "{found}");
    let listed: Vec<&str> = found.lines().filter(|line| line.starts_with('/')).collect();
    assert_eq!(listed, Vec::<&str>::new());
    assert!(
        found.contains("SSL_CERT_FILE=/etc/greenroom/ca-certificates.crt"),
        "{found}"
    );
}

async fn the_proxy_variables_leave_git_alone(world: &World) {
    let notes: Arc<Notes> = Arc::default();
    let sandbox = start(world, &egress(&notes, &[], Vec::new())).await;
    let env = sh(&sandbox, "env").await.ok();
    for name in [
        "http_proxy",
        "https_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
    ] {
        assert!(env.contains(&format!("{name}=http://127.0.0.1:7419\n")), "{env}");
    }
    let url = format!("http://127.0.0.1:{GIT_PORT}/x");
    for script in [
        format!("curl -sS {url}"),
        format!(
            "python3 -c 'import urllib.request as u; print(u.urlopen(\"{url}\").read().decode(), end=\"\")'"
        ),
    ] {
        assert_eq!(sh(&sandbox, &script).await.ok(), "git\n", "{script}");
    }
    // git comes to the same place: what answers there is no repository.
    let ran = sh(&sandbox, &format!("git ls-remote {url}.git")).await;
    assert!(
        ran.output.contains("not valid: is this a git repository?"),
        "{ran:?}"
    );
    assert_eq!(notes.verdicts(), Vec::new());
}

async fn a_full_port_refuses_and_leaves_the_others_room(world: &World) {
    let notes: Arc<Notes> = Arc::default();
    let sandbox = start(world, &egress(&notes, &[], Vec::new())).await;
    let script = format!(
        "python3 - <<'EOF'\n\
         import socket, urllib.request\n\
         def open_one():\n \
         s = socket.create_connection(('127.0.0.1', {SOCKS_PORT}))\n \
         s.sendall(bytes([5, 1, 0]))\n \
         return s\n\
         held = [open_one() for _ in range(64)]\n\
         print(all(s.recv(2) == bytes([5, 0]) for s in held))\n\
         try: print(open_one().recv(2))\n\
         except ConnectionError: print('refused')\n\
         print(urllib.request.urlopen('http://127.0.0.1:{GIT_PORT}/x').read().decode().strip())\n\
         EOF"
    );
    assert_eq!(sh(&sandbox, &script).await.ok(), "True\nrefused\ngit\n");
}
