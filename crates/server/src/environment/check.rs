//! Checks an environment as a whole, all errors at once. What passes is a [`CheckedEnvironment`], and nobody checks again.
//! Pure; says nothing about what the operator allows.

mod repositories;

use greenroom_egress::{Policy, PolicyError};
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::environment::{
    Backend, Base, EgressCredential, EgressPolicy, Environment, Resources, Restart, ServiceDefinition,
};
use greenroom_protocol::guest::Route;
use greenroom_protocol::guest::service::{Readiness, RestartPolicy, Service};
use greenroom_protocol::reference::Reference;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::ops::RangeInclusive;
use thiserror::Error;

/// Who programs are unless an environment says otherwise.
const DEFAULT_USER: &str = "agent";

/// Entries of `egress.allow` and of `egress.credentials`.
const MAX_EGRESS_ENTRIES: usize = 500;
const MAX_SERVICES: usize = 32;
pub(super) const MAX_FEATURES: usize = 50;
/// Secrets of one step.
const MAX_SECRETS: usize = 50;
/// Patterns of one step's inputs.
const MAX_INPUTS: usize = 200;
/// Sandboxes of one repository that wait for people.
const MAX_POOL: u64 = 100;
const MAX_VARIABLES: usize = 200;
/// Longest value of a variable and longest command, in bytes.
const MAX_TEXT_BYTES: usize = 32 * 1024;
/// Ready timeouts, in seconds.
const READY_TIMEOUT: RangeInclusive<u64> = 1..=3_600;
const DEFAULT_READY_TIMEOUT_SECONDS: u64 = 60;

/// Ranges of the resources, in the units of their fields.
pub(super) const MEMORY_MB: RangeInclusive<u64> = 64..=1_048_576;
pub(super) const CPUS: RangeInclusive<f64> = 0.1..=1_024.0;
pub(super) const PROCESSES: RangeInclusive<u32> = 16..=100_000;
pub(super) const DISK_MB: RangeInclusive<u64> = 16..=16_777_216;
pub(super) const OPEN_FILES: RangeInclusive<u64> = 64..=1_048_576;
pub(super) const WALL_TIME_MINUTES: RangeInclusive<u64> = 1..=525_600;
pub(super) const OUTPUT_MB: RangeInclusive<u64> = 1..=4_096;

/// Variables that the platform sets; another value would break what it promises about git, paths and egress.
const RESERVED_VARIABLES: &[&str] = &[
    "HOME",
    "USER",
    "LOGNAME",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "GIT_TERMINAL_PROMPT",
    "GIT_CONFIG_SYSTEM",
    "GIT_CONFIG_NOSYSTEM",
];
/// Beginning of the names that are ours.
const RESERVED_PREFIX: &str = "GREENROOM_";

/// An environment without errors: unique names, right forms and ranges, a runtime only where it has a meaning.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CheckedEnvironment {
    written: Environment,
    base: Base,
    services: Vec<Service>,
}

impl CheckedEnvironment {
    /// Checks everything.
    ///
    /// # Errors
    /// Every fault there is, in the order of the fields; lines are for the reader of a text to fill in.
    pub fn new(written: Environment) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        repositories::check(&written.repositories, &mut faults);
        let base = check_base(&written, &mut faults);
        check_users(&written, &base, &mut faults);
        check_features(&written, &base, &mut faults);
        check_backend(&written, &mut faults);
        check_resources(&written.resources, &mut faults);
        check_egress(&written.egress, &mut faults);
        check_variables(&written.variables, &Path::of("variables"), &mut faults);
        check_services(&written.services, &mut faults);
        check_image(&written, &mut faults);
        if !faults.is_empty() {
            return Err(faults);
        }
        let services = written.services.iter().map(service).collect();
        Ok(Self {
            written,
            base,
            services,
        })
    }

    /// As it was written.
    pub fn written(&self) -> &Environment {
        &self.written
    }

    /// What lies below everything in its sandboxes.
    pub fn base(&self) -> &Base {
        &self.base
    }

    /// Its services as a guest takes them, in the order they were written; may be empty.
    pub fn services(&self) -> &[Service] {
        &self.services
    }
}

