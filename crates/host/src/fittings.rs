//! What the root of an image needs to be a sandbox's: the agent among its users, places to mount on, git's configuration.

use crate::base::{self, Entry};
use greenroom_images::oci::{Fittings, RootFiles};
use greenroom_sandbox::spec::{AGENT_ID, LAYER_ID};
use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::lchown;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Raised whenever what is put into an image changes in a way that its entries do not show.
const VERSION: u32 = 2;

/// Directories that must be there, and be no links.
const DIRECTORIES: &[&str] = &[
    "dev",
    "etc/greenroom",
    "home/agent",
    "proc",
    "run",
    "sys",
    "tmp",
    "var/tmp",
    "workspace",
];

/// Those that everybody may write to.
const SHARED_DIRECTORIES: &[&str] = &["tmp", "var/tmp"];

/// Where images have bash. One without gets its `sh` under that name, because that is what agents ask for.
const BASH_PLACES: &[&str] = &["/bin/bash", "/usr/bin/bash", "/usr/local/bin/bash"];

/// Where apt(8) finds settings, and one for sandboxes whose user is root: it would become another user, and finds that it did not.
const APT_SETTINGS: &str = "/etc/apt/apt.conf.d";
const APT_AS_ROOT: &str = "APT::Sandbox::User \"root\";\n";

/// For images of this host.
pub(crate) fn fittings(is_privileged: bool, base_digest: String) -> Fittings {
    let owner = is_privileged.then_some(LAYER_ID);
    Fittings {
        version: format!("{VERSION} {}", base::digest(&entries("", ""))),
        make: Arc::new(move |files, place| make(files, place, owner)),
        base_digest,
        owner,
    }
}

fn make(files: &RootFiles, place: &Path, owner: Option<u32>) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let text = |path: &str| -> io::Result<String> {
        let bytes = files.read(Path::new(path))?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let mut entries = entries(&text("/etc/passwd")?, &text("/etc/group")?);
    if files.has(Path::new(APT_SETTINGS)) {
        let path = format!("{}/99greenroom", APT_SETTINGS.trim_start_matches('/'));
        base::add_file(&path, APT_AS_ROOT.to_owned(), &mut entries);
    }
    if !BASH_PLACES.iter().any(|place| files.has(Path::new(place))) {
        base::add_link("usr/local/bin/bash", "/bin/sh", &mut entries);
    }
    for (path, entry) in &entries {
        let path = place.join(path);
        base::write(&path, entry)?;
    }
    for name in SHARED_DIRECTORIES {
        std::fs::set_permissions(place.join(name), std::fs::Permissions::from_mode(0o1777))?;
    }
    if let Some(id) = owner {
        for path in entries.keys() {
            lchown(place.join(path), Some(id), Some(id))?;
        }
        lchown(place, Some(id), Some(id))?;
    }
    std::fs::set_permissions(place, std::fs::Permissions::from_mode(0o755))
}

/// By path, parents first. `passwd` and `group` are the image's.
fn entries(passwd: &str, group: &str) -> BTreeMap<PathBuf, Entry> {
    let mut entries = BTreeMap::new();
    for name in DIRECTORIES {
        for path in Path::new(name)
            .ancestors()
            .filter(|path| !path.as_os_str().is_empty())
        {
            entries.insert(path.to_owned(), Entry::Directory);
        }
    }
    base::add_common(&mut entries);
    let agent = format!("agent:x:{AGENT_ID}:{AGENT_ID}:Agent:/home/agent:/bin/sh");
    base::add_file("etc/passwd", with_first(&agent, passwd), &mut entries);
    base::add_file(
        "etc/group",
        with_first(&format!("agent:x:{AGENT_ID}:"), group),
        &mut entries,
    );
    entries
}

/// The line before all others, so that it is found by its number too; without others of its name.
fn with_first(line: &str, text: &str) -> String {
    let name = line.split(':').next().unwrap_or_default();
    let others = text
        .lines()
        .filter(|other| !other.is_empty() && other.split(':').next() != Some(name));
    let mut joined = String::new();
    for line in std::iter::once(line).chain(others) {
        joined.push_str(line);
        joined.push('\n');
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_is_the_first_user_and_there_once() {
        let image = "root:x:0:0:root:/root:/bin/bash\nnode:x:1000:1000::/home/node:/bin/bash\nagent:x:7:7::/:/bin/false\n";
        assert_eq!(
            with_first("agent:x:1000:1000:Agent:/home/agent:/bin/sh", image),
            "agent:x:1000:1000:Agent:/home/agent:/bin/sh\nroot:x:0:0:root:/root:/bin/bash\n\
             node:x:1000:1000::/home/node:/bin/bash\n"
        );
    }
}
