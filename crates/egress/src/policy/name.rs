//! Host names and addresses in the one spelling in which they are compared. Every other spelling of an address (decimal,
//! octal, hexadecimal, shortened, mapped into IPv6, in full-width digits) becomes the address itself, so that none slips
//! past a rule or past the check of addresses.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// Longest name in the domain name system, without the final dot (RFC 1035, 2.3.4).
const MAX_NAME_BYTES: usize = 253;

/// Longest label of such a name.
const MAX_LABEL_BYTES: usize = 63;

/// Where a connection should go, as it was asked for: a name in lower-case ASCII without final dot, or an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    Name(String),
    /// Never an IPv4 address mapped into IPv6: that is the IPv4 address.
    Address(IpAddr),
}

/// What is not a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is neither a host name nor an IP address")]
pub struct HostInvalid;

impl Host {
    /// Reads a host as the WHATWG URL standard does (IDNA, numbers as IPv4 addresses, brackets around IPv6), without its
    /// percent-decoding; a bare IPv6 address is fine too.
    pub fn parse(text: &str) -> Result<Self, HostInvalid> {
        let is_odd =
            |character: char| character.is_control() || character.is_whitespace() || character == '%';
        if text.is_empty() || text.len() > 4 * MAX_NAME_BYTES || text.contains(is_odd) {
            return Err(HostInvalid);
        }
        if let Ok(address) = text.parse::<Ipv6Addr>() {
            return Ok(Self::Address(plain(address.into())));
        }
        match url::Host::parse(text).map_err(|_| HostInvalid)? {
            url::Host::Ipv4(address) => Ok(Self::Address(address.into())),
            url::Host::Ipv6(address) => Ok(Self::Address(plain(address.into()))),
            url::Host::Domain(name) => {
                let name = name.strip_suffix('.').unwrap_or(&name);
                let is_name = name.len() <= MAX_NAME_BYTES
                    && name.split('.').all(|label| {
                        (1..=MAX_LABEL_BYTES).contains(&label.len())
                            && label
                                .bytes()
                                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
                    });
                match is_name {
                    true => Ok(Self::Name(name.to_owned())),
                    false => Err(HostInvalid),
                }
            }
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    pub host: Host,
    /// Never 0 where it came from [`Target::new`].
    pub port: u16,
}

impl Target {
    /// Reads the host; port 0 is no port.
    pub fn new(host: &str, port: u16) -> Result<Self, HostInvalid> {
        match port {
            0 => Err(HostInvalid),
            port => Ok(Self {
                host: Host::parse(host)?,
                port,
            }),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// The IPv4 address behind one mapped into IPv6; any other address as it is.
pub fn plain(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_has_one_meaning() {
        for (text, expected) in [
            ("example.com", "example.com"),
            ("EXAMPLE.Com", "example.com"),
            ("example.com.", "example.com"),
            ("a_b.example.com", "a_b.example.com"),
            ("localhost", "localhost"),
            ("b\u{fc}cher.example", "xn--bcher-kva.example"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("exam\u{ad}ple.com", "example.com"),
            ("example\u{3002}com", "example.com"),
            ("\u{ff45}xample.com", "example.com"),
            ("127.0.0.1", "127.0.0.1"),
            ("127.0.0.1.", "127.0.0.1"),
            ("127.1", "127.0.0.1"),
            ("0x7f.1", "127.0.0.1"),
            ("0x7f000001", "127.0.0.1"),
            ("0X7F000001", "127.0.0.1"),
            ("2130706433", "127.0.0.1"),
            ("017700000001", "127.0.0.1"),
            ("0177.0.0.01", "127.0.0.1"),
            ("\u{ff11}27.0.0.1", "127.0.0.1"),
            ("127\u{3002}0\u{3002}0\u{3002}1", "127.0.0.1"),
            ("0", "0.0.0.0"),
            ("0xa9fea9fe", "169.254.169.254"),
            ("[::1]", "[::1]"),
            ("::1", "[::1]"),
            ("[0:0:0:0:0:0:0:1]", "[::1]"),
            ("[::ffff:127.0.0.1]", "127.0.0.1"),
            ("::ffff:a9fe:a9fe", "169.254.169.254"),
            ("[0:0:0:0:0:ffff:7f00:1]", "127.0.0.1"),
            ("2606:4700::1111", "[2606:4700::1111]"),
        ] {
            let host = Host::parse(text).unwrap_or_else(|_| panic!("{text} is a host"));
            assert_eq!(host.to_string(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for text in [
            "",
            ".",
            "..",
            "a..b",
            ".example.com",
            "example.com..",
            "exa mple.com",
            "example.com\0.evil.example",
            "%65xample.com",
            "example.com%00",
            "user@example.com",
            "example.com/path",
            "example.com:443",
            "example.com#x",
            "example.com?x",
            "exa\\mple.com",
            "1.2.3.4.5",
            "256.1.1.1",
            "4294967296",
            "0x100000000",
            "example.0x1",
            "08.1",
            "*.example.com",
            "[::1",
            "[::1]]",
            "[fe80::1%25eth0]",
            "fe80::1%eth0",
            "[127.0.0.1]",
            "[example.com]",
            &"a".repeat(64),
            &"a.".repeat(200),
        ] {
            assert_eq!(Host::parse(text), Err(HostInvalid), "{text:?}");
        }
    }
}
