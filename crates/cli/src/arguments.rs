//! The command line: names, examples and defaults. What commands do is in `command`.

mod people;
mod session;

pub use people::{AuditArguments, LinkArguments, MembersArguments, PersonCommand};
pub use session::SessionCommand;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use std::path::PathBuf;

const ROOT_EXAMPLES: &str = "Examples:
  greenroom up                                      start a server on this machine
  greenroom run \"Fix the failing test\" --repo .     ask for work; prints the pull request
  greenroom session list                            what is going on
  greenroom pr diff shop#1                          what an agent changed
  greenroom doctor                                  what this machine can do

Exit status: 0 done, 1 failed, 2 wrong usage or configuration, 3 no server, 130 interrupted.";

/// Hosted background coding agents on your own machine.
#[derive(Debug, Parser)]
#[command(name = "greenroom", version, about, after_help = ROOT_EXAMPLES, propagate_version = true, subcommand_required = true, arg_required_else_help = true, max_term_width = 110)]
pub struct Arguments {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Configuration file [env: GREENROOM_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Server to talk to instead of the one on this machine; needs GREENROOM_TOKEN [env: GREENROOM_SERVER]
    #[arg(long, global = true, value_name = "URL")]
    pub server: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a server with everything in this process
    #[command(after_help = "Examples:
  greenroom up
  GREENROOM_LISTEN=127.0.0.1:0 greenroom up --json
  ANTHROPIC_API_KEY=… greenroom up

Prints a sign-in link for the browser. Ctrl-C stops the server; sessions go on when it is started again.")]
    Up(UpArguments),
    /// Start a session, follow it, and print its pull request
    #[command(after_help = "Examples:
  greenroom run \"Fix the failing test\" --repo .
  greenroom run \"Add a --json option\" --repo https://git.example/shop.git --base develop
  greenroom run - --repo shop --json < task.md
  greenroom run \"Upgrade the parser\" --repo shop --no-wait

A path or URL is imported into the built-in forge the first time. Ctrl-C asks the turn to stop and waits for that; a
second Ctrl-C leaves at once and the turn goes on stopping by itself. Exit status: 0 only if the turn completed, 1 if it
failed or was stopped by someone else, 130 after Ctrl-C.")]
    Run(RunArguments),
    /// Look at sessions and steer them
    #[command(subcommand)]
    Session(SessionCommand),
    /// Repositories of the built-in forge
    #[command(subcommand)]
    Repo(RepoCommand),
    /// What sandboxes of a repository are made of and may do
    #[command(subcommand)]
    Env(EnvCommand),
    /// What sandboxes of a repository begin with
    #[command(subcommand)]
    Image(ImageCommand),
    /// Pull requests of the built-in forge
    #[command(subcommand)]
    Pr(PrCommand),
    /// List the models a session may use
    #[command(after_help = "Examples:\n  greenroom models\n  greenroom models --json")]
    Models(JsonArguments),
    /// Keys the server keeps encrypted; they go in and are never shown
    #[command(subcommand)]
    Secret(SecretCommand),
    /// Who may use this server
    #[command(subcommand)]
    Person(PersonCommand),
    /// Who did what on this server, the newest first; for its owners
    #[command(after_help = "Examples:
  greenroom audit
  greenroom audit --about ses_…
  greenroom audit --person ada@example.com --limit 500 --json

An answer is an HTTP status; `unknown` was begun, and the server ended before it knew.")]
    Audit(AuditArguments),
    /// Print a link that signs a browser in once
    #[command(after_help = "Examples:\n  greenroom sign-in-link\n  xdg-open \"$(greenroom sign-in-link)\"")]
    SignInLink(JsonArguments),
    /// Tell what this machine can do, what is used instead, and what to change
    #[command(after_help = "Examples:
  greenroom doctor
  greenroom doctor --json

Each line is ok, instead (something else is used), or missing. Exit status 1 only if `greenroom up` cannot work.")]
    Doctor(JsonArguments),
    /// Copy all that a server on this machine keeps to a new directory; it may run meanwhile
    #[command(after_help = "Examples:
  greenroom backup /backups/$(date +%F)
  greenroom backup /mnt/backup/greenroom --json

Sessions, people, repositories, pull requests, secrets with their key, and the files of sessions as of their last snapshots.
Images are built again where they are missing. Keep it as safe as the data directory itself.")]
    Backup(BackupArguments),
    /// Make a new data directory of a backup
    #[command(after_help = "Examples:
  greenroom restore /backups/2026-11-23
  GREENROOM_DATA_DIR=/srv/greenroom greenroom restore /backups/2026-11-23

The data directory must not exist yet, or be empty. Turns that were at work go on when the server starts.")]
    Restore(RestoreArguments),
    /// Check, show and explain the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print a completion script for a shell
    #[command(after_help = "Examples:
  greenroom completions bash > ~/.local/share/bash-completion/completions/greenroom
  greenroom completions zsh > ~/.zfunc/_greenroom
  greenroom completions fish > ~/.config/fish/completions/greenroom.fish")]
    Completions { shell: Shell },
    /// Write a small repository with a failing test, to try things on
    #[command(
        after_help = "Examples:\n  greenroom sample /tmp/sample && greenroom run \"Fix the failing test\" --repo /tmp/sample"
    )]
    Sample {
        /// Folder to make; must not exist or be empty
        directory: PathBuf,
    },
    /// Print documentation generated from this program
    #[command(hide = true)]
    Generate {
        #[arg(value_enum)]
        what: Generated,
    },
}

