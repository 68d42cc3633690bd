//! What a sandbox may reach: rules over hosts and ports, and the addresses that are refused whatever a name says. Decides
//! only; resolving and connecting is done elsewhere.

pub mod name;
mod preset;
pub mod rule;

use crate::address::{self, AddressKind};
use greenroom_protocol::environment::EgressPolicy;
use ipnet::IpNet;
use name::{Host, Target};
use rule::{Pattern, Rule, RuleProblem};
use std::net::IpAddr;
use std::str::FromStr;

/// The port on which credentials are added.
pub const CREDENTIAL_PORT: u16 = 443;

/// What one sandbox may reach. The default is nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    rules: Vec<Rule>,
    exceptions: Vec<AddressException>,
}

/// What is wrong with a policy as it was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    #[error("`{entry}` is not an egress rule: {problem}")]
    Rule { entry: String, problem: RuleProblem },
    #[error("credentials belong to one exact host name, not to `{host}`")]
    CredentialHost { host: String },
}

impl Policy {
    /// Reads a policy. Fails at the first rule that means nothing, so that a mistyped one is not passed over.
    pub fn compile(policy: &EgressPolicy) -> Result<Self, PolicyError> {
        let named = policy.allow.iter().map(String::as_str);
        let mut rules = named
            .chain(preset::rules(policy.preset).iter().copied())
            .map(|entry| {
                Rule::parse(entry).map_err(|problem| PolicyError::Rule {
                    entry: entry.to_owned(),
                    problem,
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        for credential in &policy.credentials {
            match Target::new(&credential.host, CREDENTIAL_PORT) {
                Ok(target) if matches!(target.host, Host::Name(_)) => rules.push(Rule::exact(&target)),
                Ok(_) | Err(_) => {
                    return Err(PolicyError::CredentialHost {
                        host: credential.host.clone(),
                    });
                }
            }
        }
        Ok(Self {
            rules,
            exceptions: Vec::new(),
        })
    }

    /// The same policy for a company's own network: these addresses are not refused for being private. They still need a
    /// rule. For administrators only; an environment must never get to say this.
    pub fn allow_addresses(mut self, exceptions: impl IntoIterator<Item = AddressException>) -> Self {
        self.exceptions.extend(exceptions);
        self
    }

    /// The rule that allows a target, in the words of the policy.
    pub fn rule_for(&self, target: &Target) -> Option<String> {
        self.rules
            .iter()
            .find(|rule| rule.matches(target))
            .map(Rule::to_string)
    }

    /// Why a target's address is refused, if it is.
    pub fn refuse_address(&self, host: &Host, address: IpAddr) -> Option<AddressKind> {
        let kind =
            address::refused(address).or_else(|| address::is_own(address).then_some(AddressKind::Own))?;
        let is_allowed = kind.can_be_allowed()
            && self
                .exceptions
                .iter()
                .any(|exception| exception.covers(host, address));
        (!is_allowed).then_some(kind)
    }
}

/// A network, or a host whatever its address, that an administrator takes out of the refused addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressException(Exception);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Exception {
    Net(IpNet),
    Host(Pattern),
}

/// What is no exception.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither a network such as 10.0.0.0/8 nor a host such as git.example.com or *.example.com")]
pub struct AddressExceptionInvalid(String);

impl FromStr for AddressException {
    type Err = AddressExceptionInvalid;

    /// Reads `10.0.0.0/8`, `10.1.2.3`, `git.example.com` or `*.example.com`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if let Ok(net) = text.parse::<IpNet>() {
            return Ok(Self(Exception::Net(net.trunc())));
        }
        match Pattern::parse(text) {
            Ok(Pattern::Exact(Host::Address(address))) => Ok(Self(Exception::Net(address.into()))),
            Ok(pattern) => Ok(Self(Exception::Host(pattern))),
            Err(_) => Err(AddressExceptionInvalid(text.to_owned())),
        }
    }
}

impl AddressException {
    fn covers(&self, host: &Host, address: IpAddr) -> bool {
        match &self.0 {
            Exception::Net(net) => address::is_in(net, address),
            Exception::Host(pattern) => pattern.matches(host),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use greenroom_protocol::environment::{EgressCredential, EgressPreset};

    fn policy(allow: &[&str]) -> EgressPolicy {
        EgressPolicy {
            allow: allow.iter().map(|entry| (*entry).to_owned()).collect(),
            ..EgressPolicy::default()
        }
    }

    #[test]
    fn nothing_is_allowed_that_no_rule_names() {
        let registries = EgressPolicy {
            preset: EgressPreset::PackageRegistries,
            ..policy(&["*.example.com"])
        };
        let with_credential = EgressPolicy {
            credentials: vec![EgressCredential {
                host: "API.example.org".into(),
                header: "authorization".into(),
                secret: "token".into(),
                format: None,
            }],
            ..policy(&[])
        };
        for (policy, host, port, expected) in [
            (&policy(&[]), "example.com", 443, None),
            (&policy(&["example.com"]), "example.com", 443, Some("example.com")),
            (&policy(&["example.com"]), "example.com", 22, None),
            (&registries, "crates.io", 443, Some("crates.io:443")),
            (&registries, "crates.io", 80, None),
            (&registries, "deb.debian.org", 80, Some("deb.debian.org")),
            (&registries, "a.example.com", 443, Some("*.example.com")),
            (&registries, "example.org", 443, None),
            (
                &with_credential,
                "api.example.org",
                443,
                Some("api.example.org:443"),
            ),
            (&with_credential, "api.example.org", 80, None),
        ] {
            let compiled = Policy::compile(policy).unwrap();
            let rule = compiled.rule_for(&Target::new(host, port).unwrap());
            assert_eq!(rule.as_deref(), expected, "{host}:{port}");
        }
    }

    #[test]
    fn a_rule_that_means_nothing_is_an_error() {
        let error = Policy::compile(&policy(&["example.com", "https://x.example"])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`https://x.example` is not an egress rule: a rule is a host without scheme, path or user"
        );
        for host in ["1.2.3.4", "*.example.com", "", "example.com:443"] {
            let policy = EgressPolicy {
                credentials: vec![EgressCredential {
                    host: host.into(),
                    header: "x".into(),
                    secret: "s".into(),
                    format: None,
                }],
                ..EgressPolicy::default()
            };
            assert!(
                matches!(Policy::compile(&policy), Err(PolicyError::CredentialHost { .. })),
                "{host}"
            );
        }
    }

    #[test]
    fn only_named_exceptions_lift_the_refusal_of_an_address() {
        use AddressKind::{Loopback, Metadata, Private, Unspecified};
        for (exceptions, host, address, expected) in [
            (&[][..], "a.example.com", "10.0.0.1", Some(Private)),
            (&[], "a.example.com", "1.1.1.1", None),
            (&["10.0.0.0/8"], "a.example.com", "10.0.0.1", None),
            (&["10.0.0.0/8"], "a.example.com", "::ffff:10.0.0.1", None),
            (&["10.0.0.0/8"], "a.example.com", "192.168.0.1", Some(Private)),
            (&["10.0.0.1"], "a.example.com", "10.0.0.2", Some(Private)),
            (&["127.0.0.0/8"], "a.example.com", "127.0.0.1", None),
            (&["fd00::/8"], "a.example.com", "fd00::1", None),
            (&["::1"], "a.example.com", "::1", None),
            (&["::1"], "a.example.com", "127.0.0.1", Some(Loopback)),
            (&["a.example.com"], "a.example.com", "10.0.0.1", None),
            (&["a.example.com"], "b.example.com", "10.0.0.1", Some(Private)),
            (&["*.example.com"], "b.example.com", "10.0.0.1", None),
            (&["*.example.com"], "10.0.0.1", "10.0.0.1", Some(Private)),
            // Never, however widely it was written.
            (&["0.0.0.0/0"], "a.example.com", "169.254.169.254", Some(Metadata)),
            (&["fd00::/8"], "a.example.com", "fd00:ec2::254", Some(Metadata)),
            (
                &["a.example.com"],
                "a.example.com",
                "168.63.129.16",
                Some(Metadata),
            ),
            (&["0.0.0.0/0"], "a.example.com", "0.0.0.0", Some(Unspecified)),
        ] {
            let policy =
                Policy::default().allow_addresses(exceptions.iter().map(|text| text.parse().unwrap()));
            let host = Host::parse(host).unwrap();
            assert_eq!(
                policy.refuse_address(&host, address.parse().unwrap()),
                expected,
                "{exceptions:?} {host} {address}"
            );
        }
        for text in ["", "10.0.0.0/33", "example.com:443", "*", "https://x.example"] {
            assert!(text.parse::<AddressException>().is_err(), "{text}");
        }
    }
}
