//! Resource groups of a sandbox: v2, v1, or both mixed (hybrid), found per controller. Finds where this process may make
//! groups, makes one per hierarchy and sandbox, and removes it with what still runs in it.

use crate::spec::Limits;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A kind of resource that the kernel can limit or count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Controller {
    Memory,
    Pids,
    Cpu,
    /// Counts processor time. Every v2 group does that by itself.
    Cpuacct,
}

impl Controller {
    pub const ALL: [Self; 4] = [Self::Memory, Self::Pids, Self::Cpu, Self::Cpuacct];

    /// Those that a v2 hierarchy knows by name.
    const NAMED_IN_V2: [Self; 3] = [Self::Memory, Self::Pids, Self::Cpu];

    /// The kernel's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Cpu => "cpu",
            Self::Cpuacct => "cpuacct",
        }
    }
}

/// What the guest needs for itself beyond [`Limits::max_processes`].
pub(crate) const GUEST_THREADS: u64 = 8;

/// How a hierarchy names its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Version {
    V1,
    V2,
}

/// A directory in one hierarchy and what it limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    pub version: Version,
    pub directory: PathBuf,
    /// Never empty, each once.
    pub controllers: Vec<Controller>,
}

/// Where this process may make groups: one placement per hierarchy, with only the controllers that were found writable.
/// `name` is the directory made in each, below the group of this process. Makes that directory; removes nothing.
pub fn prepare(name: &str) -> Vec<Placement> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut found = Vec::new();
    for hierarchy in hierarchies(&mounts, &own) {
        let group = match hierarchy.version {
            Version::V1 => Some(hierarchy.directory.join(name)),
            Version::V2 => delegate(&hierarchy.directory, name),
        };
        let Some(directory) = group else { continue };
        if make(&directory).is_err() {
            continue;
        }
        let controllers: Vec<Controller> = hierarchy
            .controllers
            .into_iter()
            .filter(|controller| is_writable(&directory, hierarchy.version, *controller))
            .collect();
        if controllers.is_empty() {
            // Nothing to hold here; leave no trace.
            let _ = fs::remove_dir(&directory);
            continue;
        }
        found.push(Placement {
            version: hierarchy.version,
            directory,
            controllers,
        });
    }
    found
}

/// Turns on all controllers below `directory` of a v2 hierarchy for a new group `name`. A group with processes cannot
/// hand controllers down (cgroups(7), "no internal processes"), so then this process moves into a leaf beside it.
fn delegate(directory: &Path, name: &str) -> Option<PathBuf> {
    let available = fs::read_to_string(directory.join("cgroup.controllers")).ok()?;
    let wanted: Vec<String> = Controller::NAMED_IN_V2
        .iter()
        .filter(|controller| available.split_whitespace().any(|word| word == controller.name()))
        .map(|controller| format!("+{}", controller.name()))
        .collect();
    if wanted.is_empty() {
        return None;
    }
    let enable = |at: &Path| fs::write(at.join("cgroup.subtree_control"), wanted.join(" "));
    if enable(directory).is_err() {
        let leaf = directory.join("greenroom-server");
        make(&leaf).ok()?;
        fs::write(leaf.join("cgroup.procs"), "0").ok()?;
        enable(directory).ok()?;
    }
    let group = directory.join(name);
    make(&group).ok()?;
    enable(&group).ok()?;
    Some(group)
}

fn is_writable(directory: &Path, version: Version, controller: Controller) -> bool {
    let file = match (version, controller) {
        (Version::V1, Controller::Memory) => "memory.limit_in_bytes",
        (Version::V2, Controller::Memory) => "memory.max",
        (_, Controller::Pids) => "pids.max",
        (Version::V1, Controller::Cpu) => "cpu.cfs_quota_us",
        (Version::V2, Controller::Cpu) => "cpu.max",
        (Version::V1, Controller::Cpuacct) => "cpuacct.usage",
        (Version::V2, Controller::Cpuacct) => return directory.join("cpu.stat").exists(),
    };
    fs::OpenOptions::new()
        .write(true)
        .open(directory.join(file))
        .is_ok()
}

/// The placement of one sandbox below a prepared one.
pub fn below(parent: &Placement, name: &str) -> Placement {
    Placement {
        directory: parent.directory.join(name),
        ..parent.clone()
    }
}

