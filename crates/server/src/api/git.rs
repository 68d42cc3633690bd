//! Git smart HTTP on the way between HTTP and the forge: for people with an API token here, for sandboxes from the broker.

use super::app::App;
use super::audit;
use super::failure::ApiFailure;
use crate::changes::LaterChange;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::TryStreamExt as _;
use greenroom_forge::{Forge, GitAccess, GitMethod, GitRequest, Member};
use greenroom_protocol::client::problem::Problem;
use std::io;
use std::sync::Arc;

/// `/git/{name}.git/…` for people's own git: Basic authentication with an API token as password.
pub async fn serve_member(State(app): State<App>, request: Request) -> Response {
    let path = request
        .uri()
        .path()
        .strip_prefix("/git")
        .unwrap_or_default()
        .to_owned();
    let Some(secret) = basic_password(request.headers()) else {
        return ask_for_token();
    };
    let person = match app.catalog.token_owner(&secret).await {
        Ok(Some(owner)) => owner.person,
        Ok(None) => return ask_for_token(),
        Err(error) => return ApiFailure(error.problem()).into_response(),
    };
    match split_path(&path) {
        Some((name, rest)) => {
            let is_push = rest == "git-receive-pack";
            let target = format!("/git/{name}.git");
            let entry = match is_push {
                true => match audit::happens(&app, &person, "gitPush", &target, None).await {
                    Ok(entry) => Some(entry),
                    Err(problem) => return ApiFailure(problem).into_response(),
                },
                false => None,
            };
            let response = serve(&app.forge, name, rest, GitAccess::Push(Arc::new(Member)), request).await;
            if let Some(entry) = entry {
                audit::end(&app, entry, response.status().as_u16(), None).await;
            }
            match is_push {
                true => with_change(response, app.services.changes.tell_later(name)),
                false => response,
            }
        }
        None => not_found(),
    }
}

/// Git has done what it was asked when its answer is whole.
fn with_change(response: Response, change: LaterChange) -> Response {
    response.map(|body| {
        let stream = body.into_data_stream();
        Body::from_stream(stream.inspect_ok(move |_| {
            // Held as long as the stream.
            let _ = &change;
        }))
    })
}

/// `/{name}.git/{rest}` as name and rest.
pub fn split_path(path: &str) -> Option<(&str, &str)> {
    path.strip_prefix('/')?.split_once(".git/")
}

/// Serves one request on a repository that the caller may use that far.
pub async fn serve(
    forge: &Forge,
    repository: &str,
    rest: &str,
    access: GitAccess,
    request: Request,
) -> Response {
    let (
        Parts {
            method, uri, headers, ..
        },
        body,
    ) = request.into_parts();
    let text = |name: header::HeaderName| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(ToOwned::to_owned)
    };
    let git_request = GitRequest {
        method: match method {
            Method::GET => GitMethod::Get,
            Method::POST => GitMethod::Post,
            _ => GitMethod::Other,
        },
        path_suffix: rest.to_owned(),
        query: uri.query().unwrap_or_default().to_owned(),
        content_type: text(header::CONTENT_TYPE),
        content_encoding: text(header::CONTENT_ENCODING),
        git_protocol: text(header::HeaderName::from_static("git-protocol")),
        body: Box::pin(body.into_data_stream().map_err(io::Error::other)),
    };
    match forge.serve_git(repository, git_request, access).await {
        Ok(answer) => {
            let mut response = Response::new(Body::from_stream(answer.body));
            *response.status_mut() =
                StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            for (name, value) in answer.headers {
                if let Ok(value) = HeaderValue::from_str(&value) {
                    response
                        .headers_mut()
                        .insert(header::HeaderName::from_static(name), value);
                }
            }
            response
        }
        Err(error) => {
            let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let problem = error.problem();
            // Git shows a plain text to the person; it does not read problem documents.
            let hint = problem.hint.map(|hint| format!(" {hint}")).unwrap_or_default();
            (status, format!("{}{hint}\n", problem.message)).into_response()
        }
    }
}

/// The answer for repositories that do not exist or are not the caller's business.
pub fn not_found() -> Response {
    (StatusCode::NOT_FOUND, "There is no such repository.\n").into_response()
}

fn ask_for_token() -> Response {
    let problem = Problem::permanent("sign_in_required", "Git needs an API token as password.")
        .with_hint("Make one with POST /v1/tokens; any user name will do.");
    let mut response = ApiFailure(problem).into_response();
    let challenge = HeaderValue::from_static("Basic realm=\"Greenroom\", charset=\"UTF-8\"");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    response
}

fn basic_password(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    decoded.split_once(':').map(|(_, password)| password.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_split_at_the_repository() {
        for (path, expected) in [
            ("/sample.git/info/refs", Some(("sample", "info/refs"))),
            ("/sample.git/git-upload-pack", Some(("sample", "git-upload-pack"))),
            ("/sample/info/refs", None),
            ("/sample.git", None),
            ("", None),
        ] {
            assert_eq!(split_path(path), expected, "{path}");
        }
    }
}
