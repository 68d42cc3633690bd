//! Somebody who watches a session: reads the frames of a WebSocket and notes how long each live event took.

use super::http::{Http, Target, find};
use anyhow::{Result, bail};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// What those who watch one session saw.
#[derive(Default)]
pub struct Seen {
    /// For each event at each socket: when it came, and how long after its append, both in microseconds.
    pub events: Mutex<Vec<(u64, u32)>>,
    /// Bytes of all events at all sockets.
    pub bytes: std::sync::atomic::AtomicU64,
}

/// Microseconds since 1970.
pub fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

/// Watches from now on, until `stop`; returns once everything of before has come.
pub async fn watch(
    target: &Target,
    session: &str,
    seen: Arc<Seen>,
    stop: CancellationToken,
) -> Result<tokio::task::JoinHandle<Result<()>>> {
    let http = Http::connect(target).await?;
    let (stream, rest) = http
        .upgrade(&format!("/v1/sessions/{session}/stream?after=0"))
        .await?;
    let mut socket = Socket { stream, buffer: rest };
    loop {
        let frame = socket.frame().await?;
        let is_last = find(&frame, b"\"frame\":\"caught_up\"").is_some();
        if find(&frame, b"\"frame\":\"closing\"").is_some() {
            bail!("{}", String::from_utf8_lossy(&frame));
        }
        if is_last {
            break;
        }
    }
    Ok(tokio::spawn(async move {
        loop {
            let frame = tokio::select! {
                frame = socket.frame() => frame?,
                () = stop.cancelled() => return Ok(()),
            };
            let came_us = now_us();
            if !frame.starts_with(b"{\"frame\":\"event\"") {
                continue;
            }
            let Some(at_ms) = number_behind(&frame, b"\"at_ms\":") else {
                bail!("an event without a time");
            };
            // Whole milliseconds: up to one too much for everybody.
            let took = came_us.saturating_sub(at_ms * 1000);
            let took = u32::try_from(took).unwrap_or(u32::MAX);
            seen.bytes
                .fetch_add(frame.len() as u64, std::sync::atomic::Ordering::Relaxed);
            let mut events = seen.events.lock().unwrap_or_else(PoisonError::into_inner);
            events.push((came_us, took));
        }
    }))
}

fn number_behind(frame: &[u8], name: &[u8]) -> Option<u64> {
    let start = find(frame, name)? + name.len();
    let digits = frame[start..].iter().take_while(|byte| byte.is_ascii_digit());
    Some(digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

struct Socket {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Socket {
    /// The next text; pings are answered.
    async fn frame(&mut self) -> Result<Vec<u8>> {
        loop {
            if let Some((opcode, start, length)) = header(&self.buffer)
                && self.buffer.len() >= start + length
            {
                let payload = self.buffer[start..start + length].to_vec();
                self.buffer.drain(..start + length);
                match opcode {
                    1 => return Ok(payload),
                    // A pong without content, masked with zeros.
                    9 => self.stream.write_all(&[0x8a, 0x80, 0, 0, 0, 0]).await?,
                    8 => bail!("the server closed: {}", String::from_utf8_lossy(&payload)),
                    _ => {}
                }
                continue;
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                bail!("the stream ended");
            }
        }
    }
}

/// Kind of a frame, where its payload begins, and how long that is.
fn header(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let (start, length) = match second & 0x7f {
        126 => (
            4,
            u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)),
        ),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)),
        short => (2, u64::from(short)),
    };
    Some((first & 0x0f, start, usize::try_from(length).ok()?))
}
