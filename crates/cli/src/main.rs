//! The `greenroom` program: reads the command line, runs one command, and is the only place that decides the exit status.

mod arguments;
mod command;
mod config;
mod connection;
mod doctor;
mod failure;
mod models;
mod sample;
mod sandboxes;
mod terminal;
mod turn_view;
mod up;

use arguments::{Arguments, Command};
use clap::Parser;
use failure::{Exit, Failure};
use std::process::ExitCode;
use terminal::Terminal;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are no errors and go to stdout; a closed pipe there is nobody's problem.
            let _ = error.print();
            let exit = if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Success
            };
            return ExitCode::from(exit.status());
        }
    };
    let terminal = Terminal::of_process();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let failure = Failure::new("machine_exhausted", format!("no thread can be started: {error}"));
            terminal.failure(&failure);
            return ExitCode::from(failure.exit.status());
        }
    };
    let result = runtime.block_on(dispatch(arguments, terminal));
    // Reading standard input cannot be cancelled and must not keep the process.
    runtime.shutdown_background();
    match result {
        Ok(exit) => ExitCode::from(exit.status()),
        Err(failure) => {
            if failure.exit != Exit::PipeClosed {
                terminal.failure(&failure);
            }
            ExitCode::from(failure.exit.status())
        }
    }
}

async fn dispatch(arguments: Arguments, terminal: Terminal) -> Result<Exit, Failure> {
    let Arguments { global, command } = arguments;
    let result = match command {
        Command::Up(options) => return command::up::run(&global, &options, terminal).await,
        Command::Doctor(options) => return doctor::run(&global, options.json, terminal).await,
        Command::Backup(options) => return command::backup::backup(&global, options, terminal).await,
        Command::Restore(options) => return command::backup::restore(&global, options, terminal).await,
        Command::Config(what) => return command::config::run(&global, what, terminal),
        Command::Completions { shell } => return command::generate::completions(shell, terminal),
        Command::Generate { what } => return command::generate::documentation(what, terminal),
        Command::Sample { directory } => return command::sample::run(&directory, terminal),
        Command::Run(options) => command::run::run(&global, options, terminal).await,
        Command::Session(what) => command::session::run(&global, what, terminal).await,
        Command::Repo(what) => command::repository::run(&global, what, terminal).await,
        Command::Env(what) => command::environment::run(&global, what, terminal).await,
        Command::Image(what) => command::image::run(&global, what, terminal).await,
        Command::Pr(what) => command::pull_request::run(&global, what, terminal).await,
        Command::Models(options) => command::models::run(&global, options.json, terminal).await,
        Command::Secret(what) => command::secret::run(&global, what, terminal).await,
        Command::Person(what) => command::person::run(&global, what, terminal).await,
        Command::Audit(options) => command::person::audit(&global, options, terminal).await,
        Command::SignInLink(options) => command::sign_in_link::run(&global, options.json, terminal).await,
    };
    result.map_err(|failure| connection::explain_dead_server(&global, failure))
}
