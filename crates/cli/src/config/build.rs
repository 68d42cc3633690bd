//! From values that have the right form to a configuration that makes sense as a whole.

use super::options::{OPTIONS, PROVIDER_OPTIONS, PROVIDERS};
use super::read::{
    ConfigError, Environment, Found, Place, Settings, Value, Values, parse_text, read_environment, read_file,
};
use super::{
    AgentConfig, Config, EgressConfig, ImageConfig, KeyOrigin, LogConfig, LogFormat, ModelsConfig,
    ProviderConfig, ProviderKind, SandboxConfig, ServerConfig, ShownOption, SnapshotConfig, builtin, locate,
};
use greenroom_egress::{AddressException, AddressExceptionInvalid};
use greenroom_protocol::client::member::SessionAccess;
use greenroom_protocol::environment::Backend;
use greenroom_server::environment::RepositoryEgress;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Reads the configuration file (`asked`, else by convention) and the environment. All errors at once.
pub fn load(asked: Option<&Path>, environment: &Environment) -> Result<Config, Vec<ConfigError>> {
    let source = locate::file(asked, environment);
    let mut settings = Settings::default();
    if let Some(path) = &source {
        match std::fs::read_to_string(path) {
            Ok(text) => read_file(path, &text, &mut settings),
            Err(error) => settings.errors.push(ConfigError {
                place: path.display().to_string(),
                option: String::new(),
                message: format!("cannot be read: {error}"),
                hint: None,
            }),
        }
    }
    read_environment(environment, &mut settings);
    build(source, settings, environment)
}

fn build(
    source: Option<PathBuf>,
    mut settings: Settings,
    environment: &Environment,
) -> Result<Config, Vec<ConfigError>> {
    let mut errors = std::mem::take(&mut settings.errors);
    let mut providers = Vec::new();
    for (place, values) in &settings.providers {
        match provider(place, values, environment) {
            Ok(provider)
                if providers
                    .iter()
                    .any(|other: &ProviderConfig| other.id == provider.id) =>
            {
                errors.push(provider_error(
                    place,
                    "id",
                    format!("the id {} is used twice", provider.id),
                ));
            }
            Ok(provider) => providers.push(provider),
            Err(error) => errors.push(error),
        }
    }
    for builtin in builtin::providers(environment) {
        if !providers.iter().any(|provider| provider.id == builtin.id) {
            providers.push(builtin);
        }
    }
    let get = Getter {
        values: &settings.values,
        environment,
    };
    let default = match default_model(settings.values.get("models.default"), &mut providers) {
        Ok(model) => model,
        Err(error) => {
            errors.push(error);
            String::new()
        }
    };
    let backends = match backends(get.find("sandbox.backends")) {
        Ok(backends) => backends,
        Err(error) => {
            errors.push(error);
            Vec::new()
        }
    };
    let allow_addresses = match allow_addresses(get.find("egress.allow_addresses")) {
        Ok(exceptions) => exceptions,
        Err(error) => {
            errors.push(error);
            Vec::new()
        }
    };
    if !errors.is_empty() {
        return Err(errors);
    }
    let shown = shown(&settings.values, &default, &get);
    Ok(Config {
        source,
        server: ServerConfig {
            // The form was checked when it was read.
            listen: get
                .text("server.listen")
                .parse()
                .unwrap_or(std::net::SocketAddr::from(([127, 0, 0, 1], 7878))),
            data_dir: get
                .path("server.data_dir")
                .unwrap_or_else(|| locate::default_data_dir(environment)),
            public_url: get.optional("server.public_url"),
            allowed_origins: get.list("server.allowed_origins"),
            session_access: match get.text("server.session_access").as_str() {
                "members" => SessionAccess::Members,
                "editor" => SessionAccess::Editor,
                _ => SessionAccess::Viewer,
            },
            session_idle: Duration::from_secs(get.integer("server.session_idle_seconds")),
            audit_days: get.integer("server.audit_days"),
            archive_after: get.days("server.archive_after_days"),
            delete_after: get.days("server.delete_archived_after_days"),
        },
        models: ModelsConfig { default, providers },
        sandbox: SandboxConfig {
            state_dir: get.path("sandbox.state_dir"),
            memory_mb: get.integer("sandbox.memory_mb"),
            cpus: get.number("sandbox.cpus"),
            max_processes: get.integer("sandbox.max_processes"),
            disk_mb: get.integer("sandbox.disk_mb"),
            max_open_files: get.integer("sandbox.max_open_files"),
            wall_time_minutes: get.integer("sandbox.wall_time_minutes"),
            max_output_mb: get.integer("sandbox.max_output_mb"),
            backends,
            runtimes: get.list("sandbox.runtimes"),
            microvm_kernel: get.path("sandbox.microvm_kernel"),
            firecracker: get.path("sandbox.firecracker"),
            idle_minutes: get.number("sandbox.idle_minutes"),
            still_seconds: get.number("sandbox.still_seconds"),
            max_running: usize::try_from(get.integer("sandbox.max_running")).unwrap_or(usize::MAX),
            sync_timeout_seconds: get.integer("sandbox.sync_timeout_seconds"),
        },
        image: ImageConfig {
            is_scheduled: get.text("image.schedule") == "on",
            max_builds: usize::try_from(get.integer("image.max_builds")).unwrap_or(usize::MAX),
            packs_layers: get.text("image.layers") == "packed",
            disk_mb: get.integer("image.disk_mb"),
            registries: get.list("image.registries"),
        },
        snapshot: SnapshotConfig {
            kept: usize::try_from(get.integer("snapshot.keep")).unwrap_or(usize::MAX),
            max_age_days: get.integer("snapshot.max_age_days"),
            disk_mb: get.integer("snapshot.disk_mb"),
            max_sandbox_mb: get.integer("snapshot.max_sandbox_mb"),
        },
        max_pool: u32::try_from(get.integer("pool.max_per_repository")).unwrap_or(u32::MAX),
        egress: EgressConfig {
            repositories: match get.text("egress.repositories").as_str() {
                "none" => RepositoryEgress::None,
                "any" => RepositoryEgress::Any,
                _ => RepositoryEgress::Registries,
            },
            allow_addresses,
            ca_file: get.path("egress.ca_file"),
        },
        agent: AgentConfig {
            max_steps: u32::try_from(get.integer("agent.max_steps")).unwrap_or(u32::MAX),
            max_output_tokens: u32::try_from(get.integer("agent.max_output_tokens")).unwrap_or(u32::MAX),
        },
        log: LogConfig {
            level: get.text("log.level"),
            format: if get.text("log.format") == "json" {
                LogFormat::Json
            } else {
                LogFormat::Text
            },
        },
        shown,
    })
}

