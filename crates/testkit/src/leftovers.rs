//! Looks everywhere on the machine for what sandboxes of a state directory may have left: processes, mounts, resource
//! groups, directories. Sockets live no longer than their processes.

use rustix::process::{Pid, Signal, getpid, kill_process};
use sha2::Digest as _;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longest that killed processes are waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Everything that is left, one line each; empty is what a test wants. The state directory itself, its programs and bases
/// do not count. As an ordinary user only one's own processes can be looked into, and those are all there can be.
pub fn of(state: &Path) -> Vec<String> {
    let mut found = alive(state);
    let entries = fs::read_dir(state.join("sb")).into_iter().flatten().flatten();
    found.extend(entries.map(|entry| format!("directory {}", entry.path().display())));
    found
}

/// What is left but files: a server that ends keeps the files of its sandboxes, and nothing else of them.
pub fn alive(state: &Path) -> Vec<String> {
    let mut found = processes(state);
    found.extend(named_groups(state).map(|group| format!("resource group {}", group.display())));
    found
}

/// Processes that belong to sandboxes of the state directory, each with what gives it away: its program, its resource
/// group, or its mounts. Also mounts in this very process's namespace.
pub fn processes(state: &Path) -> Vec<String> {
    let found = with_process_ids(state).into_iter();
    found.map(|(_, what)| what).collect()
}

/// Ends what a failed test left running, and removes its resource groups.
pub fn end(state: &Path) {
    let deadline = Instant::now() + PATIENCE;
    // Killed ones may take a moment, and one that was just being started may come after a look.
    while !kill(state) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    for group in named_groups(state) {
        for entry in fs::read_dir(&group).into_iter().flatten().flatten() {
            let _ = fs::remove_dir(entry.path());
        }
        let _ = fs::remove_dir(&group);
    }
}

/// Kills what runs, and says whether there was nothing.
fn kill(state: &Path) -> bool {
    let mut is_empty = true;
    for (pid, _) in with_process_ids(state) {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        // This very process may see mounts.
        if let Some(pid) = pid.filter(|pid| *pid != getpid()) {
            is_empty = false;
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    is_empty
}

fn with_process_ids(state: &Path) -> Vec<(u32, String)> {
    let (shown, group) = (state.display().to_string(), group_name(state));
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let directory = entry.path();
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        let exe = fs::read_link(directory.join("exe")).unwrap_or_default();
        let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap_or_default();
        let what = if exe.starts_with(state) {
            format!("runs {}", exe.display())
        } else if read("cgroup").contains(&group) {
            "is in a resource group".to_owned()
        } else if let Some(mount) = read("mountinfo").lines().find(|line| line.contains(&shown)) {
            format!("has mount {mount}")
        } else {
            continue;
        };
        found.push((pid, format!("process {pid} ({}) {what}", read("comm").trim())));
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
