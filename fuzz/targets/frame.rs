//! Headers: what decodes encodes to the same bytes, and no length is above the bound.

#![no_main]

use greenroom_protocol::guest::frame::{HEADER_BYTES, MAX_PAYLOAD_BYTES, decode_header, encode_header};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for header in bytes.as_chunks::<HEADER_BYTES>().0 {
        if let Ok(decoded) = decode_header(*header) {
            assert!(decoded.payload_len <= MAX_PAYLOAD_BYTES);
            let encoded = encode_header(decoded.kind, decoded.stream, decoded.payload_len);
            assert_eq!(&encoded, header);
        }
    }
});
