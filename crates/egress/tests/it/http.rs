//! Plain requests and tunnels that are what they should be.

use crate::origin::Origin;
use crate::world::{Proxy, assert_status, names, policy, read_all, read_until};
use greenroom_egress::{EgressLimits, Protocol};
use tokio::io::AsyncWriteExt as _;

#[tokio::test]
async fn nothing_is_allowed_by_default() {
    let proxy = Proxy::allowing(&[]).await;
    let response = proxy.get("http://plain.test/").await;
    assert_status(&response, 403);
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with("HTTP/1.1 403 egress_refused: plain.test:80 is not allowed by this environment\r\n"),
        "{head}"
    );
    assert!(head.contains("content-type: application/problem+json"), "{head}");
    assert!(
        head.contains("proxy-status: greenroom; error=http_request_denied"),
        "{head}"
    );
    let problem: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(problem["code"], "egress_refused");
    assert_eq!(problem["reason"], "not_allowed");
    assert!(
        problem["hint"].as_str().unwrap().contains("\"plain.test:80\""),
        "{body}"
    );
    let refused = proxy
        .say("CONNECT secure.test:443 HTTP/1.1\r\nhost: secure.test:443\r\nconnection: close\r\n\r\n")
        .await;
    assert_status(&refused, 403);
    assert_eq!(
        proxy.decisions(),
        [
            "refused not_allowed plain.test:80",
            "refused not_allowed secure.test:443"
        ]
    );
    let usage = proxy.egress.usage();
    assert_eq!((usage.connections, usage.refused, usage.allowed), (2, 2, 0));
    assert!(usage.bytes_out > 0 && usage.bytes_in > 0);
    assert_eq!(proxy.egress.trust(), None);
}

#[tokio::test]
async fn an_allowed_request_arrives_without_what_was_meant_for_the_proxy() {
    let origin = Origin::plain().await;
    let proxy = Proxy::allowing(&[format!("plain.test:{}", origin.port)]).await;
    let response = proxy
        .say(format!(
            "POST http://plain.test:{}/echo?a=b HTTP/1.1\r\nhost: other.test\r\nproxy-authorization: Basic x\r\n\
             connection: close, x-hop\r\nx-hop: 1\r\nx-end: 2\r\ncontent-length: 5\r\n\r\nhello",
            origin.port
        ))
        .await;
    assert_status(&response, 200);
    assert!(response.ends_with("POST /echo?a=b hello\n"), "{response}");
    let seen = &origin.seen()[0];
    assert_eq!(seen.all("host"), [format!("plain.test:{}", origin.port)]);
    assert_eq!(seen.all("x-end"), ["2"]);
    assert_eq!(seen.all("content-length"), ["5"]);
    for name in ["x-hop", "proxy-authorization", "connection"] {
        assert_eq!(seen.all(name), Vec::<&str>::new(), "{name}");
    }
    let decision = proxy.last_decision();
    assert_eq!(decision.protocol, Protocol::Http);
    assert_eq!(decision.address, Some("127.0.0.1".parse().unwrap()));
    assert!(!decision.has_credential);
    assert_eq!(
        decision.to_string(),
        format!(
            "plain.test:{0} is allowed by the rule plain.test:{0}",
            origin.port
        )
    );
}