/// A place in an environment, such as `services[0].name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path(pub(super) Vec<Step>);

/// One step of a [`Path`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Field(String),
    Index(usize),
}

impl Path {
    fn of(field: &str) -> Self {
        Self(vec![Step::Field(field.to_owned())])
    }

    fn field(&self, field: &str) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Field(field.to_owned()));
        Self(steps)
    }

    fn index(&self, index: usize) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Index(index));
        Self(steps)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Field(name) if position == 0 => f.write_str(name)?,
                Step::Field(name) => write!(f, ".{name}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// One thing wrong with an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where; empty if it concerns the whole text.
    pub(super) path: Path,
    /// Line of the text it was read from, from 1; absent for JSON.
    pub line: Option<usize>,
    /// What is wrong, in words that follow the field's name.
    pub message: String,
    pub hint: Option<String>,
}

impl Fault {
    fn new(path: Path, message: impl Into<String>, hint: &str) -> Self {
        Self {
            path,
            line: None,
            message: message.into(),
            hint: Some(hint.to_owned()),
        }
    }

    /// `services[0].name`; empty if it concerns the whole text.
    pub fn field(&self) -> String {
        self.path.to_string()
    }
}

/// An environment that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{place} is not a valid environment")]
pub struct EnvironmentError {
    /// The file, or whose environment it is.
    pub place: String,
    /// Never empty.
    pub faults: Vec<Fault>,
}

impl EnvironmentError {
    /// `FILE:LINE: field: message` of each fault.
    pub fn lines(&self) -> impl Iterator<Item = (String, Option<&str>)> {
        self.faults.iter().map(|fault| {
            let mut text = self.place.clone();
            if let Some(line) = fault.line {
                text.push_str(&format!(":{line}"));
            }
            let field = fault.field();
            if !field.is_empty() {
                text.push_str(&format!(": {field}"));
            }
            (format!("{text}: {}", fault.message), fault.hint.as_deref())
        })
    }

    /// What a person is told: code `environment_invalid`, the first fault with its place, and how many more there are.
    pub fn problem(&self) -> Problem {
        let mut lines = self.lines();
        let (first, hint) = lines.next().unwrap_or_else(|| (self.to_string(), None));
        let more = match lines.count() {
            0 => String::new(),
            1 => " (and 1 more error)".to_owned(),
            count => format!(" (and {count} more errors)"),
        };
        let problem = Problem::permanent("environment_invalid", format!("{first}{more}."));
        problem.with_hint(hint.unwrap_or("See docs/environments.md for every field."))
    }
}

fn check_base(environment: &Environment, faults: &mut Vec<Fault>) -> Base {
    const HINT: &str = "Such as `oci:docker.io/library/debian:12@sha256:…`; `greenroom image digest NAME` prints the whole text.";
    let Some(text) = &environment.base else {
        return Base::default();
    };
    let path = Path::of("base");
    match text.parse() {
        Ok(base) if base != Base::Host && environment.backend == Some(Backend::Microvm) => {
            faults.push(Fault::new(
                path,
                "must be `host` with `backend = \"microvm\"`",
                "Virtual machines have the host's programs only. Name another backend, or leave the base out.",
            ));
            base
        }
        Ok(base) => base,
        Err(message) => {
            faults.push(Fault::new(path, message, HINT));
            Base::default()
        }
    }
}

/// Those who are not the agent.
fn check_users(environment: &Environment, base: &Base, faults: &mut Vec<Fault>) {
    const HINT: &str = "Name a base that is not the host's, and no other backend than namespace.";
    let is_possible = *base != Base::Host && matches!(environment.backend, None | Some(Backend::Namespace));
    if let Some(user) = &environment.user {
        let is_name = (1..=32).contains(&user.len())
            && user.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && user
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
        if !is_name {
            faults.push(Fault::new(
                Path::of("user"),
                "must be the name of a user",
                "Such as `root`, `node` or `vscode`.",
            ));
        } else if user != DEFAULT_USER && !is_possible {
            faults.push(Fault::new(
                Path::of("user"),
                "can only be `agent` in sandboxes with the host's programs, and with other backends",
                HINT,
            ));
        }
    }
    if environment.image.as_root == Some(true) && !is_possible {
        faults.push(Fault::new(
            Path::of("image").field("as_root"),
            "is not possible in sandboxes with the host's programs, and with other backends",
            HINT,
        ));
    }
}

