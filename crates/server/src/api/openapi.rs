//! The OpenAPI 3.1 document, from the routes and the types they name.

use super::app::App;
use super::audit::Actions;
use aide::axum::ApiRouter;
use aide::generate::{extract_schemas, in_context, infer_responses};
use aide::openapi::{Info, OpenApi};
use aide::transform::TransformOpenApi;
use axum::Router;
use axum::http::{Method, header};
use axum::response::IntoResponse;
use greenroom_protocol::client::stream::{ClientFrame, StreamFrame};
use std::sync::Arc;

/// The plain router, its document, and what can be asked for by method and path.
pub(super) fn finish(routes: impl FnOnce() -> ApiRouter<App>) -> (Router<App>, Arc<str>, Actions) {
    // Both are settings of this thread and are read while routes are added.
    extract_schemas(true);
    infer_responses(true);
    let mut document = OpenApi {
        info: info(),
        ..OpenApi::default()
    };
    let router = routes().finish_api_with(&mut document, describe);
    let text = serde_json::to_string_pretty(&document).unwrap_or_default();
    (router, text.into(), actions(&document))
}

fn actions(document: &OpenApi) -> Actions {
    let paths = document.paths.iter().flat_map(|paths| &paths.paths);
    let operations = paths.filter_map(|(path, item)| Some((path, item.as_item()?)));
    operations
        .flat_map(|(path, item)| {
            item.iter().filter_map(move |(method, operation)| {
                let method = Method::from_bytes(method.to_uppercase().as_bytes()).ok()?;
                Some(((method, path.clone()), operation.operation_id.clone()?))
            })
        })
        .collect()
}

fn info() -> Info {
    Info {
        title: "Greenroom".to_owned(),
        description: Some(
            "Sessions with background coding agents. Errors are problem documents with `code`, `message`, `hint` and \
             `retryable`. `GET /v1/sessions/{id}/stream?after=SEQ` is a WebSocket whose frames are `StreamFrame`."
                .to_owned(),
        ),
        version: format!("v{}", greenroom_protocol::CLIENT_GENERATION),
        ..Info::default()
    }
}

fn describe(document: TransformOpenApi<'_>) -> TransformOpenApi<'_> {
    // Frames of the WebSocket are in no request or response, but clients need their shape as well.
    in_context(|ctx| {
        ctx.schema.subschema_for::<StreamFrame>();
        ctx.schema.subschema_for::<ClientFrame>();
    });
    document
        .security_scheme(
            "token",
            aide::openapi::SecurityScheme::Http {
                scheme: "bearer".to_owned(),
                bearer_format: None,
                description: Some("An API token from POST /v1/tokens.".to_owned()),
                extensions: Default::default(),
            },
        )
        .security_requirement("token")
}

/// The document as `GET /v1/openapi.json` serves it.
pub(super) async fn serve(document: Arc<str>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], document.to_string())
}

/// The document, for code generation.
pub fn document() -> String {
    finish(super::documented).1.to_string()
}
