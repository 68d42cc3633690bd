//! The way out of one session's sandbox: the policy of its environment, credentials from the secret store, and what is told
//! of each decision. How connections are proxied is the egress crate's.

mod ledger;
mod words;

pub use ledger::EgressLedger;
pub use words::Advice;

use crate::metrics::Metrics;
use greenroom_egress::{AddressException, Authority, CertificateDer, Credential, Egress, Policy, Trust};
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::environment::{EgressCredential, EgressPolicy};
use greenroom_protocol::guest::Route;
use greenroom_protocol::id::SandboxId;
use greenroom_stdx::chain::Chain;
use greenroom_stdx::secret::Secret;
use greenroom_store::catalog::Catalog;
use std::sync::Arc;
use tokio::io::DuplexStream;
use tokio::sync::Mutex;

/// Purpose of the key that sandboxes' authorities are derived from.
const AUTHORITY_KEY: &str = "egress authority";

/// What the operator adds to every sandbox's way out.
#[derive(Debug, Clone, Default)]
pub struct EgressSettings {
    /// Not refused for being private; they still need a rule.
    pub address_exceptions: Vec<AddressException>,
    /// Trusted besides the machine's own certificates, by the host and in sandboxes.
    pub extra_roots: Vec<CertificateDer<'static>>,
}

/// The way out of one sandbox.
pub struct SandboxEgress {
    catalog: Arc<Catalog>,
    settings: EgressSettings,
    sandbox: SandboxId,
    policy: EgressPolicy,
    advice: Advice,
    ledger: Arc<EgressLedger>,
    metrics: Arc<Metrics>,
    current: Mutex<Option<Current>>,
}

/// What connections are served with as long as the secrets stay the same.
struct Current {
    /// In the order of the credentials; `None`: not stored.
    secrets: Vec<Option<Secret>>,
    egress: Egress,
}

impl SandboxEgress {
    /// Nothing is read yet.
    pub fn new(
        catalog: Arc<Catalog>,
        settings: EgressSettings,
        sandbox: SandboxId,
        policy: EgressPolicy,
        advice: Advice,
        ledger: Arc<EgressLedger>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            catalog,
            settings,
            sandbox,
            policy,
            advice,
            ledger,
            metrics,
            current: Mutex::new(None),
        })
    }

    /// What the sandbox must trust; `None` if its own certificates are enough. The same whether or not the secrets are
    /// stored yet: they may come while it runs.
    pub fn trust(&self) -> Result<Option<Trust>, Problem> {
        // Only the authority counts; nothing is ever served with these.
        let stand_ins = vec![Some(Secret::new("-")); self.policy.credentials.len()];
        Ok(self.opened(&stand_ins)?.trust())
    }

    /// Serves one connection of the sandbox to its end.
    pub async fn serve(&self, route: Route, stream: DuplexStream) {
        let egress = match self.current().await {
            Ok(egress) => egress,
            Err(problem) => {
                // Closed at once: programs in the sandbox see a proxy that is broken and do not wait.
                tracing::error!(sandbox = %self.sandbox, code = problem.code, "a sandbox has no way out: {}", problem.message);
                return;
            }
        };
        match route {
            Route::HttpProxy => egress.serve_http(stream).await,
            Route::Socks => egress.serve_socks(stream).await,
            Route::Git => tracing::error!("a git connection came to the egress"),
        }
    }

    /// By the secrets as they are stored now, so that one that was changed or removed is not used any more.
    async fn current(&self) -> Result<Egress, Problem> {
        let mut current = self.current.lock().await;
        let secrets = self.secrets().await?;
        if let Some(current) = current
            .as_ref()
            .filter(|current| is_same(&current.secrets, &secrets))
        {
            return Ok(current.egress.clone());
        }
        let egress = self.opened(&secrets)?;
        *current = Some(Current {
            secrets,
            egress: egress.clone(),
        });
        Ok(egress)
    }

    async fn secrets(&self) -> Result<Vec<Option<Secret>>, Problem> {
        let mut secrets = Vec::new();
        for credential in &self.policy.credentials {
            let secret = self.catalog.secret(&credential.secret).await;
            secrets.push(secret.map_err(|error| error.problem())?);
        }
        Ok(secrets)
    }

    fn opened(&self, secrets: &[Option<Secret>]) -> Result<Egress, Problem> {
        self.open(secrets).map_err(|error| {
            tracing::error!(sandbox = %self.sandbox, error = %Chain(error.as_ref()), "an egress cannot be set up");
            Problem::permanent("egress_unusable", "The sandbox's way out cannot be set up.")
                .with_hint("The server's log says why.")
        })
    }

    fn open(&self, secrets: &[Option<Secret>]) -> Result<Egress, Box<dyn std::error::Error + Send + Sync>> {
        let mut usable: Vec<EgressCredential> = Vec::new();
        let mut credentials = Vec::new();
        let mut lacking = Vec::new();
        for (written, secret) in self.policy.credentials.iter().zip(secrets) {
            let Some(secret) = secret else {
                // Its host is not allowed by it then: a request would go out as nobody's.
                lacking.push(written.clone());
                continue;
            };
            let format = written.format.as_deref();
            match Credential::new(&written.host, &written.header, secret.clone(), format) {
                Ok(credential) => {
                    usable.push(written.clone());
                    credentials.push(credential);
                }
                Err(error) => {
                    tracing::warn!(sandbox = %self.sandbox, host = written.host, secret = written.secret, %error, "a credential cannot be used");
                    lacking.push(written.clone());
                }
            }
        }
        let allowed = EgressPolicy {
            credentials: usable,
            ..self.policy.clone()
        };
        let policy =
            Policy::compile(&allowed)?.allow_addresses(self.settings.address_exceptions.iter().cloned());
        let (ledger, metrics) = (self.ledger.clone(), self.metrics.clone());
        let advice = self.advice.clone().without_credentials(lacking);
        let observer = Arc::new(move |decision: &greenroom_egress::Decision| {
            metrics.egress_decided(decision);
            ledger.decided(words::told(decision, &advice));
        });
        let mut egress = Egress::new(policy, credentials, observer)?;
        if !self.policy.credentials.is_empty() {
            let key = self.catalog.derived_key(AUTHORITY_KEY);
            egress = egress.with_authority(Authority::derive(&key, &self.sandbox)?)?;
        }
        if !self.settings.extra_roots.is_empty() {
            egress = egress.with_roots(self.settings.extra_roots.clone())?;
        }
        Ok(egress)
    }
}

fn is_same(one: &[Option<Secret>], other: &[Option<Secret>]) -> bool {
    let exposed = |secret: &Option<Secret>| secret.as_ref().map(|secret| secret.expose().to_owned());
    one.len() == other.len()
        && one
            .iter()
            .zip(other)
            .all(|(one, other)| exposed(one) == exposed(other))
}