/// Makes the group and sets its limits. Returns what could not be limited, one sentence each.
pub fn create(placement: &Placement, limits: &Limits) -> io::Result<Vec<String>> {
    make(&placement.directory)?;
    let mut warnings = Vec::new();
    for controller in &placement.controllers {
        for setting in settings(placement.version, *controller, limits) {
            let path = placement.directory.join(setting.file);
            if setting.is_optional && !path.exists() {
                continue;
            }
            if let Err(error) = fs::write(&path, &setting.value) {
                warnings.push(format!("{} is not limited: {error}", controller.name()));
            }
        }
    }
    Ok(warnings)
}

/// Sets anew how many processes and threads of programs there may be.
pub(crate) fn allow_processes(placements: &[Placement], max_processes: u32) -> io::Result<()> {
    let limits = Limits {
        max_processes,
        ..Limits::default()
    };
    for placement in placements {
        if placement.controllers.contains(&Controller::Pids) {
            for setting in settings(placement.version, Controller::Pids, &limits) {
                fs::write(placement.directory.join(setting.file), setting.value)?;
            }
        }
    }
    Ok(())
}

struct Setting {
    file: &'static str,
    value: String,
    /// Whether kernels may lack it.
    is_optional: bool,
}

fn settings(version: Version, controller: Controller, limits: &Limits) -> Vec<Setting> {
    let set = |file, value: String| Setting {
        file,
        value,
        is_optional: false,
    };
    let try_set = |file, value: String| Setting {
        file,
        value,
        is_optional: true,
    };
    let period_us = 100_000_u64;
    let quota_us = u64::from(limits.cpu_millis) * period_us / 1000;
    match (version, controller) {
        (Version::V1, Controller::Memory) => vec![
            set("memory.limit_in_bytes", limits.memory_bytes.to_string()),
            try_set("memory.memsw.limit_in_bytes", limits.memory_bytes.to_string()),
            // Where the kernel does not count swap, none is used.
            try_set("memory.swappiness", "0".to_owned()),
        ],
        (Version::V2, Controller::Memory) => vec![
            set("memory.max", limits.memory_bytes.to_string()),
            try_set("memory.swap.max", "0".to_owned()),
        ],
        (_, Controller::Pids) => {
            let most = u64::from(limits.max_processes) + GUEST_THREADS;
            vec![set("pids.max", most.to_string())]
        }
        (Version::V1, Controller::Cpu) => vec![
            set("cpu.cfs_period_us", period_us.to_string()),
            set("cpu.cfs_quota_us", quota_us.to_string()),
        ],
        (Version::V2, Controller::Cpu) => vec![set("cpu.max", format!("{quota_us} {period_us}"))],
        (_, Controller::Cpuacct) => Vec::new(),
    }
}

/// Moves the calling process, which has one thread, into a v1 group. By `0` into `tasks`, because that is the one way for
/// which the kernel takes no lock against all forks and exits of the machine (`cgroup_procs_write_start`); the others
/// wait for it up to tens of milliseconds.
pub(crate) fn join(placement: &Placement) -> io::Result<()> {
    fs::write(placement.directory.join("tasks"), "0")
}

/// Kills what runs in the group and removes it, and groups made below it. Waits at most `patience` for the kernel to let
/// go. A group that is not there is fine.
pub fn remove(directory: &Path, patience: Duration) -> io::Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        match remove_once(directory) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if Instant::now() >= deadline => return Err(error),
            // Processes that were killed a moment ago still count; there is no event for it in v1.
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

fn remove_once(directory: &Path) -> io::Result<()> {
    match fs::remove_dir(directory) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::ENOTEMPTY)) => {}
        done => return done,
    }
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_once(&entry.path())?;
        }
    }
    for line in fs::read_to_string(directory.join("cgroup.procs"))?.lines() {
        if let Some(pid) = line.parse().ok().and_then(rustix::process::Pid::from_raw) {
            // It may be gone already, which is what is wanted.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
    fs::remove_dir(directory)
}

fn make(directory: &Path) -> io::Result<()> {
    match fs::create_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        done => done,
    }
}

/// A mounted hierarchy, at the group of this process.
#[derive(Debug, PartialEq, Eq)]
struct Hierarchy {
    version: Version,
    directory: PathBuf,
    controllers: Vec<Controller>,
}

