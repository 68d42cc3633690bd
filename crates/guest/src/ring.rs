//! The last part of what a process wrote. Offsets count all bytes ever written and never repeat; each piece remembers
//! whether it was standard error. Pure, but for a count of all bytes that all rings keep.

use greenroom_protocol::guest::frame::FrameKind;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes kept of one process.
const RING_BYTES: usize = 1 << 20;

/// Bytes kept of all of them, beyond which each keeps only [`FLOOR_BYTES`].
const TOTAL_BYTES: usize = 16 << 20;

/// Bytes that are kept of a process in any case.
const FLOOR_BYTES: usize = 64 << 10;

/// Changes between output and error output that are told apart; a program that alternates with every byte must not fill
/// memory with that.
const MAX_PIECES: usize = 4096;

static KEPT: AtomicUsize = AtomicUsize::new(0);

/// How much a ring may keep now.
pub fn bound() -> usize {
    match KEPT.load(Ordering::Relaxed) < TOTAL_BYTES {
        true => RING_BYTES,
        false => FLOOR_BYTES,
    }
}

/// Whether ended processes had better be forgotten to make room for those that run.
pub fn is_crowded() -> bool {
    KEPT.load(Ordering::Relaxed) > TOTAL_BYTES / 2
}

/// Output from a cursor on.
#[derive(Default)]
pub struct Ring {
    bytes: VecDeque<u8>,
    /// Offset of the first kept byte.
    start: u64,
    pieces: VecDeque<Piece>,
}

/// Bytes of one stream up to an offset.
struct Piece {
    end: u64,
    kind: FrameKind,
}

impl Ring {
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Offset behind the newest byte.
    pub fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// How many bytes may be put without losing what somebody at `wanted` has not read.
    pub fn room(&self, bound: usize, wanted: u64) -> usize {
        let unread = usize::try_from(self.end().saturating_sub(wanted)).unwrap_or(usize::MAX);
        let is_full =
            self.pieces.len() >= MAX_PIECES && self.pieces.front().is_some_and(|piece| piece.end > wanted);
        if is_full { 0 } else { bound.saturating_sub(unread) }
    }

    /// Keeps more; the oldest goes, beyond `bound` and up to `wanted`.
    pub fn put(&mut self, kind: FrameKind, bytes: &[u8], bound: usize, wanted: u64) {
        self.bytes.extend(bytes);
        KEPT.fetch_add(bytes.len(), Ordering::Relaxed);
        let end = self.end();
        match self.pieces.back_mut() {
            Some(last) if last.kind == kind => last.end = end,
            _ => self.pieces.push_back(Piece { end, kind }),
        }
        let mut to = end.saturating_sub(bound as u64).max(self.start);
        if self.pieces.len() > MAX_PIECES
            && let Some(oldest) = self.pieces.front()
        {
            to = to.max(oldest.end);
        }
        self.forget_to(to.min(wanted.max(self.start)));
    }

    fn forget_to(&mut self, offset: u64) {
        // At most what is kept, which is in memory.
        let len = (offset - self.start) as usize;
        self.bytes.drain(..len);
        KEPT.fetch_sub(len, Ordering::Relaxed);
        self.start = offset;
        while self.pieces.front().is_some_and(|piece| piece.end <= offset) {
            self.pieces.pop_front();
        }
        // A ring that was large once need not stay so.
        if self.bytes.capacity() > 4 * self.bytes.len() + FLOOR_BYTES {
            self.bytes.shrink_to_fit();
        }
    }

    /// The next bytes of one stream from `after` on, at most `max`: where they begin, which stream, what. Empty at the end.
    pub fn piece(&self, after: u64, max: usize) -> (u64, FrameKind, Vec<u8>) {
        let start = after.clamp(self.start, self.end());
        let index = self.pieces.partition_point(|piece| piece.end <= start);
        let Some(piece) = self.pieces.get(index) else {
            return (start, FrameKind::Output, Vec::new());
        };
        let len = usize::try_from(piece.end - start).map_or(max, |len| len.min(max));
        (start, piece.kind, self.copy(start, len))
    }

    /// Merged text from `after` on, at most `max` bytes, cut at a character where possible: start, end, text. With `is_last`
    /// nothing comes behind what is kept.
    pub fn text(&self, after: u64, max: usize, is_last: bool) -> (u64, u64, String) {
        let start = after.clamp(self.start, self.end());
        let mut bytes = self.copy(start, max);
        let whole = bytes.len() - incomplete_tail(&bytes);
        let is_all = is_last && start + bytes.len() as u64 == self.end();
        if whole > 0 && !is_all {
            bytes.truncate(whole);
        }
        let end = start + bytes.len() as u64;
        (start, end, String::from_utf8_lossy(&bytes).into_owned())
    }

