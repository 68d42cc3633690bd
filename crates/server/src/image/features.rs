//! Dev container features in an image: from what a registry has to a script that installs them
//! (<https://containers.dev/implementors/features/>). Pure.

use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::environment::FeatureDefinition;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Parts of a description that are not followed.
const UNSUPPORTED: [&str; 12] = [
    "mounts",
    "privileged",
    "capAdd",
    "securityOpt",
    "entrypoint",
    "dependsOn",
    "init",
    "onCreateCommand",
    "updateContentCommand",
    "postCreateCommand",
    "postStartCommand",
    "postAttachCommand",
];

/// Variables of one feature, and the longest value in bytes.
const MAX_VARIABLES: usize = 100;
const MAX_VALUE_BYTES: usize = 4096;

/// Archives of all features of one image, in bytes.
pub const MAX_ARCHIVES_BYTES: usize = 64 << 20;

/// A feature to install.
#[derive(Debug, Clone, PartialEq)]
pub struct Feature {
    definition: FeatureDefinition,
    archive: Vec<u8>,
    description: Description,
    /// Parts of its description that are not followed.
    unsupported: Vec<&'static str>,
}

/// What `devcontainer-feature.json` says, as far as it matters.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Description {
    options: BTreeMap<String, OptionDescription>,
    container_env: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
struct OptionDescription {
    default: serde_json::Value,
}

impl Feature {
    /// Of an archive and the description in it.
    pub fn new(
        definition: FeatureDefinition,
        archive: Vec<u8>,
        description: Option<&[u8]>,
    ) -> Result<Self, Problem> {
        let invalid = |why: String| {
            let message = format!("The feature {} cannot be used: {why}.", definition.reference);
            Problem::permanent("feature_invalid", message)
                .with_hint("Name a dev container feature; https://containers.dev/features lists them.")
        };
        let text = description.ok_or_else(|| invalid("it has no devcontainer-feature.json".to_owned()))?;
        let whole: serde_json::Value =
            serde_json::from_slice(text).map_err(|error| invalid(error.to_string()))?;
        let is_there = |name: &&str| whole.get(*name).is_some_and(|value| !is_empty(value));
        let unsupported = UNSUPPORTED.into_iter().filter(is_there).collect();
        let description: Description =
            serde_json::from_value(whole).map_err(|error| invalid(error.to_string()))?;
        for (name, value) in &description.container_env {
            if !is_variable(name, value) {
                let shown: String = name.chars().take(50).collect();
                return Err(invalid(format!("its variable {shown:?} cannot be set")));
            }
        }
        if description.container_env.len() > MAX_VARIABLES {
            return Err(invalid("it sets too many variables".to_owned()));
        }
        Ok(Self {
            definition,
            archive,
            description,
            unsupported,
        })
    }

    /// Of its archive, in bytes.
    pub fn size_bytes(&self) -> usize {
        self.archive.len()
    }

    /// Name and content of the file by which it comes into the sandbox.
    pub fn file(&self, number: usize) -> (String, Vec<u8>) {
        (format!("feature-{number}.tar"), self.archive.clone())
    }

    /// A line for each part that is not followed.
    pub fn remarks(&self) -> impl Iterator<Item = String> {
        let reference = &self.definition.reference;
        self.unsupported
            .iter()
            .map(move |part| format!("{reference}: its `{part}` is not supported and not followed"))
    }

    /// Options by the names of their variables: what was asked for, else their defaults.
    fn options(&self) -> BTreeMap<String, String> {
        let defaults = self.description.options.iter().filter_map(|(name, option)| {
            let text = match &option.default {
                serde_json::Value::String(text) => text.clone(),
                serde_json::Value::Bool(is_set) => is_set.to_string(),
                _ => return None,
            };
            Some((variable(name), text))
        });
        let asked = self.definition.options.iter();
        defaults
            .chain(asked.map(|(name, value)| (variable(name), value.clone())))
            .collect()
    }
}

