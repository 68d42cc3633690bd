//! Successful answers other than 200, documented by their types.

use aide::generate::GenContext;
use aide::openapi::{Operation, Response as DocumentedResponse, StatusCode as DocumentedStatus};
use aide::operation::OperationOutput;
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

/// 201: something was made; the body is it.
pub struct Created<T>(pub T);

/// 202: accepted and on disk; it happens soon.
pub struct Accepted<T>(pub T);

macro_rules! reply {
    ($name:ident, $status:expr) => {
        impl<T: Serialize> IntoResponse for $name<T> {
            fn into_response(self) -> Response {
                ($status, Json(self.0)).into_response()
            }
        }

        impl<T: JsonSchema> OperationOutput for $name<T> {
            type Inner = T;

            fn operation_response(
                ctx: &mut GenContext,
                operation: &mut Operation,
            ) -> Option<DocumentedResponse> {
                Json::<T>::operation_response(ctx, operation)
            }

            fn inferred_responses(
                ctx: &mut GenContext,
                operation: &mut Operation,
            ) -> Vec<(Option<DocumentedStatus>, DocumentedResponse)> {
                let response = Self::operation_response(ctx, operation);
                response
                    .map(|response| (Some(DocumentedStatus::Code($status.as_u16())), response))
                    .into_iter()
                    .collect()
            }
        }
    };
}

reply!(Created, StatusCode::CREATED);
reply!(Accepted, StatusCode::ACCEPTED);
