//! Understands a `devcontainer.json` (<https://containers.dev/implementors/json_reference/>) as an environment. Pure. What an environment
//! cannot be without is an error; what else is not supported is named in a notice.

use super::MAX_ENVIRONMENT_BYTES;
use super::check::{EnvironmentError, Fault, Path, Step};
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::environment::{
    EgressPreset, Environment, FeatureDefinition, Restart, ServiceDefinition, StepDefinition,
};
use greenroom_protocol::guest::WORKSPACE_PATH;
use jsonc_parser::ast::{Object, Value};
use jsonc_parser::common::Ranged as _;
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};

/// Where repositories keep one, the first that is found.
pub const DEVCONTAINER_FILES: [&str; 2] = [".devcontainer/devcontainer.json", ".devcontainer.json"];

/// Name of the service that `postStartCommand` becomes.
const POST_START: &str = "post-start";

/// Properties that say nothing about the sandbox.
const WITHOUT_MEANING: &[&str] = &[
    "$schema",
    "name",
    "shutdownAction",
    "waitFor",
    "init",
    "updateRemoteUserUID",
    "userEnvProbe",
];

/// Properties that an environment cannot go without, and what to do.
const REFUSED: &[(&str, &str)] = &[
    (
        "build",
        "Name an image that was built from the Dockerfile, or write what it does as `onCreateCommand`.",
    ),
    (
        "dockerFile",
        "Name an image that was built from it, or write what it does as `onCreateCommand`.",
    ),
    (
        "dockerComposeFile",
        "Name an image, and write other containers as services of `.greenroom/environment.toml`.",
    ),
];

/// What a `devcontainer.json` comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct DevContainer {
    /// Its base and its features need no digest yet.
    pub environment: Environment,
    /// What is not supported; in the order of the text.
    pub notices: Vec<Problem>,
    /// Its properties, and in which line each stands.
    lines: Vec<(String, usize)>,
}

/// Which properties a field of an environment is made of.
const ORIGINS: &[(&str, &[&str])] = &[
    ("base", &["image"]),
    ("user", &["remoteUser", "containerUser"]),
    ("setup", &["onCreateCommand"]),
    ("build", &["updateContentCommand"]),
    ("warm", &["postCreateCommand"]),
    ("services", &["postStartCommand"]),
    ("variables", &["containerEnv", "remoteEnv"]),
    ("resources", &["hostRequirements"]),
    ("features", &["features"]),
];

impl DevContainer {
    /// What is wrong with the environment, said of the property that it comes from.
    pub(super) fn relate(&self, mut faults: Vec<Fault>) -> Vec<Fault> {
        for fault in &mut faults {
            let Some(Step::Field(name)) = fault.path.0.first() else {
                continue;
            };
            let origins = ORIGINS.iter().find(|(field, _)| field == name);
            let found = origins.and_then(|(_, origins)| {
                self.lines
                    .iter()
                    .find(|(property, _)| origins.contains(&property.as_str()))
            });
            if let Some((property, line)) = found {
                fault.path.0[0] = Step::Field(property.clone());
                fault.line = Some(*line);
            }
        }
        faults
    }
}

