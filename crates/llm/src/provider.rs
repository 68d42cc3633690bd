//! Who offers models: address, wire format, key and extra headers. Holds no key: a [`KeySource`] is asked at the moment of
//! use, and nothing here shows one.

use crate::client::Options;
use crate::conversation::WireFormat;
use crate::scripted::script::Script;
use greenroom_stdx::secret::Secret;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::fmt;
use std::sync::Arc;
use thiserror::Error;
use url::Url;

/// Address of Anthropic's API.
pub const ANTHROPIC_BASE_URL: &str = "https://api.anthropic.com";
/// Address of OpenAI's API.
pub const OPENAI_BASE_URL: &str = "https://api.openai.com/v1";

/// One provider of models.
#[derive(Debug, Clone)]
pub struct Provider {
    /// The part of a model's id before the first `/`: not empty, no `/`, unique in a registry.
    pub id: String,
    pub kind: ProviderKind,
    /// Models shown to people, in this order. A provider over HTTP also takes names that are not listed.
    pub models: Vec<ListedModel>,
    /// Time and patience for this one; absent: the registry's.
    pub options: Option<Options>,
}

/// What stands behind a provider.
#[derive(Debug, Clone)]
pub enum ProviderKind {
    Http(Endpoint),
    /// Plays a script in this process; every listed model is one and the same.
    Scripted(Arc<Script>),
}

/// A model a provider lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedModel {
    /// The provider's own name.
    pub name: String,
    /// Shown to people.
    pub label: String,
}

impl ListedModel {
    /// A model whose label is its name.
    pub fn named(name: impl Into<String>) -> Self {
        let name = name.into();
        Self {
            label: name.clone(),
            name,
        }
    }
}

impl Provider {
    /// The same provider with its own time and patience.
    pub fn with_options(self, options: Options) -> Self {
        Self {
            options: Some(options),
            ..self
        }
    }

    /// Anthropic's own API.
    pub fn anthropic(key: KeySource) -> Self {
        Self::hosted(
            "anthropic",
            Endpoint::new(WireFormat::AnthropicMessages, ANTHROPIC_BASE_URL, key),
            &[
                ("claude-opus-4-8", "Claude Opus 4.8"),
                ("claude-sonnet-4-6", "Claude Sonnet 4.6"),
                ("claude-haiku-4-5", "Claude Haiku 4.5"),
            ],
        )
    }

    /// OpenAI's own API, by Responses.
    pub fn openai(key: KeySource) -> Self {
        Self::hosted(
            "openai",
            Endpoint::new(WireFormat::OpenaiResponses, OPENAI_BASE_URL, key),
            &[("gpt-5.4", "GPT-5.4"), ("gpt-5.4-mini", "GPT-5.4 mini")],
        )
    }

    /// Any server that speaks one of the formats.
    pub fn compatible(id: impl Into<String>, endpoint: Endpoint, models: Vec<ListedModel>) -> Self {
        Self {
            id: id.into(),
            kind: ProviderKind::Http(endpoint),
            models,
            options: None,
        }
    }

    /// The built-in demo: `scripted/demo`, which needs no key.
    pub fn demo() -> Self {
        Self::scripted("scripted", Arc::new(Script::demo()))
    }

    /// A script of one's own, as the one model `ID/demo`.
    pub fn scripted(id: impl Into<String>, script: Arc<Script>) -> Self {
        Self {
            id: id.into(),
            kind: ProviderKind::Scripted(script),
            models: vec![ListedModel {
                name: "demo".to_owned(),
                label: crate::scripted::LABEL.to_owned(),
            }],
            options: None,
        }
    }

    fn hosted(id: &str, endpoint: Endpoint, models: &[(&str, &str)]) -> Self {
        let listed = models.iter().map(|(name, label)| ListedModel {
            name: (*name).to_owned(),
            label: (*label).to_owned(),
        });
        Self::compatible(id, endpoint, listed.collect())
    }
}

/// Where and how to ask a provider over HTTP.
#[derive(Debug, Clone)]
pub struct Endpoint {
    pub format: WireFormat,
    /// See [`Endpoint::url`] for what may stand here.
    pub base_url: String,
    pub key: KeySource,
    /// Sent with each request, over our own headers of the same name. Values may be secret and are never shown.
    pub headers: Vec<(String, Secret)>,
}

