//! Signing in and out, and what people may set about themselves.

use super::access::Viewer;
use super::app::App;
use super::audit;
use super::body::JsonBody;
use super::caller::{self, Caller, SESSION_COOKIE};
use super::failure::ApiFailure;
use super::names::TokenPath;
use super::parameters::InPath;
use super::reply::Created;
use super::rights::RightsChange;
use super::tickets::Holder;
use aide::NoApi;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{AppendHeaders, NoContent};
use greenroom_protocol::client::model::ModelList;
use greenroom_protocol::client::person::{
    CreateToken, CreatedToken, Health, Me, Person, SignIn, SignInLink, StreamTicket, Token, TokenList,
    UpdateMe,
};
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::id::PersonId;
use std::time::Duration;

/// How long a browser stays signed in.
pub const BROWSER_SESSION: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long a one-time link can be used.
pub const SIGN_IN_LINK: Duration = Duration::from_secs(24 * 3600);

type SetCookie = AppendHeaders<[(header::HeaderName, HeaderValue); 1]>;

const MAX_NAME_CHARS: usize = 100;

pub async fn health(State(app): State<App>) -> Json<Health> {
    Json(Health {
        status: "ok".to_owned(),
        version: app.settings.version.clone(),
        generation: greenroom_protocol::CLIENT_GENERATION,
    })
}

pub async fn sign_in(
    State(app): State<App>,
    NoApi(headers): NoApi<HeaderMap>,
    JsonBody(sign_in): JsonBody<SignIn>,
) -> Result<(NoApi<SetCookie>, Json<Me>), ApiFailure> {
    // Signing a victim in to someone else's account is an attack too.
    if headers.contains_key(header::ORIGIN) {
        caller::check_origin(&headers, &app)?;
    }
    let person = app
        .catalog
        .consume_sign_in_link(&sign_in.token)
        .await
        .map_err(|error| error.problem())?;
    let person = person.ok_or_else(|| {
        Problem::permanent(
            "sign_in_invalid",
            "This sign-in link was used before or is too old.",
        )
        .with_hint("An owner of the server can make a new one: `greenroom person sign-in-link`, or `greenroom sign-in-link` on the server's machine for the first owner.")
    })?;
    audit::happens(&app, &person, "signIn", "/v1/sign-in", Some(StatusCode::OK)).await?;
    let secret = app
        .catalog
        .create_browser_session(&person.id, BROWSER_SESSION)
        .await
        .map_err(|error| error.problem())?;
    let set = cookie(&app, secret.expose(), BROWSER_SESSION)?;
    let is_owner = app.catalog.is_owner(&person.id).await;
    let is_owner = is_owner.map_err(|error| error.problem())?;
    Ok((
        NoApi(AppendHeaders([(header::SET_COOKIE, set)])),
        Json(Me { person, is_owner }),
    ))
}

pub async fn sign_out(
    State(app): State<App>,
    caller: Caller,
    NoApi(headers): NoApi<HeaderMap>,
) -> Result<(NoApi<SetCookie>, NoContent), ApiFailure> {
    if let Some(secret) = caller::cookie(&headers) {
        app.catalog
            .revoke_browser_session(secret)
            .await
            .map_err(|error| error.problem())?;
        app.rights.changed(RightsChange::Person(caller.person.id));
    }
    let clear = cookie(&app, "", Duration::ZERO)?;
    Ok((NoApi(AppendHeaders([(header::SET_COOKIE, clear)])), NoContent))
}

fn cookie(app: &App, value: &str, lifetime: Duration) -> Result<HeaderValue, Problem> {
    let secure = if app.settings.public_url.starts_with("https://") {
        "; Secure"
    } else {
        ""
    };
    let text = format!(
        "{SESSION_COOKIE}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={}{secure}",
        lifetime.as_secs()
    );
    HeaderValue::from_str(&text)
        .map_err(|_| Problem::permanent("internal", "The sign-in cookie cannot be written."))
}

/// A fresh one-time link for the caller, to sign in on another browser or device.
pub async fn create_sign_in_link(
    State(app): State<App>,
    caller: Caller,
) -> Result<Created<SignInLink>, ApiFailure> {
    Ok(Created(sign_in_link(&app, &caller.person.id).await?))
}

/// A fresh one-time link for somebody.
pub(super) async fn sign_in_link(app: &App, person: &PersonId) -> Result<SignInLink, Problem> {
    let secret = app.catalog.create_sign_in_link(person, SIGN_IN_LINK).await;
    let secret = secret.map_err(|error| error.problem())?;
    let lifetime_ms = i64::try_from(SIGN_IN_LINK.as_millis()).unwrap_or(i64::MAX);
    Ok(SignInLink {
        url: format!("{}/sign-in#token={}", app.settings.public_url, secret.expose()),
        expires_at_ms: app.clock.now_ms() + lifetime_ms,
    })
}

pub async fn me(caller: Caller) -> Json<Me> {
    Json(Me {
        person: caller.person,
        is_owner: caller.is_owner,
    })
}

pub async fn update_me(
    State(app): State<App>,
    caller: Caller,
    JsonBody(update): JsonBody<UpdateMe>,
) -> Result<Json<Person>, ApiFailure> {
    let before = caller.person.clone();
    let name = update
        .name
        .map_or(Ok(caller.person.name), |name| checked_name(&name))?;
    let email = match update.email {
        Some(email) if email != before.email && !caller.is_owner => {
            return Err(Problem::permanent(
                "owner_required",
                "Only an owner of this server may change an address: commits are attributed by it.",
            )
            .with_hint("Ask one of those whom `greenroom person list` names.")
            .into());
        }
        Some(email) => checked_email(&email)?,
        None => caller.person.email,
    };
    let update = UpdateMe {
        name: Some(name),
        email: Some(email),
    };
    let person = app
        .catalog
        .update_person(&caller.person.id, update)
        .await
        .map_err(|error| error.problem())?;
    audit::about(&renamed(&before, &person));
    Ok(Json(person))
}