/// The names of `sandbox.backends` as backends, each once.
fn backends(found: Option<Found>) -> Result<Vec<Backend>, ConfigError> {
    let Some(Found {
        value: Value::List(names),
        place,
    }) = found
    else {
        return Ok(vec![Backend::default()]);
    };
    let refuse = |message: String| ConfigError {
        place: place.to_string(),
        option: "sandbox.backends".to_owned(),
        message,
        hint: Some("name one or more of namespace, oci, microvm".to_owned()),
    };
    let mut backends = Vec::new();
    for name in &names {
        let backend = match name.as_str() {
            "namespace" => Backend::Namespace,
            "oci" => Backend::Oci,
            "microvm" => Backend::Microvm,
            _ => return Err(refuse(format!("there is no backend {name}"))),
        };
        if backends.contains(&backend) {
            return Err(refuse(format!("{name} stands there twice")));
        }
        backends.push(backend);
    }
    if backends.is_empty() {
        return Err(refuse("must allow at least one backend".to_owned()));
    }
    Ok(backends)
}

fn allow_addresses(found: Option<Found>) -> Result<Vec<AddressException>, ConfigError> {
    let Some(Found {
        value: Value::List(entries),
        place,
    }) = found
    else {
        return Ok(Vec::new());
    };
    let read = entries.iter().map(|entry| {
        entry
            .parse()
            .map_err(|error: AddressExceptionInvalid| ConfigError {
                place: place.to_string(),
                option: "egress.allow_addresses".to_owned(),
                message: error.to_string(),
                hint: None,
            })
    });
    read.collect()
}

