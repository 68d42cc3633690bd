//! Reads request bodies: type and size are checked before parsing, and what is wrong is said as a problem.

use super::app::App;
use super::caller;
use super::failure::ApiFailure;
use aide::OperationInput;
use aide::generate::GenContext;
use aide::openapi::Operation;
use axum::Json;
use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::header;
use futures_util::StreamExt as _;
use greenroom_protocol::client::problem::Problem;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Largest body in bytes: 20 MiB of images in base64, and the prompt.
pub const MAX_BODY_BYTES: usize = 28 * 1024 * 1024;

/// From here on a body is taken apart where it holds nobody up.
const LARGE_BODY_BYTES: usize = 256 * 1024;

/// Whoever sends nothing for so long in the middle of a body is gone, or holds a place that others need.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(60);

/// How much is read and thrown away of a body that is too large: a sender who cannot finish would never hear why.
const MAX_DISCARDED_BYTES: usize = 8 * 1024 * 1024;

/// A whole body of at most `max_bytes`.
pub async fn read(body: Body, max_bytes: usize) -> Result<Vec<u8>, Problem> {
    let refused = || {
        Problem::permanent("body_too_large", "The request's body is too large or broke off.")
            .with_hint(format!("Send at most {max_bytes} bytes."))
    };
    let mut chunks = body.into_data_stream();
    let (mut bytes, mut length) = (Vec::new(), 0_usize);
    let slow = |_| {
        Problem::transient("body_timeout", "The rest of the request's body did not come.")
            .with_hint("Send it again.")
    };
    while let Some(chunk) = timeout(CHUNK_TIMEOUT, chunks.next()).await.map_err(slow)? {
        let chunk = chunk.map_err(|_| refused())?;
        length = length.saturating_add(chunk.len());
        if length <= max_bytes {
            bytes.extend_from_slice(&chunk);
            continue;
        }
        bytes = Vec::new();
        if length - max_bytes > MAX_DISCARDED_BYTES {
            break;
        }
    }
    match length <= max_bytes {
        true => Ok(bytes),
        false => Err(refused()),
    }
}

/// A JSON body of type `T`. Unknown fields are refused by the types themselves.
pub struct JsonBody<T>(pub T);

impl<T: DeserializeOwned + Send + 'static> FromRequest<App> for JsonBody<T> {
    type Rejection = ApiFailure;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiFailure> {
        let content_type = request
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        let essence = content_type
            .unwrap_or_default()
            .split(';')
            .next()
            .unwrap_or_default()
            .trim();
        if !essence.eq_ignore_ascii_case("application/json") {
            return Err(Problem::permanent(
                "body_type_unsupported",
                "The request's body is not declared as JSON.",
            )
            .with_hint("Send the header `Content-Type: application/json`.")
            .into());
        }
        let (parts, body) = request.into_parts();
        let began = Instant::now();
        let bytes = read(body, MAX_BODY_BYTES).await?;
        caller::check_after_reading(app, &parts.extensions, began).await?;
        if bytes.len() < LARGE_BODY_BYTES {
            return Ok(Self(parse(&bytes)?));
        }
        let parsed = tokio::task::spawn_blocking(move || parse(&bytes)).await;
        let parsed =
            parsed.map_err(|_| Problem::permanent("internal", "The request's body was not read."))?;
        Ok(Self(parsed?))
    }
}

/// Bodies are objects; a list would be taken for one whose fields have no names.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let wrong = |why: &str| {
        let message = format!("The request's body is not what this call takes: {why}.");
        Problem::permanent("body_invalid", message).with_hint("See /v1/openapi.json for the fields.")
    };
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        return Err(wrong("it is a list and not an object"));
    }
    serde_json::from_slice(bytes).map_err(|error| wrong(&error.to_string()))
}

impl<T: JsonSchema> OperationInput for JsonBody<T> {
    fn operation_input(ctx: &mut GenContext, operation: &mut Operation) {
        Json::<T>::operation_input(ctx, operation);
    }
}
