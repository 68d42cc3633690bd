//! The one table of options: name, variable, default, form and meaning. The parser, `config reference`, the
//! documentation and `config show` all follow it. Nothing is read here.

/// An option of the file, and of the environment unless it belongs to a provider.
#[derive(Debug, Clone, Copy)]
pub struct OptionSpec {
    pub section: &'static str,
    pub name: &'static str,
    /// Empty: only in the file.
    pub variable: &'static str,
    pub form: Form,
    /// As it would stand in the file; empty: unset.
    pub default: &'static str,
    pub meaning: &'static str,
}

impl OptionSpec {
    /// `section.option`.
    pub fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }
}

/// What a value must look like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Form {
    /// Text that is not empty.
    Text,
    /// `IP:PORT`.
    Address,
    /// A path; relative to the file it stands in, `~/` is the home directory.
    Path,
    /// `http://` or `https://` with a host, without credentials.
    Url,
    /// Texts of that form; in the environment separated by commas.
    UrlList,
    TextList,
    Integer {
        min: u64,
        max: u64,
    },
    /// May have a fraction.
    Number {
        min: f64,
        max: f64,
    },
    Choice(&'static [&'static str]),
    /// `provider/name`, or a name of the first provider with a key.
    Model,
}

/// Options outside of providers, in the order people read them.
pub const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        section: "server",
        name: "listen",
        variable: "GREENROOM_LISTEN",
        form: Form::Address,
        default: "127.0.0.1:7878",
        meaning: "Address and port to listen on; port 0 takes a free one.",
    },
    OptionSpec {
        section: "server",
        name: "data_dir",
        variable: "GREENROOM_DATA_DIR",
        form: Form::Path,
        default: "~/.local/share/greenroom",
        meaning: "Folder that holds everything the server keeps. One server at a time may use it.",
    },
    OptionSpec {
        section: "server",
        name: "public_url",
        variable: "GREENROOM_PUBLIC_URL",
        form: Form::Url,
        default: "",
        meaning: "Address people reach the server at, if it stands behind a proxy.",
    },
    OptionSpec {
        section: "server",
        name: "allowed_origins",
        variable: "GREENROOM_ALLOWED_ORIGINS",
        form: Form::UrlList,
        default: "",
        meaning: "Web origins besides the server's own that may send commands with a sign-in cookie.",
    },
    OptionSpec {
        section: "server",
        name: "session_access",
        variable: "GREENROOM_SESSION_ACCESS",
        form: Form::Choice(&["members", "viewer", "editor"]),
        default: "viewer",
        meaning: "What people of this server may do in a new session without being its members: nothing, watch, or work in it.",
    },
    OptionSpec {
        section: "server",
        name: "session_idle_seconds",
        variable: "GREENROOM_SESSION_IDLE_SECONDS",
        form: Form::Integer { min: 1, max: 604_800 },
        default: "300",
        meaning: "How long nothing is asked of a session whose sandbox does not run before it leaves memory. Whoever watches \
                  stays connected, and it wakes when something is asked.",
    },
    OptionSpec {
        section: "server",
        name: "audit_days",
        variable: "GREENROOM_AUDIT_DAYS",
        form: Form::Integer { min: 1, max: 3_650 },
        default: "400",
        meaning: "How long it is kept who did what.",
    },
    OptionSpec {
        section: "server",
        name: "archive_after_days",
        variable: "GREENROOM_ARCHIVE_AFTER_DAYS",
        form: Form::Number {
            min: 0.0,
            max: 36_500.0,
        },
        default: "0",
        meaning: "A session in which nothing happened for this long is archived: kept for reading, left out of lists, until its owner \
                  takes it back. 0: never.",
    },
    OptionSpec {
        section: "server",
        name: "delete_archived_after_days",
        variable: "GREENROOM_DELETE_ARCHIVED_AFTER_DAYS",
        form: Form::Number {
            min: 0.0,
            max: 36_500.0,
        },
        default: "0",
        meaning: "A session that was archived this long ago is deleted for good, with its sandbox and its snapshots. 0: never.",
    },
    OptionSpec {
        section: "models",
        name: "default",
        variable: "GREENROOM_MODEL",
        form: Form::Model,
        default: "",
        meaning: "Model of sessions that name none: provider/name. Unset: the first provider with a key or address, \
                  else the scripted demo model.",
    },
    OptionSpec {
        section: "sandbox",
        name: "state_dir",
        variable: "GREENROOM_SANDBOX_STATE_DIR",
        form: Form::Path,
        default: "",
        meaning: "Folder for the files of sandboxes, on a real disk (not an overlay). Unset: inside data_dir.",
    },
    OptionSpec {
        section: "sandbox",
        name: "memory_mb",
        variable: "GREENROOM_SANDBOX_MEMORY_MB",
        form: Form::Integer {
            min: 64,
            max: 1_048_576,
        },
        default: "2048",
        meaning: "Memory each sandbox may use, with swap, in MiB. This and the next six are what a sandbox gets whose \
                  environment asks for nothing, and the most that any environment can ask for.",
    },
    OptionSpec {
        section: "sandbox",
        name: "cpus",
        variable: "GREENROOM_SANDBOX_CPUS",
        form: Form::Number {
            min: 0.1,
            max: 1024.0,
        },
        default: "2",
        meaning: "Processors' worth of time each sandbox may use; fractions are fine.",
    },
    OptionSpec {
        section: "sandbox",
        name: "max_processes",
        variable: "GREENROOM_SANDBOX_MAX_PROCESSES",
        form: Form::Integer {
            min: 16,
            max: 100_000,
        },
        default: "1024",
        meaning: "Processes and threads each sandbox may have at once.",
    },
    OptionSpec {
        section: "sandbox",
        name: "disk_mb",
        variable: "GREENROOM_SANDBOX_DISK_MB",
        form: Form::Integer {
            min: 16,
            max: 16_777_216,
        },
        default: "10240",
        meaning: "What each sandbox's own files may take on disk, in MiB.",
    },
    OptionSpec {
        section: "sandbox",
        name: "max_open_files",
        variable: "GREENROOM_SANDBOX_MAX_OPEN_FILES",
        form: Form::Integer {
            min: 64,
            max: 1_048_576,
        },
        default: "65536",
        meaning: "Files each process of a sandbox may have open at once.",
    },
    OptionSpec {
        section: "sandbox",
        name: "wall_time_minutes",
        variable: "GREENROOM_SANDBOX_WALL_TIME_MINUTES",
        form: Form::Integer { min: 1, max: 525_600 },
        default: "1440",
        meaning: "How long one start of a sandbox may live, in minutes; its files stay for the next.",
    },
    OptionSpec {
        section: "sandbox",
        name: "max_output_mb",
        variable: "GREENROOM_SANDBOX_MAX_OUTPUT_MB",
        form: Form::Integer { min: 1, max: 4_096 },
        default: "64",
        meaning: "Output of one command before it is ended, in MiB.",
    },
    OptionSpec {
        section: "sandbox",
        name: "backends",
        variable: "GREENROOM_SANDBOX_BACKENDS",
        form: Form::TextList,
        default: "namespace, oci",
        meaning: "What may isolate sandboxes: namespace, oci, microvm. The first is used where an environment names none.",
    },
    OptionSpec {
        section: "sandbox",
        name: "runtimes",
        variable: "GREENROOM_SANDBOX_RUNTIMES",
        form: Form::TextList,
        default: "runsc, crun, runc, kata-runtime",
        meaning: "Programs that environments with the backend oci may name. They run on the host.",
    },
    OptionSpec {
        section: "sandbox",
        name: "microvm_kernel",
        variable: "GREENROOM_SANDBOX_MICROVM_KERNEL",
        form: Form::Path,
        default: "",
        meaning: "Guest kernel of the backend microvm: an uncompressed vmlinux with virtio-mmio, virtio-blk, virtio-vsock, \
                  ext4 and overlayfs built in. Unset: there are no virtual machines.",
    },
    OptionSpec {
        section: "sandbox",
        name: "firecracker",
        variable: "GREENROOM_SANDBOX_FIRECRACKER",
        form: Form::Path,
        default: "",
        meaning: "Firecracker's program. Unset: firecracker from PATH.",
    },
    OptionSpec {
        section: "sandbox",
        name: "idle_minutes",
        variable: "GREENROOM_SANDBOX_IDLE_MINUTES",
        form: Form::Number {
            min: 0.01,
            max: 525_600.0,
        },
        default: "30",
        meaning: "A sandbox whose session had no turn for this long is stopped, unless a command runs in it; its files \
                  stay and the next turn starts it again.",
    },
    OptionSpec {
        section: "sandbox",
        name: "still_seconds",
        variable: "GREENROOM_SANDBOX_STILL_SECONDS",
        form: Form::Number {
            min: 0.0,
            max: 31_536_000.0,
        },
        default: "60",
        meaning: "A sandbox that nobody has used for this long, neither a turn nor a person, stands still, its services too, \
                  unless a command of the agent runs in it; whoever uses it next finds it as it was. 0: sandboxes go on \
                  until they are stopped.",
    },
    OptionSpec {
        section: "sandbox",
        name: "max_running",
        variable: "GREENROOM_SANDBOX_MAX_RUNNING",
        form: Form::Integer { min: 1, max: 100_000 },
        default: "100",
        meaning: "Sandboxes that may run at once. One more stops the one that is idle the longest; if none is idle, its \
                  turn fails with `sandboxes_exhausted` and may be tried again.",
    },
    OptionSpec {
        section: "sandbox",
        name: "sync_timeout_seconds",
        variable: "GREENROOM_SANDBOX_SYNC_TIMEOUT_SECONDS",
        form: Form::Integer { min: 1, max: 3_600 },
        default: "300",
        meaning: "How long a tool that changes something waits until the workspace is at the newest commit. After that \
                  it fails, the model is told why, and the sync goes on.",
    },
    OptionSpec {
        section: "image",
        name: "schedule",
        variable: "GREENROOM_IMAGE_SCHEDULE",
        form: Form::Choice(&["on", "off"]),
        default: "on",
        meaning: "Whether images of environments with steps are built by themselves; off: only by hand.",
    },
    OptionSpec {
        section: "image",
        name: "max_builds",
        variable: "GREENROOM_IMAGE_MAX_BUILDS",
        form: Form::Integer { min: 1, max: 1_000 },
        default: "1",
        meaning: "Images that are built at once; one of a repository at a time.",
    },
    OptionSpec {
        section: "image",
        name: "disk_mb",
        variable: "GREENROOM_IMAGE_DISK_MB",
        form: Form::Integer {
            min: 16,
            max: 1_073_741_824,
        },
        default: "102400",
        meaning: "What all images may take on disk, in MiB, what they share once. Before another is built the oldest go that nothing begins with any more; where that is not enough, none is built.",
    },
    OptionSpec {
        section: "image",
        name: "layers",
        variable: "GREENROOM_IMAGE_LAYERS",
        form: Form::Choice(&["directories", "packed"]),
        default: "directories",
        meaning: "How layers of images and bases lie on disk. packed: each one file (EROFS), which has one inode and is removed at \
                  once, but makes a build wait until everything it wrote is packed; as root, with mkfs.erofs (erofs-utils), from \
                  Linux 6.12 on, else a warning says why not. What is there stays as it is.",
    },
    OptionSpec {
        section: "image",
        name: "registries",
        variable: "GREENROOM_IMAGE_REGISTRIES",
        form: Form::TextList,
        default: "docker.io, gcr.io, ghcr.io, mcr.microsoft.com, public.ecr.aws, quay.io, registry.access.redhat.com, \
                  registry.gitlab.com",
        meaning: "Registries, HOST or HOST:PORT, whose images a repository's own environment may name as its base. An \
                  administrator's may name any. A registry's login is the stored secret registry.HOST (registry.HOST_PORT), \
                  NAME:PASSWORD.",
    },
    OptionSpec {
        section: "snapshot",
        name: "keep",
        variable: "GREENROOM_SNAPSHOT_KEEP",
        form: Form::Integer { min: 0, max: 1_000 },
        default: "2",
        meaning: "Snapshots that are kept of each session, besides pinned ones. One is taken when a turn has changed something and \
                  before an idle sandbox is stopped; 0: none by itself.",
    },
    OptionSpec {
        section: "snapshot",
        name: "max_age_days",
        variable: "GREENROOM_SNAPSHOT_MAX_AGE_DAYS",
        form: Form::Integer { min: 1, max: 36_500 },
        default: "30",
        meaning: "Snapshots of sessions that are older are removed, unless they are pinned, in days.",
    },
    OptionSpec {
        section: "snapshot",
        name: "disk_mb",
        variable: "GREENROOM_SNAPSHOT_DISK_MB",
        form: Form::Integer {
            min: 0,
            max: 1_073_741_824,
        },
        default: "51200",
        meaning: "What snapshots of all sessions may take on disk, in MiB; at that the oldest are removed, unless they are pinned.",
    },
    OptionSpec {
        section: "snapshot",
        name: "max_sandbox_mb",
        variable: "GREENROOM_SNAPSHOT_MAX_SANDBOX_MB",
        form: Form::Integer {
            min: 0,
            max: 1_073_741_824,
        },
        default: "1024",
        meaning: "A sandbox that wrote more than this, in MiB, is not copied by itself. What it began with does not count.",
    },
    OptionSpec {
        section: "pool",
        name: "max_per_repository",
        variable: "GREENROOM_POOL_MAX_PER_REPOSITORY",
        form: Form::Integer { min: 0, max: 100 },
        default: "4",
        meaning: "Sandboxes of one repository that may wait in the warm pool, whatever its environment asks for; 0: none. All that \
                  wait count against sandbox.max_running, and make room for people's own.",
    },
    OptionSpec {
        section: "egress",
        name: "repositories",
        variable: "GREENROOM_EGRESS_REPOSITORIES",
        form: Form::Choice(&["none", "registries", "any"]),
        default: "registries",
        meaning: "What a repository's own environment may open of its sandboxes' way out: nothing, a preset of package \
                  registries, or any public host. An administrator's environment is not bound by this.",
    },
    OptionSpec {
        section: "egress",
        name: "allow_addresses",
        variable: "GREENROOM_EGRESS_ALLOW_ADDRESSES",
        form: Form::TextList,
        default: "",
        meaning: "Networks (10.0.0.0/8) and hosts (git.example.com, *.example.com) whose addresses are not refused for \
                  being private or loopback. They still need a rule. Metadata addresses are refused whatever stands here.",
    },
    OptionSpec {
        section: "egress",
        name: "ca_file",
        variable: "GREENROOM_EGRESS_CA_FILE",
        form: Form::Path,
        default: "",
        meaning: "PEM file of certificates that sandboxes and the egress proxy trust besides the machine's own.",
    },
    OptionSpec {
        section: "agent",
        name: "max_steps",
        variable: "GREENROOM_AGENT_MAX_STEPS",
        form: Form::Integer { min: 1, max: 10_000 },
        default: "100",
        meaning: "Model requests in one turn before it ends with an error.",
    },
    OptionSpec {
        section: "agent",
        name: "max_output_tokens",
        variable: "GREENROOM_AGENT_MAX_OUTPUT_TOKENS",
        form: Form::Integer {
            min: 256,
            max: 1_000_000,
        },
        default: "16384",
        meaning: "Tokens one model answer may have.",
    },
    OptionSpec {
        section: "log",
        name: "level",
        variable: "GREENROOM_LOG_LEVEL",
        form: Form::Text,
        default: "info",
        meaning: "error, warn, info, debug or trace, or a filter such as info,greenroom_agent=debug.",
    },
    OptionSpec {
        section: "log",
        name: "format",
        variable: "GREENROOM_LOG_FORMAT",
        form: Form::Choice(&["text", "json"]),
        default: "text",
        meaning: "Form of log lines on stderr.",
    },
];

