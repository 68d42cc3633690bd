//! The control plane: HTTP and WebSocket API, session actors, sign-in, the git broker, the web app.
//!
//! Start reading at [`server`], which puts the parts together; [`api`] lists every path; [`session`] is what happens
//! between a prompt and a pull request.

pub mod api;
mod broker;
pub mod changes;
pub mod egress;
pub mod environment;
pub mod image;
pub mod metrics;
pub mod models;
mod paths;
pub mod pool;
mod repositories;
mod rest;
pub mod sandbox;
mod serve;
pub mod server;
pub mod session;
mod start_request;
mod workspace_git;

/// The OpenAPI 3.1 document of the API, as JSON text.
pub fn openapi() -> String {
    api::openapi::document()
}

/// Whether this build holds the web app.
pub fn has_web_app() -> bool {
    api::has_web_app()
}