struct Getter<'a> {
    values: &'a Values,
    environment: &'a Environment,
}

impl Getter<'_> {
    fn find(&self, path: &str) -> Option<Found> {
        if let Some(found) = self.values.get(path) {
            return Some(found.clone());
        }
        let spec = OPTIONS.iter().find(|spec| spec.path() == path)?;
        // The data directory's default depends on the environment.
        if spec.default.is_empty() || path == "server.data_dir" {
            return None;
        }
        let value = parse_text(spec.form, spec.default).ok()?;
        Some(Found {
            value,
            place: Place::Default,
        })
    }

    fn optional(&self, path: &str) -> Option<String> {
        self.find(path).map(|found| found.value.to_string())
    }

    fn text(&self, path: &str) -> String {
        self.optional(path).unwrap_or_default()
    }

    fn integer(&self, path: &str) -> u64 {
        match self.find(path) {
            Some(Found {
                value: Value::Integer(number),
                ..
            }) => number,
            _ => 0,
        }
    }

    /// `None`: 0, which is never.
    fn days(&self, path: &str) -> Option<Duration> {
        let days = self.number(path);
        (days > 0.0).then(|| Duration::from_secs_f64(days * 86_400.0))
    }

    fn number(&self, path: &str) -> f64 {
        match self.find(path) {
            Some(Found {
                value: Value::Number(number),
                ..
            }) => number,
            _ => 0.0,
        }
    }

    fn list(&self, path: &str) -> Vec<String> {
        match self.find(path) {
            Some(Found {
                value: Value::List(entries),
                ..
            }) => entries,
            _ => Vec::new(),
        }
    }

    fn path(&self, path: &str) -> Option<PathBuf> {
        self.find(path).map(|found| absolute(&found, self.environment))
    }
}

/// A path of the file is relative to the file, one of the environment to the working directory.
fn absolute(found: &Found, environment: &Environment) -> PathBuf {
    let text = found.value.to_string();
    let path = match (text.strip_prefix("~/"), environment.get("HOME")) {
        (Some(rest), Some(home)) => Path::new(home).join(rest),
        _ => PathBuf::from(text),
    };
    let base = match &found.place {
        Place::File { path: file, .. } => file.parent().map(Path::to_owned).unwrap_or_default(),
        Place::Variable(_) | Place::Default => PathBuf::new(),
    };
    let joined = base.join(path);
    std::path::absolute(&joined).unwrap_or(joined)
}

fn provider(
    place: &Place,
    values: &Values,
    environment: &Environment,
) -> Result<ProviderConfig, ConfigError> {
    let text = |name: &str| values.get(name).map(|found| found.value.to_string());
    let integer = |name: &str| match values.get(name).map(|found| &found.value) {
        Some(Value::Integer(number)) => *number,
        _ => default_integer(name),
    };
    let required =
        |name: &str| text(name).ok_or_else(|| provider_error(place, name, "is required".to_owned()));
    let at = |name: &str| values.get(name).map_or(place, |found| &found.place);
    let id = required("id")?;
    if id.contains(['/', ' ']) {
        return Err(provider_error(
            at("id"),
            "id",
            "must not hold a slash or a space".to_owned(),
        ));
    }
    let kind = match required("kind")?.as_str() {
        "anthropic-messages" => ProviderKind::AnthropicMessages,
        "openai-responses" => ProviderKind::OpenaiResponses,
        "openai-chat" => ProviderKind::OpenaiChat,
        _ => ProviderKind::Scripted,
    };
    let key = match (text("api_key_env"), text("api_key_secret")) {
        (Some(_), Some(_)) => {
            let message = "cannot be set together with api_key_env".to_owned();
            return Err(provider_error(at("api_key_secret"), "api_key_secret", message));
        }
        (Some(variable), None) => KeyOrigin::Environment(variable),
        (None, Some(name)) => KeyOrigin::Secret(name),
        (None, None) => KeyOrigin::None,
    };
    let mut models = match values.get("models").map(|found| &found.value) {
        Some(Value::List(names)) => names.clone(),
        _ => Vec::new(),
    };
    if kind == ProviderKind::Scripted {
        for name in ["base_url", "api_key_env", "api_key_secret"] {
            if values.contains_key(name) {
                return Err(provider_error(
                    at(name),
                    name,
                    "has no meaning for a scripted provider".to_owned(),
                ));
            }
        }
        if models.is_empty() {
            models.push("demo".to_owned());
        }
    } else {
        if values.contains_key("script") {
            let message = "only a scripted provider has one".to_owned();
            return Err(provider_error(at("script"), "script", message));
        }
        if models.is_empty() {
            return Err(provider_error(
                at("models"),
                "models",
                "must name at least one model".to_owned(),
            ));
        }
    }
    Ok(ProviderConfig {
        id,
        kind,
        base_url: text("base_url"),
        key,
        models,
        idle_timeout: Duration::from_secs(integer("idle_timeout_seconds")),
        max_attempts: u32::try_from(integer("max_attempts")).unwrap_or(1),
        script: values.get("script").map(|found| absolute(found, environment)),
    })
}