/// What `generate` writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Generated {
    /// docs/cli.md
    Cli,
    /// docs/configuration.md
    Configuration,
    /// schema/openapi.json
    Openapi,
}

#[derive(Debug, Clone, Args)]
pub struct JsonArguments {
    /// Print JSON for programs
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct BackupArguments {
    /// Where to: a directory that does not exist yet, or is empty
    pub directory: PathBuf,
    /// Print what is in it as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct RestoreArguments {
    /// What `greenroom backup` made
    pub directory: PathBuf,
    /// Print what is in it as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct UpArguments {
    /// Print one JSON object with the address and sign-in link instead of text
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct RunArguments {
    /// What to do, or - to read it from standard input
    pub prompt: String,
    /// An image to look at: PNG, JPEG, GIF or WebP, at most 5 MiB; can be given up to 8 times
    #[arg(long = "image", value_name = "FILE")]
    pub images: Vec<PathBuf>,
    /// Repository: a path on the server's machine, a URL, or a name in the forge
    #[arg(long, value_name = "PATH|URL|NAME")]
    pub repo: String,
    /// Model as `greenroom models` lists it
    #[arg(long, value_name = "PROVIDER/NAME")]
    pub model: Option<String>,
    /// Branch to start from and to open the pull request against
    #[arg(long, value_name = "BRANCH")]
    pub base: Option<String>,
    /// What people of this server may do in it; members: nothing [default: what the server's settings say]
    #[arg(long, value_parser = ["members", "viewer", "editor"])]
    pub everybody: Option<String>,
    /// Print one event per line as JSON
    #[arg(long)]
    pub json: bool,
    /// Leave as soon as the prompt is accepted
    #[arg(long)]
    pub no_wait: bool,
}

#[derive(Debug, Subcommand)]
pub enum RepoCommand {
    /// Import a repository, or make an empty one
    #[command(
        after_help = "Examples:\n  greenroom repo add .\n  greenroom repo add https://git.example/shop.git --name shop\n  greenroom repo add --name empty"
    )]
    Add {
        /// Path on the server's machine or URL to import; absent: an empty repository
        #[arg(required_unless_present = "name")]
        source: Option<String>,
        /// Name in the forge; absent: the last part of the source
        #[arg(long)]
        name: Option<String>,
        /// Print JSON for programs
        #[arg(long)]
        json: bool,
    },
    /// List repositories
    #[command(after_help = "Examples:\n  greenroom repo list\n  greenroom repo list --json")]
    List(JsonArguments),
}

