//! Sandboxes reach what their environment allows and nothing else; people see both; secrets stay outside.

use crate::script::{add, commands, outputs};
use greenroom_system_tests::api::{Api, of_type, pretty};
use greenroom_system_tests::product::{Product, Who};
use greenroom_system_tests::repo;
use reqwest::Method;
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};

greenroom_system_tests::for_both_users! {
    what_is_allowed_connects_what_is_not_is_refused_and_both_are_told_once,
    a_credential_is_added_outside_and_never_seen_inside,
    a_sandbox_that_outlives_its_server_keeps_its_way_out,
}

const SECRET: &str = "sk-never-to-be-seen-4711";

async fn add_shop(product: &Product, api: &Api) {
    let source = repo::with_files(product.root(), "shop", &[("README.md", "A shop.\n")]);
    add(api, "shop", &source).await;
}

async fn set_environment(api: &Api, environment: Value) {
    let request = api.request(Method::PUT, "/v1/repositories/shop/environment");
    let (status, answer) = api.send(request.json(&environment)).await;
    assert_eq!(status, 200, "{answer}");
}

/// A web server on loopback that answers every request with the same, and remembers what came.
struct Upstream {
    port: u16,
    seen: Arc<Mutex<Vec<String>>>,
}

fn upstream() -> Upstream {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let port = listener.local_addr().expect("an address").port();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let requests = seen.clone();
    // Ends with the test's process.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let mut head = vec![0; 4096];
            let read = stream.read(&mut head).unwrap_or(0);
            requests
                .lock()
                .expect("no panic")
                .push(String::from_utf8_lossy(&head[..read]).into_owned());
            let _ =
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nserved");
        }
    });
    Upstream { port, seen }
}

async fn what_is_allowed_connects_what_is_not_is_refused_and_both_are_told_once(who: Who) {
    let upstream = upstream();
    let curl = format!(
        "for i in 1 2 3; do curl -sS -m 20 --noproxy '' http://localhost:{}/; echo; done; \
         for i in 1 2 3 4; do curl -sS -m 20 https://refused.example/ || true; done; \
         curl -s -o /dev/null -w '%{{http_code}}' -m 20 http://169.254.169.254/latest/ || true; \
         curl -sS -m 5 --noproxy '*' http://1.1.1.1/ && echo LEAK; true",
        upstream.port
    );
    let mut product = Product::with_config(
        &commands(&[("connect", &curl)]),
        "\n[egress]\nallow_addresses = [\"127.0.0.0/8\", \"::1\"]\n",
    );
    product.run_as(who);
    let api = product.start().await;
    add_shop(&product, &api).await;
    let allow = [
        format!("localhost:{}", upstream.port),
        "169.254.169.254".to_owned(),
    ];
    set_environment(&api, json!({ "egress": { "allow": allow } })).await;
    let session = api.start_session("shop", "connect").await;
    let events = api.wait_for_turns(&session, 1).await;
    let output = outputs(&events).concat();
    assert_eq!(output.matches("served").count(), 3, "{output}");
    assert!(!output.contains("LEAK"), "{output}");
    assert_eq!(upstream.seen.lock().unwrap().len(), 3);

    let decided = of_type(&events, "egress.decided");
    let of = |host: &str| -> Vec<(String, u64)> {
        let of_host = decided.iter().filter(|event| event["host"] == host);
        of_host
            .map(|event| {
                (
                    event["verdict"].as_str().unwrap().to_owned(),
                    event["count"].as_u64().unwrap(),
                )
            })
            .collect()
    };
    assert_eq!(
        of("localhost"),
        [("allowed".into(), 1), ("allowed".into(), 3)],
        "{}",
        pretty(&events)
    );
    assert_eq!(
        of("refused.example"),
        [("refused".into(), 1), ("refused".into(), 4)]
    );
    assert_eq!(
        of("169.254.169.254"),
        [("refused".into(), 1)],
        "metadata is refused though a rule names it"
    );
    let refused = decided
        .iter()
        .find(|event| event["host"] == "refused.example")
        .unwrap();
    assert_eq!(refused["code"], "not_allowed");
    assert!(
        refused["hint"].as_str().unwrap().contains("`refused.example`"),
        "{refused}"
    );
    assert_eq!(refused["turn_id"], of_type(&events, "turn.started")[0]["turn_id"]);

    let metrics = api.text("/metrics").await;
    assert!(
        metrics.contains("greenroom_egress_decisions_total{verdict=\"refused\",reason=\"not_allowed\",protocol=\"connect\"} 4"),
        "{metrics}"
    );
    product.stop();
}

