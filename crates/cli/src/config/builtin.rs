//! Providers that are there without a file: by the usual variables of their vendors, and always the scripted demo model.

use super::read::Environment;
use super::{KeyOrigin, ProviderConfig, ProviderKind};
use std::time::Duration;

/// Id of the built-in scripted provider.
pub(super) const SCRIPTED: &str = "scripted";

/// In order of preference for the default model; the scripted one last.
pub(super) fn providers(environment: &Environment) -> Vec<ProviderConfig> {
    let mut providers = Vec::new();
    let anthropic = hosted(
        environment,
        "anthropic",
        ["ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"],
        ProviderKind::AnthropicMessages,
        &["claude-sonnet-4-6", "claude-opus-4-8", "claude-haiku-4-5"],
    );
    providers.extend(anthropic);
    let openai_kind = match environment.get("OPENAI_BASE_URL") {
        // What others offer under OpenAI's name is Chat Completions; Responses is OpenAI's own.
        Some(url) if !url.contains("api.openai.com") => ProviderKind::OpenaiChat,
        _ => ProviderKind::OpenaiResponses,
    };
    let variables = ["OPENAI_API_KEY", "OPENAI_BASE_URL"];
    providers.extend(hosted(
        environment,
        "openai",
        variables,
        openai_kind,
        &["gpt-5.4", "gpt-5.4-mini"],
    ));
    providers.push(ProviderConfig {
        id: SCRIPTED.to_owned(),
        kind: ProviderKind::Scripted,
        base_url: None,
        key: KeyOrigin::None,
        models: vec!["demo".to_owned()],
        idle_timeout: Duration::from_secs(120),
        max_attempts: 4,
        script: None,
    });
    providers
}

fn hosted(
    environment: &Environment,
    id: &str,
    [key_variable, url_variable]: [&str; 2],
    kind: ProviderKind,
    models: &[&str],
) -> Option<ProviderConfig> {
    let key = environment
        .get(key_variable)
        .map(|_| KeyOrigin::Environment(key_variable.to_owned()));
    let base_url = environment
        .get(url_variable)
        .map(|url| url.trim_end_matches('/').to_owned());
    if key.is_none() && base_url.is_none() {
        return None;
    }
    Some(ProviderConfig {
        id: id.to_owned(),
        kind,
        base_url,
        key: key.unwrap_or(KeyOrigin::None),
        models: models.iter().map(|name| (*name).to_owned()).collect(),
        idle_timeout: Duration::from_secs(120),
        max_attempts: 4,
        script: None,
    })
}
