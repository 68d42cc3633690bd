//! What a sandbox used and which limits it ran into, as the kernel counts it in resource groups. Reads files only; knows
//! nothing of processes.

use crate::cgroup::{Controller, Placement, Version};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Longest content of any file that is read here.
const MAX_FILE_BYTES: usize = 4096;

/// The open counters of one sandbox's groups. What no group counts is `None`. Cheap to ask: one system call a number.
#[derive(Debug, Default)]
pub struct Counters {
    memory_events: Option<File>,
    process_events: Option<File>,
    cpu_time: Option<(Version, File)>,
    peak_memory: Option<File>,
}

/// How often limits were hit since the groups were made. Only grows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Refusals {
    /// Processes killed because memory ran out.
    pub memory: u64,
    /// Processes and threads that were not started because there were too many.
    pub processes: u64,
}

impl Counters {
    /// Opens what there is; a group that is gone counts nothing.
    pub fn open(placements: &[Placement]) -> Self {
        let mut counters = Self::default();
        for placement in placements {
            for controller in &placement.controllers {
                counters.add(placement.version, *controller, &placement.directory);
            }
        }
        counters
    }

    fn add(&mut self, version: Version, controller: Controller, directory: &Path) {
        let open = |name: &str| File::open(directory.join(name)).ok();
        match controller {
            Controller::Memory => {
                let (events, peak) = match version {
                    Version::V1 => ("memory.oom_control", "memory.max_usage_in_bytes"),
                    Version::V2 => ("memory.events", "memory.peak"),
                };
                self.memory_events = self.memory_events.take().or_else(|| open(events));
                // Writable if possible, to start over; older kernels have `memory.peak` read-only.
                let writable = OpenOptions::new()
                    .read(true)
                    .write(true)
                    .open(directory.join(peak));
                self.peak_memory = self.peak_memory.take().or_else(|| writable.ok().or(open(peak)));
            }
            Controller::Pids => {
                self.process_events = self.process_events.take().or_else(|| open("pids.events"))
            }
            Controller::Cpuacct => {
                let name = match version {
                    Version::V1 => "cpuacct.usage",
                    Version::V2 => "cpu.stat",
                };
                let opened = || open(name).map(|file| (version, file));
                self.cpu_time = self.cpu_time.take().or_else(opened);
            }
            Controller::Cpu => {}
        }
    }

    /// How often limits were hit; what is not counted stays 0.
    pub fn refusals(&self) -> Refusals {
        let events = |file: &Option<File>, key| file.as_ref().and_then(|file| field(&read(file)?, key));
        Refusals {
            memory: events(&self.memory_events, "oom_kill").unwrap_or(0),
            processes: events(&self.process_events, "max").unwrap_or(0),
        }
    }

    /// Processor time of everything that ran in the group, in microseconds.
    pub fn cpu_us(&self) -> Option<u64> {
        let (version, file) = self.cpu_time.as_ref()?;
        let text = read(file)?;
        match version {
            Version::V1 => text.trim().parse::<u64>().ok().map(|ns| ns / 1000),
            Version::V2 => field(&text, "usage_usec"),
        }
    }

    /// Most memory in use at once since the group was made or [`Counters::reset_peak`], in bytes.
    pub fn peak_memory_bytes(&self) -> Option<u64> {
        read(self.peak_memory.as_ref()?)?.trim().parse().ok()
    }

    /// Starts the peak over. In v1 for everyone, in v2 for this reader alone; does nothing where the kernel cannot.
    pub fn reset_peak(&self) {
        if let Some(file) = &self.peak_memory {
            // Read-only in v2 before Linux 6.12: then the peak is that of the sandbox's whole life.
            let _ = file.write_at(b"0", 0);
        }
    }