/// Reads proc_pid_mountinfo(5) and cgroups(7) `/proc/pid/cgroup`.
fn hierarchies(mountinfo: &str, own: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let left: Vec<&str> = left.split(' ').collect();
        let right: Vec<&str> = right.split(' ').collect();
        let (Some(mount_root), Some(mount_point), Some(kind), Some(options)) =
            (left.get(3), left.get(4), right.first(), right.get(2))
        else {
            continue;
        };
        let version = match *kind {
            "cgroup" => Version::V1,
            "cgroup2" => Version::V2,
            _ => continue,
        };
        let controllers: Vec<Controller> = match version {
            Version::V1 => Controller::ALL
                .into_iter()
                .filter(|controller| options.split(',').any(|word| word == controller.name()))
                .collect(),
            Version::V2 => Controller::ALL.to_vec(),
        };
        if controllers.is_empty()
            || found
                .iter()
                .any(|other| other.version == version && other.controllers == controllers)
        {
            continue;
        }
        let Some(group) = own_group(own, version, &controllers) else {
            continue;
        };
        // A bind mount or namespace may show only a part of the hierarchy.
        let relative = group
            .strip_prefix(*mount_root)
            .unwrap_or(&group)
            .trim_start_matches('/');
        found.push(Hierarchy {
            version,
            directory: Path::new(mount_point).join(relative),
            controllers,
        });
    }
    found
}

fn own_group(own: &str, version: Version, controllers: &[Controller]) -> Option<String> {
    own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, names, path) = (fields.next()?, fields.next()?, fields.next()?);
        let is_it = match version {
            Version::V1 => names
                .split(',')
                .any(|name| controllers.iter().any(|known| known.name() == name)),
            Version::V2 => names.is_empty(),
        };
        is_it.then(|| path.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(mountinfo: &str, own: &str, expected: &[(Version, &str, &[Controller])]) {
        let expected: Vec<Hierarchy> = expected
            .iter()
            .map(|(version, directory, controllers)| Hierarchy {
                version: *version,
                directory: PathBuf::from(directory),
                controllers: controllers.to_vec(),
            })
            .collect();
        assert_eq!(hierarchies(mountinfo, own), expected);
    }

    #[test]
    fn hybrid_hierarchies_are_found_at_the_own_group() {
        check(
            "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
             32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
             34 31 0:31 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices\n\
             41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
            "4:memory:/outer/one\n1:cpu,cpuacct:/\n2:devices:/\n0::/\n",
            &[
                (
                    Version::V1,
                    "/sys/fs/cgroup/memory/outer/one",
                    &[Controller::Memory],
                ),
                (
                    Version::V1,
                    "/sys/fs/cgroup/cpu,cpuacct/",
                    &[Controller::Cpu, Controller::Cpuacct],
                ),
                (Version::V2, "/sys/fs/cgroup/unified/", &Controller::ALL),
            ],
        );
    }

    #[test]
    fn a_hierarchy_seen_from_a_container_is_relative_to_its_mount() {
        check(
            "30 20 0:26 /docker/abc /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw,nsdelegate\n",
            "0::/docker/abc/inner\n",
            &[(Version::V2, "/sys/fs/cgroup/inner", &Controller::ALL)],
        );
    }

    #[test]
    fn lines_that_are_not_understood_are_passed_over() {
        check("nonsense\n1 2 3 - \n", "x\n", &[]);
    }

    #[test]
    fn limits_become_the_files_of_each_version() {
        let limits = Limits {
            cpu_millis: 1500,
            max_processes: 7,
            ..Limits::default()
        };
        let shown = |version, controller| -> Vec<String> {
            settings(version, controller, &limits)
                .into_iter()
                .map(|setting| format!("{}={}", setting.file, setting.value))
                .collect()
        };
        assert_eq!(shown(Version::V2, Controller::Cpu), ["cpu.max=150000 100000"]);
        assert_eq!(
            shown(Version::V1, Controller::Cpu),
            ["cpu.cfs_period_us=100000", "cpu.cfs_quota_us=150000"]
        );
        assert_eq!(shown(Version::V2, Controller::Pids), ["pids.max=15"]);
    }
}
