//! What was decided about one connection or request, for the log of the session and for metrics; and in which words the
//! sandbox is told.

use crate::address::AddressKind;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// Told of every decision, once per connection (tunnels, SOCKS) or request (plain HTTP), when it is known whether the
/// connection came about. Called on the task that serves the connection: must return at once.
pub type Observer = Arc<dyn Fn(&Decision) + Send + Sync>;

/// One decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// In lower case without final dot, an address in its usual spelling; as it was sent (cut to 253 bytes) where it is no host.
    pub host: String,
    pub port: u16,
    pub protocol: Protocol,
    pub verdict: Verdict,
    pub reason: Reason,
    /// Where the connection went, or the address that was refused. `None` if no name was resolved.
    pub address: Option<IpAddr>,
    /// Whether the host adds a credential to what is sent here.
    pub has_credential: bool,
}

/// How the sandbox asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// A plain HTTP request to the HTTP proxy.
    Http,
    /// A tunnel through the HTTP proxy.
    Connect,
    /// A connection through the SOCKS proxy.
    Socks,
}

impl Protocol {
    /// Stable word for logs and metrics.
    pub fn code(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Connect => "connect",
            Self::Socks => "socks",
        }
    }
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    Allowed,
    /// The policy says no.
    Refused,
    /// The policy says yes, and there was no connection.
    Failed,
}

impl Verdict {
    /// Stable word for logs and metrics.
    pub fn code(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// Why it ended so.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Allowed by this rule, in the words of the policy.
    Rule(String),
    /// No rule names the host and port.
    NotAllowed,
    /// What was asked for is no host, or has no port.
    HostInvalid,
    /// The name (one of its addresses is enough) leads to, or is, an address that is refused.
    Address(AddressKind),
    NameUnknown,
    NameTimeout,
    /// The other side refused the connection.
    ConnectionRefused,
    ConnectionTimeout,
    /// No way to any of the addresses.
    Unreachable,
}

impl Reason {
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Rule(_) => Verdict::Allowed,
            Self::NotAllowed | Self::HostInvalid | Self::Address(_) => Verdict::Refused,
            Self::NameUnknown
            | Self::NameTimeout
            | Self::ConnectionRefused
            | Self::ConnectionTimeout
            | Self::Unreachable => Verdict::Failed,
        }
    }

    /// Stable word for logs and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Rule(_) => "rule",
            Self::NotAllowed => "not_allowed",
            Self::HostInvalid => "host_invalid",
            Self::Address(kind) => kind.code(),
            Self::NameUnknown => "name_unknown",
            Self::NameTimeout => "name_timeout",
            Self::ConnectionRefused => "connection_refused",
            Self::ConnectionTimeout => "connection_timeout",
            Self::Unreachable => "unreachable",
        }
    }
}

/// What follows "host:port" in a sentence.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(rule) => write!(f, "is allowed by the rule {rule}"),
            Self::NotAllowed => f.write_str("is not allowed by this environment"),
            Self::HostInvalid => f.write_str("is not a host and port"),
            Self::Address(kind) => write!(f, "leads to {kind}"),
            Self::NameUnknown => f.write_str("has a name that does not resolve"),
            Self::NameTimeout => f.write_str("has a name that did not resolve in time"),
            Self::ConnectionRefused => f.write_str("refused the connection"),
            Self::ConnectionTimeout => f.write_str("did not accept the connection in time"),
            Self::Unreachable => f.write_str("cannot be reached from here"),
        }
    }
}

/// "example.com:443 is not allowed by this environment".
impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} {}", self.host, self.port, self.reason)
    }
}
