//! Arguments about people: who uses the server, who may do what in a session, who did what.

use super::JsonArguments;
use clap::{Args, Subcommand};

/// Members of a session.
#[derive(Debug, Args)]
pub struct MembersArguments {
    /// The session's id, or the end of it
    pub id: String,
    /// Make this person a member, or give a member another role
    #[arg(long, value_name = "PERSON")]
    pub add: Option<String>,
    /// What they may do; editor if absent
    #[arg(long, requires = "add", value_parser = ["viewer", "editor", "owner"])]
    pub role: Option<String>,
    /// This person is no member any more
    #[arg(long, value_name = "PERSON", conflicts_with = "add")]
    pub remove: Option<String>,
    /// What people of this server may do who are no members; members: nothing
    #[arg(long, value_parser = ["members", "viewer", "editor"])]
    pub everybody: Option<String>,
    /// Print JSON for programs
    #[arg(long)]
    pub json: bool,
}

/// Links into a session.
#[derive(Debug, Args)]
pub struct LinkArguments {
    /// The session's id, or the end of it
    pub id: String,
    /// For watching without signing in; otherwise an invitation
    #[arg(long, conflicts_with_all = ["role", "list", "revoke"])]
    pub share: bool,
    /// What those may do who come by it; viewer if absent
    #[arg(long, value_parser = ["viewer", "editor"], conflicts_with_all = ["list", "revoke"])]
    pub role: Option<String>,
    /// How long it lets somebody in; a week if absent
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=2160), conflicts_with_all = ["list", "revoke"])]
    pub hours: Option<u64>,
    /// List those there are
    #[arg(long)]
    pub list: bool,
    /// Make this link useless
    #[arg(long, value_name = "LINK", conflicts_with = "list")]
    pub revoke: Option<String>,
    /// Print JSON for programs
    #[arg(long)]
    pub json: bool,
}

/// Which audit entries.
#[derive(Debug, Args)]
pub struct AuditArguments {
    /// Only what this person did: an id, an address or a name
    #[arg(long, value_name = "PERSON")]
    pub person: Option<String>,
    /// Only what names this, such as a session's id or a repository
    #[arg(long, value_name = "TEXT")]
    pub about: Option<String>,
    /// Only entries older than this one
    #[arg(long, value_name = "ID")]
    pub before: Option<u64>,
    /// At most this many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
    pub limit: u32,
    /// One entry per line as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum PersonCommand {
    /// List everybody who may use this server
    #[command(after_help = "Examples:\n  greenroom person list\n  greenroom person list --json")]
    List(JsonArguments),
    /// Let somebody use this server; prints a link that signs them in once. For owners
    #[command(
        after_help = "Examples:\n  greenroom person add \"Ada Lovelace\" ada@example.com\n  greenroom person add Grace grace@example.com --owner"
    )]
    Add {
        /// Shown beside prompts and in commits
        name: String,
        /// In commits; nobody else's on this server
        email: String,
        /// Let them own this server too
        #[arg(long)]
        owner: bool,
        /// Print JSON for programs
        #[arg(long)]
        json: bool,
    },
    /// Print another link that signs somebody in once. For owners
    #[command(after_help = "Examples:\n  greenroom person sign-in-link ada@example.com")]
    SignInLink {
        /// An id, an address or a name
        person: String,
        /// Print JSON for programs
        #[arg(long)]
        json: bool,
    },
    /// Change somebody's name or address, or whether they own this server. For owners
    #[command(
        after_help = "Examples:\n  greenroom person set ada@example.com --owner true\n  greenroom person set ada@example.com --name \"Ada King\" --email ada.king@example.com"
    )]
    Set {
        /// An id, an address or a name
        person: String,
        /// Shown beside prompts and in commits from now on
        #[arg(long, required_unless_present_any = ["email", "owner"])]
        name: Option<String>,
        /// In commits from now on
        #[arg(long)]
        email: Option<String>,
        /// Whether they own this server
        #[arg(long, action = clap::ArgAction::Set)]
        owner: Option<bool>,
    },
    /// Somebody may no longer use this server: what they have open ends at once. For owners
    #[command(after_help = "Examples:\n  greenroom person remove ada@example.com")]
    Remove {
        /// An id, an address or a name
        person: String,
    },
}