/// Reads the text; `place` is how people call it.
///
/// # Errors
/// Everything that is wrong, with its line.
pub fn read_devcontainer(place: &str, text: &[u8]) -> Result<DevContainer, EnvironmentError> {
    let refuse = |faults| EnvironmentError {
        place: place.to_owned(),
        faults,
    };
    let whole = |line, message: String| {
        let hint = "See docs/environments.md for what is understood.".to_owned();
        refuse(vec![Fault {
            path: Path(Vec::new()),
            line,
            message,
            hint: Some(hint),
        }])
    };
    if text.len() as u64 > MAX_ENVIRONMENT_BYTES {
        return Err(whole(
            None,
            format!("is larger than {} KiB", MAX_ENVIRONMENT_BYTES / 1024),
        ));
    }
    let text = std::str::from_utf8(text).map_err(|_| whole(None, "is not UTF-8".to_owned()))?;
    let text = text.trim_start_matches('\u{feff}');
    let options = ParseOptions {
        allow_loose_object_property_names: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        ..ParseOptions::default()
    };
    let parsed = parse_to_ast(text, &CollectOptions::default(), &options)
        .map_err(|error| whole(Some(error.line_display()), error.kind().to_string()))?;
    let Some(Value::Object(object)) = parsed.value else {
        return Err(whole(Some(1), "is not an object in braces".to_owned()));
    };
    let mut reader = Reader {
        place,
        text,
        environment: Environment::default(),
        notices: Vec::new(),
        lines: Vec::new(),
        faults: Vec::new(),
    };
    reader.read(&object);
    match reader.faults.is_empty() {
        true => Ok(DevContainer {
            environment: reader.environment,
            notices: reader.notices,
            lines: reader.lines,
        }),
        false => Err(refuse(reader.faults)),
    }
}

struct Reader<'a> {
    place: &'a str,
    text: &'a str,
    environment: Environment,
    notices: Vec<Problem>,
    lines: Vec<(String, usize)>,
    faults: Vec<Fault>,
}

