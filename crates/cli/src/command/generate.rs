//! Completion scripts, and documentation from the same definitions that parse the command line.

use crate::arguments::{Arguments, Generated};
use crate::config;
use crate::failure::{Exit, Failure};
use crate::terminal::Terminal;
use clap::CommandFactory;
use clap_complete::Shell;
use std::fmt::Write as _;

/// Prints a completion script.
pub fn completions(shell: Shell, terminal: Terminal) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "greenroom", &mut script);
    terminal.raw(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Success)
}

/// Prints one of the generated documents.
pub fn documentation(what: Generated, terminal: Terminal) -> Result<Exit, Failure> {
    match what {
        Generated::Cli => terminal.raw(&cli_markdown())?,
        Generated::Configuration => terminal.raw(&config::as_markdown())?,
        Generated::Openapi => terminal.raw(&format!("{}\n", greenroom_server::openapi().trim_end()))?,
    }
    Ok(Exit::Success)
}

fn cli_markdown() -> String {
    let mut text = String::from(
        "# The command line\n\n\
         <!-- Written by `cargo xtask codegen` from crates/cli/src/arguments.rs; edit that file. -->\n\n\
         Every command prints for people by default and for programs with `--json` (one JSON document per line). Errors go\n\
         to stderr as `error[code]: sentence` with a `hint:` line; codes are stable. Colours follow `NO_COLOR`,\n\
         `CLICOLOR_FORCE` and whether the output is a terminal; control characters in what models and tools wrote are\n\
         removed.\n\n\
         | exit status | meaning |\n|---|---|\n\
         | 0 | done; for `run` and `session prompt`: the turn completed |\n\
         | 1 | tried and failed; for a turn: it failed, or someone else stopped it |\n\
         | 2 | wrong command line or configuration; nothing was tried |\n\
         | 3 | no server answered |\n\
         | 130 | Ctrl-C |\n\
         | 141 | whoever read the output went away |\n\n\
         `env shell` and `session shell` end with the status of the shell there, and pass on everything that it shows.\n\n",
    );
    let mut root = Arguments::command().term_width(110);
    root.build();
    section(&mut text, &mut root, 2);
    text
}

fn section(text: &mut String, command: &mut clap::Command, level: usize) {
    let name = command.get_bin_name().unwrap_or("greenroom").to_owned();
    let help = command.render_help().to_string();
    // Lines may not end in blanks, so that editors leave the file alone.
    let help: Vec<&str> = help.lines().map(str::trim_end).collect();
    let _ = write!(
        text,
        "{} `{name}`\n\n```text\n{}\n```\n\n",
        "#".repeat(level),
        help.join("\n").trim_end()
    );
    for child in command.get_subcommands_mut() {
        if !child.is_hide_set() && child.get_name() != "help" {
            section(text, child, level + 1);
        }
    }
}
