//! Builds the program of this very package once more, as a static one, and hands its bytes to the library. The nested
//! cargo builds the package without a program inside.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Set for the nested build.
const NESTED: &str = "GREENROOM_PROBE_NESTED";
/// The same variable as for the sandbox's own static programs, so that both builds share what they have in common.
const PROFILE_VARIABLE: &str = "GREENROOM_GUEST_PROFILE";
const PROGRAM: &str = "greenroom-probe";

fn main() {
    let manifest = PathBuf::from(required("CARGO_MANIFEST_DIR"));
    let out = PathBuf::from(required("OUT_DIR"));
    println!("cargo:rerun-if-env-changed={PROFILE_VARIABLE}");
    println!("cargo:rerun-if-env-changed={NESTED}");
    for input in ["src", "Cargo.toml", "build.rs"] {
        println!("cargo:rerun-if-changed={}", manifest.join(input).display());
    }
    let program = out.join(PROGRAM);
    if std::env::var_os(NESTED).is_some() {
        std::fs::write(&program, []).unwrap_or_else(|error| panic!("write {}: {error}", program.display()));
        return;
    }
    let built = build(&manifest, &out);
    std::fs::copy(&built, &program).unwrap_or_else(|error| panic!("copy {}: {error}", built.display()));
}

/// Runs the nested cargo and returns where the program lies.
fn build(manifest: &Path, out: &Path) -> PathBuf {
    let target = format!("{}-unknown-linux-gnu", required("CARGO_CFG_TARGET_ARCH"));
    let profile = std::env::var(PROFILE_VARIABLE).unwrap_or_else(|_| "guest".to_owned());
    let target_dir = out.ancestors().nth(4).unwrap_or(out).join("static");
    let mut cargo = Command::new(required("CARGO"));
    cargo
        .args(["build", "--package", PROGRAM, "--bin", PROGRAM])
        .args(["--profile", &profile, "--target", &target])
        .arg("--target-dir")
        .arg(&target_dir)
        .arg("--manifest-path")
        .arg(manifest.join("Cargo.toml"))
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env(NESTED, "1");
    // What the outer build decided for itself must not leak in.
    for name in [
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_BUILD_TARGET",
        "CARGO_TARGET_DIR",
        "CARGO_BUILD_RUSTFLAGS",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_WRAPPER",
        "CLIPPY_ARGS",
    ] {
        cargo.env_remove(name);
    }
    let status = cargo
        .status()
        .unwrap_or_else(|error| panic!("start cargo for the probe: {error}"));
    assert!(
        status.success(),
        "building the probe failed; is libc6-dev installed?"
    );
    target_dir.join(target).join(profile).join(PROGRAM)
}

fn required(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
}
