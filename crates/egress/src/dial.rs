//! From a host and port to a connection: asks the policy, resolves, checks every address, and connects to exactly an address
//! that was checked. A name that leads elsewhere the next time gains nothing by it.

use crate::decision::{Decision, Protocol, Reason, Verdict};
use crate::egress::Inner;
use crate::meter::Counters;
use crate::policy::name::{Host, Target};
use std::io;
use std::net::IpAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Most addresses of one name that are tried.
const MAX_TRIED: usize = 4;

/// How long an address may hesitate before the next one is tried too (RFC 8305, 5).
const NEXT_AFTER: Duration = Duration::from_millis(250);

/// Most characters of something that is no host in a decision.
const MAX_SHOWN: usize = 253;

/// A connection to where a sandbox wanted.
#[derive(Debug)]
pub(crate) struct Dialed {
    pub stream: TcpStream,
    pub address: IpAddr,
}

impl Inner {
    /// Connects, if the policy allows it, and reports the decision either way.
    pub async fn dial(&self, target: &Target, protocol: Protocol) -> Result<Dialed, Decision> {
        let (rule, addresses) = match self.find(target).await {
            Ok(found) => found,
            Err((reason, address)) => return Err(self.report(target, protocol, reason, address)),
        };
        match self.connect(&addresses, target.port).await {
            Ok(dialed) => {
                self.report(target, protocol, Reason::Rule(rule), Some(dialed.address));
                Ok(dialed)
            }
            Err(reason) => Err(self.report(target, protocol, reason, addresses.first().copied())),
        }
    }

    /// Decides again about a target to which a connection is open already.
    pub fn decide_again(&self, target: &Target, protocol: Protocol, address: IpAddr) -> Result<(), Decision> {
        match self.policy.rule_for(target) {
            Some(rule) => {
                self.report(target, protocol, Reason::Rule(rule), Some(address));
                Ok(())
            }
            None => Err(self.report(target, protocol, Reason::NotAllowed, None)),
        }
    }

    /// Reports what is no host.
    pub fn refuse_invalid(&self, host: &str, port: u16, protocol: Protocol) -> Decision {
        let shown: String = host
            .chars()
            .filter(|character| !character.is_control())
            .take(MAX_SHOWN)
            .collect();
        self.tell(Decision {
            host: shown,
            port,
            protocol,
            verdict: Reason::HostInvalid.verdict(),
            reason: Reason::HostInvalid,
            address: None,
            has_credential: false,
        })
    }

    fn report(
        &self,
        target: &Target,
        protocol: Protocol,
        reason: Reason,
        address: Option<IpAddr>,
    ) -> Decision {
        let is_tunnel = match protocol {
            Protocol::Http => false,
            Protocol::Connect | Protocol::Socks => true,
        };
        let verdict = reason.verdict();
        self.tell(Decision {
            host: target.host.to_string(),
            port: target.port,
            protocol,
            verdict,
            reason,
            address,
            has_credential: is_tunnel && verdict == Verdict::Allowed && self.has_credential(target),
        })
    }

    fn has_credential(&self, target: &Target) -> bool {
        self.interceptor
            .as_ref()
            .is_some_and(|interceptor| interceptor.is_for(target))
    }

    fn tell(&self, decision: Decision) -> Decision {
        let counter = match decision.verdict {
            Verdict::Allowed => &self.counters.allowed,
            Verdict::Refused => &self.counters.refused,
            Verdict::Failed => &self.counters.failed,
        };
        Counters::count(counter, 1);
        (self.observer)(&decision);
        decision
    }

    /// The rule that allows the target, and its addresses: at least one, none refused.
    async fn find(&self, target: &Target) -> Result<(String, Vec<IpAddr>), (Reason, Option<IpAddr>)> {
        let rule = self.policy.rule_for(target).ok_or((Reason::NotAllowed, None))?;
        let addresses = match &target.host {
            Host::Address(address) => vec![*address],
            Host::Name(name) => {
                let asked = self.resolver.resolve(name);
                let mut found = tokio::time::timeout(self.limits.resolve_timeout, asked)
                    .await
                    .map_err(|_| (Reason::NameTimeout, None))?
                    .map_err(|_| (Reason::NameUnknown, None))?;
                for address in &mut found {
                    *address = address.to_canonical();
                }
                found
            }
        };
        // One bad address among good ones is what an attack by name looks like.
        for address in &addresses {
            if let Some(kind) = self.policy.refuse_address(&target.host, *address) {
                return Err((Reason::Address(kind), Some(*address)));
            }
        }
        match addresses.is_empty() {
            true => Err((Reason::NameUnknown, None)),
            false => Ok((rule, addresses)),
        }
    }

    /// Tries the addresses one after the other, the next one also while the last still hesitates (RFC 8305).
    async fn connect(&self, addresses: &[IpAddr], port: u16) -> Result<Dialed, Reason> {
        let limit = self.limits.connect_timeout;
        let mut waiting = in_turns(addresses).into_iter().take(MAX_TRIED);
        let mut attempts = JoinSet::new();
        let mut reason = Reason::Unreachable;
        loop {
            if let Some(address) = waiting.next() {
                attempts.spawn(async move {
                    let connecting = TcpStream::connect((address, port));
                    (address, tokio::time::timeout(limit, connecting).await)
                });
            }
            // With nothing waiting any more the pause is as long as an attempt can be.
            let pause = match waiting.len() {
                0 => limit * 2,
                _ => NEXT_AFTER,
            };
            let ended = match tokio::time::timeout(pause, attempts.join_next()).await {
                Ok(Some(ended)) => ended,
                Ok(None) => return Err(reason),
                Err(_) => continue,
            };
            match ended {
                Ok((address, Ok(Ok(stream)))) => {
                    // Small writes of requests must not wait for one another.
                    let _ = stream.set_nodelay(true);
                    return Ok(Dialed { stream, address });
                }
                Ok((_, Ok(Err(error)))) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    reason = Reason::ConnectionRefused;
                }
                Ok((_, Ok(Err(error)))) if error.kind() == io::ErrorKind::TimedOut => {
                    reason = Reason::ConnectionTimeout;
                }
                Ok((address, Ok(Err(error)))) => tracing::debug!(%error, %address, "connect for a sandbox"),
                Ok((_, Err(_))) => reason = Reason::ConnectionTimeout,
                Err(error) => tracing::debug!(%error, "connect for a sandbox"),
            }
        }
    }
}

/// Addresses with both families in turns, the first one's family first: a machine may have no way out for one of them.
fn in_turns(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let is_first = |address: &&IpAddr| {
        addresses
            .first()
            .is_some_and(|first| first.is_ipv4() == address.is_ipv4())
    };
    let (first, second): (Vec<_>, Vec<_>) = addresses.iter().partition(is_first);
    let longer = first.len().max(second.len());
    (0..longer)
        .flat_map(|index| [first.get(index), second.get(index)])
        .flatten()
        .copied()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_get_their_turn() {
        let parse = |text: &str| {
            text.split_whitespace()
                .map(|one| one.parse().unwrap())
                .collect::<Vec<IpAddr>>()
        };
        for (given, expected) in [
            ("", ""),
            ("1.1.1.1 1.1.1.2", "1.1.1.1 1.1.1.2"),
            ("::1 ::2 ::3 1.1.1.1", "::1 1.1.1.1 ::2 ::3"),
            ("1.1.1.1 ::1 ::2", "1.1.1.1 ::1 ::2"),
        ] {
            assert_eq!(in_turns(&parse(given)), parse(expected), "{given}");
        }
    }
}
