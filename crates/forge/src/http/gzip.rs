//! Unpacks gzip'd request bodies as they come, in bounded pieces.

use super::body::ByteStream;
use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use futures_util::{StreamExt as _, stream};
use std::io::{self, Write as _};

/// Packed bytes fed at once: deflate grows at most about a thousandfold, so a piece stays under 4 MiB.
const PIECE: usize = 4 * 1024;

struct Unpacking {
    packed: ByteStream,
    rest: Bytes,
    decoder: MultiGzDecoder<Vec<u8>>,
    is_finished: bool,
}

/// The unpacked body; an error if it is not gzip or ends early.
pub(crate) fn unpack(packed: ByteStream) -> ByteStream {
    let state = Unpacking {
        packed,
        rest: Bytes::new(),
        decoder: MultiGzDecoder::new(Vec::new()),
        is_finished: false,
    };
    Box::pin(stream::try_unfold(state, |mut state| async move {
        loop {
            if state.is_finished {
                return Ok(None);
            }
            if state.rest.is_empty() {
                match state.packed.next().await {
                    Some(chunk) => state.rest = chunk?,
                    None => {
                        state.is_finished = true;
                        state.decoder.try_finish()?;
                    }
                }
            }
            let piece = state.rest.split_to(state.rest.len().min(PIECE));
            state.decoder.write_all(&piece)?;
            let unpacked = std::mem::take(state.decoder.get_mut());
            if !unpacked.is_empty() {
                return Ok::<_, io::Error>(Some((Bytes::from(unpacked), state)));
            }
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use futures_util::TryStreamExt as _;

    async fn unpacked(packed: &[u8], chunk: usize) -> io::Result<Vec<u8>> {
        let chunks: Vec<_> = packed
            .chunks(chunk)
            .map(|c| Ok(Bytes::copy_from_slice(c)))
            .collect();
        let pieces: Vec<Bytes> = unpack(Box::pin(stream::iter(chunks))).try_collect().await?;
        Ok(pieces.concat())
    }

    #[tokio::test]
    async fn bodies_come_out_whole_or_fail() {
        let plain: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(&plain).unwrap();
        let packed = encoder.finish().unwrap();
        for chunk in [1, 7, 4096, usize::MAX] {
            assert_eq!(
                unpacked(&packed, chunk).await.unwrap(),
                plain,
                "chunks of {chunk}"
            );
        }
        assert!(unpacked(&packed[..packed.len() - 9], 100).await.is_err(), "cut");
        assert!(unpacked(b"not gzip at all", 100).await.is_err());
    }
}
