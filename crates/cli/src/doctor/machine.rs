//! What the machine gives a server: programs, disk, port, model keys.

use super::Check;
use crate::config::{Config, Environment, KeyOrigin, ProviderKind};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// First git with `merge-tree --write-tree`, which merges without a work tree.
const MIN_GIT: (u32, u32) = (2, 38);
/// Below this a server refuses new work.
const MIN_FREE_BYTES: u64 = 32 * 1024 * 1024;
/// Below this it will soon.
const LOW_FREE_BYTES: u64 = 2 * 1024 * 1024 * 1024;

pub(super) fn git() -> Check {
    let hint = "install git 2.38 or newer (apt-get install git)";
    let Some(text) = version_of("git", "--version") else {
        return Check::missing("git", "git was not found", hint);
    };
    match git_version(&text) {
        Some(version) if version >= MIN_GIT => Check::ok("git", text),
        Some(_) => Check::missing("git", format!("{text} is too old to merge pull requests"), hint),
        None => Check::instead(
            "git",
            format!("{text} has a version that is not understood"),
            hint,
        ),
    }
}

pub(super) fn python() -> Check {
    match version_of("python3", "--version") {
        Some(text) => Check::ok("python", format!("{text}, for the sample project")),
        None => Check::instead(
            "python",
            "python3 was not found; only the sample project needs it",
            "install python3 (apt-get install python3)",
        ),
    }
}

fn version_of(program: &str, argument: &str) -> Option<String> {
    let output = Command::new(program)
        .arg(argument)
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

fn git_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text
        .split(' ')
        .nth(2)?
        .split('.')
        .map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

/// Whether it can be written to, and how much room there is.
pub(super) fn data_dir(path: &Path) -> Vec<Check> {
    let existing = nearest_existing(path);
    let probe = existing.join(format!(".greenroom-doctor-{}", std::process::id()));
    let written = std::fs::write(&probe, b"").and_then(|()| std::fs::remove_file(&probe));
    let directory = match written {
        Ok(()) if existing == path => Check::ok("data_dir", path.display().to_string()),
        Ok(()) => Check::ok("data_dir", format!("{} will be made", path.display())),
        Err(error) => Check::missing(
            "data_dir",
            format!("{} cannot be written: {error}", existing.display()),
            "set GREENROOM_DATA_DIR to a folder this user may write to",
        ),
    };
    let hint = "free some room, or set GREENROOM_DATA_DIR to a larger disk";
    let disk = match rustix::fs::statvfs(&existing) {
        Ok(stat) => {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            let text = format!("{} MiB free", free / (1024 * 1024));
            match free {
                0..MIN_FREE_BYTES => Check::missing("disk", text, hint),
                MIN_FREE_BYTES..LOW_FREE_BYTES => Check::instead("disk", format!("only {text}"), hint),
                _ => Check::ok("disk", text),
            }
        }
        Err(error) => Check::instead("disk", format!("the free room is not known: {error}"), hint),
    };
    vec![directory, disk]
}

pub(super) fn nearest_existing(path: &Path) -> PathBuf {
    let found = path.ancestors().find(|ancestor| ancestor.is_dir());
    found.map_or_else(|| PathBuf::from("/"), Path::to_owned)
}

/// Whether the address is free, or taken by a server of ours.
pub(super) fn port(config: &Config) -> Check {
    let address = config.server.listen;
    match TcpListener::bind(address) {
        Ok(_) => Check::ok("listen", format!("{address} is free")),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            let server_json = config.server.data_dir.join("server.json");
            let is_ours = std::fs::read_to_string(server_json)
                .is_ok_and(|text| text.contains(&format!(":{}", address.port())));
            match is_ours {
                true => Check::ok(
                    "listen",
                    format!("{address} is used by the server that runs here"),
                ),
                false => Check::missing(
                    "listen",
                    format!("{address} is used by another program"),
                    "set GREENROOM_LISTEN to another port; port 0 takes a free one",
                ),
            }
        }
        Err(error) => Check::missing(
            "listen",
            format!("{address} cannot be listened on: {error}"),
            "set GREENROOM_LISTEN to an address of this machine",
        ),
    }
}

/// Whether a real model can be asked.
pub(super) fn models(config: &Config, environment: &Environment) -> Check {
    let default = &config.models.default;
    let hint = "set ANTHROPIC_API_KEY or OPENAI_API_KEY, or add [[providers]] to greenroom.toml";
    let lacking: Vec<_> = config
        .models
        .providers
        .iter()
        .filter_map(|provider| match &provider.key {
            KeyOrigin::Environment(name) if environment.get(name).is_none() => Some(name.as_str()),
            _ => None,
        })
        .collect();
    if !lacking.is_empty() {
        return Check::instead(
            "models",
            format!(
                "{} is not set, so that its provider will refuse requests",
                lacking.join(", ")
            ),
            format!("export {}", lacking.join(" ")),
        );
    }
    match config
        .models
        .providers
        .iter()
        .any(|provider| provider.kind != ProviderKind::Scripted)
    {
        true => Check::ok("models", format!("default {default}")),
        false => Check::instead(
            "models",
            format!("no provider is set up; the scripted demo model ({default}) is used"),
            hint,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn git_versions_are_read_with_vendor_suffixes() {
        for (text, expected) in [
            ("git version 2.39.5", Some((2, 39))),
            ("git version 2.38.1.windows.1", Some((2, 38))),
            ("git version 3.0", Some((3, 0))),
            ("git version unknown", None),
            ("git", None),
        ] {
            assert_eq!(git_version(text), expected, "{text:?}");
        }
    }
}