impl Endpoint {
    /// An endpoint without extra headers.
    pub fn new(format: WireFormat, base_url: impl Into<String>, key: KeySource) -> Self {
        Self {
            format,
            base_url: base_url.into(),
            key,
            headers: Vec::new(),
        }
    }

    /// The address requests go to. A base URL may end in `/` or not, and:
    /// - the full address of the route (`…/v1/messages`, `…/responses`, `…/chat/completions`) is taken as it is;
    /// - Anthropic: `/v1/messages` is added, or `/messages` if it ends in a version such as `/v1`;
    /// - OpenAI formats: the route is added to a path (`https://host/openai/v1`), `/v1` and the route to a bare host.
    pub fn url(&self) -> Result<Url, EndpointError> {
        let mut url = Url::parse(&self.base_url).map_err(EndpointError::NotAUrl)?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(EndpointError::NotHttp);
        }
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return Err(EndpointError::HoldsCredentials);
        }
        let route = match self.format {
            WireFormat::AnthropicMessages => "/messages",
            WireFormat::OpenaiResponses => "/responses",
            WireFormat::OpenaiChat => "/chat/completions",
        };
        let path = url.path().trim_end_matches('/').to_owned();
        if path.ends_with(route) {
            url.set_path(&path);
            return Ok(url);
        }
        let needs_version = match self.format {
            WireFormat::AnthropicMessages => !ends_in_version(&path),
            WireFormat::OpenaiResponses | WireFormat::OpenaiChat => path.is_empty(),
        };
        let version = if needs_version { "/v1" } else { "" };
        url.set_path(&format!("{path}{version}{route}"));
        Ok(url)
    }

    /// The extra headers, parsed and marked as sensitive.
    pub(crate) fn header_map(&self) -> Result<HeaderMap, EndpointError> {
        let mut map = HeaderMap::new();
        for (name, value) in &self.headers {
            let parsed = HeaderName::try_from(name.as_str());
            let parsed = parsed.map_err(|_| EndpointError::InvalidHeader { name: name.clone() })?;
            let value = HeaderValue::try_from(value.expose());
            let mut value = value.map_err(|_| EndpointError::InvalidHeader { name: name.clone() })?;
            value.set_sensitive(true);
            map.insert(parsed, value);
        }
        Ok(map)
    }
}

fn ends_in_version(path: &str) -> bool {
    let last = path.rsplit('/').next().unwrap_or_default();
    last.strip_prefix('v')
        .is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
}

/// An endpoint that cannot be used as configured.
#[derive(Debug, Error)]
pub enum EndpointError {
    #[error("the base URL is not a URL")]
    NotAUrl(#[source] url::ParseError),
    #[error("the base URL must start with http:// or https:// and name a host")]
    NotHttp,
    #[error("the base URL must not hold a user, a password or a fragment; use the provider's key or headers")]
    HoldsCredentials,
    /// The value is not shown.
    #[error("the header `{name}` has a name or value that HTTP does not allow")]
    InvalidHeader { name: String },
    #[error("the HTTP client cannot be set up")]
    Client(#[source] reqwest::Error),
}

/// Where a key is looked up, at the moment of use. Cheap to clone; shows only where it looks.
#[derive(Clone)]
pub struct KeySource {
    described: Arc<str>,
    lookup: Option<Lookup>,
}

/// A lookup that must not block for long.
type Lookup = Arc<dyn Fn() -> Option<Secret> + Send + Sync>;

impl KeySource {
    /// No key: servers on one's own machine. No credential header is sent.
    pub fn none() -> Self {
        Self {
            described: "no key".into(),
            lookup: None,
        }
    }

    /// An environment variable of this process; empty counts as missing.
    pub fn environment(variable: impl Into<String>) -> Self {
        let variable = variable.into();
        Self::from_fn(format!("environment variable {variable}"), move || {
            std::env::var(&variable)
                .ok()
                .filter(|key| !key.trim().is_empty())
                .map(Secret::new)
        })
    }

    /// Any other place. `described` is shown to people when the key is missing ("secret `anthropic`"); it must not hold
    /// the key.
    pub fn from_fn(
        described: impl Into<Arc<str>>,
        lookup: impl Fn() -> Option<Secret> + Send + Sync + 'static,
    ) -> Self {
        Self {
            described: described.into(),
            lookup: Some(Arc::new(lookup)),
        }
    }

    /// Looks the key up now. `Ok(None)` means none is wanted.
    pub fn look_up(&self) -> Result<Option<Secret>, KeyMissing> {
        match &self.lookup {
            None => Ok(None),
            Some(lookup) => match lookup() {
                Some(key) => Ok(Some(Secret::new(key.expose().trim()))),
                None => Err(KeyMissing {
                    described: self.described.to_string(),
                }),
            },
        }
    }

    /// Whether a request could be sent now.
    pub fn is_available(&self) -> bool {
        self.look_up().is_ok()
    }
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeySource({})", self.described)
    }
}

/// A wanted key is not there.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("no API key: {described} holds none")]
pub struct KeyMissing {
    pub described: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(format: WireFormat, base_url: &str, expected: &str) {
        let url = Endpoint::new(format, base_url, KeySource::none()).url().unwrap();
        assert_eq!(url.as_str(), expected, "{base_url}");
    }

