//! `greenroom session …`.

use super::{LinkArguments, MembersArguments};
use clap::Subcommand;
use greenroom_protocol::id::SnapshotId;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub enum SessionCommand {
    /// List sessions, newest activity first
    #[command(
        after_help = "Examples:\n  greenroom session list\n  greenroom session list --repo shop --limit 5\n  greenroom session list --search \"failing test\"\n  greenroom session list --json | jq -r .id"
    )]
    List {
        /// Only sessions on this repository
        #[arg(long, value_name = "NAME")]
        repo: Option<String>,
        /// Only sessions with all these words in their title or in one of their prompts
        #[arg(long, value_name = "WORDS")]
        search: Option<String>,
        /// Only archived sessions
        #[arg(long, conflicts_with = "all")]
        archived: bool,
        /// Archived sessions too
        #[arg(long)]
        all: bool,
        /// At most this many
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=200))]
        limit: u32,
        /// One session per line as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show a session and what happened in it
    #[command(
        after_help = "Examples:\n  greenroom session show ses_…\n  greenroom session show ses_… --json"
    )]
    Show {
        /// The session's id, or the end of it
        id: String,
        /// One event per line as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what happened and stay with it; Ctrl-C leaves, the session goes on
    #[command(
        after_help = "Examples:\n  greenroom session follow ses_…\n  greenroom session follow ses_… --after 120 --json"
    )]
    Follow {
        /// The session's id, or the end of it
        id: String,
        /// Start behind this event
        #[arg(long, default_value_t = 0, value_name = "SEQ")]
        after: u64,
        /// One event per line as JSON
        #[arg(long)]
        json: bool,
    },
    /// Send another prompt; follows its turn unless --no-wait
    #[command(
        after_help = "Examples:\n  greenroom session prompt ses_… \"Also update the README\"\n  greenroom session prompt ses_… --insert \"Leave the tests alone\"\n  greenroom session prompt ses_… --image broken.png \"Mend this page\"\n  greenroom session prompt ses_… - --no-wait < more.md"
    )]
    Prompt {
        /// The session's id, or the end of it
        id: String,
        /// What to do, or - to read it from standard input
        prompt: String,
        /// An image to look at: PNG, JPEG, GIF or WebP, at most 5 MiB; can be given up to 8 times
        #[arg(long = "image", value_name = "FILE")]
        images: Vec<PathBuf>,
        /// Model of this prompt alone, which then has a turn of its own
        #[arg(long, value_name = "PROVIDER/NAME")]
        model: Option<String>,
        /// Tell it to the turn that runs, at its next step
        #[arg(long, conflicts_with = "model")]
        insert: bool,
        /// Let it wait for a turn of its own, whatever the session's default is
        #[arg(long, conflicts_with = "insert")]
        queue: bool,
        /// One event per line as JSON
        #[arg(long)]
        json: bool,
        /// Leave as soon as the prompt is accepted
        #[arg(long)]
        no_wait: bool,
    },
    /// Change a session's title, or when the agent is told its prompts
    #[command(
        after_help = "Examples:\n  greenroom session set ses_… --title \"Faster tests\"\n  greenroom session set ses_… --delivery insert",
        group = clap::ArgGroup::new("change").required(true).multiple(true)
    )]
    Set {
        /// The session's id, or the end of it
        id: String,
        /// One line
        #[arg(long, group = "change")]
        title: Option<String>,
        /// For prompts that do not say it: queue waits for a turn of its own, insert is told to the turn that runs
        #[arg(long, group = "change", value_parser = ["queue", "insert"])]
        delivery: Option<String>,
    },
    /// Print what a session changed as a unified diff: the files in its sandbox as they are now, or what was pushed if it does not run
    #[command(
        after_help = "Examples:\n  greenroom session diff ses_…\n  greenroom session diff ses_… --pushed | git apply"
    )]
    Diff {
        /// The session's id, or the end of it
        id: String,
        /// Only what reached the session's branches
        #[arg(long)]
        pushed: bool,
        /// Print JSON, as the API answers
        #[arg(long)]
        json: bool,
    },
    /// Write a session to one archive (.tar.gz) that any tool can read
    #[command(after_help = "Examples:
  greenroom session export ses_…
  greenroom session export ses_… --output review.tar.gz && tar -tzf review.tar.gz

