//! Which images models take, told by their bytes. An image that is none, or not whole, is refused by a model's provider with every
//! request that holds it, so it must not get into a conversation.

/// The kind of image by its first bytes, of those that models take.
pub fn image_type(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some("image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        _ => None,
    }
}

/// How many bytes a text in base64 with padding stands for.
pub fn bytes_of_base64(base64: &str) -> u64 {
    let padding = base64.bytes().rev().take_while(|byte| *byte == b'=').count();
    (base64.len() / 4 * 3).saturating_sub(padding) as u64
}

/// Whether an image of a known kind has its beginning and its end. What lies between is not looked at.
pub fn is_whole_image(bytes: &[u8]) -> bool {
    match image_type(bytes) {
        Some("image/png") => is_whole_png(&bytes[8..]),
        Some("image/jpeg") => has_end(bytes, &[0xff, 0xd9]),
        // Header and screen descriptor before anything else.
        Some("image/gif") => bytes.len() > 13 && has_end(bytes, &[0x3b]),
        Some("image/webp") => {
            let size = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
            bytes.len() > 20 && bytes.len() as u64 >= u64::from(size) + 8
        }
        _ => false,
    }
}

/// Chunks from `IHDR` to `IEND` (<https://www.w3.org/TR/png-3/#5DataRep>), whatever stands behind.
fn is_whole_png(mut chunks: &[u8]) -> bool {
    if chunks.get(..8) != Some(b"\0\0\0\x0dIHDR") {
        return false;
    }
    while let [a, b, c, d, kind @ ..] = chunks {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        // Its kind, the data, and a sum.
        let Some(end) = length.checked_add(8).filter(|end| *end <= kind.len()) else {
            return false;
        };
        if kind.starts_with(b"IEND") {
            return true;
        }
        chunks = &kind[end..];
    }
    false
}

/// Cameras and editors leave a little behind the end of an image.
fn has_end(bytes: &[u8], mark: &[u8]) -> bool {
    const BEHIND: usize = 4096;
    let tail = &bytes[bytes.len().saturating_sub(BEHIND).max(3)..];
    tail.windows(mark.len()).any(|window| window == mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png(chunks: &[(&[u8; 4], usize)]) -> Vec<u8> {
        let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
        for (kind, length) in chunks {
            bytes.extend(u32::try_from(*length).unwrap().to_be_bytes());
            bytes.extend(*kind);
            bytes.extend(vec![7; length + 4]);
        }
        bytes
    }

    #[test]
    fn an_image_has_a_beginning_and_an_end() {
        let whole = png(&[(b"IHDR", 13), (b"IDAT", 100), (b"IEND", 0)]);
        let behind = [whole.as_slice(), b"behind"].concat();
        let webp = |size: u32, length: usize| {
            [
                b"RIFF".as_slice(),
                &size.to_le_bytes(),
                b"WEBPVP8 ",
                &vec![0; length],
            ]
            .concat()
        };
        for (bytes, kind, is_whole) in [
            (whole.as_slice(), Some("image/png"), true),
            (&behind, Some("image/png"), true),
            (&whole[..whole.len() - 1], Some("image/png"), false),
            (&whole[..60], Some("image/png"), false),
            (&whole[..8], Some("image/png"), false),
            (&png(&[(b"IDAT", 9), (b"IEND", 0)]), Some("image/png"), false),
            (&png(&[(b"IHDR", 13)]), Some("image/png"), false),
            (
                &[0xff, 0xd8, 0xff, 0xe0, 1, 2, 0xff, 0xd9],
                Some("image/jpeg"),
                true,
            ),
            (&[0xff, 0xd8, 0xff, 0xd9, 0, 0], Some("image/jpeg"), false),
            (&[0xff, 0xd8, 0xff, 0xe0, 1, 2], Some("image/jpeg"), false),
            (&[0xff, 0xd8, 0xff], Some("image/jpeg"), false),
            (b"GIF89a\0\0\0\0\0\0\0;", Some("image/gif"), true),
            (b"GIF89a", Some("image/gif"), false),
            (b"GIF87a\0\0\0\0\0\0\0!", Some("image/gif"), false),
            (&webp(20, 30), Some("image/webp"), true),
            (&webp(2_000, 30), Some("image/webp"), false),
            (&webp(4, 0), Some("image/webp"), false),
            (b"<svg>", None, false),
            (b"", None, false),
        ] {
            assert_eq!(
                (image_type(bytes), is_whole_image(bytes)),
                (kind, is_whole),
                "{bytes:?}"
            );
        }
    }
}