    #[test]
    fn base_urls_lead_to_the_route() {
        use WireFormat::{AnthropicMessages, OpenaiChat, OpenaiResponses};
        let anthropic = "https://api.anthropic.com/v1/messages";
        check(AnthropicMessages, ANTHROPIC_BASE_URL, anthropic);
        check(AnthropicMessages, "https://api.anthropic.com/", anthropic);
        check(AnthropicMessages, "https://api.anthropic.com/v1", anthropic);
        check(
            AnthropicMessages,
            "https://api.anthropic.com/v1/messages",
            anthropic,
        );
        check(
            AnthropicMessages,
            "http://gateway/anthropic",
            "http://gateway/anthropic/v1/messages",
        );
        check(
            OpenaiResponses,
            OPENAI_BASE_URL,
            "https://api.openai.com/v1/responses",
        );
        check(
            OpenaiResponses,
            "https://api.openai.com",
            "https://api.openai.com/v1/responses",
        );
        check(
            OpenaiChat,
            "http://[::1]:11434/",
            "http://[::1]:11434/v1/chat/completions",
        );
        check(
            OpenaiChat,
            "http://h/v1beta/openai/",
            "http://h/v1beta/openai/chat/completions",
        );
        check(
            OpenaiChat,
            "http://h/v1/chat/completions",
            "http://h/v1/chat/completions",
        );
        check(
            OpenaiChat,
            "http://h/v1?api-version=1",
            "http://h/v1/chat/completions?api-version=1",
        );
    }

    #[test]
    fn unusable_base_urls_are_refused() {
        let parse = |base_url: &str| Endpoint::new(WireFormat::OpenaiChat, base_url, KeySource::none()).url();
        assert!(matches!(parse("localhost"), Err(EndpointError::NotAUrl(_))));
        assert!(matches!(parse("ftp://h/"), Err(EndpointError::NotHttp)));
        assert!(matches!(
            parse("http://user:secret@h/"),
            Err(EndpointError::HoldsCredentials)
        ));
    }

    #[test]
    fn keys_are_looked_up_late_and_never_shown() {
        let mut endpoint = Endpoint::new(
            WireFormat::OpenaiChat,
            "http://h",
            KeySource::from_fn("secret `x`", || Some(Secret::new("hunter2\n"))),
        );
        endpoint
            .headers
            .push(("x-extra".to_owned(), Secret::new("hunter2")));
        let shown = format!("{endpoint:?} {:?}", endpoint.header_map().unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
        assert_eq!(endpoint.key.look_up().unwrap().unwrap().expose(), "hunter2");
        let missing = KeySource::environment("GREENROOM_TEST_VARIABLE_THAT_IS_NOT_SET").look_up();
        assert_eq!(
            missing.unwrap_err().to_string(),
            "no API key: environment variable GREENROOM_TEST_VARIABLE_THAT_IS_NOT_SET holds none"
        );
    }
}
