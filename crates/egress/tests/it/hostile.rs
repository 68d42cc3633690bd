//! Clients that mean no good, in bytes of their own.

use crate::origin::{Origin, raw};
use crate::world::{PATIENCE, Proxy, assert_status, names, policy, read_all, read_until};
use greenroom_egress::EgressLimits;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;

#[tokio::test]
async fn messages_that_two_readers_could_read_differently_are_refused() {
    let origin = Origin::plain().await;
    let proxy = Proxy::allowing(&[format!("plain.test:{}", origin.port)]).await;
    let line = format!(
        "POST http://plain.test:{}/ HTTP/1.1\r\nconnection: close\r\n",
        origin.port
    );
    for headers in [
        "content-length: 5\r\ncontent-length: 6\r\n",
        "content-length: +5\r\n",
        "content-length: 5, 6\r\n",
        "content-length: -1\r\n",
        "content-length: 0x5\r\n",
        "content-length: 99999999999999999999\r\n",
        "content-length : 5\r\n",
        "transfer-encoding: xchunked\r\n",
        "transfer-encoding: chunked, identity\r\n",
        "transfer-encoding : chunked\r\n",
        " transfer-encoding: chunked\r\n",
        "x: a\r\n folded\r\n",
        "x\0y: a\r\n",
        "x: a\0b\r\n",
        ": empty\r\n",
        "no colon\r\n",
    ] {
        let response = proxy.say(format!("{line}{headers}\r\nhello")).await;
        assert_status(&response, 400);
    }
    let response = proxy
        .say(format!(
            "POST http://plain.test:{}/ HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            origin.port
        ))
        .await;
    assert!(
        response.starts_with("HTTP/1.0 400 ") || response.starts_with("HTTP/1.1 400 "),
        "{response}"
    );
    assert_eq!(origin.seen().len(), 0);
}

#[tokio::test]
async fn a_message_with_two_lengths_has_one_where_it_arrives() {
    for (headers, body) in [
        (
            "content-length: 4\r\ntransfer-encoding: chunked\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
        ),
        (
            "transfer-encoding: chunked\r\ncontent-length: 4\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
        ),
        ("content-length: 5\r\ncontent-length: 5\r\n", "hello"),
        ("content-length: 5\r\nconnection: content-length\r\n", "hello"),
        (
            "transfer-encoding: chunked\r\nconnection: transfer-encoding\r\n",
            "5;x=y\r\nhello\r\n0\r\n\r\n",
        ),
    ] {
        let (port, mut received, _serving) = raw().await;
        let proxy = Proxy::allowing(&[format!("plain.test:{port}")]).await;
        // What follows is a request of its own, and to a host that is not allowed.
        let answers = proxy
            .say(format!(
                "POST http://plain.test:{port}/ HTTP/1.1\r\n{headers}\r\n{body}\
                 GET http://hidden.test/ HTTP/1.1\r\nconnection: close\r\n\r\n"
            ))
            .await;
        assert_status(&answers, 200);
        let arrived = received.recv().await.unwrap();
        let (head, body) = arrived.split_once("\r\n\r\n").unwrap();
        let lengths = head
            .lines()
            .filter(|line| line.starts_with("content-length") || line.starts_with("transfer-encoding"))
            .count();
        assert_eq!(lengths, 1, "{headers:?} became\n{arrived}");
        assert!(
            body == "hello" || body == "5\r\nhello\r\n0\r\n\r\n",
            "{headers:?} became\n{arrived}"
        );
        assert!(!arrived.contains("hidden"), "{arrived}");
        let decisions = proxy.decisions();
        assert!(
            decisions.len() == 1 || decisions[1] == "refused not_allowed hidden.test:80",
            "{decisions:?}"
        );
    }
}