#[derive(Debug, Subcommand)]
pub enum EnvCommand {
    /// Show the environment in force, where it comes from, and what was cut of it
    #[command(after_help = "Examples:\n  greenroom env show shop\n  greenroom env show shop --json")]
    Show {
        /// Repository in the forge
        repository: String,
        /// Print JSON for programs
        #[arg(long)]
        json: bool,
    },
    /// Set the environment of a repository; it replaces the repository's own file as a whole
    #[command(
        after_help = "Examples:\n  greenroom env set shop environment.toml\n  greenroom env show shop > shop.toml && $EDITOR shop.toml && greenroom env set shop shop.toml\n\nIt applies when a sandbox starts next."
    )]
    Set {
        /// Repository in the forge
        repository: String,
        /// TOML file, or - to read standard input
        file: String,
    },
    /// Forget the environment that was set; the repository's own file counts again
    #[command(after_help = "Examples:\n  greenroom env unset shop")]
    Unset {
        /// Repository in the forge
        repository: String,
    },
    /// Build an image of the environment now; the same as `image build`
    #[command(after_help = "Examples:\n  greenroom env build shop")]
    Build(BuildArguments),
    /// Open a terminal in a fresh sandbox of the environment; nothing in it is kept
    #[command(
        after_help = "Examples:\n  greenroom env shell shop\n  greenroom env shell shop --branch next\n  echo 'make test' | greenroom env shell shop\n\nIt begins like a session: with the image if there is one, at the newest commit, services running. It can fetch and not push. The exit status is the shell's."
    )]
    Shell {
        /// Repository in the forge
        repository: String,
        /// Branch to begin with; the default branch if absent
        #[arg(long)]
        branch: Option<String>,
    },
    /// Check a repository's own file, and tell what the server would cut of it
    #[command(
        after_help = "Examples:\n  greenroom env check\n  greenroom env check other.toml --json\n\nNames file, line and field of each error. Without a server only the file itself is checked, and that is said."
    )]
    Check {
        /// TOML file
        #[arg(default_value = ".greenroom/environment.toml")]
        file: PathBuf,
        /// Print JSON for programs
        #[arg(long)]
        json: bool,
    },
}

/// An image to be built.
#[derive(Debug, Clone, Args)]
pub struct BuildArguments {
    /// Repository in the forge
    pub repository: String,
    /// Take nothing over from the image before
    #[arg(long)]
    pub from_scratch: bool,
    /// Return at once; the build goes on
    #[arg(long)]
    pub no_wait: bool,
    /// Print the image as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// List the images of a repository, newest first
    #[command(after_help = "Examples:\n  greenroom image list shop\n  greenroom image list shop --json")]
    List {
        /// Repository in the forge
        repository: String,
        /// One image per line as JSON
        #[arg(long)]
        json: bool,
    },
    /// Build an image of the default branch now, and show its log
    #[command(
        after_help = "Examples:\n  greenroom image build shop\n  greenroom image build shop --from-scratch\n  greenroom image build shop --no-wait\n\nExit status: 0 if it was published. Ctrl-C leaves; the build goes on."
    )]
    Build(BuildArguments),
    /// Show an image: its commit, its steps, and why it failed
    #[command(after_help = "Examples:\n  greenroom image show img_…\n  greenroom image show img_… --json")]
    Show {
        /// Image, as `image list` shows it
        image: String,
        /// Print JSON for programs
        #[arg(long)]
        json: bool,
    },
    /// Put a published image into a registry, for other servers and other tools
    #[command(
        after_help = "Examples:\n  greenroom image push img_… ghcr.io/acme/shop:main\n\nThe login of a registry is the stored secret registry.HOST (registry.HOST_PORT), NAME:PASSWORD."
    )]
    Push {
        /// Image, as `image list` shows it
        image: String,
        /// [REGISTRY/]NAME[:TAG]
        reference: String,
    },
    /// Bring an image that a server pushed from a registry, and let sessions begin with it
    #[command(after_help = "Examples:\n  greenroom image pull shop ghcr.io/acme/shop:main")]
    Pull {
        /// Repository in the forge
        repository: String,
        /// [REGISTRY/]NAME[:TAG][@DIGEST]
        reference: String,
        /// Print the image as JSON
        #[arg(long)]
        json: bool,
    },
    /// Print what an environment's base must be to be this image of a registry
    #[command(
        after_help = "Examples:\n  greenroom image digest debian:12\n  greenroom image digest ghcr.io/acme/tools"
    )]
    Digest {
        /// [REGISTRY/]NAME[:TAG]
        reference: String,
    },
    /// Show the log of an image's build; of one that is being built, until its end
    #[command(after_help = "Examples:\n  greenroom image log img_…")]
    Log {
        /// Image, as `image list` shows it
        image: String,
    },
}