fn check_features(environment: &Environment, base: &Base, faults: &mut Vec<Fault>) {
    let path = Path::of("features");
    check_count(environment.features.len(), MAX_FEATURES, &path, faults);
    if !environment.features.is_empty() && *base == Base::Host {
        faults.push(Fault::new(
            path.clone(),
            "cannot be installed in sandboxes with the host's programs",
            "Name a `base` that is not the host's.",
        ));
    }
    for (index, feature) in environment.features.iter().enumerate() {
        let path = path.index(index);
        let message = match feature.reference.parse::<Reference>() {
            Ok(reference) if reference.digest.is_some() => None,
            Ok(_) => Some("must name the feature's digest".to_owned()),
            Err(error) => Some(format!("is wrong: {error}")),
        };
        if let Some(message) = message {
            faults.push(Fault::new(
                path.field("reference"),
                message,
                "Such as `ghcr.io/devcontainers/features/node:1@sha256:…`; `greenroom image digest NAME` prints it.",
            ));
        }
        let is_fit = |(name, value): (&String, &String)| {
            (1..=100).contains(&name.len())
                && name.bytes().any(|byte| byte.is_ascii_alphabetic())
                && value.len() <= MAX_TEXT_BYTES
                && !value.contains('\0')
        };
        if feature.options.len() > MAX_VARIABLES || !feature.options.iter().all(is_fit) {
            faults.push(Fault::new(
                path.field("options"),
                "must be at most 200, with names of letters of at most 100 bytes and values of at most 32 KiB",
                "See the feature's own description.",
            ));
        }
    }
}

fn check_backend(environment: &Environment, faults: &mut Vec<Fault>) {
    let Some(runtime) = &environment.runtime else {
        return;
    };
    let path = Path::of("runtime");
    if environment.backend != Some(Backend::Oci) {
        faults.push(Fault::new(
            path,
            "has a meaning only with `backend = \"oci\"`",
            "Set the backend, or leave the runtime out.",
        ));
        return;
    }
    let is_fit = (1..=64).contains(&runtime.len())
        && runtime.starts_with(|first: char| first.is_ascii_alphanumeric())
        && runtime
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if !is_fit {
        faults.push(Fault::new(
            path,
            "must be the name of a program, not a path",
            "Such as runsc, crun or runc.",
        ));
    }
}

fn check_resources(resources: &Resources, faults: &mut Vec<Fault>) {
    fn check<T: PartialOrd + fmt::Display>(
        field: &str,
        value: Option<T>,
        range: RangeInclusive<T>,
        unit: &str,
        faults: &mut Vec<Fault>,
    ) {
        // Not a number is in no range.
        if value.is_some_and(|value| !range.contains(&value)) {
            faults.push(Fault::new(
                Path::of("resources").field(field),
                format!("must be from {} to {}{unit}", range.start(), range.end()),
                "Leave it out for the server's own value.",
            ));
        }
    }
    check("memory_mb", resources.memory_mb, MEMORY_MB, " MiB", faults);
    check("cpus", resources.cpus, CPUS, "", faults);
    check("max_processes", resources.max_processes, PROCESSES, "", faults);
    check("disk_mb", resources.disk_mb, DISK_MB, " MiB", faults);
    check("max_open_files", resources.max_open_files, OPEN_FILES, "", faults);
    check(
        "wall_time_minutes",
        resources.wall_time_minutes,
        WALL_TIME_MINUTES,
        " minutes",
        faults,
    );
    check(
        "max_output_mb",
        resources.max_output_mb,
        OUTPUT_MB,
        " MiB",
        faults,
    );
}