    fn copy(&self, start: u64, max: usize) -> Vec<u8> {
        let skip = (start - self.start) as usize;
        let len = max.min(self.bytes.len() - skip);
        let (front, back) = self.bytes.as_slices();
        let mut bytes = Vec::with_capacity(len);
        bytes.extend(front.iter().skip(skip).take(len));
        let taken = bytes.len();
        bytes.extend(
            back.iter()
                .skip(skip.saturating_sub(front.len()))
                .take(len - taken),
        );
        bytes
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        KEPT.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

/// Bytes at the end that begin a UTF-8 character and do not finish it.
fn incomplete_tail(bytes: &[u8]) -> usize {
    (1..=3.min(bytes.len()))
        .find(|back| {
            let needed = match bytes[bytes.len() - back] {
                0xc2..=0xdf => 2,
                0xe0..=0xef => 3,
                0xf0..=0xf4 => 4,
                _ => 0,
            };
            needed > *back
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: u64 = u64::MAX;

    fn ring(pieces: &[(FrameKind, &str)], bound: usize) -> Ring {
        let mut ring = Ring::default();
        for (kind, text) in pieces {
            ring.put(*kind, text.as_bytes(), bound, NOBODY);
        }
        ring
    }

    #[test]
    fn old_output_falls_out_and_cursors_stay_true() {
        for (texts, bound, after, max, expected) in [
            (&["abc"][..], 10, 1, 100, (1, 3, "bc")),
            (&["abc"], 10, 9, 100, (3, 3, "")),
            (&["abc", "defg"], 4, 0, 100, (3, 7, "defg")),
            (&["abc", "defg"], 4, 5, 1, (5, 6, "f")),
            (&["abcdefgh"], 4, 0, 2, (4, 6, "ef")),
            (&["abcdefgh", "i", "j", "k"], 4, 0, 100, (7, 11, "hijk")),
        ] {
            let pieces: Vec<_> = texts.iter().map(|text| (FrameKind::Output, *text)).collect();
            let (start, end, text) = ring(&pieces, bound).text(after, max, false);
            assert_eq!((start, end, text.as_str()), expected, "{texts:?} after {after}");
        }
    }

    #[test]
    fn streams_are_told_apart() {
        use FrameKind::{ErrorOutput, Output};
        let ring = ring(
            &[(Output, "ab"), (Output, "c"), (ErrorOutput, "de"), (Output, "f")],
            5,
        );
        let mut seen = Vec::new();
        let mut cursor = 0;
        loop {
            let (start, kind, bytes) = ring.piece(cursor, 2);
            if bytes.is_empty() {
                break;
            }
            cursor = start + bytes.len() as u64;
            seen.push((start, kind, String::from_utf8(bytes).unwrap_or_default()));
        }
        let expected = [(1, Output, "bc"), (3, ErrorOutput, "de"), (5, Output, "f")];
        assert_eq!(
            seen,
            expected.map(|(start, kind, text)| (start, kind, text.to_owned()))
        );
    }

    #[test]
    fn nothing_falls_out_before_its_reader_has_it() {
        let mut ring = Ring::default();
        assert_eq!(ring.room(4, 0), 4);
        ring.put(FrameKind::Output, b"abcd", 4, 0);
        assert_eq!(ring.room(4, 0), 0);
        assert_eq!(ring.room(4, 1), 1);
        // The bound shrank meanwhile: what is wanted stays all the same.
        ring.put(FrameKind::Output, b"e", 2, 1);
        assert_eq!((ring.start(), ring.end()), (1, 5));
        ring.put(FrameKind::Output, b"f", 2, 5);
        assert_eq!((ring.start(), ring.end()), (4, 6));
    }

    #[test]
    fn alternating_streams_are_bounded_too() {
        let mut ring = Ring::default();
        for number in 0..3 * MAX_PIECES {
            let kind = if number % 2 == 0 {
                FrameKind::Output
            } else {
                FrameKind::ErrorOutput
            };
            ring.put(kind, b"x", RING_BYTES, NOBODY);
        }
        assert_eq!(ring.pieces.len(), MAX_PIECES);
        assert_eq!(ring.bytes.len(), MAX_PIECES);
        assert_eq!(ring.room(RING_BYTES, ring.start()), 0);
        assert!(ring.room(RING_BYTES, ring.start() + 1) > 0);
    }

    #[test]
    fn characters_are_not_cut_in_two() {
        let ring = ring(&[(FrameKind::Output, "aé€😀")], 100);
        for (max, expected) in [
            (2, "a"),
            (3, "aé"),
            (5, "aé"),
            (6, "aé€"),
            (9, "aé€"),
            (10, "aé€😀"),
        ] {
            assert_eq!(ring.text(0, max, false).2, expected, "{max} bytes");
        }
        // Never stuck: with no room for a whole character its first byte goes out as it is.
        assert_eq!(ring.text(1, 1, false).1, 2);
    }
}