    /// Whether memory and processes are counted, so that a limit that is hit is seen.
    pub fn sees(&self, controller: Controller) -> bool {
        match controller {
            Controller::Memory => self.memory_events.is_some(),
            Controller::Pids => self.process_events.is_some(),
            Controller::Cpuacct => self.cpu_time.is_some(),
            Controller::Cpu => false,
        }
    }
}

/// The whole content, from the beginning; `None` once the group is gone.
fn read(file: &File) -> Option<String> {
    let mut buffer = [0; MAX_FILE_BYTES];
    let len = file.read_at(&mut buffer, 0).ok()?;
    std::str::from_utf8(&buffer[..len]).ok().map(str::to_owned)
}

/// The number behind `key` in lines of `key number`.
fn field(text: &str, key: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::PathBuf;

    /// A directory that imitates groups; removed with it.
    struct Groups(PathBuf);

    impl Groups {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let path = std::env::temp_dir().join(format!("gr-usage-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            for (name, content) in files {
                fs::write(path.join(name), content).unwrap();
            }
            Self(path)
        }

        fn counters(&self, version: Version, controllers: &[Controller]) -> Counters {
            Counters::open(&[Placement {
                version,
                directory: self.0.clone(),
                controllers: controllers.to_vec(),
            }])
        }
    }

    impl Drop for Groups {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn v2_files_are_read() {
        let groups = Groups::new(
            "v2",
            &[
                (
                    "memory.events",
                    "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n",
                ),
                ("memory.peak", "123456\n"),
                ("pids.events", "max 7\n"),
                (
                    "cpu.stat",
                    "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\nnr_periods 0\n",
                ),
            ],
        );
        let counters = groups.counters(Version::V2, &Controller::ALL);
        assert_eq!(
            counters.refusals(),
            Refusals {
                memory: 2,
                processes: 7
            }
        );
        assert_eq!(
            (counters.cpu_us(), counters.peak_memory_bytes()),
            (Some(1500), Some(123_456))
        );
        // Counters are read anew each time.
        fs::write(groups.0.join("pids.events"), "max 9\n").unwrap();
        assert_eq!(counters.refusals().processes, 9);
    }

    #[test]
    fn v1_files_are_read() {
        let groups = Groups::new(
            "v1",
            &[
                (
                    "memory.oom_control",
                    "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n",
                ),
                ("memory.max_usage_in_bytes", "4096\n"),
                ("pids.events", "max 1\n"),
                ("cpuacct.usage", "2500000\n"),
            ],
        );
        let counters = groups.counters(Version::V1, &Controller::ALL);
        assert_eq!(
            counters.refusals(),
            Refusals {
                memory: 4,
                processes: 1
            }
        );
        assert_eq!(
            (counters.cpu_us(), counters.peak_memory_bytes()),
            (Some(2500), Some(4096))
        );
    }

    #[test]
    fn what_no_group_counts_is_not_known() {
        let groups = Groups::new("none", &[("pids.events", "max 1\n")]);
        let counters = groups.counters(Version::V2, &[Controller::Pids]);
        assert_eq!(
            counters.refusals(),
            Refusals {
                memory: 0,
                processes: 1
            }
        );
        assert_eq!((counters.cpu_us(), counters.peak_memory_bytes()), (None, None));
        assert!(counters.sees(Controller::Pids) && !counters.sees(Controller::Memory));
        counters.reset_peak();
    }

    #[test]
    fn the_first_placement_that_counts_is_taken() {
        let first = Groups::new("first", &[("pids.events", "max 1\n")]);
        let second = Groups::new(
            "second",
            &[("pids.events", "max 2\n"), ("cpu.stat", "usage_usec 5\n")],
        );
        let placement = |groups: &Groups| Placement {
            version: Version::V2,
            directory: groups.0.clone(),
            controllers: Controller::ALL.to_vec(),
        };
        let counters = Counters::open(&[placement(&first), placement(&second)]);
        assert_eq!((counters.refusals().processes, counters.cpu_us()), (1, Some(5)));
    }
}
