//! Parameters of paths and queries, refused as problems like everything else that is wrong.

use super::failure::ApiFailure;
use aide::OperationInput;
use aide::generate::GenContext;
use aide::openapi::Operation;
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use greenroom_protocol::client::problem::Problem;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

/// The parameters in a path.
pub struct InPath<T>(pub T);

/// The parameters in a query.
pub struct InQuery<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for InPath<T> {
    type Rejection = ApiFailure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiFailure> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(value)) => Ok(Self(value)),
            // A path that cannot be read names nothing.
            Err(_) => Err(Problem::permanent("not_found", "There is nothing at this path.")
                .with_hint("See /v1/openapi.json.")
                .into()),
        }
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for InQuery<T> {
    type Rejection = ApiFailure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiFailure> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(value)) => Ok(Self(value)),
            Err(rejection) => Err(
                Problem::permanent("query_invalid", format!("{}.", rejection.body_text()))
                    .with_hint("See /v1/openapi.json for the parameters of this call.")
                    .into(),
            ),
        }
    }
}

impl<T: JsonSchema> OperationInput for InPath<T> {
    fn operation_input(ctx: &mut GenContext, operation: &mut Operation) {
        Path::<T>::operation_input(ctx, operation);
    }
}

impl<T: JsonSchema> OperationInput for InQuery<T> {
    fn operation_input(ctx: &mut GenContext, operation: &mut Operation) {
        Query::<T>::operation_input(ctx, operation);
    }
}
