//! Turns a [`Problem`] into an HTTP answer (RFC 9457). The one table of codes and statuses.

use aide::generate::GenContext;
use aide::openapi::{Operation, Response as DocumentedResponse, StatusCode as DocumentedStatus};
use aide::operation::OperationOutput;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use greenroom_protocol::client::problem::Problem;

/// What every handler fails with.
#[derive(Debug)]
pub struct ApiFailure(pub Problem);

impl From<Problem> for ApiFailure {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

/// The status of a problem's code.
fn status_of(problem: &Problem) -> StatusCode {
    match problem.code.as_str() {
        "sign_in_required" | "sign_in_invalid" | "ticket_invalid" | "link_invalid" | "webhook_unsigned" => {
            StatusCode::UNAUTHORIZED
        }
        "origin_refused" | "host_refused" | "own_change" | "owner_required" | "role_required"
        | "member_removed" | "prompt_not_yours" => StatusCode::FORBIDDEN,
        "not_found" => StatusCode::NOT_FOUND,
        "method_not_allowed" => StatusCode::METHOD_NOT_ALLOWED,
        "upgrade_required" => StatusCode::UPGRADE_REQUIRED,
        "body_type_unsupported" => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "body_too_large" | "prompt_too_large" | "image_too_large" => StatusCode::PAYLOAD_TOO_LARGE,
        "rate_limited" | "queue_full" => StatusCode::TOO_MANY_REQUESTS,
        "disk_full" => StatusCode::INSUFFICIENT_STORAGE,
        "disk_read_only" | "shutting_down" | "session_held" | "session_moved" => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        "storage_failed" | "internal" | "session_corrupt" | "schema_too_new" | "git_missing" => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
        "body_timeout" => StatusCode::REQUEST_TIMEOUT,
        "git_timed_out" | "import_timed_out" => StatusCode::GATEWAY_TIMEOUT,
        code if code.ends_with("_unknown") => StatusCode::NOT_FOUND,
        code if code.ends_with("_conflict")
            || code.ends_with("_taken")
            || code.ends_with("_reused")
            || code.ends_with("_exists")
            || code.ends_with("_moved")
            || code.ends_with("_changed")
            || code.ends_with("_in_use")
            || code.ends_with("_is_default")
            || matches!(
                code,
                "merge_in_progress"
                    | "effect_not_failed"
                    | "queue_empty"
                    | "last_owner"
                    | "session_owner"
                    | "command_running"
                    | "command_interrupted"
                    | "snapshot_needed"
                    | "session_archived"
                    | "session_busy"
                    | "session_deleted"
                    | "session_not_archived"
                    | "fork_files_lost"
                    | "live_diff_failed"
                    | "sandbox_not_running"
            )
            || code.starts_with("not_")
            || code.starts_with("nothing_")
            || code.ends_with("_not_queued")
            || code.ends_with("_empty") && code.starts_with("repository") =>
        {
            StatusCode::CONFLICT
        }
        _ if problem.retryable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::UNPROCESSABLE_ENTITY,
    }
}

impl IntoResponse for ApiFailure {
    fn into_response(self) -> Response {
        let Self(problem) = self;
        let status = status_of(&problem);
        if status.is_server_error() {
            tracing::warn!(code = problem.code, "request failed: {}", problem.message);
        }
        let retry_after_s = problem
            .retry_after_ms
            .map(|wait_ms| wait_ms.div_ceil(1000).max(1));
        let mut response = (status, Json(problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl OperationOutput for ApiFailure {
    type Inner = Problem;

    fn operation_response(ctx: &mut GenContext, operation: &mut Operation) -> Option<DocumentedResponse> {
        let mut response = Json::<Problem>::operation_response(ctx, operation)?;
        response.description = "What went wrong.".to_owned();
        if let Some(content) = response.content.shift_remove("application/json") {
            response
                .content
                .insert("application/problem+json".to_owned(), content);
        }
        Some(response)
    }

    fn inferred_responses(
        ctx: &mut GenContext,
        operation: &mut Operation,
    ) -> Vec<(Option<DocumentedStatus>, DocumentedResponse)> {
        // One entry for every failing status: the document is the same.
        Self::operation_response(ctx, operation)
            .map(|response| (None, response))
            .into_iter()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_the_statuses_clients_expect() {
        for (code, expected) in [
            ("sign_in_required", 401),
            ("repository_unknown", 404),
            ("pull_request_exists", 409),
            ("merge_conflict", 409),
            ("idempotency_key_reused", 409),
            ("nothing_to_stop", 409),
            ("not_open", 409),
            ("prompt_too_large", 413),
            ("prompt_empty", 422),
            ("queue_full", 429),
            ("disk_full", 507),
            ("something_new", 422),
        ] {
            assert_eq!(
                status_of(&Problem::permanent(code, "")).as_u16(),
                expected,
                "{code}"
            );
        }
        assert_eq!(status_of(&Problem::transient("something_new", "")).as_u16(), 503);
    }
}
