//! What the targets share: how an input becomes the bytes of a link.

use greenroom_protocol::guest::frame::{FrameKind, MAX_PAYLOAD_BYTES, encode_header};

/// Bytes of a link that an input stands for. An input is a list of instructions, so that a mutation changes one frame and
/// not the meaning of all that follow:
///
/// * 0..=10, stream u8, length u8, payload: a frame of that kind;
/// * 11, kind u8, stream u8, length u16: a frame of zeroes, of any length that a frame may have;
/// * 12, length u8, bytes: these bytes as they are;
/// * 13, stream u32, length u8, payload: a reply or call on any stream.
///
/// Anything else is passed over.
pub fn link_bytes(input: &[u8], json: FrameKind) -> Vec<u8> {
    let mut bytes = frame(FrameKind::Hello, 0, br#"{"generation":2}"#);
    let mut rest = Reader(input);
    while let Some(instruction) = rest.byte() {
        match instruction {
            11 => {
                let (kind, stream) = (rest.byte().unwrap_or(0), rest.byte().unwrap_or(0));
                let len = u16::from_be_bytes([rest.byte().unwrap_or(0), rest.byte().unwrap_or(0)]);
                let kind = FrameKind::from_byte(kind % 11).unwrap_or(FrameKind::Output);
                let len = (usize::from(len) * 8).min(MAX_PAYLOAD_BYTES);
                bytes.extend(frame(kind, stream.into(), &vec![0; len]));
            }
            12 => {
                let len = rest.byte().unwrap_or(0);
                bytes.extend(rest.take(len.into()));
            }
            13 => {
                let stream = [(); 4].map(|()| rest.byte().unwrap_or(0));
                let len = rest.byte().unwrap_or(0);
                bytes.extend(frame(json, u32::from_be_bytes(stream), rest.take(len.into())));
            }
            kind => {
                let Some(kind) = FrameKind::from_byte(kind) else {
                    continue;
                };
                let stream = rest.byte().unwrap_or(0);
                let len = rest.byte().unwrap_or(0);
                bytes.extend(frame(kind, stream.into(), rest.take(len.into())));
            }
        }
    }
    bytes
}

/// The instruction for one frame; a payload is cut at 255 bytes.
pub fn instruction(kind: FrameKind, stream: u8, payload: &[u8]) -> Vec<u8> {
    let payload = &payload[..payload.len().min(255)];
    [&[kind as u8, stream, payload.len() as u8], payload].concat()
}

/// A whole frame.
pub fn frame(kind: FrameKind, stream: u32, payload: &[u8]) -> Vec<u8> {
    [encode_header(kind, stream, payload.len()).as_slice(), payload].concat()
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }
}