/// What became of somebody's name and address.
pub(super) fn renamed(before: &Person, after: &Person) -> String {
    let [before, after] = [before, after].map(|person| format!("{} <{}>", person.name, person.email));
    match before == after {
        true => after,
        false => format!("{before} → {after}"),
    }
}

/// A name that can stand in a commit, and is not taken for somebody's address or id.
pub(super) fn checked_name(text: &str) -> Result<String, Problem> {
    let name = checked_identity(text, "name")?;
    match name.contains('@') || name.starts_with(PersonId::PREFIX) {
        false => Ok(name),
        true => Err(
            Problem::permanent("name_invalid", "This name looks like an address or an id.")
                .with_hint("Leave @ out, and do not begin with usr_."),
        ),
    }
}

/// An address that can stand in a commit.
pub(super) fn checked_email(text: &str) -> Result<String, Problem> {
    let email = checked_identity(text, "email")?;
    match email.split_once('@') {
        Some((name, host))
            if !name.is_empty() && !host.is_empty() && !email.contains(char::is_whitespace) =>
        {
            Ok(email)
        }
        _ => Err(
            Problem::permanent("email_invalid", "This is not an email address.")
                .with_hint("Such as ada@example.com."),
        ),
    }
}

/// Names and addresses go into commits, whose header lines end at a line break and quote addresses in `<>`.
fn checked_identity(text: &str, field: &str) -> Result<String, Problem> {
    let text = text.trim();
    let is_fit = !text.is_empty()
        && text.chars().count() <= MAX_NAME_CHARS
        && !text.chars().any(|character| {
            character.is_control() || matches!(character, '<' | '>') || is_invisible(character)
        });
    if is_fit {
        return Ok(text.to_owned());
    }
    Err(Problem::permanent(
        &format!("{field}_invalid"),
        format!("This {field} cannot stand in a commit."),
    )
    .with_hint(format!(
        "Use 1 to {MAX_NAME_CHARS} characters that can be seen, without line breaks, < and >."
    )))
}

/// What shows nothing, or lets a text be shown in another order than it has: with it one name can look like another.
fn is_invisible(character: char) -> bool {
    matches!(character, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

pub async fn create_token(
    State(app): State<App>,
    caller: Caller,
    JsonBody(create): JsonBody<CreateToken>,
) -> Result<Created<CreatedToken>, ApiFailure> {
    let label = checked_identity(&create.label, "label")?;
    let created = app
        .catalog
        .create_token(&caller.person.id, &label)
        .await
        .map_err(|error| error.problem())?;
    Ok(Created(created))
}

/// The caller's tokens, without their secrets.
pub async fn list_tokens(State(app): State<App>, caller: Caller) -> Result<Json<TokenList>, ApiFailure> {
    let tokens = app
        .catalog
        .tokens(&caller.person.id)
        .await
        .map_err(|error| error.problem())?;
    let tokens = tokens.into_iter().map(|token| Token {
        id: token.id,
        label: token.label,
        created_at_ms: token.created_at_ms,
    });
    Ok(Json(TokenList {
        tokens: tokens.collect(),
    }))
}

/// Ends one of the caller's tokens, and what it opened, at once.
pub async fn revoke_token(
    State(app): State<App>,
    caller: Caller,
    InPath(TokenPath { id }): InPath<TokenPath>,
) -> Result<NoContent, ApiFailure> {
    let own = app
        .catalog
        .tokens(&caller.person.id)
        .await
        .map_err(|error| error.problem())?;
    let token = own.into_iter().find(|token| token.id.as_str() == id);
    let token = token.ok_or_else(|| {
        Problem::permanent("token_unknown", "You have no such API token.").with_hint("See GET /v1/tokens.")
    })?;
    app.catalog
        .revoke_token(&caller.person.id, &token.id)
        .await
        .map_err(|error| error.problem())?;
    app.rights.changed(RightsChange::Person(caller.person.id));
    Ok(NoContent)
}

pub async fn create_stream_ticket(
    State(app): State<App>,
    viewer: Viewer,
) -> Result<Created<StreamTicket>, ApiFailure> {
    let holder = match viewer {
        Viewer::Person(caller) => Holder::Person(caller.person.id),
        Viewer::Guest(guest) => Holder::Guest(guest.credential),
    };
    let ticket = app
        .tickets
        .issue(holder, app.clock.now_ms())
        .ok_or_else(|| Problem {
            retry_after_ms: Some(30_000),
            ..Problem::transient("rate_limited", "Too many tickets are open.")
        })?;
    Ok(Created(StreamTicket { ticket }))
}

pub async fn models(State(app): State<App>, _: Caller) -> Json<ModelList> {
    Json(ModelList {
        models: app.models.list(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_fit_into_commits() {
        let invisible = ["\u{200b}", "a\u{202e}b", "a\u{2028}b", "a\u{feff}"];
        for bad in ["", "  ", "a\nb", "a <b>", &"x".repeat(101), "usr_1", "a@b"]
            .into_iter()
            .chain(invisible)
        {
            assert!(checked_name(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "a", "@b", "a@", "a b@c", "a@b\u{200b}"] {
            assert!(checked_email(bad).is_err(), "{bad:?}");
        }
        assert_eq!(checked_email(" ada@example.com ").unwrap(), "ada@example.com");
        assert_eq!(checked_name("  Ada Lovelace ").unwrap(), "Ada Lovelace");
    }
}
