//! One line of a policy: a host or all names below one, and ports.

use super::name::{Host, Target};
use std::fmt;

/// A set of hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    Exact(Host),
    /// `*.name`: every name below, not the name itself.
    Below(String),
}

/// Why a line is no rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RuleProblem {
    #[error("it names no host and no IP address")]
    Host,
    #[error("the port is not a number from 1 to 65535")]
    Port,
    #[error("a `*` stands only at the beginning, as in `*.example.com`")]
    Star,
    #[error("`*` over a whole top-level domain is too much")]
    TooWide,
    #[error("a rule is a host without scheme, path or user")]
    Url,
}

impl Pattern {
    /// Reads `name`, an address, or `*.name`.
    pub fn parse(text: &str) -> Result<Self, RuleProblem> {
        if text.contains(['/', '@', '?', '#']) {
            return Err(RuleProblem::Url);
        }
        match text.strip_prefix("*.") {
            Some(rest) => match Host::parse(rest) {
                Ok(Host::Name(name)) if name.contains('.') => Ok(Self::Below(name)),
                Ok(Host::Name(_)) => Err(RuleProblem::TooWide),
                Ok(Host::Address(_)) => Err(RuleProblem::Star),
                Err(_) if rest.contains('*') => Err(RuleProblem::Star),
                Err(_) => Err(RuleProblem::Host),
            },
            None if text.contains('*') => Err(RuleProblem::Star),
            None => Ok(Self::Exact(Host::parse(text).map_err(|_| RuleProblem::Host)?)),
        }
    }

    pub fn matches(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::Exact(expected), host) => expected == host,
            (Self::Below(parent), Host::Name(name)) => name
                .strip_suffix(parent.as_str())
                .is_some_and(|child| child.ends_with('.')),
            (Self::Below(_), Host::Address(_)) => false,
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => host.fmt(f),
            Self::Below(parent) => write!(f, "*.{parent}"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ports {
    /// 80 and 443.
    Web,
    One(u16),
}

/// Hosts and ports that may be connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pattern: Pattern,
    ports: Ports,
}

impl Rule {
    /// Reads `pattern` or `pattern:port`; an IPv6 address with a port stands in brackets.
    pub fn parse(text: &str) -> Result<Self, RuleProblem> {
        let text = text.trim();
        if text.contains("://") {
            return Err(RuleProblem::Url);
        }
        let (host, port) = match text.rsplit_once(':') {
            // The colons of an address.
            Some((before, _)) if before.contains(':') && !before.ends_with(']') => (text, None),
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        };
        let ports = match port {
            None => Ports::Web,
            Some(port) => Ports::One(parse_port(port).ok_or(RuleProblem::Port)?),
        };
        Ok(Self {
            pattern: Pattern::parse(host)?,
            ports,
        })
    }

    /// Exactly this host and port.
    pub fn exact(target: &Target) -> Self {
        Self {
            pattern: Pattern::Exact(target.host.clone()),
            ports: Ports::One(target.port),
        }
    }

    pub fn matches(&self, target: &Target) -> bool {
        let is_port = match self.ports {
            Ports::Web => matches!(target.port, 80 | 443),
            Ports::One(port) => target.port == port,
        };
        is_port && self.pattern.matches(&target.host)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ports {
            Ports::Web => self.pattern.fmt(f),
            Ports::One(port) => write!(f, "{}:{port}", self.pattern),
        }
    }
}

/// Digits only: `u16::from_str` would take a sign.
fn parse_port(text: &str) -> Option<u16> {
    let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match is_digits.then(|| text.parse().ok()).flatten() {
        Some(0) | None => None,
        port => port,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_in_one_way() {
        for (text, expected) in [
            ("example.com", Ok("example.com")),
            (" Example.COM. ", Ok("example.com")),
            ("example.com:8443", Ok("example.com:8443")),
            ("*.example.com", Ok("*.example.com")),
            ("*.Example.com:22", Ok("*.example.com:22")),
            ("b\u{fc}cher.example", Ok("xn--bcher-kva.example")),
            ("*.b\u{fc}cher.example:1", Ok("*.xn--bcher-kva.example:1")),
            ("localhost:3000", Ok("localhost:3000")),
            ("1.2.3.4", Ok("1.2.3.4")),
            ("0x01020304:5", Ok("1.2.3.4:5")),
            ("[2606:4700::1111]:443", Ok("[2606:4700::1111]:443")),
            ("[2606:4700::1111]", Ok("[2606:4700::1111]")),
            ("2606:4700::1111", Ok("[2606:4700::1111]")),
            ("", Err(RuleProblem::Host)),
            ("   ", Err(RuleProblem::Host)),
            (":443", Err(RuleProblem::Host)),
            ("exa mple.com", Err(RuleProblem::Host)),
            ("*.", Err(RuleProblem::Host)),
            ("example.com:", Err(RuleProblem::Port)),
            ("example.com:0", Err(RuleProblem::Port)),
            ("example.com:65536", Err(RuleProblem::Port)),
            ("example.com:+443", Err(RuleProblem::Port)),
            ("example.com:https", Err(RuleProblem::Port)),
            ("example.com:*", Err(RuleProblem::Port)),
            ("*", Err(RuleProblem::Star)),
            ("*example.com", Err(RuleProblem::Star)),
            ("a.*.example.com", Err(RuleProblem::Star)),
            ("*.*.example.com", Err(RuleProblem::Star)),
            ("*.1.2.3.4", Err(RuleProblem::Star)),
            ("*.com", Err(RuleProblem::TooWide)),
            ("*.com.", Err(RuleProblem::TooWide)),
            ("https://example.com", Err(RuleProblem::Url)),
            ("example.com/path", Err(RuleProblem::Url)),
            ("user@example.com", Err(RuleProblem::Url)),
        ] {
            let read = Rule::parse(text).map(|rule| rule.to_string());
            assert_eq!(read.as_deref(), expected.as_ref().map(|text| *text), "{text:?}");
        }
    }

    #[test]
    fn rules_match_what_they_say() {
        for (rule, host, port, expected) in [
            ("example.com", "example.com", 443, true),
            ("example.com", "example.com", 80, true),
            ("example.com", "example.com", 8080, false),
            ("example.com", "EXAMPLE.com.", 443, true),
            ("example.com", "www.example.com", 443, false),
            ("example.com", "example.com.evil.example", 443, false),
            ("example.com", "notexample.com", 443, false),
            ("example.com:8080", "example.com", 8080, true),
            ("example.com:8080", "example.com", 443, false),
            ("*.example.com", "www.example.com", 443, true),
            ("*.example.com", "a.b.example.com", 443, true),
            ("*.example.com", "example.com", 443, false),
            ("*.example.com", "notexample.com", 443, false),
            ("*.example.com", "evil.example.com.evil.example", 443, false),
            ("*.example.com:22", "git.example.com", 22, true),
            ("*.example.com:22", "git.example.com", 443, false),
            ("b\u{fc}cher.example", "xn--bcher-kva.example", 443, true),
            ("1.2.3.4", "1.2.3.4", 443, true),
            ("1.2.3.4", "0x01020304", 443, true),
            ("1.2.3.4", "::ffff:1.2.3.4", 443, true),
            ("1.2.3.4", "1.2.3.5", 443, false),
            ("[2606:4700::1]:443", "[2606:4700:0:0::1]", 443, true),
        ] {
            let target = Target::new(host, port).unwrap();
            assert_eq!(
                Rule::parse(rule).unwrap().matches(&target),
                expected,
                "{rule} {host}:{port}"
            );
        }
    }
}
