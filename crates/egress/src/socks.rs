//! The SOCKS5 proxy (RFC 1928): no authentication, CONNECT only. The parser takes whole messages and reads no byte too many.

use crate::decision::{Protocol, Reason};
use crate::egress::Inner;
use crate::policy::name::{Host, Target, plain};
use crate::tunnel;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const NO_METHOD: u8 = 0xff;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// Replies (RFC 1928, 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Reply {
    Succeeded = 0,
    GeneralFailure = 1,
    NotAllowed = 2,
    NetworkUnreachable = 3,
    HostUnreachable = 4,
    ConnectionRefused = 5,
    TimedOut = 6,
    CommandNotSupported = 7,
    AddressTypeNotSupported = 8,
}

impl Reply {
    fn of(reason: &Reason) -> Self {
        match reason {
            Reason::Rule(_) => Self::Succeeded,
            Reason::NotAllowed | Reason::Address(_) => Self::NotAllowed,
            Reason::HostInvalid => Self::GeneralFailure,
            Reason::NameUnknown | Reason::NameTimeout => Self::HostUnreachable,
            Reason::ConnectionRefused => Self::ConnectionRefused,
            Reason::ConnectionTimeout => Self::TimedOut,
            Reason::Unreachable => Self::NetworkUnreachable,
        }
    }

    /// Says nothing about the address that the proxy uses.
    fn bytes(self) -> [u8; 10] {
        [VERSION, self as u8, 0, IPV4, 0, 0, 0, 0, 0, 0]
    }
}

/// What a client asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Asked {
    /// Host as it was sent, and port.
    Connect(Vec<u8>, u16),
    ConnectAddress(IpAddr, u16),
    Refused(Reply),
}

/// Serves one connection to its end.
pub(crate) async fn serve<S>(inner: Arc<Inner>, mut stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let asked = match tokio::time::timeout(inner.limits.head_timeout, negotiate(&mut stream)).await {
        Ok(Ok(asked)) => asked,
        // Not SOCKS5, cut short, or too slow: nothing that could be answered.
        Ok(Err(_)) | Err(_) => return,
    };
    let target = match asked {
        Asked::Refused(reply) => return end(&mut stream, reply).await,
        Asked::ConnectAddress(address, port @ 1..) => Target {
            host: Host::Address(plain(address)),
            port,
        },
        Asked::ConnectAddress(address, 0) => {
            inner.refuse_invalid(&address.to_string(), 0, Protocol::Socks);
            return end(&mut stream, Reply::GeneralFailure).await;
        }
        Asked::Connect(name, port) => {
            let text = String::from_utf8_lossy(&name);
            match Target::new(&text, port) {
                Ok(target) => target,
                Err(_) => {
                    let decision = inner.refuse_invalid(&text, port, Protocol::Socks);
                    return end(&mut stream, Reply::of(&decision.reason)).await;
                }
            }
        }
    };
    match inner.dial(&target, Protocol::Socks).await {
        Ok(dialed) => {
            if stream.write_all(&Reply::Succeeded.bytes()).await.is_ok() {
                tunnel::run(inner, target, Protocol::Socks, stream, dialed).await;
            }
        }
        Err(decision) => end(&mut stream, Reply::of(&decision.reason)).await,
    }
}

async fn end<S: AsyncWrite + Unpin>(stream: &mut S, reply: Reply) {
    if stream.write_all(&reply.bytes()).await.is_ok() {
        let _ = stream.shutdown().await;
    }
}