#[tokio::test]
async fn each_request_of_a_connection_is_decided_by_itself() {
    let (first, second) = (Origin::plain().await, Origin::plain().await);
    let proxy = Proxy::allowing(&[
        format!("plain.test:{}", first.port),
        format!("*.wild.test:{}", second.port),
    ])
    .await;
    let mut stream = proxy.connect_http().await;
    for (url, status) in [
        (format!("http://plain.test:{}/1", first.port), 200),
        (format!("http://plain.test:{}/2", first.port), 200),
        (format!("http://a.wild.test:{}/3", second.port), 200),
        (format!("http://wild.test:{}/4", second.port), 403),
        (format!("http://plain.test:{}/5", second.port), 403),
        (format!("http://plain.test:{}/6", first.port), 200),
    ] {
        let request = format!("GET {url} HTTP/1.1\r\nhost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let response = read_until(&mut stream, "\n").await;
        assert_status(&response, status);
        let rest = read_until(&mut stream, "\r\n\r\n").await;
        let length = rest
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        tokio::io::AsyncReadExt::read_exact(&mut stream, &mut body)
            .await
            .unwrap();
    }
    let lines = |origin: &Origin| {
        origin
            .seen()
            .into_iter()
            .map(|seen| seen.line)
            .collect::<Vec<_>>()
    };
    assert_eq!(lines(&first), ["GET /1", "GET /2", "GET /6"]);
    assert_eq!(lines(&second), ["GET /3"]);
    assert_eq!(proxy.decisions().len(), 6, "{:?}", proxy.decisions());
}

#[tokio::test]
async fn a_tunnel_carries_bytes_both_ways() {
    let origin = Origin::plain().await;
    let proxy = Proxy::allowing(&[format!("plain.test:{}", origin.port)]).await;
    let mut stream = proxy.connect_http().await;
    // What follows the head at once belongs to the tunnel.
    stream
        .write_all(
            format!(
                "CONNECT plain.test:{} HTTP/1.1\r\n\r\nGET /inside HTTP/1.1\r\nhost: anything\r\nconnection: close\r\n\r\n",
                origin.port
            )
            .as_bytes(),
        )
        .await
        .unwrap();
    let response = read_all(&mut stream).await;
    assert_status(&response, 200);
    assert!(response.ends_with("GET /inside \n"), "{response}");
    assert_eq!(origin.seen()[0].all("host"), ["anything"]);
    assert_eq!(proxy.last_decision().protocol, Protocol::Connect);
}

#[tokio::test]
async fn responses_stream_and_lose_what_was_meant_for_the_proxy() {
    let origin = Origin::plain().await;
    let proxy = Proxy::allowing(&[format!("plain.test:{}", origin.port)]).await;
    let mut stream = proxy.connect_http().await;
    stream
        .write_all(format!("GET http://plain.test:{}/stream HTTP/1.1\r\n\r\n", origin.port).as_bytes())
        .await
        .unwrap();
    let first = read_until(&mut stream, "first\n").await;
    assert_status(&first, 200);
    // The second piece exists only after the first has been seen.
    origin.go_on();
    read_until(&mut stream, "second\n").await;
    let response = proxy
        .get(&format!("http://plain.test:{}/private-header", origin.port))
        .await;
    assert!(response.contains("x-end: 2"), "{response}");
    assert!(
        !response.contains("x-hop") && !response.contains("proxy-authenticate"),
        "{response}"
    );
}

#[tokio::test]
async fn a_web_socket_goes_through() {
    let origin = Origin::plain().await;
    let proxy = Proxy::allowing(&[format!("plain.test:{}", origin.port)]).await;
    let mut stream = proxy.connect_http().await;
    stream
        .write_all(
            format!(
                "GET http://plain.test:{}/web-socket HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
                origin.port
            )
            .as_bytes(),
        )
        .await
        .unwrap();
    let head = read_until(&mut stream, "\r\n\r\n").await;
    assert_status(&head, 101);
    stream.write_all(b"over and").await.unwrap();
    read_until(&mut stream, "over and").await;
    stream.shutdown().await.unwrap();
    read_all(&mut stream).await;
}

#[tokio::test]
async fn what_cannot_be_reached_is_said_so_at_once() {
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = free.local_addr().unwrap().port();
    drop(free);
    let origin = Origin::plain().await;
    let proxy = Proxy::allowing(&[
        format!("plain.test:{closed}"),
        format!("plain.test:{}", origin.port),
        "unknown.test".to_owned(),
    ])
    .await;
    for (url, status, reason) in [
        (format!("http://plain.test:{closed}/"), 502, "connection_refused"),
        ("http://unknown.test/".to_owned(), 502, "name_unknown"),
        (format!("http://plain.test:{}/close", origin.port), 502, "broken"),
    ] {
        let response = proxy.get(&url).await;
        assert_status(&response, status);
        assert!(
            response.contains(&format!("\"reason\":\"{reason}\"")),
            "{response}"
        );
    }
    assert_eq!(
        proxy.decisions(),
        [
            format!("failed connection_refused plain.test:{closed}"),
            "failed name_unknown unknown.test:80".to_owned(),
            format!("allowed rule plain.test:{}", origin.port),
        ]
    );
}

#[tokio::test]
async fn one_connection_too_many_is_answered_without_waiting() {
    let limits = EgressLimits {
        max_connections: 1,
        ..EgressLimits::default()
    };
    let proxy = Proxy::start(policy(&[]), Vec::new(), names(), limits, Vec::new()).await;
    let mut first = proxy.connect_http().await;
    first
        .write_all(b"GET http://x.test/ HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    assert_status(&read_until(&mut first, "\r\n\r\n").await, 403);
    let mut second = proxy.connect_http().await;
    let answer = read_all(&mut second).await;
    assert_status(&answer, 503);
    assert!(answer.ends_with("\"retryable\":true}\n"), "{answer}");
    assert_eq!(read_all(&mut proxy.connect_socks().await).await, "");
    // Once the first has ended there is room again.
    first.shutdown().await.unwrap();
    read_all(&mut first).await;
    let deadline = tokio::time::Instant::now() + crate::world::PATIENCE;
    while proxy.get("http://x.test/").await.starts_with("HTTP/1.1 503") {
        assert!(tokio::time::Instant::now() < deadline);
    }
}

#[tokio::test]
async fn a_client_that_asks_first_whether_to_go_on_is_answered() {
    let origin = Origin::plain().await;
    let proxy = Proxy::allowing(&[format!("plain.test:{}", origin.port)]).await;
    let mut stream = proxy.connect_http().await;
    let head = format!(
        "PUT http://plain.test:{}/big HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 5\r\nconnection: close\r\n\r\n",
        origin.port
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    assert_status(&read_until(&mut stream, "\r\n\r\n").await, 100);
    stream.write_all(b"hello").await.unwrap();
    assert!(read_all(&mut stream).await.ends_with("PUT /big hello\n"));
}
