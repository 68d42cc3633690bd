//! The crate graph of ARCHITECTURE.md as data. A new edge is a decision: change it here and write it down there.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// A crate of ours and the crates of ours it may use.
const ALLOWED: &[(&str, &[&str])] = &[
    ("greenroom-stdx", &[]),
    ("greenroom-protocol", &[]),
    ("greenroom-store", &["greenroom-protocol", "greenroom-stdx"]),
    ("greenroom-llm", &["greenroom-stdx"]),
    ("greenroom-sandbox", &["greenroom-protocol", "greenroom-stdx"]),
    ("greenroom-images", &["greenroom-protocol", "greenroom-stdx"]),
    ("greenroom-forge", &["greenroom-protocol", "greenroom-stdx"]),
    ("greenroom-egress", &["greenroom-protocol", "greenroom-stdx"]),
    (
        "greenroom-agent",
        &["greenroom-llm", "greenroom-protocol", "greenroom-stdx"],
    ),
    (
        "greenroom-host",
        &[
            "greenroom-images",
            "greenroom-protocol",
            "greenroom-sandbox",
            "greenroom-stdx",
        ],
    ),
    (
        "greenroom-server",
        &[
            "greenroom-agent",
            "greenroom-egress",
            "greenroom-forge",
            "greenroom-llm",
            "greenroom-protocol",
            "greenroom-stdx",
            "greenroom-store",
        ],
    ),
    ("greenroom-guest", &["greenroom-protocol"]),
    ("greenroom-launcher", &["greenroom-guest", "greenroom-sandbox"]),
    ("greenroom-sdk", &["greenroom-protocol", "greenroom-stdx"]),
    (
        "greenroom-testkit",
        &["greenroom-llm", "greenroom-protocol", "greenroom-stdx"],
    ),
    ("greenroom-probe", &[]),
    ("xtask", &[]),
];

/// Crates that wire or test everything and may use any of ours.
const UNRESTRICTED: &[&str] = &["greenroom", "greenroom-system-tests", "greenroom-benches"];

/// A crate, and crates that must not be reachable from it by any path of ordinary dependencies.
const UNREACHABLE: &[(&str, &[&str])] = &[
    (
        "greenroom-agent",
        &[
            "greenroom-server",
            "greenroom-store",
            "rusqlite",
            "greenroom-sandbox",
            "axum",
        ],
    ),
    (
        "greenroom-sandbox",
        &["tokio", "futures-util", "async-trait", "rayon"],
    ),
    ("greenroom-launcher", &["tokio", "greenroom-stdx"]),
    (
        "greenroom-guest",
        &["tokio", "reqwest", "rustls", "rusqlite", "greenroom-stdx"],
    ),
    ("greenroom-host", &["rusqlite", "axum"]),
    ("greenroom-llm", &["axum", "rusqlite"]),
    ("greenroom-forge", &["rusqlite", "axum"]),
    ("greenroom-egress", &["rusqlite", "axum", "reqwest"]),
];

/// The only crates that `greenroom-protocol` may use directly.
const PROTOCOL_USES: &[&str] = &["serde", "serde_json", "schemars"];

/// A heavy library and the only crates of ours that may use it directly.
const BEHIND: &[(&str, &[&str])] = &[
    // The system tests look into what the product wrote, and break it.
    ("rusqlite", &["greenroom-store", "greenroom-system-tests"]),
    ("clap", &["greenroom"]),
    ("rcgen", &["greenroom-egress"]),
    ("tokio-rustls", &["greenroom-egress"]),
    ("tar", &["greenroom", "greenroom-images", "greenroom-testkit"]),
    ("ruzstd", &["greenroom-images"]),
];

/// What `cargo metadata` tells.
#[derive(Debug, Deserialize)]
pub struct Metadata {
    packages: Vec<Package>,
    workspace_members: Vec<String>,
    resolve: Resolve,
}

#[derive(Debug, Deserialize)]
struct Package {
    id: String,
    name: String,
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    deps: Vec<Edge>,
}

#[derive(Debug, Deserialize)]
struct Edge {
    pkg: String,
    dep_kinds: Vec<EdgeKind>,
}

#[derive(Debug, Deserialize)]
struct EdgeKind {
    /// `null`: an ordinary dependency; otherwise `dev` or `build`.
    kind: Option<String>,
}

/// Asks cargo for the resolved graph.
pub fn metadata(root: &Path) -> Result<Metadata> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--format-version=1", "--locked"])
        .current_dir(root)
        .output()
        .context("run cargo metadata")?;
    ensure!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).context("read cargo metadata")
}

