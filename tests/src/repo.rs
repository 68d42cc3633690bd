//! Repositories made with the machine's git, with nothing of the machine's configuration.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Runs git and returns what it printed; panics with its errors.
pub fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = try_git(directory, arguments);
    assert!(
        output.status.success(),
        "git {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Runs git and returns how it went.
pub fn try_git(directory: &Path, arguments: &[&str]) -> Output {
    Command::new("git")
        .args(arguments)
        .current_dir(directory)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        // Some repositories are given to the user who runs the server.
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_AUTHOR_NAME", "Somebody")
        .env("GIT_AUTHOR_EMAIL", "somebody@example.com")
        .env("GIT_COMMITTER_NAME", "Somebody")
        .env("GIT_COMMITTER_EMAIL", "somebody@example.com")
        .output()
        .expect("run git")
}

/// A repository on branch `main` with one commit of these files.
pub fn with_files(parent: &Path, name: &str, files: &[(&str, &str)]) -> PathBuf {
    let directory = parent.join(name);
    std::fs::create_dir_all(&directory).expect("make a directory");
    git(&directory, &["init", "-q", "-b", "main"]);
    for (path, content) in files {
        let path = directory.join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("make a directory");
        std::fs::write(path, content).expect("write a file");
    }
    git(&directory, &["add", "-A"]);
    git(&directory, &["commit", "-q", "-m", "First commit"]);
    directory
}

/// An address with an API token in it, as a person would put it into a credential helper.
pub fn with_token(clone_url: &str, token: &str) -> String {
    clone_url.replacen("://", &format!("://greenroom:{token}@"), 1)
}
