//! Framing: a 9-byte header (payload length u32, kind u8, stream u32, all big endian), then the payload.
//! Pure functions over bytes; reading and writing sockets is the callers' work.

/// Largest payload a side may send. A larger length is a protocol violation and ends the link.
pub const MAX_PAYLOAD_BYTES: usize = 256 * 1024;

/// Bytes before the payload.
pub const HEADER_BYTES: usize = 9;

/// Bytes of data a side may have unacknowledged on one direction of a stream before it must wait for [`FrameKind::Credit`].
pub const STREAM_WINDOW_BYTES: u32 = 512 * 1024;

/// What a frame means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// JSON [`super::Hello`], stream 0, first of each side.
    Hello = 0,
    /// Host to guest, opens an odd stream: JSON [`super::call::Call`].
    Call = 1,
    /// Guest to host: JSON [`super::call::Reply`]. Ends the stream for calls without data.
    Reply = 2,
    /// Bytes host to guest: standard input, or the content of a file to write, or the host's side of a route.
    Input = 3,
    /// Bytes guest to host: standard output, file content, or the sandbox's side of a route.
    Output = 4,
    /// Bytes guest to host: standard error when not merged.
    ErrorOutput = 5,
    /// The sender sends no more data on this stream (half close).
    End = 6,
    /// Host to guest: give the call up; a process is killed with its group. The guest still replies.
    Cancel = 7,
    /// Payload u32: the receiver consumed that many bytes of data; the sender may send as many more.
    Credit = 8,
    /// Guest to host, opens an even stream: JSON [`super::OpenRoute`].
    Open = 9,
    /// The stream is gone at once, in both directions; empty payload.
    Reset = 10,
}

impl FrameKind {
    /// The kind of a wire byte; `None` for one this generation does not know.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Hello,
            1 => Self::Call,
            2 => Self::Reply,
            3 => Self::Input,
            4 => Self::Output,
            5 => Self::ErrorOutput,
            6 => Self::End,
            7 => Self::Cancel,
            8 => Self::Credit,
            9 => Self::Open,
            10 => Self::Reset,
            _ => return None,
        })
    }
}

/// A decoded header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub kind: FrameKind,
    pub stream: u32,
    /// At most [`MAX_PAYLOAD_BYTES`].
    pub payload_len: usize,
}

/// A header that cannot be accepted; the link must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderError {
    PayloadTooLarge { payload_len: u32 },
    UnknownKind { byte: u8 },
}

impl std::fmt::Display for HeaderError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::PayloadTooLarge { payload_len } => {
                write!(f, "frame payload of {payload_len} bytes is too large")
            }
            Self::UnknownKind { byte } => write!(f, "unknown frame kind {byte}"),
        }
    }
}

impl std::error::Error for HeaderError {}

/// Encodes a header; `payload_len` must be at most [`MAX_PAYLOAD_BYTES`].
pub fn encode_header(kind: FrameKind, stream: u32, payload_len: usize) -> [u8; HEADER_BYTES] {
    debug_assert!(payload_len <= MAX_PAYLOAD_BYTES, "callers split data");
    let mut bytes = [0; HEADER_BYTES];
    bytes[..4].copy_from_slice(&(payload_len as u32).to_be_bytes());
    bytes[4] = kind as u8;
    bytes[5..].copy_from_slice(&stream.to_be_bytes());
    bytes
}

/// Decodes and checks a header.
pub fn decode_header(bytes: [u8; HEADER_BYTES]) -> Result<Header, HeaderError> {
    let payload_len = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let stream = u32::from_be_bytes([bytes[5], bytes[6], bytes[7], bytes[8]]);
    if payload_len as usize > MAX_PAYLOAD_BYTES {
        return Err(HeaderError::PayloadTooLarge { payload_len });
    }
    let kind = FrameKind::from_byte(bytes[4]).ok_or(HeaderError::UnknownKind { byte: bytes[4] })?;
    Ok(Header {
        kind,
        stream,
        payload_len: payload_len as usize,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_round_trip() {
        for byte in 0..=10 {
            let kind = FrameKind::from_byte(byte).unwrap();
            for (stream, payload_len) in [(0, 0), (1, 17), (u32::MAX, MAX_PAYLOAD_BYTES)] {
                let header = decode_header(encode_header(kind, stream, payload_len)).unwrap();
                assert_eq!(
                    header,
                    Header {
                        kind,
                        stream,
                        payload_len
                    }
                );
            }
        }
    }

    #[test]
    fn hostile_headers_are_refused() {
        let mut huge = encode_header(FrameKind::Output, 1, 0);
        huge[0] = 0xff;
        assert!(matches!(
            decode_header(huge),
            Err(HeaderError::PayloadTooLarge { .. })
        ));
        let mut unknown = encode_header(FrameKind::Output, 1, 0);
        unknown[4] = 200;
        assert_eq!(
            decode_header(unknown),
            Err(HeaderError::UnknownKind { byte: 200 })
        );
    }
}
