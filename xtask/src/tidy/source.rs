//! Rules for source files: size, first line, names, and nothing of the machine they were written on.

use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::Command;

/// Most lines of a file, tests apart.
const MAX_LINES: usize = 800;
/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &["utils", "util", "common", "helpers", "types", "misc", "mod"];
/// Extensions whose size is held.
const SIZED: &[&str] = &["rs", "ts", "tsx", "css", "sh", "py"];
/// Extensions that are text of ours.
const TEXT: &[&str] = &[
    "rs", "ts", "tsx", "js", "mjs", "css", "html", "sh", "py", "toml", "md", "json", "yml",
];
/// Checkouts and caches of one machine never belong into a file; put together here so that this file passes its own check.
const MACHINE_PATHS: &[&str] = &[
    concat!("/root/", ".cargo"),
    concat!("/home/", "runner"),
    concat!("/wo", "rk/"),
];

/// Paths that git tracks or would track, relative to the root, sorted; deleted ones left out.
pub fn tracked(root: &Path) -> Result<Vec<String>> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .context("run git ls-files")?;
    ensure!(
        output.status.success(),
        "git ls-files: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).context("read file names")?;
    let mut paths: Vec<String> = text
        .split('\0')
        .filter(|path| !path.is_empty() && root.join(path).is_file())
        .map(str::to_owned)
        .collect();
    paths.sort();
    paths.dedup();
    Ok(paths)
}

/// Every broken rule, in words.
pub fn findings(root: &Path, paths: &[String]) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for path in paths {
        let extension = path.rsplit_once('.').map_or("", |(_, extension)| extension);
        if !TEXT.contains(&extension) {
            continue;
        }
        let bytes = std::fs::read(root.join(path)).with_context(|| format!("read {path}"))?;
        let Ok(text) = String::from_utf8(bytes) else {
            findings.push(format!("{path}: not UTF-8"));
            continue;
        };
        findings.extend(file_findings(path, extension, &text));
    }
    Ok(findings)
}

fn file_findings(path: &str, extension: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let stem = path
        .rsplit('/')
        .next()
        .and_then(|name| name.split('.').next())
        .unwrap_or_default();
    let is_generated = path.ends_with("generated.ts") || path.ends_with("lock.json");
    if EMPTY_NAMES.contains(&stem) && ["rs", "ts", "tsx"].contains(&extension) {
        findings.push(format!(
            "{path}: the name {stem} says nothing about what is inside"
        ));
    }
    if extension == "rs" && !text.starts_with("//!") {
        findings.push(format!(
            "{path}: the first line must be a //! that says what the file is for"
        ));
    }
    let lines = text
        .lines()
        .take_while(|line| line.trim() != "#[cfg(test)]")
        .count();
    if SIZED.contains(&extension) && lines > MAX_LINES && !is_test(path) && !is_generated {
        findings.push(format!("{path}: {lines} lines, more than {MAX_LINES}"));
    }
    if !is_generated {
        for (at, line) in text.lines().enumerate() {
            for machine in MACHINE_PATHS.iter().filter(|machine| line.contains(**machine)) {
                findings.push(format!(
                    "{path}:{}: names {machine}, a path of one machine",
                    at + 1
                ));
            }
        }
    }
    findings
}

fn is_test(path: &str) -> bool {
    path.split('/')
        .any(|part| part == "tests" || part == "it" || part == "e2e")
        || path.ends_with("tests.rs")
        || path.contains(".test.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_finds_what_breaks_it() {
        let long = format!("//! Long.\n{}", "fn line() {}\n".repeat(MAX_LINES));
        let tested = format!(
            "//! Tested.\n#[cfg(test)]\n{}",
            "fn line() {}\n".repeat(MAX_LINES)
        );
        for (path, text, expected) in [
            ("crates/a/src/b.rs", "//! Good.\n", 0),
            ("crates/a/src/b.rs", "fn main() {}\n", 1),
            ("crates/a/src/utils.rs", "//! Bad.\n", 1),
            ("crates/a/src/b/mod.rs", "//! Bad.\n", 1),
            ("web/src/helpers.test.ts", "", 1),
            ("crates/a/src/long.rs", &long, 1),
            ("crates/a/src/tested.rs", &tested, 0),
            ("crates/a/tests/it/long.rs", &long, 0),
            ("docs/x.md", concat!("see /home/", "runner/x"), 1),
            ("sdk/typescript/src/generated.ts", &long, 0),
        ] {
            let extension = path.rsplit_once('.').unwrap().1;
            let found = file_findings(path, extension, text);
            assert_eq!(found.len(), expected, "{path}: {found:?}");
        }
    }
}