fn default_integer(name: &str) -> u64 {
    let spec = PROVIDER_OPTIONS.iter().find(|spec| spec.name == name);
    spec.and_then(|spec| spec.default.parse().ok()).unwrap_or(1)
}

fn provider_error(place: &Place, name: &str, message: String) -> ConfigError {
    ConfigError {
        place: place.to_string(),
        option: format!("{PROVIDERS}.{name}"),
        message,
        hint: None,
    }
}

/// The model that was asked for, else the first of the first provider. A name that its provider does not list is added to
/// the list: providers have more models than anyone writes down.
fn default_model(asked: Option<&Found>, providers: &mut [ProviderConfig]) -> Result<String, ConfigError> {
    let Some(asked) = asked else {
        let first = providers
            .iter()
            .find_map(|provider| Some((provider.id.as_str(), provider.models.first()?)));
        return Ok(first.map(|(id, name)| format!("{id}/{name}")).unwrap_or_default());
    };
    let text = asked.value.to_string();
    let named = text.split_once('/').and_then(|(id, name)| {
        let index = providers.iter().position(|provider| provider.id == id)?;
        Some((index, name.to_owned()))
    });
    let is_bare = !text.contains('/');
    let (index, name) = match (
        named,
        providers
            .iter()
            .position(|provider| provider.kind != ProviderKind::Scripted),
    ) {
        (Some(found), _) => found,
        // Without its provider it is the name of a model of the first real one; such names may hold slashes too.
        (None, Some(first)) if is_bare || providers[first].models.contains(&text) => (first, text),
        _ => {
            let known: Vec<_> = providers.iter().map(|provider| provider.id.as_str()).collect();
            return Err(ConfigError {
                place: asked.place.to_string(),
                option: "models.default".to_owned(),
                message: format!("{text} names no provider of this server ({})", known.join(", ")),
                hint: Some(
                    "write provider/name, and set ANTHROPIC_API_KEY, OPENAI_API_KEY or [[providers]]"
                        .to_owned(),
                ),
            });
        }
    };
    let provider = &mut providers[index];
    if !provider.models.contains(&name) {
        if provider.kind == ProviderKind::Scripted {
            return Err(ConfigError {
                place: asked.place.to_string(),
                option: "models.default".to_owned(),
                message: format!("the scripted provider {} has no model {name}", provider.id),
                hint: Some(format!(
                    "its model is {}/{}",
                    provider.id,
                    provider.models.join(", ")
                )),
            });
        }
        provider.models.insert(0, name.clone());
    }
    Ok(format!("{}/{name}", provider.id))
}

fn shown(values: &Values, default_model: &str, get: &Getter<'_>) -> Vec<ShownOption> {
    let options = OPTIONS.iter().map(|spec| {
        let path = spec.path();
        let value = match path.as_str() {
            "models.default" => default_model.to_owned(),
            "server.data_dir" => {
                let found = get
                    .path(&path)
                    .unwrap_or_else(|| locate::default_data_dir(get.environment));
                found.display().to_string()
            }
            _ => get.text(&path),
        };
        let origin = values
            .get(&path)
            .map_or(Place::Default, |found| found.place.clone());
        ShownOption {
            option: path,
            value,
            origin: origin.to_string(),
        }
    });
    options.collect()
}

#[cfg(test)]
mod tests;
