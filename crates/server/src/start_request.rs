//! What a sandbox of an environment is started with, whoever starts it: a session, an image build, the warm pool.

use crate::egress::SandboxEgress;
use crate::environment::BoundedEnvironment;
use crate::sandbox::{RouteHandler, StartRequest};
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::id::{SandboxId, SnapshotId};

/// A start by an environment. The egress is the one that `routes` lead to.
pub fn start_request(
    environment: &BoundedEnvironment,
    id: &SandboxId,
    egress: &SandboxEgress,
    routes: RouteHandler,
    from: Option<SnapshotId>,
) -> Result<StartRequest, Problem> {
    let mut variables = environment.variables.clone();
    let mut files = Vec::new();
    if let Some(trust) = egress.trust()? {
        variables.extend(trust.variables);
        files.push((trust.file_name.to_owned(), trust.pem.into_bytes()));
    }
    Ok(StartRequest {
        id: id.clone(),
        routes,
        user: environment.user.clone(),
        is_root: false,
        base: environment.base.clone(),
        backend: environment.backend,
        runtime: environment.runtime.clone(),
        resources: environment.resources,
        variables,
        files,
        root_variables: Vec::new(),
        from,
    })
}
