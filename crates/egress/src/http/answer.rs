//! What the proxy itself answers: always at once, with a problem document, and with the reason also where programs show only
//! the status line.

use crate::decision::{Decision, Reason};
use crate::policy::name::Target;
use ::http::header::{CONTENT_TYPE, HeaderValue};
use ::http::{Response, StatusCode};
use bytes::Bytes;
use greenroom_protocol::client::problem::Problem;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::ext::ReasonPhrase;

/// A body of a response, ours or the other side's.
pub(crate) type Body = UnsyncBoxBody<Bytes, hyper::Error>;

/// The whole answer to one connection too many.
pub(crate) const BUSY: &str = "HTTP/1.1 503 egress_busy: this sandbox has too many connections open\r\n\
    content-type: application/problem+json\r\ncontent-length: 95\r\nconnection: close\r\n\
    proxy-status: greenroom; error=connection_limit_reached\r\n\r\n\
    {\"code\":\"egress_busy\",\"message\":\"this sandbox has too many connections open\",\"retryable\":true}\n";

/// What came in the way of a request that the policy allows.
#[derive(Debug)]
pub(crate) enum Obstacle {
    Decision(Decision),
    /// The host's certificate is not trusted, or there is no TLS there.
    Tls,
    /// The other side ended the connection, or speaks no HTTP.
    Broken,
}

pub(crate) fn refused(decision: &Decision) -> Response<Body> {
    let (status, error) = match decision.reason {
        Reason::HostInvalid => (StatusCode::BAD_REQUEST, "http_request_error"),
        Reason::NotAllowed => (StatusCode::FORBIDDEN, "http_request_denied"),
        Reason::Address(_) => (StatusCode::FORBIDDEN, "destination_ip_prohibited"),
        Reason::NameUnknown => (StatusCode::BAD_GATEWAY, "dns_error"),
        Reason::NameTimeout => (StatusCode::GATEWAY_TIMEOUT, "dns_timeout"),
        Reason::ConnectionRefused => (StatusCode::BAD_GATEWAY, "connection_refused"),
        Reason::ConnectionTimeout => (StatusCode::GATEWAY_TIMEOUT, "connection_timeout"),
        // An allowed connection is not refused; if it were, nobody would have been reached.
        Reason::Unreachable | Reason::Rule(_) => (StatusCode::BAD_GATEWAY, "destination_ip_unroutable"),
    };
    let hint = match decision.reason {
        Reason::NotAllowed => Some(format!(
            "add \"{}:{}\" to `allow` under [egress] of the environment, or ask an administrator to",
            decision.host, decision.port
        )),
        Reason::Address(_) => Some(
            "sandboxes reach public addresses only; an administrator can allow a company's own network"
                .to_owned(),
        ),
        Reason::HostInvalid => Some("give a host name or an IP address, and a port".to_owned()),
        Reason::NameUnknown
        | Reason::NameTimeout
        | Reason::ConnectionRefused
        | Reason::ConnectionTimeout
        | Reason::Unreachable
        | Reason::Rule(_) => None,
    };
    let code = match status {
        StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST => "egress_refused",
        _ => "egress_failed",
    };
    let message = decision.to_string();
    let problem = match status {
        StatusCode::GATEWAY_TIMEOUT => Problem::transient(code, message),
        _ => Problem::permanent(code, message),
    };
    problem_response(status, error, decision.reason.code(), Problem { hint, ..problem })
}

pub(crate) fn obstacle(target: &Target, obstacle: &Obstacle) -> Response<Body> {
    let (error, reason, message) = match obstacle {
        Obstacle::Decision(decision) => return refused(decision),
        Obstacle::Tls => (
            "tls_protocol_error",
            "tls",
            format!("{target} does not prove by TLS to be that host"),
        ),
        Obstacle::Broken => (
            "http_response_incomplete",
            "broken",
            format!("{target} ended the connection without a whole response"),
        ),
    };
    problem_response(
        StatusCode::BAD_GATEWAY,
        error,
        reason,
        Problem::permanent("egress_failed", message),
    )
}

pub(crate) fn bad_request(message: &str) -> Response<Body> {
    problem_response(
        StatusCode::BAD_REQUEST,
        "http_request_error",
        "request_invalid",
        Problem::permanent("egress_request_invalid", message),
    )
}

/// TRACE repeats what it is sent, and CONNECT has no place inside of a connection to a host.
pub(crate) fn not_allowed_method() -> Response<Body> {
    problem_response(
        StatusCode::METHOD_NOT_ALLOWED,
        "http_request_denied",
        "method",
        Problem::permanent(
            "egress_method_refused",
            "this method does not go through the proxy",
        ),
    )
}

/// A request for another host than the one that the connection was opened to.
pub(crate) fn misdirected(target: &Target) -> Response<Body> {
    problem_response(
        StatusCode::MISDIRECTED_REQUEST,
        "http_request_denied",
        "host_differs",
        Problem::permanent(
            "egress_refused",
            format!("the request names another host than {target}, to which the connection was opened"),
        ),
    )
}

fn problem_response(status: StatusCode, error: &str, reason: &str, problem: Problem) -> Response<Body> {
    let phrase = format!("{}: {}", problem.code, problem.message);
    let mut document = serde_json::to_value(&problem).unwrap_or_default();
    if let Some(fields) = document.as_object_mut() {
        fields.insert("reason".to_owned(), reason.into());
    }
    let body = Full::new(Bytes::from(format!("{document}\n")))
        .map_err(|never| match never {})
        .boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    // Many programs show nothing of a refused CONNECT but this.
    if let Ok(phrase) = ReasonPhrase::try_from(phrase) {
        response.extensions_mut().insert(phrase);
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    // RFC 9209.
    if let Ok(value) = HeaderValue::from_str(&format!("greenroom; error={error}")) {
        headers.insert("proxy-status", value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_one_too_many_is_whole() {
        let (head, body) = BUSY.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())));
        let problem: Problem = serde_json::from_str(body).unwrap();
        assert_eq!(problem.code, "egress_busy");
    }
}