#[tokio::test]
async fn requests_that_are_none_for_a_proxy_are_refused() {
    let proxy = Proxy::allowing(&["plain.test".to_owned()]).await;
    for (request, status) in [
        ("GET / HTTP/1.1\r\nhost: plain.test\r\n", 400),
        ("OPTIONS * HTTP/1.1\r\nhost: plain.test\r\n", 400),
        ("GET https://plain.test/ HTTP/1.1\r\n", 400),
        ("GET ftp://plain.test/ HTTP/1.1\r\n", 400),
        ("GET http://plain.test@127.0.0.1/ HTTP/1.1\r\n", 400),
        ("GET http://user:password@plain.test/ HTTP/1.1\r\n", 400),
        ("GET http://plain.test:0/ HTTP/1.1\r\n", 400),
        ("GET http://plain.test:99999/ HTTP/1.1\r\n", 400),
        ("GET http://plain.test:/ HTTP/1.1\r\n", 400),
        ("GET http://1.2.3.4.5/ HTTP/1.1\r\n", 400),
        ("GET http://%70lain.test/ HTTP/1.1\r\n", 400),
        ("TRACE http://plain.test/ HTTP/1.1\r\n", 405),
        ("CONNECT plain.test HTTP/1.1\r\n", 400),
        ("CONNECT plain.test: HTTP/1.1\r\n", 400),
        ("CONNECT plain.test:0 HTTP/1.1\r\n", 400),
        ("CONNECT plain.test:70000 HTTP/1.1\r\n", 400),
        ("CONNECT user@plain.test:443 HTTP/1.1\r\n", 400),
        ("CONNECT /path HTTP/1.1\r\n", 400),
        ("CONNECT http://plain.test:443/ HTTP/1.1\r\n", 400),
        ("CONNECT plain.test:443 HTTP/1.1\r\ncontent-length: 5\r\n", 400),
        (
            "CONNECT plain.test:443 HTTP/1.1\r\ntransfer-encoding: chunked\r\n",
            400,
        ),
        ("CONNECT plain.test:22 HTTP/1.1\r\n", 403),
        ("CONNECT [::1]:443 HTTP/1.1\r\n", 403),
        ("CONNECT [::ffff:169.254.169.254]:80 HTTP/1.1\r\n", 403),
        ("CONNECT 0x7f.1:443 HTTP/1.1\r\n", 403),
        ("CONNECT 2852039166:80 HTTP/1.1\r\n", 403),
    ] {
        let response = proxy.say(format!("{request}connection: close\r\n\r\n")).await;
        assert_status(&response, status);
    }
    assert_eq!(proxy.egress.usage().allowed, 0, "{:?}", proxy.decisions());
}

#[tokio::test]
async fn what_is_no_http_ends_the_connection() {
    let proxy = Proxy::allowing(&["plain.test".to_owned()]).await;
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET http://plain.test/ HTTP/9.9\r\n\r\n",
        b"GET  http://plain.test/ HTTP/1.1\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
        b"\x05\x01\x00\r\n\r\n",
    ] {
        let response = proxy.say(bytes).await;
        assert!(
            response.is_empty() || response.starts_with("HTTP/1.1 400"),
            "{bytes:?}: {response}"
        );
    }
    assert_eq!(proxy.egress.usage().allowed, 0);
}

#[tokio::test]
async fn heads_have_an_end() {
    let proxy = Proxy::allowing(&["plain.test".to_owned()]).await;
    let long = "a".repeat(70 * 1024);
    for (request, statuses) in [
        (
            format!("GET http://plain.test/ HTTP/1.1\r\nx: {long}\r\n\r\n"),
            &["431"][..],
        ),
        (
            format!("GET http://plain.test/{long} HTTP/1.1\r\n\r\n"),
            &["414", "431"],
        ),
        (
            format!(
                "GET http://plain.test/ HTTP/1.1\r\n{}\r\n",
                "x: y\r\n".repeat(1000)
            ),
            &["431"],
        ),
        (
            format!("CONNECT {long}:443 HTTP/1.1\r\n\r\n"),
            &["414", "431", "400"],
        ),
    ] {
        let response = proxy.say(request).await;
        let status = response.get(9..12).unwrap_or_default();
        assert!(statuses.contains(&status), "{statuses:?} expected:\n{response}");
    }
    // One without end is cut off while it is sent. A reset may overtake the answer.
    let mut stream = proxy.connect_http().await;
    let _ = stream.write_all(b"GET http://plain.test/ HTTP/1.1\r\nx: ").await;
    let sending = async { while stream.write_all(&[b'a'; 4096]).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, sending)
        .await
        .expect("the proxy ends it");
    assert_eq!(proxy.egress.usage().allowed, 0);
}

#[tokio::test]
async fn slow_and_silent_clients_are_let_go() {
    let origin = Origin::plain().await;
    let limits = EgressLimits {
        head_timeout: Duration::from_millis(200),
        idle_timeout: Duration::from_millis(400),
        ..EgressLimits::default()
    };
    let policy = policy(&[format!("plain.test:{}", origin.port)]).allow_addresses(crate::world::loopback());
    let proxy = Proxy::start(policy, Vec::new(), names(), limits, Vec::new()).await;
    // A head that never ends, sent a byte at a time.
    let mut slow = proxy.connect_http().await;
    let dripping = async {
        for byte in b"GET http://plain.test/ HTTP/1.1\r\nx: "
            .iter()
            .chain([b'a'; 1 << 20].iter())
        {
            if slow.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, dripping)
        .await
        .expect("the proxy ends it");
    // Nothing at all, and half a greeting.
    assert_eq!(read_all(&mut proxy.connect_http().await).await, "");
    let mut socks = proxy.connect_socks().await;
    socks.write_all(&[5]).await.unwrap();
    assert_eq!(read_all(&mut socks).await, "");
    // A tunnel in which nobody speaks.
    let mut tunnel = proxy.connect_http().await;
    tunnel
        .write_all(format!("CONNECT plain.test:{} HTTP/1.1\r\n\r\n", origin.port).as_bytes())
        .await
        .unwrap();
    assert_status(&read_until(&mut tunnel, "\r\n\r\n").await, 200);
    assert_eq!(read_all(&mut tunnel).await, "");
}
