//! The broker: what the connections of one sandbox reach, git of its repository and the way out. Who speaks is known from the channel, so the sandbox
//! holds no credential; what it may do is decided here, per session, on each request.

use crate::api::git;
use crate::egress::SandboxEgress;
use crate::sandbox::RouteHandler;
use crate::session::services::SessionServices;
use axum::Router;
use axum::extract::Request;
use axum::routing::any;
use greenroom_forge::{GitAccess, OwnBranchOnly};
use greenroom_protocol::client::session::Session;
use greenroom_protocol::guest::Route;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use std::sync::Arc;
use tokio::io::DuplexStream;
use tokio_util::sync::CancellationToken;

/// Serves the routes of the session's sandbox: fetch of the workspace's repositories, push to the session's branch in each, and
/// the egress.
pub fn session_routes(
    services: Arc<SessionServices>,
    row: &Session,
    repositories: Vec<String>,
    egress: Arc<SandboxEgress>,
) -> RouteHandler {
    let (branch, repositories) = (row.branch.clone(), Arc::from(repositories));
    Arc::new(move |route, stream| match route {
        Route::Git => {
            let branch = branch.clone();
            let access = GitAccess::Push(Arc::new(OwnBranchOnly { branch }));
            serve_git(
                &services,
                &repositories,
                access,
                stream,
                &CancellationToken::new(),
            );
        }
        Route::HttpProxy | Route::Socks => serve_egress(&services, &egress, route, stream),
    })
}

/// Serves the routes of a sandbox in which an image is built: fetch of the repositories until they are cloned, and the egress.
pub fn build_routes(
    services: Arc<SessionServices>,
    repositories: Vec<String>,
    is_cloned: CancellationToken,
    egress: Arc<SandboxEgress>,
) -> RouteHandler {
    let repositories = Arc::from(repositories);
    Arc::new(move |route, stream| match route {
        // Code of the repository may run by now; it gets what it was given.
        Route::Git if is_cloned.is_cancelled() => drop(stream),
        Route::Git => serve_git(&services, &repositories, GitAccess::Read, stream, &is_cloned),
        Route::HttpProxy | Route::Socks => serve_egress(&services, &egress, route, stream),
    })
}

fn serve_egress(
    services: &Arc<SessionServices>,
    egress: &Arc<SandboxEgress>,
    route: Route,
    stream: DuplexStream,
) {
    let (egress, shutdown) = (egress.clone(), services.shutdown.clone());
    services.tasks.spawn(async move {
        tokio::select! {
            () = egress.serve(route, stream) => {}
            // Connections may last for hours; none outlives the server.
            () = shutdown.cancelled() => {}
        }
    });
}

/// Serves git until `end`, whatever is on its way then.
fn serve_git(
    services: &SessionServices,
    repositories: &Arc<[String]>,
    access: GitAccess,
    stream: DuplexStream,
    end: &CancellationToken,
) {
    let end = end.clone();
    let forge = services.forge.clone();
    let repositories = repositories.clone();
    let router = Router::new().fallback(any(move |request: Request| {
        let forge = forge.clone();
        let repositories = repositories.clone();
        let access = access.clone();
        async move {
            let Some((name, rest)) = git::split_path(request.uri().path()) else {
                return git::not_found();
            };
            // Other repositories look as if they did not exist.
            let Some(repository) = repositories.iter().find(|known| *known == name) else {
                return git::not_found();
            };
            let rest = rest.to_owned();
            git::serve(&forge, repository, &rest, access, request).await
        }
    }));
    services.tasks.spawn(async move {
        let service = TowerToHyperService::new(router);
        let serving =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        let served = tokio::select! {
            served = serving => served,
            () = end.cancelled() => return,
        };
        if let Err(error) = served {
            // A sandbox process that hangs up in the middle is everyday.
            tracing::debug!(%error, "a git connection of a sandbox ended early");
        }
    });
}
