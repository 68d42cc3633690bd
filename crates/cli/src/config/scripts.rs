//! Checks the scripts that a configuration names. Only for what is to run or to be checked: other commands need no scripts.

use super::read::line_at;
use super::{Config, ConfigError, Environment};
use greenroom_llm::scripted::script::Script;
use std::path::Path;

/// As [`super::load`]; a script that cannot be read or played is an error too.
pub fn load_with_scripts(
    given: Option<&Path>,
    environment: &Environment,
) -> Result<Config, Vec<ConfigError>> {
    let config = super::load(given, environment)?;
    let scripts = config.models.providers.iter().filter_map(|provider| {
        let path = provider.script.as_deref()?;
        check(path, &provider.id)
    });
    let errors: Vec<_> = scripts.collect();
    match errors.is_empty() {
        true => Ok(config),
        false => Err(errors),
    }
}

fn check(path: &Path, provider: &str) -> Option<ConfigError> {
    let refuse = |place: String, message: String, hint: &str| {
        Some(ConfigError {
            place,
            option: String::new(),
            message,
            hint: Some(hint.to_owned()),
        })
    };
    let shown = path.display().to_string();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            let message = format!("the script of provider {provider} cannot be read: {error}");
            return refuse(
                shown,
                message,
                "set `script` to a file that is there, or leave it out",
            );
        }
    };
    let error = Script::parse(&text).err()?;
    let place = match error.offset() {
        Some(offset) => format!("{shown}:{}", line_at(&text, offset)),
        None => shown,
    };
    refuse(place, error.detail(), "docs/models.md explains scripts")
}
