//! Results: collected, printed as a table, merged by name into `bench-results/latest.json`.

use crate::stats::{Samples, Summary};
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// The benchmark file.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Report {
    pub machine: Machine,
    /// Commit of the checkout, `-dirty` behind it if files differ.
    pub commit: String,
    /// Sorted by name, each once.
    pub results: Vec<Measured>,
}

/// Where it was measured.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    pub kernel: String,
    pub processors: usize,
    pub memory_mb: u64,
    /// Over one minute, when the run began.
    pub load_average: f64,
}

/// One number with its aim and its peers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    pub name: String,
    pub unit: String,
    pub n: usize,
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
    pub aim_p50: Option<f64>,
    pub aim_p99: Option<f64>,
    #[serde(default)]
    pub peers: BTreeMap<String, Peer>,
    /// Whether every aim that exists is reached.
    pub met: bool,
}

/// The same thing done by somebody else, in the same run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    pub p50: f64,
    pub p99: f64,
}

/// What a number should be, smaller being better.
#[derive(Debug, Clone, Copy, Default)]
pub struct Aim {
    pub p50: Option<f64>,
    pub p99: Option<f64>,
}

impl Measured {
    /// An amount that was measured once, over `n` things.
    pub fn amount(name: &str, unit: &str, n: usize, value: f64, aim: Option<f64>) -> Self {
        Self {
            name: name.to_owned(),
            unit: unit.to_owned(),
            n,
            p50: value,
            p99: value,
            max: value,
            aim_p50: aim,
            aim_p99: None,
            peers: BTreeMap::new(),
            met: aim.is_none_or(|aim| value <= aim),
        }
    }

    /// A duration in milliseconds; `None` without samples.
    pub fn duration(name: &str, samples: &Samples, aim: Aim, peers: &[(&str, &Samples)]) -> Option<Self> {
        let Summary { n, p50, p99, max } = samples.summary_ms()?;
        let peers = peers
            .iter()
            .filter_map(|(name, samples)| {
                let summary = samples.summary_ms()?;
                Some((
                    (*name).to_owned(),
                    Peer {
                        p50: summary.p50,
                        p99: summary.p99,
                    },
                ))
            })
            .collect();
        let met = aim.p50.is_none_or(|aim| p50 <= aim) && aim.p99.is_none_or(|aim| p99 <= aim);
        Some(Self {
            name: name.to_owned(),
            unit: "ms".to_owned(),
            n,
            p50,
            p99,
            max,
            aim_p50: aim.p50,
            aim_p99: aim.p99,
            peers,
            met,
        })
    }
}

impl Report {
    /// Replaces results of the same name in the file, keeps the others.
    pub fn merge_into(mut self, path: &Path) -> Result<()> {
        if let Ok(text) = std::fs::read_to_string(path) {
            let old: Self =
                serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))?;
            let fresh: Vec<_> = self.results.iter().map(|result| result.name.clone()).collect();
            self.results.extend(
                old.results
                    .into_iter()
                    .filter(|result| !fresh.contains(&result.name)),
            );
        }
        self.results.sort_by(|one, other| one.name.cmp(&other.name));
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        std::fs::write(path, serde_json::to_string_pretty(&self)? + "\n")
            .with_context(|| format!("write {}", path.display()))
    }

    /// A table for people.
    pub fn table(&self) -> String {
        use std::fmt::Write as _;
        let mut text = format!(
            "{:<24} {:>5} {:>9} {:>9} {:>9}  {:>15}  {:<4} peers p50/p99\n",
            "name", "n", "p50", "p99", "max", "aim p50/p99", "met"
        );
        for result in &self.results {
            let aim = |aim: Option<f64>| {
                aim.map_or("-".to_owned(), |aim| format!("{}", (aim * 100.0).round() / 100.0))
            };
            let peers: Vec<String> = result
                .peers
                .iter()
                .map(|(name, peer)| format!("{name} {:.2}/{:.2}", peer.p50, peer.p99))
                .collect();
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "{:<24} {:>5} {:>9.2} {:>9.2} {:>9.2}  {:>15}  {:<4} {}",
                result.name,
                result.n,
                result.p50,
                result.p99,
                result.max,
                format!("{}/{} {}", aim(result.aim_p50), aim(result.aim_p99), result.unit),
                if result.met { "yes" } else { "NO" },
                peers.join(", ")
            );
        }
        text
    }
}

impl Machine {
    /// This one, now.
    pub fn current() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let memory_kb = read("/proc/meminfo").lines().find_map(|line| {
            line.strip_prefix("MemTotal:")?
                .trim()
                .strip_suffix("kB")?
                .trim()
                .parse::<u64>()
                .ok()
        });
        Self {
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            memory_mb: memory_kb.unwrap_or(0) / 1024,
            load_average: read("/proc/loadavg")
                .split(' ')
                .next()
                .and_then(|load| load.parse().ok())
                .unwrap_or(0.0),
        }
    }
}

/// Commit of the current directory's checkout, if git knows it.
pub fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = std::process::Command::new("git").args(arguments).output().ok()?;
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let dirty = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|text| !text.is_empty());
    git(&["rev-parse", "HEAD"]).map_or("unknown".to_owned(), |head| {
        head + if dirty { "-dirty" } else { "" }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_replaces_by_name_and_keeps_the_rest() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sub/latest.json");
        let result = |name: &str, p50| Measured {
            name: name.into(),
            unit: "ms".into(),
            n: 1,
            p50,
            p99: p50,
            max: p50,
            aim_p50: None,
            aim_p99: None,
            peers: BTreeMap::new(),
            met: true,
        };
        let report = |results| Report {
            results,
            ..Report::default()
        };
        report(vec![result("b", 1.0), result("c", 1.0)])
            .merge_into(&path)
            .unwrap();
        report(vec![result("b", 2.0), result("a", 2.0)])
            .merge_into(&path)
            .unwrap();
        let read: Report = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let shown: Vec<_> = read
            .results
            .iter()
            .map(|result| (result.name.as_str(), result.p50))
            .collect();
        assert_eq!(shown, [("a", 2.0), ("b", 2.0), ("c", 1.0)]);
    }
}