In it: session.json, events.jsonl (all that happened), changes.patch (as `session diff` prints it), attachments/ (images of prompts), artifacts/ (files that the agent showed).")]
    Export {
        /// The session's id, or the end of it
        id: String,
        /// Where to; a file that does not exist yet [default: the id with .tar.gz]
        #[arg(long)]
        output: Option<PathBuf>,
        /// Print what was written as JSON
        #[arg(long)]
        json: bool,
    },
    /// Keep a session for reading only, its sandbox stopped, and leave it out of lists
    #[command(
        after_help = "Examples:\n  greenroom session archive ses_…\n  greenroom session list --archived\n\nFor its owner, while nothing runs or waits in it."
    )]
    Archive {
        /// The session's id, or the end of it
        id: String,
    },
    /// Let an archived session take prompts again; it goes on with the files it had
    #[command(after_help = "Examples:\n  greenroom session unarchive ses_…")]
    Unarchive {
        /// The session's id, or the end of it
        id: String,
    },
    /// Delete a session for good: its log, its sandbox and its snapshots. Branches and pull requests stay
    #[command(
        after_help = "Examples:\n  greenroom session delete ses_… --yes\n\nFor its owner, while nothing runs or waits in it."
    )]
    Delete {
        /// The session's id, or the end of it
        id: String,
        /// It does not come back
        #[arg(long)]
        yes: bool,
    },
    /// Show the prompts that wait, or change one of them
    #[command(
        after_help = "Examples:\n  greenroom session queue ses_…\n  greenroom session queue ses_… --edit prm_… \"Update the guide instead\"\n  greenroom session queue ses_… --first prm_…\n  greenroom session queue ses_… --insert prm_…\n  greenroom session queue ses_… --remove prm_…"
    )]
    Queue {
        /// The session's id, or the end of it
        id: String,
        /// Let this prompt say something else; - reads it from standard input
        #[arg(long, num_args = 2, value_names = ["PROMPT", "TEXT"])]
        edit: Option<Vec<String>>,
        /// Let this prompt run next
        #[arg(long, value_name = "PROMPT", conflicts_with = "edit")]
        first: Option<String>,
        /// Take this prompt out
        #[arg(long, value_name = "PROMPT", conflicts_with_all = ["edit", "first"])]
        remove: Option<String>,
        /// Tell this prompt to the turn that runs, at its next step
        #[arg(long, value_name = "PROMPT", conflicts_with_all = ["edit", "first", "remove"])]
        insert: Option<String>,
        /// Let what waits stay until --go-on
        #[arg(long, conflicts_with_all = ["edit", "first", "remove", "insert"])]
        pause: bool,
        /// Let what waits go on
        #[arg(long, conflicts_with_all = ["edit", "first", "remove", "insert", "pause"])]
        go_on: bool,
        /// The prompts as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the services of a session's sandbox, or what one of them wrote
    #[command(
        after_help = "Examples:\n  greenroom session services ses_…\n  greenroom session services ses_… --log db\n  greenroom session services ses_… --log db --follow"
    )]
    Services {
        /// The session's id, or the end of it
        id: String,
        /// Print what this service wrote instead
        #[arg(long, value_name = "SERVICE")]
        log: Option<String>,
        /// Stay with the log; Ctrl-C leaves
        #[arg(long, requires = "log")]
        follow: bool,
        /// Print JSON for programs
        #[arg(long, conflicts_with = "log")]
        json: bool,
    },
    /// List snapshots of a session's sandbox, take one, or remove one
    #[command(
        after_help = "Examples:\n  greenroom session snapshots ses_…\n  greenroom session snapshots ses_… --take\n  greenroom session snapshots ses_… --remove snp_…\n\nOne is taken by itself when a turn has changed something. One that you take stays until you remove it."
    )]
    Snapshots {
        /// The session's id, or the end of it
        id: String,
        /// Take one now; what runs goes on
        #[arg(long, conflicts_with = "remove")]
        take: bool,
        /// Remove this one
        #[arg(long, value_name = "SNAPSHOT")]
        remove: Option<String>,
        /// Put one into a registry, for other tools
        #[arg(long, num_args = 2, value_names = ["SNAPSHOT", "REFERENCE"], conflicts_with_all = ["take", "remove"])]
        push: Option<Vec<String>>,
        /// Print JSON for programs
        #[arg(long)]
        json: bool,
    },
    /// Begin new sessions with the files and the conversation of one, which goes on
    #[command(
        after_help = "Examples:\n  greenroom session fork ses_… \"Try it with a queue instead\"\n  greenroom session fork ses_… --count 3 \"Make the test suite faster\"\n  greenroom session fork ses_… --snapshot snp_…\n\nEach has a branch and a sandbox of its own. A single one with a prompt is followed unless --no-wait."
    )]
    Fork {
        /// The session's id, or the end of it
        id: String,
        /// First prompt of each, or - to read it from standard input; without it they wait for one
        prompt: Option<String>,
        /// An image to look at: PNG, JPEG, GIF or WebP, at most 5 MiB; can be given up to 8 times
        #[arg(long = "image", value_name = "FILE", requires = "prompt")]
        images: Vec<PathBuf>,
        /// How many
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8))]
        count: u32,
        /// Begin with this snapshot and what was said before it, not with what is there now
        #[arg(long)]
        snapshot: Option<SnapshotId>,
        /// Model of the new sessions; that of the session if absent
        #[arg(long, value_name = "PROVIDER/NAME")]
        model: Option<String>,
        /// Leave as soon as they are there
        #[arg(long)]
        no_wait: bool,
        /// Print JSON for programs
        #[arg(long)]
        json: bool,
    },
    /// Open a terminal in a session's sandbox, while it runs
    #[command(
        after_help = "Examples:\n  greenroom session shell ses_…\n  echo 'git status' | greenroom session shell ses_…\n\nWhat you change there is pushed with the session's next turn. The exit status is the shell's."
    )]
    Shell {
        /// The session's id, or the end of it
        id: String,
    },
    /// Show who may do what in a session, or change it
    #[command(
        after_help = "Examples:\n  greenroom session members ses_…\n  greenroom session members ses_… --add ada@example.com\n  greenroom session members ses_… --add ada@example.com --role viewer\n  greenroom session members ses_… --add ada@example.com --role owner\n  greenroom session members ses_… --everybody members\n  greenroom session members ses_… --remove ada@example.com\n\nTo make somebody the owner is to hand the session over; who owned it is an editor then."
    )]
    Members(MembersArguments),
    /// Make a link into a session: an invitation, or for watching without signing in
    #[command(
        after_help = "Examples:\n  greenroom session link ses_…\n  greenroom session link ses_… --role editor --hours 2\n  greenroom session link ses_… --share\n  greenroom session link ses_… --list\n  greenroom session link ses_… --revoke lnk_…\n\nThe link is shown this once."
    )]
    Link(LinkArguments),
    /// Become a member of a session by an invite link
    #[command(
        after_help = "Examples:\n  greenroom session join \"http://127.0.0.1:7878/join/ses_…#token=…\""
    )]
    Join {
        /// The whole address
        link: String,
    },
    /// Try again what a session was to do outside and gave up, such as opening its pull request
    #[command(after_help = "Examples:\n  greenroom session retry ses_…")]
    Retry {
        /// The session's id, or the end of it
        id: String,
    },
    /// Ask the running turn to stop
    #[command(
        after_help = "Examples:\n  greenroom session stop ses_…\n  greenroom session stop ses_… --pause-queue"
    )]
    Stop {
        /// The session's id, or the end of it
        id: String,
        /// Let the prompts that wait stay; otherwise the next one begins
        #[arg(long)]
        pause_queue: bool,
    },
}