/// Greeting, choice of method, request.
async fn negotiate<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> io::Result<Asked> {
    let [version, count] = take(stream).await?;
    if version != VERSION {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut methods = vec![0; count.into()];
    stream.read_exact(&mut methods).await?;
    if !methods.contains(&NO_AUTHENTICATION) {
        stream.write_all(&[VERSION, NO_METHOD]).await?;
        stream.shutdown().await?;
        return Err(io::ErrorKind::Unsupported.into());
    }
    stream.write_all(&[VERSION, NO_AUTHENTICATION]).await?;
    let [version, command, _reserved, kind] = take(stream).await?;
    if version != VERSION {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // The rest is read even for what is refused, so that the reply is not lost to a reset.
    let asked = match kind {
        IPV4 => {
            let address = Ipv4Addr::from(take::<4, _>(stream).await?);
            Asked::ConnectAddress(address.into(), take_port(stream).await?)
        }
        IPV6 => {
            let address = Ipv6Addr::from(take::<16, _>(stream).await?);
            Asked::ConnectAddress(address.into(), take_port(stream).await?)
        }
        NAME => {
            let [len] = take(stream).await?;
            let mut name = vec![0; len.into()];
            stream.read_exact(&mut name).await?;
            Asked::Connect(name, take_port(stream).await?)
        }
        _ => return Ok(Asked::Refused(Reply::AddressTypeNotSupported)),
    };
    Ok(match command {
        CONNECT => asked,
        _ => Asked::Refused(Reply::CommandNotSupported),
    })
}

async fn take<const N: usize, S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

async fn take_port<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<u16> {
    Ok(u16::from_be_bytes(take(stream).await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is answered to bytes, what was asked, and how many bytes were left alone.
    async fn check(sent: &[u8]) -> (Vec<u8>, Option<Asked>, usize) {
        let (mut client, mut server) = tokio::io::duplex(1024);
        client.write_all(sent).await.unwrap();
        client.shutdown().await.unwrap();
        let asked = negotiate(&mut server).await.ok();
        let mut left = Vec::new();
        server.read_to_end(&mut left).await.unwrap();
        drop(server);
        let mut answered = Vec::new();
        client.read_to_end(&mut answered).await.unwrap();
        (answered, asked, left.len())
    }

    #[tokio::test]
    async fn requests_are_read_to_their_last_byte() {
        let name = |text: &str, port: u16| {
            let mut bytes = vec![5, 1, 0, 5, 1, 0, 3, text.len() as u8];
            bytes.extend(text.as_bytes());
            bytes.extend(port.to_be_bytes());
            bytes
        };
        let mut long = vec![5, 1, 0, 5, 1, 0, 3, 255];
        long.extend([b'a'; 255]);
        long.extend([0, 80]);
        for (sent, answered, asked, left) in [
            (
                name("example.com", 443),
                &[5, 0][..],
                Some(Asked::Connect(b"example.com".to_vec(), 443)),
                0,
            ),
            (
                [name("example.com", 443), b"hello".to_vec()].concat(),
                &[5, 0],
                Some(Asked::Connect(b"example.com".to_vec(), 443)),
                5,
            ),
            (long, &[5, 0], Some(Asked::Connect(vec![b'a'; 255], 80)), 0),
            (name("", 1), &[5, 0], Some(Asked::Connect(Vec::new(), 1)), 0),
            (
                vec![5, 3, 1, 2, 0, 5, 1, 0, 1, 127, 0, 0, 1, 0, 80],
                &[5, 0],
                Some(Asked::ConnectAddress("127.0.0.1".parse().unwrap(), 80)),
                0,
            ),
            (
                [vec![5, 1, 0, 5, 1, 0, 4], vec![0; 15], vec![1, 1, 0]].concat(),
                &[5, 0],
                Some(Asked::ConnectAddress("::1".parse().unwrap(), 256)),
                0,
            ),
            // BIND, UDP ASSOCIATE, an unknown kind of address.
            (
                vec![5, 1, 0, 5, 2, 0, 1, 1, 1, 1, 1, 0, 80],
                &[5, 0],
                Some(Asked::Refused(Reply::CommandNotSupported)),
                0,
            ),
            (
                vec![5, 1, 0, 5, 3, 0, 1, 1, 1, 1, 1, 0, 80],
                &[5, 0],
                Some(Asked::Refused(Reply::CommandNotSupported)),
                0,
            ),
            (
                vec![5, 1, 0, 5, 1, 0, 2],
                &[5, 0],
                Some(Asked::Refused(Reply::AddressTypeNotSupported)),
                0,
            ),
            // Only passwords; no method at all; SOCKS4; HTTP; cut short.
            (vec![5, 1, 2], &[5, 0xff], None, 0),
            (vec![5, 0], &[5, 0xff], None, 0),
            (vec![4, 1, 0, 80, 1, 1, 1, 1, 0], &[], None, 7),
            (b"GET / HTTP/1.1\r\n\r\n".to_vec(), &[], None, 16),
            (vec![5], &[], None, 0),
            (vec![5, 1, 0, 5, 1, 0, 1, 127], &[5, 0], None, 0),
            (vec![5, 1, 0, 4, 1, 0, 1], &[5, 0], None, 0),
        ] {
            let found = check(&sent).await;
            assert_eq!(found, (answered.to_vec(), asked, left), "{sent:?}");
        }
    }
}