/// Whether a feature may set a variable: not those of the platform and of the git that it runs.
fn is_variable(name: &str, value: &str) -> bool {
    let is_name = (1..=100).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !name.starts_with(|first: char| first.is_ascii_digit());
    let is_ours = name.starts_with("GREENROOM_") || name.starts_with("GIT_");
    is_name && !is_ours && value.len() <= MAX_VALUE_BYTES && !value.contains('\0')
}

fn is_empty(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Null | serde_json::Value::Bool(false) => true,
        serde_json::Value::Array(list) => list.is_empty(),
        serde_json::Value::Object(object) => object.is_empty(),
        _ => false,
    }
}

/// The variable that an option is given by.
fn variable(option: &str) -> String {
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let name: String = option
        .chars()
        .map(|letter| if is_word(letter) { letter } else { '_' })
        .collect();
    let rest = name.trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == '_');
    match rest.len() == name.len() {
        true => name.to_ascii_uppercase(),
        false => format!("_{}", rest.to_ascii_uppercase()),
    }
}

/// Installs all of them, one after the other; ends at the first that fails.
pub fn script(features: &[Feature]) -> String {
    let mut script =
        "set -e\nexport _REMOTE_USER=\"$USER\" _REMOTE_USER_HOME=\"$HOME\" _CONTAINER_USER=\"$USER\" \
                      _CONTAINER_USER_HOME=\"$HOME\" DEBIAN_FRONTEND=noninteractive\n"
            .to_owned();
    for (number, feature) in features.iter().enumerate() {
        let options = feature.options();
        let options = options
            .iter()
            .map(|(name, value)| format!("export {name}={}", quoted(value)));
        script.push_str(&format!(
            "echo {name}\nplace=$(mktemp -d)\ntar -xf /etc/greenroom/feature-{number}.tar -C \"$place\"\n(\ncd \"$place\"\n{options}\n\
             chmod +x install.sh\n./install.sh\n)\nrm -rf \"$place\"\n",
            name = quoted(&format!("==> {}", feature.definition.reference)),
            options = options.collect::<Vec<_>>().join("\n"),
        ));
    }
    script
}

/// Variables that they want for everything in the sandbox, in their order.
pub fn variables(features: &[Feature]) -> Vec<(String, String)> {
    let of_each = features
        .iter()
        .flat_map(|feature| &feature.description.container_env);
    of_each
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// A word of `sh`.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_variables() {
        for (option, expected) in [
            ("version", "VERSION"),
            ("nodeGypDependencies", "NODEGYPDEPENDENCIES"),
            ("install-tools", "INSTALL_TOOLS"),
            ("1st", "_ST"),
        ] {
            assert_eq!(variable(option), expected);
        }
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let definition = FeatureDefinition {
            reference: "r".to_owned(),
            options: BTreeMap::from([("version".to_owned(), "it's 20".to_owned())]),
        };
        let description = br#"{"id": "x", "options": {"version": {"type": "string", "default": "lts"}, "fast": {"type": "boolean", "default": true}},
            "containerEnv": {"PATH": "/opt/x/bin:${PATH}"}, "mounts": ["x"], "capAdd": []}"#;
        let feature = Feature::new(definition.clone(), Vec::new(), Some(description)).unwrap();
        let text = script(std::slice::from_ref(&feature));
        assert!(
            text.contains("export FAST='true'\nexport VERSION='it'\\''s 20'\n"),
            "{text}"
        );
        assert_eq!(feature.remarks().count(), 1);
        assert_eq!(
            variables(&[feature]),
            [("PATH".to_owned(), "/opt/x/bin:${PATH}".to_owned())]
        );
        let sets = |name: &str| format!(r#"{{"containerEnv": {{"{name}": "x"}}}}"#);
        for name in ["GIT_DIR", "GREENROOM_X", "A=B", "1A", ""] {
            let refused = Feature::new(definition.clone(), Vec::new(), Some(sets(name).as_bytes()));
            assert_eq!(refused.unwrap_err().code, "feature_invalid", "{name}");
        }
        assert_eq!(
            Feature::new(definition.clone(), Vec::new(), None)
                .unwrap_err()
                .code,
            "feature_invalid"
        );
        assert_eq!(
            Feature::new(definition, Vec::new(), Some(b"{")).unwrap_err().code,
            "feature_invalid"
        );
    }
}
