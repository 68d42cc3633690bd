//! Joins a byte stream of this process with a stream of a link, both ways, each direction ending by itself.

use crate::link::{Event, Link, Stream};
use greenroom_protocol::guest::frame::FrameKind;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Bytes moved at once.
const BUFFER_BYTES: usize = 64 * 1024;

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Both directions came to their end.
    Complete,
    /// One side broke off, or the link is over. The guest was told.
    Broken,
}

/// Copies both ways until both ended or one side is gone. The link's stream is left to be closed by the caller.
pub(crate) async fn splice<S: AsyncRead + AsyncWrite + Unpin>(
    link: &Link,
    stream: &Stream,
    socket: S,
) -> Ending {
    let (mut reader, mut writer) = tokio::io::split(socket);
    let inbound = async {
        loop {
            match stream.next().await {
                Event::Data { bytes, .. } => {
                    if writer.write_all(&bytes).await.is_err() {
                        return false;
                    }
                    link.grant(stream, bytes.len()).await;
                }
                Event::End => {
                    let _ = writer.shutdown().await;
                    return true;
                }
                Event::Reply(_) | Event::Gone => return false,
            }
        }
    };
    let outbound = async {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let Some(room) = stream.room().await else {
                return false;
            };
            match reader.read(&mut buffer[..room.min(BUFFER_BYTES)]).await {
                Ok(0) => {
                    link.send(FrameKind::End, stream.id(), &[]).await;
                    return true;
                }
                Ok(len) => link.send_data(stream, &buffer[..len]).await,
                Err(_) => return false,
            }
        }
    };
    tokio::pin!(inbound, outbound);
    let (mut is_in_done, mut is_out_done) = (false, false);
    loop {
        let went_well = tokio::select! {
            well = &mut inbound, if !is_in_done => { is_in_done = true; well }
            well = &mut outbound, if !is_out_done => { is_out_done = true; well }
        };
        if !went_well {
            link.send(FrameKind::Reset, stream.id(), &[]).await;
            return Ending::Broken;
        }
        if is_in_done && is_out_done {
            return Ending::Complete;
        }
    }
}