/// Which pull request.
#[derive(Debug, Clone, Args)]
pub struct PullRequestArgument {
    /// REPOSITORY#NUMBER, such as shop#1; quote it where # starts a comment
    #[arg(value_name = "REPOSITORY#NUMBER")]
    pub pull_request: String,
}

#[derive(Debug, Subcommand)]
pub enum PrCommand {
    /// List pull requests, newest first
    #[command(after_help = "Examples:\n  greenroom pr list\n  greenroom pr list --state merged --repo shop")]
    List {
        /// Only pull requests in this state
        #[arg(long, value_enum, default_value_t = StateFilter::Open)]
        state: StateFilter,
        /// Only pull requests of this repository
        #[arg(long, value_name = "NAME")]
        repo: Option<String>,
        /// One pull request per line as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show a pull request with its commits, reviews and comments
    #[command(after_help = "Examples:\n  greenroom pr show shop#1\n  greenroom pr show shop#1 --json")]
    Show {
        #[command(flatten)]
        which: PullRequestArgument,
        /// Print JSON for programs
        #[arg(long)]
        json: bool,
    },
    /// Print its changes as a unified diff
    #[command(after_help = "Examples:\n  greenroom pr diff shop#1\n  greenroom pr diff shop#1 | git apply")]
    Diff {
        #[command(flatten)]
        which: PullRequestArgument,
        /// Print JSON for programs
        #[arg(long)]
        json: bool,
    },
    /// Merge it
    #[command(
        after_help = "Examples:\n  greenroom pr merge shop#1\n  greenroom pr merge shop#1 --method squash --delete-branch"
    )]
    Merge {
        #[command(flatten)]
        which: PullRequestArgument,
        /// How history is written
        #[arg(long, value_enum, default_value_t = Method::Merge)]
        method: Method,
        /// Delete the head branch afterwards
        #[arg(long)]
        delete_branch: bool,
        /// Print JSON for programs
        #[arg(long)]
        json: bool,
    },
    /// Review it; nobody approves what they prompted
    #[command(
        after_help = "Examples:\n  greenroom pr review shop#1 --approve\n  greenroom pr review shop#1 --request-changes --body \"Please add a test.\""
    )]
    Review {
        #[command(flatten)]
        which: PullRequestArgument,
        /// It may be merged
        #[arg(long, group = "verdict")]
        approve: bool,
        /// It must change first
        #[arg(long, group = "verdict")]
        request_changes: bool,
        /// What you think; without a verdict this is a comment
        #[arg(long, default_value = "", required_unless_present = "verdict")]
        body: String,
        /// Print JSON for programs
        #[arg(long)]
        json: bool,
    },
}

/// Which pull requests to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StateFilter {
    Open,
    Merged,
    Closed,
    All,
}

/// How a merge writes history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Method {
    /// A merge commit
    Merge,
    /// One new commit
    Squash,
    /// Its commits on top of the base
    Rebase,
}

#[derive(Debug, Subcommand)]
pub enum SecretCommand {
    /// Store or replace a secret; the value is read from standard input
    #[command(
        after_help = "Examples:\n  greenroom secret set anthropic < key.txt\n  pass show anthropic | greenroom secret set anthropic"
    )]
    Set {
        /// Name to refer to it by, as in api_key_secret
        name: String,
    },
    /// List the names of stored secrets
    #[command(after_help = "Examples:\n  greenroom secret list")]
    List(JsonArguments),
    /// Forget a secret
    #[command(after_help = "Examples:\n  greenroom secret remove anthropic")]
    Remove {
        /// Name as `greenroom secret list` shows it
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check the configuration; names file, line and option of each error
    #[command(
        after_help = "Examples:\n  greenroom config check\n  greenroom config check --config ./greenroom.toml"
    )]
    Check(JsonArguments),
    /// Show every value and where it comes from
    #[command(after_help = "Examples:\n  greenroom config show\n  greenroom config show --json")]
    Show(JsonArguments),
    /// Explain every option
    #[command(after_help = "Examples:\n  greenroom config reference | less")]
    Reference,
}
