//! SHA-256 digests, computed.

use greenroom_protocol::reference::Digest;
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;

/// Of these bytes.
pub(super) fn digest_of(bytes: &[u8]) -> Digest {
    finished(Sha256::new_with_prefix(bytes))
}

/// Of everything that was hashed.
pub(super) fn finished(hash: Sha256) -> Digest {
    let mut text = "sha256:".to_owned();
    for byte in hash.finalize() {
        let _ = write!(text, "{byte:02x}");
    }
    Digest::try_from(text).unwrap_or_else(|_| unreachable!("32 bytes are 64 digits"))
}

/// Its first half, as a name for what it stands for.
pub(super) fn bits(digest: &Digest) -> u128 {
    let digits = &digest.as_str()["sha256:".len()..];
    u128::from_str_radix(&digits[..32], 16).unwrap_or_default()
}
