//! What the sandboxes of a repository are made of and may do. Written as `.greenroom/environment.toml` in the repository,
//! or set for it by an administrator; the one type for both. Checked where it is parsed, not here.

use crate::reference::Reference;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// An environment. Every part may be left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Environment {
    /// Repositories that sandboxes have beside the one whose environment it is, which is the primary one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub repositories: Vec<RepositoryDefinition>,
    /// What the sandbox's root is: `host`, the server's own programs (the default); `oci:REFERENCE@DIGEST`, an image of a registry; or
    /// `rootfs:/PATH`, a directory or an archive on the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// A user of the base, as whom programs find themselves: name, home directory, and for `root` the number 0. Unset: `agent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// What isolates the sandbox. Unset: the first that the server's operator allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<Backend>,
    /// Program of an OCI runtime, such as `runsc`; only with the backend `oci`. Unset: the first found of runsc, crun, runc.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    pub resources: Resources,
    pub egress: EgressPolicy,
    /// Environment variables of everything that runs in the sandbox. No secrets.
    pub variables: BTreeMap<String, String>,
    /// Processes that run beside the agent. Names are unique.
    pub services: Vec<ServiceDefinition>,
    /// Dev container features, installed in this order when an image is built, before `setup`. They run as root.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<FeatureDefinition>,
    /// Installs what the repository needs, when an image is built.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub setup: Option<StepDefinition>,
    /// Builds the repository, when an image is built; after `setup`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build: Option<StepDefinition>,
    /// Runs the application and its tests once, so that caches are warm; after `build`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warm: Option<StepDefinition>,
    pub image: ImageSettings,
    pub pool: PoolSettings,
}

/// Another repository of this server that sandboxes have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RepositoryDefinition {
    pub name: String,
    /// Work begins at its head, and pull requests go to it. Unset: the repository's default branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Directory in the workspace where it is checked out. Unset: the repository's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

impl RepositoryDefinition {
    /// Where it is checked out, relative to the workspace.
    pub fn path(&self) -> &str {
        self.path.as_deref().unwrap_or(&self.name)
    }
}

/// What lies below everything in a sandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum Base {
    /// The server's own programs, and little else.
    #[default]
    Host,
    /// An image of a registry; it has a digest.
    Image(Reference),
    /// A directory or an archive on the server; absolute.
    Files(PathBuf),
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Image(reference) => write!(f, "oci:{reference}"),
            Self::Files(path) => write!(f, "rootfs:{}", path.display()),
        }
    }
}

impl Base {
    /// Whether two are the same but for their version: then what was built over the one serves until something is built over the
    /// other.
    pub fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Image(one), Self::Image(other)) => {
                (&one.registry, &one.repository) == (&other.registry, &other.repository)
            }
            _ => self == other,
        }
    }
}

impl FromStr for Base {
    type Err = String;

    /// What is wrong, in words that follow the field's name.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "host" {
            return Ok(Self::Host);
        }
        if let Some(path) = text.strip_prefix("rootfs:") {
            let is_plain =
                path.starts_with('/') && !path.contains('\0') && !path.split('/').any(|part| part == "..");
            return match is_plain {
                true => Ok(Self::Files(path.into())),
                false => Err("must name an absolute path without `..`".to_owned()),
            };
        }
        let Some(reference) = text.strip_prefix("oci:") else {
            return Err("must be `host`, `oci:REFERENCE@DIGEST` or `rootfs:/PATH`".to_owned());
        };
        let reference: Reference = reference.parse().map_err(|error| format!("is wrong: {error}"))?;
        match reference.digest {
            Some(_) => Ok(Self::Image(reference)),
            None => {
                Err("must name the image's digest, because what a name means can change any day".to_owned())
            }
        }
    }
}

/// A command of an image build: a text, or a table with more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StepDefinition {
    /// Run by `sh -c` in the workspace; must exit with 0.
    pub run: String,
    /// Files it depends on, as git path patterns such as `package.json` or `**/Cargo.toml`; it is run again only when one of
    /// them changed. Empty: for `setup` the usual files that list dependencies, for the others every file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<String>,
    /// Stored secrets that it finds as files `/run/secrets/NAME`, in memory and as long as it runs. Only an administrator may name
    /// them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
}

