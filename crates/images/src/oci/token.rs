//! What a registry wants to see before it answers (<https://distribution.github.io/distribution/spec/auth/token/>).

use super::failure::OciError;
use super::registry::{Login, bounded, is_this_machine, leads_here, unreachable};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use greenroom_protocol::reference::Reference;
use greenroom_stdx::secret::Secret;
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Longest answer with a token, in bytes.
const MAX_TOKEN_BYTES: u64 = 256 << 10;

/// How a registry says that it wants to know who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer {
        /// Where tokens are given.
        realm: String,
        service: Option<String>,
    },
}

impl Challenge {
    /// `None` for ways that are not known.
    pub(super) fn read(header: &str) -> Option<Self> {
        let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service) = (None, None);
        for (name, value) in parameters(rest) {
            match name.to_ascii_lowercase().as_str() {
                "realm" => realm = Some(value),
                "service" => service = Some(value),
                _ => {}
            }
        }
        Some(Self::Bearer {
            realm: realm?,
            service,
        })
    }
}

/// `name="value"`, separated by commas; values may hold commas.
fn parameters(mut text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    while let Some((name, rest)) = text.split_once('=') {
        let name = name.trim_matches([' ', ',', '\t']).to_owned();
        let (value, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => rest.split_once(',').unwrap_or((rest, "")),
        };
        found.push((name, value.to_owned()));
        text = after;
    }
    found
}

/// What was obtained, by registry, repository and actions. Tokens live for minutes; one that is too old is refused and obtained again.
#[derive(Debug, Default)]
pub(super) struct Grants(Mutex<HashMap<(String, String, String), Secret>>);

#[derive(Deserialize)]
struct Granted {
    token: Option<String>,
    access_token: Option<String>,
}

impl Grants {
    /// The header that shows who asks.
    pub(super) fn find(&self, reference: &Reference, actions: &str) -> Option<String> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .get(&key(reference, actions))
            .map(|header| header.expose().to_owned())
    }

    pub(super) async fn obtain(
        &self,
        http: &reqwest::Client,
        reference: &Reference,
        actions: &str,
        challenge: &Challenge,
        login: Option<&Login>,
    ) -> Result<(), OciError> {
        let header = match challenge {
            Challenge::Basic => basic(login.ok_or_else(|| OciError::Login {
                registry: reference.registry.clone(),
                wanted: "a login",
            })?),
            Challenge::Bearer { realm, service } => {
                let token = token(http, reference, actions, realm, service.as_deref(), login).await?;
                format!("Bearer {token}")
            }
        };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(key(reference, actions), Secret::new(header));
        Ok(())
    }
}

fn key(reference: &Reference, actions: &str) -> (String, String, String) {
    (
        reference.registry.clone(),
        reference.repository.clone(),
        actions.to_owned(),
    )
}

fn basic(login: &Login) -> String {
    let pair = format!("{}:{}", login.username, login.password.expose());
    format!("Basic {}", STANDARD.encode(pair))
}

async fn token(
    http: &reqwest::Client,
    reference: &Reference,
    actions: &str,
    realm: &str,
    service: Option<&str>,
    login: Option<&Login>,
) -> Result<String, OciError> {
    let protocol = |message: &str| OciError::Protocol {
        registry: reference.registry.clone(),
        message: message.to_owned(),
    };
    let realm = reqwest::Url::parse(realm).map_err(|_| protocol("its realm is no address"))?;
    // A registry elsewhere has no business with this machine, nor a login with a wire that others read.
    let is_here = leads_here(&realm);
    if is_here != is_this_machine(reference.host()) || (realm.scheme() != "https" && !is_here) {
        return Err(protocol("its realm is not a machine to be asked"));
    }
    let scope = format!("repository:{}:{actions}", reference.repository);
    let mut request = http.get(realm).query(&[("scope", scope.as_str())]);
    if let Some(service) = service {
        request = request.query(&[("service", service)]);
    }
    if let Some(login) = login {
        request = request.basic_auth(&login.username, Some(login.password.expose()));
    }
    let response = request
        .send()
        .await
        .map_err(|error| unreachable(reference, error))?;
    if !response.status().is_success() {
        return Err(OciError::Refused {
            registry: reference.registry.clone(),
            what: "a token".to_owned(),
            status: response.status().as_u16(),
            message: String::new(),
        });
    }
    let body = bounded(response, MAX_TOKEN_BYTES).await;
    let body = body.map_err(|error| unreachable(reference, error))?;
    let granted = body.and_then(|body| serde_json::from_slice::<Granted>(&body).ok());
    granted
        .and_then(|granted| granted.token.or(granted.access_token))
        .filter(|token| token.bytes().all(|byte| byte.is_ascii_graphic()))
        .ok_or_else(|| protocol("it gave no token"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        let bearer = |realm: &str, service: Option<&str>| {
            Some(Challenge::Bearer {
                realm: realm.to_owned(),
                service: service.map(ToOwned::to_owned),
            })
        };
        for (header, expected) in [
            ("Basic realm=\"basic-realm\"", Some(Challenge::Basic)),
            ("basic", Some(Challenge::Basic)),
            (
                "Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\",scope=\"repository:a/b:pull,push\"",
                bearer("https://auth.docker.io/token", Some("registry.docker.io")),
            ),
            (
                "bearer Realm=https://a.example/t",
                bearer("https://a.example/t", None),
            ),
            ("Bearer service=\"x\"", None),
            ("Negotiate", None),
            ("", None),
        ] {
            assert_eq!(Challenge::read(header), expected, "{header}");
        }
    }
}
