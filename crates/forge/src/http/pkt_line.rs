//! The pkt-line format (gitprotocol-common(5)). Pure.

/// A flush packet.
pub(crate) const FLUSH: &[u8] = b"0000";
/// Largest content of one packet.
pub(crate) const MAX_CONTENT: usize = 65516;

/// One packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Packet<'a> {
    Flush,
    Data(&'a [u8]),
}

/// Not a pkt-line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// The first packet of `bytes` and the number of bytes it takes; `None` if it is not there in full.
pub(crate) fn decode(bytes: &[u8]) -> Result<Option<(Packet<'_>, usize)>, Malformed> {
    let Some(digits) = bytes.get(..4) else {
        return Ok(None);
    };
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(Malformed);
    }
    let digits = std::str::from_utf8(digits).map_err(|_| Malformed)?;
    let length = usize::from_str_radix(digits, 16).map_err(|_| Malformed)?;
    match length {
        0 => Ok(Some((Packet::Flush, 4))),
        4.. if length <= MAX_CONTENT + 4 => Ok(bytes.get(4..length).map(|data| (Packet::Data(data), length))),
        _ => Err(Malformed),
    }
}

/// A packet with the given content, of which at most [`MAX_CONTENT`] bytes are taken.
pub(crate) fn encode(content: &[u8]) -> Vec<u8> {
    let content = &content[..content.len().min(MAX_CONTENT)];
    let mut packet = format!("{:04x}", content.len() + 4).into_bytes();
    packet.extend_from_slice(content);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets() {
        for (bytes, expected) in [
            (&b""[..], Ok(None)),
            (b"000", Ok(None)),
            (b"0000rest", Ok(Some((Packet::Flush, 4)))),
            (b"0004", Ok(Some((Packet::Data(b""), 4)))),
            (b"0006a\nx", Ok(Some((Packet::Data(b"a\n"), 6)))),
            (b"000aab", Ok(None)),
            (b"0001", Err(Malformed)),
            (b"0003", Err(Malformed)),
            (b"+004", Err(Malformed)),
            (b"PACK", Err(Malformed)),
            (b"fff1", Err(Malformed)),
        ] {
            assert_eq!(decode(bytes), expected, "{bytes:?}");
        }
        assert_eq!(encode(b"a\n"), b"0006a\n");
    }
}
