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

/// Serves the routes of the session's sandbox: fetch of the session's repository, push to the session's branch, and the
/// egress.
pub fn session_routes(
    services: Arc<SessionServices>,
    row: Session,
    egress: Arc<SandboxEgress>,
) -> RouteHandler {
    Arc::new(move |route, stream| match route {
        Route::Git => serve_git(services.clone(), &row, stream),
        Route::HttpProxy | Route::Socks => {
            let (egress, shutdown) = (egress.clone(), services.shutdown.clone());
            services.tasks.spawn(async move {
                tokio::select! {
                    () = egress.serve(route, stream) => {}
                    // Connections may last for hours; none outlives the server.
                    () = shutdown.cancelled() => {}
                }
            });
        }
    })
}

fn serve_git(services: Arc<SessionServices>, row: &Session, stream: DuplexStream) {
    let forge = services.forge.clone();
    let repository = row.repository.clone();
    let access = GitAccess::Push(Arc::new(OwnBranchOnly {
        branch: row.branch.clone(),
    }));
    let router = Router::new().fallback(any(move |request: Request| {
        let forge = forge.clone();
        let repository = repository.clone();
        let access = access.clone();
        async move {
            let Some((name, rest)) = git::split_path(request.uri().path()) else {
                return git::not_found();
            };
            // Other repositories look as if they did not exist.
            if name != repository {
                return git::not_found();
            }
            let rest = rest.to_owned();
            git::serve(&forge, &repository, &rest, access, request).await
        }
    }));
    let session = row.id.clone();
    services.tasks.spawn(async move {
        let service = TowerToHyperService::new(router);
        let served = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .await;
        if let Err(error) = served {
            // A sandbox process that hangs up in the middle is everyday.
            tracing::debug!(%session, %error, "a git connection of a sandbox ended early");
        }
    });
}
