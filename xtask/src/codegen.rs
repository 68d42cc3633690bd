//! Files that are written from code: the OpenAPI document, the references of the command line and the configuration. They
//! are checked in, so that a change shows in review; `--check` fails when one is stale.

use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Whether stale files are written or reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Write,
    Check,
}

/// A file and the words after `greenroom generate` that print it.
const GENERATED: &[(&str, &str)] = &[
    ("schema/openapi.json", "openapi"),
    ("docs/configuration.md", "configuration"),
    ("docs/cli.md", "cli"),
];

/// Writes or checks every generated file.
pub fn run(root: &Path, mode: Mode) -> Result<String> {
    let program = program(root)?;
    let mut stale = Vec::new();
    for (path, what) in GENERATED {
        let output = Command::new(&program)
            .args(["generate", what])
            .current_dir(root)
            .env("NO_COLOR", "1")
            .output()
            .with_context(|| format!("run {} generate {what}", program.display()))?;
        ensure!(
            output.status.success(),
            "generate {what}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let target = root.join(path);
        if std::fs::read(&target).ok().as_deref() == Some(output.stdout.as_slice()) {
            continue;
        }
        stale.push(*path);
        if mode == Mode::Write {
            std::fs::write(&target, &output.stdout).with_context(|| format!("write {path}"))?;
        }
    }
    match (mode, stale.is_empty()) {
        (_, true) => Ok("codegen: everything is up to date".to_owned()),
        (Mode::Write, false) => Ok(format!("codegen: wrote {}", stale.join(", "))),
        (Mode::Check, false) => bail!("codegen: stale: {}; run `cargo xtask codegen`", stale.join(", ")),
    }
}

/// `$GREENROOM_BIN`, or the development build, made now.
fn program(root: &Path) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("GREENROOM_BIN") {
        return Ok(path.into());
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--locked", "--package", "greenroom"])
        .current_dir(root)
        .status()
        .context("build greenroom")?;
    ensure!(status.success(), "greenroom does not build");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join("debug").join("greenroom"))
}
