//! As much of HTTP/1.1 as the load needs, so that the clients take next to nothing of the processors that they share with the server.

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A server that speaks the protocol.
#[derive(Debug, Clone)]
pub struct Target {
    /// `127.0.0.1:PORT`.
    pub address: String,
    pub token: String,
    /// What a new session is asked for with.
    pub new_session: &'static str,
}

/// One connection that stays open.
pub struct Http {
    stream: TcpStream,
    head: String,
    buffer: Vec<u8>,
}

impl Http {
    pub async fn connect(target: &Target) -> Result<Self> {
        let stream = TcpStream::connect(&target.address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            head: format!(
                "host: {}\r\nauthorization: Bearer {}\r\n",
                target.address, target.token
            ),
            buffer: Vec::with_capacity(16 * 1024),
        })
    }

    /// Sends a JSON body and reads the answer's; any status but success is an error.
    pub async fn send(&mut self, method: &str, path: &str, key: Option<&str>, body: &str) -> Result<String> {
        let key = key.map_or_else(String::new, |key| format!("idempotency-key: {key}\r\n"));
        let request = format!(
            "{method} {path} HTTP/1.1\r\n{}{key}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.head,
            body.len()
        );
        self.stream.write_all(request.as_bytes()).await?;
        let (status, body) = self.answer().await?;
        if !(200..300).contains(&status) {
            bail!("{method} {path}: {status} {body}");
        }
        Ok(body)
    }

    async fn answer(&mut self) -> Result<(u16, String)> {
        self.buffer.clear();
        let end = loop {
            if let Some(place) = find(&self.buffer, b"\r\n\r\n") {
                break place + 4;
            }
            self.read().await?;
        };
        let head = String::from_utf8_lossy(&self.buffer[..end]).to_ascii_lowercase();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.context("no status")?;
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
        let length = match length {
            Some(length) => length,
            None if status == 101 || status == 204 => 0,
            None => bail!("an answer without a length: {head}"),
        };
        while self.buffer.len() < end + length {
            self.read().await?;
        }
        let body = String::from_utf8_lossy(&self.buffer[end..end + length]).into_owned();
        self.buffer.drain(..end + length);
        Ok((status, body))
    }

    /// Asks for a WebSocket; what came behind the answer's head is the second part.
    pub async fn upgrade(mut self, path: &str) -> Result<(TcpStream, Vec<u8>)> {
        let request = format!(
            "GET {path} HTTP/1.1\r\n{}connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            self.head
        );
        self.stream.write_all(request.as_bytes()).await?;
        let (status, body) = self.answer().await?;
        if status != 101 {
            bail!("{path}: {status} {body}");
        }
        Ok((self.stream, self.buffer))
    }

    async fn read(&mut self) -> Result<()> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => bail!("the server closed the connection"),
            _ => Ok(()),
        }
    }
}

/// Where `part` begins.
pub fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

/// Text of a field that is a string, in JSON that is not read as a whole.
pub fn text_of(json: &str, field: &str) -> Result<String> {
    let value: serde_json::Value = serde_json::from_str(json)?;
    let found = value.pointer(field).and_then(|value| value.as_str());
    Ok(found.with_context(|| format!("no {field} in {json}"))?.to_owned())
}