async fn a_sandbox_that_outlives_its_server_keeps_its_way_out(who: Who) {
    let upstream = upstream();
    let once = format!("curl -sS -m 20 --noproxy '' http://localhost:{}/", upstream.port);
    let script = format!(
        "[[script]]\nname = \"loop\"\nprompt_contains = \"loop\"\n[[script.step]]\n[[script.step.call]]\ntool = \"bash\"\n\
         arguments = {{ command = \"while sleep 0.1; do {once}; done\", background = true }}\n[[script.step]]\nsay = \"It runs.\"\n\n{}",
        commands(&[("once", &format!("{once} || true"))])
    );
    let mut product = Product::with_config(
        &script,
        "\n[egress]\nallow_addresses = [\"127.0.0.0/8\", \"::1\"]\n",
    );
    product.run_as(who);
    let mut api = product.start().await;
    add_shop(&product, &api).await;
    let allow = [format!("localhost:{}", upstream.port)];
    set_environment(&api, json!({ "egress": { "allow": allow } })).await;
    let session = api.start_session("shop", "loop").await;
    api.wait_for_turns(&session, 1).await;
    let seen = || upstream.seen.lock().unwrap().len();
    for round in 0..3 {
        let before = seen();
        let deadline = std::time::Instant::now() + greenroom_system_tests::product::DEADLINE;
        // One may have been on its way.
        while seen() < before + 3 {
            assert!(
                std::time::Instant::now() < deadline,
                "no way out in round {round}"
            );
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        if round == 1 {
            // Counts for sandboxes that start from now on.
            set_environment(&api, json!({ "egress": { "allow": [] } })).await;
        }
        product.kill();
        api = product.start().await;
    }
    assert_eq!(api.prompt(&session, "again", "once").await.0, 202);
    let events = api.wait_for_turns(&session, 2).await;
    assert!(
        outputs(&events).concat().ends_with("served\n[exit code 0]"),
        "{}",
        pretty(&events)
    );
    let other = api.start_session("shop", "once").await;
    let events = api.wait_for_turns(&other, 1).await;
    assert!(
        !outputs(&events).concat().contains("served"),
        "{}",
        pretty(&events)
    );
    product.stop();
}

/// Runs openssl in `directory`.
fn openssl(directory: &Path, arguments: &[&str]) {
    let output = Command::new("openssl")
        .args(arguments)
        .current_dir(directory)
        .output()
        .expect("run openssl");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// An HTTPS server on port 443 of loopback that answers with the headers it got. `None` if this user may not have the port.
fn https_upstream(directory: &Path) -> Option<Ended> {
    let turn = await_turn();
    if let Err(error) = TcpListener::bind("127.0.0.1:443") {
        eprintln!("SKIPPED-FEATURE: a credential end to end needs port 443 of loopback: {error}");
        return None;
    }
    openssl(
        directory,
        &[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
            "-days",
            "2",
            "-subj",
            "/CN=Test authority",
        ],
    );
    openssl(
        directory,
        &[
            "req",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            "leaf.key",
            "-out",
            "leaf.csr",
            "-subj",
            "/CN=localhost",
        ],
    );
    std::fs::write(
        directory.join("leaf.ext"),
        "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n",
    )
    .unwrap();
    openssl(
        directory,
        &[
            "x509",
            "-req",
            "-in",
            "leaf.csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            "leaf.ext",
            "-out",
            "leaf.pem",
        ],
    );
    let server = r#"
import http.server, ssl
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        value = self.headers.get("Authorization", "none")
        open("seen.txt", "a").write(value + "\n")
        body = ("you sent " + value).encode()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 443), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); context.load_cert_chain("leaf.pem", "leaf.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"#;
    let child = Ended {
        _turn: turn,
        server: Command::new("python3")
            .args(["-c", server])
            .current_dir(directory)
            .spawn()
            .expect("start python3"),
    };
    let deadline = std::time::Instant::now() + greenroom_system_tests::product::DEADLINE;
    while std::net::TcpStream::connect("127.0.0.1:443").is_err() {
        assert!(
            std::time::Instant::now() < deadline,
            "the upstream does not listen"
        );
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    Some(child)
}

/// Waits until no other test has the port: there is one of it on a machine.
fn await_turn() -> UnixListener {
    let name = SocketAddr::from_abstract_name("greenroom-test-port-443").expect("a short name");
    let deadline = std::time::Instant::now() + greenroom_system_tests::product::DEADLINE;
    loop {
        match UnixListener::bind_addr(&name) {
            Ok(turn) => return turn,
            Err(error) => assert!(
                std::time::Instant::now() < deadline,
                "port 443 stays taken: {error}"
            ),
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// A process that ends with its test, however that goes.
struct Ended {
    server: Child,
    // Let go of when the process has ended.
    _turn: UnixListener,
}

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

async fn a_credential_is_added_outside_and_never_seen_inside(who: Who) {
    let curl = "curl -sS -m 20 --noproxy '' https://localhost/v1; echo; env; cat /etc/greenroom/* | tail -n 3; echo end";
    let mut product = Product::with_config(
        &commands(&[("call", curl)]),
        "\n[egress]\nallow_addresses = [\"127.0.0.0/8\", \"::1\"]\nca_file = \"ca.pem\"\n",
    );
    product.run_as(who);
    let Some(upstream) = https_upstream(product.root()) else {
        return;
    };
    let api = product.start().await;
    add_shop(&product, &api).await;
    let credential = json!({ "host": "localhost", "header": "authorization", "secret": "api", "format": "Bearer {secret}" });
    set_environment(&api, json!({ "egress": { "credentials": [credential] } })).await;

    // Nothing is sent in nobody's name while the secret is missing.
    let session = api.start_session("shop", "call").await;
    let events = api.wait_for_turns(&session, 1).await;
    let refused = of_type(&events, "egress.decided");
    assert_eq!(refused[0]["verdict"], "refused", "{}", pretty(&events));
    assert!(
        refused[0]["hint"]
            .as_str()
            .unwrap()
            .contains("greenroom secret set api"),
        "{}",
        refused[0]
    );

    let request = api
        .request(Method::PUT, "/v1/secrets/api")
        .json(&json!({ "value": SECRET }));
    assert_eq!(api.send(request).await.0, 204);
    assert_eq!(api.prompt(&session, "again", "call").await.0, 202);
    let events = api.wait_for_turns(&session, 2).await;
    let decided = of_type(&events, "egress.decided");
    assert_eq!(
        decided.last().unwrap()["verdict"],
        "allowed_with_credential",
        "{}",
        pretty(&events)
    );
    let output = outputs(&events).concat();
    let seen = std::fs::read_to_string(product.root().join("seen.txt")).unwrap_or_default();
    assert_eq!(
        seen,
        format!("Bearer {SECRET}\n"),
        "the other side got it, once: {output}"
    );
    assert!(
        output.contains("you sent Bearer ****"),
        "an echo is masked: {output}"
    );
    assert!(output.contains("END CERTIFICATE"), "{output}");

    // Nowhere in what people and programs can read.
    assert!(!pretty(&events).contains(SECRET));
    for path in ["/v1/repositories/shop/environment", "/v1/secrets", "/metrics"] {
        let text = api.text(path).await;
        assert!(!text.contains(SECRET), "{path}");
    }
    product.stop();
    for (path, bytes) in product.all_files() {
        let found = bytes
            .windows(SECRET.len())
            .any(|window| window == SECRET.as_bytes());
        assert!(!found, "{}", path.display());
    }
    drop(upstream);
}