fn check_egress(egress: &EgressPolicy, faults: &mut Vec<Fault>) {
    let allow = Path::of("egress").field("allow");
    check_count(egress.allow.len(), MAX_EGRESS_ENTRIES, &allow, faults);
    for (index, entry) in egress.allow.iter().enumerate() {
        if let Err(message) = host_pattern(entry) {
            faults.push(Fault::new(
                allow.index(index),
                message,
                "Write `example.com`, `*.example.com` (any name below it) or `example.com:8443`.",
            ));
        }
    }
    let credentials = Path::of("egress").field("credentials");
    check_count(egress.credentials.len(), MAX_EGRESS_ENTRIES, &credentials, faults);
    let mut seen = HashSet::new();
    for (index, credential) in egress.credentials.iter().enumerate() {
        let path = credentials.index(index);
        check_credential(credential, &path, faults);
        let key = (
            credential.host.to_ascii_lowercase(),
            credential.header.to_ascii_lowercase(),
        );
        if !seen.insert(key) {
            faults.push(Fault::new(
                path.field("header"),
                "is set twice for this host",
                "Keep one of the two.",
            ));
        }
    }
}

fn check_credential(credential: &EgressCredential, path: &Path, faults: &mut Vec<Fault>) {
    if !is_credential_host(credential) {
        faults.push(Fault::new(
            path.field("host"),
            "must be one exact host name",
            "Such as `api.example.com`, without a port and without `*`.",
        ));
    }
    let header = credential.header.to_ascii_lowercase();
    // Those decide about the connection or the message, not about who asks.
    let is_refused = matches!(
        header.as_str(),
        "host"
            | "connection"
            | "content-length"
            | "transfer-encoding"
            | "upgrade"
            | "te"
            | "trailer"
            | "keep-alive"
            | "expect"
    ) || header.starts_with("proxy-");
    if http::HeaderName::from_bytes(header.as_bytes()).is_err() || is_refused {
        faults.push(Fault::new(
            path.field("header"),
            "cannot be set by the host",
            "Such as `authorization` or `x-api-key`.",
        ));
    }
    if !is_secret_name(&credential.secret) {
        faults.push(Fault::new(
            path.field("secret"),
            "is not the name of a secret",
            "Use 1 to 100 letters, digits, `_`, `-` and `.`; store it with `greenroom secret set NAME`.",
        ));
    }
    if let Some(format) = &credential.format {
        let is_fit = format.matches("{secret}").count() == 1
            && format.len() <= 1_024
            && format.bytes().all(|byte| (0x20..0x7f).contains(&byte));
        if !is_fit {
            faults.push(Fault::new(
                path.field("format"),
                "must hold `{secret}` once, on one line of ASCII",
                "Such as `Bearer {secret}`.",
            ));
        }
    }
}

/// Whether a secret may have this name.
pub fn is_secret_name(name: &str) -> bool {
    (1..=100).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
}

/// What the egress itself says about one rule.
fn host_pattern(entry: &str) -> Result<(), String> {
    let policy = EgressPolicy {
        allow: vec![entry.to_owned()],
        ..EgressPolicy::default()
    };
    match Policy::compile(&policy) {
        Ok(_) => Ok(()),
        Err(PolicyError::Rule { problem, .. }) => Err(format!("is not an egress rule: {problem}")),
        Err(error @ PolicyError::CredentialHost { .. }) => Err(error.to_string()),
    }
}

fn is_credential_host(credential: &EgressCredential) -> bool {
    let policy = EgressPolicy {
        credentials: vec![credential.clone()],
        ..EgressPolicy::default()
    };
    Policy::compile(&policy).is_ok()
}

fn check_variables(variables: &BTreeMap<String, String>, path: &Path, faults: &mut Vec<Fault>) {
    check_count(variables.len(), MAX_VARIABLES, path, faults);
    for (name, value) in variables {
        let place = path.field(name);
        let mut bytes = name.bytes();
        let is_name = name.len() <= 128
            && bytes
                .next()
                .is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
            && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let upper = name.to_ascii_uppercase();
        if !is_name {
            faults.push(Fault::new(
                place,
                "is no name of a variable",
                "Use letters, digits and `_`, and no digit in front.",
            ));
        } else if upper.starts_with(RESERVED_PREFIX) || RESERVED_VARIABLES.contains(&upper.as_str()) {
            faults.push(Fault::new(
                place,
                "is set by the platform",
                "Choose another name.",
            ));
        } else if value.len() > MAX_TEXT_BYTES || value.contains('\0') {
            faults.push(Fault::new(
                place,
                "must be at most 32 KiB without a NUL character",
                "Put long texts into a file of the repository.",
            ));
        }
    }
}

