//! The SOCKS proxy.

use crate::origin::Origin;
use crate::world::{PATIENCE, Proxy, read_all};
use greenroom_egress::Protocol;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Greets and asks; returns the reply code and the stream.
async fn ask(proxy: &Proxy, kind: u8, address: &[u8], port: u16) -> (u8, TcpStream) {
    let mut stream = proxy.connect_socks().await;
    let mut bytes = vec![5, 1, 0, 5, 1, 0, kind];
    if kind == 3 {
        bytes.push(u8::try_from(address.len()).unwrap());
    }
    bytes.extend(address);
    bytes.extend(port.to_be_bytes());
    stream.write_all(&bytes).await.unwrap();
    let mut answer = [0; 12];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut answer))
        .await
        .expect("an answer in time")
        .unwrap();
    assert_eq!(answer[..3], [5, 0, 5]);
    (answer[3], stream)
}

#[tokio::test]
async fn replies_say_what_happened() {
    let origin = Origin::plain().await;
    let closed = {
        let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        free.local_addr().unwrap().port()
    };
    let proxy = Proxy::allowing(&[
        format!("plain.test:{}", origin.port),
        format!("plain.test:{closed}"),
        format!("127.0.0.1:{}", origin.port),
        "unknown.test:1".to_owned(),
        "169.254.169.254:80".to_owned(),
        "[::1]:1".to_owned(),
    ])
    .await;
    let own = &[127, 0, 0, 1][..];
    let mut six = [0; 16];
    six[15] = 1;
    // Without IPv6 on this machine there is no way there.
    let has_six = std::net::TcpListener::bind("[::1]:0").is_ok();
    let mut mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 127, 0, 0, 1];
    for (kind, address, port, expected) in [
        (3, &b"plain.test"[..], origin.port, 0),
        (3, b"PLAIN.test.", origin.port, 0),
        (1, own, origin.port, 0),
        (4, &mapped.clone(), origin.port, 0),
        (3, b"127.0.0.1", origin.port, 0),
        (3, b"0x7f.1", origin.port, 0),
        (3, b"other.test", origin.port, 2),
        (1, own, closed, 2),
        (1, &[169, 254, 169, 254], 80, 2),
        (3, b"2852039166", 80, 2),
        (3, b"plain.test", closed, 5),
        (4, &six, 1, if has_six { 5 } else { 3 }),
        (3, b"unknown.test", 1, 4),
        (3, b"", 80, 1),
        (3, b"plain.test", 0, 1),
        (3, b"plain.test\0.evil.test", origin.port, 1),
        (3, b"\xff\xfe", 80, 1),
    ] {
        let (code, _) = ask(&proxy, kind, address, port).await;
        assert_eq!(
            code,
            expected,
            "{kind} {} {port}",
            String::from_utf8_lossy(address)
        );
    }
    mapped[15] = 2;
    assert_eq!(ask(&proxy, 4, &mapped, origin.port).await.0, 2);
    assert_eq!(proxy.last_decision().protocol, Protocol::Socks);
    assert_eq!(proxy.last_decision().host, "127.0.0.2");
}

#[tokio::test]
async fn an_allowed_connection_carries_bytes() {
    let origin = Origin::plain().await;
    let proxy = Proxy::allowing(&[format!("plain.test:{}", origin.port)]).await;
    let (code, mut stream) = ask(&proxy, 3, b"plain.test", origin.port).await;
    assert_eq!(code, 0);
    stream
        .write_all(b"GET /by-socks HTTP/1.1\r\nhost: plain.test\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    assert!(read_all(&mut stream).await.ends_with("GET /by-socks \n"));
}
