//! A decision as people and programs are told of it, with what would allow a refused one.

use super::ledger::Decided;
use greenroom_egress::{AddressKind, Decision, Protocol, Reason, Verdict};
use greenroom_protocol::client::environment::EnvironmentSource;
use greenroom_protocol::client::event::{EgressProtocol, EgressVerdict};
use greenroom_protocol::environment::EgressCredential;

/// Who can allow more, for the hint.
#[derive(Debug, Clone)]
pub struct Advice {
    repository: String,
    source: EnvironmentSource,
    /// Whether a repository's own file may name hosts.
    is_file_free: bool,
    /// Credentials whose secret is missing or useless.
    lacking: Vec<EgressCredential>,
}

impl Advice {
    pub fn new(repository: &str, source: EnvironmentSource, is_file_free: bool) -> Self {
        Self {
            repository: repository.to_owned(),
            source,
            is_file_free,
            lacking: Vec::new(),
        }
    }

    pub(super) fn without_credentials(self, lacking: Vec<EgressCredential>) -> Self {
        Self { lacking, ..self }
    }

    fn hint(&self, decision: &Decision) -> Option<String> {
        match &decision.reason {
            // A rule alone would not help.
            Reason::NotAllowed => match AddressKind::of_written(&decision.host) {
                Some(kind) if !kind.can_be_allowed() => {
                    Some("No rule can allow it: sandboxes are kept away from such addresses.".to_owned())
                }
                _ => Some(self.rule(decision)),
            },
            Reason::Address(kind) if kind.can_be_allowed() => Some(
                "The operator of the server can except addresses with `egress.allow_addresses`.".to_owned(),
            ),
            Reason::Rule(_)
            | Reason::HostInvalid
            | Reason::Address(_)
            | Reason::NameUnknown
            | Reason::NameTimeout
            | Reason::ConnectionRefused
            | Reason::ConnectionTimeout
            | Reason::Unreachable => None,
        }
    }

    fn rule(&self, decision: &Decision) -> String {
        if let Some(lacking) = self
            .lacking
            .iter()
            .find(|lacking| lacking.host.eq_ignore_ascii_case(&decision.host))
        {
            return format!(
                "Its credential cannot be used: an administrator can store it with `greenroom secret set {}`.",
                lacking.secret
            );
        }
        let entry = match decision.port {
            80 | 443 => decision.host.clone(),
            port => format!("{}:{port}", decision.host),
        };
        let file = ".greenroom/environment.toml";
        match (self.source, self.is_file_free) {
            (EnvironmentSource::Administrator, _) => format!(
                "An administrator can add `{entry}` to `egress.allow` of the environment set for {}.",
                self.repository
            ),
            (_, true) => {
                format!("Add `{entry}` to `egress.allow` in {file}; it applies when a sandbox starts.")
            }
            (_, false) => format!(
                "An administrator can allow `{entry}` with `greenroom env set {} FILE`.",
                self.repository
            ),
        }
    }
}

/// A decision in the words of the session's log.
pub(super) fn told(decision: &Decision, advice: &Advice) -> Decided {
    Decided {
        host: decision.host.clone(),
        port: decision.port,
        protocol: match decision.protocol {
            Protocol::Http => EgressProtocol::Http,
            Protocol::Connect => EgressProtocol::Connect,
            Protocol::Socks => EgressProtocol::Socks,
        },
        verdict: match decision.verdict {
            Verdict::Allowed if decision.has_credential => EgressVerdict::AllowedWithCredential,
            Verdict::Allowed => EgressVerdict::Allowed,
            Verdict::Refused => EgressVerdict::Refused,
            Verdict::Failed => EgressVerdict::Failed,
        },
        code: decision.reason.code(),
        reason: decision.reason.to_string(),
        hint: advice.hint(decision),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_name_the_rule_and_who_can_write_it() {
        let refused = |port: u16, reason: Reason| Decision {
            host: "a.example".to_owned(),
            port,
            protocol: Protocol::Connect,
            verdict: Verdict::Refused,
            reason,
            address: None,
            has_credential: false,
        };
        let administrator = Advice::new("shop", EnvironmentSource::Administrator, false);
        let bound = Advice::new("shop", EnvironmentSource::Defaults, false);
        let free = Advice::new("shop", EnvironmentSource::Repository, true);
        let lacking = administrator.clone().without_credentials(vec![EgressCredential {
            host: "A.example".to_owned(),
            header: "x".to_owned(),
            secret: "api".to_owned(),
            format: None,
        }]);
        for (advice, port, expected) in [
            (
                &administrator,
                443,
                "An administrator can add `a.example` to `egress.allow` of the environment set for shop.",
            ),
            (
                &bound,
                8443,
                "An administrator can allow `a.example:8443` with `greenroom env set shop FILE`.",
            ),
            (
                &free,
                80,
                "Add `a.example` to `egress.allow` in .greenroom/environment.toml; it applies when a sandbox starts.",
            ),
            (
                &lacking,
                443,
                "Its credential cannot be used: an administrator can store it with `greenroom secret set api`.",
            ),
        ] {
            let told = told(&refused(port, Reason::NotAllowed), advice);
            assert_eq!(told.hint.as_deref(), Some(expected));
            assert_eq!(
                (told.code, told.reason.as_str()),
                ("not_allowed", "is not allowed by this environment")
            );
        }
        let metadata = Decision {
            host: "169.254.169.254".to_owned(),
            ..refused(80, Reason::NotAllowed)
        };
        assert_eq!(
            told(&metadata, &free).hint.as_deref(),
            Some("No rule can allow it: sandboxes are kept away from such addresses."),
            "a rule that does not help is not advised"
        );
        assert!(
            told(&refused(443, Reason::Address(AddressKind::Private)), &free)
                .hint
                .is_some()
        );
        assert_eq!(
            told(&refused(443, Reason::Address(AddressKind::Metadata)), &free).hint,
            None
        );
    }
}
