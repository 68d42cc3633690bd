//! The sample project, embedded, and how it becomes a git repository that is the same everywhere.

use crate::failure::Failure;
use std::path::Path;
use std::process::{Command, Stdio};

/// Path and content, as in crates/cli/sample.
const FILES: &[(&str, &str)] = &[
    (".gitignore", include_str!("../sample/.gitignore")),
    ("AGENTS.md", include_str!("../sample/AGENTS.md")),
    ("README.md", include_str!("../sample/README.md")),
    ("tests/__init__.py", include_str!("../sample/tests/__init__.py")),
    ("tests/test_slug.py", include_str!("../sample/tests/test_slug.py")),
    (
        "textkit/__init__.py",
        include_str!("../sample/textkit/__init__.py"),
    ),
    ("textkit/slug.py", include_str!("../sample/textkit/slug.py")),
];

/// Author and date of its only commit; fixed, so that the commit's id is too.
const COMMIT_ENVIRONMENT: &[(&str, &str)] = &[
    ("GIT_CONFIG_GLOBAL", "/dev/null"),
    ("GIT_CONFIG_SYSTEM", "/dev/null"),
    ("GIT_AUTHOR_NAME", "Sample Author"),
    ("GIT_AUTHOR_EMAIL", "author@sample.invalid"),
    ("GIT_AUTHOR_DATE", "2026-01-01T00:00:00Z"),
    ("GIT_COMMITTER_NAME", "Sample Author"),
    ("GIT_COMMITTER_EMAIL", "author@sample.invalid"),
    ("GIT_COMMITTER_DATE", "2026-01-01T00:00:00Z"),
];

/// Writes the sample into a folder that does not exist or is empty, and commits it on `main`.
pub fn write(directory: &Path) -> Result<(), Failure> {
    let refuse = |what: &str, error: &std::io::Error| {
        Failure::new(
            "sample_failed",
            format!("{what} {} failed: {error}", directory.display()),
        )
    };
    std::fs::create_dir_all(directory).map_err(|error| refuse("making", &error))?;
    let mut entries = std::fs::read_dir(directory).map_err(|error| refuse("reading", &error))?;
    if entries.next().is_some() {
        return Err(Failure::usage(
            "sample_directory",
            format!("{} is not empty", directory.display()),
        )
        .with_hint("name a folder that does not exist yet"));
    }
    for (path, content) in FILES {
        let target = directory.join(path);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent).map_err(|error| refuse("making", &error))?;
        }
        std::fs::write(&target, content).map_err(|error| refuse("writing", &error))?;
    }
    git(directory, &["init", "--quiet", "--initial-branch=main"])?;
    git(directory, &["add", "--all"])?;
    git(
        directory,
        &[
            "commit",
            "--quiet",
            "--no-gpg-sign",
            "--message",
            "Add textkit with a failing test",
        ],
    )
}

fn git(directory: &Path, arguments: &[&str]) -> Result<(), Failure> {
    let output = Command::new("git")
        .arg("-C")
        .arg(directory)
        .args(arguments)
        // A hook or worktree of whoever calls must not leak in.
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .env_remove("GIT_INDEX_FILE")
        .envs(COMMIT_ENVIRONMENT.iter().copied())
        .stdin(Stdio::null())
        .output()
        .map_err(|error| {
            Failure::new("git_missing", format!("git cannot be run: {error}")).with_hint("install git")
        })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Failure::new(
            "sample_failed",
            format!("git {} failed: {said}", arguments[0]),
        ));
    }
    Ok(())
}
