//! Calls of other systems that ask for images. They carry no token; a signature over the body says who sent them.

use super::app::App;
use super::body;
use super::failure::ApiFailure;
use super::names::Named;
use super::parameters::InPath;
use super::reply::Accepted;
use aide::OperationInput;
use axum::extract::{FromRequest, Request, State};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use greenroom_protocol::client::image::{ImageTrigger, WebhookReceipt};
use greenroom_protocol::client::problem::Problem;
use greenroom_stdx::secret::Secret;
use ring::hmac;
use serde::Deserialize;

/// Largest body in bytes; that of a push with thousands of commits has less.
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// What GitHub, Gitea and Forgejo sign the body with: `sha256=` and the HMAC in hexadecimal digits.
const SIGNATURE: &str = "x-hub-signature-256";

/// What GitLab sends: the secret itself.
const TOKEN: &str = "x-gitlab-token";

/// Say what the call is about, of which only a push is about images.
const EVENTS: [&str; 2] = ["x-github-event", "x-gitlab-event"];
const PUSHES: [&str; 2] = ["push", "Push Hook"];

/// What a call says.
#[derive(Debug, PartialEq, Eq)]
enum About {
    /// The branch of images was pushed to. Sent again, or by somebody who kept a copy, it says nothing new.
    Push,
    /// Nothing that an image is built of.
    Other,
    /// Nothing at all; whoever sends that wants an image.
    Nothing,
}

/// Whatever was sent, with its headers.
pub struct Sent {
    headers: HeaderMap,
    body: Vec<u8>,
}

impl<S: Send + Sync> FromRequest<S> for Sent {
    type Rejection = ApiFailure;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiFailure> {
        let (parts, body) = request.into_parts();
        Ok(Self {
            headers: parts.headers,
            body: body::read(body, MAX_BODY_BYTES).await?,
        })
    }
}

impl OperationInput for Sent {}

pub async fn build_image(
    State(app): State<App>,
    InPath(Named { name }): InPath<Named>,
    sent: Sent,
) -> Result<Accepted<WebhookReceipt>, ApiFailure> {
    let secret = app.catalog.secret(&format!("webhook.{name}")).await;
    // Who cannot sign does not learn which repositories there are.
    if !secret.is_ok_and(|secret| secret.is_some_and(|secret| sent.is_signed(&secret))) {
        return Err(
            Problem::permanent("webhook_unsigned", "The call is not signed as it should be.")
                .with_hint("Store the secret with `greenroom secret set webhook.REPOSITORY`, and give the sender the same one.")
                .into(),
        );
    }
    if sent.is_form() {
        return Err(Problem::permanent(
            "body_type_unsupported",
            "The call is a form, and what it says lies inside of it.",
        )
        .with_hint("Let the sender use the content type `application/json`.")
        .into());
    }
    let repository = app.forge.repository(&name).await;
    let repository = repository.map_err(|error| error.problem())?;
    let branch = repository.default_branch.unwrap_or_default();
    // Many at once are one: an image that waits already is it.
    let image = match sent.about(&branch) {
        About::Push => app.images.request_if_stale(&name, ImageTrigger::Webhook).await?,
        About::Nothing => Some(app.images.request(&name, ImageTrigger::Webhook, false).await?),
        About::Other => None,
    };
    let image_id = image.map(|image| image.id);
    Ok(Accepted(WebhookReceipt { image_id }))
}

impl Sent {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    fn is_form(&self) -> bool {
        let kind = self.header(CONTENT_TYPE.as_str()).unwrap_or_default();
        kind.starts_with("application/x-www-form-urlencoded")
    }

    fn is_signed(&self, secret: &Secret) -> bool {
        let secret = secret.expose().as_bytes();
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        if let Some(signature) = self.header(SIGNATURE) {
            let tag = signature.strip_prefix("sha256=").and_then(from_hex);
            return tag.is_some_and(|tag| hmac::verify(&key, &self.body, &tag).is_ok());
        }
        // Compared as digests under the key, so that the time it takes tells nothing.
        self.header(TOKEN).is_some_and(|token| {
            let wanted = hmac::sign(&key, secret);
            hmac::verify(&key, token.as_bytes(), wanted.as_ref()).is_ok()
        })
    }

    /// What a repository with this default branch is told.
    fn about(&self, branch: &str) -> About {
        #[derive(Deserialize)]
        struct Push {
            #[serde(rename = "ref")]
            name: String,
        }
        let mut events = EVENTS.iter().filter_map(|name| self.header(name));
        if events.any(|event| !PUSHES.contains(&event)) {
            return About::Other;
        }
        match serde_json::from_slice::<Push>(&self.body) {
            Ok(push) if push.name.strip_prefix("refs/heads/") == Some(branch) => About::Push,
            Ok(_) => About::Other,
            Err(_) => About::Nothing,
        }
    }
}

fn from_hex(digits: &str) -> Option<Vec<u8>> {
    if !digits.len().is_multiple_of(2) || !digits.is_ascii() {
        return None;
    }
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderName;

    fn sent(headers: &[(&'static str, &str)], body: &str) -> Sent {
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        Sent {
            headers: headers.collect(),
            body: body.as_bytes().to_vec(),
        }
    }

    /// The example of GitHub's documentation.
    #[test]
    fn signatures_are_checked() {
        let secret = Secret::new("It's a Secret to Everybody".to_owned());
        let right = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        for (name, value, body, expected) in [
            (SIGNATURE, right, "Hello, World!", true),
            (SIGNATURE, right, "Hello, World.", false),
            (SIGNATURE, &right[7..], "Hello, World!", false),
            (SIGNATURE, "sha256=", "Hello, World!", false),
            (SIGNATURE, "sha256=7", "Hello, World!", false),
            (SIGNATURE, "sha256=zz", "Hello, World!", false),
            (TOKEN, "It's a Secret to Everybody", "anything", true),
            (TOKEN, "It's a Secret", "anything", false),
            (TOKEN, "", "anything", false),
        ] {
            assert_eq!(
                sent(&[(name, value)], body).is_signed(&secret),
                expected,
                "{value}"
            );
        }
        assert!(!sent(&[], "").is_signed(&secret));
        // A wrong signature is not made up for by something else.
        let both = [(SIGNATURE, "sha256=00"), (TOKEN, "It's a Secret to Everybody")];
        assert!(!sent(&both, "").is_signed(&secret));
    }

    #[test]
    fn only_what_moves_the_branch_counts() {
        for (headers, body, expected) in [
            (&[][..], "", About::Nothing),
            (&[], "{}", About::Nothing),
            (&[], r#"{"ref": "refs/heads/main", "after": "1"}"#, About::Push),
            (&[], r#"{"ref": "refs/heads/next"}"#, About::Other),
            (&[], r#"{"ref": "refs/tags/main"}"#, About::Other),
            (&[(EVENTS[0], "ping")], "{}", About::Other),
            (&[(EVENTS[0], "issues")], "{}", About::Other),
            (
                &[(EVENTS[0], "push")],
                r#"{"ref": "refs/heads/main"}"#,
                About::Push,
            ),
            (
                &[(EVENTS[1], "Push Hook")],
                r#"{"ref": "refs/heads/main"}"#,
                About::Push,
            ),
            (
                &[(EVENTS[1], "Tag Push Hook")],
                r#"{"ref": "refs/heads/main"}"#,
                About::Other,
            ),
        ] {
            assert_eq!(sent(headers, body).about("main"), expected, "{body}");
        }
    }
}
