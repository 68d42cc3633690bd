//! Makes model clients of the configuration. Keys are looked up at the moment of each request, never kept.

use crate::config::{Config, KeyOrigin, ProviderConfig, ProviderKind};
use anyhow::Context as _;
use greenroom_llm::catalog::Registry;
use greenroom_llm::client::Options;
use greenroom_llm::conversation::WireFormat;
use greenroom_llm::provider::{
    ANTHROPIC_BASE_URL, Endpoint, KeySource, ListedModel, OPENAI_BASE_URL, Provider,
};
use greenroom_llm::scripted::script::Script;
use greenroom_stdx::secret::Secret;
use greenroom_store::catalog::Catalog;
use std::sync::Arc;

/// All configured models.
pub fn registry(config: &Config, catalog: &Arc<Catalog>) -> anyhow::Result<Registry> {
    let mut providers = Vec::new();
    for provider in &config.models.providers {
        providers.push(built(provider, catalog).with_context(|| format!("provider `{}`", provider.id))?);
    }
    Ok(Registry::new(
        providers,
        Some(&config.models.default),
        &Options::default(),
    )?)
}

fn built(provider: &ProviderConfig, catalog: &Arc<Catalog>) -> anyhow::Result<Provider> {
    let options = Options {
        idle_timeout: provider.idle_timeout,
        max_attempts: provider.max_attempts,
        ..Options::default()
    };
    let format = match provider.kind {
        ProviderKind::Scripted => {
            let script = match &provider.script {
                Some(path) => {
                    let text =
                        std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
                    Script::parse(&text).with_context(|| format!("script {}", path.display()))?
                }
                None => Script::demo(),
            };
            return Ok(Provider::scripted(&provider.id, Arc::new(script)).with_options(options));
        }
        ProviderKind::AnthropicMessages => WireFormat::AnthropicMessages,
        ProviderKind::OpenaiResponses => WireFormat::OpenaiResponses,
        ProviderKind::OpenaiChat => WireFormat::OpenaiChat,
    };
    let base_url = provider.base_url.as_deref().unwrap_or(match format {
        WireFormat::AnthropicMessages => ANTHROPIC_BASE_URL,
        WireFormat::OpenaiResponses | WireFormat::OpenaiChat => OPENAI_BASE_URL,
    });
    let endpoint = Endpoint::new(format, base_url, key_source(&provider.key, catalog));
    let models = provider.models.iter().map(ListedModel::named).collect();
    Ok(Provider::compatible(&provider.id, endpoint, models).with_options(options))
}

fn key_source(key: &KeyOrigin, catalog: &Arc<Catalog>) -> KeySource {
    match key {
        KeyOrigin::None => KeySource::none(),
        KeyOrigin::Environment(name) => KeySource::environment(name),
        KeyOrigin::Secret(name) => {
            let (catalog, name) = (catalog.clone(), name.clone());
            KeySource::from_fn(format!("secret {name}"), move || stored_secret(&catalog, &name))
        }
    }
}

/// The store answers asynchronously and clients ask for keys synchronously, on a thread that may wait.
fn stored_secret(catalog: &Catalog, name: &str) -> Option<Secret> {
    let handle = tokio::runtime::Handle::current();
    match tokio::task::block_in_place(|| handle.block_on(catalog.secret(name))) {
        Ok(secret) => secret,
        Err(error) => {
            tracing::error!(name, error = %greenroom_stdx::chain::Chain(&error), "cannot read a model's key");
            None
        }
    }
}