impl Reader<'_> {
    fn read(&mut self, object: &Object<'_>) {
        for property in &object.properties {
            let (name, value) = (property.name.as_str(), &property.value);
            self.lines.push((name.to_owned(), self.line(value)));
            match name {
                "image" => {
                    self.environment.base = self.string(name, value).map(|image| format!("oci:{image}"))
                }
                "features" => self.features(value),
                "onCreateCommand" => self.environment.setup = self.step(name, value),
                "updateContentCommand" => self.environment.build = self.step(name, value),
                "postCreateCommand" => self.environment.warm = self.step(name, value),
                "postStartCommand" => self.post_start(name, value),
                "containerEnv" | "remoteEnv" => self.variables(name, value),
                "remoteUser" => self.environment.user = self.string(name, value),
                // The remote user counts, whichever stands first.
                "containerUser" if object.get("remoteUser").is_none() => {
                    self.environment.user = self.string(name, value);
                }
                "containerUser" => {}
                "hostRequirements" => self.requirements(value),
                "workspaceFolder" if self.is_text(value, WORKSPACE_PATH) => {}
                "forwardPorts" | "portsAttributes" | "otherPortsAttributes" => self.notice(
                    name,
                    "has no effect: programs in the sandbox reach every port of it, and none is opened to the outside yet",
                ),
                "customizations" => self.notice(name, "is for editors and is not used"),
                _ if WITHOUT_MEANING.contains(&name) => {}
                _ => match REFUSED.iter().find(|(refused, _)| *refused == name) {
                    Some((_, hint)) => self.fault(name, value, "is not supported", hint),
                    None => self.notice(name, "is not supported and is not used"),
                },
            }
        }
        if self.environment.base.is_none() && self.faults.is_empty() {
            self.faults.push(Fault {
                path: field("image"),
                line: Some(1),
                message: "is missing".to_owned(),
                hint: Some(
                    "Name an image of a registry, such as mcr.microsoft.com/devcontainers/base:debian."
                        .to_owned(),
                ),
            });
        }
        // Dev containers have the whole network; this much of it the operator may grant.
        self.environment.egress.preset = EgressPreset::PackageRegistries;
        // As in a container while it is made; what it leaves belongs to the one user there is.
        self.environment.image.as_root = Some(true);
    }

    /// A text without anything that other tools would put in for it.
    fn string(&mut self, name: &str, value: &Value<'_>) -> Option<String> {
        let Value::StringLit(text) = value else {
            self.fault(name, value, "must be a text", "Write it in double quotes.");
            return None;
        };
        let known = text.value.replace("${containerWorkspaceFolder}", WORKSPACE_PATH);
        let known = known.replace(
            "${containerWorkspaceFolderBasename}",
            WORKSPACE_PATH.trim_start_matches('/'),
        );
        if known.contains("${localEnv:") || known.contains("${localWorkspaceFolder") {
            self.fault(
                name,
                value,
                "uses a variable of the machine that an editor runs on",
                "There is no such machine. Write the value itself, or leave it out.",
            );
            return None;
        }
        Some(known)
    }

    fn is_text(&self, value: &Value<'_>, expected: &str) -> bool {
        matches!(value, Value::StringLit(text) if text.value == expected)
    }

    /// A command as a script of `sh`.
    fn command(&mut self, name: &str, value: &Value<'_>) -> Option<String> {
        match value {
            Value::StringLit(_) => self.string(name, value),
            Value::Array(array) => {
                let words: Vec<_> = array
                    .elements
                    .iter()
                    .filter_map(|word| self.string(name, word))
                    .collect();
                Some(
                    words
                        .iter()
                        .map(|word| quoted(word))
                        .collect::<Vec<_>>()
                        .join(" "),
                )
            }
            Value::Object(object) => {
                // Side by side elsewhere; one after the other they do the same.
                let commands: Vec<_> = object
                    .properties
                    .iter()
                    .filter_map(|property| self.command(name, &property.value))
                    .map(|command| format!("(\n{command}\n)"))
                    .collect();
                Some(commands.join(" &&\n"))
            }
            Value::NullKeyword(_) => None,
            _ => {
                self.fault(
                    name,
                    value,
                    "must be a command",
                    "Write a text, a list of words, or an object of commands.",
                );
                None
            }
        }
        .filter(|command| !command.trim().is_empty())
    }

    fn step(&mut self, name: &str, value: &Value<'_>) -> Option<StepDefinition> {
        self.command(name, value).map(|run| StepDefinition {
            run,
            inputs: Vec::new(),
            secrets: Vec::new(),
        })
    }

    fn post_start(&mut self, name: &str, value: &Value<'_>) {
        if let Some(command) = self.command(name, value) {
            self.environment.services.push(ServiceDefinition {
                name: POST_START.to_owned(),
                command,
                before: None,
                cwd: None,
                variables: Default::default(),
                ready_port: None,
                ready_command: None,
                ready_output: None,
                ready_timeout_seconds: None,
                restart: Restart::Never,
            });
        }
    }

    fn variables(&mut self, name: &str, value: &Value<'_>) {
        let Value::Object(object) = value else {
            return self.fault(name, value, "must be an object", "Such as {\"NAME\": \"value\"}.");
        };
        for property in &object.properties {
            let variable = property.name.as_str();
            let path = format!("{name}.{variable}");
            match &property.value {
                // Takes a variable away; there it is not set anyway.
                Value::NullKeyword(_) => {}
                Value::StringLit(text) if text.value.contains("${containerEnv:") => {
                    self.notice(
                        &path,
                        "builds on a variable of the image, which is not supported; it is not set",
                    );
                }
                value => {
                    if let Some(text) = self.string(&path, value) {
                        self.environment.variables.insert(variable.to_owned(), text);
                    }
                }
            }
        }
    }

    fn features(&mut self, value: &Value<'_>) {
        let Value::Object(object) = value else {
            return self.fault(
                "features",
                value,
                "must be an object",
                "Such as {\"ghcr.io/devcontainers/features/node:1\": {}}.",
            );
        };
        for property in &object.properties {
            let reference = property.name.as_str();
            let path = format!("features.{reference}");
            if reference.starts_with('.') || reference.starts_with("http") {
                self.fault(
                    &path,
                    &property.value,
                    "is not in a registry",
                    "Only features of registries are supported. Write what it does as `onCreateCommand`.",
                );
                continue;
            }
            let mut feature = FeatureDefinition {
                reference: reference.to_owned(),
                options: Default::default(),
            };
            match &property.value {
                // Short for its version.
                Value::StringLit(version) => {
                    feature
                        .options
                        .insert("version".to_owned(), version.value.to_string());
                }
                Value::Object(options) => {
                    for option in &options.properties {
                        let text = match &option.value {
                            Value::StringLit(text) => text.value.to_string(),
                            Value::BooleanLit(is_set) => is_set.value.to_string(),
                            Value::NumberLit(number) => number.value.to_owned(),
                            value => {
                                let path = format!("{path}.{}", option.name.as_str());
                                self.fault(
                                    &path,
                                    value,
                                    "must be a text or true or false",
                                    "See the feature's own description.",
                                );
                                continue;
                            }
                        };
                        feature.options.insert(option.name.as_str().to_owned(), text);
                    }
                }
                Value::BooleanLit(_) | Value::NullKeyword(_) => {}
                value => self.fault(&path, value, "must be an object of options", "Write {} for none."),
            }
            self.environment.features.push(feature);
        }
    }

    fn requirements(&mut self, value: &Value<'_>) {
        let Value::Object(object) = value else {
            return self.fault(
                "hostRequirements",
                value,
                "must be an object",
                "Such as {\"cpus\": 4}.",
            );
        };
        for property in &object.properties {
            let (name, value) = (property.name.as_str(), &property.value);
            let path = format!("hostRequirements.{name}");
            match (name, value) {
                ("cpus", Value::NumberLit(number)) => {
                    self.environment.resources.cpus = number.value.parse().ok()
                }
                ("memory" | "storage", Value::StringLit(text)) => match mebibytes(&text.value) {
                    Some(amount) if name == "memory" => self.environment.resources.memory_mb = Some(amount),
                    Some(amount) => self.environment.resources.disk_mb = Some(amount),
                    None => self.fault(&path, value, "is no size", "Such as \"8gb\"."),
                },
                ("cpus" | "memory" | "storage", value) => {
                    self.fault(
                        &path,
                        value,
                        "has the wrong type",
                        "Such as {\"cpus\": 4, \"memory\": \"8gb\"}.",
                    );
                }
                _ => self.notice(&path, "is not supported and is not used"),
            }
        }
    }

    fn notice(&mut self, name: &str, what: &str) {
        let name = plain(name);
        let problem = Problem::permanent(
            "devcontainer_unsupported",
            format!("{}: {name} {what}.", self.place),
        );
        self.notices.push(
            problem.with_hint("An environment of `.greenroom/environment.toml` says everything there is."),
        );
    }

    /// Counted from 1.
    fn line(&self, value: &Value<'_>) -> usize {
        let before = &self.text.as_bytes()[..value.range().start.min(self.text.len())];
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    }

    fn fault(&mut self, name: &str, value: &Value<'_>, message: &str, hint: &str) {
        self.faults.push(Fault {
            path: field(&plain(name)),
            line: Some(self.line(value)),
            message: message.to_owned(),
            hint: Some(hint.to_owned()),
        });
    }
}

