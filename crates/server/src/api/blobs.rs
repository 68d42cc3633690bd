//! Files that a session keeps, by their names.

use super::access::Viewer;
use super::app::App;
use super::failure::ApiFailure;
use super::names::BlobPath;
use super::parameters::InPath;
use aide::generate::GenContext;
use aide::openapi::{Operation, Response as DocumentedResponse, StatusCode as DocumentedStatus};
use aide::operation::OperationOutput;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::reference::Digest;
use greenroom_store::session_log::Blob;

/// Nothing else may run or be loaded by a file that somebody opens by its address.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; sandbox; frame-ancestors 'none'";
/// What a name stands for never changes.
const CACHE_CONTROL: &str = "private, max-age=31536000, immutable";

/// The file as it is, with its own type.
pub struct File(Blob);

pub async fn show(
    State(app): State<App>,
    viewer: Viewer,
    InPath(BlobPath { id, digest }): InPath<BlobPath>,
) -> Result<File, ApiFailure> {
    let entered = viewer.enter(&app, &id).await?;
    let digest: Digest = digest.parse().map_err(|_| {
        Problem::permanent("blob_unknown", "This is no name of a file.")
            .with_hint("Names are `sha256:` and 64 hexadecimal digits, as in `images` of a prompt.")
    })?;
    let blob = app.services.store.blob(&entered.handle.id, &digest).await;
    let blob = blob.map_err(|error| error.problem())?.ok_or_else(|| {
        Problem::permanent("blob_unknown", "The session has no such file, or it is damaged.")
            .with_hint("Events name the files that a session has. Sent again, a damaged one is whole again.")
    })?;
    Ok(File(blob))
}

impl IntoResponse for File {
    fn into_response(self) -> Response {
        let Self(Blob { media_type, bytes }) = self;
        let headers = [
            (header::CONTENT_DISPOSITION, disposition_of(&media_type)),
            (header::CONTENT_TYPE, media_type.as_str()),
            (header::CACHE_CONTROL, CACHE_CONTROL),
            (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        ];
        (headers, bytes).into_response()
    }
}

/// Pictures and text are shown; the rest is for other programs.
fn disposition_of(media_type: &str) -> &'static str {
    match media_type.starts_with("image/") || media_type.starts_with("text/plain") {
        true => "inline",
        false => "attachment",
    }
}

impl OperationOutput for File {
    type Inner = Vec<u8>;

    fn operation_response(ctx: &mut GenContext, operation: &mut Operation) -> Option<DocumentedResponse> {
        Vec::<u8>::operation_response(ctx, operation)
    }

    fn inferred_responses(
        ctx: &mut GenContext,
        operation: &mut Operation,
    ) -> Vec<(Option<DocumentedStatus>, DocumentedResponse)> {
        Vec::<u8>::inferred_responses(ctx, operation)
    }
}
