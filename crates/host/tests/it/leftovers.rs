//! Looks everywhere on the machine for what sandboxes of a state directory may have left: processes, mounts, resource
//! groups, directories, sockets.

use sha2::Digest as _;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Everything that is left, one line each; empty is what a test wants. The state directory itself, its programs and bases
/// do not count. As an ordinary user only one's own processes can be looked into, and those are all there can be.
pub fn of(state: &Path) -> Vec<String> {
    let mut found = processes(state);
    found.extend(named_groups(state).map(|group| format!("resource group {}", group.display())));
    let entries = fs::read_dir(state.join("sb")).into_iter().flatten().flatten();
    found.extend(entries.map(|entry| format!("directory {}", entry.path().display())));
    let sockets = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let shown = state.display().to_string();
    found.extend(
        sockets
            .lines()
            .filter(|line| line.contains(&shown))
            .map(|line| format!("socket {line}")),
    );
    found
}

/// Processes that belong to sandboxes of the state directory, each with what gives it away: its program, its resource
/// group, or its mounts. Also mounts in this very process's namespace.
pub fn processes(state: &Path) -> Vec<String> {
    let (shown, group) = (state.display().to_string(), group_name(state));
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let directory = entry.path();
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        let exe = fs::read_link(directory.join("exe")).unwrap_or_default();
        let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap_or_default();
        if exe.starts_with(state) {
            found.push(format!("process {pid} runs {}", exe.display()));
        } else if read("cgroup").contains(&group) {
            found.push(format!(
                "process {pid} ({}) is in a resource group",
                read("comm").trim()
            ));
        } else if let Some(mount) = read("mountinfo").lines().find(|line| line.contains(&shown)) {
            found.push(format!(
                "process {pid} ({}) has mount {mount}",
                read("comm").trim()
            ));
        }
    }
    found
}

/// The resource groups of a state directory in every hierarchy.
pub fn named_groups(state: &Path) -> impl Iterator<Item = PathBuf> {
    let mut found = Vec::new();
    find(Path::new("/sys/fs/cgroup"), &group_name(state), 0, &mut found);
    found.into_iter()
}

/// The name the host gives to the resource group of a state directory.
fn group_name(state: &Path) -> String {
    let digest = sha2::Sha256::digest(state.as_os_str().as_bytes());
    let name: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("greenroom-{name}")
}

fn find(directory: &Path, name: &str, depth: u32, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if entry.file_name().to_string_lossy() == name {
            found.push(entry.path());
        } else if depth < 5 {
            find(&entry.path(), name, depth + 1, found);
        }
    }
}
