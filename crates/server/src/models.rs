//! The models of this server, as sessions and people see them; `llm` knows how each is reached.

use greenroom_agent::world::ModelClient;
use greenroom_llm::catalog::{Registry, ResolveError};
use greenroom_protocol::client::model::Model;
use greenroom_protocol::client::problem::Problem;
use std::sync::Arc;

/// A model and how to reach it.
#[derive(Clone)]
pub struct SessionModel {
    /// `provider/name`.
    pub id: String,
    /// The provider's own name of it.
    pub name: String,
    pub is_scripted: bool,
    pub client: Arc<dyn ModelClient>,
}

/// All models; cheap to clone.
#[derive(Clone)]
pub struct ModelDirectory {
    registry: Arc<Registry>,
}

impl ModelDirectory {
    pub fn new(registry: Registry) -> Self {
        Self {
            registry: Arc::new(registry),
        }
    }

    /// What people choose from, the default first. Never empty.
    pub fn list(&self) -> Vec<Model> {
        self.registry
            .models()
            .iter()
            .map(|entry| Model {
                id: entry.id.clone(),
                label: entry.label.clone(),
                is_scripted: entry.is_scripted,
                is_default: entry.is_default,
            })
            .collect()
    }

    /// Whether a model plays a script; unknown ones do not.
    pub fn is_scripted(&self, id: &str) -> bool {
        self.registry
            .resolve(Some(id))
            .is_ok_and(|resolved| resolved.is_scripted)
    }

    /// The model of an id, `None`: the default.
    pub fn resolve(&self, id: Option<&str>) -> Result<SessionModel, Problem> {
        if id.is_some_and(|id| id.len() > MAX_ID_BYTES) {
            return Err(Problem::permanent(
                "model_unknown",
                "This is too long for the name of a model.",
            ));
        }
        let resolved = self
            .registry
            .resolve(id)
            .map_err(|ResolveError::UnknownModel { id, known }| {
                Problem::permanent("model_unknown", format!("There is no model `{id}` here.")).with_hint(
                    format!("Choose one of: {known}, or any other name of a configured provider."),
                )
            })?;
        Ok(SessionModel {
            id: resolved.id,
            name: resolved.name,
            is_scripted: resolved.is_scripted,
            client: Arc::new(resolved.client),
        })
    }
}

/// Longest id of a model, in bytes.
const MAX_ID_BYTES: usize = 200;