/// Options of each `[[providers]]`.
pub const PROVIDER_OPTIONS: &[OptionSpec] = &[
    provider(
        "id",
        Form::Text,
        "",
        "First part of its models' ids; unique, without a slash. Required. The ids anthropic, openai and scripted \
          replace the built-in provider of that name.",
    ),
    provider(
        "kind",
        Form::Choice(&[
            "anthropic-messages",
            "openai-responses",
            "openai-chat",
            "scripted",
        ]),
        "",
        "How it is spoken to. Required. openai-chat fits Ollama, vLLM and llama-server.",
    ),
    provider(
        "base_url",
        Form::Url,
        "",
        "Its address, such as http://127.0.0.1:11434/v1. Unset: the address of the format's inventor.",
    ),
    provider(
        "api_key_env",
        Form::Text,
        "",
        "Environment variable of the server that holds the key.",
    ),
    provider(
        "api_key_secret",
        Form::Text,
        "",
        "Name of the stored secret that holds the key (greenroom secret set NAME).",
    ),
    provider(
        "models",
        Form::TextList,
        "",
        "Names of its models, best first. Required unless kind is scripted.",
    ),
    provider(
        "idle_timeout_seconds",
        Form::Integer { min: 1, max: 3_600 },
        "120",
        "Longest silence in an answer before it counts as broken.",
    ),
    provider(
        "max_attempts",
        Form::Integer { min: 1, max: 20 },
        "4",
        "How often a request is sent in all when nothing of the answer came yet.",
    ),
    provider(
        "script",
        Form::Path,
        "",
        "Script of a scripted provider. Unset: the built-in demo.",
    ),
];

