//! Identifiers: a prefix that names the kind, then 26 characters of Crockford base32 that sort by time of creation.
//! Only data: fresh bits come from the caller (`greenroom_stdx::id::fresh_bits`).

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Crockford's base32 alphabet in lower case (<https://www.crockford.com/base32.html>): no i, l, o, u.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Characters after the prefix: 26 × 5 bits hold 128 bits.
const ENCODED_LEN: usize = 26;

/// A text that is not an identifier of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseIdError {
    /// The prefix that was expected, with its underscore.
    pub expected_prefix: &'static str,
}

impl fmt::Display for ParseIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not an id of the form {}…", self.expected_prefix)
    }
}

impl std::error::Error for ParseIdError {}

fn encode(prefix: &str, bits: u128) -> String {
    let mut text = String::with_capacity(prefix.len() + ENCODED_LEN);
    text.push_str(prefix);
    for position in (0..ENCODED_LEN).rev() {
        let digit = (bits >> (position * 5)) as usize & 31;
        text.push(ALPHABET[digit] as char);
    }
    text
}

fn is_encoded(text: &str) -> bool {
    // 26 digits hold 130 bits; the first may use three of its five.
    text.len() == ENCODED_LEN
        && text.bytes().all(|byte| ALPHABET.contains(&byte))
        && text.as_bytes()[0] <= b'7'
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[serde(try_from = "String", into = "String")]
        #[cfg_attr(feature = "schema", schemars(with = "String"))]
        pub struct $name(String);

        impl $name {
            /// What every identifier of this kind starts with.
            pub const PREFIX: &'static str = $prefix;

            /// Encodes 128 bits; pass time-ordered bits to get time-ordered identifiers.
            pub fn from_bits(bits: u128) -> Self {
                Self(encode($prefix, bits))
            }

            /// The whole identifier, prefix included.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                match text.strip_prefix($prefix) {
                    Some(rest) if is_encoded(rest) => Ok(Self(text.to_owned())),
                    _ => Err(ParseIdError { expected_prefix: $prefix }),
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = ParseIdError;
            fn try_from(text: String) -> Result<Self, ParseIdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id!(
    /// One shared piece of work.
    SessionId,
    "ses_"
);
id!(
    /// A message that asks for work.
    PromptId,
    "prm_"
);
id!(
    /// An image of an environment, from the moment its build is asked for.
    ImageId,
    "img_"
);
id!(
    /// Files that lie over others and never change again.
    LayerId,
    "lyr_"
);
id!(
    /// The files of one sandbox at one moment.
    SnapshotId,
    "snp_"
);
id!(
    /// All the agent does for one prompt.
    TurnId,
    "trn_"
);
id!(
    /// One visible piece of a turn.
    ItemId,
    "itm_"
);
id!(
    /// A running, isolated instance of an image or snapshot.
    SandboxId,
    "sbx_"
);
id!(
    /// A person who signs in.
    PersonId,
    "usr_"
);
id!(
    /// A link into a session; not its secret.
    LinkId,
    "lnk_"
);
id!(
    /// A long-lived API token's public name.
    TokenId,
    "tok_"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip_and_sort_like_their_bits() {
        let mut previous = SessionId::from_bits(0);
        for bits in [1, 31, 32, u128::from(u64::MAX), u128::MAX] {
            let id = SessionId::from_bits(bits);
            assert!(id > previous, "{id} after {previous}");
            assert_eq!(id.as_str().parse::<SessionId>().unwrap(), id);
            previous = id;
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "ses_",
            "prm_00000000000000000000000000",
            "ses_0000000000000000000000000",
            "ses_000000000000000000000000000",
            "ses_0000000000000000000000000U",
            "ses_80000000000000000000000000",
            "ses_../../../../../../etc/pass",
        ] {
            assert!(text.parse::<SessionId>().is_err(), "{text:?} must be refused");
        }
    }
}
