//! Landlock as a second wall behind mounts and ids: whatever else goes wrong, a sandbox's processes write only where this
//! file says. The rules are data; every kernel enforces as many of them as it knows.

use crate::spec::LaunchFailure;
use landlock::{
    ABI, Access as _, AccessFs, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetError, Scope,
};

/// Directories in which everything but device nodes may be made and changed, whoever owns it. What is missing is passed
/// over.
const WRITABLE: &[&str] = &[
    "/workspace",
    "/home/agent",
    "/tmp",
    "/var/tmp",
    "/run",
    "/dev/shm",
];

/// Directories in which files that exist may be written, for a process's own files there.
const CHANGEABLE: &[&str] = &["/proc"];

/// Devices that may be opened for writing and asked anything: terminals, and those that know no requests.
const DEVICES: &[&str] = &["/dev/pts", "/dev/tty", "/dev/null", "/dev/zero", "/dev/full"];

/// Devices that may be written, but not controlled.
const PLAIN_DEVICES: &[&str] = &["/dev/random", "/dev/urandom"];

/// The first version that lets a file be moved from one directory to another at all.
const OLDEST_VERSION: u32 = 2;

/// The version that knows everything that is asked for here.
const COMPLETE_VERSION: u32 = 6;

/// Version of Landlock's interface that the kernel has (landlock_create_ruleset(2)); `None` if it has none.
pub fn version() -> Option<u32> {
    const VERSION_FLAG: u32 = 1;
    // SAFETY: with this flag the call only answers a number and wants no attributes.
    let result = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<u8>(),
            0_usize,
            VERSION_FLAG,
        )
    };
    u32::try_from(result).ok().filter(|version| *version > 0)
}

/// What a kernel with this version does not hold, for people; `None` if it holds everything.
pub fn shortcoming(version: Option<u32>) -> Option<String> {
    match version {
        None => Some(
            "the kernel has no Landlock; mounts and file modes alone hold what may be written".to_owned(),
        ),
        Some(version) if version < OLDEST_VERSION => Some(format!(
            "Landlock version {version} would forbid moving files and is not used; mounts and file modes alone hold what may be written"
        )),
        Some(version) if version < COMPLETE_VERSION => Some(format!(
            "Landlock version {version} does not hold device requests, signals and sockets as version {COMPLETE_VERSION} does"
        )),
        Some(_) => None,
    }
}

/// Puts this process, and all it starts, behind the wall. There is no way back. Wants the sandbox's root as `/`.
/// `is_root_open`: whether everything may be changed that mounts and modes let be changed.
pub(crate) fn restrict(is_root_open: bool) -> Result<(), LaunchFailure> {
    if version().is_none_or(|version| version < OLDEST_VERSION) {
        return Ok(());
    }
    enforce(is_root_open).map_err(|error| LaunchFailure {
        step: format!("restrict files: {error}"),
        errno: 0,
    })
}

fn enforce(is_root_open: bool) -> Result<(), RulesetError> {
    let all = AccessFs::from_all(ABI::V5);
    let read = AccessFs::from_read(ABI::V5);
    let change = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate;
    let mut rules = Ruleset::default()
        .handle_access(all)?
        .scope(Scope::from_all(ABI::V6))?
        .create()?;
    let write = all & !(AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev);
    let root = if is_root_open { write } else { read };
    let grants = [
        (["/"].as_slice(), root),
        (WRITABLE, write),
        (CHANGEABLE, change),
        (DEVICES, change | AccessFs::IoctlDev),
        (PLAIN_DEVICES, change),
    ];
    for (paths, access) in grants {
        for path in paths {
            if let Some(rule) = beneath(path, access) {
                rules = rules.add_rule(rule)?;
            }
        }
    }
    rules.restrict_self().map(drop)
}

/// `None` for what the root does not have; a rule for it would allow nothing.
fn beneath(path: &str, access: BitFlags<AccessFs>) -> Option<PathBeneath<PathFd>> {
    PathFd::new(path)
        .ok()
        .map(|opened| PathBeneath::new(opened, access))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_says_what_it_lacks() {
        for (version, expected) in [
            (None, Some("no Landlock")),
            (Some(1), Some("is not used")),
            (Some(2), Some("device requests")),
            (Some(5), Some("device requests")),
            (Some(6), None),
            (Some(100), None),
        ] {
            let found = shortcoming(version);
            match expected {
                None => assert_eq!(found, None, "{version:?}"),
                Some(part) => assert!(
                    found.as_deref().is_some_and(|text| text.contains(part)),
                    "{version:?}: {found:?}"
                ),
            }
        }
    }

    #[test]
    fn what_may_be_written_is_named_once() {
        let mut all: Vec<&str> = [WRITABLE, CHANGEABLE, DEVICES, PLAIN_DEVICES].concat();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
        assert!(all.iter().all(|path| path.starts_with('/') && *path != "/"));
    }
}