fn check_image(environment: &Environment, faults: &mut Vec<Fault>) {
    let steps = [
        ("setup", &environment.setup),
        ("build", &environment.build),
        ("warm", &environment.warm),
    ];
    for (name, step) in steps {
        let Some(step) = step else { continue };
        let path = Path::of(name);
        if step.run.trim().is_empty() || step.run.len() > MAX_TEXT_BYTES || step.run.contains('\0') {
            faults.push(Fault::new(
                path.field("run"),
                "must be a command, not empty and of at most 32 KiB",
                "Leave the step out, or put a long command into a script of the repository.",
            ));
        }
        let inputs = path.field("inputs");
        check_count(step.inputs.len(), MAX_INPUTS, &inputs, faults);
        for (index, pattern) in step.inputs.iter().enumerate() {
            let is_fit = (1..=1_024).contains(&pattern.len())
                && !pattern.starts_with([':', '/'])
                && !pattern.split('/').any(|part| part == "..")
                && !pattern.contains(['\0', '\n']);
            if !is_fit {
                faults.push(Fault::new(
                    inputs.index(index),
                    "must be a path or pattern below the repository's root",
                    "Such as `package.json`, `crates` or `**/Cargo.toml`.",
                ));
            }
        }
    }
    for (name, step) in steps {
        let names = step
            .as_ref()
            .map(|step| step.secrets.as_slice())
            .unwrap_or_default();
        let secrets = Path::of(name).field("secrets");
        check_count(names.len(), MAX_SECRETS, &secrets, faults);
        for (index, name) in names.iter().enumerate() {
            if !is_secret_name(name) {
                faults.push(Fault::new(
                    secrets.index(index),
                    "is not the name of a secret",
                    "Names are letters, digits, `_`, `-` and `.`; `greenroom secret list` shows them.",
                ));
            }
        }
    }
    let image = &environment.image;
    let pool = &environment.pool;
    let mut check = |path: Path, value: Option<u64>, range: RangeInclusive<u64>, unit: &str| {
        if value.is_some_and(|value| !range.contains(&value)) {
            faults.push(Fault::new(
                path,
                format!("must be from {} to {}{unit}", range.start(), range.end()),
                "Leave it out for the default.",
            ));
        }
    };
    let of_image = |field| Path::of("image").field(field);
    let of_pool = |field| Path::of("pool").field(field);
    check(
        of_image("rebuild_minutes"),
        image.rebuild_minutes,
        1..=525_600,
        " minutes",
    );
    check(
        of_image("max_age_hours"),
        image.max_age_hours,
        1..=8_760,
        " hours",
    );
    check(
        of_image("step_timeout_minutes"),
        image.step_timeout_minutes,
        1..=1_440,
        " minutes",
    );
    check(of_pool("minimum"), pool.minimum.map(u64::from), 0..=MAX_POOL, "");
    check(of_pool("maximum"), pool.maximum.map(u64::from), 0..=MAX_POOL, "");
    check(of_pool("ttl_minutes"), pool.ttl_minutes, 1..=10_080, " minutes");
    if pool.minimum.unwrap_or(0) > pool.maximum.unwrap_or(pool.minimum.unwrap_or(0)) {
        faults.push(Fault::new(
            of_pool("minimum"),
            "must not be above `pool.maximum`",
            "Raise the maximum, or lower the minimum.",
        ));
    }
}

