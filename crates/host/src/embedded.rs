//! The static programs inside this binary, and where they lie on disk to be executed.

use crate::failure::HostError;
use crate::launcher::Launchers;
use sha2::{Digest as _, Sha256};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

const LAUNCHER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/greenroom-launcher"));
const GUEST: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/greenroom-guest"));

/// Paths of the programs, absolute.
#[derive(Debug, Clone)]
pub struct Programs {
    pub launcher: PathBuf,
    pub guest: PathBuf,
    /// Runs `launcher`.
    pub launchers: Launchers,
}

/// Writes what is missing or damaged below `directory`. Names carry a digest, so that sandboxes of an older version keep
/// theirs.
pub fn install(directory: &Path) -> Result<Programs, HostError> {
    fs::create_dir_all(directory).map_err(HostError::file("make directory", directory))?;
    let launcher = write(directory, "greenroom-launcher", LAUNCHER)?;
    Ok(Programs {
        launchers: Launchers::new(launcher.clone()),
        launcher,
        guest: write(directory, "greenroom-guest", GUEST)?,
    })
}

fn write(directory: &Path, name: &str, bytes: &[u8]) -> Result<PathBuf, HostError> {
    let path = directory.join(format!("{name}-{}", &hex(&Sha256::digest(bytes))[..16]));
    if fs::read(&path).is_ok_and(|found| found == bytes) {
        return Ok(path);
    }
    let draft = directory.join(format!(".{name}-{}", std::process::id()));
    fs::write(&draft, bytes).map_err(HostError::file("write program", &draft))?;
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o755))
        .map_err(HostError::file("write program", &draft))?;
    fs::rename(&draft, &path).map_err(HostError::file("write program", &path))?;
    Ok(path)
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
