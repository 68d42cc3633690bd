//! Names of images in registries, as people write them (<https://github.com/distribution/reference>).

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Where names lead that name no registry.
const DEFAULT_REGISTRY: &str = "docker.io";
/// The machine that answers for it.
const DEFAULT_REGISTRY_HOST: &str = "registry-1.docker.io";
/// What names without a `/` begin with there.
const DEFAULT_NAMESPACE: &str = "library/";

const MAX_NAME_BYTES: usize = 255;
const MAX_TAG_BYTES: usize = 128;

/// A SHA-256 digest, `sha256:` and 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(with = "String"))]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    /// From the 32 bytes of a SHA-256.
    pub fn of_sha256(sum: &[u8; 32]) -> Self {
        let mut text = String::with_capacity(71);
        text.push_str("sha256:");
        for byte in sum {
            for digit in [byte >> 4, byte & 15] {
                text.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
            }
        }
        Self(text)
    }

    /// With `sha256:`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Digest {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let is_right = text.strip_prefix("sha256:").is_some_and(|digits| {
            digits.len() == 64
                && digits
                    .bytes()
                    .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        });
        match is_right {
            true => Ok(Self(text)),
            false => Err(format!("`{text}` is no sha256 digest")),
        }
    }
}

impl FromStr for Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::try_from(text.to_owned())
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

/// Why a text is no reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceError {
    pub given: String,
    pub why: &'static str,
}

impl fmt::Display for ReferenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no reference of an image: {}", self.given, self.why)
    }
}

impl std::error::Error for ReferenceError {}

/// An image in a registry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    /// Host with optional port, as written; `docker.io` if none was.
    pub registry: String,
    pub repository: String,
    pub tag: Option<String>,
    pub digest: Option<Digest>,
}

impl Reference {
    /// The machine to ask.
    pub fn host(&self) -> &str {
        match self.registry.as_str() {
            DEFAULT_REGISTRY => DEFAULT_REGISTRY_HOST,
            registry => registry,
        }
    }

    /// By what the registry is asked for its manifest.
    pub fn version(&self) -> &str {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.as_str(),
            (None, Some(tag)) => tag,
            (None, None) => "latest",
        }
    }

    /// The same image, whatever its name comes to mean.
    pub fn pinned(&self, digest: Digest) -> Self {
        Self {
            digest: Some(digest),
            ..self.clone()
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    /// `[REGISTRY/]NAME[:TAG][@DIGEST]`, with Docker's rules for what is left out.
    fn from_str(given: &str) -> Result<Self, ReferenceError> {
        let wrong = |why| ReferenceError {
            given: given.to_owned(),
            why,
        };
        let (rest, digest) = match given.split_once('@') {
            Some((rest, digest)) => {
                let digest = Digest::try_from(digest.to_owned());
                (
                    rest,
                    Some(digest.map_err(|_| wrong("its digest is not sha256: and 64 digits"))?),
                )
            }
            None => (given, None),
        };
        let (registry, rest) = match rest.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
            _ => (DEFAULT_REGISTRY, rest),
        };
        if !is_host(registry) {
            return Err(wrong("the registry is no host with an optional port"));
        }
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) => (name, Some(tag)),
            None => (rest, None),
        };
        if !is_repository(name) {
            return Err(wrong(
                "the name is not made of small letters, digits, `.`, `_`, `-` and `/`",
            ));
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(wrong("the tag is not made of letters, digits, `.`, `_` and `-`"));
        }
        let namespace = match registry == DEFAULT_REGISTRY && !name.contains('/') {
            true => DEFAULT_NAMESPACE,
            false => "",
        };
        Ok(Self {
            registry: registry.to_owned(),
            repository: format!("{namespace}{name}"),
            tag: tag.map(ToOwned::to_owned),
            digest,
        })
    }
}

fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse::<u16>().is_ok()),
        None => (text, true),
    };
    let is_name = |label: &str| {
        let inside = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !label.is_empty() && label.bytes().all(inside) && !label.starts_with('-') && !label.ends_with('-')
    };
    port && host.len() <= MAX_NAME_BYTES && host.split('.').all(is_name)
}

fn is_repository(text: &str) -> bool {
    let is_component = |component: &str| {
        let inside = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
        let is_edge = |byte: Option<&u8>| byte.is_some_and(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9'));
        let bytes = component.as_bytes();
        component.bytes().all(inside) && is_edge(bytes.first()) && is_edge(bytes.last())
    };
    text.len() <= MAX_NAME_BYTES && text.split('/').all(is_component)
}

fn is_tag(text: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=MAX_TAG_BYTES).contains(&text.len()) && text.bytes().all(inside) && !text.starts_with(['.', '-'])
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGITS: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn names_are_completed_as_docker_does() {
        for (given, expected) in [
            ("debian", "docker.io/library/debian"),
            ("debian:12", "docker.io/library/debian:12"),
            ("acme/shop", "docker.io/acme/shop"),
            ("docker.io/debian", "docker.io/library/debian"),
            ("ghcr.io/acme/shop:v1", "ghcr.io/acme/shop:v1"),
            ("localhost/shop", "localhost/shop"),
            ("127.0.0.1:5000/a/b/c:x", "127.0.0.1:5000/a/b/c:x"),
            (
                "mcr.microsoft.com/devcontainers/base:ubuntu-24.04",
                "mcr.microsoft.com/devcontainers/base:ubuntu-24.04",
            ),
        ] {
            assert_eq!(given.parse::<Reference>().unwrap().to_string(), expected);
            let pinned = format!("{given}@sha256:{DIGITS}");
            let reference: Reference = pinned.parse().unwrap();
            assert_eq!(reference.to_string(), format!("{expected}@sha256:{DIGITS}"));
            assert_eq!(reference.version(), format!("sha256:{DIGITS}"));
            assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
        }
        assert_eq!(
            "debian".parse::<Reference>().unwrap().host(),
            "registry-1.docker.io"
        );
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        for given in [
            "",
            "/",
            "Debian",
            "debian:",
            "debian@sha256:123",
            "debian@md5:0123",
            "a//b",
            "-a",
            "host.example:port/a",
            "ex_ample.com/a",
            "../a",
            "a/../b",
            "debian:a b",
            "https://example.com/a",
            "debian:.hidden",
        ] {
            assert!(given.parse::<Reference>().is_err(), "{given}");
        }
        let upper = format!("debian@sha256:{}", DIGITS.to_uppercase());
        assert!(upper.parse::<Reference>().is_err());
    }
}
