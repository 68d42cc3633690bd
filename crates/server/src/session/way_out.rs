//! The way out of a session's sandbox, and which repositories it reaches: by what the sandbox was started with, as long as it runs.
//! That is kept beside the sandbox's id, because a sandbox outlives its server, and its environment may be written anew meanwhile.

use super::sandbox_slot::SandboxSlot;
use super::services::SessionServices;
use crate::broker::session_routes;
use crate::egress::{Advice, SandboxEgress};
use crate::environment::{BoundedEnvironment, RepositoryEgress};
use crate::sandbox::RouteHandler;
use greenroom_protocol::client::environment::EnvironmentSource;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::session::{Session, WorkspaceRepository};
use greenroom_protocol::environment::EgressPolicy;
use greenroom_protocol::id::{SandboxId, SessionId};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What is kept of a start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct WayOut {
    policy: EgressPolicy,
    /// Who wrote it.
    source: EnvironmentSource,
    /// The workspace's other repositories.
    #[serde(default)]
    others: Vec<WorkspaceRepository>,
}

impl WayOut {
    /// What a sandbox has that starts now.
    pub(super) fn of(environment: &BoundedEnvironment, repositories: Vec<WorkspaceRepository>) -> Self {
        Self {
            others: repositories
                .into_iter()
                .filter(|repository| !repository.is_own())
                .collect(),
            policy: environment.egress.clone(),
            source: environment.source,
        }
    }

    /// What the session's sandbox was last started with; `None` if an older server started it.
    pub(super) async fn kept(
        services: &SessionServices,
        session: &SessionId,
    ) -> Result<Option<Self>, Problem> {
        let body = services.catalog.started_with(session).await;
        let Some(body) = body.map_err(|error| error.problem())? else {
            return Ok(None);
        };
        serde_json::from_str(&body).map(Some).map_err(|error| {
            tracing::error!(%session, %error, "what a sandbox was started with cannot be read");
            Problem::permanent(
                "sandbox_record_unreadable",
                "What the session's sandbox may connect to cannot be read.",
            )
            .with_hint("A newer version may have started it. Stop it, or let that version run again.")
        })
    }

    /// Keeps it for a sandbox that is about to be started.
    pub(super) async fn keep(&self, services: &SessionServices, session: &SessionId) -> Result<(), Problem> {
        // Plain data always encodes.
        let body = serde_json::to_string(self).unwrap_or_default();
        let put = services.catalog.put_started_with(session, body).await;
        put.map_err(|error| error.problem())
    }

    /// The repositories of the workspace, the session's own first.
    pub(super) fn repositories(&self, row: &Session) -> Vec<WorkspaceRepository> {
        let own = WorkspaceRepository::own(&row.repository, &row.base_branch);
        std::iter::once(own).chain(self.others.iter().cloned()).collect()
    }

    /// Where the sandbox's connections lead by it, and the part that goes to the network.
    pub(super) fn open(
        self,
        services: &Arc<SessionServices>,
        row: &Session,
        id: &SandboxId,
        slot: &SandboxSlot,
    ) -> (Arc<SandboxEgress>, RouteHandler) {
        let repositories = self.repositories(row);
        let repositories = repositories.into_iter().map(|repository| repository.name);
        let is_file_free = services.bounds.repository_egress == RepositoryEgress::Any;
        let egress = SandboxEgress::new(
            services.catalog.clone(),
            services.egress.clone(),
            id.clone(),
            self.policy,
            Advice::new(&row.repository, self.source, is_file_free),
            slot.ledger.clone(),
            services.metrics.clone(),
        );
        let routes = session_routes(services.clone(), row, repositories.collect(), egress.clone());
        (egress, routes)
    }
}