fn field(name: &str) -> Path {
    Path(vec![Step::Field(name.to_owned())])
}

/// A name of the file as it can be shown.
fn plain(name: &str) -> String {
    let shown = name
        .chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter });
    shown.take(100).collect()
}

/// A word of `sh`.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// `8gb`, `512 mb`, or bytes.
fn mebibytes(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic() || letter == ' ');
    let number: u64 = digits.parse().ok()?;
    let bytes: u64 = match text[digits.len()..].trim() {
        "" => 1,
        "kb" => 1 << 10,
        "mb" => 1 << 20,
        "gb" => 1 << 30,
        "tb" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(bytes).map(|bytes| bytes >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<DevContainer, Vec<String>> {
        read_devcontainer("dc.json", text.as_bytes())
            .map_err(|error| error.lines().map(|(line, _)| line).collect())
    }

    #[test]
    fn what_is_understood_becomes_an_environment() {
        let found = read(
            r#"{
            // Comments and trailing commas are usual.
            "name": "Shop",
            "image": "mcr.microsoft.com/devcontainers/base:debian",
            "features": {
                "ghcr.io/devcontainers/features/node:1": { "version": "20", "pnpm": true },
                "ghcr.io/devcontainers/features/git:1": "latest",
            },
            "onCreateCommand": ["npm", "ci", "it's"],
            "updateContentCommand": { "one": "make a", "two": ["make", "b"] },
            "postCreateCommand": "make -C ${containerWorkspaceFolder} test",
            "postStartCommand": "redis-server",
            "containerEnv": { "TEAM": "checkout", "GONE": null },
            "remoteUser": "vscode",
            "containerUser": "root",
            "hostRequirements": { "cpus": 4, "memory": "8gb", "storage": "32gb", "gpu": true },
            "forwardPorts": [3000],
            "customizations": { "vscode": {} },
            "mounts": ["x"],
        }"#,
        )
        .unwrap();
        let environment = found.environment;
        assert_eq!(
            environment.base.as_deref(),
            Some("oci:mcr.microsoft.com/devcontainers/base:debian")
        );
        assert_eq!(environment.features.len(), 2);
        assert_eq!(environment.features[0].options["pnpm"], "true");
        assert_eq!(environment.features[1].options["version"], "latest");
        assert_eq!(environment.setup.unwrap().run, r"'npm' 'ci' 'it'\''s'");
        assert_eq!(
            environment.build.unwrap().run,
            "(\nmake a\n) &&\n(\n'make' 'b'\n)"
        );
        assert_eq!(environment.warm.unwrap().run, "make -C /workspace test");
        assert_eq!(environment.services[0].command, "redis-server");
        assert_eq!(environment.variables["TEAM"], "checkout");
        assert_eq!(environment.variables.len(), 1);
        assert_eq!(environment.user.as_deref(), Some("vscode"));
        assert_eq!(environment.resources.memory_mb, Some(8192));
        assert_eq!(environment.resources.disk_mb, Some(32768));
        let named: Vec<_> = found
            .notices
            .iter()
            .map(|notice| notice.message.split(' ').nth(1).unwrap().to_owned())
            .collect();
        assert_eq!(
            named,
            ["hostRequirements.gpu", "forwardPorts", "customizations", "mounts"]
        );
    }

    #[test]
    fn errors_name_line_and_field() {
        for (text, expected) in [
            ("{\n\"image\": 5\n}", "dc.json:2: image: must be a text"),
            (
                "{\n\n\"build\": {\"dockerfile\": \"x\"}}",
                "dc.json:3: build: is not supported",
            ),
            ("{\"name\": \"x\"}", "dc.json:1: image: is missing"),
            (
                "{\"image\": \"a\",\n\"features\": {\n\"./local\": {}}}",
                "dc.json:3: features../local: is not in a registry",
            ),
            (
                "{\"image\": \"a\",\n\"onCreateCommand\": 5}",
                "dc.json:2: onCreateCommand: must be a command",
            ),
            (
                "{\"image\": \"a\",\n\"containerEnv\": {\n\"A\": \"${localEnv:HOME}\"}}",
                "dc.json:3: containerEnv.A: uses a variable",
            ),
            (
                "{\"image\": \"a\",\n\"hostRequirements\": {\"memory\": \"much\"}}",
                "dc.json:2: hostRequirements.memory: is no size",
            ),
            ("{\n\"image\": \"a\"\n\"name\": \"b\"}", "dc.json:"),
            ("[]", "dc.json:1: is not an object"),
            ("", "dc.json:1: is not an object"),
        ] {
            let faults = read(text).unwrap_err();
            assert!(faults[0].starts_with(expected), "{text}: {faults:?}");
        }
    }
}