/// Every broken rule, in words.
pub fn findings(metadata: &Metadata) -> Vec<String> {
    let graph = Graph::new(metadata);
    let mut findings = Vec::new();
    for name in &graph.members {
        let direct = graph.direct(name);
        let ours: BTreeSet<&str> = direct.intersection(&graph.members).copied().collect();
        match ALLOWED.iter().find(|(known, _)| known == name) {
            Some((_, allowed)) => {
                let extra = ours.iter().filter(|dependency| !allowed.contains(dependency));
                findings
                    .extend(extra.map(|dependency| format!("crate graph: {name} may not use {dependency}")));
            }
            None if UNRESTRICTED.contains(name) => {}
            None => findings.push(format!(
                "crate graph: {name} is not in the table of xtask/src/tidy/graph.rs"
            )),
        }
        for (library, users) in BEHIND {
            if direct.contains(library) && !users.contains(name) {
                findings.push(format!(
                    "crate graph: only {} may use {library}, not {name}",
                    users.join(", ")
                ));
            }
        }
    }
    for (from, forbidden) in UNREACHABLE {
        let reachable = graph.reachable(from);
        let found = forbidden.iter().filter(|name| reachable.contains(*name));
        findings.extend(found.map(|name| format!("crate graph: {name} is reachable from {from}")));
    }
    let protocol = graph.direct("greenroom-protocol");
    let extra = protocol.iter().filter(|name| !PROTOCOL_USES.contains(name));
    findings.extend(extra.map(|name| format!("crate graph: greenroom-protocol may not use {name}")));
    findings
}

struct Graph<'a> {
    members: BTreeSet<&'a str>,
    edges: BTreeMap<&'a str, BTreeSet<&'a str>>,
}

impl<'a> Graph<'a> {
    fn new(metadata: &'a Metadata) -> Self {
        let names: BTreeMap<&str, &str> = metadata
            .packages
            .iter()
            .map(|package| (package.id.as_str(), package.name.as_str()))
            .collect();
        let name = |id: &'a str| names.get(id).copied().unwrap_or(id);
        let mut edges: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for node in &metadata.resolve.nodes {
            let ordinary = node
                .deps
                .iter()
                .filter(|edge| edge.dep_kinds.iter().any(|kind| kind.kind.is_none()));
            edges
                .entry(name(&node.id))
                .or_default()
                .extend(ordinary.map(|edge| name(&edge.pkg)));
        }
        let members = metadata.workspace_members.iter().map(|id| name(id)).collect();
        Self { members, edges }
    }

    fn direct(&self, name: &str) -> BTreeSet<&'a str> {
        self.edges.get(name).cloned().unwrap_or_default()
    }

    fn reachable(&self, from: &str) -> BTreeSet<&'a str> {
        let mut seen = BTreeSet::new();
        let mut open: Vec<&str> = self.direct(from).into_iter().collect();
        while let Some(name) = open.pop() {
            if seen.insert(name) {
                open.extend(self.direct(name));
            }
        }
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata_of(edges: &[(&str, &[&str])]) -> Metadata {
        let names: BTreeSet<&str> = edges
            .iter()
            .flat_map(|(from, to)| to.iter().copied().chain([*from]))
            .collect();
        let packages = names
            .iter()
            .map(|name| Package {
                id: (*name).to_owned(),
                name: (*name).to_owned(),
            })
            .collect();
        let nodes = edges.iter().map(|(from, to)| Node {
            id: (*from).to_owned(),
            deps: to
                .iter()
                .map(|to| Edge {
                    pkg: (*to).to_owned(),
                    dep_kinds: vec![EdgeKind { kind: None }],
                })
                .collect(),
        });
        let ours = names.iter().filter(|name| name.starts_with("greenroom"));
        Metadata {
            packages,
            workspace_members: ours.map(|name| (*name).to_owned()).collect(),
            resolve: Resolve {
                nodes: nodes.collect(),
            },
        }
    }

    #[test]
    fn each_rule_finds_what_breaks_it() {
        for (edges, expected) in [
            (
                &[("greenroom-store", &["greenroom-protocol", "rusqlite"][..])][..],
                vec![],
            ),
            (
                &[("greenroom-llm", &["greenroom-protocol"][..])],
                vec!["crate graph: greenroom-llm may not use greenroom-protocol"],
            ),
            (
                &[("greenroom-new", &[][..])],
                vec!["crate graph: greenroom-new is not in the table of xtask/src/tidy/graph.rs"],
            ),
            (
                &[("greenroom-protocol", &["serde", "tokio"][..])],
                vec!["crate graph: greenroom-protocol may not use tokio"],
            ),
            (
                &[("greenroom-sandbox", &["libc"][..]), ("libc", &["tokio"][..])],
                vec!["crate graph: tokio is reachable from greenroom-sandbox"],
            ),
            (
                &[("greenroom-host", &["clap"][..])],
                vec!["crate graph: only greenroom may use clap, not greenroom-host"],
            ),
        ] {
            assert_eq!(findings(&metadata_of(edges)), expected, "{edges:?}");
        }
    }

    #[test]
    fn development_dependencies_do_not_count() {
        let mut metadata = metadata_of(&[("greenroom-llm", &["axum"])]);
        assert_eq!(findings(&metadata).len(), 1);
        metadata.resolve.nodes[0].deps[0].dep_kinds[0].kind = Some("dev".to_owned());
        assert_eq!(findings(&metadata), Vec::<String>::new());
    }
}
