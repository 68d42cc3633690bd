//! Headers that the proxy adds for one host, so that the sandbox can use what it cannot read.

use crate::policy::CREDENTIAL_PORT;
use crate::policy::name::{Host, Target};
use greenroom_stdx::secret::Secret;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::response::Parts;
use memchr::memmem;

/// Secrets shorter than this are not looked for in responses: they would be found everywhere.
const MIN_REDACTED_BYTES: usize = 8;

/// What stands where an echoed secret was, repeated: the length stays the same.
const MASK: u8 = b'*';

/// A header for one host, on port 443.
#[derive(Debug, Clone)]
pub struct Credential {
    target: Target,
    header: HeaderName,
    /// Marked sensitive: it does not show in debug output.
    value: HeaderValue,
    secret: Secret,
}

/// Why there is no such credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    #[error("a credential belongs to one exact host name")]
    Host,
    #[error("this is not the name of a header that may be added")]
    Header,
    #[error("the secret in its format is not the value of a header")]
    Value,
}

/// Headers that say how a message is sent, and not what is asked for.
const NOT_ADDED: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

impl Credential {
    /// `format` is the header's value with `{secret}` in it; without one the value is the secret.
    pub fn new(
        host: &str,
        header: &str,
        secret: Secret,
        format: Option<&str>,
    ) -> Result<Self, CredentialError> {
        let target = Target::new(host, CREDENTIAL_PORT).map_err(|_| CredentialError::Host)?;
        if !matches!(target.host, Host::Name(_)) {
            return Err(CredentialError::Host);
        }
        let header: HeaderName = header.parse().map_err(|_| CredentialError::Header)?;
        if NOT_ADDED.contains(&header.as_str()) || header.as_str().starts_with("proxy-") {
            return Err(CredentialError::Header);
        }
        let text = format.unwrap_or("{secret}").replace("{secret}", secret.expose());
        let mut value = HeaderValue::from_str(&text).map_err(|_| CredentialError::Value)?;
        value.set_sensitive(true);
        if secret.expose().is_empty() {
            return Err(CredentialError::Value);
        }
        Ok(Self {
            target,
            header,
            value,
            secret,
        })
    }

    /// The same credential on another port, for hosts that do not use 443. The policy must allow that port.
    pub fn on_port(mut self, port: u16) -> Self {
        self.target.port = port;
        self
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    fn needle(&self) -> Option<&[u8]> {
        let bytes = self.secret.expose().as_bytes();
        (bytes.len() >= MIN_REDACTED_BYTES).then_some(bytes)
    }
}

/// Adds the headers. Copies that the sandbox sent, in whatever spelling, are gone.
pub(crate) fn add(credentials: &[Credential], headers: &mut HeaderMap) {
    for credential in credentials {
        headers.remove(&credential.header);
    }
    for credential in credentials {
        headers.append(&credential.header, credential.value.clone());
    }
}

/// Overwrites secrets that the other side repeats in the head of its response.
pub(crate) fn redact_head(credentials: &[Credential], parts: &mut Parts) {
    parts.extensions.remove::<hyper::ext::ReasonPhrase>();
    redact_headers(credentials, &mut parts.headers);
}

pub(crate) fn redact_headers(credentials: &[Credential], headers: &mut HeaderMap) {
    for value in headers.values_mut() {
        let mut bytes = value.as_bytes().to_vec();
        if mask(credentials, &mut bytes) {
            // Still the bytes of a value, with stars in it.
            *value = HeaderValue::from_bytes(&bytes).unwrap_or(HeaderValue::from_static("redacted"));
        }
    }
}

/// Overwrites every secret; tells whether there was one.
fn mask(credentials: &[Credential], bytes: &mut [u8]) -> bool {
    let mut is_found = false;
    for needle in credentials.iter().filter_map(Credential::needle) {
        let places: Vec<usize> = memmem::find_iter(bytes, needle).collect();
        for place in places {
            bytes[place..place + needle.len()].fill(MASK);
            is_found = true;
        }
    }
    is_found
}

/// Overwrites secrets in a body that comes in pieces. What might be the beginning of one is held back until the next piece.
#[derive(Debug)]
pub(crate) struct BodyMask {
    credentials: Vec<Credential>,
    held: Vec<u8>,
}

impl BodyMask {
    pub fn new(credentials: &[Credential]) -> Self {
        Self {
            credentials: credentials.to_vec(),
            held: Vec::new(),
        }
    }

