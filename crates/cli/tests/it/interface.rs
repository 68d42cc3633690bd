//! Help, versions, completions, colours, pipes and exit statuses.

use crate::program::{Home, Ran};
use std::io::Read;
use std::process::Stdio;

const COMMANDS: &[&[&str]] = &[
    &[],
    &["up"],
    &["run"],
    &["session", "list"],
    &["session", "show"],
    &["session", "follow"],
    &["session", "prompt"],
    &["session", "stop"],
    &["repo", "add"],
    &["repo", "list"],
    &["pr", "list"],
    &["pr", "show"],
    &["pr", "diff"],
    &["pr", "merge"],
    &["pr", "review"],
    &["models"],
    &["secret", "set"],
    &["secret", "list"],
    &["secret", "remove"],
    &["sign-in-link"],
    &["doctor"],
    &["config", "check"],
    &["config", "show"],
    &["config", "reference"],
    &["completions"],
    &["sample"],
];

#[test]
fn every_help_has_examples() {
    let home = Home::new();
    for command in COMMANDS {
        let arguments: Vec<&str> = command.iter().copied().chain(["--help"]).collect();
        let ran = home.run(&arguments);
        assert_eq!(ran.status, 0, "{command:?}: {}", ran.err);
        assert!(ran.out.contains("Examples:"), "{command:?}: {}", ran.out);
        assert!(ran.out.contains("greenroom"), "{command:?}: {}", ran.out);
        assert!(!ran.out.contains('\x1b'), "{command:?} is coloured into a pipe");
    }
}

#[test]
fn the_version_is_printed() {
    let ran = Home::new().run(&["--version"]);
    assert_eq!(
        (ran.status, ran.out.trim()),
        (0, concat!("greenroom ", env!("CARGO_PKG_VERSION")))
    );
}

#[test]
fn wrong_usage_is_status_two() {
    let home = Home::new();
    for arguments in [
        &["fly"][..],
        &["run"],
        &["run", "x"],
        &["run", "  ", "--repo", "x"],
        &["pr", "show", "nowhere"],
    ] {
        let ran = home.run(arguments);
        assert_eq!(ran.status, 2, "{arguments:?}: {} {}", ran.out, ran.err);
        assert!(!ran.err.is_empty() && ran.out.is_empty(), "{arguments:?}");
    }
}

#[test]
fn bad_prompts_are_refused_before_anything_is_sent() {
    let home = Home::new();
    let ran = home.run(&["run", "", "--repo", "shop"]);
    assert!(ran.err.starts_with("error[prompt_empty]: "), "{}", ran.err);
    home.write("large.txt", &"x".repeat(1024 * 1024));
    let file = std::fs::File::open(home.path().join("large.txt")).unwrap();
    let ran = Ran::from(
        home.command(&["run", "-", "--repo", "shop"])
            .stdin(file)
            .output()
            .unwrap(),
    );
    assert_eq!(ran.status, 2, "{}", ran.err);
    assert!(
        ran.err.starts_with("error[prompt_too_large]: ") && ran.err.contains("\nhint: "),
        "{}",
        ran.err
    );
}

#[test]
fn completions_exist_for_each_shell_and_know_the_commands() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = home.run(&["completions", shell]);
        assert_eq!(ran.status, 0, "{shell}: {}", ran.err);
        for word in ["sign-in-link", "merge", "--config"] {
            let word = if shell == "fish" {
                word.trim_start_matches('-')
            } else {
                word
            };
            assert!(ran.out.contains(word), "{shell} lacks {word}");
        }
    }
}

#[test]
fn colours_follow_the_variables() {
    let home = Home::new();
    let coloured = |variables: &[(&str, &str)]| {
        let output = home
            .command(&["config", "check"])
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        Ran::from(output).out.contains('\x1b')
    };
    assert!(!coloured(&[]), "a pipe is not coloured");
    assert!(coloured(&[("CLICOLOR_FORCE", "1")]));
    assert!(!coloured(&[("CLICOLOR_FORCE", "0")]));
    assert!(!coloured(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
    assert!(
        coloured(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "")]),
        "an empty NO_COLOR counts as unset"
    );
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let home = Home::new();
    let mut command = home.command(&["config", "reference"]);
    // Gone before anything is written.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut child = command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    // Its copy of the other end.
    drop(command);
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    let status = child.wait().unwrap().code().unwrap();
    assert_eq!((status, stderr.as_str()), (141, ""));
}

#[test]
fn the_sample_is_the_same_commit_everywhere() {
    let home = Home::new();
    let commit = |name: &str| {
        let directory = home.path().join(name);
        let ran = home.run(&["sample", directory.to_str().unwrap()]);
        assert_eq!(ran.status, 0, "{}", ran.err);
        let git = std::process::Command::new("git")
            .arg("-C")
            .arg(&directory)
            .args(["rev-parse", "main"])
            .output();
        Ran::from(git.unwrap()).out
    };
    assert_eq!(commit("one"), commit("two"));
    let again = home.run(&["sample", home.path().join("one").to_str().unwrap()]);
    assert_eq!(
        again.status, 2,
        "a folder with something in it stays as it is: {}",
        again.err
    );
}

#[test]
fn the_sample_has_a_failing_test() {
    let home = Home::new();
    let directory = home.path().join("sample");
    assert_eq!(home.run(&["sample", directory.to_str().unwrap()]).status, 0);
    let mut python = std::process::Command::new("python3");
    let output = python
        .args(["-m", "unittest", "discover"])
        .current_dir(&directory)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && said.contains("FAILED (failures=1)"),
        "{said}"
    );
}
