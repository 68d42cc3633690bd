//! Who calls: by browser cookie or bearer token. Checks where a browser's request comes from. Says nothing about what the
//! caller may do with a thing; the handlers ask that.

use super::app::App;
use super::failure::ApiFailure;
use aide::OperationInput;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, Method, header};
use greenroom_protocol::client::person::Person;
use greenroom_protocol::client::problem::Problem;
use greenroom_stdx::secret::Secret;
use greenroom_store::catalog::SignedIn;
use std::time::{Duration, Instant};
use url::Url;

/// Name of the sign-in cookie.
pub const SESSION_COOKIE: &str = "greenroom_session";

/// How a caller proved who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// A browser; its requests are checked for where they come from.
    Cookie,
    /// A program.
    Token,
}

/// A signed-in person.
#[derive(Debug, Clone)]
pub struct Caller {
    pub person: Person,
    /// Whether they own this server.
    pub is_owner: bool,
    pub proof: Proof,
    credential: Secret,
}

impl Caller {
    /// The caller as they are now, if the credential they came with still holds; for what stays open longer than a request.
    pub async fn again(&self, app: &App) -> Result<Option<Self>, Problem> {
        let now = signed_in(app, self.proof, self.credential.expose()).await?;
        let same = now.filter(|now| now.person.id == self.person.id);
        Ok(same.map(|now| Self {
            person: now.person,
            is_owner: now.is_owner,
            ..self.clone()
        }))
    }
}

/// Reading a body for longer than this, somebody may have lost the right that was looked at before it.
const LONG_READING: Duration = Duration::from_millis(100);

/// Refuses a caller, known to a request since `began`, who was removed or made less while its body was read: that takes as long as the sender
/// likes.
pub async fn check_after_reading(app: &App, extensions: &Extensions, began: Instant) -> Result<(), Problem> {
    let Some(caller) = extensions
        .get::<Caller>()
        .filter(|_| began.elapsed() > LONG_READING)
    else {
        return Ok(());
    };
    let now = caller.again(app).await?.ok_or_else(sign_in_required)?;
    match now.is_owner == caller.is_owner {
        true => Ok(()),
        // Whatever they are now, it is not what was looked at.
        false => Err(Problem::transient(
            "rights_changed",
            "What you may do on this server changed while your request was sent.",
        )
        .with_hint("Send it again.")),
    }
}

async fn signed_in(app: &App, proof: Proof, secret: &str) -> Result<Option<SignedIn>, Problem> {
    let found = match proof {
        Proof::Token => app.catalog.token_owner(secret).await,
        Proof::Cookie => app.catalog.browser_session_owner(secret).await,
    };
    found.map_err(|error| error.problem())
}

impl OperationInput for Caller {}

impl FromRequestParts<App> for Caller {
    type Rejection = ApiFailure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiFailure> {
        // What is on the way to a handler asks too; one answer is enough for a request.
        if let Some(known) = parts.extensions.get::<Self>() {
            return Ok(known.clone());
        }
        let (proof, secret) = match (bearer(&parts.headers), cookie(&parts.headers)) {
            (Some(secret), _) => (Proof::Token, secret),
            (None, Some(secret)) => (Proof::Cookie, secret),
            (None, None) => return Err(sign_in_required().into()),
        };
        let is_read_only = matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS);
        let is_upgrade = parts.headers.contains_key(header::UPGRADE);
        if proof == Proof::Cookie && (!is_read_only || is_upgrade) {
            check_origin(&parts.headers, app)?;
        }
        let found = signed_in(app, proof, secret)
            .await?
            .ok_or_else(sign_in_required)?;
        let caller = Self {
            person: found.person,
            is_owner: found.is_owner,
            proof,
            credential: Secret::new(secret),
        };
        parts.extensions.insert(caller.clone());
        Ok(caller)
    }
}

/// What callers without a valid cookie or token get.
pub fn sign_in_required() -> Problem {
    Problem::permanent("sign_in_required", "Sign in first.")
        .with_hint("Open the one-time link that `greenroom up` printed, or make a new one with `greenroom sign-in-link`.")
}

/// Refuses everyone but owners of the server: `owner_required`.
pub fn check_owner(caller: &Caller) -> Result<(), Problem> {
    match caller.is_owner {
        true => Ok(()),
        false => Err(
            Problem::permanent("owner_required", "Only an owner of this server may do that.")
                .with_hint("`greenroom person list` tells who that is."),
        ),
    }
}

/// The token of a program.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, secret) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(secret.trim())
}

/// The sign-in cookie's value.
pub fn cookie(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(name, value)| (name == SESSION_COOKIE).then_some(value))
}

/// Refuses a browser's request that another site's page made. A request without `Origin` is refused too: every browser
/// sends it with what changes something.
pub fn check_origin(headers: &HeaderMap, app: &App) -> Result<(), Problem> {
    let origin = headers.get(header::ORIGIN).and_then(|value| value.to_str().ok());
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok());
    if origin.is_some_and(|origin| is_own_origin(origin, host, app)) {
        return Ok(());
    }
    Err(
        Problem::permanent("origin_refused", "This request comes from another site.")
            .with_hint("Use the web page of this server, or a program with an API token."),
    )
}

fn is_own_origin(origin: &str, host: Option<&str>, app: &App) -> bool {
    if app
        .settings
        .allowed_origins
        .iter()
        .any(|allowed| allowed == origin)
    {
        return true;
    }
    // Hosts were checked already (`check_host`), so "same as Host" cannot be a name that an attacker chose.
    let Ok(url) = Url::parse(origin) else { return false };
    let authority = match (url.host_str(), url.port()) {
        (Some(name), Some(port)) => format!("{name}:{port}"),
        (Some(name), None) => name.to_owned(),
        (None, _) => return false,
    };
    host == Some(authority.as_str())
}

/// Refuses names that do not belong to this server, so that a page on a name an attacker rebinds to loopback gets nothing.
pub fn check_host(headers: &HeaderMap, uri_host: Option<&str>, app: &App) -> Result<(), Problem> {
    let host = headers
        .get(header::HOST)
        .and_then(|value| value.to_str().ok())
        .or(uri_host)
        .unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, port)| {
        if port.bytes().all(|byte| byte.is_ascii_digit()) {
            name
        } else {
            host
        }
    });
    let is_loopback = matches!(name, "localhost" | "127.0.0.1" | "[::1]");
    if is_loopback
        || app
            .settings
            .allowed_hosts
            .iter()
            .any(|allowed| allowed.eq_ignore_ascii_case(name))
    {
        return Ok(());
    }
    Err(
        Problem::permanent("host_refused", "This server does not answer to that name.")
            .with_hint("Set `server.public_url` in greenroom.toml to the address people use."),
    )
}