    /// Takes a piece and returns what can go on.
    pub fn push(&mut self, piece: &[u8]) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.held);
        bytes.extend_from_slice(piece);
        mask(&self.credentials, &mut bytes);
        let kept = self
            .credentials
            .iter()
            .filter_map(Credential::needle)
            .map(|needle| beginning_at_end(&bytes, needle))
            .max()
            .unwrap_or(0);
        self.held = bytes.split_off(bytes.len() - kept);
        bytes
    }

    /// What was held back and is no secret, at the end of the body.
    pub fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }

    pub fn credentials(&self) -> &[Credential] {
        &self.credentials
    }
}

/// Length of the longest true beginning of `needle` that `bytes` ends with.
fn beginning_at_end(bytes: &[u8], needle: &[u8]) -> usize {
    (1..needle.len().min(bytes.len() + 1))
        .rev()
        .find(|len| bytes.ends_with(&needle[..*len]))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential(secret: &str) -> Credential {
        Credential::new(
            "api.example.com",
            "Authorization",
            Secret::new(secret),
            Some("Bearer {secret}"),
        )
        .unwrap()
    }

    #[test]
    fn what_cannot_be_added_is_refused() {
        for (host, header, secret, format, expected) in [
            ("*.example.com", "x-key", "secret", None, CredentialError::Host),
            ("1.2.3.4", "x-key", "secret", None, CredentialError::Host),
            ("", "x-key", "secret", None, CredentialError::Host),
            ("a.example", "", "secret", None, CredentialError::Header),
            ("a.example", "x key", "secret", None, CredentialError::Header),
            ("a.example", "Host", "secret", None, CredentialError::Header),
            (
                "a.example",
                "Content-Length",
                "secret",
                None,
                CredentialError::Header,
            ),
            (
                "a.example",
                "proxy-authorization",
                "secret",
                None,
                CredentialError::Header,
            ),
            ("a.example", "x-key", "", None, CredentialError::Value),
            ("a.example", "x-key", "a\r\nx: y", None, CredentialError::Value),
            (
                "a.example",
                "x-key",
                "secret",
                Some("a\n{secret}"),
                CredentialError::Value,
            ),
        ] {
            let made = Credential::new(host, header, Secret::new(secret), format);
            assert_eq!(made.unwrap_err(), expected, "{host} {header}");
        }
    }

    #[test]
    fn copies_from_the_sandbox_are_replaced() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "mine"),
            ("AUTHORIZATION", "mine too"),
            ("accept", "*/*"),
        ] {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        add(&[credential("top-secret")], &mut headers);
        let all: Vec<_> = headers.get_all("authorization").iter().collect();
        assert_eq!(all, ["Bearer top-secret"]);
        assert!(!format!("{headers:?}").contains("top-secret"));
        assert!(!format!("{:?}", credential("top-secret")).contains("top-secret"));
    }

    #[test]
    fn a_secret_in_a_body_is_masked_wherever_it_is_cut() {
        let body = b"top-top-secret top-secre top-secret; top-secret".as_slice();
        let expected = "top-********** top-secre **********; **********";
        for size in 1..=body.len() {
            let mut mask = BodyMask::new(&[credential("top-secret")]);
            let mut out: Vec<u8> = body.chunks(size).flat_map(|piece| mask.push(piece)).collect();
            out.extend(mask.finish());
            assert_eq!(String::from_utf8(out).unwrap(), expected, "pieces of {size}");
        }
    }

    #[test]
    fn what_cannot_become_a_secret_is_not_held_back() {
        let mut mask = BodyMask::new(&[credential("top-secret")]);
        assert_eq!(mask.push(b"data: event\n\n"), b"data: event\n\n");
        assert_eq!(mask.push(b"data: to"), b"data: ");
        assert_eq!(mask.push(b"day\n\n"), b"today\n\n");
        // Too short to look for.
        let mut mask = BodyMask::new(&[credential("abc")]);
        assert_eq!(mask.push(b"abcabc"), b"abcabc");
    }
}