fn check_services(services: &[ServiceDefinition], faults: &mut Vec<Fault>) {
    let all = Path::of("services");
    check_count(services.len(), MAX_SERVICES, &all, faults);
    let mut names = HashSet::new();
    for (index, service) in services.iter().enumerate() {
        let path = all.index(index);
        let name = &service.name;
        let is_name = (1..=63).contains(&name.len())
            && name.starts_with(|first: char| first.is_ascii_lowercase())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if !is_name {
            faults.push(Fault::new(
                path.field("name"),
                "must be 1 to 63 of a-z, 0-9 and `-`, beginning with a letter",
                "Such as `db`.",
            ));
        } else if !names.insert(name.as_str()) {
            faults.push(Fault::new(
                path.field("name"),
                format!("`{name}` is used twice"),
                "Names of services are unique.",
            ));
        }
        let texts = [
            ("command", Some(&service.command)),
            ("before", service.before.as_ref()),
            ("cwd", service.cwd.as_ref()),
            ("ready_command", service.ready_command.as_ref()),
            ("ready_output", service.ready_output.as_ref()),
        ];
        for (field, text) in texts {
            if text.is_some_and(|text| {
                text.trim().is_empty() || text.len() > MAX_TEXT_BYTES || text.contains('\0')
            }) {
                faults.push(Fault::new(
                    path.field(field),
                    "must be a text of at most 32 KiB that is not empty",
                    "Leave it out if nothing should happen.",
                ));
            }
        }
        check_readiness(service, &path, faults);
        check_variables(&service.variables, &path.field("variables"), faults);
    }
}

fn check_readiness(service: &ServiceDefinition, path: &Path, faults: &mut Vec<Fault>) {
    let given: Vec<_> = [
        ("ready_port", service.ready_port.is_some()),
        ("ready_command", service.ready_command.is_some()),
        ("ready_output", service.ready_output.is_some()),
    ]
    .into_iter()
    .filter_map(|(field, is_given)| is_given.then_some(field))
    .collect();
    if let [_, second, ..] = given[..] {
        faults.push(Fault::new(
            path.field(second),
            format!("cannot be set together with {}", given[0]),
            "A service is ready by at most one of ready_port, ready_command and ready_output.",
        ));
    }
    if let Some(port) = service.ready_port
        && (port == 0 || Route::PORTS.iter().any(|(_, ours)| *ours == port))
    {
        faults.push(Fault::new(
            path.field("ready_port"),
            "is no port that a service can listen on",
            "Ports 7418 to 7420 of a sandbox are the platform's.",
        ));
    }
    if service
        .ready_timeout_seconds
        .is_some_and(|seconds| !READY_TIMEOUT.contains(&seconds))
    {
        faults.push(Fault::new(
            path.field("ready_timeout_seconds"),
            format!(
                "must be from {} to {} seconds",
                READY_TIMEOUT.start(),
                READY_TIMEOUT.end()
            ),
            "Leave it out for 60 seconds.",
        ));
    }
}

fn check_count(count: usize, most: usize, path: &Path, faults: &mut Vec<Fault>) {
    if count > most {
        faults.push(Fault::new(
            path.clone(),
            format!("has {count} entries; {most} are the most"),
            "Leave some out.",
        ));
    }
}

/// A checked definition as a guest takes it.
fn service(definition: &ServiceDefinition) -> Service {
    let shell = |script: &String| ["sh", "-c", script].map(ToOwned::to_owned).to_vec();
    let ready = if let Some(port) = definition.ready_port {
        Readiness::Port { port }
    } else if let Some(script) = &definition.ready_command {
        Readiness::Command { argv: shell(script) }
    } else if let Some(text) = &definition.ready_output {
        Readiness::Output { text: text.clone() }
    } else {
        Readiness::Started
    };
    Service {
        name: definition.name.clone(),
        argv: shell(&definition.command),
        cwd: definition.cwd.clone().unwrap_or_default(),
        env: definition
            .variables
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
        before: definition.before.as_ref().map(shell).unwrap_or_default(),
        ready,
        ready_timeout_ms: definition
            .ready_timeout_seconds
            .unwrap_or(DEFAULT_READY_TIMEOUT_SECONDS)
            .saturating_mul(1000),
        restart: match definition.restart {
            Restart::Never => RestartPolicy::Never,
            Restart::OnFailure => RestartPolicy::OnFailure,
            Restart::Always => RestartPolicy::Always,
        },
    }
}