/// Section of [`PROVIDER_OPTIONS`].
pub const PROVIDERS: &str = "providers";

const fn provider(
    name: &'static str,
    form: Form,
    default: &'static str,
    meaning: &'static str,
) -> OptionSpec {
    OptionSpec {
        section: PROVIDERS,
        name,
        variable: "",
        form,
        default,
        meaning,
    }
}

/// Variables that are read but are no options of the server.
pub const OTHER_VARIABLES: &[(&str, &str)] = &[
    ("GREENROOM_CONFIG", "The configuration file, like --config."),
    (
        "GREENROOM_SERVER",
        "Address of the server that client commands talk to, like --server.",
    ),
    ("GREENROOM_TOKEN", "API token that client commands sign in with."),
    ("ANTHROPIC_API_KEY", "Adds the provider anthropic."),
    (
        "ANTHROPIC_BASE_URL",
        "Another address for it; enough by itself for a server that wants no key.",
    ),
    ("OPENAI_API_KEY", "Adds the provider openai."),
    (
        "OPENAI_BASE_URL",
        "Another address for it, spoken to by Chat Completions; enough by itself, together with GREENROOM_MODEL, for a \
         local server that wants no key.",
    ),
    ("NO_COLOR", "Set to anything but nothing: no colours."),
    (
        "CLICOLOR_FORCE",
        "Set to anything but 0: colours even into a pipe.",
    ),
];
