//! How links are carried over one pair of pipes, to where no socket can be handed in (OCI runtimes that are virtual machines
//! or kernels of their own): numbered connections in pieces, one after the other. Knows nothing of what is in them.
//!
//! A piece is a header (connection u32, length u32, both big endian) and that many bytes. The host's side numbers its
//! connections upwards from 1 and opens one with its first piece. A piece without bytes closes its connection. The guest's
//! very first piece is [`READY`].

/// Bytes before a piece's content.
pub const PIECE_HEADER_BYTES: usize = 8;

/// Most bytes of content in one piece.
pub const MAX_PIECE_BYTES: usize = 64 * 1024;

/// The guest serves connections from now on: a piece of no connection.
pub const READY: [u8; PIECE_HEADER_BYTES] = [0; PIECE_HEADER_BYTES];

/// The guest is to kill every process of the sandbox but itself: a piece of no connection.
pub const KILL_PROGRAMS: [u8; PIECE_HEADER_BYTES] = [0; PIECE_HEADER_BYTES];

/// The header of a piece; `len` is at most [`MAX_PIECE_BYTES`].
pub fn encode_piece(connection: u32, len: usize) -> [u8; PIECE_HEADER_BYTES] {
    let mut header = [0; PIECE_HEADER_BYTES];
    header[..4].copy_from_slice(&connection.to_be_bytes());
    // Never cut off: at most 64 KiB.
    header[4..].copy_from_slice(&(len as u32).to_be_bytes());
    header
}

/// Connection and length of content; `None` if it is longer than allowed, and with it the end of all order.
pub fn decode_piece(header: [u8; PIECE_HEADER_BYTES]) -> Option<(u32, usize)> {
    let [a, b, c, d, e, f, g, h] = header;
    let len = u32::from_be_bytes([e, f, g, h]) as usize;
    (len <= MAX_PIECE_BYTES).then_some((u32::from_be_bytes([a, b, c, d]), len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_round_trip_up_to_the_limit() {
        for (connection, len) in [(0, 0), (1, 0), (7, 1), (u32::MAX, MAX_PIECE_BYTES)] {
            assert_eq!(
                decode_piece(encode_piece(connection, len)),
                Some((connection, len))
            );
        }
        assert_eq!(encode_piece(0, 0), READY);
        assert_eq!(decode_piece(encode_piece(1, MAX_PIECE_BYTES + 1)), None);
        assert_eq!(decode_piece([0xff; 8]), None);
    }
}