impl<'de> Deserialize<'de> for StepDefinition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            run: String,
            #[serde(default)]
            inputs: Vec<String>,
            #[serde(default)]
            secrets: Vec<String>,
        }

        struct TextOrTable;

        impl<'de> Visitor<'de> for TextOrTable {
            type Value = StepDefinition;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a command, or a table with `run`, `inputs` and `secrets`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<StepDefinition, E> {
                Ok(StepDefinition {
                    run: text.to_owned(),
                    inputs: Vec::new(),
                    secrets: Vec::new(),
                })
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<StepDefinition, A::Error> {
                let table = Table::deserialize(de::value::MapAccessDeserializer::new(map))?;
                let Table { run, inputs, secrets } = table;
                Ok(StepDefinition { run, inputs, secrets })
            }
        }

        deserializer.deserialize_any(TextOrTable)
    }
}

/// A dev container feature (<https://containers.dev/implementors/features/>).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FeatureDefinition {
    /// Its artifact in a registry, with a digest: `ghcr.io/devcontainers/features/node:1@sha256:…`.
    pub reference: String,
    /// As its own description names them. What is left out has its default.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

/// When and how images of the environment are built. What is left out is the server's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ImageSettings {
    /// Whether the steps run as root, whoever `user` is. Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub as_root: Option<bool>,
    /// At least this long between two builds by themselves, in minutes. Default 30.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rebuild_minutes: Option<u64>,
    /// After this long an image is built from nothing, not from the one before, in hours. Default 168, a week.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age_hours: Option<u64>,
    /// Time for each step, in minutes. Default 30.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_timeout_minutes: Option<u64>,
}

/// Sandboxes that are started before anybody asks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct PoolSettings {
    /// As few as wait when nobody comes. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum: Option<u32>,
    /// As many as wait when many come. Default 0: none is started ahead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maximum: Option<u32>,
    /// One that waited for so long is replaced, in minutes. Default 60.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_minutes: Option<u64>,
}

/// What isolates a sandbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// Linux namespaces, system call filter and Landlock on the host's kernel.
    #[default]
    Namespace,
    /// Any OCI runtime: crun, runc, runsc (gVisor), kata.
    Oci,
    /// A virtual machine by Firecracker.
    Microvm,
}

/// What one sandbox may use. What is left out is the server's default; nothing exceeds the server's own maximum.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Resources {
    /// Memory with swap, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u64>,
    /// Processors' worth of time; fractions are fine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<f64>,
    /// Processes and threads at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_processes: Option<u32>,
    /// What the sandbox may write to its disk, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_mb: Option<u64>,
    /// Open files per process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_open_files: Option<u64>,
    /// Life of one start of the sandbox, in minutes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wall_time_minutes: Option<u64>,
    /// Output of one command, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_output_mb: Option<u64>,
}

/// Where a sandbox may connect to. Nothing by default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct EgressPolicy {
    pub preset: EgressPreset,
    /// Hosts allowed besides the preset: `example.com`, `*.example.com` (any name below, not itself), each with an optional
    /// `:port`; without one 80 and 443.
    pub allow: Vec<String>,
    /// Headers that the host adds to requests for named hosts, without the sandbox seeing them. Only an administrator may
    /// set them.
    pub credentials: Vec<EgressCredential>,
}

/// A set of allowed hosts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum EgressPreset {
    /// Only what `allow` names.
    #[default]
    None,
    /// The public registries of common package managers.
    PackageRegistries,
}

/// A header added to requests for one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct EgressCredential {
    /// Exact host name; allowed by this, on port 443.
    pub host: String,
    /// Header name, such as `authorization`.
    pub header: String,
    /// Name of a stored secret.
    pub secret: String,
    /// Value with `{secret}` in it; unset: the secret alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
}

/// A service as people write it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ServiceDefinition {
    /// 1 to 63 of `a-z0-9-`, beginning with a letter.
    pub name: String,
    /// Run by `sh -c`.
    pub command: String,
    /// Run by `sh -c` to its end before each start, such as making a database's files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    #[serde(default)]
    pub variables: BTreeMap<String, String>,
    /// Ready when this loopback port accepts connections. At most one of the three.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_port: Option<u16>,
    /// Ready when this, run by `sh -c`, exits with 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_command: Option<String>,
    /// Ready when a line of its output contains this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_output: Option<String>,
    /// Default 60.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_timeout_seconds: Option<u64>,
    #[serde(default)]
    pub restart: Restart,
}

/// When a service that ended is started again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    Never,
    #[default]
    OnFailure,
    Always,
}
