//! What is known of a snapshot, as it lies on disk.

use greenroom_protocol::id::{LayerId, SandboxId, SnapshotId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A snapshot: the files of one sandbox at one moment, as layers over the base. Immutable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    pub id: SnapshotId,
    /// Whose files it has; `None`: of an image that was pulled.
    pub sandbox: Option<SandboxId>,
    /// Topmost first; below them is the host's base, unless they are a root of their own.
    pub layers: Vec<LayerId>,
    /// How many of them, at the bottom, the sandbox itself was started from.
    pub given: usize,
    /// Milliseconds since 1970.
    pub created_at_ms: i64,
    /// Whether root made it: attributes of layers differ, and nobody else can read them.
    pub by_root: bool,
    /// Run of the machine in which it was made (`/proc/sys/kernel/random/boot_id`).
    pub boot: String,
    /// Whether it is on disk for good. One that is not is worth nothing after a power cut.
    pub is_durable: bool,
    /// Set if the host's base is not below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<OwnRoot>,
    /// What a registry had with it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Where programs are looked for in a root that does not say it.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Longest value of a variable, in bytes.
const MAX_VARIABLE_BYTES: usize = 32 * 1024;

/// What is known of layers that are a whole root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnRoot {
    /// From where they came, with a digest, such as `docker.io/library/debian@sha256:…`.
    pub source: String,
    /// Environment of programs, as the image says.
    pub variables: Vec<(String, String)>,
    /// The user as whom the image wants its programs run: a name or a number, with an optional `:GROUP`; empty: root.
    pub user: String,
    /// Home directories of its users, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub homes: BTreeMap<String, String>,
}

impl OwnRoot {
    /// With more variables. In them `${NAME}` stands for what a variable was before; one that gets too long by that is left out.
    pub fn with_variables(mut self, added: &[(String, String)]) -> Self {
        for (name, value) in added {
            let Some(value) = self.expanded(value) else {
                tracing::warn!(name, "a variable of an image is too long and is left out");
                continue;
            };
            match self.variables.iter_mut().find(|(known, _)| known == name) {
                Some(known) => known.1 = value,
                None => self.variables.push((name.clone(), value)),
            }
        }
        self
    }

    /// What is put in is not looked into again.
    fn expanded(&self, value: &str) -> Option<String> {
        let mut expanded = String::new();
        let mut rest = value;
        while let Some((before, after)) = rest.split_once("${") {
            expanded.push_str(before);
            let known = after.split_once('}').and_then(|(name, after)| {
                let known = self.variables.iter().find(|(known, _)| known == name);
                let value = match known {
                    Some((_, value)) => value.as_str(),
                    None if name == "PATH" => DEFAULT_PATH,
                    None => return None,
                };
                Some((value, after))
            });
            let (put_in, after) = known.unwrap_or(("${", after));
            expanded.push_str(put_in);
            rest = after;
            if expanded.len() > MAX_VARIABLE_BYTES {
                return None;
            }
        }
        expanded.push_str(rest);
        (expanded.len() <= MAX_VARIABLE_BYTES).then_some(expanded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_build_on_those_before_and_stay_short() {
        let root = OwnRoot {
            source: String::new(),
            variables: vec![("PATH".to_owned(), "/usr/bin".to_owned())],
            user: String::new(),
            homes: BTreeMap::new(),
        };
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let found = root.clone().with_variables(&[
            pair("PATH", "/opt/bin:${PATH}"),
            pair("OTHER", "${NONE} ${PATH} ${"),
        ]);
        assert_eq!(found.variables[0].1, "/opt/bin:/usr/bin");
        assert_eq!(found.variables[1].1, "${NONE} /opt/bin:/usr/bin ${");
        let doubling: Vec<_> = (0..100).map(|_| pair("PATH", "${PATH}${PATH}")).collect();
        assert!(root.with_variables(&doubling).variables[0].1.len() <= MAX_VARIABLE_BYTES);
    }
}
