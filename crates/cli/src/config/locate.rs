//! Where the configuration file and the data directory are, by convention.

use super::read::{ConfigError, Environment};
use std::path::{Path, PathBuf};

/// Name of the file in the working directory and in the user's configuration folder.
const FILE_NAME: &str = "greenroom.toml";

/// The file to read: what was asked for, else the first that exists. A file that was asked for need not exist.
pub(super) fn file(asked: Option<&Path>, environment: &Environment) -> Option<PathBuf> {
    if let Some(path) = asked {
        return Some(path.to_owned());
    }
    if let Some(path) = environment.get("GREENROOM_CONFIG") {
        return Some(PathBuf::from(path));
    }
    let user = match environment.get("XDG_CONFIG_HOME") {
        Some(folder) => Some(PathBuf::from(folder)),
        None => environment
            .get("HOME")
            .map(|home| Path::new(home).join(".config")),
    };
    let candidates = [
        Some(PathBuf::from(FILE_NAME)),
        user.map(|folder| folder.join("greenroom").join(FILE_NAME)),
    ];
    candidates.into_iter().flatten().find(|path| path.is_file())
}

/// The data directory without any option.
pub(super) fn default_data_dir(environment: &Environment) -> PathBuf {
    let base = match environment.get("XDG_DATA_HOME") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(environment.get("HOME").unwrap_or("/var/lib")).join(".local/share"),
    };
    base.join("greenroom")
}

/// Where client commands look for a server on this machine. `Err` when the configuration is broken: another directory might
/// hold another server, and nothing may go to that by mistake.
pub fn data_dir_of_clients(asked: Option<&Path>) -> Result<PathBuf, Vec<ConfigError>> {
    let environment = Environment::of_process();
    match super::load(asked, &environment) {
        Ok(config) => Ok(config.server.data_dir),
        Err(errors) => match environment.get("GREENROOM_DATA_DIR") {
            Some(path) => Ok(PathBuf::from(path)),
            None => Err(errors),
        },
    }
}
