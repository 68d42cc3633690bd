//! The models of this server: `provider/name` ids, labels, the default, and the client of each. Built once from
//! configuration; it neither reads configuration nor sends anything.

use crate::client::{Client, Options};
use crate::provider::{EndpointError, Provider, ProviderKind};
use std::collections::BTreeMap;
use thiserror::Error;

/// All providers and their clients.
#[derive(Debug, Clone)]
pub struct Registry {
    entries: Vec<ModelEntry>,
    clients: BTreeMap<String, Client>,
}

/// A listed model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelEntry {
    /// `provider/name`.
    pub id: String,
    /// Shown to people; of a scripted model always [`crate::scripted::LABEL`].
    pub label: String,
    pub is_scripted: bool,
    pub is_default: bool,
}

/// What a turn needs of a model.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The full id, also where the default was asked for.
    pub id: String,
    pub label: String,
    pub is_scripted: bool,
    /// The provider's own name, for [`crate::conversation::ModelRequest::model`].
    pub name: String,
    pub client: Client,
}

impl Registry {
    /// Builds a client for each provider. The default is `default_id`, which need not be listed, else the first listed
    /// model.
    pub fn new(
        providers: Vec<Provider>,
        default_id: Option<&str>,
        options: &Options,
    ) -> Result<Self, RegistryError> {
        let mut registry = Self {
            entries: Vec::new(),
            clients: BTreeMap::new(),
        };
        for provider in providers {
            registry.add(provider, options)?;
        }
        let default_id = match default_id {
            Some(id) => id.to_owned(),
            None => registry
                .entries
                .first()
                .map(|entry| entry.id.clone())
                .ok_or(RegistryError::NoModel)?,
        };
        registry.make_default(&default_id)?;
        Ok(registry)
    }

    fn add(&mut self, provider: Provider, options: &Options) -> Result<(), RegistryError> {
        let options = provider.options.as_ref().unwrap_or(options);
        let id = provider.id;
        if id.is_empty() || id.contains('/') {
            return Err(RegistryError::InvalidProviderId { id });
        }
        let client = match &provider.kind {
            ProviderKind::Http(endpoint) => {
                Client::http(endpoint.clone(), options.clone()).map_err(|source| RegistryError::Endpoint {
                    id: id.clone(),
                    source,
                })?
            }
            ProviderKind::Scripted(script) => Client::scripted(script.clone(), options.clone()),
        };
        if self.clients.contains_key(&id) {
            return Err(RegistryError::DuplicateProvider { id });
        }
        for model in provider.models {
            self.entries.push(ModelEntry {
                id: format!("{id}/{}", model.name),
                label: if client.is_scripted() {
                    crate::scripted::LABEL.to_owned()
                } else {
                    model.label
                },
                is_scripted: client.is_scripted(),
                is_default: false,
            });
        }
        self.clients.insert(id, client);
        Ok(())
    }

    fn make_default(&mut self, id: &str) -> Result<(), RegistryError> {
        let resolved = self.resolve(Some(id))?;
        let entry = match self.entries.iter().position(|entry| entry.id == id) {
            Some(position) => self.entries.remove(position),
            None => ModelEntry {
                id: resolved.id,
                label: resolved.label,
                is_scripted: resolved.is_scripted,
                is_default: false,
            },
        };
        self.entries.insert(
            0,
            ModelEntry {
                is_default: true,
                ..entry
            },
        );
        Ok(())
    }

    /// Listed models, the default first, else in order of configuration. Never empty.
    pub fn models(&self) -> &[ModelEntry] {
        &self.entries
    }

    /// The model of an id; `None` is the default. A provider over HTTP takes any name, because it alone knows its models.
    pub fn resolve(&self, id: Option<&str>) -> Result<Resolved, ResolveError> {
        let id = match (id, self.entries.first()) {
            (Some(id), _) => id,
            (None, Some(default)) => &default.id,
            (None, None) => {
                return Err(ResolveError::UnknownModel {
                    id: String::new(),
                    known: String::new(),
                });
            }
        };
        let unknown = || ResolveError::UnknownModel {
            id: id.to_owned(),
            known: self
                .entries
                .iter()
                .map(|entry| entry.id.as_str())
                .collect::<Vec<_>>()
                .join(", "),
        };
        let (provider, name) = id.split_once('/').ok_or_else(unknown)?;
        let client = self.clients.get(provider).ok_or_else(unknown)?;
        let listed = self.entries.iter().find(|entry| entry.id == id);
        let label = match listed {
            Some(entry) => entry.label.clone(),
            None if client.is_scripted() || name.is_empty() => return Err(unknown()),
            None => name.to_owned(),
        };
        Ok(Resolved {
            id: id.to_owned(),
            label,
            is_scripted: client.is_scripted(),
            name: name.to_owned(),
            client: client.clone(),
        })
    }
}

/// Why a registry cannot be built; all are mistakes in configuration.
#[derive(Debug, Error)]
pub enum RegistryError {
    #[error("no provider lists a model, and no default model is set")]
    NoModel,
    #[error("`{id}` cannot be a provider's id: it must not be empty or hold a `/`")]
    InvalidProviderId { id: String },
    #[error("two providers have the id `{id}`")]
    DuplicateProvider { id: String },
    #[error("the provider `{id}` cannot be used")]
    Endpoint {
        id: String,
        #[source]
        source: EndpointError,
    },
    #[error("the default model does not exist")]
    Default(#[from] ResolveError),
}

/// Why an id names no model.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ResolveError {
    /// `known` lists the ids that exist, joined by commas.
    #[error("there is no model `{id}`; known are {known}, and any name of a configured provider")]
    UnknownModel { id: String, known: String },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::KeySource;

    fn registry(default_id: Option<&str>) -> Result<Registry, RegistryError> {
        let providers = vec![Provider::anthropic(KeySource::none()), Provider::demo()];
        Registry::new(providers, default_id, &Options::default())
    }

    #[test]
    fn the_default_comes_first_and_is_marked_once() {
        let registry = registry(Some("scripted/demo")).unwrap();
        let first = &registry.models()[0];
        assert_eq!(
            (first.id.as_str(), first.label.as_str()),
            ("scripted/demo", "scripted demo model")
        );
        assert!(first.is_scripted && first.is_default);
        assert_eq!(
            registry.models().iter().filter(|entry| entry.is_default).count(),
            1
        );
        assert_eq!(registry.resolve(None).unwrap().id, "scripted/demo");
    }

    #[test]
    fn http_providers_take_any_name_and_scripts_only_their_own() {
        let registry = registry(Some("anthropic/some/new-model")).unwrap();
        assert_eq!(registry.resolve(None).unwrap().name, "some/new-model");
        for id in ["scripted/other", "nobody/x", "demo", "anthropic/", ""] {
            assert!(
                matches!(registry.resolve(Some(id)), Err(ResolveError::UnknownModel { .. })),
                "{id}"
            );
        }
    }

    #[test]
    fn mistakes_in_configuration_are_named() {
        let twice = Registry::new(
            vec![Provider::demo(), Provider::demo()],
            None,
            &Options::default(),
        );
        assert!(matches!(twice, Err(RegistryError::DuplicateProvider { .. })));
        assert!(matches!(
            Registry::new(vec![], None, &Options::default()),
            Err(RegistryError::NoModel)
        ));
        assert!(matches!(
            registry(Some("nobody/x")),
            Err(RegistryError::Default(_))
        ));
    }
}
