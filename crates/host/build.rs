//! Builds the two static programs that the host carries inside itself. A nested cargo, because they need other flags
//! (`crt-static`) and another profile than everything else; its own target directory, because cargo locks it.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Packages and the programs they yield.
const PROGRAMS: [(&str, &str); 2] = [
    ("greenroom-launcher", "greenroom-launcher"),
    ("greenroom-guest", "greenroom-guest"),
];

/// Names another profile, such as `guest-quick`, for those who change these programs often.
const PROFILE_VARIABLE: &str = "GREENROOM_GUEST_PROFILE";

fn main() {
    let manifest = PathBuf::from(required("CARGO_MANIFEST_DIR"));
    let root = manifest.join("../..");
    let out = PathBuf::from(required("OUT_DIR"));
    for input in [
        "Cargo.toml",
        "crates/guest",
        "crates/launcher",
        "crates/protocol",
        "crates/sandbox",
    ] {
        println!("cargo:rerun-if-changed={}", root.join(input).display());
    }
    // A fuzzer starts no sandbox; it must not wait for what it does not use.
    if std::env::var_os("CARGO_CFG_FUZZING").is_some() {
        for (_, program) in PROGRAMS {
            std::fs::write(out.join(program), b"").unwrap_or_else(|error| panic!("write {program}: {error}"));
        }
        return;
    }
    let target = format!("{}-unknown-linux-gnu", required("CARGO_CFG_TARGET_ARCH"));
    // target/debug/build/greenroom-host-…/out: shared by all profiles, they all want the same programs.
    let target_dir = out.ancestors().nth(4).unwrap_or(&out).join("static");
    let mut cargo = Command::new(required("CARGO"));
    println!("cargo:rerun-if-env-changed={PROFILE_VARIABLE}");
    let profile = std::env::var(PROFILE_VARIABLE).unwrap_or_else(|_| "guest".to_owned());
    cargo
        .arg("build")
        .args(["--profile", &profile, "--target", &target]);
    cargo
        .arg("--target-dir")
        .arg(&target_dir)
        .arg("--manifest-path")
        .arg(root.join("Cargo.toml"));
    for (package, program) in PROGRAMS {
        cargo.args(["--package", package, "--bin", program]);
    }
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
    // At a fixed address: relocating themselves would cost each of them a page fault per page of pointers, at every start.
    cargo.env(
        "RUSTFLAGS",
        "-C target-feature=+crt-static -C relocation-model=static",
    );
    let status = cargo
        .status()
        .unwrap_or_else(|error| panic!("start cargo for the static programs: {error}"));
    assert!(
        status.success(),
        "building the static programs failed; is libc6-dev installed?"
    );
    for (_, program) in PROGRAMS {
        copy(
            &target_dir.join(&target).join(&profile).join(program),
            &out.join(program),
        );
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::copy(from, to).unwrap_or_else(|error| panic!("copy {}: {error}", from.display()));
}

fn required(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
}
